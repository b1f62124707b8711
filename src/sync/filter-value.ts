import { canonicalDecimal, orderDecimals } from './filter-decimal.ts'
import { type TimeKind, type TimeValue, timeLiteral, timeValue } from './filter-time.ts'
import { type FilterLiteral, formatLiteral } from './filter-tree.ts'
import type { Json } from './record.ts'

/**
 * How the values of a column compare. `padded` is char(n), whose trailing spaces mean nothing. `opaque` is a type Syncline knows no order of
 * (enums, intervals, network addresses): its text is equal or not. `json` and `array` are only null or not.
 */
export type ValueKind =
  | 'integer'
  | 'numeric'
  | 'float4'
  | 'float8'
  | 'boolean'
  | 'text'
  | 'padded'
  | 'uuid'
  | TimeKind
  | 'json'
  | 'incomparable'
  | 'opaque'

/** A value in the form that orders and equals like the database does, given its kind. */
export type Comparable = string | boolean | TimeValue

const KINDS: ReadonlyMap<string, ValueKind> = new Map([
  ['int2', 'integer'],
  ['int4', 'integer'],
  ['int8', 'integer'],
  ['numeric', 'numeric'],
  ['float4', 'float4'],
  ['float8', 'float8'],
  ['bool', 'boolean'],
  ['text', 'text'],
  ['varchar', 'text'],
  ['name', 'text'],
  ['citext', 'text'],
  ['bpchar', 'padded'],
  ['uuid', 'uuid'],
  ['date', 'date'],
  ['timestamp', 'timestamp'],
  ['timestamptz', 'timestamptz'],
  ['time', 'time'],
  ['json', 'json'],
  ['jsonb', 'json'],
  ['timetz', 'incomparable'],
])

/** The kind of a PostgreSQL type, by its name in pg_type: int4, not integer; an array begins with an underscore or ends in []. */
export function valueKind(type: string): ValueKind {
  const array = type.startsWith('_') || type.endsWith('[]')
  return KINDS.get(type) ?? (array ? 'incomparable' : 'opaque')
}

/** Types of elements that a list can be asked for: their texts are equal exactly when they are. */
const LISTED: readonly ValueKind[] = ['text', 'uuid', 'integer', 'opaque']

/** The kind of the elements of an array type, where a filter can look for one; undefined for anything else. */
export function elementKind(type: string): ValueKind | undefined {
  if (!type.startsWith('_')) return undefined
  const kind = valueKind(type.slice(1))
  return LISTED.includes(kind) ? kind : undefined
}

/** A value of a record, as it travels in JSON, made comparable; undefined when it is null or no value of this kind, so that every test of it is unknown. */
export function comparable(kind: ValueKind, value: Json | undefined): Comparable | undefined {
  if (kind === 'boolean' && typeof value === 'boolean') return value
  if (typeof value === 'number') return isNumeric(kind) ? numberValue(kind, String(value)) : undefined
  if (typeof value !== 'string') return undefined
  switch (kind) {
    case 'integer':
    case 'numeric':
    case 'float4':
    case 'float8':
      return numberValue(kind, value.trim())
    case 'boolean':
      return BOOLEANS.get(value.trim().toLowerCase())
    case 'text':
    case 'opaque':
      return value
    case 'padded':
      return withoutPadding(value)
    case 'uuid':
      return uuidValue(value)
    case 'json':
    case 'incomparable':
      return undefined
    default:
      return timeValue(kind, value)
  }
}

/** A constant made comparable, with the text that means the same to PostgreSQL when cast to the column's type. */
export type BoundLiteral = { readonly value: Comparable; readonly text: string }

/** Makes a constant comparable with values of a kind. A string is the fault, in words: what to write instead. */
export function bindLiteral(kind: ValueKind, literal: FilterLiteral): BoundLiteral | string {
  if (isNumeric(kind)) return bindNumber(kind, literal)
  if (kind === 'boolean') {
    return literal.type === 'boolean'
      ? { value: literal.value, text: String(literal.value) }
      : 'write true or false, without quotes'
  }
  if (kind === 'json' || kind === 'incomparable') return 'such a column can only be tested with is null and is not null'
  if (literal.type !== 'string') return `write it in single quotes: '${formatLiteral(literal)}'`
  const text = literal.value
  if (kind === 'text' || kind === 'opaque') return { value: text, text }
  if (kind === 'padded') return { value: withoutPadding(text), text: withoutPadding(text) }
  if (kind !== 'uuid') return timeLiteral(kind, text)
  const uuid = uuidValue(text)
  return uuid === undefined ? 'write a whole UUID' : { value: uuid, text: uuid }
}

/** Negative, zero or positive as `a` comes before, with or after `b`; both of the same kind. */
export function orderValues(kind: ValueKind, a: Comparable, b: Comparable): number {
  if (a === b) return 0
  if ((kind === 'integer' || kind === 'numeric') && typeof a === 'string' && typeof b === 'string') {
    return SPECIAL.has(a) || SPECIAL.has(b) ? (SPECIAL.get(a) ?? 0) - (SPECIAL.get(b) ?? 0) : orderDecimals(a, b)
  }
  if (typeof a === 'string' && typeof b === 'string') return orderCodePoints(a, b)
  // To PostgreSQL NaN equals itself and is greater than every other number.
  if (Number.isNaN(a)) return Number.isNaN(b) ? 0 : 1
  if (Number.isNaN(b)) return -1
  return a < b ? -1 : a > b ? 1 : 0
}

/**
 * Makes a test for a LIKE pattern. % is any number of characters, _ is one code point, a backslash makes the next character an ordinary one.
 * Without regard to case means the letters A to Z only: that is what every database agrees on.
 */
export function likePattern(pattern: string, ignoreCase: boolean): (text: string) => boolean {
  const fold = (text: string) => (ignoreCase ? text.replace(/[A-Z]+/g, (letters) => letters.toLowerCase()) : text)
  const parts: { readonly wild: '%' | '_' | undefined; readonly character: string }[] = []
  const characters = [...fold(pattern)]
  for (let index = 0; index < characters.length; index++) {
    const character = characters[index] ?? ''
    if (character === '\\') parts.push({ wild: undefined, character: characters[++index] ?? '' })
    else parts.push({ wild: character === '%' || character === '_' ? character : undefined, character })
  }
  return (text) => {
    const subject = [...fold(text)]
    let at = 0
    let part = 0
    // Only the last % ever needs to take more: what came before it already matched as little as possible.
    let lastAny = -1
    let takenFrom = 0
    while (at < subject.length) {
      const expected = parts[part]
      if (expected?.wild === '%') {
        lastAny = part++
        takenFrom = at
      } else if (expected !== undefined && (expected.wild === '_' || expected.character === subject[at])) {
        part++
        at++
      } else if (lastAny >= 0) {
        part = lastAny + 1
        at = ++takenFrom
      } else return false
    }
    return parts.slice(part).every(({ wild }) => wild === '%')
  }
}

type NumericKind = 'integer' | 'numeric' | 'float4' | 'float8'

function isNumeric(kind: ValueKind): kind is NumericKind {
  return kind === 'integer' || kind === 'numeric' || kind === 'float4' || kind === 'float8'
}

const BOOLEANS: ReadonlyMap<string, boolean> = new Map([
  ...['true', 't', 'yes', 'y', 'on', '1'].map((text) => [text, true] as const),
  ...['false', 'f', 'no', 'n', 'off', '0'].map((text) => [text, false] as const),
])

/** Numbers that are no decimals, in the order that they have; every decimal is 0. */
const SPECIAL: ReadonlyMap<string, number> = new Map([
  ['-Infinity', -1],
  ['Infinity', 1],
  ['NaN', 2],
])
const SPECIAL_NAMES: ReadonlyMap<string, string> = new Map([
  ['nan', 'NaN'],
  ['infinity', 'Infinity'],
  ['inf', 'Infinity'],
  ['-infinity', '-Infinity'],
  ['-inf', '-Infinity'],
])

function numberValue(kind: NumericKind, text: string): Comparable | undefined {
  const decimal = SPECIAL_NAMES.get(text.toLowerCase()) ?? canonicalDecimal(text)
  if (decimal === undefined || kind === 'integer' || kind === 'numeric') return decimal
  return kind === 'float4' ? Math.fround(Number(decimal)) : Number(decimal)
}

function bindNumber(kind: NumericKind, literal: FilterLiteral): BoundLiteral | string {
  const decimal = literal.type === 'boolean' ? undefined : canonicalDecimal(literal.value)
  const value = decimal === undefined ? undefined : numberValue(kind, decimal)
  if (decimal === undefined || value === undefined) return 'write a number'
  // Rounded here, so that both sides round in the same way.
  if (typeof value !== 'number') return { value, text: decimal }
  return Number.isFinite(value) ? { value, text: String(value) } : `it is out of the range of ${kind}`
}

function uuidValue(text: string): string | undefined {
  const bare = text.startsWith('{') && text.endsWith('}') ? text.slice(1, -1) : text
  const digits = bare
    .toLowerCase()
    .match(/^([0-9a-f]{8})-?([0-9a-f]{4})-?([0-9a-f]{4})-?([0-9a-f]{4})-?([0-9a-f]{12})$/)
  return digits?.slice(1).join('-')
}

function withoutPadding(text: string): string {
  let end = text.length
  while (text[end - 1] === ' ') end--
  return text.slice(0, end)
}

/** Order of two texts by code point, as the collation "C" of a UTF-8 database; `<` of JavaScript goes by UTF-16 units. */
function orderCodePoints(a: string, b: string): number {
  const length = Math.min(a.length, b.length)
  for (let index = 0; index < length; index++) {
    const unitA = a.charCodeAt(index)
    const unitB = b.charCodeAt(index)
    if (unitA !== unitB) return rank(unitA) - rank(unitB)
  }
  return a.length - b.length
}

/** Surrogates stand for the characters beyond all others, though their numbers are lower than those of some. */
function rank(unit: number): number {
  return unit >= 0xd800 && unit < 0xe000 ? unit + 0x10000 : unit
}
