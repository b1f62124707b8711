import type { ComparedColumn, DeepDigest, DeepRecord, Digest, KeyRange, RecordDigest } from '../store/index.ts'
import { isJsonObject } from '../sync/index.ts'
import type { PeerClient } from './peer-client.ts'
import { PeerError } from './peer-error.ts'

/** One resource at a peer, as digests are asked for. `filter` is that of the task; the peer adds that of its grant. */
export type Asking = {
  readonly client: PeerClient
  readonly resource: string
  readonly filter: string | null
  readonly signal: AbortSignal | undefined
}

/** What narrows the answers of the peer besides our own filter. */
export type Granted = { readonly filter: string | null; readonly hidden: boolean }

export type DeepAnswer = { readonly digest: DeepDigest; readonly columns: readonly ComparedColumn[] } & Granted

type Query = Readonly<Record<string, string | undefined>>

/** Digests of a range in pieces. Errors of all: those of the peer's answers, SYNC_PEER_REFUSED for what is no digest. */
export async function askRanges(
  to: Asking,
  range: KeyRange,
  buckets: number,
): Promise<{ readonly ranges: readonly Digest[] } & Granted> {
  const answer = await ask(to, { ...bounds(range), buckets: String(buckets) })
  return { ranges: list(to, answer.ranges, (each) => digest(to, each)), ...granted(answer) }
}

/** The records of a small range. */
export async function askRecords(to: Asking, range: KeyRange): Promise<readonly RecordDigest[]> {
  const { records } = await ask(to, { ...bounds(range), records: 'true' })
  return list(to, records, ({ id, hash }): RecordDigest => {
    if (typeof id !== 'string' || !isNumber(hash)) throw unreadable(to)
    return { id, hash }
  })
}

/** Digest of the next `limit` records of a range with their values. */
export async function askDeep(
  to: Asking,
  range: KeyRange,
  columns: readonly string[],
  limit: number,
): Promise<DeepAnswer> {
  const answer = await ask(to, {
    ...bounds(range),
    deep: 'true',
    limit: String(limit),
    columns: columns.join(',') || ',',
  })
  const [found] = list(to, answer.ranges, (each): DeepDigest => {
    if (!Number.isSafeInteger(each.rowless)) throw unreadable(to)
    return { ...digest(to, each), rowless: each.rowless as number }
  })
  if (found === undefined) throw unreadable(to)
  const known = list(to, answer.columns, ({ name, type }): ComparedColumn => {
    if (typeof name !== 'string' || typeof type !== 'string') throw unreadable(to)
    return { name, type }
  })
  return { digest: found, columns: known, ...granted(answer) }
}

/** The records of a range of at most `limit` with their values. */
export async function askDeepRecords(
  to: Asking,
  range: KeyRange,
  columns: readonly string[],
  limit: number,
): Promise<readonly DeepRecord[]> {
  const asked = { deep: 'true', records: 'true', limit: String(limit), columns: columns.join(',') || ',' }
  const { records } = await ask(to, { ...bounds(range), ...asked })
  return list(to, records, ({ id, version, content, touched }): DeepRecord => {
    if (typeof id !== 'string' || !isNumber(version) || !(content === null || isNumber(content))) throw unreadable(to)
    return { id, version, content, touched: touched === true }
  })
}

/** A part of the peer's table: keys of rows that no record stands for. */
export async function askStrays(
  to: Asking,
  after: string | null,
): Promise<{ readonly ids: readonly string[]; readonly after: string | null }> {
  const answer = await ask(to, { from: after ?? undefined, strays: 'true' })
  if (!isText(answer.after) || (answer.after === after && after !== null)) throw unreadable(to)
  if (!Array.isArray(answer.strays) || !answer.strays.every((id) => typeof id === 'string')) throw unreadable(to)
  return { ids: answer.strays, after: answer.after }
}

function ask({ client, resource, filter, signal }: Asking, query: Query): Promise<Record<string, unknown>> {
  return client.digests(resource, { ...query, filter: filter ?? undefined }, signal)
}

function granted(answer: Record<string, unknown>): Granted {
  return { filter: typeof answer.filter === 'string' ? answer.filter : null, hidden: answer.hidden === true }
}

function digest(to: Asking, { from, to: end, count, sum }: Readonly<Record<string, unknown>>): Digest {
  if (!isText(from) || !isText(end) || !Number.isSafeInteger(count) || !isNumber(sum)) throw unreadable(to)
  return { from, to: end, count: count as number, sum }
}

/** Open ends are left out. */
function bounds({ from, to }: KeyRange): Query {
  return { from: from ?? undefined, to: to ?? undefined }
}

function list<T>(to: Asking, value: unknown, read: (each: Readonly<Record<string, unknown>>) => T): readonly T[] {
  if (!Array.isArray(value)) throw unreadable(to)
  return value.map((each: unknown) => {
    if (!isJsonObject(each)) throw unreadable(to)
    return read(each)
  })
}

function isText(value: unknown): value is string | null {
  return value === null || typeof value === 'string'
}

function isNumber(value: unknown): value is string {
  return typeof value === 'string' && /^-?\d{1,60}$/.test(value)
}

function unreadable({ client, resource }: Asking): PeerError {
  const what = `GET /digests/${resource} at ${client.host}`
  return new PeerError('SYNC_PEER_REFUSED', `${what}: the answer is no digest`, { status: 200, retryable: false })
}
