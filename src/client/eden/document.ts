import { type EdenElement, s3xmlReader } from '../../sync/index.ts'
import type { ClientSettings } from '../peer-client.ts'

/** A document of Eden as it comes. */
export type EdenDocument = {
  /** Eden's clock when it began to answer. */
  readonly serverTime: number
  /** At most so many more elements; none at the end. Memory is bounded by them and one piece of the answer. */
  readonly next: (most: number) => Promise<readonly EdenElement[]>
  /** Bytes that came so far. */
  readonly bytes: () => number
  /** Ends it before its end. */
  readonly close: () => void
}

const DOCUMENT_BYTES_MAX = 4_000_000_000
const DOCUMENT_ELEMENTS_MAX = 100_000_000

/** Bytes as they come, and how to end them before their end. */
export type DocumentSource = {
  readonly serverTime: number
  readonly pieces: AsyncIterator<Uint8Array>
  readonly close: () => void
}

/** Reads a document of S3XML from bytes as they come. Errors: those of the source; SYNC_FORMAT_INVALID, SYNC_RECORD_TOO_LARGE, SYNC_REQUEST_TOO_LARGE. */
export function openDocument(
  { serverTime, pieces, close }: DocumentSource,
  settings: Pick<ClientSettings, 'bodyBytesMax' | 'depthMax'>,
): EdenDocument {
  const limits = { recordBytesMax: settings.bodyBytesMax, depthMax: settings.depthMax }
  const reader = s3xmlReader({ ...limits, bytesMax: DOCUMENT_BYTES_MAX, elementsMax: DOCUMENT_ELEMENTS_MAX })
  let waiting: readonly EdenElement[] = []
  let [ended, bytes] = [false, 0]
  const next = async (most: number): Promise<readonly EdenElement[]> => {
    while (waiting.length < most && !ended) {
      const piece = await pieces.next()
      ended = piece.done === true
      if (piece.done !== true) bytes += piece.value.length
      const more = piece.done === true ? reader.end() : reader.write(piece.value)
      waiting = waiting.length === 0 ? more : [...waiting, ...more]
    }
    const [some, rest] = [waiting.slice(0, most), waiting.slice(most)]
    waiting = rest
    return some
  }
  return { serverTime, next, bytes: () => bytes, close }
}

/** Everything of a small document. */
export async function allOf(document: EdenDocument, most: number): Promise<readonly EdenElement[]> {
  try {
    return await document.next(most)
  } finally {
    document.close()
  }
}
