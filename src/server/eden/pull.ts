import {
  appendLog,
  checkpointAtHead,
  dueAgain,
  isEdenRegistered,
  type ResourceInfo,
  readEdenTrail,
  readWithin,
  serveChanges,
  writeCheckpoint,
  writeEdenTrail,
} from '../../store/index.ts'
import {
  changesOfLines,
  type EdenElement,
  type EdenPlaces,
  type EdenTrail,
  type EdenWriter,
  emptyS3xml,
  followTrail,
  type LineBatch,
  noteAnswer,
  parseCheckpoint,
  placesOf,
  type Reference,
  readEdenTime,
  SynclineError,
} from '../../sync/index.ts'
import type { ServerDeps } from '../deps.ts'
import { type EdenAsked, type EdenTables, filtersOf, grantedTable, ownRepository } from './asked.ts'
import { outgoing } from './outgoing.ts'
import { Seen } from './seen.ts'
import { grantedSource } from './source.ts'

type Link = Parameters<typeof serveChanges>[1]
type Place = { readonly peerId: number; readonly resourceId: number }

/** Records of the first batch, so that its bytes leave at once, and of the largest. */
const FIRST_ROWS = 100
const ROWS_MAX = 1_000
/** Records that one answer tells again. */
const MISSED_MAX = 1_000
/** No origin has this number. */
const NO_SITE = 0
/** Bytes of one piece of the answer. */
const PIECE_BYTES = 65_536

export type EdenDocument = {
  readonly mediaType: string
  /** Everything of the first batch is known before it begins, so a failure of it still has a status of its own. */
  readonly pieces: AsyncIterable<string>
}

/** Where an answer begins, and where it leaves its mark. */
type Course = { readonly place: Place; readonly trail: EdenTrail | null; readonly places: EdenPlaces }

/**
 * Records of a table as a document of Eden, in the order of this site. What a registered peer has is followed by the times that it asks with
 * (EdenTrail); `msince` itself only narrows what somebody is told whom this site does not follow.
 */
export async function edenDocument(
  deps: ServerDeps,
  link: Link,
  asked: EdenAsked,
  tables: EdenTables,
  writer: EdenWriter,
): Promise<EdenDocument> {
  const { store, limits } = deps
  const began = performance.now()
  const { shape, resource } = await grantedTable(store, tables, link.peer, asked.table, 'pull')
  const own = ownRepository(asked, link.peer, await isEdenRegistered(store.db, link.peer.id))
  // Who leaves something out would seem to have taken it.
  const followed = own && asked.way !== 'plain' && asked.includeDeleted && asked.start === 0 && asked.limit === null
  const source = grantedSource(deps, link)
  const { byTable: filters, inside } = await filtersOf(store, source, asked, shape, tables)
  const course = await courseOf(deps, link, resource, followed ? asked.msince : undefined)
  const context = {
    ...{ deps, source, tables, filters, includeDeleted: asked.includeDeleted, remembered: own },
    since: followed || asked.msince === null ? 0 : (readEdenTime(asked.msince) ?? 0),
  }
  const { tell, tellAs, follow, may } = outgoing(context)
  const seen = new Seen()
  /** Names of records that the format has no characters for: each stays behind alone (I8). */
  const unsaid: string[] = []
  const write = (element: EdenElement): string => {
    try {
      return writer.element(element)
    } catch (error) {
      if (!(error instanceof SynclineError) || error.code !== 'SYNC_FORMAT_INVALID') throw error
      unsaid.push(element.attributes.uuid ?? '')
      return ''
    }
  }
  const state = { places: course.places, records: 0, from: Number.POSITIVE_INFINITY, until: 0, restarted: false }
  const heads = new Map<string, string>()
  // Who is not followed wants what there is, also what came from himself.
  const whole = followed ? link : { ...link, peer: { ...link.peer, siteId: NO_SITE } }
  const serve = (name: string, after: string | undefined, limit: number) => {
    const filter = filters.get(tableOf(tables, name))
    return serveChanges(store, whole, { resource: name, after, limit, filter, quiet: !followed }, limits)
  }

  const first = await serveFirst()
  return {
    mediaType: writer.mediaType,
    pieces: inPieces(logged(deps, link, asked, began, pieces, () => state.records, unsaid)),
  }

  /** The first batch, from the beginning when this site began a new log since. */
  async function serveFirst(): Promise<LineBatch> {
    try {
      return await serve(resource.name, course.places[resource.name], FIRST_ROWS)
    } catch (error) {
      if (!(error instanceof SynclineError) || error.code !== 'SYNC_CHECKPOINT_GONE') throw error
      state.places = {}
      return serve(resource.name, undefined, FIRST_ROWS)
    }
  }

  async function* pieces(): AsyncIterable<string> {
    // What stands inside a record goes with it: of components only what changed beside them is looked for.
    for (const { component } of await componentsOf()) {
      const head = await checkpointAtHead(store, link, component, filters.get(tableOf(tables, component.name)))
      if (head !== undefined) heads.set(component.name, head)
    }
    const later: EdenElement[] = []
    let opened = false
    const pages = paging(asked)
    const open = (all: boolean): string => {
      opened = true
      return writer.open(rootOf(deps, asked, all ? pages.sent() : null))
    }
    for (let batch: LineBatch = first, limit = FIRST_ROWS; ; ) {
      // A record that changed meanwhile comes once more in a document of its own: Eden takes two of one name for two.
      if (idsOf(batch).some((id) => seen.has({ resource: resource.name, id }))) break
      const told = await tellAs(write, batch, resource, shape, { inside })
      const page = pages.take(told.elements.length)
      const elements = told.elements.slice(page.from, page.until)
      for (const id of told.ids) seen.add({ resource: resource.name, id })
      note(told.seconds)
      const more = batch.next?.more === true && !page.last
      if (!opened && elements.length > 0) yield open(!more)
      yield* elements
      if (batch.next !== undefined) state.places = { ...state.places, [resource.name]: batch.next.checkpoint }
      const referred = await follow(told.references.slice(page.from, page.until).flat(), isTold)
      if (writer.mediaType === 'text/xml') yield* referred.map(write)
      else later.push(...referred)
      if (!more) break
      limit = Math.min(limit * 4, ROWS_MAX, limits.batchRowsMax)
      batch = await serve(resource.name, batch.next?.checkpoint, limit)
    }
    for await (const element of missedBefore()) {
      if (!opened) yield open(false)
      yield write(element)
    }
    for await (const element of changedInside()) {
      if (!opened) yield open(false)
      yield write(element)
    }
    // In S3JSON the records of a table stand together.
    for (const some of Map.groupBy(later, ({ table }) => table).values()) yield* some.map(write)
    await mark()
    if (opened) yield writer.close()
    else yield emptyDocument(deps, asked, writer)
  }

  /** Records of the table itself come by themselves, or came before. */
  function isTold(reference: Reference): boolean {
    return reference.resource === resource.name || !seen.add(reference)
  }

  /** What was told before and is not there. */
  async function* missedBefore(): AsyncIterable<EdenElement> {
    if (course.trail === null) return
    const due = await dueAgain(store.db, course.place, MISSED_MAX)
    const ids = due.filter((id) => seen.add({ resource: resource.name, id }))
    const request = { resource: resource.name, ids, filter: filters.get(shape.table), deleted: true }
    for (const batch of await source.chosen(request)) {
      const told = await tell(batch, resource, shape, { inside, unproved: true })
      note(told.seconds)
      yield* told.elements
    }
  }

  /** Masters that did not change themselves, with what changed inside of them. */
  async function* changedInside(): AsyncIterable<EdenElement> {
    if (course.trail === null) return
    for (const { component, column } of await componentsOf()) {
      const after = state.places[component.name]
      const head = heads.get(component.name)
      if (head === undefined) continue
      if (after === undefined) {
        // From the beginning every record carried what stands inside of it.
        state.places = { ...state.places, [component.name]: head }
        continue
      }
      for (let at: string | undefined = after; ; ) {
        const batch: LineBatch = await serve(component.name, at, ROWS_MAX)
        const gone = await deletedInside(batch, component)
        // One that was told already in this document is told again in the next one, with what was deleted in it.
        const late = [...gone.keys()].some((id) => seen.has({ resource: resource.name, id }))
        for (const told of await mastersOf(batch, column, [...gone.keys()])) {
          note(told.seconds)
          yield* told.elements.map((element, n) => withComponents(element, gone.get(told.ids[n] ?? '')))
        }
        if (late) break
        at = batch.next?.checkpoint
        if (at !== undefined) state.places = { ...state.places, [component.name]: at }
        if (batch.next?.more !== true) break
      }
    }
  }

  async function mastersOf(batch: LineBatch, column: string, others: readonly string[]) {
    const ids = new Set<string>()
    const masters = changesOfLines(batch).flatMap((change) => {
      const master = change.kind === 'put' ? change.refs?.[column] : undefined
      return master == null ? [] : [master.id]
    })
    for (const id of [...masters, ...others]) if (seen.add({ resource: resource.name, id })) ids.add(id)
    const filter = filters.get(shape.table)
    const batches = await source.chosen({ resource: resource.name, ids: [...ids], filter })
    return Promise.all(batches.map((each) => tell(each, resource, shape, { inside })))
  }

  /** Deletions among changes of a component, by the record that each stood in when this Eden was told of it. */
  async function deletedInside(
    batch: LineBatch,
    component: ResourceInfo,
  ): Promise<ReadonlyMap<string, readonly EdenElement[]>> {
    const found = new Map<string, EdenElement[]>()
    const own = tables.shapes.get(tableOf(tables, component.name))
    const lines = batch.text.split('\n').filter((line) => line.split('\t', 5)[4] === 'd')
    if (own === undefined || lines.length === 0) return found
    const told = await tell({ ...batch, text: lines.join('\n'), count: lines.length }, component, own)
    const within = await readWithin(store.db, { peerId: source.peerId, resourceId: component.id }, told.ids)
    for (const [n, id] of told.ids.entries()) {
      const [master, element] = [within.get(id), told.elements[n]]
      if (master !== undefined && element !== undefined) found.set(master, [...(found.get(master) ?? []), element])
    }
    return found
  }

  async function componentsOf() {
    const found = []
    for (const { table, column } of shape.components) {
      const component = tables.resources.get(tables.shapes.get(table)?.resource ?? '')
      if (component !== undefined && (await may('pull', component.name))) found.push({ component, column })
    }
    return found
  }

  function note(seconds: readonly number[]): void {
    for (const second of seconds) {
      state.from = Math.min(state.from, second)
      state.until = Math.max(state.until, second)
    }
    state.records += seconds.length
  }

  /** Before the last bytes leave: who could read the document may ask with what was in it. */
  async function mark(): Promise<void> {
    if (course.trail === null) return
    const told = state.records === 0 ? null : { from: state.from, until: state.until }
    await writeEdenTrail(store.db, course.place, noteAnswer(course.trail, state.places, told))
  }
}

/** `msince` undefined: nobody follows. */
async function courseOf(
  { store }: ServerDeps,
  { self, peer }: Link,
  resource: ResourceInfo,
  msince: string | null | undefined,
): Promise<Course> {
  const place = { peerId: peer.id, resourceId: resource.id }
  if (msince === undefined) return { place, trail: null, places: {} }
  const trail = followTrail(await readEdenTrail(store.db, place), msince)
  const places = placesOf(trail)
  const taken = places[resource.name]
  // Tombstones wait for it as for the acknowledgement of any peer.
  if (taken !== undefined && parseCheckpoint(taken).logId.split('.')[0] === self.logId)
    await writeCheckpoint(store.db, peer.id, resource.id, 'ack', taken)
  return { place, trail, places }
}

function withComponents(element: EdenElement, more: readonly EdenElement[] = []): EdenElement {
  return more.length === 0 ? element : { ...element, components: [...element.components, ...more] }
}

function tableOf({ shapes }: EdenTables, resource: string): string {
  for (const shape of shapes.values()) if (shape.resource === resource) return shape.table
  return resource
}

/** Which of the records of a page are sent. */
function paging({ start, limit }: EdenAsked) {
  let [passed, sent] = [0, 0]
  return {
    take(count: number): { readonly from: number; readonly until: number; readonly last: boolean } {
      const from = Math.min(count, Math.max(0, start - passed))
      const until = limit === null ? count : Math.min(count, from + limit - sent)
      passed += count
      sent += until - from
      return { from, until, last: limit !== null && sent >= limit }
    },
    sent: () => sent,
  }
}

function rootOf({ publicUrl }: ServerDeps, asked: EdenAsked, results: number | null): Record<string, string> {
  const base = publicUrl()
  const paged = asked.limit === null ? {} : { start: String(asked.start), limit: String(asked.limit) }
  return {
    success: 'true',
    ...paged,
    ...(results !== null && { results: String(results) }),
    domain: URL.parse(base)?.host ?? '',
    url: `${base}/eden`,
  }
}

/** Eden says "success" only where there are records; where there are none, an empty root is what its client takes for nothing. */
function emptyDocument(deps: ServerDeps, asked: EdenAsked, writer: EdenWriter): string {
  const root = { ...rootOf(deps, asked, 0), success: 'false' }
  return writer.mediaType === 'text/xml' ? emptyS3xml(root) : `${writer.open(root)}${writer.close()}`
}

/** One line in the log for what was told, in the words of Eden. */
async function* logged(
  deps: ServerDeps,
  { peer }: Link,
  asked: EdenAsked,
  began: number,
  pieces: () => AsyncIterable<string>,
  records: () => number,
  unsaid: readonly string[],
): AsyncIterable<string> {
  let [bytes, ended] = [0, false]
  const entry = (result: 'success' | 'warning' | 'error', remote: boolean, message: string) =>
    appendLog(deps.store.db, {
      ...{ peer: { id: peer.id, name: peer.name }, resource: asked.table, mode: 'pull', direction: 'incoming' },
      ...{ action: 'send', result, remote, message, changes: records(), bytes },
      durationMs: Math.round(performance.now() - began),
    })
  try {
    for await (const piece of pieces()) {
      bytes += Buffer.byteLength(piece)
      yield piece
    }
    ended = true
  } catch (error) {
    ended = true
    await entry('error', false, `data export failed: ${(error as Error).message}`).catch(() => {})
    throw error
  } finally {
    if (!ended) await entry('error', true, `the peer hung up after ${records()} records`).catch(() => {})
  }
  const changes = records()
  const lost = unsaid.length === 0 ? '' : `; ${unsaid.length} cannot be written, such as ${JSON.stringify(unsaid[0])}`
  if (changes === 0) await entry('warning', false, 'No data to send')
  else await entry(lost === '' ? 'success' : 'warning', false, `Data sent to peer (${changes} records)${lost}`)
  const durationMs = Math.round(performance.now() - began)
  deps.observe.events.pullServed({ peer: peer.name, resource: asked.table, changes, bytes, durationMs, more: false })
}

async function* inPieces(source: AsyncIterable<string>): AsyncIterable<string> {
  let piece = ''
  let first = true
  for await (const part of source) {
    piece += part
    if (piece.length < PIECE_BYTES && !(first && piece.length > 0)) continue
    yield piece
    piece = ''
    first = false
  }
  if (piece !== '') yield piece
}

function idsOf(batch: LineBatch): readonly string[] {
  return batch.text === ''
    ? []
    : batch.text.split('\n').map((line) => JSON.parse(line.slice(0, line.indexOf('\t'))) as string)
}
