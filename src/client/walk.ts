import {
  type Digest,
  type DigestScope,
  deepDigest,
  deepRecords,
  digestOf,
  digestRecords,
  type KeyRange,
  type Store,
  strayRows,
} from '../store/index.ts'
import { sameTotal } from '../sync/index.ts'
import { type Asking, askDeep, askDeepRecords, askRanges, askRecords, askStrays } from './digest-client.ts'

/**
 * missing here, missing there: only the other side has the record · version: it is another version · content: the same version with other values ·
 * row gone: a record whose row was deleted behind the triggers · row unknown: a row that was inserted behind the triggers.
 */
export type What =
  | 'missing here'
  | 'missing there'
  | 'version'
  | 'content'
  | 'row gone here'
  | 'row gone there'
  | 'row unknown here'
  | 'row unknown there'

/** One record that differs. `touched` tells on which sides the row was written after its version: that is where it was edited behind the triggers. */
export type Difference = {
  readonly id: string
  readonly what: What
  readonly touched?: { readonly here: boolean; readonly there: boolean }
  /** A repair leaves it: nobody can say which side has lost something. */
  readonly left?: true
}

export type Walk = {
  readonly store: Store
  readonly scope: DigestScope
  readonly to: Asking
  /** Where the search ends. */
  readonly namedMax: number
  /** Leaves out what a link in one direction does not cover. */
  readonly counts: (difference: Difference) => boolean
  readonly found: Difference[]
}

/** Pieces that a range is divided into at each step down. */
const BUCKETS = 64
/** A range of so few records is compared one by one; a peer lists no more. */
const SMALL = 1_000
/** Records whose values are read in one step, on either side. */
const DEEP_ROWS = 5_000
/** Rows looked through for strays in one step. */
const STRAY_ROWS = 20_000

/**
 * Adds the records whose versions differ in a range. A range that agrees is left alone, another one divided until it is small, by the side that has
 * more in it: so every step leads to less. `theirs` is the peer's digest of the range where it is known already.
 */
export async function walkVersions(walk: Walk, range: KeyRange, theirs?: Digest): Promise<void> {
  const { db } = walk.store
  const [[there], [here]] = await Promise.all([
    theirs === undefined ? askRanges(walk.to, range, 1).then(({ ranges }) => ranges) : [theirs],
    digestOf(db, walk.scope, range),
  ])
  if (there === undefined || here === undefined) return
  if (same(here, there)) return
  if (Math.max(there.count, here.count) <= SMALL) return compareRecords(walk, range)
  const byThem = there.count >= here.count
  const pieces = byThem
    ? (await askRanges(walk.to, range, BUCKETS)).ranges
    : await digestOf(db, walk.scope, range, BUCKETS)
  for (const piece of pieces) {
    if (isFull(walk)) return
    await walkVersions(walk, { from: piece.from, to: piece.to }, byThem ? piece : undefined)
  }
}

async function compareRecords(walk: Walk, range: KeyRange): Promise<void> {
  const [theirList, ourList] = await Promise.all([
    askRecords(walk.to, range),
    digestRecords(walk.store.db, walk.scope, range, SMALL),
  ])
  const theirs = new Map(theirList.map(({ id, hash }) => [id, hash]))
  const ours = new Map(ourList.map(({ id, hash }) => [id, hash]))
  for (const id of inKeyOrder([...theirs.keys(), ...ours.keys()])) {
    if (theirs.get(id) === ours.get(id)) continue
    add(walk, { id, what: !ours.has(id) ? 'missing here' : theirs.has(id) ? 'version' : 'missing there' })
  }
}

export type DeepFound = {
  /** Columns whose values were compared. */
  readonly compared: readonly string[]
  /** Columns of one side only, or of another type there: their values were not. */
  readonly left: readonly string[]
  readonly checked: number
}

/**
 * Adds the records that differ in version or values, on either side also those that were changed behind the triggers. Reads both tables in pieces of a
 * few thousand rows, each a short statement of its own.
 */
export async function walkValues(
  walk: Walk,
  ours: readonly { readonly name: string; readonly type: string }[],
  columnsOf: (names: readonly string[]) => Parameters<typeof deepDigest>[1]['compared'],
): Promise<DeepFound> {
  const first = await askDeep(
    walk.to,
    { from: null, to: '' },
    ours.map(({ name }) => name),
    1,
  )
  const alike = ours.filter(({ name, type }) =>
    first.columns.some((other) => other.name === name && other.type === type),
  )
  const compared = alike.map(({ name }) => name)
  const left = ours.map(({ name }) => name).filter((name) => !compared.includes(name))
  const scope = { ...walk.scope, compared: columnsOf(compared) }
  let checked = 0
  for (let from: string | null = null, more = true; more && !isFull(walk); ) {
    const range: KeyRange = { from, to: null }
    const [{ digest: there }, here] = await Promise.all([
      askDeep(walk.to, range, compared, DEEP_ROWS),
      deepDigest(walk.store.db, scope, range, DEEP_ROWS),
    ])
    const to: string | null = nearer(here.to, there.to)
    if (here.to !== there.to || !same(here, there) || here.rowless + there.rowless > 0) {
      checked += await compareDeep(walk, scope, { from, to }, compared)
    } else checked += here.count
    from = to
    more = to !== null
  }
  await addStrays(walk)
  return { compared, left, checked }
}

async function compareDeep(
  walk: Walk,
  scope: Parameters<typeof deepDigest>[1],
  range: KeyRange,
  compared: readonly string[],
): Promise<number> {
  const [theirList, ourList] = await Promise.all([
    askDeepRecords(walk.to, range, compared, DEEP_ROWS),
    deepRecords(walk.store.db, scope, range, DEEP_ROWS),
  ])
  const theirs = new Map(theirList.map((each) => [each.id, each]))
  const ours = new Map(ourList.map((each) => [each.id, each]))
  for (const id of inKeyOrder([...theirs.keys(), ...ours.keys()])) {
    const [here, there] = [ours.get(id), theirs.get(id)]
    if (here?.content === null) add(walk, { id, what: 'row gone here' })
    if (there?.content === null) add(walk, { id, what: 'row gone there' })
    if (here === undefined || there === undefined) {
      add(walk, { id, what: here === undefined ? 'missing here' : 'missing there' })
    } else if (here.version !== there.version) add(walk, { id, what: 'version' })
    else if (here.content !== there.content && here.content !== null && there.content !== null) {
      add(walk, { id, what: 'content', touched: { here: here.touched, there: there.touched } })
    }
  }
  return ours.size
}

/** Rows without a record are in no digest: each side looks through its own table. */
async function addStrays(walk: Walk): Promise<void> {
  const here = (after: string | null) => strayRows(walk.store.db, walk.scope, after, STRAY_ROWS)
  const there = (after: string | null) => askStrays(walk.to, after)
  for (const [what, look] of [
    ['row unknown here', here],
    ['row unknown there', there],
  ] as const) {
    for (let after: string | null = null, more = true; more && !isFull(walk); ) {
      const page: Awaited<ReturnType<typeof look>> = await look(after)
      for (const id of page.ids) add(walk, { id, what })
      after = page.after
      more = after !== null
    }
  }
}

function add(walk: Walk, difference: Difference): void {
  if (!isFull(walk) && walk.counts(difference)) walk.found.push(difference)
}

export function isFull({ found, namedMax }: Walk): boolean {
  return found.length >= namedMax
}

function same(a: Digest, b: Digest): boolean {
  return sameTotal({ records: a.count, sum: a.sum }, { records: b.count, sum: b.sum })
}

function inKeyOrder(ids: readonly string[]): readonly string[] {
  return [...new Set(ids)].sort(byBytes)
}

function byBytes(a: string, b: string): number {
  return Buffer.compare(Buffer.from(a), Buffer.from(b))
}

/** The end of the shorter of two pieces; null is the end of everything. */
function nearer(a: string | null, b: string | null): string | null {
  if (a === null || b === null) return a ?? b
  return byBytes(a, b) <= 0 ? a : b
}
