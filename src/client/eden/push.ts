import {
  type EdenMemory,
  emptyReport,
  readEdenMemory,
  readEdenTold,
  type Store,
  strangersWithin,
  writeEdenMemory,
} from '../../store/index.ts'
import {
  type BatchReport,
  type Change,
  changesOfLines,
  type EdenElement,
  type EdenRecord,
  type EdenShape,
  type EdenState,
  edenElement,
  edenUuid,
  hasSeen,
  type LineBatch,
  printsOf,
  type Rejection,
  s3xmlWriter,
  sentTime,
  splitSets,
  type Version,
} from '../../sync/index.ts'
import type { PushPreview } from '../answers.ts'
import type { Pushed } from '../peer-client.ts'
import { PeerError } from '../peer-error.ts'
import { arrive, sameDot, unemptied, unknown } from './arrive.ts'
import { edenRecordsByName, type Shown } from './by-name.ts'
import type { EdenAnswer, EdenRequests } from './requests.ts'
import type { EdenResource } from './resources.ts'
import { uploadColumns, withoutUploads } from './uploads.ts'

/** What pushing to an Eden site works on. */
export type EdenPushing = {
  readonly store: Store
  /** UUID of the Eden site. */
  readonly origin: string
  readonly requests: EdenRequests
  /** Whether the task pulls too: then writes of both sites meet here, and nothing is sent over what was not pulled yet. */
  readonly pulls: boolean
  /** Whether all of a record goes to it, not some columns alone. */
  readonly whole: boolean
  readonly register: (signal: AbortSignal | undefined) => Promise<void>
}

/** Records in one document: Eden's importer takes a time that grows with their square. */
const DOCUMENT_RECORDS = 200

type Outgoing = {
  readonly change: Change
  readonly version: Version
  readonly memory: EdenMemory
  readonly element: EdenElement
  readonly sent: EdenState
}
type Verdict = { readonly memory: EdenMemory; readonly outcome: 'applied' | 'refused'; readonly reason: string }

/**
 * Sends a batch to Eden, in documents of a few hundred records, and finds out by pulling them back what Eden really took: its answer says
 * "updated" for what it refused. What it did not take is refused, with Eden's reason or with what it shows instead, and is sent again later.
 * A record that changed at Eden since it was pulled is not sent: both writes meet here with the next pull.
 */
export async function pushToEden(
  pushing: EdenPushing,
  resource: EdenResource,
  batch: LineBatch,
  signal: AbortSignal | undefined,
): Promise<Pushed> {
  let report = emptyReport()
  let bytes = 0
  if (batch.purged === true) return { report, bytes }
  const changes = splitSets(batch).flatMap(changesOfLines)
  for (let at = 0; at < changes.length; at += DOCUMENT_RECORDS) {
    const part = await pushPart(pushing, resource, changes.slice(at, at + DOCUMENT_RECORDS), signal)
    report = joined(report, part.report)
    bytes += part.bytes
  }
  return { report, bytes }
}

async function pushPart(
  pushing: EdenPushing,
  resource: EdenResource,
  changes: readonly Change[],
  signal: AbortSignal | undefined,
): Promise<Pushed> {
  const { db } = pushing.store
  const known = await readEdenMemory(
    db,
    resource.place,
    changes.map(({ id }) => id),
  )
  const due = changes.filter((change) => isDue(change, known.get(change.id)))
  if (due.length === 0) return { report: counted(changes.length, []), bytes: 0 }
  const before = await shown(pushing, resource, due, signal)
  const fresh = await readEdenMemory(
    db,
    resource.place,
    due.map(({ id }) => id),
  )
  // What other Eden sites told of a record beside its values goes on to one that never had it.
  const told = await readEdenTold(
    db,
    resource.place,
    due.map(({ id }) => id),
  )
  const strangers = await keptInside(pushing, resource, due)
  const outgoingOf = (change: Change, memory: EdenMemory): Outgoing => {
    return makeOutgoing(change, memory, resource, strangers.get(change.id) ?? [])
  }
  const verdicts: Verdict[] = []
  const outgoing: Outgoing[] = []
  for (const change of due) {
    const there = before.get(change.id)
    const own = fresh.get(change.id) ?? unknown(change.id)
    const memory = own.have === undefined ? { ...own, kept: told.get(change.id)?.kept ?? own.kept } : own
    const moved = there !== undefined && movedOn(there, memory)
    if (moved && pushing.pulls)
      verdicts.push(heldBack(memory, 'it was changed at Eden since it was pulled: both writes meet with the next pull'))
    else if (isConcurrent(change, memory) && pushing.pulls)
      verdicts.push(heldBack(memory, 'it was changed at Eden too, and nobody has decided yet'))
    else if (moved) outgoing.push(outgoingOf(change, arrive(there.record, memory, there.at).memory))
    else outgoing.push(outgoingOf(change, memory))
  }
  let bytes = 0
  if (outgoing.length > 0) {
    await writeEdenMemory(
      db,
      resource.place,
      outgoing.map(({ memory, sent }) => ({
        ...memory,
        sent,
        attempts: memory.attempts + 1,
        refused: 'not shown yet',
      })),
    )
    const document = documentOf(outgoing)
    bytes = document.length
    const answer = await sendRegistered(pushing, resource, document, signal)
    const after = await shown(pushing, resource, due, signal)
    for (const each of outgoing) verdicts.push(judge(each, after.get(each.change.id), answer, resource))
  }
  await writeEdenMemory(
    db,
    resource.place,
    verdicts.map(({ memory }) => memory),
  )
  return { report: counted(changes.length - due.length, verdicts), bytes }
}

/** Eden has no word for what left a filter; what it has already, or has gone beyond, need not be sent. */
function isDue(change: Change, memory: EdenMemory | undefined): boolean {
  const { version } = change
  if (change.kind === 'left' || version === undefined) return false
  if (change.kind === 'delete' && memory?.have === undefined && memory?.sent === undefined) return false
  if (memory === undefined || memory.refused !== null || memory.gone || memory.have === undefined) return true
  return !hasSeen(memory.have.version, version)
}

/** Eden shows something else than when it was pulled last. */
function movedOn({ record, at }: Shown, memory: EdenMemory): boolean {
  const { memory: next } = arrive(record, memory, at)
  if (next.have === undefined || memory.have === undefined) return next.have !== undefined && memory.sent === undefined
  return !sameDot(next.have, memory.have) && (memory.sent === undefined || !sameDot(next.have, memory.sent))
}

/** Eden cannot be told of a conflict: it would take one side for the outcome. */
function isConcurrent({ version }: Change, { have }: EdenMemory): boolean {
  return (
    version !== undefined && have !== undefined && !hasSeen(version, have.version) && !hasSeen(have.version, version)
  )
}

function heldBack(memory: EdenMemory, reason: string): Verdict {
  return { memory: { ...memory, refused: reason }, outcome: 'refused', reason }
}

/**
 * Records of tables that are not here, as another Eden told of them inside these: they go on with them. One that does not say when it was changed
 * would be a new write at every Eden it comes to, and is mostly the super-entity of another one.
 */
async function keptInside(
  { store, whole }: EdenPushing,
  { place }: EdenResource,
  changes: readonly Change[],
): Promise<ReadonlyMap<string, readonly EdenElement[]>> {
  const ids = changes.flatMap(({ kind, id }) => (kind === 'put' ? [id] : []))
  if (ids.length === 0 || !whole) return new Map()
  const kept = await strangersWithin(store.db, place, ids)
  const dated = ({ attributes }: EdenElement) => attributes.modified_on !== undefined
  return new Map([...kept].map(([id, elements]) => [id, elements.filter(dated)]))
}

function makeOutgoing(
  whole: Change,
  memory: EdenMemory,
  { shape, shapes }: EdenResource,
  components: readonly EdenElement[],
): Outgoing {
  const version = whole.version as Version
  const change = withoutUploads(whole, uploadColumns(shape))
  const { kept, have } = memory
  // What Eden showed is not older than what it is told now: it takes only what is as new as its own.
  const outgoing = { change, version, kept, notBefore: have?.modifiedOn, components }
  const sent: EdenState = {
    modifiedOn: sentTime(outgoing),
    deleted: change.kind === 'delete',
    prints: { ...filesOf(memory, shape), ...printsOf(change, shape) },
    version,
  }
  const element = edenElement(outgoing, shape, shapes)
  // Eden has no way to empty a reference, and one that says nothing would make a refused push set the record's time.
  const fields = element.fields.filter(({ kind, attributes }) => kind !== 'reference' || attributes.null === undefined)
  // By the name that Eden itself gave it.
  const attributes = memory.uuid === null ? element.attributes : { ...element.attributes, uuid: memory.uuid }
  return { change, version, memory, element: { ...element, attributes, fields }, sent }
}

/** Files stay at Eden as they are. */
function filesOf({ have }: EdenMemory, shape: EdenShape): Readonly<Record<string, string>> {
  const files = shape.columns.filter(({ kind }) => kind === 'upload').map(({ field }) => field)
  return Object.fromEntries(Object.entries(have?.prints ?? {}).filter(([field]) => files.includes(field)))
}

function documentOf(outgoing: readonly Outgoing[]): Buffer {
  const writer = s3xmlWriter()
  const root = { success: 'true', results: String(outgoing.length) }
  return Buffer.from(
    [writer.open(root), ...outgoing.map(({ element }) => writer.element(element)), writer.close()].join(''),
  )
}

/** A site that forgot us is told once more who we are. */
async function sendRegistered(
  pushing: EdenPushing,
  { shape }: EdenResource,
  document: Buffer,
  signal: AbortSignal | undefined,
): Promise<EdenAnswer> {
  try {
    return await pushing.requests.push(shape.table, document, signal)
  } catch (error) {
    if (!(error instanceof PeerError) || error.status !== 403 || !/registration/i.test(error.message)) throw error
    await pushing.register(signal)
    return pushing.requests.push(shape.table, document, signal)
  }
}

/** Some records as Eden shows them now, by id here. */
async function shown(
  pushing: EdenPushing,
  resource: EdenResource,
  changes: readonly Change[],
  signal: AbortSignal | undefined,
): Promise<ReadonlyMap<string, Shown>> {
  const { shape } = resource
  const found = new Map<string, Shown>()
  for await (const { record, at } of edenRecordsByName(
    pushing,
    resource,
    changes.map(({ id }) => edenUuid(id, shape.uuidKey)),
    signal,
  ))
    found.set(record.change.id, { record, at })
  return found
}

/** What Eden shows after a push tells what it took. */
function judge(
  { change, memory, sent }: Outgoing,
  there: Shown | undefined,
  answer: EdenAnswer,
  resource: EdenResource,
): Verdict {
  const said = memory.uuid ?? edenUuid(change.id, resource.shape.uuidKey)
  const error = answer.errors.get(said) ?? null
  const base: EdenMemory = { ...memory, sent, attempts: memory.attempts + 1 }
  const refused = (reason: string): Verdict => ({ memory: { ...base, refused: reason }, outcome: 'refused', reason })
  if (there === undefined) {
    if (change.kind === 'delete')
      return {
        memory: { ...base, have: sent, sent: undefined, refused: null, attempts: 0 },
        outcome: 'applied',
        reason: '',
      }
    return refused(
      error ??
        answer.message ??
        'Eden does not show it: it may have taken it for another record that it knows by another name',
    )
  }
  const arrived = arrive(there.record, base, there.at)
  const has = arrived.memory.have
  const took = has !== undefined && (sameDot(has, sent) || hasAll(there.record, sent))
  if (!took || error !== null)
    return refused(error ?? `Eden shows other values: ${differing(there.record, sent, memory)}`)
  const kept = unemptied(there.record, base)
  const lost = change.kind === 'put' ? lostReferences(there.record, sent, resource) : []
  const short = [
    ...(kept.length > 0 ? [`Eden has no way to be told that a value is empty: it keeps ${kept.join(', ')}`] : []),
    ...(lost.length > 0 ? [`Eden left out ${lost.join(', ')}: it has no such record to refer to`] : []),
  ]
  if (short.length > 0)
    return {
      ...refused(short.join('; ')),
      memory: { ...arrived.memory, refused: short.join('; '), attempts: base.attempts },
    }
  if (sameDot(has, sent)) return { memory: arrived.memory, outcome: 'applied', reason: '' }
  // It took it, and filled in something of its own: a write of Eden behind ours, which the next pull brings.
  const { memory: filled } = arrive(there.record, { ...base, have: sent, sent: undefined }, there.at)
  return { memory: { ...filled, refused: null, attempts: 0 }, outcome: 'applied', reason: '' }
}

/** It has all that was sent, and more: Eden fills in fields of its own. */
function hasAll({ prints, modifiedOn = 0, change }: EdenRecord, sent: EdenState): boolean {
  if (change.kind === 'delete' || sent.deleted || modifiedOn < sent.modifiedOn) return false
  const marks = Object.entries(sent.prints)
  return marks.length > 0 && marks.every(([field, mark]) => prints[field] === mark)
}

function lostReferences({ prints }: EdenRecord, sent: EdenState, { shape }: EdenResource): readonly string[] {
  const references = shape.columns.filter(({ kind }) => kind === 'reference').map(({ field }) => field)
  return references.filter((field) => sent.prints[field] !== undefined && prints[field] === undefined)
}

function differing({ prints, change }: EdenRecord, sent: EdenState, memory: EdenMemory): string {
  if ((change.kind === 'delete') !== sent.deleted) return sent.deleted ? 'it lives on there' : 'it is deleted there'
  const fields = Object.keys(sent.prints).filter(
    (field) => prints[field] !== undefined && prints[field] !== sent.prints[field],
  )
  const same = memory.have !== undefined && fields.every((field) => prints[field] === memory.have?.prints[field])
  return `${fields.slice(0, 10).join(', ') || 'none of what was sent'}${same ? ' as they were before' : ''}`
}

/** What a push would do, as far as it is known here what Eden has. */
export async function previewPush(
  store: Store,
  resource: EdenResource,
  batch: LineBatch,
  living: number,
): Promise<PushPreview> {
  const changes = batch.purged === true ? [] : splitSets(batch).flatMap(changesOfLines)
  const known = await readEdenMemory(
    store.db,
    resource.place,
    changes.map(({ id }) => id),
  )
  const due = changes.filter((change) => isDue(change, known.get(change.id)))
  const lives = ({ id }: Change) => known.get(id)?.have?.deleted === false
  const deletes = due.filter((change) => change.kind === 'delete' && lives(change))
  const puts = due.filter(({ kind }) => kind === 'put')
  const updates = puts.filter(lives).length
  return {
    inserts: puts.length - updates,
    updates,
    deletes: deletes.length,
    living,
    samples: deletes.slice(0, 10).map(({ id }) => id),
    braked: null,
  }
}

function counted(known: number, verdicts: readonly Verdict[]): BatchReport {
  const rejections = verdicts.flatMap(({ memory, outcome, reason }): Rejection[] =>
    outcome === 'refused' ? [{ id: memory.recordId, outcome, code: 'SYNC_PEER_REFUSED', reason }] : [],
  )
  const { counts } = emptyReport()
  return {
    counts: { ...counts, known, applied: verdicts.length - rejections.length, refused: rejections.length },
    rejections,
    truncated: false,
  }
}

function joined(a: BatchReport, b: BatchReport): BatchReport {
  const sum = (name: keyof BatchReport['counts']) => a.counts[name] + b.counts[name]
  const counts = { ...a.counts, known: sum('known'), applied: sum('applied'), refused: sum('refused') }
  return { counts, rejections: [...a.rejections, ...b.rejections], truncated: false }
}
