import { canonicalDecimal } from '../filter-decimal.ts'
import type { FieldMark, Fields, Json, Version } from '../record.ts'
import { seenOf } from '../version.ts'
import { readClock, readOrigin } from './dot.ts'
import { isJsonObject } from './exact-json.ts'
import { checkColumns, fault, quoted, refuseUnknown } from './format.ts'

const PARTS = ['dots', 'values', 'base', 'sums']

/**
 * The writes behind single fields of a version. Each must be one that the version has seen: a forged one from the future would win every later
 * merge by "newer". Throws SYNC_FORMAT_INVALID.
 */
export function readFields(value: unknown, version: Version): Fields {
  if (!isJsonObject(value)) return fault(`version.fields must be an object of columns, not ${quoted(value)}`)
  const columns = Object.entries(value)
  checkColumns(columns.length)
  return Object.fromEntries(columns.map(([column, mark]) => [column, readMark(mark, column, version)]))
}

function readMark(value: Json, column: string, version: Version): FieldMark {
  const what = `version.fields[${quoted(column)}]`
  if (column === '' || !isJsonObject(value)) return fault(`${what} must be an object with dots`)
  refuseUnknown(value, PARTS, what)
  const { dots, values, base, sums } = value
  const known = readDots(dots, `${what}.dots`, version)
  const named = (part: Json | undefined, name: string): { readonly [origin: string]: Json } => {
    if (!isJsonObject(part)) return fault(`${what}.${name} must be an object by origin, not ${quoted(part)}`)
    const stranger = Object.keys(part).find((origin) => !Object.hasOwn(known, origin))
    if (stranger !== undefined) fault(`${what}.${name} names ${quoted(stranger)}, which is not among its dots`)
    return part
  }
  if ((base === undefined) !== (sums === undefined)) fault(`${what} has base and sums, or neither`)
  const counted = sums === undefined ? undefined : named(sums, 'sums')
  for (const [origin, sum] of Object.entries(counted ?? {}))
    if (typeof sum !== 'string' || canonicalDecimal(sum) === undefined)
      fault(`${what}.sums[${quoted(origin)}] must be a decimal number as text, not ${quoted(sum)}`)
  return {
    dots: known,
    ...(values !== undefined && { values: named(values, 'values') }),
    ...(base !== undefined && { base: readDots(base, `${what}.base`, version) }),
    ...(counted !== undefined && { sums: counted as Record<string, string> }),
  }
}

function readDots(value: Json | undefined, what: string, version: Version): Record<string, number> {
  if (!isJsonObject(value) || Object.keys(value).length === 0)
    return fault(`${what} must be an object of origins and clocks, not ${quoted(value)}`)
  for (const [origin, at] of Object.entries(value)) {
    readOrigin(origin, `an origin in ${what}`)
    if (readClock(at, `${what}[${quoted(origin)}]`) > seenOf(version, origin))
      fault(`${what} names a write of ${quoted(origin)} that the version has not seen`)
  }
  return value as Record<string, number>
}

/** The same marks with other names for the origins: every part of a mark is an object by origin. */
export function renameOrigins(fields: Fields, name: (origin: string) => string): Fields {
  const part = (byOrigin: object) =>
    Object.fromEntries(Object.entries(byOrigin).map(([origin, value]) => [name(origin), value]))
  return Object.fromEntries(
    Object.entries(fields).map(([column, mark]) => [
      column,
      Object.fromEntries(Object.entries(mark).map(([key, value]) => [key, part(value)])) as FieldMark,
    ]),
  )
}
