import type { Readable } from 'node:stream'
import {
  type EdenElement,
  type EdenLimits,
  type EdenReader,
  SynclineError,
  s3jsonReader,
  s3xmlReader,
} from '../../sync/index.ts'

/** Bytes in front of a document that are looked at to tell what it is: the head of a multipart part, or white space. */
const HEAD_BYTES_MAX = 16_384

/**
 * The elements of a body, in portions as they come. What it is, is seen from itself: Eden sends XML as `application/x-www-form-urlencoded`.
 * A form with files has the document in its first part. Throws SYNC_FORMAT_INVALID and what else the readers throw.
 */
export async function* elementsIn(body: Readable, limits: EdenLimits): AsyncIterable<readonly EdenElement[]> {
  let reader: EdenReader | undefined
  for await (const piece of documentIn(body)) {
    reader ??= readerFor(piece, limits)
    const found = reader.write(piece)
    if (found.length > 0) yield found
  }
  if (reader === undefined) throw new SynclineError('SYNC_FORMAT_INVALID', 'the body has no document')
  yield reader.end()
}

function readerFor(piece: Uint8Array, limits: EdenLimits): EdenReader {
  const start = Buffer.from(piece.subarray(0, 64))
    .toString('latin1')
    .replace(/^\xef\xbb\xbf/, '')
    .trimStart()
  return start.startsWith('{') ? s3jsonReader(limits) : s3xmlReader(limits)
}

/** The bytes of the document itself: a byte order mark and what a form puts around it are taken off. */
async function* documentIn(body: Readable): AsyncIterable<Buffer> {
  let head = Buffer.alloc(0)
  let end: Buffer | undefined
  let begun = false
  for await (const chunk of body as AsyncIterable<Buffer>) {
    if (begun && end === undefined) {
      yield chunk
      continue
    }
    head = Buffer.concat([head, chunk])
    if (!begun) {
      const start = beginOf(head)
      if (start === undefined) {
        if (head.length > HEAD_BYTES_MAX)
          throw new SynclineError('SYNC_FORMAT_INVALID', 'the body begins with no document')
        continue
      }
      begun = true
      end = start.end
      head = head.subarray(start.at)
    }
    if (end === undefined) {
      yield head
      head = Buffer.alloc(0)
      continue
    }
    const stop = head.indexOf(end)
    if (stop !== -1) {
      yield head.subarray(0, stop)
      body.resume()
      return
    }
    const safe = Math.max(0, head.length - end.length)
    if (safe > 0) yield head.subarray(0, safe)
    head = head.subarray(safe)
  }
  if (end !== undefined) throw new SynclineError('SYNC_BATCH_INCOMPLETE', 'the form in the body has no end')
  if (!begun && head.length > 0) yield head
}

/** Where the document begins, and what ends it in a form. Undefined: more bytes are needed to tell. */
function beginOf(head: Buffer): { readonly at: number; readonly end?: Buffer } | undefined {
  const mark = head.subarray(0, 3).equals(Buffer.from([0xef, 0xbb, 0xbf])) ? 3 : 0
  let at = mark
  while (at < head.length && [0x20, 0x09, 0x0a, 0x0d].includes(head[at] ?? 0)) at++
  if (at >= head.length) return undefined
  if (head[at] !== 0x2d) return { at }
  const line = head.indexOf('\r\n', at)
  const blank = head.indexOf('\r\n\r\n', at)
  if (line === -1 || blank === -1) return undefined
  return { at: blank + 4, end: Buffer.concat([Buffer.from('\r\n'), head.subarray(at, line)]) }
}
