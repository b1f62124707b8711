import type { Batch, Change } from '../record.ts'
import { readChange, writeChange } from './change.ts'
import { parseJson } from './exact-json.ts'
import {
  checkCount,
  checkSize,
  type DecodeContext,
  decodeText,
  fault,
  glue,
  incomplete,
  looksLikeTrailer,
  placed,
  readTrailer,
  type Trailer,
  trailerOf,
  type WritingCodec,
} from './format.ts'

/**
 * One change a line, then a line with count, checkpoint and more: without it nobody can tell a whole body from the
 * first half of one.
 */
export const ndjson: WritingCodec = {
  name: 'ndjson',
  mediaType: 'application/x-ndjson',
  aliases: ['application/ndjson', 'application/jsonl', 'application/x-jsonlines'],
  decode: decodeNdjson,
  encode: (batch) => glue(ndjsonLines(batch)),
}

function decodeNdjson(bytes: Uint8Array, context: DecodeContext): Batch[] {
  if (context.trailer === 'required' && trailerOf(bytes, context.depthMax) === undefined)
    throw incomplete('the body ends before its trailer line')
  const text = decodeText(bytes)
  const changes: Change[] = []
  let trailer: Trailer | undefined
  let line = 0
  for (let start = 0; start < text.length; ) {
    const newline = text.indexOf('\n', start)
    const end = newline === -1 ? text.length : newline
    const piece = text.slice(start, end)
    start = end + 1
    line++
    if (piece.trim() === '') continue
    try {
      if (trailer !== undefined) fault('the trailer must be the last line')
      checkSize(piece, context.recordBytesMax)
      const value = parseJson(piece, context.depthMax)
      if (looksLikeTrailer(value)) {
        trailer = readTrailer(value)
        continue
      }
      checkCount(changes.length + 1, context.recordsMax)
      changes.push(readChange(value, context.refs))
    } catch (error) {
      throw placed(error, `record ${changes.length + 1} (line ${line})`)
    }
  }
  if (trailer !== undefined && trailer.count !== changes.length) {
    throw incomplete(`the trailer counts ${trailer.count} records, the body has ${changes.length}`)
  }
  return [{ resource: context.resource, changes, ...(trailer?.next && { next: trailer.next }) }]
}

function* ndjsonLines(batch: Batch): Iterable<string> {
  for (const change of batch.changes) yield `${writeChange(change)}\n`
  yield `${JSON.stringify({ ...batch.next, count: batch.changes.length })}\n`
}
