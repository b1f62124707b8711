import { type Kysely, sql } from 'kysely'
import { countingInsert, RECORD_HASH } from './digest-sum.ts'
import { quoteIdent } from './quote.ts'
import type { ResourceInfo, TableFacts } from './resources.ts'
import type { Database } from './schema.ts'
import { alteringTables } from './table-lock.ts'

export type AttachProgress = (step: {
  readonly resource: string
  readonly doing: string
  readonly done: number
  readonly total: number
}) => void

/** Rows handled between two commits while an existing table is prepared: short enough that writers hardly notice. */
const STEP_ROWS = 5_000

/** Marks the column that we added, so that an interrupted attach finds it again. */
const ADDED = 'Identity of records, added by Syncline'

/**
 * Gives every row that was there before the triggers a version of this site, a bounded number of rows for each commit.
 * A row that the triggers met first keeps what they wrote. Goes on where an interrupted attach stopped.
 */
export async function registerRows(
  db: Kysely<Database>,
  resource: ResourceInfo,
  progress: AttachProgress,
): Promise<void> {
  const { rows } = await sql<{ estimate: string }>`
    select greatest(reltuples, 0)::int8 as estimate from pg_class where oid = ${resource.tableOid}::oid`.execute(db)
  const total = Number(rows[0]?.estimate ?? 0)
  const state = await db
    .selectFrom('syncline.resource')
    .select(['ready', 'registered_after'])
    .where('id', '=', resource.id)
    .executeTakeFirstOrThrow()
  if (state.ready) return
  const key = sql.id(resource.keyColumn)
  const table = sql.id(resource.tableSchema, resource.tableName)
  let after = state.registered_after
  let done = 0
  for (;;) {
    const step = await db.transaction().execute(async (trx) => {
      const from = after === null ? sql`` : sql`where t.${key} > ${after}::text::${sql.raw(resource.keyType)}`
      const { rows: last } = await sql<{ last: string | null; rows: number }>`
        with page as materialized (select t.${key} as key from ${table} t ${from} order by t.${key} limit ${STEP_ROWS})
        select (select key::text from page order by page.key desc limit 1) as last, count(*)::int as rows from page`.execute(
        trx,
      )
      const page = last[0] ?? { last: null, rows: 0 }
      const to = sql`${after === null ? sql`where` : sql`and`} t.${key} <= ${page.last}::text::${sql.raw(resource.keyType)}`
      await countingInsert(
        resource.id,
        sql`insert into syncline.record (resource_id, record_id, xact, origin, clock, counted)
          select ${resource.id}, r.record_id, pg_current_xact_id(), r.origin, r.clock, ${sql.raw(RECORD_HASH)}
            from (
              select t.key::text collate "C" as record_id, self.site_id as origin, (extract(epoch from clock_timestamp()) * 1000000)::int8 as clock
                from (select t.${key} as key from ${table} t ${from} ${to}) t, syncline.self
               offset 0
            ) r join syncline.site o on o.id = r.origin order by r.record_id
          on conflict (resource_id, record_id) do nothing`,
      ).execute(trx)
      await trx
        .updateTable('syncline.resource')
        .set(page.rows < STEP_ROWS ? { ready: true, registered_after: null } : { registered_after: page.last })
        .where('id', '=', resource.id)
        .execute()
      return page
    })
    done += step.rows
    progress({ resource: resource.name, doing: 'registering rows', done, total: Math.max(total, done) })
    if (step.rows < STEP_ROWS) break
    after = step.last
  }
  // The first baseline follows soon; without statistics its plans would be guesses.
  await sql`analyze syncline.record`.execute(db)
}

/** The column that an earlier `addUuidColumn` made or began to make; null when there is none. */
export async function addedUuidColumn(db: Kysely<Database>, tableOid: number): Promise<string | null> {
  const { rows } = await sql<{ name: string }>`
    select attname as name from pg_attribute
     where attrelid = ${tableOid}::oid and attnum > 0 and not attisdropped and col_description(attrelid, attnum) = ${ADDED}`.execute(
    db,
  )
  return rows[0]?.name ?? null
}

/**
 * Adds a unique uuid column without holding the table: nullable first, filled in steps, indexed concurrently, then made not null.
 * Goes on where an interrupted one stopped.
 */
export async function addUuidColumn(
  db: Kysely<Database>,
  facts: TableFacts,
  resource: string,
  progress: AttachProgress,
): Promise<void> {
  const table = `${quoteIdent(facts.schema)}.${quoteIdent(facts.name)}`
  const begun = await addedUuidColumn(db, facts.oid)
  const name = begun ?? (facts.columns.some((column) => column.name === 'uuid') ? 'syncline_uuid' : 'uuid')
  const column = quoteIdent(name)
  const alter = (...statements: string[]) =>
    alteringTables(db, async (trx) => {
      for (const statement of statements) await sql.raw(statement).execute(trx)
    })
  if (begun === null) {
    await alter(
      `alter table ${table} add column ${column} uuid`,
      `alter table ${table} alter column ${column} set default gen_random_uuid()`,
      `comment on column ${table}.${column} is '${ADDED}'`,
    )
  }
  for (let done = 0; ; ) {
    const { numAffectedRows } = await sql
      .raw(
        `update ${table} set ${column} = gen_random_uuid()
          where ctid = any (array(select ctid from ${table} where ${column} is null limit ${STEP_ROWS}))`,
      )
      .execute(db)
    done += Number(numAffectedRows ?? 0)
    progress({ resource, doing: 'giving rows a uuid', done, total: done })
    if (Number(numAffectedRows ?? 0) === 0) break
  }
  const index = quoteIdent(`${facts.name.slice(0, 40)}_syncline_uuid`)
  const check = quoteIdent('syncline_uuid_given')
  await alter(`drop index if exists ${quoteIdent(facts.schema)}.${index}`)
  await sql.raw(`create unique index concurrently ${index} on ${table} (${column})`).execute(db)
  await alter(
    `alter table ${table} drop constraint if exists ${check}`,
    `alter table ${table} add constraint ${check} check (${column} is not null) not valid`,
  )
  await sql.raw(`alter table ${table} validate constraint ${check}`).execute(db)
  await alter(
    `alter table ${table} alter column ${column} set not null`,
    `alter table ${table} drop constraint ${check}`,
  )
}
