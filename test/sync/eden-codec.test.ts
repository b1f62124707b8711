import fc from 'fast-check'
import t, { type Test } from 'tap'
import {
  type EdenElement,
  type EdenLimits,
  type EdenReader,
  SynclineError,
  s3jsonReader,
  s3jsonWriter,
  s3xmlReader,
  s3xmlWriter,
} from '../../src/sync/index.ts'
import { S3JSON, S3XML } from '../fixtures/eden/documents.ts'

const LIMITS: EdenLimits = { elementsMax: 1_000_000, recordBytesMax: 1_000_000, depthMax: 64, bytesMax: 1_000_000_000 }

function read(reader: EdenReader, text: string | Buffer, step = 1_000_000) {
  const bytes = Buffer.from(text)
  const elements: EdenElement[] = []
  for (let at = 0; at < bytes.length; at += step) elements.push(...reader.write(bytes.subarray(at, at + step)))
  elements.push(...reader.end())
  return { root: reader.root(), elements }
}

const xml = (text: string | Buffer, step?: number) => read(s3xmlReader(LIMITS), text, step)
const json = (text: string | Buffer, step?: number) => read(s3jsonReader(LIMITS), text, step)

function asXml(elements: readonly EdenElement[], root = {}): string {
  const writer = s3xmlWriter()
  return writer.open(root) + elements.map(writer.element).join('') + writer.close()
}

function asJson(elements: readonly EdenElement[], root = {}): string {
  const writer = s3jsonWriter()
  const together = [...Map.groupBy(elements, ({ table }) => table).values()].flat()
  return writer.open(root) + together.map(writer.element).join('') + writer.close()
}

function refused(t: Test, code: string, pattern: RegExp, work: () => unknown) {
  try {
    work()
  } catch (error) {
    t.ok(error instanceof SynclineError, String(error))
    t.match(error, { code, message: pattern })
    return
  }
  t.fail(`nothing was refused: ${pattern}`)
}

t.test('S3XML comes back as it was read, in pieces of any size and by way of S3JSON', async (t) => {
  for (const [name, text] of Object.entries(S3XML)) {
    const whole = xml(text)
    for (const step of [1, 7, 64]) t.same(xml(text, step), whole, `${name}, ${step} bytes a piece`)
    t.same(xml(asXml(whole.elements, whole.root)), whole, `${name}, written and read again`)
    const through = json(asJson(whole.elements, whole.root), 5)
    t.same(through.root, whole.root)
    const sorted = [...Map.groupBy(whole.elements, ({ table }) => table).values()].flat()
    t.same(xml(asXml(through.elements)).elements.map(valuesOf), sorted.map(valuesOf), `${name}, through S3JSON`)
  }
})

/** Attributes and fields by name, values as JSON: S3JSON keeps neither the order of attributes nor the spaces in a value. */
function valuesOf(element: EdenElement): unknown {
  const value = (text: string | undefined) => {
    try {
      return JSON.parse(text ?? '') as unknown
    } catch {
      return text
    }
  }
  return {
    ...element,
    fields: element.fields
      .map(({ attributes, inline, ...rest }) => ({
        ...rest,
        attributes: { ...attributes, value: value(attributes.value) },
        inline: inline && valuesOf(inline),
      }))
      .sort((a, b) => (a.field < b.field ? -1 : 1)),
    components: element.components.map(valuesOf),
  }
}

t.test('S3JSON comes back as it was read', async (t) => {
  for (const [name, text] of Object.entries(S3JSON)) {
    const whole = json(text)
    for (const step of [1, 3, 50]) t.same(json(text, step), whole, `${name}, ${step} bytes a piece`)
    t.same(json(asJson(whole.elements, whole.root)), whole)
  }
  t.same(
    JSON.parse(asJson(json(S3JSON['an export'] ?? '').elements, json(S3JSON['an export'] ?? '').root)),
    JSON.parse(S3JSON['an export'] ?? ''),
  )
  const [hand] = json(S3JSON['an import'] ?? '').elements
  t.match(hand?.fields, [
    { field: 'name', attributes: {}, text: 'By hand' },
    { field: 'year', attributes: { value: '2003' } },
    { field: 'size', attributes: { value: '12' } },
    { field: 'active', attributes: { value: 'true' } },
  ])
  t.equal(hand?.components[0]?.fields[0]?.text, 'J "O" }]{[', 'brackets in a text are text')
})

const name = fc.stringMatching(/^[a-z][a-z_]{0,8}$/).filter((text) => text !== 'name')
const text = fc.oneof(
  fc.string(),
  fc.constantFrom('&lt;', '&amp;lt;', '<![CDATA[', ']]>', '\t\r\n', ' ', 'ü𝄞', '[1]', '"'),
)
const xmlText = text.filter((value) => !/[^\t\n\r\u0020-\ud7ff\ue000-\ufffd\u{10000}-\u{10ffff}]/u.test(value))
const attributes = fc.dictionary(
  name.filter((key) => key !== 'field' && key !== 'value'),
  xmlText,
  { maxKeys: 3 },
)
const field = fc.record({
  kind: fc.constantFrom('data' as const, 'reference' as const),
  field: name,
  attributes,
  text: xmlText,
})
const tree = fc.letrec<{ element: EdenElement }>((tie) => ({
  element: fc.record({
    table: name,
    attributes,
    fields: fc.uniqueArray(field, { maxLength: 4, selector: (each) => each.field }),
    components: fc.oneof(
      { maxDepth: 3, withCrossShrink: true },
      fc.constant([]),
      fc.array(tie('element'), { maxLength: 3 }),
    ),
  }),
})).element

t.test('any tree of texts that XML can carry survives S3XML, to the letter', async (t) => {
  fc.assert(
    fc.property(fc.array(tree, { maxLength: 3 }), fc.integer({ min: 1, max: 40 }), (elements, step) => {
      const plain = JSON.parse(JSON.stringify(elements)) as EdenElement[]
      t.same(xml(asXml(plain), step).elements, plain)
    }),
    { numRuns: 100 },
  )
})

t.test('hostile documents are refused, with the place', async (t) => {
  const inside = (field: string) => `<s3xml><resource name="a_b" uuid="u">${field}</resource></s3xml>`
  const bomb = `<!DOCTYPE s3xml [<!ENTITY a "aaaaaaaaaa"><!ENTITY b "&a;&a;&a;&a;">]>${inside('<data field="x">&b;</data>')}`
  const levels = `${'<resource name="a_b" uuid="u">'.repeat(1_000)}${'</resource>'.repeat(1_000)}`
  const cases: readonly (readonly [string, RegExp, string | Buffer])[] = [
    ['an entity bomb', /DOCTYPE/, bomb],
    ['an external entity', /DOCTYPE/, `<!DOCTYPE s3xml SYSTEM "http://example.org/x.dtd">${inside('')}`],
    ['an entity that is nowhere defined', /undefined entity|entity/i, inside('<data field="x">&file;</data>')],
    ['1,000 levels', /nested deeper than 64 levels/, `<s3xml>${levels}</s3xml>`],
    ['an attribute twice', /duplicate attribute/, inside('<data field="x" value="1" value="2"/>')],
    ['another encoding', /encoding "iso-8859-1"/i, `<?xml version="1.0" encoding="iso-8859-1"?>${inside('')}`],
    ['bytes of another encoding', /UTF-8/, Buffer.from(inside('<data field="x">\xe9</data>'), 'latin1')],
    ['UTF-16', /UTF-8|line 1/, Buffer.from(`\ufeff${inside('')}`, 'utf16le')],
    ['a document that ends early', /unclosed|unexpected end/, '<s3xml><resource name="a_b"'],
    ['an element that S3XML has not', /unknown element "script"/, inside('<script/>')],
    ['text between fields', /outside of a field/, inside('hello')],
    ['a record without a table', /needs a name/, '<s3xml><resource uuid="u"/></s3xml>'],
    ['something behind the end', /line 1/, `${inside('')}<s3xml/>`],
    ['a control character', /line 1/, inside('<data field="x">\x01</data>')],
  ]
  for (const [what, pattern, body] of cases) {
    t.comment(what)
    refused(t, 'SYNC_FORMAT_INVALID', pattern, () => xml(body))
  }
  const deep = `{"$_a_b":[${'{"$_a_b":['.repeat(1_000)}${']}'.repeat(1_000)}]}`
  for (const [what, pattern, body] of [
    ['1,000 levels', /nested deeper than 64 levels/, deep],
    ['no object', /no object of tables/, '[1]'],
    ['a record that is none', /no record/, '{"$_a_b":[{"@uuid":"u"},7]}'],
    ['a member that is no table', /unknown member "x"/, '{"x":1}'],
    ['a record under a name that is no table', /names no table/, '{"x":{"@uuid":"u"}}'],
    ['an end that does not come', /ends in record 1/, '{"$_a_b":[{"@uuid":"u"'],
    ['a bracket too many', /bracket|Unexpected/, '{"$_a_b":[]}}'],
    ['bytes of another encoding', /UTF-8/, Buffer.from('{"$_a_b":[{"x":"\xe9"}]}', 'latin1')],
  ] as const) {
    t.comment(what)
    refused(t, 'SYNC_FORMAT_INVALID', pattern, () => json(body))
  }
})

t.test('text that looks like an entity is text: nothing is unescaped twice', async (t) => {
  const [first] = xml(
    '<s3xml><resource name="a_b"><data field="x">&amp;lt;b&amp;gt;</data><data field="y" value="&quot;&amp;amp;lt;&quot;"/></resource></s3xml>',
  ).elements
  t.equal(first?.fields[0]?.text, '&lt;b&gt;')
  t.equal(first?.fields[1]?.attributes.value, '"&amp;lt;"')
})

t.test('a text that XML cannot carry is refused on its way out, not changed', async (t) => {
  const element = (text: string): EdenElement => ({
    table: 'a_b',
    attributes: {},
    fields: [{ kind: 'data', field: 'x', attributes: {}, text }],
    components: [],
  })
  refused(t, 'SYNC_FORMAT_INVALID', /no character/, () => asXml([element('a\x00b')]))
  refused(t, 'SYNC_FORMAT_INVALID', /no character/, () => asXml([element('\ud800')]))
  refused(t, 'SYNC_FORMAT_INVALID', /no name of an attribute/, () =>
    asXml([{ ...element(''), attributes: { 'a b': '1' } }]),
  )
})

t.test('100 MB of records pass through with the memory of one of them', async (t) => {
  const fill = 'x'.repeat(1_000)
  const record = (n: number) =>
    `<resource name="org_organisation" uuid="urn:uuid:${n}"><data field="name" value="&quot;${fill}&quot;"/></resource>`
  const reader = s3xmlReader(LIMITS)
  reader.write(Buffer.from('<s3xml>'))
  const piece = Buffer.from(Array.from({ length: 1_000 }, (_, n) => record(n)).join(''))
  globalThis.gc?.()
  const before = process.memoryUsage()
  let [bytes, count, most] = [0, 0, 0]
  while (bytes < 100_000_000) {
    for (let at = 0; at < piece.length; at += 65_536) {
      const part = piece.subarray(at, at + 65_536)
      count += reader.write(part).length
      bytes += part.length
    }
    most = Math.max(most, process.memoryUsage().heapUsed)
  }
  count += reader.write(Buffer.from('</s3xml>')).length + reader.end().length
  t.ok(count > 80_000, `${count} records`)
  t.ok(most - before.heapUsed < 150_000_000, `${Math.round((most - before.heapUsed) / 1e6)} MB more on the heap`)
})

t.test('a document of any size may come in one piece', async (t) => {
  const tight = { ...LIMITS, recordBytesMax: 1_000 }
  const many = `<resource name="a_b"><data field="x">${'y'.repeat(500)}</data></resource>`.repeat(1_000)
  for (const step of [100, 10_000, 10_000_000])
    t.equal(read(s3xmlReader(tight), `<s3xml>${many}</s3xml>`, step).elements.length, 1_000, `${step} bytes a piece`)
  const record = JSON.stringify({ x: 'y'.repeat(500) })
  const list = `{"$_a_b":[${Array(1_000).fill(record).join(',')}]}`
  for (const step of [100, 10_000, 10_000_000]) t.equal(read(s3jsonReader(tight), list, step).elements.length, 1_000)
})

t.test('a record, a document and their number have bounds', async (t) => {
  const tight = { ...LIMITS, recordBytesMax: 1_000, elementsMax: 3, bytesMax: 100_000 }
  const endless = Buffer.from('x'.repeat(2_000))
  refused(t, 'SYNC_RECORD_TOO_LARGE', /at most 1000/, () => {
    const reader = s3xmlReader(tight)
    reader.write(Buffer.from('<s3xml><resource name="a_b"><data field="x">'))
    for (let n = 0; n < 20; n++) reader.write(endless)
  })
  refused(t, 'SYNC_RECORD_TOO_LARGE', /at most 1000/, () => {
    const reader = s3jsonReader(tight)
    reader.write(Buffer.from('{"$_a_b":[{"x":"'))
    for (let n = 0; n < 20; n++) reader.write(endless)
  })
  const four = '<resource name="a_b"/>'.repeat(4)
  refused(t, 'SYNC_REQUEST_TOO_LARGE', /more than 3 records/, () => read(s3xmlReader(tight), `<s3xml>${four}</s3xml>`))
  refused(t, 'SYNC_REQUEST_TOO_LARGE', /more than 3 records/, () =>
    read(s3jsonReader(tight), '{"$_a_b":[{},{},{},{}]}'),
  )
  const spaces = Buffer.from(' '.repeat(900))
  refused(t, 'SYNC_REQUEST_TOO_LARGE', /more than 100000 bytes/, () => {
    const reader = s3xmlReader({ ...tight, recordBytesMax: 1_000_000 })
    reader.write(Buffer.from('<s3xml>'))
    for (let n = 0; n < 200; n++) reader.write(spaces)
  })
})
