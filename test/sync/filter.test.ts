import assert from 'node:assert/strict'
import { isDeepStrictEqual } from 'node:util'
import fc from 'fast-check'
import t from 'tap'
import {
  evaluate,
  FILTER_LIMITS,
  type FilterColumn,
  type FilterLiteral,
  type FilterRecord,
  type FilterTree,
  filterColumns,
  filterMatcher,
  formatFilter,
  formatOperand,
  type Json,
  parseFilter,
  resolveFilter,
  SynclineError,
} from '../../src/sync/index.ts'

/** The message of the SYNC_FILTER_INVALID that `act` must end in. */
function refusal(act: () => unknown): string {
  try {
    act()
  } catch (error) {
    if (error instanceof SynclineError && error.code === 'SYNC_FILTER_INVALID') return error.message
    throw error
  }
  return 'accepted'
}

const record = (data: Record<string, Json>, refs?: FilterRecord['refs']): FilterRecord => ({
  id: 'r1',
  data,
  ...(refs && { refs }),
})
const matches = (text: string, data: Record<string, Json>) => evaluate(parseFilter(text), record(data))

const name = fc
  .oneof(fc.constantFrom('beds', 'id', 'And', 'Odd "Name', '__proto__', 'größe'), fc.string({ minLength: 1 }))
  .filter((text) => !text.includes('\0'))
const operand = fc.oneof(shape({ name }), shape({ reference: name, name }))
const literal: fc.Arbitrary<FilterLiteral> = fc.oneof(
  shape({ type: fc.constant('string'), value: storableText() }),
  shape({ type: fc.constant('boolean'), value: fc.boolean() }),
  shape({
    type: fc.constant('number'),
    value: fc.stringMatching(/^(-?([1-9][0-9]{0,20}|0\.[0-9]{0,9}[1-9]|[1-9][0-9]{0,9}\.[0-9]{0,9}[1-9])|0)$/),
  }),
)
const term: fc.Arbitrary<FilterTree> = fc.oneof(
  shape({
    kind: fc.constant('compare'),
    operand,
    operator: fc.constantFrom('=', '!=', '<', '<=', '>', '>='),
    value: literal,
  }),
  shape({
    kind: fc.constant('like'),
    operand,
    pattern: storableText().map((text) => text.replace(/\\+$/, '')),
    ignoreCase: fc.boolean(),
    negated: fc.boolean(),
  }),
  shape({ kind: fc.constant('in'), operand, values: atLeastOne(literal), negated: fc.boolean() }),
  shape({ kind: fc.constant('null'), operand, negated: fc.boolean() }),
  shape({ kind: fc.constant('has'), operand, value: literal, negated: fc.boolean() }),
)
const { tree: anyTree } = fc.letrec<{ tree: FilterTree }>((tie) => ({
  tree: fc.oneof(
    { maxDepth: 5 },
    term,
    shape({
      kind: fc.constantFrom('and', 'or'),
      trees: fc
        .tuple(tie('tree'), tie('tree'), fc.array(tie('tree'), { maxLength: 2 }))
        .map(([a, b, more]) => [a, b, ...more] as const),
    }),
    shape({ kind: fc.constant('not'), tree: tie('tree') }),
  ),
}))

/** Objects as programs write them: strict equality minds the prototype. */
function shape<T>(model: { [K in keyof T]: fc.Arbitrary<T[K]> }) {
  return fc.record(model, { noNullPrototype: true })
}

function storableText() {
  return fc.string({ unit: 'grapheme' }).filter((text) => !text.includes('\0'))
}

function atLeastOne<T>(arbitrary: fc.Arbitrary<T>): fc.Arbitrary<readonly [T, ...T[]]> {
  return fc.tuple(arbitrary, fc.array(arbitrary, { maxLength: 4 })).map(([first, rest]) => [first, ...rest] as const)
}

const COUNTRY: readonly FilterColumn[] = [
  { name: 'uuid', type: 'uuid' },
  { name: 'code', type: 'bpchar' },
  { name: 'name', type: 'text' },
]
const HOSPITAL: readonly FilterColumn[] = [
  { name: 'uuid', type: 'uuid' },
  { name: 'beds', type: 'int4' },
  { name: 'area', type: 'numeric' },
  { name: 'rate', type: 'float4' },
  { name: 'open', type: 'bool' },
  { name: 'name', type: 'text' },
  { name: 'opened', type: 'date' },
  { name: 'changed_at', type: 'timestamptz' },
  { name: 'mood', type: 'mood' },
  { name: 'tags', type: '_text' },
  { name: 'extra', type: 'jsonb' },
  {
    name: 'country_id',
    type: 'int4',
    ref: {
      resource: 'country',
      table: { schema: 'public', name: 'country' },
      keyColumn: 'uuid',
      targetColumn: 'id',
      columns: COUNTRY,
    },
  },
]
const resolve = (text: string) => resolveFilter(parseFilter(text), HOSPITAL, 'uuid')

t.test('the text of a filter', async (t) => {
  t.test('is read into a tree with the precedence of SQL', async (t) => {
    t.strictSame(parseFilter(`beds >= 10 and country.code in ('HT','DO') and not (name like 'X%')`), {
      kind: 'and',
      trees: [
        { kind: 'compare', operand: { name: 'beds' }, operator: '>=', value: { type: 'number', value: '10' } },
        {
          kind: 'in',
          operand: { reference: 'country', name: 'code' },
          values: [
            { type: 'string', value: 'HT' },
            { type: 'string', value: 'DO' },
          ],
          negated: false,
        },
        {
          kind: 'not',
          tree: { kind: 'like', operand: { name: 'name' }, pattern: 'X%', ignoreCase: false, negated: false },
        },
      ],
    })
    t.equal(formatFilter(parseFilter('not a=1 or b=2 and c=3')), 'not (a = 1) or b = 2 and c = 3')
    t.equal(formatFilter(parseFilter('not (a=1 or b=2) and c=3')), 'not (a = 1 or b = 2) and c = 3')
    t.equal(formatFilter(parseFilter('a=1 or b=2 and (c=3 or d=4)')), 'a = 1 or b = 2 and (c = 3 or d = 4)')
  })

  t.test('has one canonical form for what differs in writing only', async (t) => {
    const canonical = (text: string) => formatFilter(parseFilter(text))
    t.equal(canonical('\n ((BEDS<>+010.50)) AND\t"beds"Is Not NULL '), 'BEDS != 10.5 and beds is not null')
    t.equal(
      canonical(`"Odd ""Name" Not In ('it''s', -0, 1E3, 25e-4,TRUE)`),
      `"Odd ""Name" not in ('it''s', 0, 1000, 0.0025, true)`,
    )
    t.equal(canonical(`"and" = 1 or "IN" = 2 or "Land" = 3`), `"and" = 1 or "IN" = 2 or Land = 3`)
    t.equal(canonical(`name NOT ILIKE 'x%' or name not like ''`), `name not ilike 'x%' or name not like ''`)
    t.equal(canonical('größe = 1 and "1st" = 2 and "a.b"."c d" = 3'), 'größe = 1 and "1st" = 2 and "a.b"."c d" = 3')
    t.equal(canonical('a."id"=\'x\'and b=.5 and(c=5.)and d = -.0'), "a.id = 'x' and b = 0.5 and c = 5 and d = 0")
  })

  t.test('is the same tree again after it was formatted', async (t) => {
    const seen = new Set<string>()
    fc.assert(
      fc.property(anyTree, (tree) => {
        const text = formatFilter(tree)
        fc.pre(text.length <= FILTER_LIMITS.characters)
        seen.add(tree.kind)
        const again = parseFilter(text)
        return isDeepStrictEqual(again, tree) && formatFilter(again) === text
      }),
      { numRuns: 1000 },
    )
    t.strictSame([...seen].sort(), ['and', 'compare', 'has', 'in', 'like', 'not', 'null', 'or'])
  })

  t.test('is refused or understood, never anything else, whatever it is', async (t) => {
    const piece = fc.constantFrom(
      ...[
        "'",
        '"',
        '(',
        ')',
        ',',
        '.',
        '=',
        '<',
        '!',
        '-',
        '%',
        '\\',
        '1',
        '1e9',
        "'x'",
        'beds',
        'é',
        '‘',
        '\ud83d',
        '\n',
        ';',
      ],
      ...[
        'and',
        'or',
        'not',
        'in',
        'is',
        'null',
        'like',
        'true',
        'a = 1',
        "b like 'x'",
        'c in (1, 2)',
        'd is null',
        'between',
      ],
    )
    const anyText = fc
      .tuple(fc.array(piece, { maxLength: 20 }), fc.constantFrom('', ' '))
      .map(([pieces, between]) => pieces.join(between))
    const test = fc.constantFrom('a = 1', "b like 'x'", 'c in (1, 2)', 'd is null', 'not open = true', '(a = 1)')
    const likelyText = fc
      .tuple(fc.array(test, { minLength: 1, maxLength: 5 }), fc.constantFrom(' and ', ' or ', ' '))
      .map(([tests, between]) => tests.join(between))
    let understood = 0
    fc.assert(
      fc.property(fc.oneof(anyText, likelyText), (text) => {
        const message = refusal(() => {
          const tree = parseFilter(text)
          understood++
          return assert.deepStrictEqual(parseFilter(formatFilter(tree)), tree)
        })
        assert.match(message, /^(accepted|At character \d+: .+\.)$/s)
      }),
      { numRuns: 2000 },
    )
    t.ok(understood > 400, `${understood} of them were understood`)
  })

  t.test('that cannot be understood is refused with the place and what was expected', async (t) => {
    const cases: readonly (readonly [string, string])[] = [
      ['', 'At character 1: expected a column, found the end of the filter.'],
      [
        'beds',
        'At character 5: expected =, !=, <, <=, >, >=, like, ilike, in, has, not or is, found the end of the filter;',
      ],
      [
        'beds = null',
        'At character 8: expected text in single quotes, a number, true or false, found null; null compares with nothing, write is null.',
      ],
      ['beds <> NULL', 'null compares with nothing, write is not null.'],
      ['beds < null', 'null compares with nothing, write is null or is not null.'],
      ['beds not in (1, null)', 'null compares with nothing, write (column in (…) or column is null).'],
      ['beds in ()', 'At character 10: expected text in single quotes, a number, true or false, found ).'],
      ['beds in 3', 'At character 9: expected an opening parenthesis and a list of values, found 3.'],
      ['beds == 3', 'At character 6: write a single = here.'],
      ['a = 1 && b = 2', 'At character 7: write and here.'],
      ['a = 1 || b = 2', 'At character 7: write or here.'],
      ['!a = 1', 'At character 1: write != or not here.'],
      [
        'code = HT',
        "At character 8: expected text in single quotes, a number, true or false, found HT; if it is text, write 'HT'.",
      ],
      ['code = "HT"', 'double quotes are for column names, text has single quotes.'],
      [
        "code = 'HT",
        "At character 8: the text that begins here has no closing quote; a quote inside it is written ''.",
      ],
      ['"code = 1', 'At character 1: the column name that begins here has no closing double quote;'],
      ['code = ‘HT’', 'At character 8: write straight quotes: \'text\', "Column Name".'],
      ['a between 1 and 2', 'instead of between write column >= low and column <= high.'],
      ['a.b.c = 1', 'At character 4: a filter can follow one reference only, so a column has one dot at most.'],
      ['10 <= a', 'At character 1: expected a column, found 10.'],
      ["'a' = 1", 'a column is written first, bare or in double quotes.'],
      ['in = 3', 'At character 1: expected a column, found in; a column of that name is written "in".'],
      ['"" = 1', 'At character 1: a column name cannot be empty.'],
      ['a = 10and b = 1', 'At character 7: expected a space after the number;'],
      ['a = 1 2', 'At character 7: expected and, or, or the end of the filter, found 2.'],
      ['(a = 1', 'At character 7: expected and, or, or a closing parenthesis, found the end of the filter.'],
      ['a = 1)', 'At character 6: expected and, or, or the end of the filter, found ).'],
      ["a like 'x\\'", 'At character 8: the pattern ends in a backslash;'],
      ['a like 5', 'At character 8: expected a pattern in single quotes, found 5.'],
      ['a not 5', 'At character 7: expected like, ilike, in or has, found 5.'],
      ['a is 5', 'At character 6: expected null or not null, found 5.'],
      ['a is not 5', 'At character 10: expected null, found 5.'],
      ['a = 1e401', 'At character 5: the exponent of a number can be 400 at most.'],
      ["a = 'x\0'", 'At character 5: the text holds a character that no database can store.'],
      ["a = '\ud83d'", 'At character 5: the text holds a character that no database can store.'],
      ["a = '😀' x", 'At character 9: expected and, or, or the end of the filter, found x.'],
      ['a = 1; drop table x', 'At character 6: ; has no meaning in a filter;'],
    ]
    for (const [text, expected] of cases) {
      const message = refusal(() => parseFilter(text))
      t.ok(message.includes(expected), `${text} → ${message}`)
    }
  })

  t.test('is bounded in characters, levels, terms and values', async (t) => {
    const nested = (levels: number) => `${'('.repeat(levels)}a = 1${')'.repeat(levels)}`
    const negated = (levels: number) => `${'not ('.repeat(levels)}a = 1${')'.repeat(levels)}`
    const terms = (count: number) => Array(count).fill('a = 1').join(' or ')
    const values = (count: number) => `a in (${Array(count - 10).fill('1')}) or a in (${Array(10).fill('1')})`
    for (const text of [nested(32), negated(32), `${'not '.repeat(32)}a = 1`, terms(200), 'a = 1'.padEnd(4000)]) {
      t.equal(
        refusal(() => parseFilter(text)),
        'accepted',
        text.slice(0, 40),
      )
    }
    const refused: readonly (readonly [string, RegExp])[] = [
      [nested(33), /^At character 33: parentheses and not are nested more than 32 levels deep\.$/],
      [negated(33), /nested more than 32 levels/],
      [`${'not '.repeat(33)}a = 1`, /nested more than 32 levels/],
      [terms(201), /^At character 1801: the filter has more than 200 terms\.$/],
      [values(1001), /the filter has more than 1,000 values\.$/],
      ['a = 1'.padEnd(4001), /^The filter has 4001 characters; 4,000 are allowed\.$/],
      ['('.repeat(4000), /nested more than 32 levels/],
      // Each number would be 301 characters long in the canonical text, which must be readable too.
      [`a in (${Array(20).fill('1e300')})`, /^The filter has \d{4} characters; 4,000 are allowed\.$/],
    ]
    for (const [text, expected] of refused)
      t.match(
        refusal(() => parseFilter(text)),
        expected,
      )
    t.equal(
      refusal(() => parseFilter(values(1000))),
      'accepted',
    )
  })

  t.test('names the columns it uses, each once', async (t) => {
    const used = filterColumns(
      parseFilter(`beds > 1 and (country.code = 'HT' or "beds" < 5 or country.id is null) and not "X" in (1)`),
    )
    t.strictSame(used.map(formatOperand), ['beds', 'country.code', 'country.id', 'X'])
  })
})

t.test('a filter on the columns of a resource', async (t) => {
  t.test('finds columns, references with or without _id, and the record id', async (t) => {
    const found = resolve(
      `beds > 1 and country.code = 'HT' and country_id.name like 'H%' and id is not null and country.id is null and country_id is null`,
    )
    t.strictSame(
      [...found].map(([text, { column, kind, type, identity, via }]) => [
        text,
        column.name,
        kind,
        type,
        identity,
        via?.name,
      ]),
      [
        ['beds', 'beds', 'integer', 'int4', false, undefined],
        ['country.code', 'code', 'padded', 'bpchar', false, 'country_id'],
        ['country_id.name', 'name', 'text', 'text', false, 'country_id'],
        ['id', 'uuid', 'uuid', 'uuid', true, undefined],
        ['country.id', 'uuid', 'uuid', 'uuid', true, 'country_id'],
        ['country_id', 'country_id', 'uuid', 'uuid', false, undefined],
      ],
    )
    const own = resolveFilter(parseFilter('id = 5'), [{ name: 'id', type: 'int4' }], 'uuid').get('id')
    t.strictSame([own?.column.name, own?.identity], ['id', false], 'a column named id goes before the record id')
  })

  t.test('is refused with every unknown column and those near it', async (t) => {
    const faults: readonly (readonly [string, string])[] = [
      ['bets = 1', 'There is no column bets; near it: beds.'],
      ['BEDS = 1', 'There is no column BEDS; near it: beds.'],
      [
        'zzz = 1',
        'There is no column zzz; there are uuid, beds, area, rate, open, name, opened, changed_at, mood, tags, and 3 more.',
      ],
      ["contry.code = 'HT'", 'There is no reference column contry for contry.code; near it: country_id.'],
      ["name.code = 'HT'", 'Column name of name.code refers to no resource; there are country_id.'],
      ["country.cod = 'HT'", 'Resource country has no column cod for country.cod; near it: code.'],
      ['bets = 1 or zzz = 2 or bets = 3', 'There is no column bets; near it: beds. There is no column zzz;'],
    ]
    for (const [text, expected] of faults) {
      const message = refusal(() => resolve(text))
      t.ok(message.includes(expected), `${text} → ${message}`)
    }
    t.match(
      refusal(() => resolveFilter(parseFilter('id = 1'), HOSPITAL)),
      /There is no column id/,
    )
    t.match(
      refusal(() => resolveFilter(parseFilter('a.b = 1'), [{ name: 'b', type: 'int4' }])),
      /There is no reference column a for a\.b; there is none/,
    )
  })

  t.test('is refused where a constant cannot be a value of the column', async (t) => {
    const refused: readonly (readonly [string, string])[] = [
      ["beds = 'many'", "Column beds has type int4, which 'many' is no value of: write a number."],
      ['beds in (1, true)', 'Column beds has type int4, which true is no value of: write a number.'],
      ['open = 1', 'write true or false, without quotes.'],
      ["open = 'true'", 'write true or false, without quotes.'],
      ['name = 5', "write it in single quotes: '5'."],
      ['name = true', "write it in single quotes: 'true'."],
      ["beds like '1%'", 'Column beds has type int4: like is for text.'],
      ["opened like '2024%'", 'like is for text.'],
      ['rate = 1e39', 'it is out of the range of float4.'],
      ["opened = '2024-02-30'", "write it like '2024-12-31'."],
      ["opened = '2024-02-03T10:00'", "write it like '2024-12-31'."],
      ["changed_at > 'yesterday'", "write it like '2024-12-31T23:59:59.5Z'"],
      ["changed_at > '0000-01-01'", "write it like '2024-12-31T23:59:59.5Z'"],
      ['changed_at > 2024', "write it in single quotes: '2024'."],
      ["mood > 'sad'", 'Syncline knows no order of it, so it can be tested with =, !=, in, like and is null.'],
      ["tags = 'x'", 'it can only be tested with has, is null and is not null.'],
      ["name has 'x'", 'has looks into lists of texts, whole numbers and UUIDs, and into JSON.'],
      ['tags has 5', "write it in single quotes: '5'."],
      ["extra in ('x')", 'it can only be tested with is null and is not null.'],
      ["id = 'r1'", "Column id has type uuid, which 'r1' is no value of: write a whole UUID."],
      ["country = 'x'", 'There is no column country; near it: country_id.'],
      [`name = 5 or opened = '${'9'.repeat(100)}'`, '…'],
    ]
    for (const [text, expected] of refused) {
      const message = refusal(() => resolve(text))
      t.ok(message.includes(expected) && message.endsWith('.'), `${text} → ${message}`)
    }
    for (const text of [
      "beds = '10' or beds = 10.5 or beds = 99999999999999999999",
      "opened >= '2024-02-29' or changed_at < '2024-02-29 10:00:00.123456+05:30' or changed_at = 'infinity'",
      "mood in ('sad') or mood like 's%' or tags is null or extra is not null",
      "id = '{00000000-0000-4000-8000-00000000000A}' or country_id like '0%'",
    ]) {
      t.equal(
        refusal(() => resolve(text)),
        'accepted',
        text,
      )
    }
  })
})

t.test('evaluating a filter without metadata', async (t) => {
  t.test('compares numbers as numbers, also when they are decimal strings', async (t) => {
    t.ok(matches('n = 10', { n: 10 }))
    t.ok(matches('n = 10', { n: '10.0' }))
    t.ok(matches('n > 9', { n: '10' }))
    t.ok(matches('n > 12345678901234567890.1', { n: '12345678901234567890.11' }))
    t.ok(matches('n < -5', { n: '-5.0001' }))
    t.ok(matches('n in (1, 2.50)', { n: '2.5' }))
    t.ok(matches("n = '10'", { n: 10 }), 'a text that is a number may stand for it')
    t.notOk(matches("n = '10'", { n: '10.0' }), 'text is compared as text')
    t.notOk(matches('n = 10', { n: 'ten' }))
    t.notOk(matches('n != 10', { n: 'ten' }), 'what is no number is unknown')
    t.notOk(matches('n != 10', { n: true }))
    t.notOk(matches("n != 'x'", { n: 10 }))
  })

  t.test('compares text by code point', async (t) => {
    t.ok(matches("s > 'Z'", { s: 'a' }))
    t.ok(matches("s > '\uffee'", { s: '😀' }), 'UTF-16 units would say otherwise')
    t.notOk(matches("s < '\uffee'", { s: '😀' }))
    t.ok(matches("s < '\u00e9'", { s: 'e\u0301' }), 'a letter and its accent are two characters')
    t.ok(matches("s > 'ab'", { s: 'abc' }))
    t.ok(matches("s = ''", { s: '' }))
  })

  t.test('matches patterns by code point, with case unless it is ilike', async (t) => {
    t.ok(matches("s like '_%x'", { s: '😀abcx' }))
    t.notOk(matches("s like '__'", { s: '😀' }))
    t.ok(matches("s like '100\\%'", { s: '100%' }))
    t.notOk(matches("s like '100\\%'", { s: '1000' }))
    t.ok(matches("s like 'a\\\\%'", { s: 'a\\b' }))
    t.ok(matches("s like '%a%b%'", { s: 'xxaxbaxbx' }))
    t.ok(matches("s like '%ab'", { s: 'aab' }))
    t.notOk(matches("s like 'A%'", { s: 'abc' }))
    t.ok(matches("s ilike 'A%C'", { s: 'abc' }))
    t.notOk(matches("s ilike 'É'", { s: 'é' }), 'only A to Z are folded')
    t.ok(matches("s not like 'x%'", { s: 'abc' }))
    t.ok(matches("s like ''", { s: '' }))
    t.notOk(matches("s like ''", { s: 'a' }))
    t.notOk(matches("s like '%a_'", { s: `${'a'.repeat(100_000)}bc` }), 'and takes no longer for a hostile value')
  })

  t.test('knows three truths', async (t) => {
    t.notOk(matches('n = 1', { n: null }))
    t.notOk(matches('not n = 1', { n: null }))
    t.notOk(matches('n != 1', { n: null }))
    t.notOk(matches('n not in (1, 2)', { n: null }))
    t.notOk(matches("not (n like 'x')", { n: null }))
    t.ok(matches('n = 1 or m = 1', { n: null, m: 1 }))
    t.notOk(matches('n = 1 and m = 1', { n: null, m: 1 }))
    t.ok(matches('not (n = 1 and m = 1)', { n: null, m: 2 }))
    t.notOk(matches('not (n = 1 or m = 1)', { n: null, m: 2 }))
    t.ok(matches('n is null', { n: null }))
    t.notOk(matches('n is null', { n: 0 }))
    t.ok(matches('n is not null', { n: '' }))
    t.ok(matches('b = true and b > false', { b: true }))
    t.notOk(matches("n not in (1, 'x')", { n: 2 }), 'a value that one constant cannot be compared with is unknown')
  })

  t.test('takes a column that was not sent as unknown, even for is null', async (t) => {
    for (const text of [
      'n is null',
      'n is not null',
      'not n is null',
      'constructor is null',
      '"__proto__" is not null',
    ]) {
      t.notOk(matches(text, {}), text)
    }
    t.ok(matches("id = 'r1' and id != 'r2'", {}), 'the id is always there')
    t.ok(matches("id = 'x'", { id: 'x' }))
    t.notOk(matches("id = 'r1'", { id: null }))
  })

  t.test('follows one reference', async (t) => {
    const haiti: FilterRecord = { id: 'c1', data: { code: 'HT', region: null } }
    const tree = parseFilter("country.code = 'HT'")
    const lookup = (column: string, id: string) => (column === 'country_id' && id === 'c1' ? haiti : null)
    const byRef = record({}, { country_id: { resource: 'country', id: 'c1' } })
    t.ok(evaluate(tree, byRef, lookup))
    t.ok(evaluate(tree, record({ country_id: 'c1' }), lookup))
    t.ok(evaluate(parseFilter("country_id = 'c1' and country.id = 'c1' and country.region is null"), byRef, lookup))
    t.notOk(
      evaluate(parseFilter("not (country.code = 'HT')"), record({ country_id: 'c2' }), lookup),
      'a target that is not there is null',
    )
    t.ok(
      evaluate(parseFilter('country.code is null'), record({}, { country_id: null }), lookup),
      'and so is what a null leads to',
    )
    t.notOk(evaluate(parseFilter('country.code is null'), byRef), 'without a look-up it is unknown')
    t.notOk(evaluate(parseFilter('country.code is null'), byRef, () => undefined))
    t.notOk(evaluate(parseFilter('country.code is null'), record({}), lookup), 'and when the reference was not sent')
  })
})

t.test('evaluating a filter with metadata', async (t) => {
  const typed = (text: string, data: Record<string, Json>, id = '00000000-0000-4000-8000-00000000000a') =>
    evaluate(parseFilter(text), { id, data }, undefined, resolve(text))

  t.test('compares values as their types do, in whatever form they arrive', async (t) => {
    t.ok(typed("changed_at = '2024-01-01T10:00Z'", { changed_at: '2024-01-01T12:00:00.000000+02:00' }))
    t.ok(typed("changed_at = '2024-01-01 12:00+02'", { changed_at: '2024-01-01 10:00:00+00' }))
    t.ok(typed("changed_at > '2024-01-01'", { changed_at: '2024-01-01T00:00:00.000001+00:00' }))
    t.ok(typed("changed_at < '2024-01-01'", { changed_at: '0044-03-15T00:00:00+00:00 BC' }))
    t.ok(typed("changed_at < '0001-01-01'", { changed_at: '0001-02-29 00:00:00+00 BC' }), '1 BC was a leap year')
    t.ok(typed("changed_at = 'infinity' and changed_at > '9999-12-31'", { changed_at: 'infinity' }))
    t.ok(
      typed("changed_at = '2016-12-31T23:59:59.9Z' or changed_at = '2017-01-01'", {
        changed_at: '2016-12-31T23:59:60Z',
      }),
    )
    t.notOk(typed("changed_at != '2024-01-01'", { changed_at: 'soon' }), 'what is no value of the type is unknown')
    t.ok(typed("opened = '2024-02-29'", { opened: '2024-02-29T10:00:00' }))
    t.ok(typed('open = true', { open: 't' }))
    t.ok(typed('open = false', { open: 'no' }))
    t.ok(typed('area = 1.10', { area: '1.1' }))
    t.ok(typed('area > 1e300', { area: 'NaN' }) && typed('area > 1e300', { area: 'Infinity' }))
    t.ok(typed('area < -1e300', { area: '-Infinity' }))
    t.ok(typed('rate = 0.1', { rate: 0.1 }) && typed('rate = 0.1', { rate: '0.10000000149011612' }), 'as a float4')
    t.ok(typed("mood = 'sad' and mood like 's_d'", { mood: 'sad' }))
    t.ok(typed("uuid = '00000000-0000-4000-8000-00000000000A' and id like '%a'", {}), 'the identity is the record id')
    t.ok(
      typed("country_id = '00000000-0000-4000-8000-00000000000A'", {
        country_id: '{00000000-0000-4000-8000-00000000000a}',
      }),
    )
    t.ok(typed('beds < 10.5 and beds in (10, 11)', { beds: '10' }))
    t.ok(typed('beds < 99999999999999999999', { beds: 10 }))
    t.notOk(typed('beds != 10', { beds: '1e9999999' }), 'a number too long to be one is unknown')
  })

  t.test('overlooks trailing spaces of padded text only', async (t) => {
    const text =
      "country.code = 'HT  ' and country.code in ('HT') and country.code like 'HT' and country.name = 'Haiti '"
    const matcher = filterMatcher(parseFilter(text), resolve(text))
    const country = (name: string) => ({ id: 'c', data: { code: 'HT ', name } })
    t.ok(matcher(record({ country_id: 'c' }), () => country('Haiti ')))
    t.notOk(matcher(record({ country_id: 'c' }), () => country('Haiti')))
  })

  t.test('refuses columns of another filter, which is a mistake of the caller', async (t) => {
    t.throws(
      () => evaluate(parseFilter('beds = 1'), record({}), undefined, resolve('area = 1')),
      /beds of the filter was not resolved/,
    )
    t.throws(() => evaluate(parseFilter("beds = 'x'"), record({}), undefined, resolve('beds = 1')), /not resolved with/)
  })
})

t.test('numbers are ordered exactly, whatever their length', async (t) => {
  const decimal = fc.tuple(fc.bigInt({ min: -(10n ** 25n), max: 10n ** 25n }), fc.integer({ min: 0, max: 12 }))
  const write = ([digits, scale]: [bigint, number], exponent: number) => `${digits}e${exponent - scale}`
  fc.assert(
    fc.property(decimal, decimal, fc.integer({ min: -300, max: 300 }), (a, b, exponent) => {
      const order = a[0] * 10n ** BigInt(12 - a[1]) - b[0] * 10n ** BigInt(12 - b[1])
      const expected = order < 0n ? '<' : order > 0n ? '>' : '='
      for (const operator of ['<', '>', '=']) {
        const found = matches(`n ${operator} ${write(b, exponent)}`, { n: write(a, exponent) })
        assert.equal(found, operator === expected, `${write(a, exponent)} ${operator} ${write(b, exponent)}`)
      }
    }),
    { numRuns: 500 },
  )
  t.ok(matches('n = -0', { n: '-0.0e5' }) && matches('n >= 0', { n: -0 }), 'there is no minus zero')
})
