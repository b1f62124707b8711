import { type Kysely, sql } from 'kysely'
import {
  type EdenElement,
  type EdenKept,
  type EdenState,
  type EdenTrail,
  formatCheckpoint,
  SynclineError,
  type Version,
} from '../sync/index.ts'
import type { Store } from './database.ts'
import type { EdenPlace } from './eden.ts'
import type { ExchangeLimits, Link } from './exchange.ts'
import { serveChosen } from './missing.ts'
import { findGrant, readSelf, siteIds } from './registry/index.ts'
import { findResource, liveTable, type ResourceInfo } from './resources.ts'
import type { Database } from './schema.ts'
import { checkDisclosure, compileFilter, joinFilters, narrow, scopeMark } from './scope.ts'

/** A registration of an Eden site, by the name that it gives itself. */
export type EdenRegistration = {
  readonly repository: string
  /** The UUID in that name. */
  readonly uuid: string
  readonly name: string
  readonly apitype: string
}

/** Times that a record is told again without a pause. */
const AT_ONCE = 3
/** Rows of one statement. */
const ROWS_MAX = 1_000

/**
 * Registers a peer of Eden, or renews that. A passive peer has whatever UUID it was entered with until it tells its own: that is taken once, as
 * long as nothing stands here under the first one. Errors: SYNC_PEER_MISMATCH for a peer that was somebody else before.
 */
export async function registerEden(
  db: Kysely<Database>,
  peerId: number,
  registration: EdenRegistration,
): Promise<'new' | 'renewed'> {
  const { repository, uuid, name, apitype } = registration
  return db.transaction().execute(async (trx) => {
    const peer = await trx
      .selectFrom('syncline.peer')
      .select(['uuid', 'kind', 'site_id'])
      .where('id', '=', peerId)
      .forUpdate()
      .executeTakeFirstOrThrow()
    const before = await trx
      .selectFrom('syncline.eden_registration')
      .select('repository')
      .where('peer_id', '=', peerId)
      .executeTakeFirst()
    if (peer.uuid !== uuid) {
      const used = await trx
        .selectFrom('syncline.record')
        .select('clock')
        .where('origin', '=', peer.site_id)
        .limit(1)
        .execute()
      const others = await trx.selectFrom('syncline.peer').select('name').where('uuid', '=', uuid).execute()
      if (peer.kind !== 'eden' || before !== undefined || used.length > 0 || others.length > 0)
        throw new SynclineError(
          'SYNC_PEER_MISMATCH',
          `this account is that of site ${peer.uuid}, and ${repository} registers with it`,
        )
      const [siteId = 0] = await siteIds(trx, [uuid])
      await trx.updateTable('syncline.peer').set({ uuid, site_id: siteId }).where('id', '=', peerId).execute()
    }
    await trx
      .insertInto('syncline.eden_registration')
      .values({ peer_id: peerId, repository, name, apitype })
      .onConflict((conflict) => conflict.column('peer_id').doUpdateSet({ repository, name, apitype, at: sql`now()` }))
      .execute()
    return before === undefined ? 'new' : 'renewed'
  })
}

/** Whether a peer registered here. */
export async function isEdenRegistered(db: Kysely<Database>, peerId: number): Promise<boolean> {
  const row = await db
    .selectFrom('syncline.eden_registration')
    .select('peer_id')
    .where('peer_id', '=', peerId)
    .executeTakeFirst()
  return row !== undefined
}

/** How far a puller of Eden has come with a resource. */
export async function readEdenTrail(
  db: Kysely<Database>,
  { peerId, resourceId }: EdenPlace,
): Promise<EdenTrail | undefined> {
  const row = await db
    .selectFrom('syncline.eden_trail')
    .select('trail')
    .where('peer_id', '=', peerId)
    .where('resource_id', '=', resourceId)
    .executeTakeFirst()
  return row?.trail
}

export async function writeEdenTrail(
  db: Kysely<Database>,
  { peerId, resourceId }: EdenPlace,
  trail: EdenTrail,
): Promise<void> {
  const text = JSON.stringify(trail)
  await db
    .insertInto('syncline.eden_trail')
    .values({ peer_id: peerId, resource_id: resourceId, trail: text })
    .onConflict((conflict) => conflict.columns(['peer_id', 'resource_id']).doUpdateSet({ trail: text, at: sql`now()` }))
    .execute()
}

/**
 * Writes down what records were told to an Eden site, to know them again when it sends them back. Whether it has them is open from then on. So many
 * `earlier` states of each are kept beside the last.
 */
export async function noteEdenSent(
  db: Kysely<Database>,
  { peerId, resourceId }: EdenPlace,
  sent: ReadonlyMap<string, EdenState>,
  earlier = 0,
): Promise<void> {
  if (sent.size === 0) return
  const ids = [...sent.keys()]
  const states = [...sent.values()].map((state) => JSON.stringify(state))
  await db.transaction().execute(async (trx) => {
    // Lost in a crash, it only makes an echo look like a write: nobody waits for the disk for that.
    await sql`select set_config('synchronous_commit', 'off', true)`.execute(trx)
    await sql`
    insert into syncline.eden_record as e (peer_id, resource_id, record_id, sent)
    select ${peerId}::int4, ${resourceId}::int4, s.id, s.state::jsonb from unnest(${ids}::text[], ${states}::text[]) s (id, state)
    on conflict (peer_id, resource_id, record_id) do update set
      told = case when ${earlier} = 0 or e.sent is null or e.sent -> 'version' = excluded.sent -> 'version' then e.told
                  else (select jsonb_agg(l.state order by l.n) from (
                          select a.state, a.n from jsonb_array_elements(coalesce(e.told, '[]') || jsonb_build_array(e.sent)) with ordinality a (state, n)
                           order by a.n desc limit ${earlier}) l) end,
      sent = excluded.sent, refused = null, at = now()`.execute(trx)
  })
}

/** What is known of a record when it is told to an Eden site. */
export type EdenTold = {
  /** What any Eden site told last beside its values. */
  readonly kept: EdenKept
  /** The last second that this peer told. */
  readonly notBefore: number
  /** The dot that this peer is proved to have. */
  readonly proved: { readonly origin: string; readonly clock: number } | null
  /** Fields that this peer was told a value of, or had one. */
  readonly filled: ReadonlySet<string>
}

/** What is known of records at Eden sites, for telling this peer of them. */
export async function readEdenTold(
  db: Kysely<Database>,
  { peerId, resourceId }: EdenPlace,
  ids: readonly string[],
): Promise<ReadonlyMap<string, EdenTold>> {
  const found = new Map<string, EdenTold>()
  for (let at = 0; at < ids.length; at += ROWS_MAX) {
    const some = ids.slice(at, at + ROWS_MAX)
    const { rows } = await sql<Row>`
      select record_id as id, peer_id = ${peerId} as own, attributes, mci, modified_on::float8 as at, origin, clock::float8 as clock,
             case when peer_id = ${peerId} then array(select jsonb_object_keys(coalesce(prints, '{}') || coalesce(sent -> 'prints', '{}'))) end as filled
        from (select * from syncline.eden_record
               where resource_id = ${resourceId} and record_id = any(${some}::text[]) and origin is not null and peer_id <> ${peerId}
              union all
              select * from syncline.eden_record
               where peer_id = ${peerId} and resource_id = ${resourceId} and record_id = any(${some}::text[])) e
       order by modified_on nulls first`.execute(db)
    for (const { id, own, attributes, mci, origin, clock, ...row } of rows) {
      const before = found.get(id)
      found.set(id, {
        kept: origin === null ? (before?.kept ?? NOTHING_KEPT) : { attributes, mci },
        notBefore: own ? (row.at ?? 0) : (before?.notBefore ?? 0),
        proved: own && origin !== null && clock !== null ? { origin, clock } : (before?.proved ?? null),
        filled: own ? new Set(row.filled) : (before?.filled ?? new Set()),
      })
    }
  }
  return found
}

type Row = {
  id: string
  own: boolean
  attributes: EdenKept['attributes']
  mci: number
  at: number | null
  origin: string | null
  clock: number | null
  filled: string[] | null
}

const NOTHING_KEPT: EdenKept = { attributes: {}, mci: 0 }

/** Records that Eden was told and has not, the longest waiting first: at once for the first times, then ever more seldom. */
export async function dueAgain(
  db: Kysely<Database>,
  { peerId, resourceId }: EdenPlace,
  limit: number,
): Promise<readonly string[]> {
  const { rows } = await sql<{ id: string }>`
    select record_id as id from syncline.eden_record
     where peer_id = ${peerId} and resource_id = ${resourceId} and refused is not null and (attempts <= ${AT_ONCE} or retry_at < now())
     order by retry_at limit ${limit}`.execute(db)
  return rows.map(({ id }) => id)
}

/** Of some versions of a peer those that wait here in quarantine, with why. */
export async function waitingHere(
  db: Kysely<Database>,
  { peerId, resourceId }: EdenPlace,
  versions: ReadonlyMap<string, Version>,
): Promise<ReadonlyMap<string, string>> {
  const found = new Map<string, string>()
  const all = [...versions].map(([id, { origin, clock }]) => ({ id, origin, clock }))
  for (let at = 0; at < all.length; at += ROWS_MAX) {
    const { rows } = await sql<{ id: string; reason: string }>`
      select q.record_id as id, q.reason from jsonb_to_recordset(${JSON.stringify(all.slice(at, at + ROWS_MAX))}::jsonb) w (id text, origin text, clock int8)
        join syncline.site s on s.origin = w.origin
        join syncline.quarantine q on q.peer_id = ${peerId} and q.resource_id = ${resourceId} and q.record_id = w.id and q.origin = s.id and q.clock = w.clock`.execute(
      db,
    )
    for (const { id, reason } of rows) found.set(id, reason)
  }
  return found
}

/** Keeps records of tables that this site has not. */
export async function keepStrangers(
  db: Kysely<Database>,
  peerId: number,
  strangers: readonly {
    readonly element: EdenElement
    readonly uuid: string
    readonly resourceId: number | null
    readonly recordId: string | null
  }[],
): Promise<void> {
  const last = [...new Map(strangers.map((each) => [`${each.element.table} ${each.uuid}`, each])).values()]
  for (let at = 0; at < last.length; at += ROWS_MAX) {
    const rows = last.slice(at, at + ROWS_MAX).map(({ element, uuid, resourceId, recordId }) => ({
      ...{ table_name: element.table, uuid, resource_id: resourceId, record_id: recordId, element },
    }))
    await sql`
      insert into syncline.eden_stranger (peer_id, table_name, uuid, resource_id, record_id, element)
      select ${peerId}::int4, r.* from jsonb_to_recordset(${JSON.stringify(rows)}::jsonb)
        r (table_name text, uuid text, resource_id int4, record_id text, element jsonb)
      on conflict (peer_id, table_name, uuid) do update
        set resource_id = excluded.resource_id, record_id = excluded.record_id, element = excluded.element, at = now()`.execute(
      db,
    )
  }
}

/** The records of strange tables that other peers than this one told of inside records. */
export async function strangersWithin(
  db: Kysely<Database>,
  { peerId, resourceId }: EdenPlace,
  ids: readonly string[],
): Promise<ReadonlyMap<string, readonly EdenElement[]>> {
  const { rows } = await sql<{ id: string; element: EdenElement }>`
    select distinct on (record_id, table_name, uuid) record_id as id, element from syncline.eden_stranger
     where resource_id = ${resourceId} and record_id = any(${[...ids]}::text[]) and peer_id <> ${peerId}
     order by record_id, table_name, uuid, at desc`.execute(db)
  return new Map([...Map.groupBy(rows, (row) => row.id)].map(([id, some]) => [id, some.map((row) => row.element)]))
}

/** The ids of the records of a resource that refer by a column to some records, by the id that they refer to. */
export async function referringIds(
  db: Kysely<Database>,
  resource: ResourceInfo,
  column: string,
  masters: readonly string[],
): Promise<ReadonlyMap<string, readonly string[]>> {
  const reference = resource.references.find((each) => each.column.name === column)
  if (reference === undefined || masters.length === 0) return new Map()
  const target = await findResource(db, reference.resource)
  const { rows } = await sql<{ master: string; id: string }>`
    select m.${sql.id(target.keyColumn)}::text as master, c.${sql.id(resource.keyColumn)}::text as id
      from ${sql.raw(liveTable(target))} m
      join ${sql.raw(liveTable(resource))} c on c.${sql.id(column)} = m.${sql.id(reference.targetColumn)}
     where m.${sql.id(target.keyColumn)} = any (array(select w::${sql.raw(target.keyType)} from unnest(${[...masters]}::text[]) w))
     order by 2`.execute(db)
  return new Map(
    [...Map.groupBy(rows, (row) => row.master)].map(([master, some]) => [master, some.map(({ id }) => id)]),
  )
}

/** Of some records those to which a record refers that matches a filter, and that the peer may see. */
export async function mastersWith(
  store: Store,
  { peer }: Link,
  request: {
    readonly resource: ResourceInfo
    readonly column: string
    readonly filter: string
    readonly masters: readonly string[]
  },
): Promise<ReadonlySet<string>> {
  const { resource, column, masters } = request
  const reference = resource.references.find((each) => each.column.name === column)
  if (reference === undefined || masters.length === 0) return new Set()
  const grant = await findGrant(store.db, peer.id, resource.name, 'pull')
  await checkDisclosure(store, peer, resource, grant?.columns ?? null, request.filter)
  const matches = await compileFilter(store, resource, joinFilters([grant?.filter, request.filter]) ?? request.filter)
  const target = await findResource(store.db, reference.resource)
  const { rows } = await sql<{ id: string }>`
    select distinct m.${sql.id(target.keyColumn)}::text as id
      from ${sql.raw(liveTable(target))} m
      join ${sql.raw(liveTable(resource))} t on t.${sql.id(column)} = m.${sql.id(reference.targetColumn)}
     where m.${sql.id(target.keyColumn)} = any (array(select w::${sql.raw(target.keyType)} from unnest(${[...masters]}::text[]) w))
       and coalesce(${matches}, false)`.execute(store.db)
  return new Set(rows.map(({ id }) => id))
}

/** The checkpoint behind everything that a peer can be served of a resource now; undefined where there is nothing. */
export async function checkpointAtHead(
  store: Store,
  link: Link,
  resource: ResourceInfo,
  filter: string | undefined,
): Promise<string | undefined> {
  const grant = await findGrant(store.db, link.peer.id, resource.name, 'pull')
  const { rows } = await sql<{ xact: string; id: string }>`
    select xact::text as xact, record_id as id from syncline.record
     where resource_id = ${resource.id} and xact < pg_snapshot_xmin(pg_current_snapshot())
     order by xact desc, record_id desc limit 1`.execute(store.db)
  const [head] = rows
  if (head === undefined) return undefined
  const { logId } = await readSelf(store.db)
  const columns = narrow(grant?.columns ?? null, undefined, '')
  const mark = scopeMark(joinFilters([grant?.filter, filter]), columns)
  return formatCheckpoint({ logId: `${logId}${mark}`, position: { xact: head.xact, recordId: head.id } })
}

/** Living records by id, however many, as serveChosen gives them. */
export async function serveAllChosen(
  store: Store,
  link: Link,
  request: {
    readonly resource: string
    readonly ids: readonly string[]
    readonly filter?: string | undefined
    readonly deleted?: boolean
  },
  limits: ExchangeLimits,
): Promise<Awaited<ReturnType<typeof serveChosen>>[]> {
  const batches = []
  for (let at = 0; at < request.ids.length; at += 100) {
    const ids = request.ids.slice(at, at + 100)
    const { resource, filter, deleted } = request
    const chosen = { resource, ids, deleted, ...(filter !== undefined && { filter }) }
    batches.push(await serveChosen(store, link, chosen, limits))
  }
  return batches
}
