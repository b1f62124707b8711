import type { Readable } from 'node:stream'
import {
  type EdenVariable,
  type FollowedDataset,
  isJsonObject,
  type Json,
  parseJson,
  parseRetryAfter,
  readDataset,
  repositoryOfSite,
  SynclineError,
} from '../../sync/index.ts'
import type { ClientSettings } from '../peer-client.ts'
import { PeerError, type refusal as siteRefusal } from '../peer-error.ts'
import { type Connection, createTransport, type PeerAnswer } from '../transport.ts'
import { allOf, type EdenDocument, openDocument } from './document.ts'

/** What Eden is asked for. Times are seconds since 1970. */
export type EdenQuery = {
  readonly table: string
  /** Only what Eden says to be modified since, by its own clock. */
  readonly since?: number | undefined
  /** Only these records, by their names at Eden. */
  readonly uuids?: readonly string[] | undefined
  /** Filters in Eden's words, as variables of an address. */
  readonly filters?: readonly EdenVariable[] | undefined
}

/** An archive as it comes; what it comes by is closed by whoever read it. */
export type ArchiveAnswer = {
  readonly at: number
  readonly body: Readable
  readonly close: () => Promise<void>
}

/** What Eden said of a push: errors by the name of the record, of those records that it names. */
export type EdenAnswer = { readonly errors: ReadonlyMap<string, string>; readonly message: string | null }

/** The UUID that Eden calls itself by, as it writes it, and what it said of the registration. */
export type Registered = { readonly sender: string; readonly message: string }

export type EdenRequests = ReturnType<typeof createEdenRequests>

/** The only time that Eden takes note of: another one would make it send everything. */
const msince = (seconds: number) => new Date(seconds * 1_000).toISOString().slice(0, 19)
/** How much longer than other answers a whole table may take: Eden makes about a thousand records a second. */
const WHOLE_WAIT_MS = 600_000
/** Entries about one data set that are read. */
const DATASET_ENTRIES_MAX = 2_000

/**
 * The requests that a Sahana Eden site understands, as `self`. One attempt each; nothing here is ever sent as DELETE, which Eden takes for
 * "every record of the table". Errors: PeerError, with what Eden said in its own words; SYNC_FORMAT_INVALID for a document that cannot be read.
 */
export function createEdenRequests(connection: Connection, settings: ClientSettings, self: string) {
  const transport = createTransport(connection, settings, {
    prefix: '',
    headers: {
      ...(connection.token !== null && { authorization: `Basic ${Buffer.from(connection.token).toString('base64')}` }),
      'accept-encoding': 'identity',
      'user-agent': 'syncline',
    },
    refusal,
  })
  const repository = repositoryOfSite(self)
  const base = new URL(connection.url)
  /** Whether an Eden answers there: it notes the name in its log, and no more. */
  let named = false

  /** Introduces this site. */
  async function register(name: string, signal?: AbortSignal): Promise<Registered> {
    const body = Buffer.from(JSON.stringify({ uuid: repository, name: name.slice(0, 64), apitype: 'eden' }))
    const path = '/sync/repository/register.json'
    const headers = { 'content-type': 'application/json' }
    const answer = readAnswer(await transport.exchange({ method: 'POST', path, headers, body, signal }), path)
    if (typeof answer.sender !== 'string') throw odd(path, 'it does not say who it is')
    return { sender: answer.sender, message: String(answer.message ?? '').slice(0, 200) }
  }

  async function pull(query: EdenQuery, signal?: AbortSignal): Promise<EdenDocument> {
    const path = '/sync/sync.xml'
    const asked = {
      resource: query.table,
      // A cursor goes with a name. Who wants all that there is asks without one: else what came from here would be left out.
      repository: named && query.since !== undefined ? repository : undefined,
      msince: query.since === undefined ? undefined : msince(query.since),
      include_deleted: 'True',
      ...Object.fromEntries(query.filters ?? []),
      ...(query.uuids !== undefined && { '[~]~.uuid__belongs': query.uuids.join(',') }),
    }
    // Eden has all of its answer before it sends the first byte of it.
    const waitMs = query.since === undefined && query.uuids === undefined ? WHOLE_WAIT_MS : 0
    return documentAt(path, asked, waitMs, signal)
  }

  async function documentAt(
    path: string,
    query: Readonly<Record<string, string | undefined>>,
    waitMs: number,
    signal: AbortSignal | undefined,
  ): Promise<EdenDocument> {
    const answer = await transport.stream({ method: 'GET', path, query, waitMs, signal })
    // Whoever reads it hears of it; when nobody does any more, it is of no matter.
    answer.body.on('error', () => {})
    named = /web2py/i.test(String(answer.headers['x-powered-by'] ?? ''))
    const type = String(answer.headers['content-type'] ?? '')
    if (!/xml/i.test(type)) {
      // What Eden refuses in general it answers with success and a text.
      let text = ''
      for await (const piece of answer.body) if (text.length < 2_000) text += String(piece)
      throw odd(path, wordsOf(text) ?? `it answered ${type || 'no document'}`)
    }
    const pieces = bytesOf(answer.body, path, signal)
    return openDocument(
      { serverTime: clockOf(answer.headers), pieces, close: () => void answer.body.destroy() },
      settings,
    )
  }

  function bytesOf(body: Readable, path: string, signal: AbortSignal | undefined): AsyncIterator<Buffer> {
    const pieces = body[Symbol.asyncIterator]() as AsyncIterator<Buffer>
    const next = () =>
      pieces.next().catch((error: unknown) => {
        if (signal?.aborted) throw signal.reason
        throw transport.broken({ method: 'GET', path }, error)
      })
    return { next }
  }

  /** A data set that this Eden publishes. Errors: SYNC_REQUEST_NOT_FOUND for one that it has not. */
  async function dataset(code: string, signal?: AbortSignal): Promise<FollowedDataset> {
    const look = async (noun: string, by: string) =>
      allOf(await documentAt(`/sync/${noun}.xml`, { [by]: code, mcomponents: 'None' }, 0, signal), DATASET_ENTRIES_MAX)
    const documents = {
      dataset: await look('dataset', '~.code'),
      task: await look('task', '~.dataset_id$code'),
      resource_filter: await look('resource_filter', '~.task_id$dataset_id$code'),
    }
    const found = readDataset(code, documents)
    if (found !== undefined) return found
    throw new SynclineError('SYNC_REQUEST_NOT_FOUND', `the Eden at ${transport.host} publishes no data set "${code}"`)
  }

  /**
   * An archive as it comes: below the address of this Eden with the account there, from anywhere else without. When it was made, in seconds since
   * 1970, is what the answer says, or when it was given.
   */
  async function archive(url: URL, signal?: AbortSignal): Promise<ArchiveAnswer> {
    const path = pathBelow(url)
    const outside = path === null ? outsider(url) : undefined
    const asked = { method: 'GET', path: path ?? url.pathname, query: Object.fromEntries(url.searchParams) } as const
    try {
      const { headers, body } = await (outside ?? transport).stream({ ...asked, waitMs: WHOLE_WAIT_MS, signal })
      const made = Date.parse(String(headers['last-modified'] ?? ''))
      const at = Math.min(clockOf(headers), Number.isNaN(made) ? Number.POSITIVE_INFINITY : Math.floor(made / 1_000))
      return { at, body, close: async () => void (await outside?.close()) }
    } catch (error) {
      await outside?.close()
      throw error
    }
  }

  function outsider(url: URL): ReturnType<typeof createTransport> {
    const { proxy, caPem } = connection
    const bare: Connection = { url: url.origin, token: null, proxy, caPem, clientCertPem: null, clientKeyPem: null }
    return createTransport(bare, settings, { prefix: '', headers: { 'user-agent': 'syncline' }, refusal })
  }

  /** What an address is below that of this Eden; null for any other place. */
  function pathBelow(url: URL): string | null {
    const root = base.pathname.replace(/\/+$/, '')
    return url.origin === base.origin && url.pathname.startsWith(`${root}/`) ? url.pathname.slice(root.length) : null
  }

  /** Sends a document. That it was answered says little: what was taken shows when it is pulled back. */
  async function push(table: string, document: Buffer, signal?: AbortSignal): Promise<EdenAnswer> {
    const path = '/sync/sync.xml'
    // A body of XML without a file name makes web2py fail on today's Python; with one it is read as it is.
    const headers = { 'content-type': 'text/xml', 'content-disposition': 'attachment; filename="data.xml"' }
    const query = { resource: table, repository }
    const answer = readAnswer(
      await transport.exchange({ method: 'POST', path, query, headers, body: document, signal }),
      path,
    )
    const errors = new Map<string, string>()
    for (const each of isJsonObject(answer.tree) ? Object.values(answer.tree) : []) gatherErrors(each, errors)
    return { errors, message: typeof answer.message === 'string' ? answer.message : null }
  }

  /** The fields of a table: `<field name type/>`. */
  async function fields(table: string, signal?: AbortSignal): Promise<readonly { name: string; type: string }[]> {
    const path = `/${table.replace('_', '/')}/fields.xml`
    const { body } = await transport.exchange({ method: 'GET', path, signal })
    const found = [...body.bytes.toString().matchAll(/<field\b([^>]*)>/g)].map(([, attributes = '']) => ({
      name: /\bname=["']([\w.]+)["']/.exec(attributes)?.[1] ?? '',
      type: /\btype=["']([^"']+)["']/.exec(attributes)?.[1] ?? '',
    }))
    if (found.length === 0 || found.some(({ name, type }) => name === '' || type === ''))
      throw odd(path, 'it does not name the fields of the table')
    return found
  }

  /** A file that Eden has, from its own address alone. Errors: SYNC_PEER_REFUSED for any other place. */
  async function download(url: string, signal?: AbortSignal): Promise<Buffer> {
    const place = URL.canParse(url, base.href) ? new URL(url, base) : null
    const path = place && pathBelow(place)
    if (place === null || path === null)
      throw odd('/', `a file at ${url.slice(0, 200)} is not fetched: it is not at the address of this peer`)
    const { body } = await transport.exchange({
      method: 'GET',
      path,
      query: Object.fromEntries(place.searchParams),
      signal,
    })
    return body.bytes
  }

  function odd(path: string, why: string): PeerError {
    return new PeerError('SYNC_PEER_REFUSED', `${path} at ${transport.host}: ${why}`, { status: 200, retryable: false })
  }

  function readAnswer(answer: PeerAnswer, path: string): { readonly [name: string]: Json } {
    let value: Json
    try {
      value = parseJson(answer.body.bytes.toString(), settings.depthMax) as Json
    } catch (cause) {
      throw new SynclineError('SYNC_PEER_REFUSED', `${path} at ${transport.host}: the answer cannot be read`, { cause })
    }
    if (!isJsonObject(value)) throw odd(path, 'the answer is no object')
    // Eden refuses some requests with success.
    if (value.status !== 'success') throw odd(path, String(value.message ?? 'it says that it failed, and not why'))
    return value
  }

  return {
    host: transport.host,
    url: connection.url,
    register,
    pull,
    push,
    fields,
    dataset,
    archive,
    download,
    close: transport.close,
  }
}

/** Errors in the tree of records that Eden did not take: of the record, or of a field in it. */
function gatherErrors(node: Json, errors: Map<string, string>): void {
  if (Array.isArray(node)) for (const each of node) gatherErrors(each, errors)
  if (!isJsonObject(node)) return
  const { '@uuid': uuid, '@error': error } = node
  if (typeof uuid === 'string') {
    const inside = Object.values(node).flatMap((field) =>
      isJsonObject(field) && typeof field['@error'] === 'string' ? [field['@error']] : [],
    )
    const reasons = [...inside, ...(typeof error === 'string' && inside.length === 0 ? [error] : [])]
    if (reasons.length > 0) errors.set(uuid, reasons.join('; ').slice(0, 1_000))
  }
  for (const [name, each] of Object.entries(node)) if (name.startsWith('$_')) gatherErrors(each as Json, errors)
}

function clockOf(headers: PeerAnswer['headers']): number {
  const date = Date.parse(String(headers.date ?? ''))
  return Math.floor((Number.isNaN(date) ? Date.now() : date) / 1_000)
}

/** What Eden says in JSON, or in a page for people. */
function wordsOf(text: string): string | null {
  try {
    const value: unknown = JSON.parse(text)
    if (isJsonObject(value)) return typeof value.message === 'string' ? value.message : null
  } catch {
    // Then it is a page.
  }
  const plain = text
    .replaceAll(/<[^>]*>/g, ' ')
    .replaceAll(/\s+/g, ' ')
    .trim()
  return plain === '' ? null : plain.slice(0, 300)
}

function refusal(what: string, { status, headers, body }: Parameters<typeof siteRefusal>[1], nowMs: number): PeerError {
  const retryAfterMs = parseRetryAfter(
    headers['retry-after'] === undefined ? undefined : String(headers['retry-after']),
    nowMs,
  )
  const said = wordsOf(body.subarray(0, 4_000).toString())
  const place =
    status >= 300 && status < 400 && headers.location !== undefined
      ? ` and sends to ${headers.location}: is the address that of the application, such as http://host/eden?`
      : ''
  const words = `${what}: it answered ${status}${place}${said === null ? '' : `: ${said}`}`
  if (status === 502 || status === 503 || status === 504)
    return new PeerError('SYNC_PEER_UNREACHABLE', words, { status, retryAfterMs })
  const retryable = status === 408 || status === 429 || status >= 500
  const code = status === 401 ? 'SYNC_AUTH_MISSING' : status === 429 ? 'SYNC_REQUEST_TOO_MANY' : 'SYNC_PEER_REFUSED'
  return new PeerError(code, words, { status, retryable, retryAfterMs })
}
