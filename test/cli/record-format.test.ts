import fc from 'fast-check'
import t from 'tap'
import { csvOf, formatOf, type Part, partsOf } from '../../src/cli/record-format.ts'
import { type Change, codecForContentType } from '../../src/sync/index.ts'

/** A text as bytes that arrive in pieces of any size, also in the middle of a character. */
async function* pieces(text: string, size: number): AsyncIterable<Uint8Array> {
  const bytes = Buffer.from(text)
  for (let at = 0; at < bytes.length; at += size) yield bytes.subarray(at, at + size)
}

async function all<T>(source: AsyncIterable<T>): Promise<readonly T[]> {
  const items: T[] = []
  for await (const item of source) items.push(item)
  return items
}

const LIMITS = { recordsMax: 1000, recordBytesMax: 100_000, depthMax: 10 }
const context = { ...LIMITS, resource: 'city', refs: {}, trailer: 'optional' as const }
const bounds = fc.record({ records: fc.integer({ min: 1, max: 5 }), characters: fc.integer({ min: 1, max: 200 }) })
const cells = fc.string({ unit: fc.constantFrom('a', 'é', '😀', '"', ',', '\n', '\r', ' ', '0') })
const records = fc.array(fc.dictionary(fc.constantFrom('name', 'note', 'size'), cells), { maxLength: 12 })

t.test('the ending of a file says its format, unless --format does', async (t) => {
  t.equal(formatOf(undefined, 'a/b.CSV'), 'csv')
  t.equal(formatOf(undefined, 'b.xml'), 's3xml')
  t.equal(formatOf(undefined, 'b.json'), 'json')
  t.equal(formatOf(undefined, undefined), 'ndjson')
  t.equal(formatOf('json', 'b.csv'), 'json')
})

t.test('NDJSON in parts is the same records in the same order, whatever the bounds', async (t) => {
  await fc.assert(
    fc.asyncProperty(
      records,
      bounds,
      fc.integer({ min: 1, max: 50 }),
      fc.boolean(),
      async (rows, bounds, size, ended) => {
        const changes = rows.map((data, n) => ({ id: String(n), data }))
        const lines = changes.map((change) => JSON.stringify(change))
        if (ended) lines.push(JSON.stringify({ count: changes.length }))
        const parts = await all(partsOf('ndjson', pieces(lines.join('\n'), size), bounds))
        const read = parts.flatMap(({ body }) => body.split('\n').map((line) => JSON.parse(line)))
        const kept = parts.every(
          ({ body, records }) => body.split('\n').length === records && records <= bounds.records,
        )
        return kept && JSON.stringify(read) === JSON.stringify(changes)
      },
    ),
  )
  const parts = await all(
    partsOf('ndjson', pieces('{"id":"a"}\n\n{"id":"b"}\n{"id":"c"}\n', 7), { records: 2, characters: 99 }),
  )
  t.same(parts, [
    { body: '{"id":"a"}\n{"id":"b"}', line: 1, records: 2 },
    { body: '{"id":"c"}', line: 4, records: 1 },
  ])
})

t.test('NDJSON that was cut, or goes on behind its end, is refused', async (t) => {
  const cut = '{"id":"a"}\n{"count":2,"more":false}\n'
  await t.rejects(all(partsOf('ndjson', pieces(cut, 9))), {
    code: 'SYNC_BATCH_INCOMPLETE',
    message: /counts 2 records, there are 1/,
  })
  const on = '{"count":0}\n{"id":"a"}\n'
  await t.rejects(all(partsOf('ndjson', pieces(on, 9))), { code: 'SYNC_BATCH_INCOMPLETE', message: /line 2 follows/ })
  const record = '{"id":"a","data":{"count":7}}\n'
  t.equal(
    (await all(partsOf('ndjson', pieces(record, 9)))).length,
    1,
    'a record with a column named count is no trailer',
  )
})

t.test('CSV in parts is the same records in the same order, each part with the header', async (t) => {
  await fc.assert(
    fc.asyncProperty(records, bounds, fc.integer({ min: 1, max: 50 }), async (rows, bounds, size) => {
      const source = await csvText(rows.map((data, n) => ({ id: String(n), data })))
      const parts = await all(partsOf('csv', pieces(source, size), bounds))
      return JSON.stringify(parts.flatMap(readCsv)) === JSON.stringify(readCsv({ body: source, line: 1, records: 0 }))
    }),
  )
  const source = 'id,note\r\na,"x\r\ny"\r\n\r\nb,\r\n'
  t.same(await all(partsOf('csv', pieces(source, 4), { records: 1, characters: 99 })), [
    { body: 'id,note\r\na,"x\r\ny"\r', line: 2, records: 1 },
    { body: 'id,note\r\nb,\r', line: 5, records: 1 },
  ])
  t.same(await all(partsOf('csv', pieces('id,note\n', 3))), [{ body: 'id,note', line: 1, records: 0 }])
})

t.test('other formats stay whole, and text that is no UTF-8 is refused', async (t) => {
  t.same(await all(partsOf('json', pieces('{"changes":[]}', 5))), [{ body: '{"changes":[]}', line: 1, records: 0 }])
  const latin = (async function* () {
    yield Buffer.from([0x7b, 0xe9, 0x7d])
  })()
  await t.rejects(all(partsOf('ndjson', latin)), { code: 'SYNC_FORMAT_INVALID' })
})

t.test('what is exported as CSV is read back as it was', async (t) => {
  await fc.assert(
    fc.asyncProperty(records, async (rows) => {
      const changes = rows.map((data, n) => ({ id: String(n), data }))
      const read = readCsv({ body: await csvText(changes), line: 1, records: 0 })
      return changes.every(({ id, data }, n) => {
        const found = read[n]
        const same = ['name', 'note', 'size'].every(
          (name) => found?.data[name] === (Object.hasOwn(data, name) ? data[name] : null),
        )
        return found?.id === id && same
      })
    }),
  )
  const change = {
    id: 'a',
    data: { n: 1, j: { x: [1] }, s: '', none: null },
    refs: { country: { resource: 'country', id: 'AT' } },
  }
  const gone = { id: 'b', deleted: true }
  const body = [change, gone, { count: 2 }].map((line) => JSON.stringify(line)).join('\n')
  const written = await all(csvOf(pieces(body, 11), ['n', 'j', 's', 'none', 'country']))
  t.equal(Buffer.concat(written).toString(), 'id,n,j,s,none,country\na,1,"{""x"":[1]}","",,AT\n')
})

t.test('an export that ends before its trailer is not taken for whole', async (t) => {
  await t.rejects(all(csvOf(pieces('{"id":"a","data":{}}\n', 99), ['n'])), { code: 'SYNC_BATCH_INCOMPLETE' })
  await t.rejects(all(csvOf(pieces('{"id":"a","data":{}}\n{"count":2}\n', 99), ['n'])), {
    code: 'SYNC_BATCH_INCOMPLETE',
  })
})

async function csvText(changes: readonly { id: string; data: Readonly<Record<string, string>> }[]): Promise<string> {
  const lines = [...changes, { count: changes.length }].map((change) => JSON.stringify(change)).join('\n')
  return Buffer.concat(await all(csvOf(pieces(lines, 64), ['name', 'note', 'size']))).toString()
}

function readCsv({ body }: Part) {
  return changesOf('text/csv', body).map((change) => ({
    id: change.id,
    data: change.kind === 'put' ? change.data : {},
  }))
}

function changesOf(type: string, body: string): readonly Change[] {
  const codec = codecForContentType(type)
  if (codec.name === 'lines') throw new Error(`${type} is no format of files`)
  return codec.decode(Buffer.from(body), context)[0]?.changes ?? []
}

t.test('a part of NDJSON is a body that the codec reads', async (t) => {
  const [part] = await all(partsOf('ndjson', pieces('{"id":"a","data":{"n":1}}\n{"count":1}', 5)))
  t.match(changesOf('application/x-ndjson', part?.body ?? ''), [{ kind: 'put', id: 'a', data: { n: 1 } }])
})
