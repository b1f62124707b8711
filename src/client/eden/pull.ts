import { randomUUID } from 'node:crypto'
import {
  type EdenFollowed,
  endEdenArchive,
  endEdenComparison,
  expectEdenComparison,
  lastEdenComparison,
  offerAgain,
  type Peer,
  readEdenMemory,
  type Store,
  seenHere,
  writeEdenMemory,
} from '../../store/index.ts'
import {
  type Change,
  type EdenElement,
  type LineBatch,
  linesOfChanges,
  SynclineError,
  type Version,
} from '../../sync/index.ts'
import type { ClientSettings, Pulled, PullQuery } from '../peer-client.ts'
import { openArchive } from './archive.ts'
import { type ArrivalPlace, type Arrived, arrive } from './arrive.ts'
import type { EdenDocument } from './document.ts'
import { createNotes } from './notes.ts'
import type { EdenRequests } from './requests.ts'
import type { EdenResource } from './resources.ts'
import { readElements, unreadableLines } from './unreadable.ts'
import { uploadColumns, withoutUploads, withUploads } from './uploads.ts'
import { UP_TO_DATE } from './words.ts'

/** What pulling from an Eden site works on. */
export type EdenPulling = {
  readonly store: Store
  readonly peer: Peer
  readonly requests: EdenRequests
  readonly resourceOf: (name: string) => Promise<EdenResource>
  /** How long a full comparison holds, at least. */
  readonly compareEveryMs: number
  readonly recordsMax: number
  readonly settings: Pick<ClientSettings, 'bodyBytesMax' | 'depthMax'>
}

/** Eden's cursor is the time of a record, in seconds, by whatever clock: so much is asked for again. */
const OVERLAP_SECONDS = 300
/** A full comparison may take this part of the time at most. */
const SCAN_SHARE = 1 / 50

/** A document under way. `since` is where Eden's cursor stands when it was read to its end. */
type Reading = {
  readonly token: string
  readonly document: EdenDocument
  /** From an archive: what came after that is still to be pulled. */
  readonly archived: boolean
  readonly full: boolean
  readonly round: number
  readonly began: number
  page: number
  since: number | null
  bytes: number
  /** Records of it that were new here. */
  records: number
}

/** Where a pull stands: Eden's time up to which everything came, and the page of a document that is being read. */
type Place = { readonly since: number | null; readonly token: string | null; readonly page: number }

export type EdenPuller = {
  readonly pull: (query: PullQuery) => Promise<Pulled>
  /** Looks at everything that Eden has of a resource, and applies nothing: the next pull does. */
  readonly scan: (resource: string, signal?: AbortSignal) => Promise<void>
  readonly close: () => void
}

/**
 * Pulls from Eden in batches. A document is read as it comes, one batch at a time; only when all of it is here does the cursor move. What comes
 * again through the overlap, and is here, is left out. Every now and then everything is asked for: that finds what Eden's cursor skips.
 */
export function createEdenPuller(pulling: EdenPulling): EdenPuller {
  const readings = new Map<string, Reading>()
  const notes = createNotes(pulling)

  async function pull(query: PullQuery): Promise<Pulled> {
    const { resource: name, after, limit = pulling.recordsMax, signal } = query
    const quiet = query.heads === true || query.preview === true
    const resource = await pulling.resourceOf(name)
    const place = readPlace(after)
    const key = quiet ? `${name} quiet` : name
    const reading =
      (await continued(key, place)) ?? (await begin(key, resource, place, { quiet, archives: !quiet }, signal))
    try {
      return await nextPage(key, reading, resource, { ...query, limit: Math.max(1, limit) }, place, quiet)
    } catch (error) {
      end(key)
      if (!reading.archived || signal?.aborted || !(error instanceof SynclineError)) throw error
      // What it brought before it broke is here, and left out when everything comes.
      await endEdenArchive(pulling.store.db, resource.place)
      await notes.log(resource, 'fetch archive', 'warning', `${error.message}; everything is pulled instead`)
      return pull(query)
    }
  }

  async function continued(key: string, { token, page }: Place): Promise<Reading | undefined> {
    const reading = readings.get(key)
    return reading !== undefined && reading.token === token && reading.page === page ? reading : undefined
  }

  async function begin(
    key: string,
    resource: EdenResource,
    { since }: Place,
    { quiet, archives }: { readonly quiet: boolean; readonly archives: boolean },
    signal: AbortSignal | undefined,
  ): Promise<Reading> {
    end(key)
    const last = await lastEdenComparison(pulling.store.db, resource.place)
    const before = last.comparedAt ?? last.archivedAt
    const due = before === null ? 0 : Date.parse(before) + Math.max(pulling.compareEveryMs, last.tookMs / SCAN_SHARE)
    const full = since === null || (!quiet && Date.now() >= due)
    const asked = {
      table: resource.shape.table,
      filters: last.dataset?.filters,
      ...(!full && since !== null && { since: Math.max(0, since - OVERLAP_SECONDS) }),
    }
    const began = performance.now()
    const first = archives && since === null && before === null && last.dataset !== null
    const archived = first ? await archivedDocument(resource, last.dataset, signal) : null
    const document = archived ?? (await pulling.requests.pull(asked, signal))
    const reading: Reading = {
      token: randomUUID(),
      document,
      archived: archived !== null,
      full: full && archived === null,
      round: last.round + 1,
      began,
      page: 0,
      since,
      bytes: 0,
      records: 0,
    }
    readings.set(key, reading)
    return reading
  }

  /** A first copy may come from an archive; where that does not work, it is pulled as ever. */
  async function archivedDocument(
    resource: EdenResource,
    dataset: EdenFollowed,
    signal: AbortSignal | undefined,
  ): Promise<EdenDocument | null> {
    try {
      return await openArchive(pulling.requests, dataset, pulling.settings, signal)
    } catch (error) {
      if (signal?.aborted || !(error instanceof SynclineError)) throw error
      await notes.log(resource, 'fetch archive', 'warning', `${error.message}; everything is pulled instead`)
      return null
    }
  }

  /** Pages without anything new are passed over here: they need no batch. */
  async function nextPage(
    key: string,
    reading: Reading,
    resource: EdenResource,
    query: PullQuery & { readonly limit: number },
    { since }: Place,
    quiet: boolean,
  ): Promise<Pulled> {
    const { document } = reading
    for (;;) {
      const elements = await document.next(query.limit)
      const ended = elements.length === 0
      const batches = ended ? [] : await take(reading, resource, query, elements, quiet)
      const count = batches.reduce((sum, batch) => sum + batch.count, 0)
      reading.records += count
      if (ended) await finish(key, reading, resource, quiet, query.runId)
      if (count === 0 && !ended) continue
      reading.page++
      const bytes = document.bytes() - reading.bytes
      reading.bytes = document.bytes()
      const checkpoint = ended
        ? writePlace({ since: reading.since, token: null, page: 0 })
        : writePlace({ since, token: reading.token, page: reading.page })
      const last = batches.at(-1) ?? empty(resource.name)
      const more = !ended || reading.archived
      const next = { checkpoint, more }
      return {
        batches: [...batches.slice(0, -1), { ...last, next }],
        count,
        checkpoint,
        more,
        bytes,
        told: null,
      }
    }
  }

  async function take(
    reading: Reading,
    resource: EdenResource,
    query: PullQuery,
    elements: readonly EdenElement[],
    quiet: boolean,
  ): Promise<readonly LineBatch[]> {
    const { db } = pulling.store
    const place: ArrivalPlace = {
      shape: resource.shape,
      shapes: resource.shapes,
      origin: pulling.peer.uuid,
      serverTime: reading.document.serverTime,
    }
    const { records, faults, unreadable } = readElements(elements, place)
    // A record may stand in a document twice, as itself and as what another one refers to.
    const byId = new Map(records.map((record) => [record.change.id, record]))
    const memories = await readEdenMemory(db, resource.place, [...byId.keys()])
    const arrived = [...byId.values()].map((record) => arrive(record, memories.get(record.change.id), place))
    for (const { modifiedOn = 0 } of byId.values()) {
      // A record from the future would hide all that is written until then.
      reading.since = Math.max(reading.since ?? 0, Math.min(modifiedOn, place.serverTime))
    }
    if (!quiet) {
      await writeEdenMemory(
        db,
        resource.place,
        arrived.map(({ memory }) => memory),
        reading.full ? reading.round : 0,
      )
      await notes.offerOlder(resource, arrived)
      await notes.noteStrangers(elements, resource)
      await notes.noteFaults(resource, faults)
    }
    const changes = arrived.flatMap(({ change }) => (change === null ? [] : [change]))
    const here = await seenHere(db, resource.place, versionsOf(changes))
    const unseen = changes.filter(({ id }) => !here.has(id))
    const broken = unreadableLines(resource.name, unseen, unreadable)
    const fresh = unseen.filter(({ id }) => !unreadable.has(id)).map((change) => narrowed(change, query.columns))
    const files = uploadColumns(resource.shape)
    if (quiet)
      return linesOfChanges(
        resource.name,
        fresh.map((change) => withoutUploads(change, files)),
        resource.refs,
      )
    const fetched = await withUploads(pulling.requests, inOrder(fresh, arrived), byId, files, query.signal)
    await notes.noteMissing(resource, fetched.missing)
    const batches = linesOfChanges(resource.name, fetched.changes, resource.refs)
    return broken.count === 0 ? batches : [...batches, broken]
  }

  async function finish(
    key: string,
    reading: Reading,
    resource: EdenResource,
    quiet: boolean,
    runId?: string,
  ): Promise<void> {
    readings.delete(key)
    if (runId !== undefined && !quiet && reading.records === 0) {
      const durationMs = performance.now() - reading.began
      const { action, message } = UP_TO_DATE
      await notes.log(resource, action, 'success', message, { runId, durationMs, bytes: reading.bytes })
    }
    const { db } = pulling.store
    if (reading.archived) {
      reading.document.close()
      await endEdenArchive(db, resource.place)
      const message = `Data imported successfully (${reading.records} records), from archive`
      await notes.log(resource, 'fetch archive', 'success', message, { ...(runId !== undefined && { runId }) })
    }
    if (quiet || !reading.full) return
    const gone = await endEdenComparison(db, resource.place, reading.round, performance.now() - reading.began)
    if (gone.length === 0) return
    await db.transaction().execute((trx) => offerAgain(trx, resource.place.resourceId, gone))
    await notes.log(
      resource,
      'compare',
      'warning',
      `${pulling.peer.name} no longer shows ${gone.length} records, such as ${gone[0]}, and does not say that they were deleted: they stay here, and are offered to it again`,
    )
  }

  function end(key: string): void {
    readings.get(key)?.document.close()
    readings.delete(key)
  }

  return {
    pull,
    scan: async (name, signal) => {
      const resource = await pulling.resourceOf(name)
      const reading = await begin(
        `${name} scan`,
        resource,
        { since: null, token: null, page: 0 },
        { quiet: false, archives: false },
        signal,
      )
      try {
        const query = { resource: name, after: null }
        for (;;) {
          const elements = await reading.document.next(pulling.recordsMax)
          if (elements.length === 0) break
          await take(reading, resource, query, elements, false)
        }
        await finish(`${name} scan`, reading, resource, false)
        await expectEdenComparison(pulling.store.db, resource.place)
      } finally {
        end(`${name} scan`)
      }
    },
    close: () => {
      for (const key of [...readings.keys()]) end(key)
    },
  }
}

function versionsOf(changes: readonly Change[]): ReadonlyMap<string, Version> {
  return new Map(changes.flatMap(({ id, version }) => (version === undefined ? [] : [[id, version] as const])))
}

/** What was merged into another record comes behind it. */
function inOrder(changes: readonly Change[], arrived: readonly Arrived[]): readonly Change[] {
  const merged = new Set(
    arrived.filter(({ memory }) => memory.replacedBy !== null).map(({ record }) => record.change.id),
  )
  return [...changes.filter(({ id }) => !merged.has(id)), ...changes.filter(({ id }) => merged.has(id))]
}

function narrowed(change: Change, columns: readonly string[] | null | undefined): Change {
  if (columns == null || change.kind !== 'put') return change
  const some = <T>(all: Readonly<Record<string, T>>) =>
    Object.fromEntries(Object.entries(all).filter(([name]) => columns.includes(name)))
  return { ...change, data: some(change.data), ...(change.refs && { refs: some(change.refs) }) }
}

function empty(resource: string): LineBatch {
  return { resource, columns: [], refs: {}, origins: [], text: '', count: 0 }
}

const PLACE = /^eden:(\d{1,12}|-)(?::([0-9a-f-]{36})\.(\d{1,9}))?$/

function readPlace(after: string | null): Place {
  if (after === null) return { since: null, token: null, page: 0 }
  const [matched, since, token, page = '0'] = PLACE.exec(after) ?? []
  if (matched === undefined)
    throw new SynclineError('SYNC_CHECKPOINT_GONE', `the checkpoint ${after.slice(0, 80)} is not one of an Eden site`)
  return { since: since === '-' ? null : Number(since), token: token ?? null, page: Number(page) }
}

function writePlace({ since, token, page }: Place): string {
  return `eden:${since ?? '-'}${token === null ? '' : `:${token}.${page}`}`
}
