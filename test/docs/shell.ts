import { type ChildProcess, spawn } from 'node:child_process'
import { mkdir, mkdtemp, readFile, rm, symlink } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { asUser, plainEnvironment } from '../support/environment.ts'
import type { Owner } from '../support/postgres.ts'

export const ROOT = join(import.meta.dirname, '../..')
const START_MS_MAX = 60_000
const LOG_LINES_SHOWN = 30

/** A folder in which the shell blocks of a page run as they are written, with `bin/syncline` in it and on PATH. */
export type Shell = {
  readonly folder: string
  /** Runs a block to its end and gives what it wrote to standard output. Throws with everything it said when it fails. */
  readonly run: (block: string) => Promise<string>
  /** Starts a command that goes on; resolves when the site whose data folder is `dataDir` answers, with its address. */
  readonly serve: (block: string, dataDir: string) => Promise<string>
}

/** `path` is what stands before PATH, such as the folder of the PostgreSQL programs. */
export async function openShell(t: Owner, env: NodeJS.ProcessEnv = {}, path: readonly string[] = []): Promise<Shell> {
  const folder = await mkdtemp(join(tmpdir(), 'syncline-guide-'))
  const started: ChildProcess[] = []
  const logs: string[] = []
  t.teardown(async () => {
    await Promise.all(started.map(stop))
    await rm(folder, { recursive: true, force: true })
  })
  await mkdir(join(folder, 'bin'))
  await symlink(join(ROOT, 'bin/syncline'), join(folder, 'bin/syncline'))
  await symlink(join(ROOT, 'openapi'), join(folder, 'openapi'))
  const PATH = [join(folder, 'bin'), ...path, process.env.PATH].join(':')
  const start = (block: string) =>
    spawn(...asUser('bash', ['-euo', 'pipefail', '-c', block]), {
      cwd: folder,
      env: { ...plainEnvironment(), ...env, PATH },
      stdio: ['ignore', 'pipe', 'pipe'],
    })
  return {
    folder,
    run: async (block) => {
      const child = start(block)
      const output = { stdout: '', stderr: '' }
      child.stdout.on('data', (data) => {
        output.stdout += data
      })
      child.stderr.on('data', (data) => {
        output.stderr += data
      })
      const code = await new Promise((resolve) => child.once('close', resolve))
      if (code !== 0) {
        const log = logs.join('').split('\n').slice(-LOG_LINES_SHOWN).join('\n')
        throw new Error(`exit code ${code} of\n${block}\n${output.stdout}${output.stderr}\n${log}`)
      }
      return output.stdout
    },
    serve: async (block, dataDir) => {
      // exec: the signal that ends the test is for the site, not for a shell before it.
      const child = start(`exec ${block}`)
      started.push(child)
      let said = ''
      for (const stream of [child.stdout, child.stderr]) {
        stream.on('data', (data) => {
          said += data
          logs.push(String(data))
        })
      }
      for (let waited = 0; waited < START_MS_MAX && child.exitCode === null; waited += 50) {
        const address = await readFile(join(folder, dataDir, 'address'), 'utf8').catch(() => '')
        if (address !== '') return address.trim()
        await sleep(50)
      }
      throw new Error(`the site did not start:\n${block}\n${said}`)
    },
  }
}

async function stop(child: ChildProcess): Promise<void> {
  if (child.exitCode !== null || child.signalCode !== null) return
  const ended = new Promise((resolve) => child.once('exit', resolve))
  child.kill('SIGTERM')
  const late = setTimeout(() => child.kill('SIGKILL'), 10_000)
  await ended
  clearTimeout(late)
}

/** The shell blocks of a page, or of one of its sections, in order. */
export async function shellBlocks(page: string, section?: string): Promise<string[]> {
  const text = await readFile(join(ROOT, page), 'utf8')
  const sections = text.split(/^(?=## )/m)
  const part = section === undefined ? text : sections.find((each) => each.startsWith(`## ${section}\n`))
  if (part === undefined) throw new Error(`${page} has no section "${section}"`)
  return [...part.matchAll(/^```sh\n([\s\S]*?)^```/gm)].map(([, block = '']) => block)
}
