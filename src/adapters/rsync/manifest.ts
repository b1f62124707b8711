import { createHash, randomBytes } from 'node:crypto'
import { createReadStream } from 'node:fs'
import { join } from 'node:path/posix'
import { pipeline } from 'node:stream/promises'
import { SynclineError } from '../../sync/index.ts'
import { CONTROL, type SshHost, shellQuote } from '../ssh/host.ts'
import type { Ssh } from '../ssh/ssh.ts'

/** The sha256 of files by name, in hexadecimal. A file that is not there, or cannot be read, is missing. */
export type Hashes = ReadonlyMap<string, string>

const AT_ONCE = 2
const NAMES_AT_ONCE = 20_000
const HASH_TIMEOUT_MS = 24 * 3_600_000

/** Hashes files below a folder of this machine, or of a host, where sha256sum does it. */
export async function hashFiles(
  ssh: Ssh,
  host: SshHost | undefined,
  root: string,
  names: readonly string[],
  signal: AbortSignal,
): Promise<Hashes> {
  const odd = names.find((name) => CONTROL.test(name) || name.includes('\ufffd'))
  if (odd !== undefined) {
    const detail = `the name ${JSON.stringify(odd)} has control characters or is no UTF-8, so that its content cannot be checked`
    throw new SynclineError('SYNC_TRANSFER_FAILED', detail)
  }
  return host === undefined ? hashHere(root, names, signal) : hashThere(ssh, host, root, names, signal)
}

/** One text for all the hashes, in the form that `sha256sum --check` reads. */
export function manifestText(hashes: Hashes): string {
  return [...hashes]
    .sort(([a], [b]) => (a < b ? -1 : 1))
    .map(([name, hash]) => `${hash}  ${name}\n`)
    .join('')
}

export function manifestHash(hashes: Hashes): string {
  return createHash('sha256').update(manifestText(hashes)).digest('hex')
}

async function hashHere(root: string, names: readonly string[], signal: AbortSignal): Promise<Hashes> {
  const hashes = new Map<string, string>()
  const queue = names.values()
  const work = async () => {
    for (const name of queue) {
      const hash = createHash('sha256')
      try {
        await pipeline(createReadStream(join(root, name), { highWaterMark: 1024 * 1024 }), hash, { signal })
        hashes.set(name, hash.digest('hex'))
      } catch {
        // It is missing from the answer; an abort is thrown here.
        signal.throwIfAborted()
      }
    }
  }
  await Promise.all(Array.from({ length: AT_ONCE }, work))
  return hashes
}

async function hashThere(
  ssh: Ssh,
  host: SshHost,
  root: string,
  names: readonly string[],
  signal: AbortSignal,
): Promise<Hashes> {
  const hashes = new Map<string, string>()
  for (let from = 0; from < names.length; from += NAMES_AT_ONCE) {
    const end = `end-${randomBytes(12).toString('hex')}`
    const script = [
      'command -v sha256sum >/dev/null || { echo "there is no sha256sum" >&2; exit 127; }',
      `cd -- ${shellQuote(root)} || exit 1`,
      `tr '\\n' '\\0' <<'${end}' | xargs -0 -r sha256sum -z -- 2>/dev/null`,
      ...names.slice(from, from + NAMES_AT_ONCE),
      end,
      // What is missing is found by its name; it is no failure of the script.
      'exit 0',
      '',
    ].join('\n')
    const output = await ssh.script(host, script, { signal, timeoutMs: HASH_TIMEOUT_MS })
    for (const line of output.split('\0')) {
      const found = /^([0-9a-f]{64}) [ *]([\s\S]+)$/.exec(line)
      if (found !== null) hashes.set(found[2] ?? '', found[1] ?? '')
    }
  }
  return hashes
}
