import { SynclineError } from '../errors.ts'
import type { Batch } from '../record.ts'
import { type BodyLimits, checkCount, decodeText, fault, incomplete, trailerOf } from './format.ts'
import { enclosed, readHeader, type Shape } from './shape.ts'

/** Records on their way between two PostgreSQL databases with equal columns; who asks for them reads lines as well. */
export const ROWS_MEDIA_TYPE = 'application/vnd.syncline.rows'

/** 1: first form. */
const FORM = {
  mediaType: ROWS_MEDIA_TYPE,
  version: 1,
  members: ['resource', 'keyType', 'columns', 'types', 'refs', 'origins'],
}

/**
 * A batch in the text form of PostgreSQL's COPY: rows of key, clock, origin, seen and kind (see LineBatch), then the values in column order, with a tab
 * between and \N for null. Nothing between the two databases looks into them; what a row says is checked by the database that reads it.
 */
export type RowBatch = Shape & {
  readonly keyType: string
  /** The type of each column, and of the key, as PostgreSQL writes it, with its length or precision; a reference travels as text. */
  readonly types: readonly string[]
  /** UTF-8, a newline after every row but the last. */
  readonly rows: Uint8Array
  readonly count: number
  readonly next: NonNullable<Batch['next']>
  /** See LineBatch. */
  readonly purges?: number
}

/** A batch as the database of the sender made it. */
export type RowText = Omit<RowBatch, 'rows'> & { readonly text: string }

/** The body of a batch: header line, rows, trailer line. */
export function rowsBody(batch: RowText): Buffer {
  const { resource, keyType, columns, types, refs, origins, text, count, next, purges } = batch
  const header = JSON.stringify({ syncline: FORM.version, resource, keyType, columns, types, refs, origins })
  const trailer = JSON.stringify({ count, ...next, purges })
  return enclosed(header, text, trailer)
}

/**
 * The batch in a body. Checks header, trailer, the number of rows and the size of each; what they hold is for the database to read, which counts them
 * again. Throws SYNC_BATCH_INCOMPLETE, SYNC_FORMAT_INVALID, SYNC_RECORD_TOO_LARGE or SYNC_REQUEST_TOO_LARGE.
 */
export function decodeRows(body: Uint8Array, limits: BodyLimits): RowBatch {
  const trailer = trailerOf(body, limits.depthMax)
  if (trailer?.next === undefined) throw incomplete('the body ends before its trailer line')
  let end = body.length
  while (body[end - 1] === NEWLINE) end--
  const headerEnd = body.indexOf(NEWLINE)
  if (headerEnd === -1 || headerEnd >= end) throw incomplete('the body has no header line')
  const shape = readHeader(decodeText(body.subarray(0, headerEnd)), limits.depthMax, FORM, readTypes)
  const rows = body.subarray(headerEnd + 1, Math.max(headerEnd + 1, body.lastIndexOf(NEWLINE, end - 1)))
  checkCount(trailer.count, limits.recordsMax)
  const count = countRows(rows, limits.recordBytesMax)
  if (count !== trailer.count) throw incomplete(`the trailer counts ${trailer.count} records, the body has ${count}`)
  const { next, purges } = trailer
  return { ...shape, rows, count, next, ...(purges !== undefined && { purges }) }
}

const NEWLINE = 0x0a

function readTypes({ keyType, types }: { readonly [member: string]: unknown }, { columns }: Shape) {
  if (typeof keyType !== 'string') return fault('keyType must be a name')
  if (!Array.isArray(types) || !types.every((type) => typeof type === 'string'))
    return fault('types must be a list of names')
  if (types.length !== columns.length) return fault(`types has ${types.length} names for ${columns.length} columns`)
  return { keyType, types: types as string[] }
}

function countRows(rows: Uint8Array, recordBytesMax: number): number {
  let count = 0
  for (let start = 0; start < rows.length; count++) {
    const newline = rows.indexOf(NEWLINE, start)
    const end = newline === -1 ? rows.length : newline
    if (end - start > recordBytesMax) {
      const size = `record ${count + 1} (line ${count + 2}) has ${end - start} bytes`
      throw new SynclineError('SYNC_RECORD_TOO_LARGE', `${size}; at most ${recordBytesMax} are taken here`)
    }
    start = end + 1
  }
  return count
}
