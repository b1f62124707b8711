import fc from 'fast-check'
import t, { type Test } from 'tap'
import {
  type Change,
  changesOfLines,
  decodeLines,
  type LineBatch,
  linesBody,
  linesHeader,
  linesOfChanges,
  linesTrailer,
  splitSets,
  unsoundLines,
} from '../../src/sync/index.ts'
import { CONTEXT, canonical, change, REFS, refusal, SAMPLE } from '../conformance/codec.ts'

const EMPTY: LineBatch = { resource: 'city', columns: ['name'], refs: {}, origins: ['o'], text: '', count: 0 }
const batchOf = (...lines: string[]): LineBatch => ({ ...EMPTY, text: lines.join('\n'), count: lines.length })
const bodyOf = (batch: LineBatch) => linesBody(batch)
const read = (...lines: string[]) => decodeLines(bodyOf(batchOf(...lines)), CONTEXT)
const LINE = '"a"\t17\t0\t\tp\t["x"]'

t.test('lines: changes of any kind come back exactly, each id once in a batch and in its own order', async (t) => {
  const few = fc.array(fc.tuple(change, fc.constantFrom('a', 'b', null)), { maxLength: 12 })
  fc.assert(
    fc.property(few, (drawn) => {
      const changes = drawn.map(([each, id]) => ({ ...each, id: id ?? each.id }) as Change)
      const batches = linesOfChanges('city', changes, REFS).map((batch) => decodeLines(bodyOf(batch), CONTEXT))
      const back = batches.map(changesOfLines)
      const unique = back.every((list) => new Set(list.map(({ id }) => id)).size === list.length)
      const inOrder = [...new Set(changes.map(({ id }) => id))].every(
        (id) =>
          canonical(back.flat().filter((each) => each.id === id)) ===
          canonical(changes.filter((each) => each.id === id)),
      )
      return (
        unique &&
        inOrder &&
        back.flat().length === changes.length &&
        batches.every((batch, index) => batch.count === back[index]?.length)
      )
    }),
    { numRuns: 300 },
  )
  t.equal(canonical(linesOfChanges('city', SAMPLE.changes, REFS).flatMap(changesOfLines)), canonical(SAMPLE.changes))
})

t.test('lines: changes with the same columns share a batch, and deletes join whatever there is', async (t) => {
  const put = (id: string, ...columns: string[]): Change => ({
    kind: 'put',
    id,
    data: Object.fromEntries(columns.map((column) => [column, 1])),
  })
  const gone = (id: string): Change => ({ kind: 'delete', id })
  const shape = (...changes: Change[]) =>
    linesOfChanges('city', changes, {}).map(
      (batch) =>
        `${batch.columns.join('')}:${changesOfLines(batch)
          .map(({ id }) => id)
          .join('')}`,
    )
  t.strictSame(shape(), [])
  t.strictSame(shape(put('1', 'a', 'b'), put('2', 'b', 'a'), put('3', 'a'), put('4', 'a', 'b')), ['ab:124', 'a:3'])
  t.strictSame(shape(gone('1'), gone('2'), put('3', 'a'), gone('4')), ['a:1234'])
  t.strictSame(shape(put('1', 'a'), gone('1'), put('1', 'a')), ['a:1', ':1', 'a:1'])
  t.strictSame(shape(put('1', 'a'), gone('1'), put('2', 'b'), put('1', 'b')), ['a:1', 'b:12', 'b:1'])
  const repeated = Array.from({ length: 20_000 }, (_, index) => (index % 2 === 0 ? put('1', 'a') : gone('1')))
  t.equal(
    linesOfChanges('city', repeated, {}).length,
    20_000,
    'one record many times takes as many batches, in linear time',
  )
})

t.test('lines: a batch is written as the wire says', async (t) => {
  const [batch, ...others] = linesOfChanges(
    'city',
    [
      {
        kind: 'put',
        id: 'a"\t',
        version: { origin: 'o1', clock: 7, seen: { o2: 5, o3: 6 }, fields: { name: { dots: { o3: 6 } } } },
        data: { name: 'x\ny', n: null },
        refs: { country: { resource: 'country', id: 'CH' }, odd: null },
      },
      { kind: 'delete', id: 'b', version: { origin: 'o3', clock: 9 } },
      { kind: 'left', id: 'c' },
    ],
    REFS,
  )
  t.strictSame(others, [])
  t.strictSame(batch?.text.split('\n'), [
    '"a\\"\\t"\t7\t2\t{"0":5,"1":6,"fields":{"name":{"dots":{"1":6}}}}\tp\t["CH",null,"x\\ny",null]',
    '"b"\t9\t1\t\td\t',
    '"c"\t\t\t\tl\t',
  ])
  const { text: _, ...rest } = batch ?? EMPTY
  t.strictSame(rest, {
    resource: 'city',
    columns: ['country', 'n', 'name', 'odd'],
    refs: { country: 'country' },
    origins: ['o2', 'o3', 'o1'],
    count: 3,
  })
  const next = { checkpoint: 'p', more: false }
  const answer = { ...EMPTY, next }
  t.equal(linesHeader(answer), '{"syncline":1,"resource":"city","columns":["name"],"refs":{},"origins":["o"]}')
  t.equal(linesTrailer(answer), '{"count":0,"checkpoint":"p","more":false}')
  t.strictSame(decodeLines(bodyOf(answer), CONTEXT), answer)
  t.strictSame(decodeLines(`${linesBody(answer)}\n`, CONTEXT), answer, 'as a text, and with a newline at the end')
  const spaced = batchOf('"a"\t7\t0\t{"0": 5}\tp\t[1, {"a" : "b"}]')
  t.strictSame(decodeLines(bodyOf(spaced), CONTEXT), spaced, 'as PostgreSQL spaces JSON')
})

t.test('lines: a body cut at any byte, or with a line less or more, is incomplete', async (t) => {
  const whole = { ...batchOf(LINE, '"é𝒳"\t18\t0\t{"0":3}\td\t'), next: { checkpoint: 'ü', more: true } }
  const bytes = bodyOf(whole)
  t.strictSame(decodeLines(bytes, CONTEXT), whole)
  for (let end = 0; end < bytes.length; end++) {
    const error = refusal(t, () => decodeLines(bytes.subarray(0, end), CONTEXT), `the body cut at ${end}`)
    if (error.code !== 'SYNC_BATCH_INCOMPLETE')
      t.equal(error.code, 'SYNC_BATCH_INCOMPLETE', `cut at ${end}: ${error.message}`)
  }
  for (const count of [1, 3]) {
    const error = refusal(t, () => decodeLines(bodyOf({ ...whole, count }), CONTEXT), `a count of ${count}`)
    t.match(error, { code: 'SYNC_BATCH_INCOMPLETE', message: `the trailer counts ${count} records, the body has 2` })
  }
  const altered = Buffer.from(bytes)
  altered[bytes.indexOf('\t')] = 0x20
  t.equal(refusal(t, () => decodeLines(altered, CONTEXT), 'an altered body').code, 'SYNC_FORMAT_INVALID')
  refusal(t, () => decodeLines(Buffer.concat([bytes, Buffer.from('\nx')]), CONTEXT), 'a body with garbage after it')
  refusal(t, () => decodeLines('{"count":0}', CONTEXT), 'a trailer alone')
})

t.test('lines: an envelope that the database could misread is refused with its line', async (t) => {
  const why = (t: Test, ...lines: string[]) => refusal(t, () => read(...lines), lines.join('⏎')).message
  const shape = /^record 2 \(line 3\): a line is id, clock, origin, seen, kind and payload with a TAB between$/
  const good = '"ok"\t\t\t\td\t'
  for (const line of [
    '',
    'a\t17\t0\t\tp\t["x"]',
    '"a\t17\t0\t\tp\t["x"]',
    '\'a\'\t17\t0\t\tp\t["x"]',
    '"a"\t017\t0\t\tp\t["x"]',
    '"a"\t-1\t0\t\tp\t["x"]',
    '"a"\t0\t0\t\tp\t["x"]',
    '"a"\t1.5\t0\t\tp\t["x"]',
    '"a"\t17\t\t\tp\t["x"]',
    '"a"\t\t0\t\tp\t["x"]',
    '"a"\t\t\t{"0":1}\tp\t["x"]',
    '"a"\t17\t00\t\tp\t["x"]',
    '"a"\t17\t0\tnull\tp\t["x"]',
    '"a"\t17\t0\t\tq\t["x"]',
    '"a"\t17\t0\t\tp',
    '"a"\t17\t0\t\tp\t["x\t"]',
    '"a"\t17\t0\t\tp\t["x"]\t',
    '"a\t"\t17\t0\t\tp\t["x"]',
    ' "a"\t17\t0\t\tp\t["x"]',
  ]) {
    t.match(why(t, good, line), shape, JSON.stringify(line))
  }
  t.match(why(t, '"a"\t17\t0\t\tp\t'), /the payload of a put is a list/)
  t.match(why(t, '"a"\t17\t0\t\tp\t{"name":1}'), /the payload of a put is a list/)
  t.match(why(t, '"a"\t17\t0\t\tp\t["x"'), /the payload of a put is a list/)
  t.match(why(t, '"a"\t17\t0\t\td\t["x"]'), /only a put has a payload/)
  t.match(why(t, '"a"\t17\t0\t\tl\t '), /only a put has a payload/)
  t.match(why(t, '"a"\t17\t1\t\tp\t["x"]'), /origin 1 is not among the 1 origins/)
  t.match(why(t, '"a"\t17\t0\t{"1":5}\tp\t["x"]'), /seen names "1", which is not among the 1 origins/)
  t.match(why(t, '"a"\t17\t0\t{"x":5}\tp\t["x"]'), /seen names "x"/)
  t.match(why(t, '"a"\t17\t0\t{"0":"5"}\tp\t["x"]'), /the clock in seen of origin 0 must be a whole number/)
  t.match(why(t, '"a"\t17\t0\t{"0":}\tp\t["x"]'), /JSON/)
  t.match(why(t, '"a"\t9999999999999999\t0\t\tp\t["x"]'), /clock must be a whole number/)
  t.match(why(t, '""\t17\t0\t\tp\t["x"]'), /id must be a text that is not empty/)
  t.match(why(t, '"\\u0000"\t17\t0\t\tp\t["x"]'), /id holds a character that no database text can hold/)
  t.match(why(t, '"\\x"\t17\t0\t\tp\t["x"]'), /JSON/)
  t.match(why(t, `"${'x'.repeat(513)}"\t17\t0\t\tp\t["x"]`), /id is longer than 512/)
  for (const control of ['\0', '\x01', '\r', '\x1f'])
    t.match(why(t, good, `"a"\t17\t0\t\tp\t["${control}"]`), /line 3\): a control character stands outside an escape/)
  t.match(why(t, LINE, good, LINE), 'record 3 (line 4): the record "a" stands in the batch twice')
  t.match(why(t, LINE, '"\\u0061"\t18\t0\t\td\t'), /stands in the batch twice/, 'however it is spelled')
  t.match(
    refusal(t, () => decodeLines(Buffer.concat([Buffer.from([0xff]), bodyOf(EMPTY)]), CONTEXT), 'no UTF-8').message,
    /line 1 is not UTF-8/,
  )
  t.match(
    refusal(
      t,
      () => decodeLines(`${linesHeader(EMPTY)}\n"\ud800"\t\t\t\td\t\n{"count":1}`, CONTEXT),
      'half a character',
    ).message,
    /half a character/,
  )
})

t.test('lines: a header that does not fit is refused by name', async (t) => {
  const why = (t: Test, header: string) => refusal(t, () => decodeLines(`${header}\n{"count":0}`, CONTEXT), header)
  const good = { syncline: 1, resource: 'city', columns: ['a', 'b'], refs: { b: 'r' }, origins: ['o'] }
  const changed = (members: object) => why(t, JSON.stringify({ ...good, ...members })).message
  t.equal(decodeLines(`${JSON.stringify(good)}\n{"count":0}`, CONTEXT).count, 0)
  const newer = why(t, JSON.stringify({ ...good, syncline: 2, more: 1 }))
  t.match(newer, {
    code: 'SYNC_FORMAT_UNSUPPORTED',
    message: /form 2 of application\/vnd.syncline.lines; this site reads form 1/,
  })
  t.match(why(t, '[]').message, /^header \(line 1\): it must be an object/)
  t.match(why(t, '{"syncline":1').message, /^header \(line 1\): .*JSON/)
  t.match(changed({ extra: 1 }), /unknown member "extra"/)
  t.match(changed({ resource: '' }), /resource must be the name of a resource/)
  t.match(changed({ columns: 'a' }), /columns must be a list of names/)
  t.match(changed({ columns: ['a', 7] }), /columns must be a list of names/)
  t.match(changed({ columns: ['a', 'b', 'a'] }), /columns names something twice/)
  t.match(changed({ origins: ['o', 'o'] }), /origins names something twice/)
  t.match(changed({ origins: ['o\n'] }), /an origin holds a control character/)
  t.match(changed({ refs: { c: 'r' } }), /refs names "c", which is not among the columns/)
  t.match(changed({ refs: { b: 7 } }), /refs\["b"\] must be the name of a resource/)
  t.match(changed({ refs: ['b'] }), /refs must be an object/)
})

t.test('lines: limits hold, and hostile lines cost no more than honest ones', async (t) => {
  t.match(
    refusal(t, () => read(`"a"\t17\t0\t\tp\t["${'x'.repeat(1_000_000)}"]`), 'a large record'),
    { code: 'SYNC_RECORD_TOO_LARGE', message: /^record 1 \(line 2\): it has 1000016 bytes/ },
  )
  t.equal(
    refusal(t, () => decodeLines(bodyOf(batchOf(LINE, LINE)), { ...CONTEXT, recordsMax: 1 }), 'two records').code,
    'SYNC_REQUEST_TOO_LARGE',
  )
  const lying = linesBody({ ...batchOf(LINE, '"b"\t\t\t\td\t'), count: 1 }).toString()
  t.equal(
    refusal(t, () => decodeLines(lying, { ...CONTEXT, recordsMax: 1 }), 'two records counted as one').code,
    'SYNC_REQUEST_TOO_LARGE',
  )
  const nested = (levels: number) => `"a"\t17\t0\t\tp\t${'['.repeat(levels)}${']'.repeat(levels)}`
  t.equal(read(nested(64)).count, 1)
  t.match(refusal(t, () => read(nested(65)), '65 levels').message, /^record 1 \(line 2\): nested deeper than 64 levels/)
  t.match(
    refusal(t, () => read(`"a"\t17\t0\t{"0":${'['.repeat(5000)}${']'.repeat(5000)}}\tp\t[]`), 'deep seen').message,
    /nested deeper than 64/,
  )
  t.equal(read(`"a"\t17\t0\t\tp\t["${'[{'.repeat(1000)}"]`).count, 1, 'brackets in a text are no levels')
  const wide = { ...CONTEXT, recordBytesMax: 100_000_000, recordsMax: 1_000_000 }
  for (const line of [
    `"${'\\u0061'.repeat(1_000_000)}`,
    `"${'a'.repeat(6_000_000)}`,
    `"a"\t17\t0\t{${'{'.repeat(6_000_000)}`,
  ]) {
    refusal(t, () => decodeLines(bodyOf(batchOf(line)), wide), line.slice(0, 20))
  }
  const plain = Array.from({ length: 100_000 }, (_, index) => `"${index}"\t17\t0\t\tp\t["x"]`)
  t.equal(decodeLines(bodyOf(batchOf(...plain)), wide).count, 100_000)
})

t.test('lines: a payload that does not fit its columns is refused when it is read', async (t) => {
  const changes = (batch: LineBatch) => refusal(t, () => changesOfLines(batch), batch.text).message
  t.match(changes(batchOf(LINE, '"b"\t\t\t\tp\t[1,2]')), /^record 2 \(line 3\): the payload must be a list of 1 values/)
  t.match(changes(batchOf('"b"\t\t\t\tp\t[1,]')), /^record 1 \(line 2\): .*JSON/)
  t.match(
    changes({ ...batchOf('"b"\t\t\t\tp\t[[1]]'), refs: { name: 'r' } }),
    /the reference in column "name" must be a text/,
  )
  t.strictSame(changesOfLines(EMPTY), [])
})

t.test('lines: I11: fields without a column travel in sets, and a set that does not fit is refused', async (t) => {
  const dot = '\t\t\t\tp\t'
  const batch: LineBatch = {
    resource: 'city',
    columns: ['name'],
    refs: {},
    origins: [],
    sets: [['extra'], ['extra', 'price']],
    text: [`"a"${dot}["A"]`, `"b"${dot}["B","x"]\t0`, `"c"${dot}["C","y","1.50"]\t1`, '"d"\t\t\t\td\t'].join('\n'),
    count: 4,
    next: { checkpoint: 'c', more: false },
    purges: 3,
  }
  const read = decodeLines(linesBody(batch), CONTEXT)
  t.strictSame(read, batch)
  t.strictSame(
    splitSets(read).map(({ columns, text, count, next }) => [columns, text, count, next]),
    [
      [['name'], `"a"${dot}["A"]\n"d"\t\t\t\td\t`, 2, undefined],
      [['name', 'extra'], `"b"${dot}["B","x"]`, 1, undefined],
      [['name', 'extra', 'price'], `"c"${dot}["C","y","1.50"]`, 1, { checkpoint: 'c', more: false }],
    ],
  )
  const refuses = (wrong: Partial<LineBatch>, message: RegExp) =>
    t.throws(() => decodeLines(linesBody({ ...batch, ...wrong }), CONTEXT), { message })
  refuses({ sets: [['extra']] }, /set "1" is not among the 1 sets of the header/)
  refuses({ sets: [['name'], ['price']] }, /names "name", which is among the columns/)
  refuses({ sets: Array.from({ length: 501 }, (_, n) => [`f${n}`]) }, /names 501 sets, at most 500/)
  const { sets: _, ...bare } = batch
  t.throws(() => decodeLines(linesBody(bare), CONTEXT), { message: /a line is id, clock, origin/ })
  const purged = { ...bare, columns: [], purged: true as const, text: '"-12"\t\t\t\td\t', count: 1 }
  t.strictSame(decodeLines(linesBody(purged), CONTEXT), purged)
})

t.test('I8: lines whose writes behind fields cannot be are told apart from the others, which stay', async (t) => {
  const line = (id: string, fields: string, payload = '["x"]') => `"${id}"\t17\t0\t{"fields":${fields}}\tp\t${payload}`
  const good = line('good', '{"name":{"dots":{"0":17}}}')
  const lines = [
    '"plain"\t17\t0\t\tp\t["\\"fields\\""]',
    line('ahead', '{"name":{"dots":{"0":18}}}'),
    good,
    line('stranger', '{"name":{"dots":{"9":1}}}'),
    line('odd', '{"name":7}'),
  ]
  const decoded = decodeLines(bodyOf({ ...EMPTY, text: lines.join('\n'), count: lines.length }), CONTEXT)
  t.match(unsoundLines(decoded), [
    { n: 2, reason: /names a write of "0" that the version has not seen/ },
    { n: 4, reason: /names a write of "9" that the version has not seen/ },
    { n: 5, reason: /must be an object with dots/ },
  ])
  t.same(unsoundLines({ text: good }), [])
  t.same(unsoundLines({ text: '' }), [])
})
