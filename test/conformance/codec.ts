import fc from 'fast-check'
import type { Test } from 'tap'
import {
  type Batch,
  type Change,
  type DecodeContext,
  isJsonObject,
  type Json,
  numberText,
  parseJson,
  SynclineError,
  type WritingCodec,
} from '../../src/sync/index.ts'

/** Reference columns of the resource that the suite writes about. */
export const REFS = { country: 'country', parent: 'city', 'twinned with': 'city' }

export const CONTEXT: DecodeContext = {
  resource: 'city',
  refs: REFS,
  recordsMax: 1000,
  recordBytesMax: 1_000_000,
  depthMax: 64,
  trailer: 'required',
}

/** Texts that have broken a format before. */
const AWKWARD = [
  ...[
    '',
    ' ',
    '\0',
    '\t',
    '\r\n',
    '"',
    '""',
    '\\',
    "'",
    ',',
    ';',
    '<b>',
    '&lt;',
    '&amp;lt;',
    '&#65;',
    ']]>',
    '<!--',
    'null',
    'true',
  ],
  ...[
    '2026-11-20',
    '2026-11-20T08:00:00.123456+00',
    '08:30',
    '1.0',
    '007',
    '[]',
    '["a"]',
    '{}',
    '\u007f',
    '\u0085',
    '\u2028',
    '\ufeff',
  ],
  ...[
    '\ufffe',
    '\uffff',
    '\ud800',
    '𝒳',
    'é',
    'e\u0301',
    '东京',
    '__proto__',
    'constructor',
    'toString',
    'rawJSON',
    '\\u0041',
    '\x1b[0m',
  ],
]

const text = fc.oneof(
  fc.constantFrom(...AWKWARD),
  fc.string(),
  fc.string({ unit: 'binary' }),
  fc.string({ unit: 'grapheme' }),
)
/** A name of any column, id or origin: what every format must carry. XML has no other characters, escaped or not. */
const name = text.filter((each) => /^[\t\n\r\u0020-\ud7ff\ue000-\ufffd\u{10000}-\u{10ffff}]+$/u.test(each))
/** An id that S3XML would read as a list of references is refused by its writer; a test of its own says so. */
const id = name.filter((each) => !each.trimStart().startsWith('['))
const origin = name.filter((each) => !/\p{Cc}/u.test(each))
const clock = fc.integer({ min: 1, max: Number.MAX_SAFE_INTEGER })
const column = name.filter((each) => !Object.hasOwn(REFS, each))

/** JSON numbers as a column of type json may hold them: a double gives back none of these. */
const exact = fc
  .constantFrom('1.0', '-0', '-0.0', '1e3', '1E+400', '12345678901234567890', '0.00000001', '9007199254740993', '1.10')
  .map((number) => parseJson(number))
const value = fc.oneof(
  text,
  exact,
  fc.jsonValue({ maxDepth: 3, stringUnit: 'binary' }) as fc.Arbitrary<Json>,
  fc.array(exact, { maxLength: 2 }),
)

const version = fc
  .tuple(
    origin,
    clock,
    fc.option(fc.dictionary(origin, clock, { maxKeys: 3, noNullPrototype: true }), { nil: undefined }),
    fc.option(value),
  )
  .map(([by, at, seen, marked]) => {
    const others = Object.entries(seen ?? {}).filter(([other]) => other !== by)
    const version = { origin: by, clock: at, ...(others.length > 0 && { seen: Object.fromEntries(others) }) }
    if (marked === null) return version
    const [one = [by, at]] = others
    const fields = {
      '*': { dots: { [by]: at } },
      price: { dots: Object.fromEntries([[by, at], one]), values: { [by]: marked } },
      stock: { dots: { [by]: at }, base: Object.fromEntries([one]), sums: { [by]: '-1.50' } },
    }
    return { ...version, fields }
  })

const data = fc.uniqueArray(fc.tuple(column, value), { maxLength: 4, selector: ([key]) => key }).map(Object.fromEntries)
const refs = fc
  .uniqueArray(fc.tuple(fc.constantFrom(...(Object.keys(REFS) as (keyof typeof REFS)[])), fc.option(id)), {
    maxLength: 3,
    selector: ([key]) => key,
  })
  .map((pairs) =>
    Object.fromEntries(
      pairs.map(([key, target]) => [key, target === null ? null : { resource: REFS[key], id: target }]),
    ),
  )

/** Any change that every format can carry, with or without a version. */
export const change: fc.Arbitrary<Change> = fc
  .record({ kind: fc.constantFrom('put', 'put', 'put', 'delete', 'left'), id, version: fc.option(version), data, refs })
  .map(({ kind, id, version, data, refs }) => ({
    kind,
    id,
    ...(version !== null && { version }),
    ...(kind === 'put' && { data, ...(Object.keys(refs).length > 0 && { refs }) }),
  })) as fc.Arbitrary<Change>

const next = fc.option(fc.record({ checkpoint: name, more: fc.boolean() }), { nil: undefined })
const batch: fc.Arbitrary<Batch> = fc
  .record({ changes: fc.array(change, { maxLength: 6 }), next })
  .map(({ changes, next }) => ({ resource: 'city', changes, ...(next && { next }) }))

/** One text for equal values, whatever the order of their members; numbers as they are written. */
export function canonical(value: unknown): string {
  const number = numberText(value)
  if (number !== undefined) return number
  if (Array.isArray(value)) return `[${value.map(canonical).join()}]`
  if (!isJsonObject(value)) return JSON.stringify(value) ?? 'undefined'
  return `{${Object.keys(value)
    .filter((key) => value[key] !== undefined)
    .sort()
    .map((key) => `${JSON.stringify(key)}:${canonical(value[key])}`)
    .join()}}`
}

/** A small batch with something of everything, in characters of one to four bytes. */
export const SAMPLE: Batch = {
  resource: 'city',
  changes: [
    {
      kind: 'put',
      id: 'zürich',
      version: { origin: 'site-a', clock: 1_700_000_000_000_001, seen: { 'site-b': 17 } },
      data: { name: 'Zürich 𝒳 &amp;lt;', population: 436_332, note: null, tags: parseJson('{"a":[1.0,{"b":"}"}]}') },
      refs: { country: { resource: 'country', id: 'CH' }, parent: null },
    },
    { kind: 'delete', id: 'b', version: { origin: 'site-b', clock: 2 } },
    { kind: 'left', id: 'c' },
  ],
  next: { checkpoint: 'log:42:é', more: true },
}

/** The error that a call ends in; fails when it ends in none, or in one that was not foreseen. */
export function refusal(t: Test, call: () => unknown, what: string): SynclineError {
  try {
    call()
  } catch (error) {
    if (error instanceof SynclineError) return error
    throw error
  }
  t.fail(`${what} was taken`)
  return new SynclineError('SYNC_INTERNAL', 'nothing was refused')
}

export function bytesOf(pieces: Iterable<string>): Buffer {
  return Buffer.from([...pieces].join(''))
}

export type CodecCase = {
  readonly codec: WritingCodec
  /** Code of the refusal when the body ends too early. */
  readonly cutCode: 'SYNC_BATCH_INCOMPLETE' | 'SYNC_FORMAT_INVALID'
  /** A body whose one field is `value`, which is already escaped as the format wants it. */
  readonly bodyWith: (value: string) => string
}

/** What every format that both reads and writes must hold to. */
export function codecConformance(t: Test, { codec, cutCode, bodyWith }: CodecCase): void {
  const decode = (bytes: Uint8Array, context: Partial<DecodeContext> = {}) =>
    codec.decode(bytes, { ...CONTEXT, ...context })

  t.test(`${codec.name}: what it writes it reads back, whatever the characters and numbers`, async (t) => {
    fc.assert(
      fc.property(batch, (batch) => {
        const [first, ...others] = decode(bytesOf(codec.encode(batch)))
        const { resource, changes, next } = first ?? { resource: '', changes: [] }
        return others.length === 0 && canonical({ resource, changes, next }) === canonical(batch)
      }),
      { numRuns: 300 },
    )
    t.equal(canonical(decode(bytesOf(codec.encode(SAMPLE)))[0]?.changes), canonical(SAMPLE.changes))
  })

  t.test(`${codec.name}: a body cut at any byte is never taken as complete`, async (t) => {
    const whole = bytesOf(codec.encode(SAMPLE)).toString().trimEnd()
    const bytes = Buffer.from(whole)
    t.equal(decode(bytes)[0]?.changes.length, 3, 'a missing newline at the end is no loss')
    const codes = new Set<string>()
    for (let end = 0; end < bytes.length; end++) {
      codes.add(refusal(t, () => decode(bytes.subarray(0, end)), `the body cut at ${end}`).code)
    }
    t.strictSame([...codes], [cutCode])
  })

  t.test(`${codec.name}: what follows the end is refused`, async (t) => {
    const whole = bytesOf(codec.encode(SAMPLE)).toString()
    for (const garbage of ['x', '{}', '<s3xml/>', '\0', whole])
      refusal(t, () => decode(Buffer.from(whole + garbage)), `a body with ${garbage} after it`)
  })

  t.test(`${codec.name}: a damaged body is read or refused with a reason, and nothing else happens`, async (t) => {
    const bytes = bytesOf(codec.encode(SAMPLE))
    let refused = 0
    fc.assert(
      fc.property(fc.nat(bytes.length - 1), fc.nat(12), fc.uint8Array({ maxLength: 4 }), (at, removed, added) => {
        try {
          decode(Buffer.concat([bytes.subarray(0, at), added, bytes.subarray(at + removed)]))
        } catch (error) {
          if (!(error instanceof SynclineError) || error.message === '') throw error
          refused++
        }
      }),
      { numRuns: 500 },
    )
    t.ok(refused > 100, 'most damage is seen')
  })

  t.test(`${codec.name}: only UTF-8 is read`, async (t) => {
    const whole = bytesOf(codec.encode({ ...SAMPLE, next: { checkpoint: 'c', more: false } })).toString()
    t.match(refusal(t, () => decode(Buffer.from(whole, 'latin1')), 'Latin-1').message, /UTF-8/)
    refusal(t, () => decode(Buffer.from(whole, 'utf16le')), 'UTF-16')
    refusal(t, () => decode(Buffer.from(`\ufeff${whole}`, 'utf16le')), 'UTF-16 with a mark')
    refusal(t, () => decode(Buffer.from(bodyWith('a\0b'))), 'a NUL')
    refusal(
      t,
      () => decode(Buffer.concat([Buffer.from([0xed, 0xa0, 0x80]), Buffer.from(whole)])),
      'half a surrogate pair',
    )
    t.equal(decode(Buffer.from(`\ufeff${whole}`))[0]?.changes.length, 3, 'a byte order mark is no part of the body')
  })

  t.test(`${codec.name}: limits are refused by name`, async (t) => {
    const large = Buffer.from(bodyWith('x'.repeat(10_000_000)))
    const tooLarge = refusal(t, () => decode(large), 'a field of 10 MB')
    t.equal(tooLarge.code, 'SYNC_RECORD_TOO_LARGE')
    t.match(tooLarge.message, /record 1\b.*1000000/)
    t.equal(decode(large, { recordBytesMax: 20_000_000 })[0]?.changes.length, 1, 'the same field within a higher limit')
    const tooMany = refusal(t, () => decode(bytesOf(codec.encode(SAMPLE)), { recordsMax: 2 }), 'three records')
    t.equal(tooMany.code, 'SYNC_REQUEST_TOO_LARGE')
    t.match(tooMany.message, /more than 2 records/)
    t.equal(decode(bytesOf(codec.encode(SAMPLE)), { recordsMax: 3 })[0]?.changes.length, 3)
  })

  t.test(`${codec.name}: members called __proto__ are members, and change no prototype`, async (t) => {
    const change = {
      kind: 'put',
      id: 'a',
      data: parseJson('{"__proto__":{"__proto__":{"polluted":true}},"constructor":1}'),
    } as Change
    const [read] = decode(bytesOf(codec.encode({ resource: 'city', changes: [change] })))
    t.equal(canonical(read?.changes), canonical([change]))
    const put = read?.changes[0]
    t.ok(put?.kind === 'put' && Object.hasOwn(put.data, '__proto__'))
    t.equal(({} as Record<string, unknown>).polluted, undefined)
  })
}
