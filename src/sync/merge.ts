import { addDecimals } from './decimal-sum.ts'
import { type FieldRule, type FieldRules, ruleOf } from './field-rules.ts'
import { canonicalDecimal, orderDecimals } from './filter-decimal.ts'
import type { FieldMark, Fields, Json, Version } from './record.ts'
import { sameJson } from './same-json.ts'
import { type Dot, dotOrder, hasSeen, siteOf } from './version.ts'

/** Values of a record by column. */
export type Values = Readonly<Record<string, Json>>

/** What the rules of a link mean for one table. */
export type MergeRules = {
  readonly rules: FieldRules
  /** Columns that hold numbers: ordered as such. */
  readonly numbers: ReadonlySet<string>
}

export type MergeSide = { readonly version: Version; readonly data: Values }

/** One field of a merge. `own`: it is a new write of the site that merges. */
type Settled = { readonly value: Json; readonly mark: FieldMark | 'own' }

/**
 * What comes of two concurrent versions.
 * - merged: this content. Fields that say `own` were decided anew here. `asLocal`, `asIncoming`: it is what that side has already, values
 *   and marks.
 * - ask: these fields need a person.
 */
export type Merge =
  | {
      readonly kind: 'merged'
      readonly data: Values
      readonly marks: Readonly<Record<string, FieldMark | 'own'>>
      readonly asLocal: boolean
      readonly asIncoming: boolean
    }
  | { readonly kind: 'ask'; readonly fields: readonly string[] }

const ANY = '*'

/** What stands behind a field of a version. */
export function markOf(version: Version, column: string): FieldMark {
  const { fields = {}, origin, clock } = version
  if (Object.hasOwn(fields, column)) return fields[column] as FieldMark
  if (Object.hasOwn(fields, ANY)) return fields[ANY] as FieldMark
  return { dots: { [origin]: clock } }
}

/**
 * Merges two concurrent versions field by field (I7). What only one side wrote since they parted is kept, by what each version has seen, never
 * by clocks. What both wrote follows the rule of the field.
 *
 * Each field is a set of concurrent writes with the record's version as its causal context: a write survives when both sides have it, or one
 * has it and the other has not seen it. That join is the same in any order and any grouping (I3); the value shown is the rule's choice among
 * what survives. Sums are kept apart for each origin and counted once. `local` gives the columns that are compared; others stay as they are.
 */
export function mergeFields(
  local: MergeSide,
  incoming: MergeSide,
  { rules, numbers }: MergeRules,
  master: string | null,
): Merge {
  // No column is called __proto__ to these.
  const data: Record<string, Json> = Object.create(null)
  const marks: Record<string, FieldMark | 'own'> = Object.create(null)
  const asked: string[] = []
  let [asLocal, asIncoming] = [true, true]
  for (const column of Object.keys(local.data)) {
    const ours = { value: local.data[column] as Json, mark: markOf(local.version, column) }
    if (!Object.hasOwn(incoming.data, column)) {
      marks[column] = ours.mark
      continue
    }
    const theirs = { value: incoming.data[column] as Json, mark: markOf(incoming.version, column) }
    if (sameMark(ours.mark, theirs.mark) && sameJson(ours.value, theirs.value)) {
      // Neither side wrote it since they parted, as is so for most fields.
      data[column] = ours.value
      marks[column] = ours.mark
      continue
    }
    const rule = ruleOf(rules, column)
    const settled = settleField(
      { ...ours, version: local.version },
      { ...theirs, version: incoming.version },
      rule.name === 'site' ? { name: 'site', site: rule.site ?? master ?? '' } : rule,
      numbers.has(column),
    )
    if (settled === 'ask') {
      asked.push(column)
      continue
    }
    data[column] = settled.value
    marks[column] = settled.mark
    asLocal &&= sameField(settled, ours)
    asIncoming &&= sameField(settled, theirs)
  }
  return asked.length > 0 ? { kind: 'ask', fields: asked } : { kind: 'merged', data, marks, asLocal, asIncoming }
}

/**
 * The `fields` of a new write: `own` fields get its dot. What most fields have in common is said once, as `*`; absent when every field is
 * the dot's own.
 */
export function fieldsOf(marks: Readonly<Record<string, FieldMark | 'own'>>, dot: Dot): Fields | undefined {
  const own: FieldMark = { dots: { [dot.origin]: dot.clock } }
  const all = Object.entries(marks).map(([column, mark]) => [column, mark === 'own' ? own : mark] as const)
  const counts = new Map<string, number>()
  for (const [, mark] of all) counts.set(nameOfMark(mark), (counts.get(nameOfMark(mark)) ?? 0) + 1)
  const [common] = [...counts].sort(([a, m], [b, n]) => n - m || (a < b ? -1 : 1))[0] ?? []
  const shared = all.find(([, mark]) => nameOfMark(mark) === common)?.[1]
  // A counter or a set of writes belongs to its field alone.
  if (shared === undefined || Object.keys(shared).length > 1)
    return all.length === 0 ? undefined : Object.fromEntries(all)
  const rest = all.filter(([, mark]) => nameOfMark(mark) !== common)
  if (rest.length === 0 && sameMark(shared, own)) return undefined
  return Object.fromEntries([[ANY, shared], ...rest])
}

type Side = { readonly value: Json; readonly mark: FieldMark; readonly version: Version }

function settleField(ours: Side, theirs: Side, rule: FieldRule, numeric: boolean): Settled | 'ask' {
  if (rule.name === 'sum') {
    const counted = settleSum(ours, theirs)
    if (counted !== undefined) return counted
  }
  const [mine, other] = [writesOf(ours), writesOf(theirs)]
  const left = survivors(mine, ours.version, other, theirs.version)
  if (sameWrites(left, mine) && !sameWrites(left, other)) return { value: ours.value, mark: ours.mark }
  if (sameWrites(left, other) && !sameWrites(left, mine)) return { value: theirs.value, mark: theirs.mark }
  const [last] = [...left].sort((a, b) => dotOrder(b, a))
  if (last === undefined) return { value: ours.value, mark: ours.mark }
  // Both wrote the same: nothing to decide, but a later write of one side must not take the other's write along.
  if (rule.name !== 'newer' && left.every((write) => sameJson(write.value, last.value)))
    return { value: last.value, mark: markOfWrites(left) }
  switch (rule.name) {
    case 'ask':
    case 'sum':
      return 'ask'
    case 'mine':
      return { value: ours.value, mark: 'own' }
    case 'theirs':
      return { value: theirs.value, mark: 'own' }
    case 'newer':
      return { value: last.value, mark: markOfWrites([last]) }
    case 'union':
      return { value: united(left), mark: markOfWrites(left) }
    default: {
      const [best = last] = [...left].sort((a, b) => preference(rule, numeric)(b, a))
      return { value: best.value, mark: markOfWrites(left) }
    }
  }
}

/** One of the writes behind a field, and what it wrote. */
type Write = Dot & { readonly value: Json }

function writesOf({ value, mark }: Side): readonly Write[] {
  const dots = Object.entries(mark.dots).map(([origin, clock]) => ({ origin, clock }))
  const { values } = mark
  if (values !== undefined)
    return dots.map((dot) => ({
      ...dot,
      value: Object.hasOwn(values, dot.origin) ? (values[dot.origin] as Json) : value,
    }))
  // A counter that is not counted here is what its last write says.
  const [last] = dots.sort((a, b) => dotOrder(b, a))
  return last === undefined ? [] : [{ ...last, value }]
}

function survivors(mine: readonly Write[], here: Version, other: readonly Write[], there: Version): readonly Write[] {
  const has = (writes: readonly Write[], write: Dot) => writes.some((each) => sameDot(each, write))
  const left = [
    ...mine.filter((write) => has(other, write) || !hasSeen(there, write)),
    ...other.filter((write) => !has(mine, write) && !hasSeen(here, write)),
  ]
  // Each side settled without the other's winner: both are before us again.
  return byOrigin(left.length > 0 ? left : [...mine, ...other])
}

/** A site's writes are a chain: of each origin only the last counts. Where one dot has two values, both sites choose the same. */
function byOrigin(writes: readonly Write[]): readonly Write[] {
  const last = new Map<string, Write>()
  for (const write of writes) {
    const known = last.get(write.origin)
    const order =
      known === undefined ? 1 : write.clock - known.clock || (canonical(write.value) > canonical(known.value) ? 1 : -1)
    if (order > 0) last.set(write.origin, write)
  }
  return [...last.values()].sort((a, b) => (a.origin < b.origin ? -1 : 1))
}

function markOfWrites(writes: readonly Write[]): FieldMark {
  const sorted = [...writes].sort((a, b) => (a.origin < b.origin ? -1 : 1))
  const dots = Object.fromEntries(sorted.map(({ origin, clock }) => [origin, clock]))
  return sorted.length === 1
    ? { dots }
    : { dots, values: Object.fromEntries(sorted.map(({ origin, value }) => [origin, value])) }
}

/** Total orders; the dot decides between equals. Null is beaten by every value. */
function preference(rule: FieldRule, numeric: boolean): (a: Write, b: Write) => number {
  if (rule.name === 'site') {
    const wrote = (write: Write) => Number(siteOf(write.origin) === rule.site)
    return (a, b) => wrote(a) - wrote(b) || dotOrder(a, b)
  }
  const sign = rule.name === 'least' ? -1 : 1
  return (a, b) => {
    const nulls = Number(a.value !== null) - Number(b.value !== null)
    return nulls || sign * orderValues(a.value, b.value, numeric) || dotOrder(a, b)
  }
}

function orderValues(a: Json, b: Json, numeric: boolean): number {
  const [left, right] = [textOf(a), textOf(b)]
  if (numeric) {
    const [x, y] = [canonicalDecimal(left), canonicalDecimal(right)]
    if (x !== undefined && y !== undefined) return orderDecimals(x, y)
  }
  return left < right ? -1 : left > right ? 1 : 0
}

/** Elements of all sets, each once, in the order of the writes; what is no set counts as one element, null as none. */
function united(writes: readonly Write[]): Json {
  const all = new Map<string, Json>()
  for (const { value } of [...writes].sort(dotOrder)) {
    for (const element of Array.isArray(value) ? value : value === null ? [] : [value]) {
      if (!all.has(canonical(element))) all.set(canonical(element), element)
    }
  }
  return [...all.values()]
}

type Counter = {
  readonly base: FieldMark['dots']
  readonly sums: Readonly<Record<string, string>>
  readonly dots: FieldMark['dots']
}

/** Undefined when the two do not count from the same base: then they are like any other two values. */
function settleSum(ours: Side, theirs: Side): Settled | undefined {
  const [a, b] = [counterOf(ours.mark), counterOf(theirs.mark)]
  if (a === undefined || b === undefined || !sameJson(a.base, b.base)) return undefined
  const [from, other] = [without(ours.value, a), without(theirs.value, b)]
  if (from === undefined || from !== other) return undefined
  const origins = [...new Set([...Object.keys(a.sums), ...Object.keys(b.sums)])].sort()
  const later = (origin: string) => ((a.dots[origin] ?? 0) >= (b.dots[origin] ?? 0) ? a : b)
  const sums = Object.fromEntries(origins.map((origin) => [origin, later(origin).sums[origin] ?? '0']))
  const dots = Object.fromEntries(origins.map((origin) => [origin, later(origin).dots[origin] ?? 0]))
  const value = addDecimals([from, ...Object.values(sums)])
  if (value === undefined) return undefined
  const mark: FieldMark = origins.length === 0 ? { dots: a.base } : { dots, base: a.base, sums }
  if (sameMark(mark, ours.mark)) return { value: ours.value, mark: ours.mark }
  if (sameMark(mark, theirs.mark)) return { value: theirs.value, mark: theirs.mark }
  return { value: typeof ours.value === 'string' ? value : Number(value), mark }
}

/** A counter with its additions, or one write that nobody has added to yet. */
function counterOf({ dots, base, sums, values }: FieldMark): Counter | undefined {
  if (base !== undefined) return { base, sums: sums ?? {}, dots }
  return values === undefined && Object.keys(dots).length === 1 ? { base: dots, sums: {}, dots: {} } : undefined
}

/** What the counter stood at before anything was added, in canonical form. */
function without(value: Json, counter: Counter): string | undefined {
  if (value === null) return undefined
  return addDecimals([textOf(value), ...Object.values(counter.sums).map(negated)])
}

function negated(decimal: string): string {
  return decimal.startsWith('-') ? decimal.slice(1) : `-${decimal}`
}

const sameDot = (a: Dot, b: Dot) => a.origin === b.origin && a.clock === b.clock
const sameMark = (a: FieldMark | 'own', b: FieldMark | 'own') => a === b || nameOfMark(a) === nameOfMark(b)
const sameField = (a: Settled, b: Settled) => sameJson(a.value, b.value) && sameMark(a.mark, b.mark)
const sameWrites = (a: readonly Write[], b: readonly Write[]) =>
  a.length === b.length && a.every((one) => b.some((two) => sameDot(one, two) && sameJson(one.value, two.value)))

function textOf(value: Json): string {
  return typeof value === 'string' ? value : JSON.stringify(value)
}

/** Marks are the same when they are named the same. Nearly all are one dot. */
function nameOfMark(mark: FieldMark | 'own'): string {
  if (mark === 'own') return mark
  const [origin, ...others] = Object.keys(mark.dots)
  if (others.length > 0 || origin === undefined || Object.keys(mark).length > 1) return canonical(mark)
  return `${mark.dots[origin]} ${origin}`
}

/** JSON with the members of objects in order. */
function canonical(value: unknown): string {
  return JSON.stringify(value, (_key, member: unknown) =>
    typeof member === 'object' && member !== null && !Array.isArray(member) && !('rawJSON' in member)
      ? Object.fromEntries(Object.entries(member).sort(([a], [b]) => (a < b ? -1 : 1)))
      : member,
  )
}
