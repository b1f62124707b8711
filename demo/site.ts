import { spawn } from 'node:child_process'
import { closeSync, openSync } from 'node:fs'
import { mkdir, readFile, rm, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { createInterface } from 'node:readline'
import { Readable } from 'node:stream'
import { setTimeout as sleep } from 'node:timers/promises'

const LAUNCHER = join(import.meta.dirname, '../bin/syncline')
const START_MS_MAX = 120_000
const STOP_MS_MAX = 15_000
const LOG_LINES_SHOWN = 15

/** A site in a process of its own, with its own database, driven through its HTTP API like any other program would. */
export type Site = {
  readonly name: string
  readonly url: string
  readonly pid: number
  readonly folder: string
  readonly tokenFile: string
  readonly logFile: string
  /** One request below /api/v1. Throws with what the site said when it did not succeed. */
  readonly call: <T>(method: string, path: string, body?: unknown) => Promise<T>
  readonly change: (path: string, body: unknown) => Promise<void>
  /** A body of its own media type, such as NDJSON. */
  readonly send: <T>(path: string, type: string, body: string) => Promise<T>
  /** Lines of an answer in NDJSON, as they come. */
  readonly lines: (path: string) => AsyncIterable<string>
  readonly stop: () => Promise<void>
  /** Lets this process end before the site does. */
  readonly release: () => void
}

/** Starts a site in a folder below `home` on a free port, and resolves when it answers. `signal` ends a start that is under way. */
export async function startSite(home: string, name: string, signal: AbortSignal): Promise<Site> {
  const folder = join(home, name)
  const logFile = join(home, `${name}.log`)
  await mkdir(folder, { recursive: true })
  const log = openSync(logFile, 'w')
  const flags = ['--name', name, '--data-dir', folder, '--port', '0', '--log-level', 'info']
  // A process group of its own: Ctrl-C reaches the demo alone, which then stops both sites in order.
  const child = spawn(LAUNCHER, ['serve', ...flags], {
    cwd: home,
    env: environment(),
    detached: true,
    stdio: ['ignore', log, log],
  })
  closeSync(log)
  const pid = child.pid
  if (pid === undefined) throw new Error(`${LAUNCHER} could not be started`)
  await writeFile(pidFile(home, name), `${pid}\n`)
  let ended = false
  const end = new Promise<void>((resolve) => child.once('exit', () => resolve()))
  void end.then(() => {
    ended = true
  })
  const stop = async () => {
    if (!ended) child.kill('SIGTERM')
    await Promise.race([end, sleep(STOP_MS_MAX, undefined, { ref: false })])
    if (!ended) child.kill('SIGKILL')
    await end
    await rm(pidFile(home, name), { force: true })
  }
  const tokenFile = join(folder, 'admin.token')
  const [url, token] = await Promise.all([
    appears(join(folder, 'address'), () => ended || signal.aborted),
    appears(tokenFile, () => ended || signal.aborted),
  ]).catch(async (cause: unknown) => {
    await stop()
    throw new Error(`the site ${name} did not start; its log ends with:\n${await logEnd(logFile)}`, { cause })
  })

  async function open(method: string, path: string, headers: Record<string, string>, body?: string): Promise<Response> {
    const init = {
      method,
      headers: { authorization: `Bearer ${token}`, ...headers },
      ...(body !== undefined && { body }),
    }
    const answer = await fetch(`${url}/api/v1${path}`, init)
    if (answer.ok) return answer
    throw new Error(`${name}: ${method} ${path}: ${answer.status} ${await answer.text()}`)
  }
  async function request<T>(method: string, path: string, type?: string, body?: string): Promise<T> {
    const answer = await open(method, path, type === undefined ? {} : { 'content-type': type }, body)
    const text = await answer.text()
    return (text === '' ? undefined : JSON.parse(text)) as T
  }
  async function* lines(path: string): AsyncIterable<string> {
    const { body } = await open('GET', path, { accept: 'application/x-ndjson' })
    if (body !== null) yield* createInterface({ input: Readable.fromWeb(body) })
  }
  /** Changes a thing as it is now: whoever changed it in between is not overruled. */
  async function change(path: string, body: unknown): Promise<void> {
    const now = await open('GET', path, {})
    const headers = { 'content-type': 'application/json', 'if-match': now.headers.get('etag') ?? '*' }
    await open('PATCH', path, headers, JSON.stringify(body))
  }
  const json = (body: unknown) => (body === undefined ? [] : ['application/json', JSON.stringify(body)])
  return {
    name,
    url,
    pid,
    folder,
    tokenFile,
    logFile,
    call: (method, path, body) => request(method, path, ...json(body)),
    send: (path, type, body) => request('POST', path, type, body),
    change,
    lines,
    stop,
    release: () => child.unref(),
  }
}

function pidFile(home: string, name: string): string {
  return join(home, `${name}.pid`)
}

/** Settings of the person who runs the demo must not reach its sites. */
function environment(): NodeJS.ProcessEnv {
  return Object.fromEntries(Object.entries(process.env).filter(([name]) => !name.toUpperCase().startsWith('SYNCLINE_')))
}

/** The only line of a file that a starting site writes. */
async function appears(file: string, ended: () => boolean): Promise<string> {
  const until = performance.now() + START_MS_MAX
  while (performance.now() < until && !ended()) {
    const text = await readFile(file, 'utf8').catch(() => '')
    if (text.trim() !== '') return text.trim()
    await sleep(50)
  }
  throw new Error(`${file} was not written`)
}

async function logEnd(file: string): Promise<string> {
  const text = await readFile(file, 'utf8').catch(() => '')
  return text.trimEnd().split('\n').slice(-LOG_LINES_SHOWN).join('\n')
}

/**
 * Ends the sites of `home` and removes it when this process ends in whatever way: a process of its own that waits for the end of its standard
 * input. `keep` tells it to leave everything as it is.
 */
export function guardHome(home: string): { readonly keep: () => void } {
  const script =
    'read -r word && [ "$word" = keep ] && exit; for f in "$1"/*.pid; do [ -e "$f" ] && kill -9 "$(cat "$f")"; done; sleep 0.2; rm -rf "$1"'
  const guard = spawn('/bin/sh', ['-c', script, 'sh', home], {
    cwd: '/',
    detached: true,
    stdio: ['pipe', 'ignore', 'ignore'],
  })
  guard.unref()
  return { keep: () => guard.stdin.end('keep\n') }
}
