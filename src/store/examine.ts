import { type Kysely, sql } from 'kysely'
import type { Database } from './schema.ts'

/** A right that the role of this connection lacks, and the statement that gives it. */
export type MissingRight = {
  readonly missing: string
  readonly grant: string
  /** False where Syncline works without it and only sees less. */
  readonly needed: boolean
}

export type DatabaseExamination = {
  readonly version: string
  readonly role: string
  readonly rights: readonly MissingRight[]
}

/** What the role may do in this database, also before the first start has made anything. docs/guides/database-grants.md lists every grant. */
export async function examineDatabase(db: Kysely<Database>): Promise<DatabaseExamination> {
  const { rows } = await sql<{
    version: string
    role: string
    database: string
    temporary: boolean
    schema: boolean
    stats: boolean
    migrated: boolean
  }>`
    select current_setting('server_version') as version, format('%I', current_user) as role, format('%I', current_database()) as database,
           has_database_privilege(current_database(), 'temporary') as temporary,
           coalesce((select has_schema_privilege(oid, 'create') and has_schema_privilege(oid, 'usage') from pg_namespace where nspname = 'syncline'),
                    has_database_privilege(current_database(), 'create')) as schema,
           pg_has_role('pg_read_all_stats', 'usage') as stats,
           to_regclass('syncline.resource') is not null as migrated`.execute(db)
  const [facts] = rows
  if (facts === undefined) throw new Error('the database said nothing of itself')
  const { version, role, database, temporary, schema, stats, migrated } = facts
  const rights: MissingRight[] = []
  const lacks = (missing: string, grant: string, needed = true) => rights.push({ missing, grant, needed })
  if (!temporary) lacks('temporary tables', `grant temporary on database ${database} to ${role}`)
  if (!schema) lacks('a schema of its own', `create schema syncline authorization ${role}`)
  if (schema && migrated)
    for (const { table, missing } of await tablesWithout(db))
      lacks(`${missing} on ${table}`, `grant ${missing} on ${table} to ${role}`)
  if (!stats) lacks('the age of other roles’ transactions', `grant pg_read_all_stats to ${role}`, false)
  return { version, role, rights }
}

async function tablesWithout(
  db: Kysely<Database>,
): Promise<readonly { readonly table: string; readonly missing: string }[]> {
  const { rows } = await sql<{ table: string; missing: string }>`
    select format('%I.%I', r.table_schema, r.table_name) as table, string_agg(p.name, ', ' order by p.place) as missing
      from syncline.resource r cross join unnest(array['select', 'insert', 'update', 'delete', 'trigger']) with ordinality p(name, place)
     where not has_table_privilege(r.table_oid, p.name) group by 1 order by 1`.execute(db)
  return rows
}
