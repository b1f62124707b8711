import { type EdenMemory, readEdenMemory, type Store, seenHere, writeEdenMemory } from '../../store/index.ts'
import {
  type Change,
  type EdenPrints,
  type EdenRecord,
  type Json,
  type LineBatch,
  linesOfChanges,
  type Version,
} from '../../sync/index.ts'
import { arrive } from '../eden/arrive.ts'
import type { EdenResource } from '../eden/resources.ts'
import type { FoundRecord } from './reader.ts'

/**
 * What records of a file are here. One with a version is that version. One without is a write of the folder where it says something else than the
 * folder said, or was told, before: so a full dump that comes every night says nothing new, and does not take back what was changed here since.
 * A record may stand in a file several times; the last of them counts.
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
  const last = [...new Map(found.map((each) => [each.change.id, each])).values()]
  const told = last.flatMap((each) => (each.told === undefined ? [] : [{ ...each, told: each.told }]))
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
  for (const each of last) {
    if (each.told === undefined) {
      changes.push(each.change)
      continue
    }
    const memory = memories.get(each.change.id)
    const arrived = arrive(each.whole ? each.told : completed(each.told, memory), memory, place)
    // An older state than was shown before has been overtaken: by another file, or by a dump that was made earlier.
    if (arrived.change !== null) changes.push(arrived.change)
    learnt.push({ ...arrived.memory, refused: null, shownAt: Math.floor(place.serverTime) })
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
  const named = new Set(
    [...Object.keys(change.data), ...Object.keys(change.refs ?? {})].map((name) => fieldOf(told, name)),
  )
  const over = (base: EdenPrints) => ({
    ...Object.fromEntries(Object.entries(base).filter(([field]) => !named.has(field))),
    ...told.prints,
  })
  const { have, sent } = memory ?? {}
  const asBefore = over(have?.deleted === false ? have.prints : {})
  if (have !== undefined && !have.deleted && same(asBefore, have.prints)) return { ...told, prints: asBefore }
  if (sent !== undefined && !sent.deleted && same(over(sent.prints), sent.prints))
    return { ...told, prints: sent.prints }
  return { ...told, prints: asBefore }
}

function fieldOf({ shape }: EdenRecord, column: string): string {
  return shape.columns.find((each) => each.column === column)?.field ?? column
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
