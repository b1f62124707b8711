/** Situations of values: what two sites must hold alike to the last digit and character. */
import type { Scenario } from '../contest.ts'
import { ITEM, id } from './tables.ts'

export const nulls: Scenario = {
  name: 'NULL against empty text and JSON null',
  group: 'situation',
  about: 'NULL, the empty text, JSON null, empty lists and objects stay what they are, and become one another',
  shape: {
    ddl: 'create table item (id uuid primary key, name text, doc jsonb, raw json, list text[])',
    tables: ['item'],
    sites: 2,
    needs: ['sql'],
  },
  act: async (contest) => {
    const { a, b } = contest
    const rows = [
      { name: null, doc: null, raw: null, list: null },
      { name: '', doc: 'null', raw: 'null', list: '{}' },
      { name: 'null', doc: '""', raw: '""', list: '{NULL}' },
      { name: 'NULL', doc: '[]', raw: '[ ]', list: '{""}' },
      { name: '\\N', doc: '{}', raw: '{ "a" : null, "a" : 1 }', list: '{"NULL",NULL}' },
      { name: ' ', doc: '[null]', raw: '[null]', list: '{{a,b},{c,d}}' },
    ]
    for (const [n, row] of rows.entries()) await contest.put(n % 2 ? a : b, 'item', id(n), row)
    await contest.settle()
    for (const [n, row] of rows.entries()) await contest.put(n % 2 ? b : a, 'item', id((n + 1) % rows.length), row)
  },
}

/** The same in PostgreSQL and in a database of documents: no NUL, which PostgreSQL has not, and no lone surrogates, which are no text. */
const TEXTS = [
  Array.from({ length: 31 }, (_, n) => String.fromCharCode(n + 1)).join(''),
  Array.from({ length: 33 }, (_, n) => String.fromCharCode(n + 127)).join(''),
  '\r\n \n \r \t \u2028 \u2029 \u0085 \u000b \u000c',
  'é and e\u0301, Å and A\u030a and \u212b, ﬁ and fi',
  '\ufeffmark at the front, \ufffe \uffff \u{1fffe} \u{10ffff} \ufffd',
  '👩‍👩‍👧‍👦 🏴󠁧󠁢󠁥󠁮󠁧󠁿 🇦🇹 👍🏽',
  'עברית ‏ العربية \u202e backwards \u202c हिन्दी ไทย 中文 한국어 𝔘𝔫𝔦 𐍈 ܀',
  `quotes ' " \` \\ \\\\ \\' $$ $1 :name ?1 %s {} <b> &amp; ]]> <!-- ; -- /* */`,
  '\\. \\N \\t \\x41 \\u0041 \\\\n',
  'Iıİi ſs ßSS ΣσςσΣ Ǆǅǆ',
  `${'x'.repeat(1_999)}é`,
  '   spaces at both ends   ',
]

export const unicode: Scenario = {
  name: 'every kind of Unicode and control characters',
  group: 'situation',
  about:
    'control characters, both normal forms, marks, noncharacters, right-to-left, quotes and escapes, as values and as keys',
  shape: { ...ITEM, ddl: 'create table item (id text primary key, name text, note text)' },
  act: async (contest) => {
    const { a, b } = contest
    for (const [n, text] of TEXTS.entries()) await contest.put(n % 2 ? a : b, 'item', `t${n}`, { name: text, note: '' })
    const keys = [
      'é',
      'e\u0301',
      'a/b',
      'a b',
      '%41',
      'A',
      `'`,
      '"',
      '👍🏽',
      '\u2028',
      '..',
      '?x=1&y#z',
      'ключ',
      '-',
      '\\',
      'tab\there',
    ]
    for (const [n, key] of keys.entries())
      await contest.put(n % 2 ? b : a, 'item', key, { name: key, note: `key ${n}` })
    await contest.settle()
    for (const [n, key] of keys.entries()) {
      if (n % 3 === 0) await contest.remove(b, 'item', key)
      else await contest.put(n % 2 ? a : b, 'item', key, { note: TEXTS[n % TEXTS.length] ?? '' })
    }
  },
}

export const numbers: Scenario = {
  name: 'numeric precision and float extremes',
  group: 'situation',
  about:
    'digits beyond any float, NaN and infinities, the smallest and the largest, and zeros that are equal but not the same',
  shape: {
    ddl: `create table item (id uuid primary key, exact numeric, scaled numeric(38,10), big int8, small int2, double float8, single float4,
      money numeric(12,2), list float8[], doc jsonb)`,
    tables: ['item'],
    sites: 2,
    needs: ['sql'],
  },
  act: async (contest) => {
    const { a, b } = contest
    const digits = '1234567890'.repeat(10)
    const rows = [
      {
        exact: `${digits}.${digits}`,
        big: '9223372036854775807',
        small: 32767,
        double: '1.7976931348623157e308',
        single: '3.4028235e38',
      },
      {
        exact: `-0.${'0'.repeat(300)}1`,
        big: '-9223372036854775808',
        small: -32768,
        double: '5e-324',
        single: '1e-45',
      },
      { exact: 'NaN', big: '9007199254740993', double: 'NaN', single: 'NaN', list: '{NaN,Infinity,-0}' },
      {
        exact: '1e1000',
        double: 'Infinity',
        single: '-Infinity',
        doc: '{"n": 12345678901234567890.12345678901234567890}',
      },
      { exact: '1.00', scaled: '1', money: '0.10', double: '-0', single: '-0', doc: '[1.0, 1, 1e2, -0, 0.10]' },
      {
        exact: '0.000',
        scaled: '-0.0000000001',
        money: '9999999999.99',
        double: '0.30000000000000004',
        single: '0.1',
        list: '{0.1,NULL}',
      },
    ]
    for (const [n, row] of rows.entries()) await contest.put(n % 2 ? a : b, 'item', id(n), row)
    await contest.settle()
    // Equal for the database, and still not the same.
    await contest.put(b, 'item', id(4), { exact: '1.0', double: '0' })
    await contest.put(a, 'item', id(5), { exact: '0', list: '{-0}' })
  },
}

export const times: Scenario = {
  name: 'timestamps at the edges',
  group: 'situation',
  about: 'infinity, years before Christ and after 200,000, microseconds, midnight at both ends, zones and intervals',
  shape: {
    ddl: `create table item (id uuid primary key, at timestamptz, wall timestamp, day date, clock time, zoned timetz, span interval,
      period tstzrange, days daterange)`,
    tables: ['item'],
    sites: 2,
    needs: ['sql'],
  },
  act: async (contest) => {
    const { a, b } = contest
    const rows = [
      {
        at: 'infinity',
        wall: '-infinity',
        day: 'infinity',
        clock: '24:00:00',
        zoned: '24:00:00+14',
        span: '-178000000 years',
      },
      {
        at: '4714-11-24 00:00:00+00 BC',
        wall: '4714-11-24 00:00:00 BC',
        day: '4714-11-24 BC',
        clock: '00:00',
        zoned: '00:00-12:34:56',
      },
      {
        at: '294276-12-31 23:59:59.999999+00',
        wall: '294276-12-31 23:59:59.999999',
        day: '5874897-12-31',
        span: '178000000 years',
      },
      {
        at: '2026-03-29 01:59:59.999999+00',
        wall: '2026-03-29 02:30:00.000001',
        day: '2024-02-29',
        clock: '23:59:59.999999',
        span: '1 mon -1 day 00:00:00.000001',
      },
      {
        at: '0001-01-01 00:00:00+00',
        wall: '0001-12-31 23:59:60 BC',
        day: '0001-01-01 BC',
        period: '[-infinity,infinity]',
        days: 'empty',
      },
      {
        at: '1883-11-18 12:03:58-04:56:02',
        day: '1582-10-10',
        period: '(2026-01-01,)',
        days: '[2026-01-01,2026-01-02]',
        span: '0',
      },
    ]
    for (const [n, row] of rows.entries()) await contest.put(n % 2 ? a : b, 'item', id(n), row)
    await contest.settle()
    await contest.put(b, 'item', id(0), { at: '-infinity', day: '-infinity' })
    await contest.put(a, 'item', id(3), { at: '2026-03-29 01:59:59.999998+00' })
  },
}
