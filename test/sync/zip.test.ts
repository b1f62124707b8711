import fc from 'fast-check'
import t from 'tap'
import { readZip, writeZip, type ZipLimits, zipContent } from '../../src/sync/index.ts'

const LIMITS: ZipLimits = { membersMax: 100, bytesMax: 50_000_000, ratioMax: 200 }

/** Two files, packed and stored, by another program. */
const FOREIGN = Buffer.from(
  'UEsDBBQAAAAIAIMYIlyy3HBtIAAAAFAAAAAxAAAAdXJuOnV1aWQ6MTExMTExMTEtMTExMS00MTExLTgxMTEtMTExMTExMTExMTExLnhtbLMpNq7IzVEoLk1OTi0utlUqKSpNVbJTIBnY6IMNsgMAUEsDBBQAAAAAAIMYIlwL+UNWBgAAAAYAAAAJAAAAcGxhaW4udHh0c3RvcmVkUEsBAhQDFAAAAAgAgxgiXLLccG0gAAAAUAAAADEAAAAAAAAAAAAAAIABAAAAAHVybjp1dWlkOjExMTExMTExLTExMTEtNDExMS04MTExLTExMTExMTExMTExMS54bWxQSwECFAMUAAAAAACDGCJcC/lDVgYAAAAGAAAACQAAAAAAAAAAAAAAgAFvAAAAcGxhaW4udHh0UEsFBgAAAAACAAIAlgAAAJwAAAAAAA==',
  'base64',
)

const reader = (archive: Buffer) => async (at: number, length: number) => archive.subarray(at, at + length)

async function written(files: readonly (readonly [string, readonly Uint8Array[]])[]): Promise<Buffer> {
  const sources = async function* () {
    for (const [name, pieces] of files)
      yield {
        name,
        pieces: (async function* () {
          yield* pieces
        })(),
      }
  }
  const parts: Buffer[] = []
  for await (const part of writeZip(sources())) parts.push(part)
  return Buffer.concat(parts)
}

async function unpacked(archive: Buffer, limits = LIMITS): Promise<[string, Buffer][]> {
  const found: [string, Buffer][] = []
  for (const member of await readZip(reader(archive), archive.length, limits)) {
    const parts: Buffer[] = []
    for await (const part of zipContent(reader(archive), member)) parts.push(part)
    found.push([member.name, Buffer.concat(parts)])
  }
  return found
}

t.test('an archive of another program is read, packed and stored', async (t) => {
  t.same(
    (await unpacked(FOREIGN)).map(([name, content]) => [name, content.toString()]),
    [
      ['urn:uuid:11111111-1111-4111-8111-111111111111.xml', `<s3xml success="true">${' '.repeat(50)}</s3xml>`],
      ['plain.txt', 'stored'],
    ],
  )
})

t.test('what is written is read again, whatever it is', async () => {
  const files = fc.uniqueArray(
    fc.tuple(
      fc.string({ minLength: 1, maxLength: 60, unit: 'grapheme' }),
      fc.array(fc.uint8Array({ maxLength: 3_000 }), { maxLength: 4 }),
    ),
    { selector: ([name]) => name, maxLength: 5 },
  )
  await fc.assert(
    fc.asyncProperty(files, async (files) => {
      const again = await unpacked(await written(files))
      const before = files.map(([name, pieces]) => [Buffer.from(name).toString(), Buffer.concat(pieces)])
      if (JSON.stringify(again) !== JSON.stringify(before)) throw new Error('it differs')
    }),
    { numRuns: 60 },
  )
})

t.test('a large file is packed and unpacked piece by piece', async (t) => {
  const piece = Buffer.from('<resource name="org_organisation"/>\n'.repeat(2_000))
  const archive = await written([['large', Array.from({ length: 100 }, () => piece)]])
  const [member] = await readZip(reader(archive), archive.length, { ...LIMITS, ratioMax: 1_100 })
  t.equal(member?.bytes, piece.length * 100)
  let [bytes, longest] = [0, 0]
  if (member !== undefined)
    for await (const part of zipContent(reader(archive), member)) {
      bytes += part.length
      longest = Math.max(longest, part.length)
    }
  t.equal(bytes, piece.length * 100)
  t.ok(longest <= 65_536, `${longest}`)
})

t.test('an archive that lies, or was cut off, is refused and never unpacks to more than it says', async (t) => {
  const archive = await written([
    ['a', [Buffer.from('hello '.repeat(20))]],
    ['b', [Buffer.from('world')]],
  ])
  const central = archive.indexOf(Buffer.from('504b0102', 'hex'))
  const second = archive.indexOf(Buffer.from('504b0102', 'hex'), central + 4)
  const altered = (change: (copy: Buffer) => void): Buffer => {
    const copy = Buffer.from(archive)
    change(copy)
    return copy
  }
  for (const [what, bad] of [
    ['no archive', Buffer.from('<s3xml/>')],
    ['nothing', Buffer.alloc(0)],
    ['overlapping files', altered((copy) => copy.writeUInt32LE(0, second + 42))],
    ['a file outside', altered((copy) => copy.writeUInt32LE(archive.length, central + 42))],
    ['a size too small', altered((copy) => copy.writeUInt32LE(10, central + 24))],
    ['a size too large', altered((copy) => copy.writeUInt32LE(1_000, central + 24))],
    ['another checksum', altered((copy) => copy.writeUInt32LE(1, central + 16))],
    ['an encrypted file', altered((copy) => copy.writeUInt16LE(0x0809, central + 8))],
    ['an unknown method', altered((copy) => copy.writeUInt16LE(12, central + 10))],
    ['a stored file with two sizes', altered((copy) => copy.writeUInt16LE(0, central + 10))],
    ['a directory that is none', altered((copy) => copy.writeUInt32LE(1, archive.length - 6))],
    ['a directory beyond the end', altered((copy) => copy.writeUInt32LE(0xff_ffff, archive.length - 6))],
    ['more files than there are', altered((copy) => copy.writeUInt16LE(9, archive.length - 12))],
    ['damaged content', altered((copy) => copy.fill(0xff, 31, 40))],
  ] as const)
    await t.rejects(unpacked(bad), { code: 'SYNC_FORMAT_INVALID' }, what)
  for (let at = 0; at < archive.length; at++)
    await t.rejects(unpacked(archive.subarray(0, at)), { code: 'SYNC_FORMAT_INVALID' }, `cut off at ${at}`)
  const bomb = await written([['zeros', Array.from({ length: 100 }, () => Buffer.alloc(100_000))]])
  await t.rejects(unpacked(bomb), {
    code: 'SYNC_REQUEST_TOO_LARGE',
    message: /would unpack from \d+ to 10000000 bytes/,
  })
  await t.rejects(unpacked(archive, { ...LIMITS, bytesMax: 100 }), { code: 'SYNC_REQUEST_TOO_LARGE' })
  await t.rejects(unpacked(archive, { ...LIMITS, membersMax: 1 }), { code: 'SYNC_REQUEST_TOO_LARGE' })
})

t.test('a source that fails ends the archive with its error', async (t) => {
  const sources = async function* () {
    yield {
      name: 'a',
      pieces: (async function* () {
        yield 'half'
        throw new Error('the disk is gone')
      })(),
    }
  }
  await t.rejects(async () => {
    for await (const _ of writeZip(sources()));
  }, /the disk is gone/)
})
