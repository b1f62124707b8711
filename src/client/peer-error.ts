import { errors } from 'undici'
import { ERRORS, type ErrorCode, mayRetryLater, parseRetryAfter, SynclineError } from '../sync/index.ts'

/** A failure of an exchange with a peer. `remote` is true when the peer's own program refused, false when it was not reached. */
export class PeerError extends SynclineError {
  /** Code of the peer's problem document, as it came. */
  readonly peerCode: string | null
  readonly status: number | null
  /** Whether the same request may work later. */
  readonly retryable: boolean
  /** What its Retry-After asks for. */
  readonly retryAfterMs: number | undefined

  constructor(code: ErrorCode, detail: string, facts: PeerFacts = {}, options?: ErrorOptions) {
    super(code, detail, options)
    this.peerCode = facts.peerCode ?? null
    this.status = facts.status ?? null
    this.retryable = facts.retryable ?? mayRetryLater(code)
    this.retryAfterMs = facts.retryAfterMs
  }

  get remote(): boolean {
    return this.status !== null
  }
}

type PeerFacts = {
  readonly peerCode?: string | null
  readonly status?: number
  readonly retryable?: boolean
  readonly retryAfterMs?: number | undefined
}

/** Codes of a peer that say the same here: the run reacts to them. All others become SYNC_PEER_REFUSED with the peer's code in front. */
const SAME_HERE: ReadonlySet<string> = new Set<ErrorCode>([
  'SYNC_AUTH_MISSING',
  'SYNC_AUTH_PAIRING_INVALID',
  'SYNC_CHECKPOINT_GONE',
  'SYNC_PEER_CLONED',
  'SYNC_PEER_PAUSED',
  'SYNC_REQUEST_TOO_MANY',
  'SYNC_RUN_BRAKED',
])

type Answer = {
  readonly status: number
  readonly headers: Readonly<Record<string, string | string[] | undefined>>
  readonly body: Buffer
}

/** Turns an answer that is no success back into an error: a problem document (RFC 9457) in the peer's own words, or what a proxy said. */
export function refusal(what: string, { status, headers, body }: Answer, nowMs: number): PeerError {
  const retryAfterMs = parseRetryAfter(one(headers['retry-after']), nowMs)
  const problem = readProblem(one(headers['content-type']), body)
  const peerCode = problem?.code ?? null
  const words = problem === null ? `it answered ${status}${redirect(status, headers)}` : problem.words
  if (status === 502 || status === 503 || status === 504) {
    return new PeerError('SYNC_PEER_UNREACHABLE', `${what}: ${words}`, { peerCode, status, retryAfterMs })
  }
  const facts = { peerCode, status, retryAfterMs, retryable: retryable(status, problem) }
  const same = peerCode ?? (status === 401 ? 'SYNC_AUTH_MISSING' : status === 429 ? 'SYNC_REQUEST_TOO_MANY' : '')
  if (SAME_HERE.has(same)) return new PeerError(same as ErrorCode, `${what}: ${words}`, facts)
  return new PeerError('SYNC_PEER_REFUSED', `${what}: ${peerCode === null ? '' : `${peerCode}: `}${words}`, facts)
}

function retryable(status: number, problem: Problem | null): boolean {
  if (problem?.retry !== undefined) return problem.retry === 'later'
  if (problem !== null && problem.code !== null && Object.hasOwn(ERRORS, problem.code))
    return mayRetryLater(problem.code as ErrorCode)
  return status === 408 || status === 425 || status === 429 || status >= 500
}

type Problem = { readonly code: string | null; readonly words: string; readonly retry: string | undefined }

function readProblem(contentType: string | undefined, body: Buffer): Problem | null {
  if (!/^application\/(problem\+)?json\b/i.test(contentType ?? '')) return null
  try {
    const { code, title, detail, retry } = JSON.parse(body.toString()) as Record<string, unknown>
    const words = [title, detail].filter((part) => typeof part === 'string' && part !== '').join(': ')
    if (words === '') return null
    return {
      code: typeof code === 'string' && /^[A-Z_]{1,60}$/.test(code) ? code : null,
      words: words.slice(0, 2_000),
      retry: typeof retry === 'string' ? retry : undefined,
    }
  } catch {
    return null
  }
}

function redirect(status: number, headers: Answer['headers']): string {
  const place = one(headers['location'])
  return status >= 300 && status < 400 && place !== undefined
    ? ` and sends to ${place}; set that address for the peer`
    : ''
}

/** Turns a failed connection into words a person can act on. What this site itself found wrong with the answer stays as it is. */
export function connectionFailure(what: string, error: unknown, secure: boolean): unknown {
  if (error instanceof SynclineError) return error
  if (!(error instanceof Error)) return error
  // TLS 1.3 has shaken hands before the server looks for a certificate; its alert mostly loses the race against the end of the connection.
  const hint =
    secure && error instanceof errors.SocketError && error.socket?.bytesRead === 0
      ? ' (does it want a client certificate?)'
      : ''
  return new PeerError('SYNC_PEER_UNREACHABLE', `${what}: ${reasonOf(error)}${hint}`, {}, { cause: error })
}

/** True when a kept connection was closed by the other side before the answer began: the request may go out again at once. */
export function wasStale(error: unknown): boolean {
  const cause = error instanceof PeerError ? (error.cause as NodeJS.ErrnoException | undefined) : undefined
  return cause instanceof errors.SocketError || cause?.code === 'ECONNRESET' || cause?.code === 'EPIPE'
}

const CERTIFICATE = /CERT|SELF_SIGNED|UNABLE_TO_|ERR_TLS|ERR_SSL|EPROTO/

function reasonOf(error: Error): string {
  if (error instanceof AggregateError && error.errors.length > 0)
    return error.errors.map((each) => reasonOf(each as Error)).join('; ')
  if (error.name === 'TimeoutError') return 'no complete answer in time'
  const code = (error as NodeJS.ErrnoException).code ?? ''
  const inner = error.cause instanceof Error && error.cause !== error ? `: ${reasonOf(error.cause)}` : ''
  if (/Proxy response \((\d+)\)|Proxy Authentication Required/.test(error.message)) return proxyReason(error.message)
  if (CERTIFICATE.test(code)) return `certificate: ${error.message} (${code})`
  if (code === 'UND_ERR_CONNECT_TIMEOUT') return `no connection in time (${error.message})`
  if (code === 'UND_ERR_HEADERS_TIMEOUT' || code === 'UND_ERR_BODY_TIMEOUT') return 'no complete answer in time'
  return `${error.message}${inner}${code === '' || error.message.includes(code) || code.startsWith('UND_') ? '' : ` (${code})`}`
}

function proxyReason(message: string): string {
  const status = /\((\d{3})\)/.exec(message)?.[1]
  return status === '407' ? 'the proxy wants other credentials (407)' : `the proxy answered ${status}`
}

function one(header: string | string[] | undefined): string | undefined {
  return Array.isArray(header) ? header[0] : header
}
