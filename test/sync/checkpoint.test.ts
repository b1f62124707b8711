import fc from 'fast-check'
import t from 'tap'
import type { Checkpoint, Position } from '../../src/sync/index.ts'
import {
  CHECKPOINT_LENGTH_MAX,
  comparePositions,
  formatCheckpoint,
  parseCheckpoint,
  RECORD_ID_BYTES_MAX,
} from '../../src/sync/index.ts'
import { holds } from './holds.ts'

const LOG = 'b4e07b3c-5b0f-4b9e-8f5e-2f6f8a3c9d10'
const XACT_MAX = '18446744073709551615'
const at = (xact: string, recordId: string, logId = LOG): Checkpoint => ({ logId, position: { xact, recordId } })
const encode = (plain: string | Buffer) => Buffer.from(plain).toString('base64url')

/** Ids that a database can hold: well-formed, without NUL; among them such that UTF-16 and UTF-8 order differently. */
const recordId = fc
  .oneof(
    fc.string({ unit: 'binary', maxLength: 40 }),
    fc.string({ unit: fc.constantFrom(' ', '\n', 'a', 'é', '\uffee', '\u{1f600}') }),
    fc.uuid(),
  )
  .map((text) => text.replaceAll('\0', ''))
const xact = fc.bigInt({ min: 0n, max: BigInt(XACT_MAX) }).map(String)
const position: fc.Arbitrary<Position> = fc.record({ xact, recordId })

t.test('a checkpoint is read as it was written, whatever the record id', (t) => {
  for (const each of [
    at('0', ''),
    at(XACT_MAX, 'urn:uuid:x y'),
    at('7', ' 1 2 3 '),
    at('7', 'first\nsecond', 'log_2.a-B'),
  ]) {
    t.strictSame(parseCheckpoint(formatCheckpoint(each)), each)
  }
  holds(
    t,
    fc.property(position, (position) => {
      const text = formatCheckpoint({ logId: LOG, position })
      const back = parseCheckpoint(text)
      return back.logId === LOG && back.position.xact === position.xact && back.position.recordId === position.recordId
    }),
  )
  t.end()
})

t.test('a checkpoint needs no escaping in a URL and has a bounded length', (t) => {
  holds(
    t,
    fc.property(position, (position) => /^[\w-]+$/.test(formatCheckpoint({ logId: LOG, position }))),
  )
  const longest = formatCheckpoint(at(XACT_MAX, '\u{1f600}'.repeat(RECORD_ID_BYTES_MAX / 4), 'l'.repeat(64)))
  t.ok(longest.length <= CHECKPOINT_LENGTH_MAX, `the longest has ${longest.length} characters`)
  t.equal(parseCheckpoint(longest).position.recordId.length, RECORD_ID_BYTES_MAX / 2)
  t.end()
})

t.test('what no site gave out is refused by name', (t) => {
  const good = formatCheckpoint(at('7', 'x'))
  const bad: Record<string, string> = {
    nothing: '',
    'another version': encode(`2 ${LOG} 7 x`),
    'no version': encode(`${LOG} 7 x`),
    'no log': encode('1  7 x'),
    'a log with a separator': encode('1 a/b 7 x'),
    'no record id': encode(`1 ${LOG} 7`),
    'a negative transaction': encode(`1 ${LOG} -7 x`),
    'a transaction with leading zeros': encode(`1 ${LOG} 07 x`),
    'a transaction past 64 bits': encode(`1 ${LOG} 18446744073709551616 x`),
    'a NUL in the record id': encode(`1 ${LOG} 7 x\0`),
    'broken UTF-8': encode(Buffer.concat([Buffer.from(`1 ${LOG} 7 `), Buffer.from([0xff])])),
    'half a surrogate pair': encode(Buffer.concat([Buffer.from(`1 ${LOG} 7 `), Buffer.from([0xed, 0xa0, 0x80])])),
    padding: `${good}=`,
    'the other alphabet': Buffer.from(`1 ${LOG} 7 ???>>>`).toString('base64'),
    'white space': ` ${good}`,
    'an appendix': `${good}!`,
    'spare bits': encode('1 l 7 x').replace(/.$/, (last) => String.fromCharCode(last.charCodeAt(0) + 1)),
    'too much': encode(`1 ${LOG} 7 ${'x'.repeat(CHECKPOINT_LENGTH_MAX)}`),
  }
  for (const [what, text] of Object.entries(bad)) {
    t.throws(() => parseCheckpoint(text), { name: 'SynclineError', code: 'SYNC_CHECKPOINT_INVALID' }, what)
  }
  t.end()
})

t.test('any text is a checkpoint that formats to itself, or is refused by name', (t) => {
  const plain = fc.tuple(
    fc.constantFrom('1 ', '2 ', ''),
    fc.constantFrom('log ', ' '),
    fc.string(),
    fc.string({ unit: 'binary' }),
  )
  const text = fc.oneof(
    fc.string(),
    fc.base64String(),
    plain.map((parts) => encode(parts.join(' '))),
    plain.map((parts) => encode(parts.join(''))),
  )
  holds(
    t,
    fc.property(text, (text) => {
      try {
        return formatCheckpoint(parseCheckpoint(text)) === text
      } catch (error) {
        return error instanceof Error && error.name === 'SynclineError' && error.message.length < 120
      }
    }),
    2000,
  )
  t.end()
})

t.test('a checkpoint that could not be read again is never given out', (t) => {
  const cases: Record<string, Checkpoint> = {
    'an id with half a surrogate pair': at('7', '\ud800'),
    'an id with NUL': at('7', 'a\0b'),
    'an id that is too long': at('7', 'x'.repeat(CHECKPOINT_LENGTH_MAX)),
    'a log with a space': at('7', 'x', 'a b'),
    'a fraction': at('7.5', 'x'),
    'past 64 bits': at('18446744073709551616', 'x'),
  }
  for (const [what, each] of Object.entries(cases))
    t.throws(() => formatCheckpoint(each), { name: 'AssertionError' }, what)
  t.end()
})

t.test('positions order by number and then by bytes, as the database does', (t) => {
  const ascending: readonly Position[] = [
    { xact: '9', recordId: 'z' },
    { xact: '10', recordId: '' },
    { xact: '10', recordId: 'A' },
    { xact: '10', recordId: 'Aa' },
    { xact: '10', recordId: 'a' },
    { xact: '10', recordId: 'é' },
    { xact: '10', recordId: '\uffee' },
    { xact: '10', recordId: '\u{1f600}' },
    { xact: '9007199254740993', recordId: '' },
    { xact: '9007199254740994', recordId: '' },
  ]
  for (const [i, a] of ascending.entries()) {
    for (const [j, b] of ascending.entries()) {
      t.equal(Math.sign(comparePositions(a, b)), Math.sign(i - j), `${JSON.stringify(a)} ${JSON.stringify(b)}`)
    }
  }
  holds(
    t,
    fc.property(
      position,
      position,
      (a, b) => Math.sign(comparePositions(a, b)) + Math.sign(comparePositions(b, a)) === 0,
    ),
  )
  t.end()
})
