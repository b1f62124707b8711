import { setTimeout as sleep } from 'node:timers/promises'
import pg from 'pg'
import { type Owner, startPostgres } from '../test/support/postgres.ts'
import { type Figure, median, say } from './report.ts'
import { type BenchSite, startSite } from './site.ts'
import { createItem, fillItem } from './table.ts'

const ROUNDS = 3
const RUNS = 15
const CHANGES = 1_000

/** What a proof costs: a comparison of every record of two sites, and the part of a run that its own comparison takes. */
export async function benchVerify(owner: Owner, options: { readonly rows: number }): Promise<Figure[]> {
  const { rows } = options
  const cluster = await startPostgres(owner, {
    fsync: true,
    settings: { shared_buffers: '512MB', max_wal_size: '4GB' },
  })
  const [hubBase, fieldBase] = [await cluster.createDatabase(), await cluster.createDatabase()]
  const [hubDb, fieldDb] = [new pg.Client(hubBase.url), new pg.Client(fieldBase.url)]
  await hubDb.connect()
  await fieldDb.connect()
  try {
    for (const client of [hubDb, fieldDb]) await client.query(createItem('item'))
    await hubDb.query(fillItem('item', 1, rows))
    const [hub, field] = [await startSite(owner, 'hub', hubBase.url), await startSite(owner, 'field', fieldBase.url)]
    await pairUp(hub, field)
    await run(field)
    for (const client of [hubDb, fieldDb]) await client.query('vacuum analyze')
    say(`${rows} records on both sides`)
    const seconds: number[] = []
    for (let round = 0; round < ROUNDS; round++) seconds.push(await verify(field, rows))
    const shares = await runShares(field, hubDb, fieldDb)
    const time = median(seconds)
    const share = median(shares)
    return [
      { what: `verify of ${rows} equal records`, value: time, unit: 's', must: '≤ 3 s', reached: time <= 3 },
      {
        ...{ what: `comparison in a run of ${CHANGES} changes`, value: share * 100, unit: '%' },
        ...{ ratio: share, must: '≤ 10 % of the run', reached: share <= 0.1 },
      },
    ]
  } finally {
    await hubDb.end()
    await fieldDb.end()
  }
}

async function pairUp(hub: BenchSite, field: BenchSite): Promise<void> {
  for (const site of [hub, field]) await site.call('POST', '/api/v1/resources', { tables: [{ table: 'item' }] })
  const grants = [{ resource: 'item' }]
  const { code } = await hub.call<{ code: string }>('POST', '/api/v1/invitations', {
    name: 'field',
    pull: grants,
    push: grants,
  })
  await field.call('POST', '/api/v1/peers/join', { code, name: 'hub' })
  await field.call('POST', '/api/v1/tasks', { peer: 'hub', resource: 'item', mode: 'both' })
}

type Run = {
  readonly startedAt: string
  readonly finishedAt: string | null
  readonly result: string | null
  readonly message: string | null
}

/** Milliseconds of one run, by its own times. */
async function run(field: BenchSite): Promise<number> {
  const { runs } = await field.call<{ runs: { runId: string }[] }>('POST', '/api/v1/sync', {})
  for (;;) {
    const { startedAt, finishedAt, result, message } = await field.call<Run>('GET', `/api/v1/runs/${runs[0]?.runId}`)
    if (finishedAt === null) {
      await sleep(20)
      continue
    }
    if (result !== 'success') throw new Error(`the run ended with ${result}: ${message}`)
    return Date.parse(finishedAt) - Date.parse(startedAt)
  }
}

async function verify(field: BenchSite, rows: number): Promise<number> {
  const begin = performance.now()
  type Report = { readonly resources: readonly { readonly equal: boolean; readonly checked: number }[] }
  const { resources } = await field.call<Report>('POST', '/api/v1/peers/hub/verify', {})
  const seconds = (performance.now() - begin) / 1000
  if (resources[0]?.equal !== true || resources[0].checked !== rows)
    throw new Error(`verify says ${JSON.stringify(resources)}`)
  say(`verify: ${seconds.toFixed(2)} s`)
  return seconds
}

/** For some runs of so many changes, which part of each the comparison took. */
async function runShares(field: BenchSite, hubDb: pg.Client, fieldDb: pg.Client): Promise<readonly number[]> {
  const shares: number[] = []
  for (let round = 0; round < RUNS; round++) {
    const from = 1 + round * CHANGES
    await hubDb.query(`update item set note = note || '!' where medium between ${from} and ${from + CHANGES - 1}`)
    const whole = await run(field)
    const { rows } = await fieldDb.query('select verdict, took_ms from syncline.agreement')
    if (rows[0]?.verdict !== 'equal') throw new Error(`the run found ${rows[0]?.verdict}`)
    shares.push(rows[0].took_ms / whole)
    say(`run of ${CHANGES} changes: ${whole} ms, comparison ${rows[0].took_ms.toFixed(1)} ms`)
  }
  return shares
}
