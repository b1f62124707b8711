import type { Readable } from 'node:stream'
import {
  type EdenMemory,
  findGrant,
  followMerges,
  keepStrangers,
  noteWithin,
  type ReceivedRun,
  type ResourceInfo,
  readEdenMemory,
  receiveChanges,
  redrive,
  seenHere,
  waitingHere,
  writeEdenMemory,
} from '../../store/index.ts'
import {
  type Change,
  type EdenElement,
  type EdenPrints,
  type EdenRecord,
  type EdenStranger,
  edenRecords,
  emptied,
  type Json,
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
import { type Received, Tally } from './tally.ts'

type Link = Parameters<typeof receiveChanges>[1]

/** Top-level elements that are applied together. */
const PORTION = 1_000
/** Elements that wait for the end of the document, as a tuid in them is only known there. */
const WAITING_MAX = 20_000
const ELEMENTS_MAX = 1_000_000
const BODY_BYTES_MAX = 1_073_741_824
/** Files that are fetched while Eden waits for the answer to a push. */
const FILES_MAX = 50
const FILES_MS_MAX = 30_000

/** Why a record is told to Eden again. */
const MISSED = 'it shows an older state than it was told'

/** The run here that a push is, so that it can be listed and taken back. `wrote`: it is in the log, as something became of it. */
export type EdenRun = ReceivedRun & { wrote: boolean }

export type Receiving = {
  readonly table: string
  readonly run: EdenRun
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
  const tally = new Tally(receiving.table, receiving.tables.shapes.get(receiving.table)?.resource)
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
  if (tally.applied > 0 || tally.merged.size > 0) {
    const { id, wrote } = receiving.run
    await redrive(deps.store, link.self, wrote ? id : null, deps.limits)
  }
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
  { shown, run }: Receiving,
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
    const fetched = shown ? await withFiles(deps, link, changes, elementOf, tally) : changes
    const batches = linesOfChanges(resource.name, fetched, refs)
    const push = { resource: resource.name, batches, byHand: !shown, runId: run.id, note: run.note }
    const report = await receiveChanges(store, link, push, limits)
    const { known, skipped, ...did } = report.counts
    run.wrote ||= Object.values(did).some((count) => count > 0)
    tally.report(report, elementOf, resource.name, versions)
  }
  // After what it stands for: a memory of what was never applied would take it for known.
  await writeEdenMemory(
    store.db,
    place,
    arrived.map(({ memory }) => memory),
  )
  if (!shown) return
  const within = records.flatMap(({ change, within }) =>
    within === undefined ? [] : [[change.id, within.id] as const],
  )
  await noteWithin(store.db, place, new Map(within))
}

/** Changes with the files that they name, where this site can call that Eden; one that does not come is named in the log by its number. */
async function withFiles(
  { actions, limits }: ServerDeps,
  { peer }: Link,
  changes: readonly Change[],
  records: ReadonlyMap<string, EdenRecord>,
  tally: Tally,
): Promise<readonly Change[]> {
  if (peer.url === null) return changes
  const done: Change[] = []
  for (const change of changes) {
    const data: Record<string, Json> = change.kind === 'put' ? { ...change.data } : {}
    for (const { column, url } of records.get(change.id)?.uploads ?? []) {
      if (change.kind !== 'put' || tally.fetched + tally.lost >= FILES_MAX || tally.fileMs > FILES_MS_MAX) break
      const began = performance.now()
      const bytes = await actions.fetchEdenFile({ peer, url }).catch((error: unknown) => {
        if (error instanceof SynclineError) return null
        throw error
      })
      tally.fileMs += performance.now() - began
      // A file that would make the record too large must not keep the record back.
      if (bytes !== null && bytes.length * 4 <= limits.recordBytesMax) {
        data[column] = `\\x${bytes.toString('hex')}`
        tally.fetched++
      } else tally.lost++
    }
    done.push(change.kind === 'put' ? { ...change, data } : change)
  }
  return done
}

type Arrived = { readonly change: Change | undefined; readonly memory: EdenMemory }

/** What a record is that Eden shows, and what is known of it from now on. */
function arrive(record: EdenRecord, known: EdenMemory | undefined, { peer }: Link): Arrived {
  const { change, attributes, prints, modifiedOn } = record
  const now = Date.now()
  const memory = known ?? unknownMemory(change.id)
  const deleted = change.kind === 'delete'
  // The address of a file is Eden's own, whoever made the file: it tells nothing of what a record is.
  const files = new Set(record.shape.columns.filter(({ kind }) => kind === 'upload').map(({ field }) => field))
  const bare = <State extends { readonly prints: EdenPrints }>(state: State): State => {
    if (files.size === 0) return state
    return { ...state, prints: Object.fromEntries(Object.entries(state.prints).filter(([field]) => !files.has(field))) }
  }
  const { have, sent } = memory
  const arrived = readArrival(bare({ origin: peer.uuid, modifiedOn, deleted, prints, nowMicros: now * 1_000 }), {
    have: have && bare(have),
    sent: sent && bare(sent),
  })
  const seenFiles = Object.entries(have?.prints ?? {}).filter(([field]) => files.has(field))
  const arrival =
    arrived.kind === 'old' || seenFiles.length === 0
      ? arrived
      : { ...arrived, have: { ...arrived.have, prints: { ...arrived.have.prints, ...Object.fromEntries(seenFiles) } } }
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
