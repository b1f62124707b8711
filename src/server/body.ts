import { createHash } from 'node:crypto'
import { promisify } from 'node:util'
import zlib from 'node:zlib'
import type { FastifyRequest } from 'fastify'
import { SynclineError } from '../sync/index.ts'

const unzstd = promisify(zlib.zstdDecompress)
const gunzip = promisify(zlib.gunzip)
const zstd = promisify(zlib.zstdCompress)
const gzip = promisify(zlib.gzip)

/** Codings that this site reads and writes, best first. */
export const ENCODINGS = 'zstd, gzip'
/** A smaller body gains nothing. */
const COMPRESS_FROM_BYTES = 1_400
/** Memory that a frame may make its reader hold: 2^25 bytes. Usual levels stay far below. */
const ZSTD_WINDOW_LOG_MAX = 25

/**
 * The bytes of a body before any coding, at most `bytesMax` of them. What travelled must have the Content-Digest that came with it.
 * Errors: SYNC_BATCH_INCOMPLETE, SYNC_REQUEST_TOO_LARGE, SYNC_FORMAT_UNSUPPORTED.
 */
export async function readBody(request: FastifyRequest, bytesMax: number): Promise<Buffer> {
  const body = Buffer.isBuffer(request.body) ? request.body : Buffer.alloc(0)
  checkDigest(body, request.headers['content-digest'])
  const coding = (request.headers['content-encoding'] ?? 'identity').trim().toLowerCase()
  if (coding === 'identity' || coding === '') return body
  const decode =
    coding === 'zstd'
      ? () =>
          unzstd(body, {
            maxOutputLength: bytesMax,
            params: { [zlib.constants.ZSTD_d_windowLogMax]: ZSTD_WINDOW_LOG_MAX },
          })
      : coding === 'gzip' || coding === 'x-gzip'
        ? () => gunzip(body, { maxOutputLength: bytesMax })
        : undefined
  if (decode === undefined) {
    throw new SynclineError(
      'SYNC_FORMAT_UNSUPPORTED',
      `the body has the Content-Encoding ${coding}; there is ${ENCODINGS}`,
    )
  }
  try {
    return await decode()
  } catch (cause) {
    if ((cause as NodeJS.ErrnoException).code === 'ERR_BUFFER_TOO_LARGE') {
      throw new SynclineError(
        'SYNC_REQUEST_TOO_LARGE',
        `the body has more than ${bytesMax} bytes when it is unpacked`,
        { cause },
      )
    }
    const detail = `the ${coding} body cannot be unpacked: ${(cause as Error).message}`
    throw new SynclineError('SYNC_BATCH_INCOMPLETE', detail, { cause })
  }
}

/** The Content-Digest of a body as it travels (RFC 9530). */
export function contentDigest(body: Uint8Array): string {
  return `sha-256=:${createHash('sha256').update(body).digest('base64')}:`
}

/** Digests by algorithms that this site does not know say nothing to it (RFC 9530, section 2). */
function checkDigest(body: Buffer, header: string | string[] | undefined): void {
  const text = Array.isArray(header) ? header.join(', ') : (header ?? '')
  for (const [, algorithm = '', stated = ''] of text.matchAll(
    /(?:^|,)\s*(sha-256|sha-512)\s*=\s*:([A-Za-z0-9+/=]*):/g,
  )) {
    const found = createHash(algorithm.replace('-', '')).update(body).digest('base64')
    if (found !== stated) {
      const detail = `the ${body.length} bytes that arrived do not have the ${algorithm} of their Content-Digest`
      throw new SynclineError('SYNC_BATCH_INCOMPLETE', detail)
    }
  }
}

export type Packed = { readonly body: Buffer; readonly encoding: 'zstd' | 'gzip' | undefined }

/** A body in the best coding that the caller reads, where that is worth it. */
export async function pack(body: Buffer, acceptEncoding: string | string[] | undefined): Promise<Packed> {
  const encoding = body.length < COMPRESS_FROM_BYTES ? undefined : bestEncoding(acceptEncoding)
  if (encoding === undefined) return { body, encoding }
  const packed =
    encoding === 'zstd'
      ? await zstd(body, { params: { [zlib.constants.ZSTD_c_compressionLevel]: 1 } })
      : await gzip(body, { level: 1 })
  return packed.length < body.length ? { body: packed, encoding } : { body, encoding: undefined }
}

function bestEncoding(header: string | string[] | undefined): Packed['encoding'] {
  const text = Array.isArray(header) ? header.join(', ') : (header ?? '')
  const quality = new Map<string, number>()
  for (const part of text.split(',')) {
    const [name = '', ...parameters] = part.split(';').map((piece) => piece.trim().toLowerCase())
    const q = parameters.find((parameter) => parameter.startsWith('q='))?.slice(2)
    quality.set(name, q === undefined ? 1 : Number(q) || 0)
  }
  const wanted = (name: string) => quality.get(name) ?? 0
  if (wanted('zstd') > 0 && wanted('zstd') >= wanted('gzip')) return 'zstd'
  return wanted('gzip') > 0 ? 'gzip' : undefined
}
