import { type EdenMemory, readEdenMemory, type Store, seenHere, writeEdenMemory } from '../../store/index.ts'
import {
  type Change,
  type EdenPrints,
  type EdenRecord,
  type EdenState,
  type Json,
  type LineBatch,
  linesOfChanges,
  toldBefore,
  type Version,
} from '../../sync/index.ts'
import { arrive, sameDot } from '../eden/arrive.ts'
import type { EdenResource } from '../eden/resources.ts'
import { type FoundRecord, unknownField } from './reader.ts'

/**
 * What records of a file are here. One with a version is that version. One without is a write of the folder where it says something else than the
 * folder said, or was told, before: so a full dump that comes every night says nothing new, and does not take back what was changed here since.
 * Each record is in `found` once.
 */
export async function takeRecords(
  store: Store,
  resource: EdenResource,
  found: readonly FoundRecord[],
  at: {
    readonly origin: string
    readonly modifiedMs: number
    readonly columns: readonly string[] | null | undefined
    readonly quiet: boolean
  },
): Promise<readonly LineBatch[]> {
  const wanted = found.map((each) => asTaken(each, at.columns))
  const told = wanted.flatMap((each) => (each.told === undefined ? [] : [{ ...each, told: each.told }]))
  const memories = await readEdenMemory(
    store.db,
    resource.place,
    told.map(({ change }) => change.id),
  )
  const { shape, shapes } = resource
  // The time of the file is the latest that anything in it can have been written at.
  const place = {
    shape,
    shapes,
    origin: at.origin,
    serverTime: Math.min(at.modifiedMs, Date.now()) / 1_000,
  }
  const changes: Change[] = []
  const learnt: EdenMemory[] = []
  for (const each of wanted) {
    if (each.told === undefined) {
      changes.push(each.change)
      continue
    }
    const memory = memories.get(each.change.id)
    const arrived = arrive(each.whole ? each.told : completed(each.told, memory), memory, {
      ...place,
      exact: !each.whole,
    })
    // An older state than was shown before has been overtaken: by another file, or by a dump that was made earlier.
    if (arrived.change !== null) changes.push(arrived.change)
    learnt.push({
      ...arrived.memory,
      told: stillTold(memory, arrived.memory),
      refused: null,
      shownAt: Math.floor(place.serverTime),
    })
  }
  const here = await seenHere(store.db, resource.place, versionsOf(changes))
  if (!at.quiet) await writeEdenMemory(store.db, resource.place, learnt)
  // What was merged into another record comes behind it.
  const merged = new Set(learnt.flatMap(({ recordId, replacedBy }) => (replacedBy === null ? [] : [recordId])))
  const fresh = changes
    .filter(({ id }) => !here.has(id))
    .sort((a, b) => Number(merged.has(a.id)) - Number(merged.has(b.id)))
    .map((change) => narrowed(change, at.columns))
  return linesOfChanges(resource.name, fresh, resource.refs)
}

/**
 * A record that names some fields only, with the prints of those that it does not name as they were: what is not named is not sent. Where it says
 * what it was told last, it has all of that.
 */
function completed(told: EdenRecord, memory: EdenMemory | undefined): EdenRecord {
  const { change } = told
  if (change.kind !== 'put') return told
  const named = new Set(fieldsOf(told))
  const over = (base: EdenPrints) => ({
    ...Object.fromEntries(Object.entries(base).filter(([field]) => !named.has(field))),
    ...told.prints,
  })
  const { have, sent } = memory ?? {}
  const asBefore = over(have?.deleted === false ? have.prints : {})
  if (have !== undefined && !have.deleted && same(asBefore, have.prints)) return { ...told, prints: asBefore }
  const states = [...(sent === undefined ? [] : [sent]), ...toldBefore(memory)]
  const echoed = states.find((state) => !state.deleted && same(over(state.prints), state.prints))
  return { ...told, prints: echoed?.prints ?? asBefore }
}

/** What of that which was written before may still come back: all that is behind what was shown. */
function stillTold(before: EdenMemory | undefined, after: EdenMemory): readonly EdenState[] | undefined {
  const { have } = after
  const all = [...(before?.told ?? []), ...(before?.sent === undefined ? [] : [before.sent])]
  const shown = have === undefined ? -1 : all.findIndex((state) => sameDot(state, have))
  const rest = all.slice(shown + 1, after.sent === undefined ? undefined : -1).slice(-EARLIER_MAX)
  return rest.length === 0 ? undefined : rest
}

/** Earlier states of a record that are remembered: what was written so many times, and never shown, is forgotten. */
export const EARLIER_MAX = 20

/** Fields that a record names, as its prints have them. */
function fieldsOf({ change, shape }: EdenRecord): readonly string[] {
  if (change.kind !== 'put') return []
  return [...Object.keys(change.data), ...Object.keys(change.refs ?? {})].flatMap((name) => {
    const column = shape.columns.find((each) => each.column === name)
    return column === undefined ? [name.replace(/^\$k_/, ''), unknownField(name)] : [column.field]
  })
}

/** What is remembered of a record is what was taken of it: a task that takes more finds that the same file says more. */
function asTaken(each: FoundRecord, columns: readonly string[] | null | undefined): FoundRecord {
  if (columns == null || each.change.kind !== 'put') return each
  const change = narrowed(each.change, columns)
  if (each.told === undefined) return { ...each, change }
  const narrow = { ...each.told, change: narrowed(each.told.change, columns) }
  const named = new Set(fieldsOf(narrow))
  const prints = Object.fromEntries(Object.entries(narrow.prints).filter(([field]) => named.has(field)))
  return { ...each, change, told: { ...narrow, prints } }
}

/**
 * One record that stands twice in a file, as what both say of it together: what the second one names counts. Undefined where each has to be taken by
 * itself, one behind the other.
 */
export function joined(first: FoundRecord, second: FoundRecord): FoundRecord | undefined {
  const [a, b] = [first.told, second.told]
  if (a?.change.kind !== 'put' || b?.change.kind !== 'put' || isElement(a) || isElement(b)) return undefined
  const named = new Set(fieldsOf(b))
  const refs = { ...a.change.refs, ...b.change.refs }
  const data = { ...a.change.data, ...b.change.data }
  // A column is a value or a reference, as it was said last.
  for (const name of Object.keys(b.change.data)) delete refs[name]
  for (const name of Object.keys(b.change.refs ?? {})) delete data[name]
  const { refs: _, ...rest } = b.change
  const change: Change = { ...rest, data, ...(Object.keys(refs).length > 0 && { refs }) }
  const kept = Object.entries(a.prints).filter(([field]) => !named.has(field))
  const prints = { ...Object.fromEntries(kept), ...b.prints }
  return { ...second, change, told: { ...b, change, prints } }
}

/** True for what came as an element, with a time and whatever stands beside the values. */
function isElement({ attributes, uploads }: EdenRecord): boolean {
  return uploads.length > 0 || Object.keys(attributes).length > 0
}

function same(a: EdenPrints, b: EdenPrints): boolean {
  const names = Object.keys(a)
  return names.length === Object.keys(b).length && names.every((name) => a[name] === b[name])
}

function versionsOf(changes: readonly Change[]): ReadonlyMap<string, Version> {
  return new Map(changes.flatMap(({ id, version }) => (version === undefined ? [] : [[id, version] as const])))
}

function narrowed(change: Change, columns: readonly string[] | null | undefined): Change {
  if (columns == null || change.kind !== 'put') return change
  const some = <T extends Json | object>(all: Readonly<Record<string, T>>) =>
    Object.fromEntries(Object.entries(all).filter(([name]) => columns.includes(name)))
  const { refs, ...rest } = change
  return {
    ...rest,
    data: some(change.data),
    ...(refs && { refs: some(refs as Record<string, object>) as typeof refs }),
  }
}
