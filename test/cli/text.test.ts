import { setTimeout as sleep } from 'node:timers/promises'
import { stripVTControlCharacters } from 'node:util'
import fc from 'fast-check'
import t from 'tap'
import { createOutput, writeFailure } from '../../src/cli/output.ts'
import {
  ago,
  bytes,
  cell,
  count,
  duration,
  durationSeconds,
  fields,
  plain,
  time,
  until,
  valueText,
} from '../../src/cli/text.ts'
import { type Kind, sink } from './terminal.ts'

const NOW = Date.parse('2026-11-22T12:00:00Z')
const before = (ms: number) => new Date(NOW - ms).toISOString()
const SECOND = 1000
const HOUR = 3600 * SECOND

function output(json: boolean, kind: Kind = {}) {
  const [stdout, stderr] = [sink(kind), sink(kind)]
  return { out: createOutput({ stdin: process.stdin, stdout, stderr }, json), stdout, stderr }
}

t.test('values of records that differ never look alike', async (t) => {
  const odd = [undefined, null, { $json: null }, '', '-', 'null', 'JSON null', '""', 'a']
  const values = [...odd, 0, false, {}, [], { $json: { $json: null } }]
  const shown = values.map(valueText)
  t.same(shown.slice(0, 9), ['-', 'null', 'JSON null', '""', '"-"', '"null"', '"JSON null"', '"\\"\\""', 'a'])
  t.equal(new Set(shown).size, values.length)
  t.equal(valueText('a\u001b[31m'), 'a\\u{1b}[31m')
})

t.test('a duration is read in any mix of units, and nothing else is', async (t) => {
  t.equal(durationSeconds('90s'), 90)
  t.equal(durationSeconds('1h30m'), 5400)
  t.equal(durationSeconds('2w'), 1_209_600)
  for (const wrong of ['', '5', 'm', '5 m', '-5m', '0s', '1.5h', '5m!', '1y'])
    t.equal(durationSeconds(wrong), undefined, `"${wrong}"`)
})

t.test('a duration is shown in its two largest units', async (t) => {
  const shown = [0, 999, 1500, 12_345, 59_999, 60_000, 90_061 * SECOND, 48 * HOUR].map(duration)
  t.same(shown, ['0 ms', '999 ms', '1.5 s', '12 s', '1 min', '1 min', '1 d 1 h', '2 d'])
})

t.test('times are shown from now, and a clock that is ahead makes no future', async (t) => {
  t.equal(ago(null, NOW), 'never')
  t.equal(ago(before(-5 * SECOND), NOW), 'just now')
  t.equal(ago(before(1500), NOW), '1 s ago')
  t.equal(ago(before(59_900), NOW), '59 s ago')
  t.equal(ago(before(61 * SECOND), NOW), '1 min ago')
  t.equal(ago(before(50 * HOUR), NOW), '2 d ago')
  t.equal(ago('yesterday', NOW), 'yesterday')
  t.equal(until(before(1), NOW), 'now')
  t.equal(until(before(-300 * SECOND), NOW), 'in 5 min')
  t.equal(until(null, NOW), '-')
  t.match(time('2026-11-22T12:00:07Z'), /^2026-11-2\d \d\d:\d\d:07$/)
})

t.test('numbers are shown in groups and units', async (t) => {
  t.same([0, 999, 1000, 1_234_567].map(count), ['0', '999', '1,000', '1,234,567'])
  t.same([0, 1023, 1024, 1_500_000, 5 * 1024 ** 4].map(bytes), ['0 B', '1023 B', '1.0 KiB', '1.4 MiB', '5.0 TiB'])
})

t.test('no text from outside can steer the terminal', async (t) => {
  const anything = fc.string({ unit: 'binary' })
  fc.assert(fc.property(anything, (text) => !/[\p{Cc}\p{Cf}\p{Zl}\p{Zp}]/u.test(plain(text))))
  fc.assert(fc.property(fc.jsonValue(), (value) => !/\p{Cc}/u.test(cell(value))))
  t.equal(plain('\u001b[31mred\u202e'), '\\u{1b}[31mred\\u{202e}')
  const { out, stderr } = output(false)
  out.note('first\nsecond\u0007')
  t.equal(stderr.text(), 'first\nsecond\\u{7}\n')
  writeFailure(stderr, false, { code: 'C', title: 'T\u001b', detail: 'a\u001b\nb', mend: 'M' })
  t.notOk(stderr.text().includes('\u001b'))
})

t.test('a cell shows every kind of value in one line', async (t) => {
  t.same([null, undefined, '', 0, true, 'a', ['b'], { c: 1 }].map(cell), [
    '-',
    '-',
    '-',
    '0',
    'yes',
    'a',
    '["b"]',
    '{"c":1}',
  ])
  t.equal(
    fields([
      ['a', 1],
      ['long', null],
      ['gone', undefined],
    ]),
    'a     1\nlong  -',
  )
})

t.test('a table is plain and narrow, and its last column wraps at the edge of a terminal', async (t) => {
  const rows = [
    ['1', 'short'],
    ['22', 'a sentence that is longer than the terminal is wide'],
  ]
  const piped = await output(false).out.table(['ID', 'WHY'], rows)
  t.equal(piped, 'ID  WHY\n1   short\n22  a sentence that is longer than the terminal is wide')
  const narrow = await output(false, { columns: 30 }).out.table(['ID', 'WHY'], rows)
  t.ok(
    narrow.split('\n').every((line) => line.length <= 30),
    narrow,
  )
  t.match(narrow.replace(/\s+/g, ' '), /a sentence that is longer than the terminal is wide/)
})

t.test('colour is for terminals that want it, and a coloured cell takes no more room', async (t) => {
  const plainOut = output(false).out
  t.equal(plainOut.paint('red', 'x'), 'x')
  const { out } = output(false, { columns: 80, colors: true })
  t.equal(out.paint('red', 'x'), '\u001b[31mx\u001b[39m')
  const table = await out.table(['A', 'B'], [[out.paint('green', 'ok'), 'b']])
  t.equal(stripVTControlCharacters(table), 'A   B\nok  b')
})

t.test('with --json standard output has one document and standard error is silent', async (t) => {
  const { out, stdout, stderr } = output(true)
  out.note('on the way')
  const progress = await out.progress('sync')
  progress.update({ step: 'pull' })
  progress.end()
  await out.result({ a: [1] }, () => 'text')
  t.same(JSON.parse(stdout.text()), { a: [1] })
  t.equal(stderr.text(), '')
})

t.test('items of a stream are lines, of JSON or of text', async (t) => {
  const machine = output(true)
  for (const n of [1, 2]) await machine.out.item({ n }, () => `${n}`)
  t.equal(machine.stdout.text(), '{"n":1}\n{"n":2}\n')
  const person = output(false)
  await person.out.item({}, () => 'one')
  t.equal(person.stdout.text(), 'one\n')
})

t.test('progress is a bar on a terminal, and a line a step elsewhere', async (t) => {
  const piped = output(false)
  const lines = await piped.out.progress('attach')
  for (const done of [0, 1, 2]) lines.update({ step: 'register rows', done, total: 2 })
  lines.update({ step: 'ready' })
  lines.end()
  t.equal(piped.stderr.text(), 'attach: register rows\nattach: ready\n')
  t.equal(piped.stdout.text(), '')

  const { out, stderr, stdout } = output(false, { columns: 80 })
  const bar = await out.progress('attach')
  bar.update({ step: 'register rows', done: 500, total: 1000 })
  for (let waits = 0; waits < 1_000 && !stderr.text().includes('500'); waits++) await sleep(20)
  bar.end()
  t.match(stderr.text(), /attach {2}\[#{12}\.{12}\] 500 of 1,000 {2}register rows/)
  t.equal(stdout.text(), '')
})
