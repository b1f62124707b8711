import { readFile } from 'node:fs/promises'
import tls from 'node:tls'
import { type Config, readAddress, readAdminToken } from '../config/index.ts'
import { ERRORS, type ErrorCode, SynclineError } from '../sync/index.ts'

export type Query = Readonly<Record<string, string | number | boolean | undefined>>

/** Newest first. `next` is the cursor of the following page, null at the end. */
export type Page<T> = { readonly items: readonly T[]; readonly next: string | null }

export type RequestOptions = {
  readonly query?: Query | undefined
  /** Sent as JSON. */
  readonly body?: unknown
  /** Sent as it is, with `type`. */
  readonly text?: string | undefined
  readonly type?: string | undefined
  readonly accept?: string | undefined
  /** Ends the request early. */
  readonly signal?: AbortSignal | undefined
  /** True for what may take as long as it likes. */
  readonly patient?: boolean | undefined
}

/**
 * The administration API of one site. Paths come from `path`. Every failure is a SynclineError: the site's own code where it answered with
 * a problem document, SYNC_CONFIG_SITE_UNREACHABLE where it did not answer.
 */
export type Api = {
  readonly url: string
  readonly get: <T>(path: string, query?: Query) => Promise<T>
  readonly send: <T>(method: Method, path: string, options?: RequestOptions) => Promise<T>
  /** A whole list, page by page. Only for lists that a person makes (peers, tasks), never for logs. */
  readonly all: <T>(path: string, query?: Query) => Promise<readonly T[]>
  /** The bare answer, already known to be a success. */
  readonly open: (method: Method, path: string, options?: RequestOptions) => Promise<Response>
}

export type Method = 'GET' | 'POST' | 'PUT' | 'PATCH' | 'DELETE'

const PAGE = 1000

/** Joins a path, each inserted part encoded: path`/peers/${name}`. */
export function path(texts: TemplateStringsArray, ...parts: readonly (string | number)[]): string {
  return texts.reduce((whole, text, n) => `${whole}${encodeURIComponent(String(parts[n - 1]))}${text}`)
}

/** Finds the site: `url` and `token` of the settings, else what the running site left in the data folder. */
export async function connect(config: Config): Promise<Api> {
  const url = config.url ?? (await localAddress(config.dataDir))
  // The data folder's token is for the data folder's site: it is never shown to another one.
  const token = config.token ?? (config.url === undefined ? await readAdminToken(config.dataDir) : undefined)
  await trustAuthorities(config)
  return createApi(url, token, config.requestTimeoutMs)
}

async function localAddress(dataDir: string): Promise<string> {
  const address = await readAddress(dataDir)
  if (address !== undefined) return address
  throw new SynclineError('SYNC_CONFIG_SITE_UNREACHABLE', `No site runs on the data folder ${dataDir}.`)
}

/** Node's fetch takes authorities only for the whole process. */
async function trustAuthorities({ caFile, tlsCertFile }: Config): Promise<void> {
  const files = [caFile, tlsCertFile].filter((file) => file !== undefined)
  if (files.length === 0) return
  const own = await Promise.all(files.map((file) => readFile(file, 'utf8')))
  tls.setDefaultCACertificates([...tls.getCACertificates('default'), ...own])
}

export function createApi(url: string, token: string | undefined, timeoutMs: number): Api {
  const base = `${url}/api/v1`
  const open = async (method: Method, where: string, options: RequestOptions = {}): Promise<Response> => {
    const target = new URL(base + where)
    for (const [name, value] of Object.entries(options.query ?? {}))
      if (value !== undefined) target.searchParams.set(name, String(value))
    const answer = await answerOf(url, target, init(method, token, options, timeoutMs))
    if (answer.ok) return answer
    throw await problemOf(url, answer)
  }
  const json = async <T>(method: Method, where: string, options?: RequestOptions): Promise<T> =>
    jsonOf<T>(url, await open(method, where, options))
  return {
    url,
    open,
    get: (where, query) => json('GET', where, { query }),
    send: json,
    all: async <T>(where: string, query: Query = {}) => {
      const items: T[] = []
      let cursor: string | undefined
      do {
        const page = await json<Page<T>>('GET', where, { query: { ...query, limit: PAGE, cursor } })
        items.push(...page.items)
        cursor = page.next ?? undefined
      } while (cursor !== undefined)
      return items
    },
  }
}

function init(method: Method, token: string | undefined, options: RequestOptions, timeoutMs: number): RequestInit {
  const { body, text, type, accept = 'application/json', signal, patient } = options
  const headers: Record<string, string> = { accept, 'user-agent': 'syncline-cli' }
  if (token !== undefined) headers.authorization = `Bearer ${token}`
  // A command changes only what the person named and takes the rest as it is: there is no earlier reading to compare with.
  if (method !== 'GET' && method !== 'POST') headers['if-match'] = '*'
  if (body !== undefined) headers['content-type'] = 'application/json'
  if (type !== undefined) headers['content-type'] = type
  const signals = [signal, patient === true ? undefined : AbortSignal.timeout(timeoutMs)].filter((each) => each != null)
  return {
    method,
    headers,
    redirect: 'error',
    signal: AbortSignal.any(signals),
    ...(body !== undefined && { body: JSON.stringify(body) }),
    ...(text !== undefined && { body: text }),
  }
}

async function answerOf(url: string, target: URL, request: RequestInit): Promise<Response> {
  try {
    return await fetch(target, request)
  } catch (error) {
    if (error instanceof Error && error.name === 'AbortError') throw error
    throw new SynclineError('SYNC_CONFIG_SITE_UNREACHABLE', `${url} does not answer: ${reason(error)}`, {
      cause: error,
    })
  }
}

/** The innermost reason: fetch itself says only that it failed. */
function reason(error: unknown): string {
  if (!(error instanceof Error)) return String(error)
  if (error.name === 'TimeoutError') return 'the time for one request (requestTimeoutMs) is over'
  if (error.cause !== undefined) return reason(error.cause)
  const inner = error instanceof AggregateError ? error.errors[0] : undefined
  return inner === undefined ? error.message : reason(inner)
}

async function problemOf(url: string, answer: Response): Promise<Error> {
  const text = await answer.text().catch(() => '')
  const problem = parsed(text) as { code?: unknown; title?: unknown; detail?: unknown } | undefined
  const detail = problem?.detail ?? problem?.title
  if (typeof problem?.code === 'string' && Object.hasOwn(ERRORS, problem.code))
    return new SynclineError(problem.code as ErrorCode, typeof detail === 'string' ? detail : `${url} says no more`)
  const said = `${url} answered ${answer.status} ${answer.statusText}`.trimEnd()
  return answer.status >= 500
    ? new SynclineError('SYNC_INTERNAL', said)
    : new SynclineError('SYNC_REQUEST_INVALID', `${said}, which is no answer of a Syncline site`)
}

async function jsonOf<T>(url: string, answer: Response): Promise<T> {
  const text = await answer.text()
  if (text === '') return undefined as T
  const value = parsed(text)
  if (value !== undefined) return value as T
  throw new SynclineError('SYNC_FORMAT_INVALID', `${url} answered with something that is not JSON`)
}

function parsed(text: string): unknown {
  try {
    return JSON.parse(text)
  } catch {
    return undefined
  }
}
