import { spawn } from 'node:child_process'
import { mkdtemp, readFile, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import type { Owner } from '../test/support/postgres.ts'

const LAUNCHER = new URL('../bin/syncline', import.meta.url).pathname
const START_TRIES = 300

/** A site in a process of its own, driven through its HTTP API like any client. */
export type BenchSite = {
  readonly name: string
  readonly pid: number
  readonly url: string
  call<T>(method: string, path: string, body?: unknown): Promise<T>
  /** Resident memory now, in MiB. */
  residentMiB(): Promise<number>
  stop(): Promise<void>
}

export async function startSite(owner: Owner, name: string, databaseUrl: string): Promise<BenchSite> {
  const folder = await mkdtemp(join(tmpdir(), `syncline-bench-${name}-`))
  const child = spawn(
    LAUNCHER,
    [
      'serve',
      '--name',
      name,
      '--data-dir',
      folder,
      '--database-url',
      databaseUrl,
      '--port',
      '0',
      '--log-level',
      'warn',
    ],
    {
      stdio: ['ignore', 'ignore', 'inherit'],
    },
  )
  const ended = new Promise<void>((resolve) => child.once('exit', () => resolve()))
  const stop = async () => {
    child.kill('SIGTERM')
    await ended
    await rm(folder, { recursive: true, force: true })
  }
  owner.teardown(stop)
  const url = await appears(join(folder, 'address'), () => child.exitCode)
  const token = await appears(join(folder, 'admin.token'), () => child.exitCode)
  const pid = child.pid ?? 0
  return {
    name,
    pid,
    url,
    stop,
    async call<T>(method: string, path: string, body?: unknown): Promise<T> {
      const response = await fetch(new URL(path, url), {
        method,
        headers: {
          authorization: `Bearer ${token}`,
          prefer: 'wait',
          ...(method === 'PUT' || method === 'DELETE' ? { 'if-match': '*' } : {}),
          ...(body === undefined ? {} : { 'content-type': 'application/json' }),
        },
        ...(body === undefined ? {} : { body: JSON.stringify(body) }),
      })
      const text = await response.text()
      if (!response.ok) throw new Error(`${name}: ${method} ${path}: ${response.status} ${text}`)
      return (text === '' ? undefined : JSON.parse(text)) as T
    },
    async residentMiB() {
      const status = await readFile(`/proc/${pid}/status`, 'utf8')
      return Number(/VmRSS:\s+(\d+)/.exec(status)?.[1] ?? 0) / 1024
    },
  }
}

async function appears(file: string, exitCode: () => number | null): Promise<string> {
  for (let tries = 0; tries < START_TRIES && exitCode() === null; tries++) {
    const text = await readFile(file, 'utf8').catch(() => '')
    if (text.trim() !== '') return text.trim()
    await sleep(100)
  }
  throw new Error(`the site did not write ${file}`)
}
