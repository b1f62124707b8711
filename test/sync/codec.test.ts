import fc from 'fast-check'
import t, { type Test } from 'tap'
import { csv } from '../../src/sync/codec/csv.ts'
import { json } from '../../src/sync/codec/json.ts'
import { ndjson } from '../../src/sync/codec/ndjson.ts'
import { codecForAccept, codecForContentType, type DecodeContext, numberText, parseJson } from '../../src/sync/index.ts'
import { bytesOf, CONTEXT, codecConformance, refusal, SAMPLE } from '../conformance/codec.ts'

const PUSH: DecodeContext = { ...CONTEXT, trailer: 'optional' }
const record = (value: string) => `{"id":"a","data":{"name":"${value}"}}`

codecConformance(t, {
  codec: ndjson,
  cutCode: 'SYNC_BATCH_INCOMPLETE',
  bodyWith: (value) => `${record(value)}\n{"count":1}\n`,
})

codecConformance(t, {
  codec: json,
  cutCode: 'SYNC_FORMAT_INVALID',
  bodyWith: (value) => `{"changes":[${record(value)}]}`,
})

t.test('every number of a JSON text is written again as it was read', async (t) => {
  const digits = fc.stringMatching(/^(?:0|[1-9]\d{0,24})$/)
  const fraction = fc.option(fc.stringMatching(/^\.\d{1,24}$/), { nil: '' })
  const exponent = fc.option(fc.stringMatching(/^[eE][+-]?\d{1,3}$/), { nil: '' })
  const number = fc.tuple(fc.constantFrom('', '-'), digits, fraction, exponent).map((parts) => parts.join(''))
  const around = fc.constantFrom(
    (n: string) => n,
    (n: string) => `[${n}]`,
    (n: string) => `{"a":${n},"b":[${n},"x ${n}, y"]}`,
  )
  fc.assert(
    fc.property(number, around, (number, wrap) => JSON.stringify(parseJson(wrap(number))) === wrap(number)),
    { numRuns: 3000 },
  )
  for (const number of ['0.0000001', '0.000001', '-0', '-0.0', '1e21', '9007199254740993', '123456789012345.6']) {
    t.equal(JSON.stringify(parseJson(number)), number)
  }
  t.equal(numberText(parseJson('9007199254740993')), '9007199254740993')
  t.equal(parseJson('17'), 17, 'a number that a double carries stays a number')
  t.strictSame(parseJson('{"rawJSON":"1.0"}'), { rawJSON: '1.0' }, 'and no text can pretend to be one')
})

t.test('deep JSON is refused before anything recurses over it', async (t) => {
  for (const [open, close] of [
    ['[', ']'],
    ['{"a":', '}'],
  ] as const) {
    const nested = (levels: number) => `${open.repeat(levels)}1.0${close.repeat(levels)}`
    t.equal(JSON.stringify(parseJson(nested(64))), nested(64))
    t.throws(() => parseJson(nested(65)), { message: /deeper than 64 levels/ })
    t.throws(() => parseJson(nested(1_000_000)), { message: /deeper than 64 levels/ })
    t.throws(() => parseJson(open.repeat(200_000)), { message: /deeper than 64 levels/ })
  }
  const brackets = '[{'.repeat(1000)
  t.equal(parseJson(JSON.stringify(brackets)), brackets, 'brackets in a text are not levels')
  t.equal(parseJson(JSON.stringify(`\\"${brackets}`)), `\\"${brackets}`, 'nor after an escaped quote')
  const body = `${record('x').replace('"x"', '['.repeat(5000) + ']'.repeat(5000))}\n`
  t.match(
    refusal(t, () => ndjson.decode(Buffer.from(body), PUSH), 'a deep value').message,
    /^record 1 \(line 1\): nested deeper than 64/,
  )
})

const REFUSED: readonly (readonly [change: string, why: RegExp])[] = [
  ['{"id":"a","data":{},"foo":1}', /unknown member "foo"; a change has id, version, data, refs, deleted, left$/],
  ['{"id":"a","data":{},"__proto__":1}', /unknown member "__proto__"/],
  ['[]', /a change is an object, not \[\]/],
  ['7', /a change is an object, not 7/],
  ['{"data":{}}', /id must be a text that is not empty, not undefined/],
  ['{"id":"","data":{}}', /id must be a text that is not empty/],
  ['{"id":null,"data":{}}', /id must be a text that is not empty, not null/],
  ['{"id":1.5,"data":{}}', /id must be a text/],
  ['{"id":["a"],"data":{}}', /id must be a text/],
  [`{"id":"${'x'.repeat(513)}","data":{}}`, /id is longer than 512 characters/],
  ['{"id":"a\\u0000","data":{}}', /id holds a character that no database text can hold/],
  ['{"id":"a\\ud800","data":{}}', /id holds a character that no database text can hold/],
  ['{"id":"a"}', /a change has data, refs, "deleted": true or "left": true/],
  ['{"id":"a","data":null}', /data must be an object of columns and values, not null/],
  ['{"id":"a","data":[1]}', /data must be an object/],
  ['{"id":"a","data":1.0}', /data must be an object/],
  ['{"id":"a","deleted":"yes"}', /deleted must be true, not "yes"/],
  ['{"id":"a","deleted":true,"data":{}}', /deleted has no data/],
  ['{"id":"a","left":true,"refs":{}}', /left has no data/],
  ['{"id":"a","left":true,"deleted":true}', /either deleted or left/],
  ['{"id":"a","data":{},"version":"1"}', /version must be an object/],
  [
    '{"id":"a","data":{},"version":{"origin":"o","clock":1,"x":1}}',
    /unknown member "x"; a version has origin, clock, seen/,
  ],
  ['{"id":"a","data":{},"version":{"clock":1}}', /version.origin must be a text/],
  [`{"id":"a","data":{},"version":{"origin":"${'o'.repeat(201)}","clock":1}}`, /version.origin is longer than 200/],
  ['{"id":"a","data":{},"version":{"origin":"o\\n","clock":1}}', /version.origin holds a control character/],
  ...['0', '-1', '1.5', '1.0', '"1"', '9007199254740992', 'null', '1e3'].map(
    (clock) =>
      [
        `{"id":"a","data":{},"version":{"origin":"o","clock":${clock}}}`,
        /version.clock must be a whole number/,
      ] as const,
  ),
  ['{"id":"a","data":{},"version":{"origin":"o","clock":1,"seen":[]}}', /version.seen must be an object/],
  [
    '{"id":"a","data":{},"version":{"origin":"o","clock":1,"seen":{"p":0}}}',
    /version.seen\["p"\] must be a whole number/,
  ],
  ['{"id":"a","data":{},"version":{"origin":"o","clock":1,"seen":{"":1}}}', /an origin in version.seen must be a text/],
  ['{"id":"a","data":{},"version":{"origin":"o","clock":1,"seen":{"o":2}}}', /gives its own origin another clock/],
  ...(
    [
      ['[]', /version.fields must be an object of columns/],
      ['{"":{"dots":{"o":1}}}', /must be an object with dots/],
      ['{"a":{}}', /dots must be an object of origins and clocks/],
      ['{"a":{"dots":{}}}', /dots must be an object of origins and clocks/],
      ['{"a":{"dots":{"o":1},"x":1}}', /unknown member "x"/],
      ['{"a":{"dots":{"o":2}}}', /names a write of "o" that the version has not seen/],
      ['{"a":{"dots":{"p":1}}}', /names a write of "p" that the version has not seen/],
      ['{"a":{"dots":{"o":"1"}}}', /must be a whole number/],
      ['{"a":{"dots":{"o":1},"values":{"p":1}}}', /values names "p", which is not among its dots/],
      ['{"a":{"dots":{"o":1},"sums":{"o":"1"}}}', /base and sums, or neither/],
      ['{"a":{"dots":{"o":1},"base":{"o":1},"sums":{"o":1}}}', /must be a decimal number as text/],
    ] as const
  ).map(
    ([fields, why]) => [`{"id":"a","data":{},"version":{"origin":"o","clock":1,"fields":${fields}}}`, why] as const,
  ),
  ['{"id":"a","refs":{"country":"CH"}}', /refs\["country"\] must be null or an object with resource and id/],
  ['{"id":"a","refs":{"country":{"resource":"country"}}}', /refs\["country"\].id must be a text/],
  ['{"id":"a","refs":{"country":{"id":"CH"}}}', /refs\["country"\].resource must be the name of a resource/],
  ['{"id":"a","refs":{"country":{"resource":"country","id":"CH","x":1}}}', /unknown member "x"; a reference has/],
  [
    '{"id":"a","refs":{"country":{"resource":"land","id":"CH"}}}',
    /column "country" refers to "country" here, not to "land"/,
  ],
  ['{"id":"a","data":{"x":1},"refs":{"x":null}}', /column "x" is given twice/],
  ['{"id":"a","data":{"country":"CH"},"refs":{"country":null}}', /column "country" is given twice/],
  ['{"id":"a","data":{"country":["CH"]}}', /the reference in column "country" must be a text/],
]

t.test('a change that is not as the contract says is refused with its place and reason', async (t) => {
  const good = '{"id":"ok","data":{}}'
  for (const [change, why] of REFUSED) {
    const lines = refusal(t, () => ndjson.decode(Buffer.from(`${good}\n\n${change}\n`), PUSH), change)
    t.equal(lines.code, 'SYNC_FORMAT_INVALID')
    t.match(lines.message, why)
    t.match(lines.message, /^record 2 \(line 3\): /)
    const document = refusal(t, () => json.decode(Buffer.from(`{"changes":[${good},${change}]}`), PUSH), change)
    t.match(document.message, why)
    t.match(document.message, /^record 2: /)
  }
})

t.test('what people write by hand is understood', async (t) => {
  const read = (change: string) => ndjson.decode(Buffer.from(change), PUSH)[0]?.changes[0]
  t.strictSame(read('{"id":7,"data":{"country":"CH","name":"x"}}'), {
    kind: 'put',
    id: '7',
    data: { name: 'x' },
    refs: { country: { resource: 'country', id: 'CH' } },
  })
  t.strictSame(read('{"id":12345678901234567890,"data":{"country":41}}'), {
    kind: 'put',
    id: '12345678901234567890',
    data: {},
    refs: { country: { resource: 'country', id: '41' } },
  })
  t.strictSame(read('{"id":"a","data":{"country":null}}'), { kind: 'put', id: 'a', data: {}, refs: { country: null } })
  t.strictSame(
    read('{"id":"a","refs":{"other":{"resource":"r","id":"1"}}}'),
    {
      kind: 'put',
      id: 'a',
      data: {},
      refs: { other: { resource: 'r', id: '1' } },
    },
    'whether a column exists is for the table to say',
  )
  t.strictSame(read('{"id":"a","deleted":false,"data":{"x":null}}'), { kind: 'put', id: 'a', data: { x: null } })
  const own = '{"id":"a","deleted":true,"version":{"origin":"o","clock":5,"seen":{"o":5}}}'
  t.strictSame(
    read(own),
    { kind: 'delete', id: 'a', version: { origin: 'o', clock: 5 } },
    'its own dot in seen says nothing new',
  )
})

t.test('the trailer of NDJSON is compulsory in an answer, optional in a push, and always right', async (t) => {
  const line = '{"id":"a","deleted":true}'
  const answer = (body: string) => refusal(t, () => ndjson.decode(Buffer.from(body), CONTEXT), body)
  t.match(answer(`${line}\n`), { code: 'SYNC_BATCH_INCOMPLETE', message: 'the body ends before its trailer line' })
  t.match(answer(''), { code: 'SYNC_BATCH_INCOMPLETE' })
  t.match(answer(`${line}\n{"count":2}\n`), {
    code: 'SYNC_BATCH_INCOMPLETE',
    message: 'the trailer counts 2 records, the body has 1',
  })
  const push = (body: string) => ndjson.decode(Buffer.from(body), PUSH)[0]
  t.equal(push('')?.changes.length, 0)
  t.equal(push(`${line}\r\n\r\n${line}`)?.changes.length, 2)
  t.strictSame(push(`${line}\n{"count":1,"checkpoint":"c","more":false}`)?.next, { checkpoint: 'c', more: false })
  const why = (body: string) => refusal(t, () => push(body), body).message
  t.match(why(`${line}\n{"count":0}`), 'the trailer counts 0 records, the body has 1')
  t.match(why(`{"count":1}\n${line}`), 'record 1 (line 2): the trailer must be the last line')
  t.match(why(`${line}\n{"checkpoint":"c","more":true}`), /count must be a whole number, not undefined/)
  t.match(why(`${line}\n{"count":1,"more":true}`), /checkpoint must be a text/)
  t.match(why(`${line}\n{"count":1,"checkpoint":"c"}`), /more must be true or false/)
  t.match(why(`${line}\n{"count":1,"total":1}`), /unknown member "total"; a trailer has count, checkpoint, more/)
  t.match(why(`${line}\n${line}${line}`), /^record 2 \(line 2\): .*JSON/)
})

t.test('a JSON document is an object with changes and nothing unknown', async (t) => {
  const why = (body: string) => refusal(t, () => json.decode(Buffer.from(body), PUSH), body).message
  t.match(why('[]'), /^body: the document is an object with changes$/)
  t.match(why('{}'), /^body: changes must be a list$/)
  t.match(why('{"changes":{}}'), /changes must be a list/)
  t.match(why('{"changes":[],"total":0}'), /^body: unknown member "total"; the document has changes, checkpoint, more$/)
  t.match(why('{"changes":[],"more":false}'), /checkpoint must be a text/)
  t.match(why('{"changes":[{"id":"a","data":{}},]}'), /^body: .*JSON/)
  t.match(why("{'changes':[]}"), /^body: .*JSON/)
})

const rows = (body: string, context: Partial<DecodeContext> = {}) =>
  csv.decode(Buffer.from(body), { ...PUSH, ...context })[0]?.changes
const whyNot = (t: Test, body: string, context: Partial<DecodeContext> = {}) =>
  refusal(t, () => rows(body, context), body)

t.test('csv: an empty cell is null, a quoted empty one is the empty text, everything else is text', async (t) => {
  t.strictSame(rows('id,name,note,country\n1,"",,CH\r\n"x ""y""","a\r\nb, c",007,\n'), [
    { kind: 'put', id: '1', data: { name: '', note: null }, refs: { country: { resource: 'country', id: 'CH' } } },
    { kind: 'put', id: 'x "y"', data: { name: 'a\r\nb, c', note: '007' }, refs: { country: null } },
  ])
  t.strictSame(rows('\ufeffname,id\rZürich,1\r\r'), [{ kind: 'put', id: '1', data: { name: 'Zürich' } }])
  t.strictSame(rows('id,name\n'), [])
  t.strictSame(
    rows('id,__proto__\n1,x')?.map((change) => JSON.stringify(change)),
    ['{"kind":"put","id":"1","data":{"__proto__":"x"}}'],
  )
})

t.test('csv: what is written by the rules is read back', async (t) => {
  const cell = fc
    .oneof(fc.string({ unit: 'binary' }), fc.constantFrom('', ' ', '"', ',', '\n', '\r\n', 'a"b', 'é'))
    .filter((text) => !text.includes('\0'))
  const write = (value: string | null) => (value === null ? '' : `"${value.replaceAll('"', '""')}"`)
  fc.assert(
    fc.property(
      fc.array(fc.tuple(fc.option(cell), fc.option(cell)), { maxLength: 5 }),
      fc.constantFrom('\n', '\r\n'),
      (table, newline) => {
        const body = ['id,a,b', ...table.map(([a, b], index) => [index, write(a), write(b)].join(','))].join(newline)
        const expected = table.map(([a, b], index) => ({ kind: 'put', id: String(index), data: { a, b } }))
        return JSON.stringify(rows(body)) === JSON.stringify(expected)
      },
    ),
    { numRuns: 200 },
  )
  t.equal(rows('id,a\n1,"😀"')?.length, 1)
})

t.test('csv: deletes, other names of the id, and columns of JSON', async (t) => {
  t.strictSame(rows('id,name,_deleted\n1,x,yes\n2,y,\n3,z,FALSE\n4,,True'), [
    { kind: 'delete', id: '1' },
    { kind: 'put', id: '2', data: { name: 'y' } },
    { kind: 'put', id: '3', data: { name: 'z' } },
    { kind: 'delete', id: '4' },
  ])
  t.strictSame(rows('code,name\n1,x', { idColumn: 'code' }), [{ kind: 'put', id: '1', data: { name: 'x' } }])
  t.strictSame(rows('code,id\nc,1', { idColumn: 'code' }), [{ kind: 'put', id: '1', data: { code: 'c' } }])
  const [change] = rows('id,tags\n1,"{""a"":1.0}"', { jsonColumns: ['tags'] }) ?? []
  t.equal(JSON.stringify(change), '{"kind":"put","id":"1","data":{"tags":{"a":1.0}}}')
  t.match(
    whyNot(t, 'id,tags\n1,{', { jsonColumns: ['tags'] }).message,
    /^record 1 \(line 2\): column "tags" takes JSON: /,
  )
})

t.test('csv: a table that is not one is refused with its line', async (t) => {
  t.match(whyNot(t, '').message, /^line 1: there is no header line/)
  t.match(whyNot(t, 'name\nx').message, /^line 1: there is no column "id" among "name"/)
  t.match(whyNot(t, 'id;name\n1;x').message, /columns are separated by commas/)
  t.match(whyNot(t, 'name\nx', { idColumn: 'code' }).message, /there is no column "id" or "code"/)
  t.match(whyNot(t, 'id,a,a\n1,2,3').message, /^line 1: column "a" is named twice/)
  t.match(whyNot(t, 'id,,b\n1,2,3').message, /^line 1: column 2 has no name/)
  t.match(whyNot(t, 'id,"",b\n1,2,3').message, /^line 1: column 2 has no name/)
  t.match(
    whyNot(t, 'id,a\n1,"x\r\ny"\n\n2,x,y').message,
    /^record 2 \(line 5\): it has 3 cells, the header names 2 columns/,
  )
  t.match(whyNot(t, 'id,a\n1').message, /^record 1 \(line 2\): it has 1 cells/)
  t.match(whyNot(t, 'id,a\n,x').message, /^record 1 \(line 2\): id must be a text that is not empty, not null/)
  t.match(whyNot(t, 'id,_deleted\n1,perhaps').message, /_deleted is true or false, not "perhaps"/)
  t.match(whyNot(t, 'id,a\n1,"x').message, /Quote Not Closed.*line 2/)
  t.match(whyNot(t, 'id,a\n1,"x"y').message, /Invalid Closing Quote/)
  t.match(whyNot(t, 'id,a\n1,x"y').message, /Invalid Opening Quote/)
  t.match(whyNot(t, 'id,a\n1,x\0').message, /^line 2 holds a NUL character/)
  t.match(
    refusal(t, () => csv.decode(Buffer.from('id,a\n1,b\n2,é', 'latin1'), PUSH), 'Latin-1').message,
    /^line 3 is not UTF-8/,
  )
  t.equal(whyNot(t, `id,a\n1,"${'x'.repeat(10_000_000)}"`).code, 'SYNC_RECORD_TOO_LARGE')
  t.equal(whyNot(t, 'id\n1\n2\n3', { recordsMax: 2 }).code, 'SYNC_REQUEST_TOO_LARGE')
})

t.test('the answer takes the format that was asked for, and NDJSON where nothing was', async (t) => {
  const cases: readonly (readonly [string | undefined, string])[] = [
    [undefined, 'ndjson'],
    ['', 'ndjson'],
    ['*/*', 'ndjson'],
    ['application/*', 'ndjson'],
    ['application/json', 'json'],
    ['Application/JSON; charset=utf-8', 'json'],
    ['application/json, text/plain, */*', 'json'],
    ['application/json;q=0.5, application/xml;q=0.8', 's3xml'],
    ['text/xml', 's3xml'],
    ['text/*', 's3xml'],
    ['text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8', 's3xml'],
    ['application/x-ndjson;q=0, */*;q=0.1', 'json'],
    ['application/vnd.syncline.lines, application/x-ndjson', 'lines'],
    ['application/vnd.syncline.lines;q=0.1, */*', 'ndjson'],
    ['*/*, application/json;q=nonsense', 'ndjson'],
  ]
  for (const [header, name] of cases) t.equal(codecForAccept(header).name, name, String(header))
  for (const header of ['text/csv', 'image/png', '*/*;q=0', 'application/json;q=0']) {
    const error = refusal(t, () => codecForAccept(header), header)
    t.equal(error.code, 'SYNC_FORMAT_UNSUPPORTED')
    t.ok(error.message.includes(header) && error.message.includes('application/x-ndjson'), error.message)
    t.notMatch(error.message, /there is.*text\/csv/, 'CSV is only read')
  }
})

t.test('the format of a body is what its Content-Type says', async (t) => {
  const cases: readonly (readonly [string, string])[] = [
    ['application/x-ndjson', 'ndjson'],
    ['application/jsonl', 'ndjson'],
    ['application/json; charset=utf-8', 'json'],
    ['TEXT/CSV; header=present; charset="UTF-8"', 'csv'],
    ['text/xml', 's3xml'],
    ['application/xml', 's3xml'],
    ['application/vnd.syncline.lines', 'lines'],
  ]
  for (const [header, name] of cases) t.equal(codecForContentType(header).name, name, header)
  const why = (header: string | undefined) => refusal(t, () => codecForContentType(header), String(header)).message
  t.match(why(undefined), /^the body has no Content-Type; there is .*text\/csv/)
  t.match(
    why('application/x-www-form-urlencoded'),
    /^the body is application\/x-www-form-urlencoded; there is application\/vnd/,
  )
  t.match(why('text/csv; charset=windows-1252'), /windows-1252; records are read in UTF-8/)
})

t.test('a batch is written in pieces of bounded size', async (t) => {
  const changes = Array.from({ length: 2000 }, (_, index) => ({
    ...SAMPLE.changes[0],
    id: String(index),
  })) as typeof SAMPLE.changes
  for (const codec of [ndjson, json]) {
    const pieces = [...codec.encode({ resource: 'city', changes })]
    t.ok(pieces.length > 3 && pieces.every((piece) => piece.length < 70_000), `${codec.name}: ${pieces.length} pieces`)
    t.equal(codec.decode(bytesOf(pieces), { ...PUSH, recordsMax: 2000 })[0]?.changes.length, 2000)
  }
})
