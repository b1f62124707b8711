import { type Kysely, sql, type Transaction } from 'kysely'
import {
  type BrakePlace,
  type Brakes,
  brakesOf,
  type CanaryState,
  judgeBrakes,
  type LineBatch,
  type Pass,
  type Position,
  SynclineError,
  surelyWithin,
  type Trip,
} from '../sync/index.ts'
import {
  addToMeter,
  type Brake,
  type BrakeFacts,
  brakesWith,
  openBrake,
  passOf,
  readMeter,
  useBrake,
} from './brakes.ts'
import type { Store } from './database.ts'
import type { Link, PullRequest } from './exchange.ts'
import { findGrant, type Grant, readSelf } from './registry/index.ts'
import { liveTable, type ResourceInfo } from './resources.ts'
import type { Database } from './schema.ts'
import { compileFilter, joinFilters, scopeMark, startOf } from './scope.ts'
import { prepareStage, type StageCounts, stageLines } from './stage.ts'

/** What is due after a place in the change order: changes that would travel at most, whatever the filter leaves out. */
export type Due = { readonly puts: number; readonly deletes: number }

/** What a batch, or all that is due, would do to records that live here. */
export type Counted = { readonly deletes: number; readonly changes: number }

export type Classified = Counted & { readonly samples: readonly string[] }

/** Ids that are shown to whoever is asked. */
const SAMPLES_MAX = 10

/** A batch that went beyond what is allowed: nothing of its transaction stays. */
export class Braked extends SynclineError {
  readonly trips: readonly Trip[]
  readonly facts: BrakeFacts

  constructor(trips: readonly Trip[], facts: BrakeFacts) {
    super('SYNC_RUN_BRAKED', trips.map(({ reason }) => reason).join('; '))
    this.trips = trips
    this.facts = facts
  }
}

/** What a peer is told with the first batch of a run about all that follows: how much is due, whether anything is left, and its canary. */
export type ServedWeight = { readonly due: Due | null; readonly empty: boolean; readonly canary: CanaryState | null }

/** Counts for a peer that pulls, within its grant. `due` only where more follows than the batch that it comes with. */
export async function weighServed(
  store: Store,
  link: Link,
  resource: ResourceInfo,
  request: PullRequest & { readonly canary?: string | undefined; readonly more: boolean },
): Promise<ServedWeight> {
  const { db } = store
  const grant = await findGrant(db, link.peer.id, resource.name, 'pull')
  const text = joinFilters([grant?.filter, request.filter])
  const { rows } = await sql<{ empty: boolean }>`
    select not exists (select from ${sql.raw(liveTable(resource))}) as empty`.execute(db)
  return {
    due: request.more ? await dueAfter(db, resource, link, await placeOf(store, request, text)) : null,
    empty: rows[0]?.empty ?? false,
    canary: request.canary === undefined ? null : await canaryState(store, link, resource, request.canary, text),
  }
}

/** What this site has not yet offered to a peer that it pushes to. */
export async function weighPush(
  store: Store,
  link: Link,
  resource: ResourceInfo,
  request: PullRequest,
): Promise<Due & { readonly empty: boolean }> {
  const { rows } = await sql<{ empty: boolean }>`
    select not exists (select from ${sql.raw(liveTable(resource))}) as empty`.execute(store.db)
  const due = await dueAfter(store.db, resource, link, await placeOf(store, request, joinFilters([request.filter])))
  return { ...due, empty: rows[0]?.empty ?? false }
}

/** Where the answer to a request begins; null from the beginning. */
async function placeOf(store: Store, request: PullRequest, text: string | null): Promise<Position | null> {
  const { logId } = await readSelf(store.db)
  return startOf(store, request.after, logId, scopeMark(text, request.columns))
}

async function dueAfter(
  db: Kysely<Database>,
  resource: ResourceInfo,
  { peer }: Link,
  after: Position | null,
): Promise<Due> {
  const { rows } = await sql<Due>`
    select count(*) filter (where not r.deleted)::int as puts, count(*) filter (where r.deleted)::int as deletes
      from syncline.record r
     where r.resource_id = ${resource.id} and (r.xact, r.record_id) > (${after?.xact ?? '0'}::xid8, ${after?.recordId ?? ''} collate "C")
       and r.xact < pg_snapshot_xmin(pg_current_snapshot()) and r.source is distinct from ${peer.siteId}`.execute(db)
  return rows[0] ?? { puts: 0, deletes: 0 }
}

/** A canary outside of what the peer may see is simply not there: asking must not tell of other records. */
async function canaryState(
  store: Store,
  { peer }: Link,
  resource: ResourceInfo,
  id: string,
  text: string | null,
): Promise<CanaryState> {
  const filter = text === null ? sql`true` : sql`coalesce(${await compileFilter(store, resource, text)}, false)`
  const shared =
    text === null
      ? sql`true`
      : sql`exists (select from syncline.shared h where h.peer_id = ${peer.id} and h.resource_id = ${resource.id} and h.record_id = r.record_id)`
  const { rows } = await sql<{ deleted: boolean; seen: boolean; living: boolean }>`
    select r.deleted, ${shared} as seen, exists (
             select from ${sql.raw(liveTable(resource))} t
              where t.${sql.id(resource.keyColumn)}::text = r.record_id and not r.deleted and ${filter}) as living
      from syncline.record r where r.resource_id = ${resource.id} and r.record_id = ${id}`.execute(store.db)
  const [row] = rows
  if (row === undefined) return 'missing'
  if (row.deleted) return row.seen ? 'deleted' : 'missing'
  return row.living ? 'living' : 'missing'
}

/** Records of a resource that live here. */
export async function livingCount(db: Kysely<Database>, resource: ResourceInfo): Promise<number> {
  const { rows } = await sql<{ living: number }>`
    select count(*)::int as living from syncline.record where resource_id = ${resource.id} and not deleted`.execute(db)
  return rows[0]?.living ?? 0
}

/** Of these, those that came from a site as they are now. */
export async function heldFrom(db: Kysely<Database>, resource: ResourceInfo, siteId: number): Promise<number> {
  const { rows } = await sql<{ held: number }>`
    select count(*)::int as held from syncline.record where resource_id = ${resource.id} and source = ${siteId} and not deleted`.execute(
    db,
  )
  return rows[0]?.held ?? 0
}

/**
 * What a batch would do here, by versions alone: it needs no values, so `heads` of changes will do. Concurrent changes count as if they won.
 * Writes nothing that stays: the caller rolls back.
 */
export async function classifyLines(
  trx: Transaction<Database>,
  resource: ResourceInfo,
  peerSiteId: number,
  batch: LineBatch,
  onLeft: 'keep' | 'remove',
): Promise<Classified> {
  if (batch.count === 0) return { deletes: 0, changes: 0, samples: [] }
  await prepareStage(trx)
  await stageLines(trx, resource, batch, await knownSites(trx, batch.origins), peerSiteId)
  const gone = sql`not l_deleted and (kind = 'd' and class in ('f', 'c', 'u')${onLeft === 'remove' ? sql` or class = 'l' and l_origin is not null` : sql``})`
  const changed = sql`not l_deleted and kind = 'p' and class in ('f', 'c', 'u')`
  const { rows } = await sql<Counted & { gone: string[] | null; changed: string[] | null }>`
    select count(*) filter (where ${gone})::int as deletes, count(*) filter (where ${changed})::int as changes,
           (select array_agg(id) from (select id from pg_temp.syncline_stage where ${gone} order by n limit ${SAMPLES_MAX}) s) as gone,
           (select array_agg(id) from (select id from pg_temp.syncline_stage where ${changed} order by n limit ${SAMPLES_MAX}) s) as changed
      from pg_temp.syncline_stage`.execute(trx)
  const { deletes = 0, changes = 0, gone: lost = null, changed: other = null } = rows[0] ?? {}
  return { deletes, changes, samples: [...(lost ?? []), ...(other ?? [])].slice(0, SAMPLES_MAX) }
}

/** Numbers of origins without making any: one that nobody here has heard of gets a number that no record has. */
async function knownSites(trx: Transaction<Database>, origins: readonly string[]): Promise<readonly number[]> {
  const { rows } = await sql<{ id: number; origin: string }>`
    select id, origin from syncline.site where origin = any(${[...origins]}::text[])`.execute(trx)
  const known = new Map(rows.map(({ id, origin }) => [origin, id]))
  return origins.map((origin, at) => known.get(origin) ?? -1 - at)
}

/** Called when a batch is classified and nothing of it is written yet. Throws to have all of its transaction rolled back. */
export type Guard = (trx: Transaction<Database>, counts: StageCounts) => Promise<void>

/** What was done before in the same run, or the same hour, and taking note of what is done now. */
export type Meter = {
  readonly read: (trx: Transaction<Database>) => Promise<Counted>
  readonly add: (trx: Transaction<Database>, counted: Counted) => Promise<void>
}

/**
 * The brake in the transaction that writes (I10): whatever was counted before, no more than is allowed is ever committed. Costs one look at the
 * staging table, and nothing for batches that only add.
 */
export function createGuard(
  resource: ResourceInfo,
  brakes: Pick<Brakes, 'maxDeletes' | 'maxChanges'>,
  place: BrakePlace,
  meter: Meter,
  pass: () => Pass | null,
): Guard {
  return async (trx, counts) => {
    if ((counts.f ?? 0) + (counts.r ?? 0) === 0) return
    const now = await stagedWeight(trx)
    if (now.deletes + now.changes === 0) return
    const before = await meter.read(trx)
    const deletes = before.deletes + now.deletes
    const changes = before.changes + now.changes
    if (!surelyWithin(brakes.maxDeletes, deletes) || !surelyWithin(brakes.maxChanges, changes)) {
      const living = (await livingCount(trx, resource)) + before.deletes
      const weight = { deletes, changes, living, empty: false, held: 0, canary: null }
      const trips = judgeBrakes(weight, { ...brakes, emptyGuard: false, canary: null }, place, pass())
      if (trips.length > 0) throw new Braked(trips, { deletes, changes, living, samples: await stagedSamples(trx) })
    }
    await meter.add(trx, now)
  }
}

const GONE = sql`(class = 'r' or class = 'f' and kind = 'd' and not l_deleted)`
const CHANGED = sql`(class = 'f' and kind = 'p' and not l_deleted)`

async function stagedWeight(trx: Transaction<Database>): Promise<Counted> {
  const { rows } = await sql<Counted>`
    select count(*) filter (where ${GONE})::int as deletes, count(*) filter (where ${CHANGED})::int as changes from pg_temp.syncline_stage`.execute(
    trx,
  )
  return rows[0] ?? { deletes: 0, changes: 0 }
}

async function stagedSamples(trx: Transaction<Database>): Promise<readonly string[]> {
  const { rows } = await sql<{ id: string }>`
    select id from pg_temp.syncline_stage where ${GONE} or ${CHANGED} order by class = 'f' and kind = 'p', n limit ${SAMPLES_MAX}`.execute(
    trx,
  )
  return rows.map(({ id }) => id)
}

/** The brake on what a peer pushes: by its grant, over an hour. `announced` is how many deletions it says to have still to send. */
export function receiveBrake(
  store: Store,
  { peer }: Link,
  resource: ResourceInfo,
  grant: Grant,
  announced: number,
): { readonly guard: Guard; readonly stopped: (error: unknown) => Promise<never> } {
  const brakes = brakesOf({ ...grant, emptyGuard: false, canary: null })
  const place: BrakePlace = { direction: 'receive', peer: peer.name, resource: grant.resource }
  let brake: Brake | undefined
  const meter: Meter = {
    read: async (trx) => {
      ;[brake] = await brakesWith(trx, peer.id, { resource: resource.name, direction: 'receive' })
      return readMeter(trx, peer.id, resource.id)
    },
    add: async (trx, counted) => {
      await addToMeter(trx, peer.id, resource.id, counted)
      if (brake !== undefined && brake.releasedAt !== null && brake.usedAt === null) await useBrake(trx, brake.id)
    },
  }
  return {
    guard: createGuard(resource, brakes, place, meter, () => passOf(brake)),
    // Written down outside of the transaction, which was rolled back.
    stopped: async (error) => {
      if (!(error instanceof Braked)) throw error
      const { trips, message } = error
      const still = announced > error.facts.deletes ? `; it announces ${announced} deletions in all` : ''
      const facts = { ...error.facts, announced: Math.max(announced, error.facts.deletes) }
      const rules = trips.map(({ rule }) => rule)
      const place = { peerId: peer.id, resourceId: resource.id, direction: 'receive' } as const
      await openBrake(store.db, { ...place, rules, reason: `${message}${still}`, facts, runId: null })
      throw new SynclineError('SYNC_RUN_BRAKED', `${message}. An administrator of this site can let it pass`)
    },
  }
}
