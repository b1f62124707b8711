import type { ErrorCode } from '../sync/index.ts'

/** What the exit code of a command tells a script; part of the public contract. */
export const EXIT = {
  done: 0,
  failed: 1,
  /** Wrong use of the command, or a configuration that is not valid. */
  wrongUse: 2,
  /** Done, and something waits for a person: a conflict, a quarantined record. */
  waiting: 3,
  /** The peer, or the site that the command acts on, does not answer. */
  unreachable: 4,
} as const

export type ExitCode = (typeof EXIT)[keyof typeof EXIT]

const UNREACHABLE: ReadonlySet<string> = new Set<ErrorCode>([
  'SYNC_PEER_UNREACHABLE',
  'SYNC_CONFIG_SITE_UNREACHABLE',
  'SYNC_TRANSFER_UNREACHABLE',
])
/** Stopped before anything was written, until a person has looked. */
const WAITING: ReadonlySet<string> = new Set<ErrorCode>([
  'SYNC_RUN_BRAKED',
  'SYNC_PEER_CLONED',
  'SYNC_TRANSFER_BRAKED',
  'SYNC_TRANSFER_UNTRUSTED',
])
const WRONG_USE: ReadonlySet<string> = new Set<ErrorCode>([
  'SYNC_REQUEST_INVALID',
  'SYNC_FILTER_INVALID',
  'SYNC_AUTH_MISSING',
])

/** The exit code for a failure with this code, whether it happened here, at the site or in a run. */
export function exitOf(code: string): ExitCode {
  if (UNREACHABLE.has(code)) return EXIT.unreachable
  if (WAITING.has(code)) return EXIT.waiting
  return WRONG_USE.has(code) || code.startsWith('SYNC_CONFIG_') ? EXIT.wrongUse : EXIT.failed
}

/** The worst of several endings: that something failed counts more than that something waits. */
export function worst(codes: readonly ExitCode[]): ExitCode {
  const order = [EXIT.wrongUse, EXIT.failed, EXIT.unreachable, EXIT.waiting]
  return order.find((code) => codes.includes(code)) ?? EXIT.done
}
