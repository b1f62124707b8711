/** Sites whose application is a PostgreSQL of its own: a cluster for each site, so that each can be killed, put back and given another clock. */
import { execFile } from 'node:child_process'
import { mkdir, mkdtemp, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { promisify } from 'node:util'
import pg from 'pg'
import { type Cluster, type Owner, startPostgres, type TestDatabase } from '../../test/support/postgres.ts'
import type { Member, Row, Values } from './contest.ts'
import type { State } from './judge.ts'

const execute = promisify(execFile)

export const NAMES = ['a', 'b', 'c'] as const

/** A longer value is compared by its checksum and its length. */
const COMPARED_WHOLE = 2_000

export type SqlSite = {
  readonly name: string
  readonly cluster: Cluster
  readonly database: TestDatabase
  readonly member: Member
  /** Ends the connections of the application; a statement opens a new one. */
  readonly disconnect: () => Promise<void>
}

export type Clock = {
  /** Environment for a program that shall live by this clock. */
  readonly env: Readonly<Record<string, string>>
  readonly set: (seconds: number) => Promise<void>
}

/** A clock that runs like the real one with an offset that can be changed. */
export async function makeClock(owner: Owner, library: string): Promise<Clock> {
  const folder = await mkdtemp(join(tmpdir(), 'syncline-clock-'))
  owner.teardown(() => rm(folder, { recursive: true, force: true }))
  await execute('chmod', ['0755', folder])
  const file = join(folder, 'offset')
  const set = (seconds: number) => writeFile(file, `${seconds < 0 ? '' : '+'}${seconds}\n`, { mode: 0o644 })
  await set(0)
  return {
    env: {
      LD_PRELOAD: library,
      FAKETIME_TIMESTAMP_FILE: file,
      FAKETIME_CACHE_DURATION: '1',
      FAKETIME_DONT_FAKE_MONOTONIC: '1',
      DONT_FAKE_MONOTONIC: '1',
    },
    // The library looks at the file once a second.
    set: async (seconds) => {
      await set(seconds)
      await new Promise((resolve) => setTimeout(resolve, 2_100))
    },
  }
}

export type ClusterChoice = Parameters<typeof startPostgres>[1]

/** A cluster for each site. `choice` is given the site's number. */
export function startClusters(
  owner: Owner,
  count: number,
  choice: (site: number) => ClusterChoice,
): Promise<Cluster[]> {
  return Promise.all(Array.from({ length: count }, (_, site) => startPostgres(owner, choice(site))))
}

export async function openSqlSites(
  clusters: readonly Cluster[],
  ddl: string,
  tables: readonly string[],
  afterAlter: (site: number) => Promise<void>,
): Promise<readonly SqlSite[]> {
  return Promise.all(clusters.map((cluster, site) => openSqlSite(cluster, site, ddl, tables, () => afterAlter(site))))
}

async function openSqlSite(
  cluster: Cluster,
  site: number,
  ddl: string,
  tables: readonly string[],
  afterAlter: () => Promise<void>,
): Promise<SqlSite> {
  const name = NAMES[site] ?? String(site)
  const database = await cluster.createDatabase()
  let client: pg.Client | undefined
  const connected = async () => {
    const opened = new pg.Client({ connectionString: database.url })
    // The server may be killed under it.
    opened.on('error', () => {
      if (client === opened) client = undefined
    })
    await opened.connect()
    return opened
  }
  const disconnect = async () => {
    const ended = client
    client = undefined
    await ended?.end().catch(() => {})
  }
  const sql: Member['sql'] = async (text, values) => {
    client ??= await connected()
    return rowsOf(await client.query(text, values && [...values]))
  }
  await sql(ddl)
  const member: Member = {
    name,
    put: async (table, id, values) => void (await sql(...upsert(table, id, values))),
    remove: async (table, id) => void (await sql(`delete from ${table} where id = $1`, [id])),
    contents: async () => {
      const contents = new Map<string, State>()
      for (const table of tables) {
        for (const row of await sql(await readAll(sql, table))) contents.set(`${table}/${row.id}`, row.state as State)
      }
      return contents
    },
    sql,
    connect: async () => {
      const own = await connected()
      return { sql: async (text, values) => rowsOf(await own.query(text, values && [...values])), end: () => own.end() }
    },
    alter: async (text) => {
      await sql(text)
      await afterAlter()
    },
  }
  return { name, cluster, database, member, disconnect }
}

function rowsOf(result: pg.QueryResult | pg.QueryResult[]): Row[] {
  return (Array.isArray(result) ? result.at(-1)?.rows : result.rows) as Row[]
}

function upsert(table: string, id: string, values: Values): [string, unknown[]] {
  const columns = Object.keys(values)
  const places = columns.map((_, index) => `$${index + 2}`)
  const text = `insert into ${table} (${['id', ...columns].join(', ')}) values (${['$1', ...places].join(', ')})
    on conflict (id) do update set ${columns.map((column) => `${column} = excluded.${column}`).join(', ')}`
  return [text, [id, ...Object.values(values)]]
}

/** Every row of a table with every column as its text, exactly. The columns are read anew: scenarios change them. */
async function readAll(sql: Member['sql'], table: string): Promise<string> {
  const columns = await sql(
    `select attname from pg_attribute where attrelid = $1::regclass and attnum > 0 and not attisdropped order by attname`,
    [table],
  )
  const pairs = columns.map(({ attname }) => {
    const text = `"${attname}"::text`
    return `'${attname}', case when length(${text}) > ${COMPARED_WHOLE} then 'md5 ' || md5(${text}) || ' of ' || length(${text}) else ${text} end`
  })
  return `select id::text as id, jsonb_build_object(${pairs.join(', ')}) as state from ${table}`
}

/** Stops the server, copies its folder, starts it again; the function that comes back does the same with the copy. */
export async function backUpCluster(owner: Owner, { cluster, disconnect }: SqlSite): Promise<() => Promise<void>> {
  const folder = await mkdtemp(join(tmpdir(), 'syncline-backup-'))
  owner.teardown(() => rm(folder, { recursive: true, force: true }))
  await mkdir(folder, { recursive: true })
  await disconnect()
  await cluster.halt('fast')
  await execute('cp', ['-a', cluster.dataDir, join(folder, 'data')])
  await cluster.resume()
  return async () => {
    await disconnect()
    await cluster.halt('fast')
    await rm(cluster.dataDir, { recursive: true, force: true })
    await execute('cp', ['-a', join(folder, 'data'), cluster.dataDir])
    await cluster.resume()
  }
}
