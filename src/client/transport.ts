import type { Readable } from 'node:stream'
import { getCACertificates } from 'node:tls'
import { Agent, type Dispatcher, EnvHttpProxyAgent, ProxyAgent } from 'undici'
import { type Body, ENCODINGS, readBody } from './body.ts'
import { connectionFailure, PeerError, refusal } from './peer-error.ts'

/** How this site reaches its peers, from its settings. */
export type TransportSettings = {
  readonly requestTimeoutMs: number
  readonly bodyBytesMax: number
  /** Proxy for every peer without one of its own; credentials may be in it. */
  readonly proxy?: string | undefined
  /** Hosts reached without that proxy. */
  readonly noProxy: readonly string[]
  /** Authorities trusted besides the usual ones. */
  readonly caPem?: string | undefined
  /** Log that this site writes now: a peer that knew another one notices that we were restored. */
  readonly logId: () => string
  /** Who this site is, and the mark of its start: by them a peer tells a copy from the one it knows. */
  readonly uuid?: string | undefined
  readonly mark?: (() => string) | undefined
}

/** What the connection to one peer needs. Never log it. */
export type Connection = {
  readonly url: string
  readonly token: string | null
  readonly proxy: {
    readonly url: string
    readonly credentials: { readonly username: string; readonly password: string } | null
  } | null
  readonly caPem: string | null
  readonly clientCertPem: string | null
  readonly clientKeyPem: string | null
}

export type PeerRequest = {
  readonly method: 'GET' | 'POST' | 'PUT'
  /** Below /sync/v1, such as /changes. */
  readonly path: string
  readonly query?: Readonly<Record<string, string | undefined>>
  readonly headers?: Readonly<Record<string, string>>
  readonly body?: Buffer
  /** Time that the peer may wait before it answers, beyond the usual limit. */
  readonly waitMs?: number
  readonly signal?: AbortSignal | undefined
}

export type PeerAnswer = {
  readonly headers: Readonly<Record<string, string | string[] | undefined>>
  readonly body: Body
}

const CONNECT_TIMEOUT_MS = 10_000
/** Below the idle limit of common servers, so that a kept connection is seldom closed under a request. */
const KEEP_ALIVE_MS = 20_000
const CONNECTIONS_MAX = 8
const EVENT_STREAM_IDLE_MS = 90_000

/** How requests to a program of another make differ from those to a site. */
export type Dialect = {
  /** Stands between the address and the path of a request. */
  readonly prefix: string
  /** In the place of all headers that are sent with every request. */
  readonly headers: Readonly<Record<string, string>>
  readonly refusal: typeof refusal
}

/** An answer that is read as it comes. It has to be read to its end, or destroyed. */
export type StreamedAnswer = { readonly headers: PeerAnswer['headers']; readonly body: Readable }

/** Requests to one peer over kept connections: one attempt each, every wait bounded. */
export type Transport = ReturnType<typeof createTransport>

export function createTransport(connection: Connection, settings: TransportSettings, dialect?: Dialect) {
  const base = new URL(connection.url)
  const prefix = `${base.pathname.replace(/\/+$/, '')}${dialect?.prefix ?? '/sync/v1'}`
  const dispatcher = createDispatcher(connection, settings)
  const local = isLoopback(base.hostname) && connection.proxy === null
  const refused = dialect?.refusal ?? refusal
  const common = dialect?.headers ?? {
    ...(connection.token !== null && { authorization: `Bearer ${connection.token}` }),
    // Between processes of one machine coding costs more than it saves.
    'accept-encoding': local ? 'identity' : ENCODINGS,
    'user-agent': 'syncline',
  }

  const introduction = () =>
    dialect === undefined && {
      'syncline-log': settings.logId(),
      'syncline-time': new Date().toISOString(),
      ...(settings.uuid !== undefined && { 'syncline-site': settings.uuid }),
      ...(settings.mark !== undefined && { 'syncline-mark': settings.mark() }),
    }

  async function send(request: PeerRequest) {
    const { method, path, query = {}, headers = {}, body, waitMs = 0 } = request
    const timeoutMs = settings.requestTimeoutMs + waitMs
    const given = Object.entries(query).filter((pair): pair is [string, string] => pair[1] !== undefined)
    return dispatcher.request({
      origin: base.origin,
      path: `${prefix}${path}${given.length === 0 ? '' : `?${new URLSearchParams(given)}`}`,
      method,
      headers: { ...common, ...introduction(), ...headers },
      headersTimeout: timeoutMs,
      bodyTimeout: timeoutMs,
      ...(body !== undefined && { body }),
      ...(request.signal !== undefined && { signal: request.signal }),
    })
  }

  /** Sends one request and reads the whole answer. Errors: PeerError; the reason of `signal` when it is aborted. */
  async function exchange(request: PeerRequest): Promise<PeerAnswer> {
    const what = `${request.method} ${request.path} at ${base.host}`
    const timeout = AbortSignal.timeout(settings.requestTimeoutMs + (request.waitMs ?? 0))
    const signal = request.signal === undefined ? timeout : AbortSignal.any([request.signal, timeout])
    try {
      const { statusCode, headers, body } = await send({ ...request, signal })
      const read = await readBody(body, headers, settings.bodyBytesMax)
      if (statusCode >= 200 && statusCode < 300) return { headers, body: read }
      throw refused(what, { status: statusCode, headers, body: read.bytes }, Date.now())
    } catch (error) {
      if (request.signal?.aborted) throw request.signal.reason
      throw connectionFailure(what, error, base.protocol === 'https:')
    }
  }

  /** Sends one request and gives the answer to be read piece by piece. Errors: as of exchange; reading it gives those of the connection. */
  async function stream(request: PeerRequest): Promise<StreamedAnswer> {
    const what = `${request.method} ${request.path} at ${base.host}`
    try {
      const { statusCode, headers, body } = await send(request)
      if (statusCode >= 200 && statusCode < 300) return { headers, body }
      const read = await readBody(body, headers, settings.bodyBytesMax)
      throw refused(what, { status: statusCode, headers, body: read.bytes }, Date.now())
    } catch (error) {
      if (request.signal?.aborted) throw request.signal.reason
      throw connectionFailure(what, error, base.protocol === 'https:')
    }
  }

  /** What ended a stream before its end, in words. */
  function broken(request: Pick<PeerRequest, 'method' | 'path'>, error: unknown): unknown {
    return connectionFailure(`${request.method} ${request.path} at ${base.host}`, error, base.protocol === 'https:')
  }

  /** Lines of the peer's event stream as they come, until `signal` ends it or it falls silent. */
  async function* events(signal: AbortSignal): AsyncIterable<string> {
    const what = `GET /events at ${base.host}`
    try {
      const answer = await dispatcher.request({
        origin: base.origin,
        path: `${prefix}/events`,
        method: 'GET',
        headers: { ...common, ...introduction(), accept: 'text/event-stream', 'accept-encoding': 'identity' },
        headersTimeout: settings.requestTimeoutMs,
        bodyTimeout: EVENT_STREAM_IDLE_MS,
        signal,
      })
      if (answer.statusCode !== 200) {
        const read = await readBody(answer.body, answer.headers, settings.bodyBytesMax)
        throw refusal(what, { status: answer.statusCode, headers: answer.headers, body: read.bytes }, Date.now())
      }
      yield* linesOf(answer.body)
    } catch (error) {
      if (signal.aborted) throw signal.reason
      throw connectionFailure(what, error, base.protocol === 'https:')
    }
  }

  return { host: base.host, local, exchange, stream, broken, events, close: () => dispatcher.destroy() }
}

function createDispatcher(connection: Connection, settings: TransportSettings): Dispatcher {
  const authorities = [settings.caPem, connection.caPem].filter((pem): pem is string => pem != null && pem !== '')
  const tls = {
    ...(authorities.length > 0 && { ca: [...getCACertificates('default'), ...authorities] }),
    ...(connection.clientCertPem !== null && { cert: connection.clientCertPem }),
    ...(connection.clientKeyPem !== null && { key: connection.clientKeyPem }),
  }
  const options = { connections: CONNECTIONS_MAX, keepAliveTimeout: KEEP_ALIVE_MS, pipelining: 1, allowH2: false }
  const connect = { ...tls, timeout: CONNECT_TIMEOUT_MS }
  const throughProxy = {
    ...options,
    connectTimeout: CONNECT_TIMEOUT_MS,
    requestTls: connect,
    proxyTls: { ...caOnly(tls), timeout: CONNECT_TIMEOUT_MS },
  }
  if (connection.proxy !== null) return new ProxyAgent({ ...throughProxy, uri: proxyUri(connection.proxy) })
  if (settings.proxy === undefined) return new Agent({ ...options, connect })
  const proxies = { httpProxy: settings.proxy, httpsProxy: settings.proxy, noProxy: settings.noProxy.join(',') }
  return new EnvHttpProxyAgent({ ...throughProxy, ...proxies, connect })
}

/** The client certificate is for the peer, not for a proxy on the way. */
function caOnly(tls: { readonly ca?: readonly string[] }): { ca?: string[] } {
  return tls.ca === undefined ? {} : { ca: [...tls.ca] }
}

function proxyUri({ url, credentials }: NonNullable<Connection['proxy']>): string {
  const uri = new URL(url)
  if (credentials !== null) {
    uri.username = encodeURIComponent(credentials.username)
    uri.password = encodeURIComponent(credentials.password)
  }
  return uri.href
}

function isLoopback(hostname: string): boolean {
  return hostname === 'localhost' || hostname === '[::1]' || /^127\.\d+\.\d+\.\d+$/.test(hostname)
}

const EVENT_LINE_MAX = 65_536

async function* linesOf(stream: AsyncIterable<Buffer>): AsyncIterable<string> {
  const decoder = new TextDecoder()
  let rest = ''
  for await (const chunk of stream) {
    rest += decoder.decode(chunk, { stream: true })
    const lines = rest.split(/\r\n|\n|\r/)
    rest = lines.pop() ?? ''
    if (rest.length > EVENT_LINE_MAX) throw new PeerError('SYNC_PEER_REFUSED', 'a line of the event stream has no end')
    yield* lines
  }
}
