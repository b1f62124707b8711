import type { FastifyReply, FastifyRequest } from 'fastify'
import { ERRORS, type ErrorCode, type SynclineError } from '../../sync/index.ts'
import { STATUS, toSynclineError } from '../problem.ts'

/** What Eden answers to what is no document: its client reads `message` of an error into its log. */
export type EdenAnswer = {
  readonly status: 'success' | 'failed'
  readonly statuscode: string
  readonly message?: string
  readonly sender?: string
  readonly records?: number
  readonly tree?: unknown
}

const TEXT = 'text/html; charset=UTF-8'

/** An answer as Eden gives it. A push is answered as text/html, whatever it holds: so does Eden. */
export function answerEden(
  reply: FastifyReply,
  code: number,
  body: EdenAnswer,
  type = 'application/json',
): FastifyReply {
  return reply.code(code).type(type).send(JSON.stringify(body))
}

/** A failure in the words of Eden. The HTTP status always says that it is one, as Eden's client reads nothing else. */
export function failed(reply: FastifyReply, code: number, message: string, tree?: unknown): FastifyReply {
  const told = { status: 'failed', statuscode: String(code), message, ...(tree !== undefined && { tree }) } as const
  return answerEden(reply, code, told)
}

/** Answers an error so that Eden understands it; the log has it in our words. */
export function answerFailure(error: unknown, request: FastifyRequest, reply: FastifyReply): FastifyReply {
  const known = toSynclineError(error)
  const code = known?.code ?? 'SYNC_INTERNAL'
  request.failure = { code, ...(known === undefined && { err: error }) }
  reply.removeHeader('www-authenticate')
  if (code === 'SYNC_AUTH_MISSING') {
    reply.header('www-authenticate', 'Basic realm="eden"')
    return reply.code(401).type(TEXT).send('Authentication Required')
  }
  if (code === 'SYNC_AUTH_FORBIDDEN')
    return reply
      .code(403)
      .type(TEXT)
      .send(`Insufficient Privileges: ${known?.message ?? ''}`)
  return failed(reply, statusOf(code), sentence(known))
}

function statusOf(code: ErrorCode): number {
  // A caller that is somebody else than its account says is refused, not a gateway that failed.
  return code === 'SYNC_PEER_MISMATCH' ? 403 : STATUS[code]
}

function sentence(error: SynclineError | undefined): string {
  if (error === undefined) return 'Internal error'
  return error.code === 'SYNC_FORMAT_INVALID'
    ? `Parse error: ${error.message}`
    : `${ERRORS[error.code].title}: ${error.message}`
}
