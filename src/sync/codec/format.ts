import { isUtf8 } from 'node:buffer'
import { SynclineError } from '../errors.ts'
import type { Batch } from '../record.ts'
import { isJsonObject, parseJson } from './exact-json.ts'

/** Bounds on one body: records, UTF-8 bytes of one record as it stands in the body, levels of nesting. */
export type BodyLimits = { readonly recordsMax: number; readonly recordBytesMax: number; readonly depthMax: number }

/** What a decoder must know about the receiving side. */
export type DecodeContext = BodyLimits & {
  readonly resource: string
  /** Reference columns of that resource, and the resource each of them refers to. */
  readonly refs: Readonly<Record<string, string>>
  /** NDJSON only: 'required' in an answer to a pull, 'optional' in a push, where curl sends lines as they come. */
  readonly trailer: 'required' | 'optional'
  /** Name of the identity column: in CSV it may stand for `id`. */
  readonly idColumn?: string | undefined
  /** Columns whose value is itself JSON (json, jsonb, arrays): a CSV cell and an S3XML text are parsed for them. */
  readonly jsonColumns?: readonly string[] | undefined
}

/** One format of records: bytes ⇄ batches and nothing else. `encode` is absent where a format is only read. */
export type Codec = {
  readonly name: 'ndjson' | 'json' | 's3xml' | 'csv'
  readonly mediaType: string
  /** Other names under which the same format is sent. */
  readonly aliases: readonly string[]
  /**
   * Throws SYNC_FORMAT_INVALID, SYNC_BATCH_INCOMPLETE, SYNC_RECORD_TOO_LARGE or SYNC_REQUEST_TOO_LARGE, naming where
   * and why.
   */
  readonly decode: (bytes: Uint8Array, context: DecodeContext) => Batch[]
  readonly encode?: (batch: Batch) => Iterable<string>
}

/** A codec that also writes. */
export type WritingCodec = Codec & Required<Pick<Codec, 'encode'>>

/** Refuses what was sent; the caller that knows the place adds it by `placed`. */
export function fault(why: string, options?: ErrorOptions): never {
  throw new SynclineError('SYNC_FORMAT_INVALID', why, options)
}

/**
 * The same refusal with the place in front: `record 17 (line 17): unknown member "foo"`. Errors of parsers become
 * refusals, bugs stay what they are.
 */
export function placed(error: unknown, place: string): unknown {
  if (!(error instanceof SynclineError || error instanceof SyntaxError)) return error
  const code = error instanceof SynclineError ? error.code : 'SYNC_FORMAT_INVALID'
  return new SynclineError(code, `${place}: ${error.message}`, { cause: error.cause ?? error })
}

/** A name or value that came from outside, short and without control characters. */
export function quoted(value: unknown): string {
  const text = JSON.stringify(value) ?? String(value)
  return text.length <= 80 ? text : `${text.slice(0, 77)}…"`
}

/**
 * Bytes to text. A byte order mark is taken off; anything but UTF-8 is refused with its line, as a replacement
 * character would be a silent change.
 */
export function decodeText(bytes: Uint8Array): string {
  try {
    return new TextDecoder('utf-8', { fatal: true }).decode(bytes)
  } catch (error) {
    return fault(`line ${badLine(bytes)} is not UTF-8; send the body in UTF-8`, { cause: error })
  }
}

function badLine(bytes: Uint8Array): number {
  let line = 1
  for (let start = 0; start < bytes.length; line++) {
    const newline = bytes.indexOf(0x0a, start)
    const end = newline === -1 ? bytes.length : newline + 1
    if (!isUtf8(bytes.subarray(start, end))) return line
    start = end
  }
  return line
}

/** Refuses a record beyond the limit. `text` is the record as it stands in the body. */
export function checkSize(text: string, recordBytesMax: number): void {
  // A UTF-16 unit is at most three bytes of UTF-8, so short records need no count.
  if (text.length * 3 <= recordBytesMax) return
  const bytes = Buffer.byteLength(text)
  if (bytes > recordBytesMax)
    throw new SynclineError('SYNC_RECORD_TOO_LARGE', `it has ${bytes} bytes; at most ${recordBytesMax} are taken here`)
}

/** Refuses a body with more records than the limit. */
export function checkCount(count: number, recordsMax: number): void {
  if (count > recordsMax)
    throw new SynclineError('SYNC_REQUEST_TOO_LARGE', `the body has more than ${recordsMax} records`)
}

/** No table has more columns than this in PostgreSQL: what names more of them costs time for nothing. */
const COLUMNS_MAX = 1_600

/** Refuses a body with more columns than any table can have. */
export function checkColumns(count: number): void {
  if (count > COLUMNS_MAX)
    throw new SynclineError(
      'SYNC_REQUEST_TOO_LARGE',
      `the body names ${count} columns; no table has over ${COLUMNS_MAX}`,
    )
}

/** The last line of a body in lines: how many records came before it, and where the next batch begins. */
export type Trailer = {
  readonly count: number
  readonly next?: NonNullable<Batch['next']>
  /** Only in lines: see LineBatch. */
  readonly purges?: number
}

/** True for an object that can only be meant as a trailer. */
export function looksLikeTrailer(value: unknown): boolean {
  if (!isJsonObject(value) || Object.hasOwn(value, 'id')) return false
  return ['count', 'checkpoint', 'more'].some((member) => Object.hasOwn(value, member))
}

/** Checks a trailer. Throws SYNC_FORMAT_INVALID. */
export function readTrailer(value: unknown): Trailer {
  if (!isJsonObject(value)) return fault('a trailer is an object with count, checkpoint and more')
  refuseUnknown(value, ['count', 'checkpoint', 'more', 'purges'], 'a trailer')
  const { count, purges } = value
  if (!Number.isSafeInteger(count) || (count as number) < 0) fault(`count must be a whole number, not ${quoted(count)}`)
  if (purges !== undefined && (!Number.isSafeInteger(purges) || (purges as number) < 0))
    fault(`purges must be a whole number, not ${quoted(purges)}`)
  const next = readNext(value)
  return {
    count: count as number,
    ...(next && { next }),
    ...(purges !== undefined && { purges: purges as number }),
  }
}

/** `checkpoint` and `more` of a trailer or root: both or neither. */
export function readNext(members: { readonly [key: string]: unknown }): Batch['next'] {
  const checkpoint = Object.hasOwn(members, 'checkpoint') ? members.checkpoint : undefined
  const more = Object.hasOwn(members, 'more') ? members.more : undefined
  if (checkpoint === undefined && more === undefined) return undefined
  if (typeof checkpoint !== 'string' || checkpoint === '')
    return fault('checkpoint must be a text, as this or another site gave it')
  if (typeof more !== 'boolean') return fault('more must be true or false beside a checkpoint')
  return { checkpoint, more }
}

/**
 * The last line of a body, if it reads as a trailer; undefined when the body ends before one. Bytes, so that a cut
 * inside a character is an incomplete body.
 */
export function trailerOf(bytes: Uint8Array, depthMax: number): Trailer | undefined {
  let end = bytes.length
  while (end > 0 && (bytes[end - 1] === 0x0a || bytes[end - 1] === 0x0d)) end--
  const line = bytes.subarray(bytes.lastIndexOf(0x0a, end - 1) + 1, end)
  try {
    const value = parseJson(decodeText(line), depthMax)
    return looksLikeTrailer(value) ? readTrailer(value) : undefined
  } catch {
    return undefined
  }
}

/** Refuses members that nobody here would read, by name: unknown is not dropped (I11). */
export function refuseUnknown(
  value: { readonly [key: string]: unknown },
  known: readonly string[],
  what: string,
): void {
  for (const member of Object.keys(value)) {
    if (!known.includes(member)) fault(`unknown member ${quoted(member)}; ${what} has ${known.join(', ')}`)
  }
}

/** The refusal of a body that ends too early or was altered on its way. */
export function incomplete(why: string): SynclineError {
  return new SynclineError('SYNC_BATCH_INCOMPLETE', why)
}

/**
 * Glues small pieces to chunks of about 64 Ki characters: a socket write per record would cost more than the record.
 */
export function* glue(pieces: Iterable<string>): Iterable<string> {
  let chunk = ''
  for (const piece of pieces) {
    chunk += piece
    if (chunk.length < 65_536) continue
    yield chunk
    chunk = ''
  }
  if (chunk !== '') yield chunk
}
