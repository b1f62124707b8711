import { spawn } from 'node:child_process'
import { setTimeout as sleep } from 'node:timers/promises'
import pg from 'pg'
import { type Cluster, type Owner, startPostgres, type TestDatabase } from '../test/support/postgres.ts'
import { type Figure, median, say } from './report.ts'
import { type BenchSite, startSite } from './site.ts'
import { createItem, fillItem, ITEM_COLUMNS } from './table.ts'

const COPY_ROUNDS = 3
const IDLE_RUNS = 20
const SETTLE_MS = 10_000
const MEMORY_SAMPLE_MS = 100
/** Before the first look at a run, and between two: short for one that has nothing to do. */
const POLL_FIRST_MS = 12
const POLL_MIN_MS = 3
const POLL_MAX_MS = 25

type Pair = {
  readonly hub: BenchSite
  readonly field: BenchSite
  readonly hubDb: pg.Client
  readonly fieldDb: pg.Client
}

/** Baseline, a mixed delta, runs with nothing to do and memory, between two sites over HTTP; limit: COPY TO | COPY FROM of the same table. */
export async function benchExchange(
  owner: Owner,
  options: { readonly rows: number; readonly large: number },
): Promise<Figure[]> {
  const cluster = await startPostgres(owner, {
    fsync: true,
    settings: { shared_buffers: '512MB', max_wal_size: '4GB' },
  })
  const first = await measured(cluster, owner, options.rows, async (pair, limit) => {
    const baseline = await baselineRun(pair, options.rows)
    const small = [
      baselineFigure(baseline, options.rows, limit),
      await mixedFigure(pair, options.rows),
      await idleFigure(pair),
    ]
    await assertEqual(pair)
    return { figures: small, peak: baseline.peakMiB }
  })
  if (options.large <= options.rows) return first.figures
  const second = await measured(cluster, owner, options.large, async (pair, limit) => {
    const baseline = await baselineRun(pair, options.large)
    return {
      figures: [{ ...baselineFigure(baseline, options.large, limit), what: `baseline of ${options.large} rows` }],
      peak: baseline.peakMiB,
    }
  })
  const memory: Figure = {
    what: `peak memory of either process, ${options.large} rows (${Math.round(first.peak)} MiB at ${options.rows})`,
    value: second.peak,
    unit: 'MiB',
    ratio: second.peak / first.peak,
    must: '≤ 256 MiB resident and flat',
    reached: second.peak <= 256,
  }
  return [...first.figures, ...second.figures, memory]
}

async function measured<T>(
  cluster: Cluster,
  owner: Owner,
  rows: number,
  work: (pair: Pair, limit: number) => Promise<T>,
): Promise<T> {
  const [hubBase, fieldBase] = [await cluster.createDatabase(), await cluster.createDatabase()]
  const [hubDb, fieldDb] = [new pg.Client(hubBase.url), new pg.Client(fieldBase.url)]
  await hubDb.connect()
  await fieldDb.connect()
  for (const client of [hubDb, fieldDb]) await client.query(createItem('item'))
  await hubDb.query(fillItem('item', 1, rows))
  await hubDb.query('vacuum analyze item')
  const limit = await copyLimit(cluster, hubBase, fieldBase, fieldDb, rows)
  const [hub, field] = [await startSite(owner, 'hub', hubBase.url), await startSite(owner, 'field', fieldBase.url)]
  await pairUp(hub, field)
  const result = await work({ hub, field, hubDb, fieldDb }, limit)
  await hub.stop()
  await field.stop()
  await hubDb.end()
  await fieldDb.end()
  await hubBase.drop()
  await fieldBase.drop()
  return result
}

/** Rows a second of the plainest way from one database to the other, key included: what everything else is measured against. */
async function copyLimit(
  cluster: Cluster,
  from: TestDatabase,
  to: TestDatabase,
  target: pg.Client,
  rows: number,
): Promise<number> {
  const psql = cluster.bin('psql')
  const seconds: number[] = []
  for (let round = 0; round < COPY_ROUNDS; round++) {
    await target.query('drop table if exists copied')
    await target.query(createItem('copied'))
    const begin = performance.now()
    await shell(
      `"${psql}" -q "${from.url}" -c "copy item to stdout" | "${psql}" -q "${to.url}" -c "copy copied from stdin"`,
    )
    seconds.push((performance.now() - begin) / 1000)
  }
  await target.query('drop table copied')
  const limit = rows / median(seconds)
  say(`limit: COPY | COPY of ${rows} rows: ${Math.round(limit)} rows/s`)
  return limit
}

async function pairUp(hub: BenchSite, field: BenchSite): Promise<void> {
  for (const site of [hub, field]) await site.call('POST', '/api/v1/resources', { tables: [{ table: 'item' }] })
  const invitation = await hub.call<{ code: string }>('POST', '/api/v1/invitations', {
    name: 'field',
    pull: [{ resource: 'item' }],
    push: [{ resource: 'item' }],
  })
  await field.call('POST', '/api/v1/peers/join', { code: invitation.code, name: 'hub' })
  await field.call('POST', '/api/v1/tasks', { peer: 'hub', resource: 'item', mode: 'both' })
}

/** One run, from the request to its end, in seconds. */
async function run(field: BenchSite): Promise<number> {
  const begin = performance.now()
  const { runs } = await field.call<{ runs: { runId: string }[] }>('POST', '/api/v1/sync', {})
  // Every look costs the site that is measured.
  await sleep(POLL_FIRST_MS)
  for (const { runId } of runs) {
    for (;;) {
      const entry = await field.call<{ finishedAt: string | null; result: string | null; message: string | null }>(
        'GET',
        `/api/v1/runs/${runId}`,
      )
      if (entry.finishedAt !== null) {
        if (entry.result !== 'success') throw new Error(`run ${runId} ended with ${entry.result}: ${entry.message}`)
        break
      }
      // More seldom the longer it takes.
      await sleep(Math.min(POLL_MAX_MS, Math.max(POLL_MIN_MS, (performance.now() - begin) / 20)))
    }
  }
  return (performance.now() - begin) / 1000
}

type Baseline = { readonly seconds: number; readonly peakMiB: number }

async function baselineRun(pair: Pair, rows: number): Promise<Baseline> {
  let peakMiB = 0
  let sampling = true
  const sampler = (async () => {
    while (sampling) {
      for (const site of [pair.hub, pair.field]) peakMiB = Math.max(peakMiB, await site.residentMiB())
      await sleep(MEMORY_SAMPLE_MS)
    }
  })()
  const seconds = await run(pair.field)
  sampling = false
  await sampler
  say(`baseline of ${rows} rows: ${seconds.toFixed(2)} s, peak ${Math.round(peakMiB)} MiB`)
  return { seconds, peakMiB }
}

function baselineFigure(baseline: Baseline, rows: number, limit: number): Figure {
  const rate = rows / baseline.seconds
  return {
    what: `baseline of ${rows} rows`,
    value: rate,
    unit: 'rows/s',
    ratio: rate / limit,
    must: '≥ 0.25 of COPY | COPY',
    reached: rate / limit >= 0.25,
  }
}

async function mixedFigure(pair: Pair, rows: number): Promise<Figure> {
  const [inserts, updates, deletes] = [rows / 5, rows / 5, rows / 20]
  await pair.hubDb.query(`update item set medium = medium + 1, note = note || '!' where medium <= ${updates}`)
  await pair.hubDb.query(fillItem('item', rows + 10, rows + 9 + inserts))
  await pair.hubDb.query(`delete from item where medium > ${rows - deletes} and medium <= ${rows}`)
  const changes = inserts + updates + deletes
  const seconds = await run(pair.field)
  const rate = changes / seconds
  return {
    what: `${inserts} inserts, ${updates} updates, ${deletes} deletes`,
    value: rate,
    unit: 'changes/s',
    must: '≥ 20,000 changes/s',
    reached: rate >= 20_000,
  }
}

async function idleFigure(pair: Pair): Promise<Figure> {
  await run(pair.field)
  // What the changes before set off beside the runs comes to its end first.
  await sleep(SETTLE_MS)
  const times: number[] = []
  for (let each = 0; each < IDLE_RUNS; each++) times.push((await run(pair.field)) * 1000)
  const time = median(times)
  return { what: 'a run with nothing to do', value: time, unit: 'ms', must: '≤ 20 ms', reached: time <= 20 }
}

async function assertEqual(pair: Pair): Promise<void> {
  const digest = `select count(*) || ':' || coalesce(sum(hashtextextended(concat_ws('|', id, ${ITEM_COLUMNS}), 0)::numeric), 0) as digest from item`
  const [here, there] = [await pair.hubDb.query(digest), await pair.fieldDb.query(digest)]
  if (here.rows[0].digest !== there.rows[0].digest) throw new Error('the two tables differ after the runs')
}

function shell(command: string): Promise<void> {
  return new Promise((resolve, reject) => {
    const child = spawn('sh', ['-c', command], { stdio: ['ignore', 'ignore', 'inherit'] })
    child.once('error', reject)
    child.once('exit', (code) => (code === 0 ? resolve() : reject(new Error(`${command} ended with ${code}`))))
  })
}
