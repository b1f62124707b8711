import type { FastifyError, FastifyReply, FastifyRequest } from 'fastify'
import { isDatabaseGone } from '../store/index.ts'
import { ERRORS, type ErrorCode, SynclineError } from '../sync/index.ts'

/** HTTP status of each error. A code without one does not compile. */
export const STATUS = {
  SYNC_CONFIG_INVALID: 500,
  SYNC_CONFIG_DATA_DIR_LOCKED: 500,
  SYNC_CONFIG_DATABASE_NEWER: 500,
  SYNC_CONFIG_DATABASE_UNSUITABLE: 500,
  SYNC_CONFIG_DATA_KEY_WRONG: 500,
  SYNC_CONFIG_SITE_UNREACHABLE: 503,
  SYNC_AUTH_MISSING: 401,
  SYNC_AUTH_FORBIDDEN: 403,
  SYNC_AUTH_PAIRING_INVALID: 403,
  SYNC_REQUEST_INVALID: 400,
  SYNC_REQUEST_NOT_FOUND: 404,
  SYNC_REQUEST_EXISTS: 409,
  SYNC_REQUEST_CONTRADICTORY: 409,
  SYNC_REQUEST_CHANGED: 412,
  SYNC_REQUEST_SETTLED: 409,
  SYNC_REQUEST_TOO_LARGE: 413,
  SYNC_REQUEST_TOO_MANY: 429,
  SYNC_REQUEST_OVERLOADED: 503,
  SYNC_FORMAT_UNSUPPORTED: 415,
  SYNC_FORMAT_INVALID: 400,
  SYNC_BATCH_INCOMPLETE: 400,
  SYNC_RECORD_INVALID: 422,
  SYNC_RECORD_FIELD_UNKNOWN: 422,
  SYNC_RECORD_PARENT_MISSING: 422,
  SYNC_RECORD_STILL_REFERENCED: 422,
  SYNC_RECORD_CONSTRAINT: 422,
  SYNC_RECORD_INEXACT: 422,
  SYNC_RECORD_IN_USE: 422,
  SYNC_RECORD_TOO_LARGE: 422,
  SYNC_RECORD_OUTSIDE_GRANT: 422,
  SYNC_RECORD_CLOCK_AHEAD: 422,
  SYNC_FILTER_INVALID: 400,
  SYNC_RESOURCE_UNSUITABLE: 422,
  SYNC_RESOURCE_OUTDATED: 409,
  SYNC_RESOURCE_SKEW: 409,
  SYNC_CHECKPOINT_GONE: 410,
  SYNC_CHECKPOINT_INVALID: 400,
  SYNC_PEER_UNREACHABLE: 502,
  SYNC_PEER_REFUSED: 502,
  SYNC_PEER_MISMATCH: 502,
  SYNC_PEER_CLONED: 409,
  SYNC_PEER_PAUSED: 409,
  SYNC_PEER_STALLED: 502,
  SYNC_PEER_FOLDER_FORBIDDEN: 403,
  SYNC_RUN_ACTIVE: 409,
  SYNC_RUN_BRAKED: 409,
  SYNC_RUN_UNDO_INCOMPLETE: 409,
  SYNC_JOB_FAILED: 500,
  SYNC_JOB_BLOCKED: 409,
  SYNC_JOB_TIME_LIMIT: 504,
  SYNC_JOB_INTERRUPTED: 500,
  SYNC_JOB_LEASE_LOST: 409,
  SYNC_JOB_STOPPED: 409,
  SYNC_TRANSFER_INVALID: 422,
  SYNC_TRANSFER_TOOL: 500,
  SYNC_TRANSFER_UNREACHABLE: 502,
  SYNC_TRANSFER_UNTRUSTED: 409,
  SYNC_TRANSFER_DENIED: 502,
  SYNC_TRANSFER_INTERRUPTED: 502,
  SYNC_TRANSFER_INCOMPLETE: 502,
  SYNC_TRANSFER_BRAKED: 409,
  SYNC_TRANSFER_STOPPED: 503,
  SYNC_TRANSFER_FAILED: 502,
  SYNC_STORE_UNAVAILABLE: 503,
  SYNC_STORE_BUSY: 503,
  SYNC_STORE_RIGHTS: 500,
  SYNC_INTERNAL: 500,
} as const satisfies Record<ErrorCode, number>

export const PROBLEM_TYPE = 'application/problem+json'
/** Seconds to wait where nobody said how long. */
const RETRY_AFTER_SECONDS = 5
const FAULTS_MAX = 50

/** A problem as RFC 9457 has it, with the code, whether the same request may work later, and what to do. */
export type Problem = {
  readonly type: string
  readonly title: string
  readonly status: number
  readonly detail?: string
  readonly instance: string
  readonly code: ErrorCode
  readonly retry: string
  readonly mend: string
}

/** An error that waiting helps, with how long. */
export class RetryLater extends SynclineError {
  readonly seconds: number

  constructor(code: ErrorCode, detail: string, seconds: number) {
    super(code, detail)
    this.seconds = seconds
  }
}

/**
 * Answers an error. What the design expects is told in full; anything else is a bare 500 with the id of the request, under which the log has
 * the rest.
 */
export function answerProblem(error: unknown, request: FastifyRequest, reply: FastifyReply): FastifyReply {
  const known = toSynclineError(error)
  const problem = problemOf(known, request)
  request.failure = { code: problem.code, ...(known === undefined && { err: error }) }
  if (problem.status === 429 || problem.status === 503) {
    reply.header('retry-after', String(known instanceof RetryLater ? known.seconds : RETRY_AFTER_SECONDS))
  }
  return reply
    .code(problem.status)
    .type(PROBLEM_TYPE)
    .serializer((body: unknown) => JSON.stringify(body))
    .send(problem)
}

/** The problem document of an error; without one of something that nobody foresaw. */
export function problemOf(error: SynclineError | undefined, request: FastifyRequest): Problem {
  const code = error?.code ?? 'SYNC_INTERNAL'
  const { title, retry, mend } = ERRORS[code]
  // A body that nobody here reads is 415, an answer that nobody here writes is 406.
  const status = code === 'SYNC_FORMAT_UNSUPPORTED' && request.method === 'GET' ? 406 : STATUS[code]
  const detail = error === undefined || code === 'SYNC_INTERNAL' ? {} : { detail: error.message }
  const instance = `urn:syncline:request:${request.id}`
  return { type: `urn:syncline:problem:${code}`, title, status, ...detail, instance, code, retry, mend }
}

/** The error in the words of the design, or undefined for one that it does not expect. */
export function toSynclineError(error: unknown): SynclineError | undefined {
  if (error instanceof SynclineError) return error
  if (!(error instanceof Error)) return undefined
  const code = 'code' in error && typeof error.code === 'string' ? error.code : ''
  const refusal = refusalOf(error as FastifyError, code)
  if (refusal !== undefined) return new SynclineError(refusal[0], refusal[1], { cause: error })
  if (isDatabaseGone(error)) {
    return new SynclineError('SYNC_STORE_UNAVAILABLE', 'this site cannot reach its database', { cause: error })
  }
  return undefined
}

function refusalOf(error: FastifyError, code: string): readonly [ErrorCode, string] | undefined {
  if (error.validation !== undefined) return ['SYNC_REQUEST_INVALID', describeFaults(error)]
  switch (code) {
    // What PostgreSQL says of the character NUL, in text and in JSON.
    case '22021':
    case '22P05':
      return ['SYNC_REQUEST_INVALID', 'a text of the request holds a character that no text of the database can hold']
    case 'FST_ERR_CTP_INVALID_MEDIA_TYPE':
      return ['SYNC_FORMAT_UNSUPPORTED', 'this request takes application/json']
    case 'FST_ERR_CTP_BODY_TOO_LARGE':
      return ['SYNC_REQUEST_TOO_LARGE', 'the body is larger than this request may be']
    case 'FST_ERR_CTP_INVALID_CONTENT_LENGTH':
      return ['SYNC_BATCH_INCOMPLETE', 'the body has another length than Content-Length says']
    case 'FST_ERR_BAD_URL':
    case 'FST_ERR_MAX_PARAM_LENGTH':
      return ['SYNC_REQUEST_INVALID', 'the address of the request cannot be read']
  }
  // The rest of what Fastify says about a request, such as a body that is missing or cannot be parsed.
  const status = error.statusCode ?? 0
  if (code.startsWith('FST_') && status >= 400 && status < 500) return ['SYNC_REQUEST_INVALID', error.message]
  return undefined
}

const PLACES: Readonly<Record<string, string>> = {
  body: 'body',
  querystring: 'query',
  params: 'path',
  headers: 'header',
}

/** All faults of a request at once, each with its place. */
function describeFaults(error: FastifyError): string {
  const where = PLACES[error.validationContext ?? ''] ?? 'request'
  const faults = (error.validation ?? []).map(({ instancePath, message, params }) => {
    const extra = params.additionalProperty ?? params.allowedValues ?? params.allowedValue
    const named = extra === undefined ? '' : `: ${Array.isArray(extra) ? extra.join(', ') : JSON.stringify(extra)}`
    return `${where}${instancePath} ${message ?? 'is not valid'}${named}`
  })
  const all = [...new Set(faults)]
  const rest = all.length > FAULTS_MAX ? [`and ${all.length - FAULTS_MAX} more`] : []
  return [...all.slice(0, FAULTS_MAX), ...rest].join('; ')
}
