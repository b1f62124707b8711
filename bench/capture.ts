import { mkdtemp, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import pg from 'pg'
import { attach, ensureSelf, migrate, openStore } from '../src/store/index.ts'
import { type Owner, startPostgres } from '../test/support/postgres.ts'
import { type Figure, median, say } from './report.ts'
import { createItem, fillItem, ITEM_COLUMNS } from './table.ts'

const ROUNDS = 5
const SECONDS = 3

/** What capture costs the application that owns the tables: the same work on a table that is not attached and on one that is, in turn. */
export async function benchCapture(owner: Owner, options: { readonly rows: number }): Promise<Figure[]> {
  const cluster = await startPostgres(owner, { fsync: true, settings: { shared_buffers: '512MB' } })
  const database = await cluster.createDatabase()
  const folder = await mkdtemp(join(tmpdir(), 'syncline-bench-capture-'))
  const store = await openStore({ databaseUrl: database.url, dataDir: folder })
  const client = new pg.Client(database.url)
  await client.connect()
  try {
    await migrate(store)
    await ensureSelf(store.db, { name: 'bench', key: Buffer.alloc(32, 1) })
    for (const table of ['plain', 'attached']) await client.query(createItem(table))
    for (const table of ['plain', 'attached']) {
      await client.query(`alter table ${table} add column n serial unique`)
      await client.query(fillItem(table, 1, options.rows))
    }
    await attach(store, [{ table: 'attached' }])
    await client.query('vacuum analyze')
    const updates = await singleUpdates(cluster, folder, database.name, options.rows)
    await client.query('create table source as select * from plain')
    const inserts = await bulkInserts(client)
    return [updates, inserts]
  } finally {
    await client.end()
    await store.close()
    await rm(folder, { recursive: true, force: true })
  }
}

async function singleUpdates(
  cluster: Awaited<ReturnType<typeof startPostgres>>,
  folder: string,
  database: string,
  rows: number,
): Promise<Figure> {
  const rates: Record<'plain' | 'attached', number[]> = { plain: [], attached: [] }
  const ratios: number[] = []
  for (let round = 0; round < ROUNDS; round++) {
    for (const table of ['plain', 'attached'] as const) {
      const script = join(folder, `${table}.sql`)
      await writeFile(script, `\\set n random(1, ${rows})\nupdate ${table} set medium = medium + 1 where n = :n;\n`)
      const out = await cluster.run('pgbench', [
        '-n',
        '-M',
        'prepared',
        '-c',
        '1',
        '-T',
        String(SECONDS),
        '-f',
        script,
        database,
      ])
      rates[table].push(Number(/tps = ([\d.]+)/.exec(out.toString())?.[1] ?? Number.NaN))
    }
    ratios.push((rates.attached[round] ?? 0) / (rates.plain[round] ?? 1))
  }
  say(
    `single-row updates: untouched ${Math.round(median(rates.plain))}/s, attached ${Math.round(median(rates.attached))}/s`,
  )
  const ratio = median(ratios)
  return {
    what: 'single-row updates on an attached table',
    value: median(rates.attached),
    unit: 'tx/s',
    ratio,
    must: '≥ 0.55 of the untouched table (goal 0.70)',
    reached: ratio >= 0.55,
  }
}

async function bulkInserts(client: pg.Client): Promise<Figure> {
  const times: Record<'plain' | 'attached', number[]> = { plain: [], attached: [] }
  const ratios: number[] = []
  for (let round = 0; round < ROUNDS; round++) {
    for (const table of ['plain', 'attached'] as const) {
      await client.query(`truncate ${table}`)
      await client.query('delete from syncline.record')
      await client.query('vacuum syncline.record')
      await client.query('checkpoint')
      const begin = performance.now()
      await client.query(`insert into ${table} (id, ${ITEM_COLUMNS}) select id, ${ITEM_COLUMNS} from source`)
      times[table].push(performance.now() - begin)
    }
    ratios.push((times.attached[round] ?? 0) / (times.plain[round] ?? 1))
  }
  const ratio = median(ratios)
  return {
    what: 'bulk insert into an attached table',
    value: median(times.attached),
    unit: 'ms',
    ratio,
    must: '≤ 2.5 of the untouched table',
    reached: ratio <= 2.5,
  }
}
