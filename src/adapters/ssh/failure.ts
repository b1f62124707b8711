import { type ErrorCode, SynclineError } from '../../sync/index.ts'
import type { ProgramEnd } from '../process/program.ts'

/** What ssh says when it does not get through, and what that is. The first that fits counts. */
const SAYINGS: readonly (readonly [RegExp, ErrorCode, string])[] = [
  [
    /REMOTE HOST IDENTIFICATION HAS CHANGED/,
    'SYNC_TRANSFER_UNTRUSTED',
    'shows another host key than the one that is trusted',
  ],
  [
    /host key is known for|Host key verification failed/,
    'SYNC_TRANSFER_UNTRUSTED',
    'shows a host key that nobody has trusted yet',
  ],
  [/Permission denied \([a-z,-]*\)/, 'SYNC_TRANSFER_DENIED', 'does not let this site in with its key'],
  [/Too many authentication failures/, 'SYNC_TRANSFER_DENIED', 'does not let this site in with its keys'],
  [
    /no such identity|Load key .*:|Identity file .* not accessible/i,
    'SYNC_TRANSFER_DENIED',
    'cannot be entered: the private key cannot be read',
  ],
  [
    /Could not resolve|Connection (?:refused|timed out|closed|reset)|No route to host|Network is unreachable|Operation timed out|kex_exchange|Broken pipe|not responding/,
    'SYNC_TRANSFER_UNREACHABLE',
    'cannot be reached',
  ],
]

/** The failure of ssh in what a program wrote to standard error; undefined when it was not ssh that failed. */
export function sshSaying(stderr: string, where: string): SynclineError | undefined {
  const fits = SAYINGS.find(([pattern]) => pattern.test(stderr))
  if (fits === undefined) return undefined
  return new SynclineError(fits[1], `${where} ${fits[2]}: ${lastLines(stderr, 2)}`)
}

/** The failure of a script or program on a host. */
export function sshFailure(end: ProgramEnd, where: string): SynclineError {
  const { code, signal, stderr, timedOut, aborted } = end
  if (aborted) return new SynclineError('SYNC_TRANSFER_STOPPED', `the work on ${where} was stopped`)
  if (timedOut) return new SynclineError('SYNC_TRANSFER_UNREACHABLE', `${where} did not answer in time`)
  const saying = code === 255 ? sshSaying(stderr, where) : undefined
  if (saying !== undefined) return saying
  const kind = code === 255 ? 'SYNC_TRANSFER_UNREACHABLE' : 'SYNC_TRANSFER_FAILED'
  return new SynclineError(kind, `${where}: ${lastLines(stderr, 3) || `ended with ${code ?? signal}`}`)
}

/** The last lines that say something, as one. */
export function lastLines(text: string, count: number): string {
  const lines = text
    .split('\n')
    .map((line) => line.trim())
    .filter((line) => line !== '' && !/^@+$/.test(line))
  return lines.slice(-count).join('; ').slice(0, 600)
}
