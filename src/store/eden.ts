import { type Kysely, type Selectable, sql, type Updateable } from 'kysely'
import {
  type EdenKept,
  type EdenKnown,
  type EdenState,
  type EdenVariable,
  makeVersion,
  type Version,
} from '../sync/index.ts'
import type { Database } from './schema.ts'

/** What is known of a record at a Sahana Eden site. Times are seconds since 1970, by Eden's clock. */
export type EdenMemory = EdenKnown & {
  readonly recordId: string
  /** Name of the record at Eden; null before it showed it. */
  readonly uuid: string | null
  /** Fields that had a value before. */
  readonly emptied: readonly string[]
  /** When it was shown last; null before that. */
  readonly shownAt: number | null
  /** Attributes of the element to the letter, and how many hops it is from where it was made. */
  readonly kept: EdenKept
  /** It was left out of a full comparison. */
  readonly gone: boolean
  /** Record here that it was merged into, until references follow it. */
  readonly replacedBy: string | null
  /** Why Eden did not take what was sent. */
  readonly refused: string | null
  /** How often that was sent. */
  readonly attempts: number
}

/** A resource with one Eden site. */
export type EdenPlace = { readonly peerId: number; readonly resourceId: number }

/** Records that one statement looks up or writes. */
const ROWS_MAX = 1_000

/** What is known of some records at Eden, by record id. */
export async function readEdenMemory(
  db: Kysely<Database>,
  { peerId, resourceId }: EdenPlace,
  ids: readonly string[],
): Promise<ReadonlyMap<string, EdenMemory>> {
  const found = new Map<string, EdenMemory>()
  for (const some of portions(ids)) {
    const rows = await db
      .selectFrom('syncline.eden_record')
      .selectAll()
      .where('peer_id', '=', peerId)
      .where('resource_id', '=', resourceId)
      .where(sql<boolean>`record_id = any(${some}::text[])`)
      .execute()
    for (const row of rows) found.set(row.record_id, toMemory(row))
  }
  return found
}

function toMemory(row: Selectable<Database['syncline.eden_record']>): EdenMemory {
  const { origin, clock } = row
  const have: EdenState | undefined =
    origin === null || clock === null
      ? undefined
      : {
          modifiedOn: Number(row.modified_on),
          deleted: row.deleted === true,
          prints: row.prints ?? {},
          version: makeVersion({ origin, clock: Number(clock) }, row.seen ?? {}),
        }
  return {
    recordId: row.record_id,
    uuid: row.uuid,
    have,
    sent: (row.sent ?? undefined) as EdenState | undefined,
    told: (row.told ?? undefined) as readonly EdenState[] | undefined,
    emptied: row.emptied,
    shownAt: row.shown_at === null ? null : Number(row.shown_at),
    kept: { attributes: row.attributes, mci: row.mci },
    gone: row.gone,
    replacedBy: row.replaced_by,
    refused: row.refused,
    attempts: row.attempts,
  }
}

/** Writes down what is known of records at Eden now. `round`: they were shown by this full comparison. */
export async function writeEdenMemory(
  db: Kysely<Database>,
  { peerId, resourceId }: EdenPlace,
  memories: readonly EdenMemory[],
  round = 0,
): Promise<void> {
  for (const some of portions(memories)) {
    const rows = some.map(({ have, sent, kept, ...each }) => ({
      record_id: each.recordId,
      uuid: each.uuid,
      origin: have?.version.origin,
      clock: have?.version.clock,
      seen: have?.version.seen,
      modified_on: have?.modifiedOn,
      deleted: have?.deleted,
      prints: have?.prints,
      emptied: each.emptied,
      shown_at: each.shownAt,
      sent,
      told: each.told,
      mci: kept.mci,
      attributes: kept.attributes,
      gone: each.gone,
      replaced_by: each.replacedBy,
      refused: each.refused,
      attempts: each.attempts,
    }))
    await sql`
      insert into syncline.eden_record as e (peer_id, resource_id, round, retry_at, ${COLUMNS})
      select ${peerId}::int4, ${resourceId}::int4, ${round}::int8, case when refused is not null then now() + least(interval '1 day', interval '1 minute' * power(2, least(attempts, 12))) end, ${COLUMNS}
        from jsonb_to_recordset(${JSON.stringify(rows)}::jsonb)
        r (record_id text, uuid text, origin text, clock int8, seen jsonb, modified_on int8, deleted bool, prints jsonb, emptied jsonb, shown_at int8, sent jsonb, told jsonb, mci int4, attributes jsonb, gone bool, replaced_by text, refused text, attempts int4)
      on conflict (peer_id, resource_id, record_id) do update set
        (${COLUMNS}) = (select ${EXCLUDED}), round = greatest(e.round, excluded.round), retry_at = excluded.retry_at, at = now()`.execute(
      db,
    )
  }
}

const NAMES = [
  ...[
    'record_id',
    'uuid',
    'origin',
    'clock',
    'seen',
    'modified_on',
    'deleted',
    'prints',
    'emptied',
    'shown_at',
    'sent',
    'told',
    'mci',
  ],
  ...['attributes', 'gone', 'replaced_by', 'refused', 'attempts'],
]
const COLUMNS = sql.raw(NAMES.join(', '))
const EXCLUDED = sql.raw(NAMES.map((name) => `excluded.${name}`).join(', '))

/** Of some versions those that the records here have seen, or that wait here: what came once need not be applied again. */
export async function seenHere(
  db: Kysely<Database>,
  { peerId, resourceId }: EdenPlace,
  versions: ReadonlyMap<string, Version>,
): Promise<ReadonlySet<string>> {
  const found = new Set<string>()
  for (const some of portions([...versions])) {
    const wanted = some.map(([id, { origin, clock }]) => ({ id, origin, clock }))
    const { rows } = await sql<{ id: string }>`
      select r.record_id as id from jsonb_to_recordset(${JSON.stringify(wanted)}::jsonb) w (id text, origin text, clock int8)
        join syncline.site s on s.origin = w.origin
        join syncline.record r on r.resource_id = ${resourceId} and r.record_id = w.id
       where (r.origin = s.id and r.clock >= w.clock) or (r.seen ->> s.id::text)::int8 >= w.clock
      union select q.record_id from jsonb_to_recordset(${JSON.stringify(wanted)}::jsonb) w (id text, origin text, clock int8)
        join syncline.site s on s.origin = w.origin
        join syncline.quarantine q on q.peer_id = ${peerId} and q.resource_id = ${resourceId} and q.record_id = w.id and q.origin = s.id and q.clock = w.clock
      union select c.record_id from jsonb_to_recordset(${JSON.stringify(wanted)}::jsonb) w (id text, origin text, clock int8)
        join syncline.conflict c on c.resource_id = ${resourceId} and c.record_id = w.id and c.resolved_at is null
         and c.theirs_version ->> 'origin' = w.origin and (c.theirs_version ->> 'clock')::int8 = w.clock`.execute(db)
    for (const { id } of rows) found.add(id)
  }
  return found
}

/** When a table of Eden was last compared in full, and the data set that it came with. */
export type EdenComparison = {
  readonly round: number
  readonly comparedAt: string | null
  readonly tookMs: number
  readonly archivedAt: string | null
  readonly dataset: EdenFollowed | null
}

/** The data set of an Eden that a table is pulled with. */
export type EdenFollowed = {
  readonly code: string
  /** Name of the task there. */
  readonly task: string
  readonly filters: readonly EdenVariable[]
  /** Where its archive was when somebody chose to follow it. */
  readonly archiveOrigin: string | null
}

export async function lastEdenComparison(
  db: Kysely<Database>,
  { peerId, resourceId }: EdenPlace,
): Promise<EdenComparison> {
  const row = await db
    .selectFrom('syncline.eden_table')
    .selectAll()
    .where('peer_id', '=', peerId)
    .where('resource_id', '=', resourceId)
    .executeTakeFirst()
  const { dataset = null, dataset_task: task = null } = row ?? {}
  return {
    round: Number(row?.round ?? 0),
    comparedAt: row?.compared_at ?? null,
    tookMs: row?.took_ms ?? 0,
    archivedAt: row?.archived_at ?? null,
    dataset:
      row === undefined || dataset === null || task === null
        ? null
        : { code: dataset, task, filters: row.dataset_filter, archiveOrigin: row.archive_origin },
  }
}

/** Notes that a table is pulled with a data set. */
export async function followedFromEden(db: Kysely<Database>, place: EdenPlace, followed: EdenFollowed): Promise<void> {
  const { code, task, filters, archiveOrigin } = followed
  await noteTable(db, place, {
    ...{ dataset: code, dataset_task: task, dataset_filter: JSON.stringify(filters), archive_origin: archiveOrigin },
  })
}

/** Notes that an archive was read in the place of everything. */
export async function endEdenArchive(db: Kysely<Database>, place: EdenPlace): Promise<void> {
  await noteTable(db, place, { archived_at: new Date().toISOString() })
}

async function noteTable(
  db: Kysely<Database>,
  { peerId, resourceId }: EdenPlace,
  row: Updateable<Database['syncline.eden_table']>,
): Promise<void> {
  await db
    .insertInto('syncline.eden_table')
    .values({ ...row, round: row.round ?? 0, peer_id: peerId, resource_id: resourceId })
    .onConflict((conflict) => conflict.columns(['peer_id', 'resource_id']).doUpdateSet(row))
    .execute()
}

/** Ends a full comparison: what it did not show is gone. Gives the ids of living records that were there before. */
export async function endEdenComparison(
  db: Kysely<Database>,
  { peerId, resourceId }: EdenPlace,
  round: number,
  tookMs: number,
): Promise<readonly string[]> {
  const { rows } = await sql<{ id: string }>`
    update syncline.eden_record set gone = true, at = now()
     where peer_id = ${peerId} and resource_id = ${resourceId} and round < ${round} and not deleted and not gone returning record_id as id`.execute(
    db,
  )
  const row = { round, compared_at: new Date().toISOString(), took_ms: Math.round(tookMs) }
  await noteTable(db, { peerId, resourceId }, row)
  return rows.map(({ id }) => id)
}

/** Records that Eden did not take and that are due again, the longest waiting first. */
export async function dueAtEden(
  db: Kysely<Database>,
  { peerId, resourceId }: EdenPlace,
  limit: number,
): Promise<readonly string[]> {
  const { rows } = await sql<{ id: string }>`
    select record_id as id from syncline.eden_record
     where peer_id = ${peerId} and resource_id = ${resourceId} and refused is not null and retry_at < now() order by retry_at limit ${limit}`.execute(
    db,
  )
  return rows.map(({ id }) => id)
}

/** The next pull of a table is a full comparison, in whatever process. */
export async function expectEdenComparison(db: Kysely<Database>, { peerId, resourceId }: EdenPlace): Promise<void> {
  await db
    .updateTable('syncline.eden_table')
    .set({ compared_at: null })
    .where('peer_id', '=', peerId)
    .where('resource_id', '=', resourceId)
    .execute()
}

function* portions<T>(all: readonly T[]): Iterable<T[]> {
  for (let at = 0; at < all.length; at += ROWS_MAX) yield all.slice(at, at + ROWS_MAX)
}
