import { readFile } from 'node:fs/promises'
import t, { type Test } from 'tap'
import { type Change, type DecodeContext, s3xml } from '../../src/sync/index.ts'
import { bytesOf, CONTEXT, codecConformance, refusal, SAMPLE } from '../conformance/codec.ts'

const resource = (inner: string, attributes = '') =>
  `<s3xml><resource name="city" uuid="a"${attributes}>${inner}</resource></s3xml>`
const decode = (body: string | Buffer, context: Partial<DecodeContext> = {}) =>
  s3xml.decode(Buffer.from(body as string), { ...CONTEXT, ...context })
const change = (body: string, context: Partial<DecodeContext> = {}) => decode(body, context)[0]?.changes[0]
const data = (inner: string, context: Partial<DecodeContext> = {}) =>
  (change(resource(inner), context) as Extract<Change, { kind: 'put' }>).data
const why = (t: Test, body: string | Buffer, context: Partial<DecodeContext> = {}) => {
  const error = refusal(t, () => decode(body, context), String(body).slice(0, 200))
  t.equal(error.code, 'SYNC_FORMAT_INVALID', error.message)
  return error.message
}

codecConformance(t, {
  codec: s3xml,
  cutCode: 'SYNC_FORMAT_INVALID',
  bodyWith: (value) => resource(`<data field="name">${value}</data>`),
})

t.test('s3xml: a document as Sahana Eden sends it', async (t) => {
  const body = await readFile(new URL('../fixtures/codec/organisation.xml', import.meta.url))
  const batches = s3xml.decode(body, {
    ...CONTEXT,
    resource: 'org_organisation',
    refs: { root_organisation: 'org_organisation' },
  })
  t.strictSame(
    batches.map(({ resource }) => resource),
    ['org_organisation', 'org_office', 'gis_location'],
  )
  const uuid = 'urn:uuid:bbbbbbbb-0000-4000-8000-000000000001'
  t.equal(
    JSON.stringify(batches[0]?.changes),
    JSON.stringify([
      {
        kind: 'put',
        id: uuid,
        data: {
          name: 'Relief "Alpha" & Friends <é>',
          acronym: 'RAF',
          year: 1999,
          founded: '1999-05-17',
          budget: 0,
          comments: 'line one\nline two',
        },
        refs: { root_organisation: { resource: 'org_organisation', id: uuid } },
      },
      { kind: 'delete', id: 'urn:uuid:d1000000-0000-4000-8000-000000000001' },
    ]).replace('"budget":0', '"budget":120.50'),
  )
  t.strictSame(batches[1]?.changes, [
    {
      kind: 'put',
      id: 'urn:uuid:cccccccc-0000-4000-8000-000000000001',
      data: { name: 'Alpha HQ', obsolete: false },
      refs: { location_id: { resource: 'gis_location', id: 'urn:uuid:aaaaaaaa-0000-4000-8000-000000000001' } },
    },
  ])
  t.strictSame(
    batches[1]?.within,
    [{ resource: 'org_organisation', id: uuid }],
    'a component keeps the record that it stood in',
  )
  t.strictSame(batches[2]?.within, [null])
})

t.test('s3xml: what it writes is what Eden and people expect to read', async (t) => {
  const [first = '', root = '', put = '', gone = '', left = ''] = bytesOf(s3xml.encode(SAMPLE)).toString().split('\n')
  t.equal(first, '<?xml version="1.0" encoding="UTF-8"?>')
  t.equal(root, '<s3xml success="true" results="3" count="3" checkpoint="log:42:é" more="true">')
  t.match(
    put,
    /^<resource name="city" uuid="zürich" modified_on="2023-11-14T22:13:20" origin="site-a" clock="1700000000000001" seen=/,
  )
  t.match(put, '<data field="name" value="&quot;Zürich 𝒳 &amp;amp;lt;&quot;"/>')
  t.match(put, '<data field="population" value="436332"/><data field="note" null="true"/>')
  t.match(put, '<reference field="country" resource="country" uuid="CH"/><reference field="parent" null="true"/>')
  t.equal(
    gone,
    '<resource name="city" uuid="b" modified_on="1970-01-01T00:00:00" origin="site-b" clock="2" deleted="True"/>',
  )
  t.equal(left, '<resource name="city" uuid="c" left="true"/>')
  const times = {
    a: '2026-11-20',
    b: '2026-11-20T08:00:00.123456',
    c: '08:00:00',
    d: '2026-11-20 08:00:00+01:30',
    e: '2026-11',
  }
  const written = bytesOf(
    s3xml.encode({ resource: 'city', changes: [{ kind: 'put', id: 'a', data: times }] }),
  ).toString()
  for (const bare of ['a', 'b', 'c', 'd'] as const) t.match(written, `field="${bare}" value="${times[bare]}"`)
  t.match(written, 'field="e" value="&quot;2026-11&quot;"', 'no time, so a text like any other')
})

t.test('s3xml: what XML cannot carry is refused when it is written', async (t) => {
  const write = (change: Change) =>
    refusal(t, () => [...s3xml.encode({ resource: 'city', changes: [change] })], change.id)
  t.match(
    write({ kind: 'delete', id: 'a\x01' }).message,
    /attribute @?uuid cannot hold "a\\u0001": XML has no such character/,
  )
  t.match(write({ kind: 'put', id: 'a', data: { 'x\ufffe': 1 } }).message, /cannot hold/)
  t.match(
    write({ kind: 'put', id: 'a', data: {}, refs: { parent: { resource: 'city', id: '["a"]' } } }).message,
    /would read as a list/,
  )
})

t.test('s3xml: values are JSON in the attribute, or the text to the letter', async (t) => {
  t.strictSame(data('<data field="x" value="&quot;a&quot;">other</data>'), { x: 'a' })
  t.strictSame(data('<data field="x" value="17"/>'), { x: 17 })
  t.strictSame(data('<data field="x" value="[1,&quot;b&quot;]"/>'), { x: [1, 'b'] })
  t.strictSame(data('<data field="x" value="XYZ"/>'), { x: 'XYZ' }, 'a bare word is a text')
  t.strictSame(data('<data field="x" value="null"/>'), { x: null })
  t.strictSame(data('<data field="x" null="true"/>'), { x: null })
  t.strictSame(data('<data field="x"/>'), { x: '' })
  t.strictSame(data('<data field="x">  1999\n </data>'), { x: '  1999\n ' })
  t.strictSame(
    data('<data field="x">&amp;lt;b&amp;gt; &amp;amp;</data>'),
    { x: '&lt;b&gt; &amp;' },
    'unescaped once and not twice',
  )
  t.strictSame(data('<data field="x">&#65;&#x42;&#10;&#128512;</data>'), { x: 'AB\n😀' })
  t.strictSame(data('<data field="x"><![CDATA[<b>&lt;]]]]><![CDATA[>]]> y<!-- no --></data>'), { x: '<b>&lt;]]> y' })
  t.strictSame(Object.entries(data('<data field="__proto__" value="1"/>')), [['__proto__', 1]])
  t.strictSame(data('<data field="x">[1]</data>', { jsonColumns: ['x'] }), { x: [1] })
  t.match(
    why(t, resource('<data field="x" value="{&quot;a&quot;:"/>')),
    /^record 1 \(line 1\): <data> in line 1: field "x": .*JSON/,
  )
  t.match(why(t, resource('<data field="x">[1</data>'), { jsonColumns: ['x'] }), /field "x": .*JSON/)
  t.match(
    why(t, resource(`<data field="x" value="${'['.repeat(2000)}${']'.repeat(2000)}"/>`)),
    /field "x": nested deeper than 64/,
  )
})

t.test('s3xml: references, versions and marks', async (t) => {
  t.strictSame(change(resource('<reference field="country" uuid="CH">Switzerland</reference>')), {
    kind: 'put',
    id: 'a',
    data: {},
    refs: { country: { resource: 'country', id: 'CH' } },
  })
  t.strictSame(change(resource('<data field="country" value="&quot;CH&quot;"/>')), {
    kind: 'put',
    id: 'a',
    data: {},
    refs: { country: { resource: 'country', id: 'CH' } },
  })
  t.strictSame(change(resource('', ' deleted="TRUE" origin="o" clock="5" seen="{&quot;p&quot;:3}"')), {
    kind: 'delete',
    id: 'a',
    version: { origin: 'o', clock: 5, seen: { p: 3 } },
  })
  t.strictSame(change(resource('', ' left="true"')), { kind: 'left', id: 'a' })
  t.strictSame(decode('<s3xml success="false" results="0"/>'), [{ resource: 'city', changes: [], within: [] }])
})

t.test('s3xml: what has no meaning here is refused by name', async (t) => {
  const at = (pattern: string) => new RegExp(`^record 1 \\(line 1\\): (?:<\\w+> in line 1: )?${pattern}`)
  t.match(why(t, resource('', ' colour="red"')), at('unknown attribute "colour"'))
  t.match(why(t, resource('<data field="x" type="int"/>')), at('unknown attribute "type"'))
  t.match(why(t, '<s3xml xmlns="urn:x"/>'), /^<s3xml>: unknown attribute "xmlns"/)
  t.match(why(t, '<html/>'), /^line 1: unknown element "html" in the document/)
  t.match(why(t, '<s3xml><data field="x"/></s3xml>'), /unknown element "data" in <s3xml>/)
  t.match(why(t, resource('<b/>')), /unknown element "b" in <resource>/)
  t.match(why(t, resource('<data field="x"><b/></data>')), /unknown element "b" in <data>/)
  t.match(
    why(t, resource('<reference field="x" resource="y"><resource name="y"/></reference>')),
    /unknown element "resource" in <reference>/,
  )
  t.match(why(t, resource('loose')), /^line 1: text "loose" stands outside of a field/)
  t.match(why(t, '<s3xml><resource uuid="a"/></s3xml>'), at('attribute name must be the name of a resource'))
  t.match(why(t, '<s3xml><resource name="city"/></s3xml>'), at('it needs a uuid$'))
  t.match(
    why(t, '<s3xml><resource name="city" tuid="T1"/></s3xml>'),
    at('it needs a uuid; the tuid "T1" means nothing outside the document'),
  )
  t.match(why(t, resource('<data value="1"/>')), at('attribute field is missing'))
  t.match(why(t, resource('<data field="x"/><data field="x"/>')), at('field "x" is given twice'))
  t.match(
    why(t, resource('<data field="x"/><reference field="x" resource="y" uuid="1"/>')),
    at('field "x" is given twice'),
  )
  t.match(why(t, resource('<data field="x" null="yes"/>')), at('attribute null is true or false, not "yes"'))
  t.match(why(t, resource('<data field="x" url="http://h/x" filename="x"/>')), at('field "x" is an uploaded file'))
  t.match(why(t, resource('<data field="x" error="too long"/>')), at('field "x" is marked with the error "too long"'))
  t.match(why(t, resource('', ' error="refused"')), at('it is marked with the error "refused"'))
  t.match(why(t, resource('', ' approved="false"')), at('it is not approved at its site'))
  t.match(why(t, resource('<reference field="x" resource="y"/>')), at('the reference "x" needs a uuid$'))
  t.match(
    why(t, resource('<reference field="x" resource="y" tuid="T"/>')),
    at('the reference "x" needs a uuid; the tuid "T"'),
  )
  t.match(why(t, resource('<reference field="x" uuid="1"/>')), at('attribute resource of field "x" must be the name'))
  t.match(
    why(t, resource('<reference field="country" resource="land" uuid="1"/>')),
    at('column "country" refers to "country" here, not to "land"'),
  )
  t.match(
    why(t, resource('<reference field="x" resource="y" uuid="[&quot;1&quot;]"/>')),
    at('the reference "x" is a list'),
  )
  t.match(
    why(t, resource('<data field="x"/>', ' deleted="true"')),
    at('a record that is deleted or left has no fields'),
  )
  t.match(why(t, resource('', ' deleted="true" left="true"')), at('a record is either deleted or left'))
  t.match(why(t, resource('', ' deleted="1"')), at('attribute deleted is true or false, not "1"'))
  t.match(why(t, resource('', ' clock="5"')), at('version.origin must be a text'))
  t.match(why(t, resource('', ' origin="o" clock="0"')), at('clock must be a whole number'))
  t.match(why(t, resource('', ' origin="o" clock="5" seen="{"')), at('.*JSON'))
  t.match(
    refusal(t, () => decode('<s3xml count="2"><resource name="city" uuid="a"/></s3xml>'), 'count').message,
    /count is "2", the document has 1 records/,
  )
})

t.test('s3xml: a record inside another one is attached to it or refused, never cut loose', async (t) => {
  const nested =
    '<s3xml><resource name="country" uuid="CH"><resource name="city" uuid="a"><data field="x">1</data></resource></resource></s3xml>'
  t.strictSame(change(nested), {
    kind: 'put',
    id: 'a',
    data: { x: '1' },
    refs: { country: { resource: 'country', id: 'CH' } },
  })
  t.match(
    why(t, nested, { refs: {} }),
    /^record 2 \(line 1\): it stands inside a record of "country", and no column refers to that resource/,
  )
  t.match(why(t, nested.replaceAll('country', 'city')), /and more than one column refers to that resource/)
  const given = nested.replace('<data', '<reference field="country" resource="country" uuid="DE"/><data')
  t.match(change(given), { refs: { country: { id: 'DE' } } }, 'what is written counts')
})

t.test('s3xml: hostile documents end at their first fault', async (t) => {
  const bomb = '<!DOCTYPE s3xml [<!ENTITY a "aaaaaaaaaa"><!ENTITY b "&a;&a;&a;&a;">]>'
  t.match(why(t, `${bomb}${resource('<data field="x">&b;</data>')}`), /a DOCTYPE is not taken/)
  t.match(why(t, `<!DOCTYPE s3xml SYSTEM "file:///etc/passwd">${resource('')}`), /a DOCTYPE is not taken/)
  t.match(why(t, resource('<data field="x">&xxe;</data>')), /undefined entity/)
  t.match(why(t, resource('<data field="x">&nbsp;</data>')), /undefined entity/)
  t.match(why(t, resource('<data field="x">a & b</data>')), /^line 1: /)
  t.match(why(t, resource('<data field="x">&#0;</data>')), /malformed character entity|disallowed/)
  t.match(why(t, resource('<data field="x">&#xFFFE;</data>')), /malformed character entity|disallowed/)
  t.match(why(t, resource('<data field="x">\x01</data>')), /disallowed character/)
  t.match(why(t, '<s3xml><resource name="city" uuid="a"></s3xml></resource>'), /unexpected close tag|unmatched/)
  t.match(why(t, '<s3xml></s3xml><s3xml></s3xml>'), /may contain only one root/)
  t.match(why(t, '<s3xml/>garbage'), /outside of root/)
  t.match(why(t, 'garbage<s3xml/>'), /text "garbage" stands outside of a field/)
  t.match(why(t, resource('', ' uuid="b"')), /duplicate attribute: uuid/)
  t.match(why(t, '<s3xml count=1/>'), /unquoted attribute value/)
  t.match(why(t, '<s3xml count />'), /attribute without value/)
  t.match(why(t, resource('', ' alias="<"')), /disallowed character/)
  t.match(why(t, ''), /root element/)
  t.match(why(t, 'hello'), /outside of root/)
  t.match(why(t, '<?xml version="1.1"?><s3xml/>'), /XML "1.1" is not taken/)
  t.match(
    why(t, '<?xml version="1.0" encoding="iso-8859-1"?><s3xml/>'),
    /the encoding "iso-8859-1" is not taken; send UTF-8/,
  )
  t.match(why(t, '<?xml version="1.0" encoding="utf-16"?><s3xml/>'), /the encoding "utf-16" is not taken/)
  t.match(why(t, '<s3xml/><?xml version="1.0"?>'), /^line 1: /)
  t.strictSame(decode('<?xml version="1.0" encoding="utf-8"?><!-- a --><?pi?><s3xml/><!-- b -->')[0]?.changes, [])
  const deep = '<resource name="city" uuid="a">'.repeat(5000)
  t.match(why(t, `<s3xml>${deep}`), /elements are nested deeper than 64 levels/)
  t.match(why(t, `<s3xml>${'<'.repeat(1_000_000)}`), /^line 1: /)
  const crowd = Array.from({ length: 50_000 }, (_, index) => ` a${index}="1"`).join('')
  t.match(why(t, `<s3xml${crowd}/>`), /unknown attribute "a0"/)
  t.match(why(t, `<s3xml>\n<resource name="city" uuid="a">\n<data field="x">\n</wrong>`), /^line 4: /)
})
