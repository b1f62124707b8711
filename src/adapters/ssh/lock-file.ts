import { createHash } from 'node:crypto'
import { basename, dirname } from 'node:path/posix'
import type { Fault } from '../fault.ts'
import { CONTROL, HOST_MEMBERS, hostFaults, hostLabel, SSH_PORT, type SshHost, shellQuote } from './host.ts'
import type { Ssh } from './ssh.ts'

/** A lock file on the machine of this site, or on a host that is reached by ssh. */
export type LockFile = Partial<SshHost> & { readonly path: string }

/** Who takes it. Whoever shows the token may take again, renew and release, also from another process. */
export type LockClaim = {
  readonly token: string
  readonly runId: string
  readonly job: string
  readonly site: { readonly uuid: string; readonly name: string; readonly host: string; readonly pid: number }
  /** Without a sign of life for so long it is stale. */
  readonly ttlSeconds: number
}

export type LockTaken = { readonly taken: true } | { readonly taken: false; readonly reason: string }
export type LockSeen = { readonly free: true } | { readonly free: false; readonly reason: string }

export type LockFiles = {
  readonly look: (where: LockFile, signal: AbortSignal) => Promise<LockSeen>
  readonly take: (where: LockFile, claim: LockClaim, signal: AbortSignal) => Promise<LockTaken>
  readonly renew: (where: LockFile, claim: LockClaim, signal: AbortSignal) => Promise<boolean>
  readonly release: (where: LockFile, claim: LockClaim, signal: AbortSignal) => Promise<void>
}

const PATH_MAX = 4096
const TTL_MAX_SECONDS = 30 * 86_400
const TIMEOUT_MS = 30_000
/** A file with this line was written by Syncline, and shows by its time of change that its owner lives. */
const FORMAT = 1

export const LOCK_FILE_SCHEMA = {
  type: 'object',
  additionalProperties: false,
  required: ['path'],
  description: 'A lock file, as RsyncDirector and Syncline know it',
  properties: {
    path: {
      type: 'string',
      minLength: 2,
      maxLength: PATH_MAX,
      description: 'Absolute path of the file; its folder must be there',
    },
    ...HOST_MEMBERS,
    host: { type: 'string', description: 'Host that the file is on, reached by ssh; default the machine of this site' },
  },
}

export function lockFileFaults({ path, ...host }: LockFile): Fault[] {
  const faults: Fault[] = []
  if (!path.startsWith('/') || path.endsWith('/') || CONTROL.test(path))
    faults.push({ path: '/path', message: 'must be the absolute path of a file' })
  if (host.host !== undefined) faults.push(...hostFaults(host as SshHost, ''))
  else if (Object.keys(host).length > 0)
    faults.push({ path: '/host', message: 'is missing: user, port, key and jump belong to a host' })
  return faults
}

/** Alike for all who mean the same file, whatever user they log in as. */
export function lockFileLabel({ path, host, port = SSH_PORT }: LockFile): string {
  return host === undefined ? path : `${host}:${port}${path}`
}

/**
 * Lock files that lock. A file comes into being complete, by a hard link that fails where there is one; a file of another owner is never
 * overwritten or removed, except one of a Syncline whose owner has given no sign of life for the time that it said itself. That is judged by the
 * clock of the host that has the file, never by a process number. What cannot be found out is a failure, which the caller counts as blocked.
 */
export function createLockFiles(ssh: Ssh): LockFiles {
  const run = (where: LockFile, body: string, signal: AbortSignal) =>
    ssh.script(hostOf(where), script(where.path, body), { signal, timeoutMs: TIMEOUT_MS })

  return {
    look: async (where, signal) => {
      const holder = readHolder(await run(where, SHOW, signal))
      if (holder === undefined || isStale(holder)) return { free: true }
      return { free: false, reason: reasonOf(where, holder) }
    },
    take: async (where, claim, signal) => {
      const first = await run(where, `${own(claim)}\n${TAKE}`, signal)
      if (first.startsWith('taken')) return { taken: true }
      const holder = readHolder(first)
      if (holder === undefined || !isStale(holder)) return { taken: false, reason: reasonOf(where, holder) }
      const replace = `${own(claim)}\nstale=${shellQuote(holder.token)}\nlimit=${holder.ttlSeconds}\n${REPLACE}`
      const second = await run(where, replace, signal)
      if (second.startsWith('taken')) return { taken: true }
      return { taken: false, reason: reasonOf(where, readHolder(second) ?? holder) }
    },
    renew: async (where, claim, signal) => (await run(where, `${own(claim)}\n${RENEW}`, signal)).startsWith('mine'),
    release: async (where, claim, signal) => void (await run(where, `${own(claim)}\n${RELEASE}`, signal)),
  }
}

/** A lock as it was found. Without a token it is not from Syncline: it never becomes stale. */
type Holder = {
  readonly ageSeconds: number
  readonly ttlSeconds: number
  readonly token: string
  /** Who, for people. */
  readonly text: string
}

/** Every script works in the folder of the file, and holds its lock in the kernel, where there is flock, for as long as it runs. */
function script(path: string, body: string): string {
  return [
    'set -u',
    `cd -- ${shellQuote(dirname(path))} || exit 1`,
    `f=./${shellQuote(basename(path))}`,
    // The lock of the kernel ends with this shell, however it ends.
    'exec 9<. || exit 1',
    'guarded=no',
    'if command -v flock >/dev/null; then flock -w 20 9 || { echo "the folder is busy" >&2; exit 1; }; guarded=yes; fi',
    'mine() { [ -f "$f" ] && grep -qsF "\\"token\\":\\"$token\\"" "$f"; }',
    'show() {',
    '  if [ ! -e "$f" ] && [ ! -L "$f" ]; then echo absent; return; fi',
    '  changed=$(stat -c %Y -- "$f") || exit 1',
    '  echo "held $(( $(date +%s) - changed ))"',
    '  if [ -f "$f" ]; then head -c 4000 -- "$f"; else echo "it is no file"; fi',
    '}',
    body,
    '',
  ].join('\n')
}

const SHOW = 'show'

/** `ln -T` makes the name, or fails because there is one. */
const LINK = [
  'write || { rm -f "$new"; exit 1; }',
  'if ln -T "$new" "$f" 2>/dev/null; then rm -f "$new"; echo taken; exit 0; fi',
  'rm -f "$new"',
  'if [ -e "$f" ] || [ -L "$f" ]; then show; else echo "a lock file cannot be made there" >&2; exit 1; fi',
].join('\n')

const TAKE = ['if mine; then touch -c -- "$f" && echo taken && exit 0; exit 1; fi', LINK].join('\n')

/** Only what is still the stale one, and only where nobody else can be in the middle of the same. */
const REPLACE = [
  'if [ "$guarded" = no ]; then show; exit 0; fi',
  'if [ -f "$f" ] && grep -qsF "\\"token\\":\\"$stale\\"" "$f"; then',
  '  changed=$(stat -c %Y -- "$f") || exit 1',
  '  if [ $(( $(date +%s) - changed )) -gt "$limit" ]; then rm -f "$f" || exit 1; fi',
  'fi',
  LINK,
].join('\n')

const RENEW = 'if mine; then touch -c -- "$f" && echo mine; else echo lost; fi'
const RELEASE = 'if mine; then rm -f "$f"; fi'

/** Sets `token`, and `write`, which writes the file complete under another name: nobody may write to it, not even its owner by mistake. */
function own(claim: LockClaim): string {
  const token = tokenIn(claim)
  const { runId, job, site, ttlSeconds } = claim
  const { uuid, name, host, pid } = site
  const time = new Date().toISOString()
  const body = { syncline: FORMAT, owner: uuid, name, host, pid, run: runId, job, time, ttlSeconds, token }
  const end = `end-${token}`
  return [
    `token=${token}`,
    `new="$(dirname -- "$f")/.syncline-$token.$$"`,
    `write() { rm -f "$new"; (umask 022; cat >"$new" && chmod 444 "$new") <<'${end}'`,
    String(pid),
    JSON.stringify(body),
    end,
    '}',
  ].join('\n')
}

/** What stands in the file is not what opens it elsewhere. */
function tokenIn({ token }: LockClaim): string {
  return createHash('sha256').update(token).digest('hex')
}

/** Undefined when there is no file. */
function readHolder(output: string): Holder | undefined {
  const [head = '', ...lines] = output.split('\n')
  const found = /^held (-?\d+)$/.exec(head)
  if (found === null) return undefined
  const ageSeconds = Number(found[1])
  const written = readBody(lines[1])
  if (written === undefined) {
    const text = lines[0]?.trim().slice(0, 100) ?? ''
    const who = /^\d+$/.test(text)
      ? `process ${text}, of a program that shows no sign of life`
      : text || 'nobody who says so'
    return { ageSeconds, ttlSeconds: Number.POSITIVE_INFINITY, token: '', text: who }
  }
  const { name, host, pid, job, run, time, ttlSeconds, token } = written
  return {
    ageSeconds,
    ttlSeconds,
    token,
    text: `job ${job} of site ${name} (${host}, process ${pid}, run ${run}) since ${time}`,
  }
}

type Body = Readonly<Record<'name' | 'host' | 'pid' | 'job' | 'run' | 'time' | 'token', string>> & {
  readonly ttlSeconds: number
}

function readBody(line = ''): Body | undefined {
  try {
    const body = JSON.parse(line) as Record<string, unknown>
    const { syncline, token, ttlSeconds } = body
    if (syncline !== FORMAT || typeof token !== 'string' || !/^[0-9a-f]{64}$/.test(token)) return undefined
    if (typeof ttlSeconds !== 'number' || !(ttlSeconds > 0 && ttlSeconds <= TTL_MAX_SECONDS)) return undefined
    const text = (name: string) => String(body[name] ?? '?').slice(0, 200)
    const [name, host, pid, job, run, time] = ['name', 'host', 'pid', 'job', 'run', 'time'].map(text) as [
      string,
      string,
      string,
      string,
      string,
      string,
    ]
    return { name, host, pid, job, run, time, token, ttlSeconds: Math.ceil(ttlSeconds) }
  } catch {
    return undefined
  }
}

function isStale({ ageSeconds, ttlSeconds }: Holder): boolean {
  return ageSeconds > ttlSeconds
}

function reasonOf(where: LockFile, holder: Holder | undefined): string {
  const host = hostOf(where)
  const place = host === undefined ? where.path : `${hostLabel(host)}:${where.path}`
  if (holder === undefined) return `${place} was held a moment ago`
  const { text, token } = holder
  const age = Math.max(0, holder.ageSeconds)
  if (token === '') return `${place} is held by ${text}, which is not of Syncline, since it was written ${age} s ago`
  const stale = isStale(holder)
    ? '; it is stale, and cannot be taken over because that host has no flock: remove it by hand'
    : ''
  return `${place} is held by ${text}; last sign of life ${age} s ago${stale}`
}

function hostOf({ path: _, ...host }: LockFile): SshHost | undefined {
  return host.host === undefined ? undefined : (host as SshHost)
}
