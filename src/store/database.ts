import { mkdir } from 'node:fs/promises'
import { join } from 'node:path'
import { Kysely, PostgresDialect } from 'kysely'
import pg from 'pg'
import { StoreClient } from './connection.ts'
import type { Database } from './schema.ts'

export type StoreOptions = {
  /** PostgreSQL connection string; absent: the embedded database in `dataDir`. */
  readonly databaseUrl?: string | undefined
  readonly dataDir: string
  /** Largest number of connections to PostgreSQL; the embedded database has exactly one. */
  readonly connectionsMax?: number
}

export type Store = {
  readonly db: Kysely<Database>
  /** The same connections below kysely, for the queue, which brings its own SQL. */
  readonly pool: pg.Pool
  /** False for the embedded database: one connection, no advisory locks between processes, no background vacuum. */
  readonly server: boolean
  /** A connection of its own for session locks; null on the embedded database, whose folder is locked instead. */
  readonly connect: () => Promise<pg.Client> | null
  readonly close: () => Promise<void>
}

/**
 * Values keep every digit: int8 and numeric stay text, timestamps stay text (PostgreSQL has microseconds, Date only milliseconds).
 * The parsers belong to the pool, never to the global `pg.types`.
 */
const TEXT_OIDS: ReadonlySet<number> = new Set([20, 1700, 1082, 1083, 1114, 1184, 1266, 1182, 1115, 1185, 1186])
const types = {
  getTypeParser: (oid: number, format?: 'text' | 'binary') =>
    TEXT_OIDS.has(oid) ? (text: unknown) => text : pg.types.getTypeParser(oid, format as 'text'),
} as unknown as pg.CustomTypesConfig

/** Settings that make the text form of values the same on every site, whatever the defaults of its server. */
const VALUES =
  '-c timezone=UTC -c datestyle=ISO,YMD -c intervalstyle=iso_8601 -c bytea_output=hex -c extra_float_digits=1 -c standard_conforming_strings=on'
/**
 * Every query of ours walks an index for a bounded number of rows. On tables without statistics the planner would rather gather all that
 * remains by bitmap and sort it, again for each batch: four times the cost at 160,000 rows, and growing.
 */
const PLANS = '-c enable_bitmapscan=off -c jit=off -c max_parallel_workers_per_gather=0'
/**
 * What is told to a peer stays true after a crash: before an answer leaves, its log entry is committed to the disk, and with it every commit that it
 * shows, also those of applications that do not wait for the disk. Else a crash could give their places in the order to other changes.
 */
const DURABLE = '-c synchronous_commit=on'
const SESSION = `${VALUES} ${PLANS} ${DURABLE}`

/** Opens the site's database. Both kinds go through one pool type and one dialect. */
export async function openStore(options: StoreOptions): Promise<Store> {
  return options.databaseUrl === undefined ? openEmbedded(options) : openServer(options, options.databaseUrl)
}

function openServer(options: StoreOptions, connectionString: string): Store {
  const base = {
    connectionString,
    options: SESSION,
    types,
    application_name: 'syncline',
    keepAlive: true,
    connectionTimeoutMillis: 10_000,
  }
  const pool = new pg.Pool({
    ...base,
    Client: StoreClient,
    max: options.connectionsMax ?? 10,
    idleTimeoutMillis: 30_000,
  })
  // An idle connection that breaks is replaced by the pool; without a listener the event would end the process.
  pool.on('error', () => {})
  // So would one that breaks between two statements of a transaction; the next statement fails and tells.
  pool.on('connect', (client) => client.on('error', () => {}))
  const db = new Kysely<Database>({ dialect: new PostgresDialect({ pool }) })
  const connect = async () => {
    const client = new pg.Client(base)
    client.on('error', () => {})
    await client.connect()
    return client
  }
  return { db, pool, server: true, connect, close: () => db.destroy() }
}

/** PGlite on disk. It keeps every confirmed commit through the death of the process, but never calls fsync: power loss is not covered. */
async function openEmbedded(options: StoreOptions): Promise<Store> {
  const { PGlite } = await import('@electric-sql/pglite')
  const { createPgConfig } = await import('@electric-sql/pglite/node-postgres')
  const folder = join(options.dataDir, 'database')
  await mkdir(folder, { recursive: true, mode: 0o700 })
  const pglite = await PGlite.create(folder, { postgresqlconf: ['max_wal_size = 128MB'] })
  for (const setting of SESSION.split('-c ').slice(1)) {
    const [name, value] = setting.trim().split('=')
    await pglite.exec(`set ${name} = '${value}'`)
  }
  const pool = new pg.Pool({ ...createPgConfig(pglite), max: 1, types } as pg.PoolConfig)
  const db = new Kysely<Database>({ dialect: new PostgresDialect({ pool }) })
  const close = async () => {
    await db.destroy()
    await pglite.close()
  }
  return { db, pool, server: false, connect: () => null, close }
}
