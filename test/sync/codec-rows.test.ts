import t from 'tap'
import { asksForRows, decodeRows, type RowText, rowsBody } from '../../src/sync/index.ts'
import { refusal } from '../conformance/codec.ts'

const LIMITS = { recordsMax: 3, recordBytesMax: 40, depthMax: 8 }
const BATCH: RowText = {
  resource: 'city',
  keyType: 'uuid',
  columns: ['name', 'region'],
  types: ['text', 'text'],
  refs: { region: 'region' },
  origins: ['o'],
  text: 'a\t1\t0\t\\N\tp\tx\t\\N\nb\t2\t0\t\\N\td\t\\N\t\\N',
  count: 2,
  next: { checkpoint: 'c', more: true },
  purges: 3,
}
const read = (text: string) => decodeRows(Buffer.from(text), LIMITS)
const header = (more: object) => {
  const { text: _text, count: _count, next: _next, purges: _purges, ...rest } = BATCH
  return `${JSON.stringify({ syncline: 1, ...rest, ...more })}\n`
}
const END = '{"count":0,"checkpoint":"c","more":false}'

t.test('rows come back as they were sent', async (t) => {
  for (const batch of [BATCH, { ...BATCH, text: '', count: 0 }]) {
    const { rows, ...back } = decodeRows(rowsBody(batch), LIMITS)
    t.same({ ...back, text: Buffer.from(rows).toString() }, batch)
  }
})

t.test('I1: rows that were cut off anywhere count for nothing', async (t) => {
  const body = rowsBody(BATCH)
  for (let end = 0; end < body.length; end++) {
    const error = refusal(t, () => decodeRows(body.subarray(0, end), LIMITS), `${end} bytes`)
    t.equal(error.code, 'SYNC_BATCH_INCOMPLETE', `${end} bytes`)
  }
})

t.test('a body that is no batch of rows is refused with its place and reason', async (t) => {
  const cases: Record<string, readonly [string, string, RegExp]> = {
    'a row less than counted': [
      rowsBody({ ...BATCH, count: 3 }).toString(),
      'SYNC_BATCH_INCOMPLETE',
      /counts 3 records, the body has 2/,
    ],
    'more rows than are taken': [
      rowsBody({ ...BATCH, count: 4 }).toString(),
      'SYNC_REQUEST_TOO_LARGE',
      /more than 3 records/,
    ],
    'a row that is too large': [
      rowsBody({ ...BATCH, text: `a\t${'x'.repeat(50)}`, count: 1 }).toString(),
      'SYNC_RECORD_TOO_LARGE',
      /record 1 \(line 2\) has 52 bytes; at most 40/,
    ],
    'another form': [
      header({ syncline: 2 }) + END,
      'SYNC_FORMAT_UNSUPPORTED',
      /form 2 of application\/vnd.syncline.rows; this site reads form 1/,
    ],
    'a header that is a list': [`[]\n${END}`, 'SYNC_FORMAT_INVALID', /header \(line 1\): it must be an object/],
    'a member that nobody knows': [header({ other: 1 }) + END, 'SYNC_FORMAT_INVALID', /"other"/],
    'no type of the key': [header({ keyType: null }) + END, 'SYNC_FORMAT_INVALID', /keyType must be a name/],
    'types that are no names': [
      header({ types: ['text', 1] }) + END,
      'SYNC_FORMAT_INVALID',
      /types must be a list of names/,
    ],
    'a type less than columns': [header({ types: ['text'] }) + END, 'SYNC_FORMAT_INVALID', /1 names for 2 columns/],
    'a reference in no column': [header({ refs: { x: 'y' } }) + END, 'SYNC_FORMAT_INVALID', /refs names "x"/],
    'no checkpoint': [`${header({})}{"count":0}`, 'SYNC_BATCH_INCOMPLETE', /trailer/],
  }
  for (const [what, [body, code, message]] of Object.entries(cases)) {
    const error = refusal(t, () => read(body), what)
    t.equal(error.code, code, what)
    t.match(error.message, message, what)
  }
})

t.test('rows have to be asked for by name', async (t) => {
  t.ok(asksForRows('application/vnd.syncline.rows, application/vnd.syncline.lines'))
  for (const header of [undefined, '*/*', 'application/*', 'application/vnd.syncline.rows;q=0, */*'])
    t.notOk(asksForRows(header))
})
