/** A whole site in a process of its own, started as `syncline serve` starts it, for tests that kill it. */
import { type ChildProcess, spawn } from 'node:child_process'
import { mkdtemp, readFile, rm } from 'node:fs/promises'
import { request as httpRequest } from 'node:http'
import { request as httpsRequest } from 'node:https'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { asUser, plainEnvironment } from './environment.ts'
import { freePort, type Owner } from './postgres.ts'

export type SiteProcess = {
  readonly name: string
  readonly url: string
  readonly dataDir: string
  /** Environment of the next start. */
  readonly env: NodeJS.ProcessEnv
  /** What the site wrote to standard output, all starts together. */
  readonly lines: readonly string[]
  /** A request to /api/v1 with the administrator's token; throws for any failure with the problem document. */
  readonly api: <T = Record<string, unknown>>(
    method: string,
    path: string,
    body?: unknown,
    headers?: Record<string, string>,
  ) => Promise<T>
  /** Starts one run with a peer and waits for its end. */
  readonly sync: (peer: string) => Promise<RunView>
  readonly start: () => Promise<void>
  /** SIGKILL: nothing is ended, nothing is written. */
  readonly kill: () => Promise<void>
  /** SIGTERM; gives the exit code. */
  readonly stop: () => Promise<number | null>
  readonly signal: (name: NodeJS.Signals) => void
}

export type RunView = {
  readonly id: string
  readonly state: string
  readonly result: string | null
  readonly code: string | null
  readonly message: string | null
  readonly counts: Readonly<Record<string, number>>
  readonly finishedAt: string | null
}

const MAIN = join(import.meta.dirname, '../../src/cli/main.ts')

export async function startSiteProcess(
  t: Owner,
  options: {
    readonly name: string
    readonly databaseUrl?: string
    readonly env?: Readonly<Record<string, string>>
    /** Authority of its certificate, for a site that speaks TLS. */
    readonly ca?: string
    /** Where its administrator's token is, for a database that had a site before. */
    readonly tokenFile?: string
  },
): Promise<SiteProcess> {
  const dataDir = await mkdtemp(join(tmpdir(), `syncline-${options.name}-`))
  const port = await freePort()
  const lines: string[] = []
  let child: ChildProcess | undefined
  const env: NodeJS.ProcessEnv = {
    ...plainEnvironment(),
    SYNCLINE_DATA_DIR: dataDir,
    SYNCLINE_NAME: options.name,
    SYNCLINE_PORT: String(port),
    ...(options.databaseUrl !== undefined && { SYNCLINE_DATABASE_URL: options.databaseUrl }),
    ...options.env,
  }
  const ended = async (process: ChildProcess) => {
    if (process.exitCode === null && process.signalCode === null)
      await new Promise((resolve) => process.once('exit', resolve))
  }
  const start = async () => {
    const started = spawn(...asUser(process.execPath, [MAIN, 'serve']), { env, stdio: ['ignore', 'pipe', 'pipe'] })
    child = started
    let rest = ''
    const begun = Promise.withResolvers<void>()
    started.stdout.on('data', (chunk: Buffer) => {
      const parts = (rest + chunk.toString()).split('\n')
      rest = parts.pop() ?? ''
      lines.push(...parts)
      if (parts.some((line) => line.includes('"event":"site.started"'))) begun.resolve()
    })
    started.stderr.on('data', (chunk: Buffer) => lines.push(`stderr: ${chunk}`))
    started.once('exit', (code, signal) =>
      begun.reject(new Error(`${options.name} ended with ${code ?? signal}:\n${lines.slice(-20).join('\n')}`)),
    )
    await begun.promise
  }
  t.teardown(async () => {
    if (child !== undefined) {
      child.kill('SIGKILL')
      await ended(child)
    }
    await rm(dataDir, { recursive: true, force: true })
  })
  await start()
  const url = `${options.ca === undefined ? 'http' : 'https'}://127.0.0.1:${port}`
  const token = (await readFile(options.tokenFile ?? join(dataDir, 'admin.token'), 'utf8')).trim()

  const api: SiteProcess['api'] = async (method, path, body, headers = {}) => {
    const { status, text } = await ask(`${url}/api/v1${path}`, {
      method,
      headers: {
        authorization: `Bearer ${token}`,
        ...(body !== undefined && { 'content-type': 'application/json' }),
        ...headers,
      },
      body: body === undefined ? '' : JSON.stringify(body),
      ca: options.ca,
    })
    if (status >= 300) throw new Error(`${options.name}: ${method} ${path}: ${status} ${text}`)
    return (text === '' ? {} : JSON.parse(text)) as never
  }
  return {
    name: options.name,
    url,
    dataDir,
    env,
    lines,
    api,
    sync: async (peer) => {
      const { runs } = await api<{ runs: { runId: string }[] }>('POST', '/sync', { peer })
      for (;;) {
        const run = await api<RunView>('GET', `/runs/${runs[0]?.runId}`)
        if (run.finishedAt !== null) return run
        await sleep(30)
      }
    },
    start,
    kill: async () => {
      const killed = child
      killed?.kill('SIGKILL')
      if (killed !== undefined) await ended(killed)
    },
    stop: async () => {
      const stopped = child
      if (stopped === undefined) return null
      stopped.kill('SIGTERM')
      await ended(stopped)
      return stopped.exitCode
    },
    signal: (name) => void child?.kill(name),
  }
}

type Question = {
  readonly method: string
  readonly headers: Record<string, string>
  readonly body: string
  readonly ca?: string | undefined
}

/** One request. Not fetch, which cannot be told to trust an authority. */
function ask(url: string, { body, ...options }: Question): Promise<{ readonly status: number; readonly text: string }> {
  return new Promise((resolve, reject) => {
    const request = url.startsWith('https:') ? httpsRequest : httpRequest
    const sent = request(url, options, (answer) => {
      const chunks: Buffer[] = []
      answer.on('data', (chunk: Buffer) => chunks.push(chunk))
      answer.on('error', reject)
      answer.on('end', () => resolve({ status: answer.statusCode ?? 0, text: Buffer.concat(chunks).toString() }))
    })
    sent.on('error', reject)
    sent.end(body)
  })
}
