import type { FastifyPluginAsyncTypebox } from '@fastify/type-provider-typebox'
import type { FastifyReply, FastifyRequest } from 'fastify'
import { appendLog, type ExchangeLink, type NewLogEntry, readSelf } from '../store/index.ts'
import { type BatchReport, SynclineError } from '../sync/index.ts'
import { peerOf } from './access.ts'
import type { ServerDeps } from './deps.ts'
import { toSynclineError } from './problem.ts'
import type { Seats, Watch } from './watch.ts'

/** Routes of one noun. */
export type Routes = FastifyPluginAsyncTypebox

/** What the routes of peers have in common. */
export type ExchangeDeps = ServerDeps & {
  readonly watch: Watch
  readonly seats: Seats
  /** Aborts when the server stops: everything that waits ends. */
  readonly closing: AbortSignal
}

/** Both ends of the link that a request came by. Read anew, as another process may have begun a new log. */
export async function linkOf({ store }: ServerDeps, request: FastifyRequest): Promise<ExchangeLink> {
  return { self: await readSelf(store.db), peer: peerOf(request) }
}

/** Aborts when the caller hangs up or the server stops. */
export function hangup(reply: FastifyReply, closing: AbortSignal): AbortSignal {
  const gone = new AbortController()
  reply.raw.once('close', () => gone.abort())
  return AbortSignal.any([gone.signal, closing])
}

type Exchanged = {
  readonly resource: string
  readonly mode: 'pull' | 'push'
  readonly action: 'send' | 'apply'
}

/** One entry of the log for what a peer pulled or pushed. */
export async function logExchange(
  deps: ServerDeps,
  request: FastifyRequest,
  exchanged: Exchanged,
  rest: Pick<NewLogEntry, 'result' | 'message'> & Partial<NewLogEntry>,
): Promise<void> {
  const { id, name } = peerOf(request)
  await appendLog(deps.store.db, { peer: { id, name }, direction: 'incoming', ...exchanged, ...rest })
}

/** Does the work and, when it fails by the peer's doing or ours, says so in the log before the peer hears it. */
export async function loggingFailure<T>(
  deps: ServerDeps,
  request: FastifyRequest,
  exchanged: Exchanged,
  work: () => Promise<T>,
): Promise<T> {
  try {
    return await work()
  } catch (error) {
    const known = toSynclineError(error)
    const remote = known !== undefined && !/^SYNC_(?:STORE|CONFIG|RESOURCE|INTERNAL)/.test(known.code)
    const message = known === undefined ? `internal error, request ${request.id}` : `${known.code}: ${known.message}`
    // A log that cannot be written must not hide why.
    await logExchange(deps, request, exchanged, { result: 'error', remote, message }).catch(() => {})
    throw error
  }
}

/** What a report says, in one sentence. */
export function sentenceOf(changes: number, { counts }: BatchReport): string {
  const parts = Object.entries(counts)
    .filter(([, number]) => number > 0)
    .map(([outcome, number]) => `${number} ${outcome}`)
  return `${changes} ${changes === 1 ? 'change' : 'changes'} received${parts.length === 0 ? '' : `: ${parts.join(', ')}`}`
}

/** Whether a report has something that a person should look at. */
export function needsPerson({ counts }: BatchReport): boolean {
  return counts.conflict + counts.quarantined + counts.refused > 0
}

/** A peer without a grant is told the same whether or not the resource exists. */
export function notGranted(peer: string, direction: string, resource: string): SynclineError {
  return new SynclineError(
    'SYNC_AUTH_FORBIDDEN',
    `peer "${peer}" may not ${direction} "${resource}"; an administrator of this site can grant it`,
  )
}
