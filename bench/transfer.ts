import { spawn } from 'node:child_process'
import { randomBytes } from 'node:crypto'
import {
  chmodSync,
  copyFileSync,
  mkdirSync,
  mkdtempSync,
  openSync,
  rmSync,
  utimesSync,
  writeFileSync,
  writeSync,
} from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { createSsh, planTransfer, runTransfer, type Transfer } from '../src/adapters/index.ts'
import type { Owner } from '../test/support/postgres.ts'
import { startHosts, type TestHost } from '../test/support/sshd.ts'
import { type Figure, median, say } from './report.ts'

const FILES = 10_000
const LARGE_BYTES = 512 * 1024 * 1024
const BLOCK = 4096
const ROUNDS = 7

type Case = {
  readonly what: string
  readonly transfer: Transfer
  /** Puts the destination back to what it was. */
  readonly reset: () => void
  readonly most: number
}

/** What a transfer costs beside the same rsync started by hand: many small files, and a large one of which a hundredth changed. */
export async function benchTransfer(owner: Owner): Promise<Figure[]> {
  const { backup } = await startHosts(owner, ['backup'])
  const folder = mkdtempSync(join(tmpdir(), 'syncline-bench-'))
  // Another user of this machine reads them: the one that the host runs as.
  chmodSync(folder, 0o755)
  owner.teardown(async () => rmSync(folder, { recursive: true, force: true }))
  const ssh = createSsh({ folder: join(folder, 'ssh'), hostKeys: async () => [backup.hostKey] })
  const deps = { ssh, now: Date.now }
  const { signal } = new AbortController()
  const figures: Figure[] = []
  for (const each of [...smallFiles(folder, backup), ...largeFile(folder, backup)]) {
    each.reset()
    const [leg] = await planTransfer(deps, each.transfer, { signal })
    const bare = leg?.argv ?? []
    const time = async (work: () => Promise<unknown>) => {
      each.reset()
      const begin = performance.now()
      await work()
      return performance.now() - begin
    }
    const plain = () => time(() => started(bare))
    let seen = 0
    const ours = () => time(() => runTransfer(deps, each.transfer, { signal, progress: () => seen++ }))
    await plain()
    const pairs: (readonly [bare: number, ours: number])[] = []
    for (let round = 0; round < ROUNDS; round++) {
      // Each is first in turn: what the other leaves in the cache is nobody's advantage.
      if (round % 2 === 0) pairs.push([await plain(), await ours()])
      else pairs.push(await Promise.resolve(ours()).then(async (mine) => [await plain(), mine] as const))
    }
    if (seen === 0) throw new Error('no progress was reported')
    const ratio = median(pairs.map(([bare, ours]) => ours / bare))
    const [bareMs, oursMs] = [median(pairs.map(([bare]) => bare)), median(pairs.map(([, ours]) => ours))]
    say(`${each.what}: rsync ${Math.round(bareMs)} ms, transfer ${Math.round(oursMs)} ms`)
    const reached = ratio <= each.most
    figures.push({
      what: each.what,
      value: oursMs,
      unit: 'ms',
      ratio,
      must: `≤ ${each.most.toFixed(2)} of rsync`,
      reached,
    })
  }
  return figures
}

function smallFiles(folder: string, host: TestHost): readonly Case[] {
  const from = join(folder, 'small')
  for (let index = 0; index < FILES; index++) {
    const dir = join(from, String(index % 100))
    if (index < 100) mkdirSync(dir, { recursive: true })
    writeFileSync(join(dir, `${index}.bin`), randomBytes(1024 + ((index * 7919) % (19 * 1024))))
  }
  const here = join(folder, 'small-copy')
  const there = join(host.dir, 'small-copy')
  return [
    {
      what: `${FILES} files of 1-20 KiB, here`,
      transfer: { from: `${from}/`, to: here },
      reset: () => rmSync(here, { recursive: true, force: true }),
      most: 1.1,
    },
    {
      what: `${FILES} files of 1-20 KiB, over ssh`,
      transfer: { from: `${from}/`, to: { ...host.ssh, path: there } },
      reset: () => void host.run('rm', '-rf', there),
      most: 1.1,
    },
  ]
}

function largeFile(folder: string, host: TestHost): readonly Case[] {
  const old = join(folder, 'old.bin')
  const from = join(folder, 'large.bin')
  fill(old)
  copyFileSync(old, from)
  const file = openSync(from, 'r+')
  const blocks = LARGE_BYTES / BLOCK
  for (let block = 0; block < blocks; block += 100) writeSync(file, randomBytes(BLOCK), 0, BLOCK, block * BLOCK)
  const before = new Date(Date.now() - 86_400_000)
  utimesSync(old, before, before)
  const here = join(folder, 'large-copy.bin')
  const there = join(host.dir, 'large.bin')
  const options = ['--no-whole-file']
  return [
    {
      what: '512 MiB with 1 % changed, here',
      transfer: { from, to: here, options },
      reset: () => copyFileSync(old, here),
      most: 1.05,
    },
    {
      what: '512 MiB with 1 % changed, over ssh',
      transfer: { from, to: { ...host.ssh, path: there }, options },
      reset: () => void host.run('cp', old, there),
      most: 1.05,
    },
  ]
}

function fill(path: string): void {
  const file = openSync(path, 'w')
  const part = 16 * 1024 * 1024
  for (let written = 0; written < LARGE_BYTES; written += part) writeSync(file, randomBytes(part))
}

/** The command line as a person would start it. */
function started(argv: readonly string[]): Promise<void> {
  const [file = '', ...args] = argv
  return new Promise((resolve, reject) => {
    // In a session of its own as the transfer is: the scheduler of Linux shares the machine out among sessions.
    const child = spawn(file, args, { stdio: 'ignore', detached: true })
    child.once('error', reject)
    child.once('exit', (code) => (code === 0 ? resolve() : reject(new Error(`rsync ended with ${code}`))))
  })
}
