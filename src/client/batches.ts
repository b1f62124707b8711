import {
  type Batch,
  type BodyLimits,
  codecForContentType,
  decodeLines,
  decodeRows,
  type LineBatch,
  linesOfChanges,
  ROWS_MEDIA_TYPE,
  type RowBatch,
} from '../sync/index.ts'
import type { PeerAnswer } from './transport.ts'

/** The batches in an answer, whatever its format, as lines. Errors of the codecs. */
export function readBatches(
  { body, headers }: PeerAnswer,
  resource: string,
  refs: Readonly<Record<string, string>>,
  bounds: BodyLimits,
): readonly LineBatch[] {
  const format = codecForContentType(String(headers['content-type'] ?? ''))
  if (format.name === 'lines') return [decodeLines(body.bytes, bounds)]
  const batches = format.decode(body.bytes, { ...bounds, resource, refs, trailer: 'required' })
  return batches.flatMap((batch) => linesOf(batch, refs))
}

/** The rows in an answer; undefined for an answer in another form. */
export function readRows({ body, headers }: PeerAnswer, bounds: BodyLimits): RowBatch | undefined {
  const [type = ''] = String(headers['content-type'] ?? '').split(';')
  return type.trim() === ROWS_MEDIA_TYPE ? decodeRows(body.bytes, bounds) : undefined
}

function linesOf(batch: Batch, refs: Readonly<Record<string, string>>): readonly LineBatch[] {
  const parts = linesOfChanges(batch.resource, batch.changes, refs)
  const last = parts.at(-1) ?? { resource: batch.resource, columns: [], refs: {}, origins: [], text: '', count: 0 }
  return [...parts.slice(0, -1), { ...last, ...(batch.next && { next: batch.next }) }]
}
