import { type RawBuilder, sql, type Transaction } from 'kysely'
import { type BatchReport, type LineBatch, SynclineError, unsoundLines } from '../sync/index.ts'
import type { ApplyContext } from './apply.ts'
import { addedToSum, RECORD_HASH } from './digest-sum.ts'
import { exactPayload } from './exact.ts'
import type { DatabaseError } from './explain.ts'
import { emptyReport } from './report.ts'
import { liveTable, type ResourceInfo } from './resources.ts'
import type { Database } from './schema.ts'
import { fieldsSql, originSql, seenSql, stagedLinesSql, targetTable } from './stage.ts'
import { incomingSql, type WriteContext, writtenColumns } from './write.ts'

/** Below this the usual way costs as little. */
const ROWS_MIN = 100
/** Up to so many origins a list is gone through for each record; more are looked up. */
const SITES_MAX = 20
/** Memory for the lines of a batch while one statement reads them three times. */
const WORK_MEM = '32MB'

/**
 * Writes a batch that consists of nothing but records that are new here, as most of a first copy does, without staging it: one statement makes
 * the version rows and the live rows. That is a bet. Whenever a line turns out to be anything else (known, deleted, refused by the database,
 * too large …) nothing of it stays and null is returned: the batch then takes the usual way, which knows what to do about it.
 */
export async function writeAllNew(
  trx: Transaction<Database>,
  context: ApplyContext,
  write: WriteContext,
  batch: LineBatch,
  origins: readonly number[],
): Promise<BatchReport | null> {
  if (!mayBeAllNew(context, write, batch)) return null
  const { text } = batch
  const starts = [0, text.indexOf('\n', text.length / 2) + 1, text.lastIndexOf('\n') + 1]
  const probe = starts.map((start) => JSON.parse(text.slice(start, text.indexOf('\t', start))) as string)
  const look = await looksNew(trx, context.resource, probe)
  if (!look.fresh) return null
  return betting(trx, context.resource, batch.count, () => writeLines(trx, context, write, batch, origins, look))
}

/** Writes `count` new records, or nothing where that turns out to be false or the database refuses one of them: then null. */
export async function betting(
  trx: Transaction<Database>,
  resource: ResourceInfo,
  count: number,
  write: () => Promise<boolean>,
): Promise<BatchReport | null> {
  await sql`savepoint syncline_all_new`.execute(trx)
  try {
    await sql`select set_config('work_mem', ${WORK_MEM}, true), set_config('syncline.apply', ${String(resource.id)}, true)`.execute(
      trx,
    )
    const written = await write()
    await sql`select set_config('syncline.apply', '', true)`.execute(trx)
    await sql`set constraints all immediate`.execute(trx)
    if (written) {
      await sql`release savepoint syncline_all_new`.execute(trx)
      return { ...emptyReport(), counts: { ...emptyReport().counts, applied: count } }
    }
  } catch (error) {
    // Whatever the database refused: the usual way finds out which record it is. What it can mend by waiting is not this function's to judge.
    if ((error as DatabaseError).code?.length !== 5) throw error
  }
  await sql`rollback to savepoint syncline_all_new`.execute(trx)
  return null
}

/** What the batch and its table say by themselves. References inside cycles may have to be filled in later; grants look at single rows. */
function mayBeAllNew(context: ApplyContext, write: WriteContext, batch: LineBatch): boolean {
  const { resource, grant } = context
  return (
    batch.count >= ROWS_MIN &&
    context.peer !== null &&
    write.unknown.length === 0 &&
    unsoundLines(batch).length === 0 &&
    (grant === undefined || (grant.columns === null && grant.filter === undefined)) &&
    resource.references.every((reference) => !reference.cyclic)
  )
}

/** `purged`: deletions of this resource were purged, so that a record without a row may be one of them. */
export type Look = { readonly fresh: boolean; readonly purged: boolean }

/** Nothing of this resource waits for a record to arrive, and the records of `probe` are unknown. */
export async function looksNew(
  trx: Transaction<Database>,
  resource: ResourceInfo,
  probe: readonly string[],
): Promise<Look> {
  const { rows } = await sql<Look>`
    select exists (select from syncline.purged where resource_id = ${resource.id}) as purged,
           not exists (select from syncline.quarantine where resource_id = ${resource.id})
       and not exists (select from syncline.pending_ref where target_resource_id = ${resource.id})
       and not exists (select from syncline.conflict where resource_id = ${resource.id} and resolved_at is null)
       and not exists (select from syncline.record r where r.resource_id = ${resource.id}
             and r.record_id = any (${[...probe]}::text[])) as fresh`.execute(trx)
  return rows[0] ?? { fresh: false, purged: false }
}

/** False when a line was not a new record. */
async function writeLines(
  trx: Transaction<Database>,
  context: ApplyContext,
  write: WriteContext,
  batch: LineBatch,
  origins: readonly number[],
  { purged }: Look,
): Promise<boolean> {
  const { resource } = context
  // A record that was deleted here, and its tombstone purged, is not new.
  const known = purged
    ? sql`and not exists (select from syncline.purged g where g.resource_id = ${sql.lit(resource.id)} and g.id_hash = hashtextextended(id, 0))`
    : sql``
  if (context.peer === null) throw new SynclineError('SYNC_INTERNAL', 'records written by hand are staged')
  const limit = sql`(extract(epoch from clock_timestamp()) * 1000000)::int8 + ${context.clockAheadMaxMicros}::int8`
  const sites = sitesSql(origins, batch.origins)
  const written = writtenColumns(write)
  const width = sql.lit(batch.columns.length)
  const names = [resource.keyColumn, ...written.map(({ column }) => column.name)].map((name) => sql.id(name))
  const values = written.map((each) => sql.raw(incomingSql(write, each)))
  const parsed = sql`(select id, key, payload, payload::jsonb as v from line offset 0)`
  const { rows } = await sql<{ versions: number; living: number; plain: boolean | null }>`
    with line as materialized (
      select id, key, clock, origin, seen, fields, payload,
             coalesce(kind = 'p' and clock <= limit_us and octet_length(payload) <= ${context.recordBytesMax}::int8
               and (seen is null or not exists (select from jsonb_each_text(seen) e where e.value::int8 > limit_us)) ${known}, false) as plain
        from (
          select id, key, nullif(split_part(line, e'\\t', 2), '')::int8 as clock, ${originSql(origins, context.peer.siteId)} as origin,
                 ${seenSql(origins)} as seen, ${fieldsSql(origins)} as fields, split_part(line, e'\\t', 5) as kind, payload, now.limit_us
            from (${stagedLinesSql(resource, batch.text)}) staged, (select ${limit} as limit_us) now offset 0
        ) read
    ), made as (
      insert into syncline.record (resource_id, record_id, xact, origin, clock, seen, fields, deleted, source, counted)
      select ${resource.id}, r.record_id, pg_current_xact_id(), r.origin, r.clock, r.seen, r.fields, false, ${write.source}::int4, ${sql.raw(RECORD_HASH)}
        from (select id as record_id, origin, clock, seen, fields from line) r join ${sites} on o.id = r.origin
      returning counted
    ), ${addedToSum(resource.id)}, living as (
      insert into ${sql.raw(liveTable(resource))} (${sql.join(names)})
      select ${sql.join([sql`s.key::${sql.raw(resource.keyType)}`, ...values])}
        from (select key, payload, case when jsonb_array_length(v) = ${width} then ${sql.raw(exactPayload(write.inexact, 'v', 'id'))} else syncline.misfit(v, ${width}) end as v from ${parsed} p offset 0) s
      returning 1
    )
    select (select records from total) as versions, (select count(*) from living)::int as living,
           (select bool_and(plain) from line) ${parentsFound(write, parsed)} as plain`.execute(trx)
  const [row] = rows
  return row !== undefined && row.plain === true && row.versions === batch.count && row.living === batch.count
}

/** The sites `o` that a batch names, with their numbers here. */
export function sitesSql(origins: readonly number[], names: readonly string[]): RawBuilder<unknown> {
  return origins.length > SITES_MAX
    ? sql`syncline.site o`
    : sql`unnest(${origins}::int4[], ${names}::text[]) o(id, origin)`
}

/** A reference by local key is null where its target is missing, which the database does not refuse. */
function parentsFound(write: WriteContext, parsed: RawBuilder<unknown>) {
  const tests = write.resource.references.flatMap((reference) => {
    const at = write.columns.find(({ column }) => column.name === reference.column.name)?.at
    if (at === undefined || reference.direct) return []
    return [
      sql`and not exists (select from ${parsed} s where s.v ->> ${sql.lit(at)} is not null and not exists (
            select from ${targetTable(reference)} p where p.${sql.id(reference.targetKey)} = (s.v ->> ${sql.lit(at)})::${sql.raw(reference.targetKeyType)}))`,
    ]
  })
  return tests.length === 0 ? sql`` : sql.join(tests, sql` `)
}
