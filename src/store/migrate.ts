import { type Kysely, sql } from 'kysely'
import { type Migration, Migrator } from 'kysely/migration'
import { MIGRATIONS } from '../../migrations/index.ts'
import { SynclineError } from '../sync/index.ts'
import type { Store } from './database.ts'
import { sqlState } from './registry/index.ts'
import type { Database } from './schema.ts'

const SCHEMA = 'syncline'
const TABLE = 'migration'
const LOCK_TABLE = 'migration_lock'
const SERVER_VERSION_MIN = 130_000

/**
 * Brings the database up to this program and gives the names of the migrations that ran. Any number of processes may start at once: one does the
 * work in one transaction under a lock, the others wait for it. Needs a role that may create a schema in the database, or that owns a schema
 * `syncline` made for it.
 * Errors: SYNC_CONFIG_DATABASE_UNSUITABLE, SYNC_CONFIG_DATABASE_NEWER, SYNC_STORE_RIGHTS with the grant that helps.
 */
export async function migrate(
  store: Pick<Store, 'db'>,
  migrations: Readonly<Record<string, Migration>> = MIGRATIONS,
): Promise<string[]> {
  const { db } = store
  await checkServer(db)
  try {
    await refuseNewer(db, migrations)
    if ((await missing(db, migrations)).length === 0) return []
    const migrator = new Migrator({
      db,
      provider: { getMigrations: async () => ({ ...migrations }) },
      migrationTableSchema: SCHEMA,
      migrationTableName: TABLE,
      migrationLockTableName: LOCK_TABLE,
    })
    const { error, results } = await migrator.migrateToLatest()
    if (error !== undefined) throw error
    return (results ?? []).map((result) => result.migrationName)
  } catch (error) {
    if (error instanceof SynclineError) throw error
    if (sqlState(error) === '42501') throw await lackOfRights(db, error)
    // Another, newer program may have been at work between the look and the lock.
    await refuseNewer(db, migrations)
    throw error
  }
}

async function checkServer(db: Kysely<Database>): Promise<void> {
  const { rows } = await sql<{ version: string; name: string; encoding: string; recovering: boolean }>`
    select current_setting('server_version_num') as version, current_setting('server_version') as name,
           current_setting('server_encoding') as encoding, pg_is_in_recovery() as recovering`.execute(db)
  const [server] = rows
  if (server === undefined) throw new Error('the server said nothing of itself')
  const faults = [
    Number(server.version) < SERVER_VERSION_MIN && `it is PostgreSQL ${server.name}`,
    server.encoding !== 'UTF8' && `its encoding is ${server.encoding}`,
    server.recovering && 'it is a standby that only follows another server',
  ].filter((fault) => fault !== false)
  if (faults.length > 0) throw new SynclineError('SYNC_CONFIG_DATABASE_UNSUITABLE', faults.join('; '))
}

/** Names of the migrations that ran on this database; empty before the first. */
async function executed(db: Kysely<Database>): Promise<ReadonlySet<string>> {
  const table = await sql<{ found: boolean }>`select to_regclass(${`${SCHEMA}.${TABLE}`}) is not null as found`.execute(
    db,
  )
  if (!table.rows[0]?.found) return new Set()
  const { rows } = await sql<{ name: string }>`select name from ${sql.table(`${SCHEMA}.${TABLE}`)}`.execute(db)
  return new Set(rows.map((row) => row.name))
}

async function missing(db: Kysely<Database>, migrations: Readonly<Record<string, Migration>>): Promise<string[]> {
  const names = await executed(db)
  return Object.keys(migrations).filter((name) => !names.has(name))
}

async function refuseNewer(db: Kysely<Database>, migrations: Readonly<Record<string, Migration>>): Promise<void> {
  const unknown = [...(await executed(db))].filter((name) => !Object.hasOwn(migrations, name)).sort()
  if (unknown.length > 0) {
    const detail = `the database has seen migrations that this program does not know: ${unknown.join(', ')}`
    throw new SynclineError('SYNC_CONFIG_DATABASE_NEWER', detail)
  }
}

/** Says which role lacks what, and the statement that an administrator of the database can run. */
async function lackOfRights(db: Kysely<Database>, cause: unknown): Promise<SynclineError> {
  const { rows } = await sql<{ role: string; database: string; owner: string | null; mine: boolean | null }>`
    select format('%I', current_user) as role, format('%I', current_database()) as database,
           (select format('%I', pg_get_userbyid(nspowner)) from pg_namespace where nspname = ${SCHEMA}) as owner,
           (select pg_has_role(nspowner, 'USAGE') from pg_namespace where nspname = ${SCHEMA}) as mine`.execute(db)
  const [who] = rows
  if (who === undefined) throw cause
  const reason = cause instanceof Error ? cause.message : String(cause)
  const mend =
    who.owner === null
      ? `create schema ${SCHEMA} authorization ${who.role}; or: grant create on database ${who.database} to ${who.role};`
      : who.mine
        ? `reassign what is in schema ${SCHEMA} and belongs to another role to ${who.role}`
        : `grant ${who.owner} to ${who.role}; or, when nothing is in the schema yet: alter schema ${SCHEMA} owner to ${who.role};`
  return new SynclineError(
    'SYNC_STORE_RIGHTS',
    `role ${who.role} in database ${who.database}: ${reason}. An administrator can run: ${mend}`,
    {
      cause,
    },
  )
}
