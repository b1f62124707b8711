import { createHash } from 'node:crypto'
import type { Readable } from 'node:stream'
import { promisify } from 'node:util'
import * as zlib from 'node:zlib'
import { SynclineError } from '../sync/index.ts'

const unzstd = promisify(zlib.zstdDecompress)
const unzip = promisify(zlib.gunzip)
const zstd = promisify(zlib.zstdCompress)

/** Codings that this site reads, best first. */
export const ENCODINGS = 'zstd, gzip'

type Headers = Readonly<Record<string, string | string[] | undefined>>

/** A body as it was before any coding, and how many bytes travelled for it. */
export type Body = { readonly bytes: Buffer; readonly travelled: number }

/**
 * Reads an answer to its end, never more than `bytesMax` before or after decompression, and checks its Content-Digest.
 * Errors: SYNC_REQUEST_TOO_LARGE, SYNC_BATCH_INCOMPLETE for a body that was cut or altered on its way, SYNC_FORMAT_UNSUPPORTED.
 */
export async function readBody(stream: Readable, headers: Headers, bytesMax: number): Promise<Body> {
  const told = Number(single(headers['content-length']) ?? 0)
  if (told > bytesMax) throw tooLarge(bytesMax)
  // Where the length is told, the pieces can go as they come.
  let raw: Buffer = Buffer.allocUnsafe(told)
  let travelled = 0
  for await (const chunk of stream as AsyncIterable<Buffer>) {
    if (travelled + chunk.length > bytesMax) throw tooLarge(bytesMax)
    if (travelled + chunk.length > raw.length) raw = larger(raw, travelled + chunk.length, bytesMax)
    chunk.copy(raw, travelled)
    travelled += chunk.length
  }
  raw = raw.subarray(0, travelled)
  checkDigest(raw, single(headers['content-digest']))
  return { bytes: await decompress(raw, single(headers['content-encoding']) ?? 'identity', bytesMax), travelled }
}

function larger(bytes: Buffer, needed: number, bytesMax: number): Buffer {
  const grown = Buffer.allocUnsafe(Math.max(needed, Math.min(bytesMax, bytes.length * 2)))
  bytes.copy(grown)
  return grown
}

/** The Content-Digest of a body as it travels (RFC 9530): it shows an alteration on the way, which a length does not. */
export function contentDigest(body: Uint8Array): string {
  return `sha-256=:${createHash('sha256').update(body).digest('base64')}:`
}

/** A body made smaller for a slow line. */
export async function compress(body: Buffer): Promise<Buffer> {
  return zstd(body)
}

function checkDigest(body: Buffer, header: string | undefined): void {
  const stated = /(?:^|,)\s*sha-256=:([A-Za-z0-9+/=]+):/.exec(header ?? '')?.[1]
  if (stated === undefined || contentDigest(body) === `sha-256=:${stated}:`) return
  throw new SynclineError(
    'SYNC_BATCH_INCOMPLETE',
    `the ${body.length} bytes that arrived do not have the Content-Digest that was sent with them`,
  )
}

async function decompress(body: Buffer, encoding: string, bytesMax: number): Promise<Buffer> {
  const coding = encoding.trim().toLowerCase()
  if (coding === 'identity' || coding === '') return body
  const decode = coding === 'zstd' ? unzstd : coding === 'gzip' || coding === 'x-gzip' ? unzip : undefined
  if (decode === undefined) {
    throw new SynclineError(
      'SYNC_FORMAT_UNSUPPORTED',
      `the answer has the Content-Encoding ${coding}; ${ENCODINGS} were offered`,
    )
  }
  try {
    return await decode(body, { maxOutputLength: bytesMax })
  } catch (cause) {
    if ((cause as NodeJS.ErrnoException).code === 'ERR_BUFFER_TOO_LARGE') throw tooLarge(bytesMax)
    throw new SynclineError(
      'SYNC_BATCH_INCOMPLETE',
      `the ${coding} body cannot be unpacked: ${(cause as Error).message}`,
      {
        cause,
      },
    )
  }
}

function tooLarge(bytesMax: number): SynclineError {
  return new SynclineError(
    'SYNC_REQUEST_TOO_LARGE',
    `the answer has more than ${bytesMax} bytes, the bodyBytesMax of this site`,
  )
}

function single(header: string | string[] | undefined): string | undefined {
  return Array.isArray(header) ? header.join(', ') : header
}
