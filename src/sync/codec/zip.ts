import { pipeline, Readable } from 'node:stream'
import { crc32, createDeflateRaw, createInflateRaw } from 'node:zlib'
import { SynclineError } from '../errors.ts'
import { fault, quoted } from './format.ts'

/** A file on its way into an archive. */
export type ZipSource = { readonly name: string; readonly pieces: AsyncIterable<string | Uint8Array> }

/** A file in an archive. Sizes in bytes. */
export type ZipMember = {
  readonly name: string
  readonly packed: number
  readonly bytes: number
  readonly crc: number
  /** 0 stored, 8 deflated. */
  readonly method: number
  /** Where its own header begins. */
  readonly at: number
}

/** Bytes of an archive from a place on; fewer only at its end. */
export type ZipBytes = (at: number, length: number) => Promise<Uint8Array>

/** Bounds on an archive that somebody else made. */
export type ZipLimits = {
  readonly membersMax: number
  /** Of one member, unpacked. */
  readonly bytesMax: number
  /** Unpacked bytes for each packed one. */
  readonly ratioMax: number
}

const LOCAL = 0x04034b50
const CENTRAL = 0x02014b50
const DESCRIPTOR = 0x08074b50
const END = 0x06054b50
const END_BYTES = 22
const LOCAL_BYTES = 30
const CENTRAL_BYTES = 46
const COMMENT_MAX = 65_535
/** Beyond these an archive is of another form, which is neither written nor read. */
const SIZE_MAX = 0xffff_ffff
const COUNT_MAX = 0xffff
/** Names are UTF-8; sizes stand behind the data, as it is written in one go. */
const FLAGS = 0x0808
const ENCRYPTED = 0x0041
/** Of the directory at the end of an archive. */
const DIRECTORY_BYTES_MAX = 4_194_304
/** 1 January 1980: an archive of the same content is the same bytes. */
const DATE = 0x0021
const NEEDED = 20
const PIECE = 65_536
/** Small files pack better than any bomb that is worth the name. */
const RATIO_FREE_BYTES = 1_048_576

/** Writes an archive in one go; memory is bounded by one piece. Throws SYNC_REQUEST_TOO_LARGE beyond 4 GiB. */
export async function* writeZip(sources: AsyncIterable<ZipSource>): AsyncIterable<Buffer> {
  const directory: Buffer[] = []
  let at = 0
  for await (const { name, pieces } of sources) {
    const called = Buffer.from(name)
    const begin = at
    const head = record(LOCAL, [
      ...[u16(NEEDED), u16(FLAGS), u16(8), u16(0), u16(DATE), u32(0), u32(0), u32(0)],
      ...[u16(called.length), u16(0), called],
    ])
    yield head
    at += head.length
    let [crc, bytes, packed] = [0, 0, 0]
    const counted = async function* () {
      for await (const piece of pieces) {
        const chunk = typeof piece === 'string' ? Buffer.from(piece) : piece
        crc = crc32(chunk, crc)
        bytes += chunk.length
        yield chunk
      }
    }
    const source = Readable.from(counted(), { objectMode: false })
    for await (const piece of pipeline(source, createDeflateRaw(), ended)) {
      packed += (piece as Buffer).length
      yield piece as Buffer
    }
    const sizes = [u32(crc), u32(packed), u32(bytes)]
    at += packed
    if (at > SIZE_MAX || bytes > SIZE_MAX)
      throw new SynclineError('SYNC_REQUEST_TOO_LARGE', `an archive has at most ${SIZE_MAX} bytes`)
    const tail = record(DESCRIPTOR, sizes)
    yield tail
    at += tail.length
    directory.push(
      record(CENTRAL, [
        ...[u16(NEEDED), u16(NEEDED), u16(FLAGS), u16(8), u16(0), u16(DATE), ...sizes],
        ...[u16(called.length), u16(0), u16(0), u16(0), u16(0), u32(0), u32(begin), called],
      ]),
    )
  }
  const bytes = directory.reduce((sum, each) => sum + each.length, 0)
  if (directory.length >= COUNT_MAX || at + bytes > SIZE_MAX)
    throw new SynclineError('SYNC_REQUEST_TOO_LARGE', `an archive has at most ${COUNT_MAX - 1} files`)
  const count = u16(directory.length)
  yield Buffer.concat([...directory, record(END, [u16(0), u16(0), count, count, u32(bytes), u32(at), u16(0)])])
}

/**
 * The files in an archive, from the directory at its end. Refuses what has more than it should, what is encrypted, what lies about its sizes by
 * overlapping, and what unpacks to out of all proportion. Throws SYNC_FORMAT_INVALID, SYNC_REQUEST_TOO_LARGE.
 */
export async function readZip(read: ZipBytes, size: number, limits: ZipLimits): Promise<readonly ZipMember[]> {
  const tailAt = Math.max(0, size - END_BYTES - COMMENT_MAX)
  const tail = Buffer.from(await read(tailAt, size - tailAt))
  const end = endOf(tail)
  if (end === -1) fault('it is no zip archive, or its end is missing')
  const [count, bytes, at] = [tail.readUInt16LE(end + 10), tail.readUInt32LE(end + 12), tail.readUInt32LE(end + 16)]
  if (count > limits.membersMax)
    throw new SynclineError('SYNC_REQUEST_TOO_LARGE', `the archive has ${count} files; at most ${limits.membersMax}`)
  if (tail.readUInt16LE(end + 4) !== 0 || count === COUNT_MAX || at === SIZE_MAX)
    fault('an archive in several parts, or of more than 4 GiB, is not read')
  if (at + bytes > tailAt + end || bytes > DIRECTORY_BYTES_MAX) fault('the directory of the archive lies outside of it')
  const directory = Buffer.from(await read(at, bytes))
  const members: ZipMember[] = []
  for (let from = 0, n = 0; n < count; n++) {
    if (from + CENTRAL_BYTES > directory.length || directory.readUInt32LE(from) !== CENTRAL)
      fault('the directory of the archive is damaged')
    const member = memberIn(directory, from)
    check(member, at, limits)
    members.push(member)
    from += CENTRAL_BYTES
    from += [28, 30, 32].reduce((sum, field) => sum + directory.readUInt16LE(from - CENTRAL_BYTES + field), 0)
  }
  const inOrder = members.toSorted((a, b) => a.at - b.at)
  for (const [n, member] of inOrder.entries()) {
    const next = inOrder[n + 1]?.at ?? at
    if (member.at + LOCAL_BYTES + member.packed > next)
      fault(`${quoted(member.name)} in the archive overlaps another file`)
  }
  return members
}

/** A file of an archive, unpacked as it is read; not one byte more than it says. Throws SYNC_FORMAT_INVALID. */
export async function* zipContent(read: ZipBytes, member: ZipMember): AsyncIterable<Buffer> {
  const { name, packed, bytes, method } = member
  const head = Buffer.from(await read(member.at, LOCAL_BYTES))
  if (head.length < LOCAL_BYTES || head.readUInt32LE(0) !== LOCAL) fault(`${quoted(name)} in the archive is damaged`)
  const from = member.at + LOCAL_BYTES + head.readUInt16LE(26) + head.readUInt16LE(28)
  const raw = async function* () {
    for (let done = 0; done < packed; ) {
      const piece = await read(from + done, Math.min(PIECE, packed - done))
      if (piece.length === 0) fault(`${quoted(name)} in the archive ends too early`)
      done += piece.length
      yield piece
    }
  }
  let [crc, size] = [0, 0]
  try {
    const source = Readable.from(raw(), { objectMode: false })
    const content = method === 0 ? source : pipeline(source, createInflateRaw(), ended)
    for await (const piece of content) {
      size += (piece as Buffer).length
      if (size > bytes) fault(`${quoted(name)} in the archive is larger than it says`)
      crc = crc32(piece as Buffer, crc)
      yield piece as Buffer
    }
  } catch (cause) {
    if (cause instanceof SynclineError) throw cause
    throw new SynclineError('SYNC_FORMAT_INVALID', `${quoted(name)} in the archive is damaged`, { cause })
  }
  if (size !== bytes || crc !== member.crc) fault(`${quoted(name)} in the archive is damaged: its checksum differs`)
}

/** Whoever reads the stream hears of its errors. */
function ended(): void {}

function endOf(tail: Buffer): number {
  for (let at = tail.length - END_BYTES; at >= 0; at--) {
    if (tail.readUInt32LE(at) === END && at + END_BYTES + tail.readUInt16LE(at + 20) <= tail.length) return at
  }
  return -1
}

function memberIn(directory: Buffer, from: number): ZipMember {
  const length = directory.readUInt16LE(from + 28)
  const name = directory.subarray(from + CENTRAL_BYTES, from + CENTRAL_BYTES + length).toString()
  if ((directory.readUInt16LE(from + 8) & ENCRYPTED) !== 0) fault(`${quoted(name)} in the archive is encrypted`)
  return {
    name,
    method: directory.readUInt16LE(from + 10),
    crc: directory.readUInt32LE(from + 16),
    packed: directory.readUInt32LE(from + 20),
    bytes: directory.readUInt32LE(from + 24),
    at: directory.readUInt32LE(from + 42),
  }
}

function check({ name, packed, bytes, method, at }: ZipMember, directoryAt: number, limits: ZipLimits): void {
  if (method !== 0 && method !== 8) fault(`${quoted(name)} in the archive is packed in a way that is not read`)
  if (method === 0 && packed !== bytes) fault(`${quoted(name)} in the archive has two sizes`)
  if (at + LOCAL_BYTES + packed > directoryAt) fault(`${quoted(name)} lies outside of the archive`)
  if (bytes > limits.bytesMax || (bytes > RATIO_FREE_BYTES && bytes > packed * limits.ratioMax)) {
    const detail = `${quoted(name)} in the archive would unpack from ${packed} to ${bytes} bytes`
    throw new SynclineError('SYNC_REQUEST_TOO_LARGE', detail)
  }
}

function record(signature: number, parts: readonly Buffer[]): Buffer {
  return Buffer.concat([u32(signature), ...parts])
}

function u16(value: number): Buffer {
  const bytes = Buffer.alloc(2)
  bytes.writeUInt16LE(value)
  return bytes
}

function u32(value: number): Buffer {
  const bytes = Buffer.alloc(4)
  bytes.writeUInt32LE(value >>> 0)
  return bytes
}
