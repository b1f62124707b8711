import type { Readable } from 'node:stream'
import {
  type EdenMemory,
  findGrant,
  followMerges,
  keepStrangers,
  type ResourceInfo,
  readEdenMemory,
  receiveChanges,
  redrive,
  seenHere,
  waitingHere,
  writeEdenMemory,
} from '../../store/index.ts'
import {
  type BatchReport,
  type Change,
  type EdenElement,
  type EdenFault,
  type EdenRecord,
  type EdenStranger,
  edenRecords,
  emptied,
  linesOfChanges,
  mciIn,
  readArrival,
  SynclineError,
  tuidsOf,
  usesTuid,
  type Version,
} from '../../sync/index.ts'
import type { ServerDeps } from '../deps.ts'
import { type EdenTables, withoutFiles } from './asked.ts'
import { elementsIn } from './incoming-body.ts'

type Link = Parameters<typeof receiveChanges>[1]

/** Top-level elements that are applied together. */
const PORTION = 1_000
/** Elements that wait for the end of the document, as a tuid in them is only known there. */
const WAITING_MAX = 20_000
const ELEMENTS_MAX = 1_000_000
const BODY_BYTES_MAX = 1_073_741_824
/** Failed records that the answer shows. */
const SHOWN_MAX = 100

/** Why a record is told to Eden again. */
const MISSED = 'it shows an older state than it was told'

/** A record that was not taken, and why. */
export type NotTaken = {
  readonly resource: string
  readonly table: string
  readonly id: string
  readonly reason: string
  readonly element?: EdenElement
}

/** What became of a push. */
export type Received = {
  /** Records of the table that was pushed. */
  readonly records: number
  /** Files that they name, and that are not fetched here. */
  readonly files: number
  readonly counts: BatchReport['counts']
  readonly notTaken: readonly NotTaken[]
  readonly notTakenCount: number
}

export type Receiving = {
  readonly table: string
  readonly tables: EdenTables
  /** What was sent is what Eden has: it is remembered, and told from what it was sent. False for an import by hand. */
  readonly shown: boolean
}

/** Applies a document of Eden portion by portion, each record within what the peer was granted and with its own outcome. */
export async function receiveEden(
  deps: ServerDeps,
  link: Link,
  body: Readable,
  receiving: Receiving,
): Promise<Received> {
  const { recordBytesMax, depthMax } = deps.limits
  const limits = { recordBytesMax, depthMax, elementsMax: ELEMENTS_MAX, bytesMax: BODY_BYTES_MAX }
  const tally = new Tally(receiving)
  const waiting: EdenElement[] = []
  let portion: EdenElement[] = []
  for await (const elements of elementsIn(body, limits)) {
    for (const element of elements) {
      if (usesTuid(element)) waiting.push(element)
      else portion.push(element)
    }
    if (waiting.length > WAITING_MAX)
      throw new SynclineError('SYNC_REQUEST_TOO_LARGE', `more than ${WAITING_MAX} records of the document use a tuid`)
    if (portion.length >= PORTION) {
      await apply(deps, link, portion, receiving, tally)
      portion = []
    }
  }
  await apply(deps, link, [...portion, ...waiting], receiving, tally)
  // References let go of what was merged away, so that its deletion goes through.
  for (const name of tally.merged) {
    const resource = receiving.tables.resources.get(name)
    if (resource !== undefined)
      await followMerges(deps.store, { peerId: link.peer.id, resourceId: resource.id }, resource)
  }
  if (tally.applied > 0 || tally.merged.size > 0) await redrive(deps.store, link.self, null, deps.limits)
  // What waited for a record further down in the document is there by now.
  for (const [name, versions] of tally.waiting) {
    const resource = receiving.tables.resources.get(name)
    if (resource === undefined) continue
    const still = await waitingHere(deps.store.db, { peerId: link.peer.id, resourceId: resource.id }, versions)
    tally.arrived(name, new Set([...versions.keys()].filter((id) => !still.has(id))))
  }
  return tally.result()
}

async function apply(
  deps: ServerDeps,
  link: Link,
  elements: readonly EdenElement[],
  receiving: Receiving,
  tally: Tally,
): Promise<void> {
  const { tables } = receiving
  const tuids = tuidsOf(elements, tables.shapes)
  const taken = elements.map((element) => edenRecords(element, tables.shapes, tuids))
  for (const fault of taken.flatMap(({ faults }) => faults)) tally.fault(fault)
  await keep(
    deps,
    link,
    taken.flatMap(({ strangers }) => strangers),
    tables,
  )
  const byResource = Map.groupBy(
    taken.flatMap(({ records }) => records),
    ({ shape }) => shape.resource,
  )
  // Records that others refer to go first.
  for (const [name, resource] of tables.resources) {
    const records = byResource.get(name)
    if (records !== undefined) await applyRecords(deps, link, resource, records, receiving, tally)
  }
}

async function applyRecords(
  deps: ServerDeps,
  link: Link,
  resource: ResourceInfo,
  given: readonly EdenRecord[],
  { shown }: Receiving,
  tally: Tally,
): Promise<void> {
  const { store, limits } = deps
  // What a document names twice, as the record and as what another one refers to, is told best by what says the most.
  const records = [...lastOf(given).values()].map((record) => ({
    ...record,
    change: withoutFiles(record.change, record.shape),
  }))
  tally.files += records.reduce((sum, { uploads }) => sum + uploads.length, 0)
  const elementOf = new Map(records.map((record) => [record.change.id, record]))
  if ((await findGrant(store.db, link.peer.id, resource.name, 'push')) === null) {
    for (const record of records)
      tally.refuse(
        record,
        `peer "${link.peer.name}" may not push "${resource.name}"; an administrator of this site can grant it`,
      )
    return
  }
  const place = { peerId: link.peer.id, resourceId: resource.id }
  const known = shown ? await readEdenMemory(store.db, place, [...elementOf.keys()]) : new Map<string, EdenMemory>()
  const arrived = shown ? records.map((record) => arrive(record, known.get(record.change.id), link)) : []
  const candidates: readonly Change[] = shown
    ? arrived.flatMap(({ change }) => change ?? [])
    : records.map(({ change }) => change)
  const versions = new Map(
    candidates.flatMap(({ id, version }) => (version === undefined ? [] : [[id, version] as const])),
  )
  const here = await seenHere(store.db, place, versions)
  const changes = candidates.filter(({ id }) => !here.has(id))
  tally.taken(records)
  const waits = await waitingHere(store.db, place, versions)
  for (const [id, reason] of waits) tally.waits(elementOf.get(id), reason, versions.get(id))
  if (changes.length > 0) {
    const refs = Object.fromEntries(resource.references.map(({ column, resource: target }) => [column.name, target]))
    const batches = linesOfChanges(resource.name, changes, refs)
    const push = { resource: resource.name, batches, byHand: !shown, runId: null }
    const report = await receiveChanges(store, link, push, limits)
    tally.report(report, elementOf, resource.name, versions)
  }
  // After what it stands for: a memory of what was never applied would take it for known.
  await writeEdenMemory(
    store.db,
    place,
    arrived.map(({ memory }) => memory),
  )
}

type Arrived = { readonly change: Change | undefined; readonly memory: EdenMemory }

/** What a record is that Eden shows, and what is known of it from now on. */
function arrive(record: EdenRecord, known: EdenMemory | undefined, { peer }: Link): Arrived {
  const { change, attributes, prints, modifiedOn } = record
  const now = Date.now()
  const memory = known ?? unknownMemory(change.id)
  const deleted = change.kind === 'delete'
  const arrival = readArrival({ origin: peer.uuid, modifiedOn, deleted, prints, nowMicros: now * 1_000 }, memory)
  const before = [...memory.emptied, ...Object.keys(memory.have?.prints ?? {})]
  const told: EdenMemory = {
    ...memory,
    emptied: deleted ? [] : [...new Set(before)].filter((field) => !Object.hasOwn(prints, field)).sort(),
    uuid: record.uuid ?? memory.uuid,
    kept: deleted ? memory.kept : { attributes: { ...memory.kept.attributes, ...attributes }, mci: mciIn(attributes) },
    gone: false,
    replacedBy: record.replacedBy ?? null,
  }
  if (arrival.kind === 'old') return { change: undefined, memory }
  const { version } = arrival.have
  const answered = arrival.kind === 'write' || sameDot(version, memory.sent?.version)
  const shown = { ...told, have: arrival.have, shownAt: Math.floor(now / 1_000) }
  // It was told something newer and shows what it had: it could not import it, and its cursor has passed it by.
  const missed = !answered && memory.sent !== undefined
  return {
    change: { ...(arrival.kind === 'write' ? emptied(record, arrival.emptied) : change), version },
    memory: {
      ...shown,
      sent: answered ? undefined : memory.sent,
      refused: missed ? MISSED : answered ? null : memory.refused,
      attempts: missed ? memory.attempts + 1 : answered ? 0 : memory.attempts,
    },
  }
}

function unknownMemory(recordId: string): EdenMemory {
  const nothing = {
    uuid: null,
    emptied: [],
    have: undefined,
    sent: undefined,
    shownAt: null,
    replacedBy: null,
    refused: null,
  }
  return { recordId, ...nothing, kept: { attributes: {}, mci: 0 }, gone: false, attempts: 0 }
}

function sameDot(a: Version, b: Version | undefined): boolean {
  return a.origin === b?.origin && a.clock === b.clock
}

/** Of the records of one id the one that says the most. */
function lastOf(records: readonly EdenRecord[]): ReadonlyMap<string, EdenRecord> {
  const found = new Map<string, EdenRecord>()
  for (const record of records) {
    const before = found.get(record.change.id)
    if (before === undefined || weight(record) >= weight(before)) found.set(record.change.id, record)
  }
  return found
}

function weight({ change, prints }: EdenRecord): number {
  return change.kind === 'put' ? Object.keys(prints).length : Number.POSITIVE_INFINITY
}

async function keep(
  deps: ServerDeps,
  { peer }: Link,
  strangers: readonly EdenStranger[],
  { resources }: EdenTables,
): Promise<void> {
  const rows = strangers.flatMap(({ element, within }) => {
    const uuid = element.attributes.uuid ?? element.attributes.tuid
    const resourceId = within === undefined ? null : (resources.get(within.resource)?.id ?? null)
    return uuid === undefined ? [] : [{ element, uuid, resourceId, recordId: within?.id ?? null }]
  })
  if (rows.length > 0) await keepStrangers(deps.store.db, peer.id, rows)
}

/** Counts what became of the records. */
class Tally {
  /** Files that records name. */
  files = 0
  /** Resources of which records were merged into others. */
  readonly merged = new Set<string>()
  /** By resource, the versions that wait in quarantine. */
  readonly waiting = new Map<string, Map<string, Version>>()
  readonly #table: string
  readonly #resourceOfTable: string | undefined
  readonly #counts = { applied: 0, known: 0, skipped: 0, merged: 0, conflict: 0, quarantined: 0, refused: 0 }
  #records = 0
  #unnamed = 0
  #notTaken: NotTaken[] = []

  constructor({ table, tables }: Receiving) {
    this.#table = table
    this.#resourceOfTable = tables.shapes.get(table)?.resource
  }

  get applied(): number {
    return this.#counts.applied + this.#counts.merged
  }

  taken(records: readonly EdenRecord[]): void {
    this.#records += records.filter(({ shape }) => shape.table === this.#table).length
    for (const { replacedBy, shape } of records) if (replacedBy !== undefined) this.merged.add(shape.resource)
  }

  fault({ table, uuid = '', reason, element }: EdenFault): void {
    this.#counts.refused++
    this.#notTaken.push({ resource: '', table, id: uuid, reason, element })
  }

  refuse({ shape, change }: EdenRecord, reason: string): void {
    this.#counts.refused++
    this.#notTaken.push({ resource: shape.resource, table: shape.table, id: change.id, reason })
  }

  /** It came before, and waits. */
  waits(record: EdenRecord | undefined, reason: string, version: Version | undefined): void {
    if (record === undefined || version === undefined) return
    const { resource, table } = record.shape
    if (table === this.#table) this.#records--
    this.#counts.quarantined++
    this.#notTaken.push({ resource, table, id: record.change.id, reason })
    this.#wait(resource, record.change.id, version)
  }

  #wait(resource: string, id: string, version: Version): void {
    const waiting = this.waiting.get(resource) ?? new Map<string, Version>()
    this.waiting.set(resource, waiting.set(id, version))
  }

  report(
    { counts, rejections }: BatchReport,
    records: ReadonlyMap<string, EdenRecord>,
    resource: string,
    versions: ReadonlyMap<string, Version>,
  ): void {
    for (const outcome of Object.keys(counts) as (keyof typeof counts)[]) this.#counts[outcome] += counts[outcome]
    const lost = rejections.filter(({ outcome }) => outcome === 'refused' || outcome === 'quarantined')
    this.#unnamed += counts.refused + counts.quarantined - lost.length
    for (const { id, outcome, reason } of lost) {
      const table = records.get(id)?.shape.table ?? resource
      if (table === this.#table) this.#records--
      this.#notTaken.push({ resource, table, id, reason })
      const version = versions.get(id)
      if (outcome === 'quarantined' && version !== undefined) this.#wait(resource, id, version)
    }
  }

  /** Records of a resource that were set aside and have come in since. */
  arrived(resource: string, ids: ReadonlySet<string>): void {
    const rest = this.#notTaken.filter((each) => each.resource !== resource || !ids.has(each.id))
    const found = this.#notTaken.length - rest.length
    this.#notTaken = rest
    this.#counts.quarantined -= found
    this.#counts.applied += found
    if (resource === this.#resourceOfTable) this.#records += found
  }

  result(): Received {
    return {
      records: Math.max(0, this.#records),
      files: this.files,
      counts: this.#counts,
      notTaken: this.#notTaken.slice(0, SHOWN_MAX),
      notTakenCount: this.#notTaken.length + this.#unnamed,
    }
  }
}
