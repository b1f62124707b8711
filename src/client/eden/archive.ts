import { randomUUID } from 'node:crypto'
import { type FileHandle, open, unlink } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { readZip, SynclineError, type ZipBytes, type ZipLimits, zipContent } from '../../sync/index.ts'
import type { ClientSettings } from '../peer-client.ts'
import { type EdenDocument, openDocument } from './document.ts'
import type { EdenRequests } from './requests.ts'

/** Bounds on an archive and on what is in it. */
const ARCHIVE_BYTES_MAX = 2_147_483_648
const LIMITS: ZipLimits = { membersMax: 1_000, bytesMax: 4_000_000_000, ratioMax: 200 }

/** A task that came with a data set. */
export type ArchivedTask = {
  readonly code: string
  /** Name of the task at Eden, and of its file in the archive. */
  readonly task: string
  /** Origin of an archive elsewhere that somebody has accepted. */
  readonly archiveOrigin: string | null
}

/**
 * The document of a task in the archive of its data set; null where the data set has no archive that is to be used. The archive is put down on the
 * disk, in a file without a name, as its directory is at its end. Errors: those of the requests; SYNC_REQUEST_NOT_FOUND, SYNC_FORMAT_INVALID,
 * SYNC_REQUEST_TOO_LARGE, SYNC_PEER_REFUSED for an archive in a place that nobody accepted.
 */
export async function openArchive(
  requests: Pick<EdenRequests, 'archive' | 'dataset' | 'url'>,
  { code, task, archiveOrigin }: ArchivedTask,
  settings: Pick<ClientSettings, 'bodyBytesMax' | 'depthMax'>,
  signal: AbortSignal | undefined,
): Promise<EdenDocument | null> {
  const { archiveUrl } = await requests.dataset(code, signal)
  if (archiveUrl === null) return null
  const url = archivePlace(archiveUrl, requests.url)
  if (url.origin !== new URL(requests.url).origin && url.origin !== archiveOrigin)
    throw new SynclineError(
      'SYNC_PEER_REFUSED',
      `the archive of data set "${code}" is at ${url.origin} now, which nobody here has accepted: syncline dataset follow`,
    )
  const { at, body, close } = await requests.archive(url, signal)
  let file: FileHandle | undefined
  try {
    file = await nameless()
    const size = await store(body, file)
    const read = readerOf(file)
    const member = (await readZip(read, size, LIMITS)).find(({ name }) => name === `${task}.xml`)
    if (member === undefined)
      throw new SynclineError('SYNC_REQUEST_NOT_FOUND', `the archive of data set "${code}" has no file ${task}.xml`)
    const opened = file
    const pieces = zipContent(read, member)[Symbol.asyncIterator]()
    return openDocument({ serverTime: at, pieces, close: () => void opened.close().catch(() => {}) }, settings)
  } catch (error) {
    await file?.close().catch(() => {})
    throw error
  } finally {
    body.destroy()
    await close()
  }
}

/** Where an archive is: an address of its own, or one below that of the Eden. */
export function archivePlace(archiveUrl: string, base: string): URL {
  const root = new URL(base).pathname.replace(/\/+$/, '')
  // Eden writes what is relative below the application, with its name or without.
  const below = archiveUrl.startsWith('/') && !archiveUrl.startsWith(`${root}/`) ? `${root}${archiveUrl}` : archiveUrl
  const url = URL.parse(below, `${base.replace(/\/+$/, '')}/`)
  if (url !== null && (url.protocol === 'http:' || url.protocol === 'https:')) return url
  throw new SynclineError('SYNC_PEER_REFUSED', `the address of an archive is none: ${archiveUrl.slice(0, 200)}`)
}

/** A file that nobody else can open, and that is gone with the process. */
async function nameless(): Promise<FileHandle> {
  const path = join(tmpdir(), `syncline-archive-${randomUUID()}`)
  const file = await open(path, 'wx+', 0o600)
  await unlink(path)
  return file
}

async function store(body: AsyncIterable<Uint8Array>, file: FileHandle): Promise<number> {
  let size = 0
  for await (const piece of body) {
    size += piece.length
    if (size > ARCHIVE_BYTES_MAX)
      throw new SynclineError('SYNC_REQUEST_TOO_LARGE', `the archive has more than ${ARCHIVE_BYTES_MAX} bytes`)
    await file.writeFile(piece)
  }
  return size
}

function readerOf(file: FileHandle): ZipBytes {
  return async (at, length) => {
    const bytes = Buffer.alloc(length)
    let done = 0
    while (done < length) {
      const { bytesRead } = await file.read(bytes, done, length - done, at + done)
      if (bytesRead === 0) break
      done += bytesRead
    }
    return bytes.subarray(0, done)
  }
}
