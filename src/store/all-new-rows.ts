import { createHash } from 'node:crypto'
import { CompiledQuery, type RawBuilder, sql, type Transaction } from 'kysely'
import type { BatchReport, RowBatch } from '../sync/index.ts'
import { betting, type Look, looksNew, sitesSql } from './all-new.ts'
import type { ApplyContext } from './apply.ts'
import { SENT_ID_BYTES_MAX } from './collect.ts'
import { addedToSum, COUNTED } from './digest-sum.ts'
import { siteIds } from './registry/index.ts'
import { type Column, liveTable, type ResolvedReference, type ResourceInfo } from './resources.ts'
import { declaredSql } from './rows-sql.ts'
import { noteRunBatch } from './run-batch.ts'
import type { Database } from './schema.ts'
import { targetTable } from './stage.ts'

type RowContext = Pick<ApplyContext, 'resource' | 'peer' | 'runId' | 'clockAheadMaxMicros'>

/** A column of the batch, its name in the table of arrivals, and what it refers to by a key of this database. */
type Arriving = { readonly column: Column; readonly name: string; readonly lookup: ResolvedReference | undefined }

/**
 * Writes rows that are new here, one and all. They are read by COPY into a table of their types, from where one statement makes version rows and live
 * rows. Where anything else turns up, nothing of it stays and null is returned: whoever brought the rows asks for the lines then.
 */
export async function writeNewRows(
  trx: Transaction<Database>,
  context: RowContext,
  batch: RowBatch,
): Promise<BatchReport | null> {
  const { resource } = context
  const columns = arrivingColumns(resource, batch)
  if (columns === null) return null
  const report = await betting(trx, resource, batch.count, async () => {
    const after = await afterwards(trx, resource, columns, batch)
    if (after === null) return false
    const look = await looksNew(trx, resource, probeOf(batch))
    if (!look.fresh) return false
    const origins = await siteIds(trx, batch.origins)
    const table = await copyIn(trx, resource, columns, batch, after)
    return (
      table !== null &&
      writeArrived(trx, context, { columns, table, origins, names: batch.origins, count: batch.count }, look)
    )
  })
  if (report !== null && context.runId !== null)
    await noteRunBatch(trx, resource.id, context.runId, context.peer?.siteId ?? null, batch.count)
  return report
}

/** Null where a column is not here, or a reference may have to wait for its target. */
function arrivingColumns(resource: ResourceInfo, batch: RowBatch): readonly Arriving[] | null {
  if (resource.references.some(({ cyclic }) => cyclic)) return null
  const columns = batch.columns.flatMap((wanted, n) => {
    const column = resource.columns.find(({ name, sent }) => sent && name === wanted)
    if (column === undefined) return []
    const reference = resource.references.find((each) => each.column.name === wanted)
    return [{ column, name: `c${n}`, lookup: reference?.direct === false ? reference : undefined }]
  })
  return columns.length === batch.columns.length ? columns : null
}

/**
 * Columns of equal types read what the others wrote as it was. Null where they are not equal; else what is to become of the table of arrivals, which the application
 * must not meet when it drops an enum. The table is held, so that nobody alters it before it is written.
 */
async function afterwards(
  trx: Transaction<Database>,
  resource: ResourceInfo,
  columns: readonly Arriving[],
  batch: RowBatch,
): Promise<'delete rows' | 'drop' | null> {
  const known = columns.map(({ column }) => column)
  const { rows } = await sql<{ types: readonly (string | null)[]; enums: boolean }>`
    select d.* from (${declaredSql(resource, known)}) d where not exists (select from only ${sql.raw(liveTable(resource))} limit 0)`.execute(
    trx,
  )
  const { types = [], enums = false } = rows[0] ?? {}
  if (![batch.keyType, ...batch.types].every((type, n) => type === types[n])) return null
  return enums ? 'drop' : 'delete rows'
}

/** Three ids, as they are written. */
function probeOf({ rows }: RowBatch): readonly string[] {
  const starts = [0, rows.indexOf(NEWLINE, rows.length / 2) + 1, rows.lastIndexOf(NEWLINE) + 1]
  return starts.map((start) => Buffer.from(rows.subarray(start, rows.indexOf(TAB, start))).toString())
}

const NEWLINE = 0x0a
const TAB = 0x09

/** The name of the table of arrivals; null where the rows are not as many as they were said to be. One table a connection and shape. */
async function copyIn(
  trx: Transaction<Database>,
  resource: ResourceInfo,
  columns: readonly Arriving[],
  { rows, count, types }: RowBatch,
  after: 'delete rows' | 'drop',
): Promise<string | null> {
  const values = columns.map(
    ({ name, lookup }, n) => `${name} ${lookup?.targetKeyType ?? typeOf(columns[n], types[n])}`,
  )
  const definition = [
    `key ${resource.keyType}`,
    'clock int8',
    'origin int4',
    'seen jsonb',
    'kind text',
    ...values,
  ].join(', ')
  const shape = createHash('sha256').update(definition).digest('hex').slice(0, 16)
  const table = `pg_temp.syncline_rows_${shape}`
  await sql`create temporary table if not exists ${sql.raw(`syncline_rows_${shape} (${definition}) on commit ${after}`)}`.execute(
    trx,
  )
  const copied = await trx.executeQuery(CompiledQuery.raw(`copy ${table} from stdin`, [rows]))
  return copied.numAffectedRows === BigInt(count) ? table : null
}

/** A direct reference is declared as its column is, whatever the other site calls it. */
function typeOf(arriving: Arriving | undefined, type: string | undefined): string {
  return arriving?.column.reference === undefined ? (type ?? 'text') : arriving.column.type
}

type Arrived = {
  readonly columns: readonly Arriving[]
  readonly table: string
  readonly origins: readonly number[]
  readonly names: readonly string[]
  readonly count: number
}

/** False when a row was not a new record, or says what no site says. */
async function writeArrived(
  trx: Transaction<Database>,
  context: RowContext,
  { columns, table, origins, names, count }: Arrived,
  { purged }: Look,
): Promise<boolean> {
  const { resource } = context
  const arrived = sql.raw(table)
  const targets = [resource.keyColumn, ...columns.map(({ column }) => column.name)].map((name) => sql.id(name))
  const values = columns.map(({ name, lookup }) =>
    lookup === undefined ? sql`s.${sql.raw(name)}` : found(lookup, name),
  )
  const ahead = sql`(extract(epoch from clock_timestamp()) * 1000000)::int8 + ${context.clockAheadMaxMicros}::int8`
  const { rows } = await sql<{ versions: number; sound: boolean | null; written: boolean }>`
    with made as (
      insert into syncline.record (resource_id, record_id, xact, origin, clock, seen, deleted, source, counted)
      select ${resource.id}, r.record_id, pg_current_xact_id(), r.origin, r.clock, r.seen, r.deleted, ${context.peer?.siteId ?? null}::int4, ${sql.raw(COUNTED)}
        from (select s.key::text collate "C" as record_id, (${origins}::int4[])[s.origin + 1] as origin, s.clock, s.kind = 'd' as deleted,
                     case when s.seen is not null then (
                       select jsonb_object_agg((${origins}::int4[])[key::int4 + 1], value::int8) from jsonb_each_text(s.seen)) end as seen
                from ${arrived} s) r
        join ${sitesSql(origins, names)} on o.id = r.origin
      returning counted
    ), ${addedToSum(resource.id)}, living as (
      insert into ${sql.raw(liveTable(resource))} (${sql.join(targets)})
      select ${sql.join([sql`s.key`, ...values])} from ${arrived} s where s.kind = 'p'
      returning 1
    ), read as (
      select bool_and(coalesce(s.kind in ('p', 'd') and s.clock between 1 and now.limit_us
               and (s.seen is null or not exists (select from jsonb_each_text(s.seen) e where e.value::int8 not between 1 and now.limit_us))
               ${isSound(resource, columns, purged)}, false)) as sound,
             count(*) filter (where s.kind = 'p') as puts
        from ${arrived} s, (select ${ahead} as limit_us) now
    )
    select total.records as versions, read.sound, read.puts = (select count(*) from living) as written from total, read`.execute(
    trx,
  )
  const [row] = rows
  return row !== undefined && row.sound === true && row.written && row.versions === count
}

const found = (reference: ResolvedReference, name: string) =>
  sql`(select p.${sql.id(reference.targetColumn)} from ${targetTable(reference)} p where p.${sql.id(reference.targetKey)} = s.${sql.raw(name)})`

/** What makes a row `s` more than a new record: an id that does not travel, a target that is not here, a record that was deleted here and its tombstone purged. */
function isSound(resource: ResourceInfo, columns: readonly Arriving[], purged: boolean): RawBuilder<unknown> {
  const id = sql`s.key::text collate "C"`
  const lookups = columns.flatMap(({ name, lookup }) => (lookup === undefined ? [] : [{ name, lookup }]))
  return sql.join(
    [
      sql``,
      ...(resource.keyType.endsWith('.uuid')
        ? []
        : [sql`octet_length(s.key::text) between 1 and ${SENT_ID_BYTES_MAX}`]),
      ...(purged
        ? [
            sql`not exists (select from syncline.purged g where g.resource_id = ${sql.lit(resource.id)} and g.id_hash = hashtextextended(${id}, 0))`,
          ]
        : []),
      ...lookups.map(
        ({ name, lookup }) =>
          sql`(s.${sql.raw(name)} is null or exists (select from ${targetTable(lookup)} p where p.${sql.id(lookup.targetKey)} = s.${sql.raw(name)}))`,
      ),
    ],
    sql` and `,
  )
}
