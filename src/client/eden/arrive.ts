import type { EdenMemory } from '../../store/index.ts'
import {
  type Change,
  type EdenArriving,
  type EdenElement,
  type EdenFault,
  type EdenRecord,
  type EdenShape,
  type EdenShapes,
  type EdenState,
  edenRecords,
  type Json,
  mciIn,
  readArrival,
} from '../../sync/index.ts'

/** What elements of Eden are read with. */
export type ArrivalPlace = {
  readonly shape: EdenShape
  readonly shapes: EdenShapes
  /** UUID of the Eden site. */
  readonly origin: string
  /** Eden's clock when it answered, in seconds since 1970. */
  readonly serverTime: number
  /** Records come with all their fields. */
  readonly exact?: boolean | undefined
}

/** What an element of Eden is here. */
export type Arrived = {
  readonly record: EdenRecord
  /** With the version that it stands for; null for an older state than Eden had shown before. */
  readonly change: Change | null
  readonly memory: EdenMemory
}

/** Why what Eden has already is sent to it again. */
const OLDER = 'Eden shows an older state than before'
/** Eden's clock counts whole seconds, and its answer is on its way for a moment. */
const SLACK_SECONDS = 2

/** The record that an element is, without what stands in it: components are pulled as records of their own. */
export function recordOf(element: EdenElement, { shape, shapes }: ArrivalPlace): EdenRecord | EdenFault | undefined {
  const { records, faults } = edenRecords({ ...element, components: [] }, shapes)
  return faults[0] ?? records.findLast((record) => record.shape === shape && record.attributes === element.attributes)
}

/** True for what only names a record: Eden ends a chain of references with such elements. */
export function isOnlyNamed({ attributes, fields }: EdenElement): boolean {
  return fields.length === 0 && attributes.modified_on === undefined && attributes.deleted === undefined
}

/** What arrives, and what is known of it from now on. */
export function arrive(record: EdenRecord, memory: EdenMemory | undefined, place: ArrivalPlace): Arrived {
  const { change, attributes, prints } = record
  const known = memory ?? unknown(change.id)
  const deleted = change.kind === 'delete'
  const modifiedOn = laterThanShown(record.modifiedOn, known)
  const held = unemptied(record, known)
  const arriving: EdenArriving = {
    origin: place.origin,
    modifiedOn,
    deleted,
    prints: Object.fromEntries(Object.entries(prints).filter(([field]) => !held.includes(field))),
    nowMicros: Math.round(place.serverTime * 1_000_000),
    exact: place.exact,
  }
  // What Eden could not be told to empty is its state all the same: shown again without what was sent, it is no write.
  const arrival = readArrival(arriving, known)
  const next: EdenMemory = {
    ...known,
    uuid: record.uuid ?? known.uuid,
    kept: {
      attributes: deleted ? known.kept.attributes : attributes,
      mci: deleted ? known.kept.mci : mciIn(attributes),
    },
    shownAt: place.serverTime,
    gone: false,
    replacedBy: record.replacedBy ?? null,
  }
  if (arrival.kind === 'old')
    return { record, change: null, memory: { ...next, shownAt: known.shownAt, refused: known.refused ?? OLDER } }
  const have: EdenState = { ...arrival.have, prints }
  const before = [...known.emptied, ...Object.keys(known.have?.prints ?? {})]
  const emptied = deleted ? [] : [...new Set(before)].filter((field) => !Object.hasOwn(prints, field)).sort()
  const isOurs = arrival.kind === 'known' && known.sent !== undefined && sameDot(have, known.sent)
  return {
    record,
    change: {
      ...withEmptied(
        change,
        emptied.filter((field) => !held.includes(field)),
        place.shape,
      ),
      version: have.version,
    },
    memory: {
      ...next,
      have,
      emptied,
      // A write of Eden answers what was sent: whatever becomes of it here is sent as something new.
      sent: isOurs || arrival.kind === 'write' ? undefined : known.sent,
      refused: arrival.kind === 'write' || isOurs || known.sent === undefined ? null : known.refused,
      attempts: arrival.kind === 'write' || isOurs ? 0 : known.attempts,
    },
  }
}

export function unknown(recordId: string): EdenMemory {
  return {
    recordId,
    uuid: null,
    have: undefined,
    sent: undefined,
    emptied: [],
    shownAt: null,
    kept: { attributes: {}, mci: 0 },
    gone: false,
    replacedBy: null,
    refused: null,
    attempts: 0,
  }
}

export function sameDot(a: EdenState, b: EdenState): boolean {
  return a.version.origin === b.version.origin && a.version.clock === b.version.clock
}

/**
 * A time before the last one is a write all the same where it is after the moment in which Eden showed that last one: its clock is behind the one
 * that stamped the record. Without that it is an older state: a refused push set the time back, or Eden was.
 */
function laterThanShown(at: number | undefined, { have, shownAt }: EdenMemory): number | undefined {
  if (at === undefined || have === undefined || shownAt === null || at >= have.modifiedOn) return at
  return at >= shownAt - SLACK_SECONDS ? have.modifiedOn : at
}

/** Fields that were sent as empty and that Eden shows as before: it has no way to empty what is no text. */
export function unemptied({ prints, modifiedOn }: EdenRecord, { have, sent }: EdenMemory): readonly string[] {
  if (have === undefined || sent === undefined || sent.deleted || modifiedOn !== sent.modifiedOn) return []
  return Object.keys(prints).filter(
    (field) => !Object.hasOwn(sent.prints, field) && prints[field] === have.prints[field],
  )
}

/** Eden leaves out what is empty: what it had, and shows no longer, is null now. */
function withEmptied(change: Change, emptied: readonly string[], shape: EdenShape): Change {
  if (change.kind !== 'put' || emptied.length === 0) return change
  const data: Record<string, Json> = { ...change.data }
  const refs = { ...change.refs }
  for (const field of emptied) {
    const column = shape.columns.find((each) => each.field === field && each.attribute === undefined)
    if (column?.kind === 'reference') refs[column.column] = null
    else data[column?.column ?? field] = null
  }
  return { ...change, data, ...(Object.keys(refs).length > 0 && { refs }) }
}
