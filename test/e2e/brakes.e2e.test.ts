import { join } from 'node:path'
import pg from 'pg'
import t, { type Test } from 'tap'
import type { Brake, LogEntry } from '../../src/store/index.ts'
import { startPostgres } from '../support/postgres.ts'
import { type RunView, type SiteProcess, startSiteProcess } from '../support/site-process.ts'

t.setTimeout(600_000)
const cluster = await startPostgres(t, { settings: { max_connections: 200 } })

type Ground = {
  readonly site: SiteProcess
  readonly database: string
  readonly query: (text: string) => Promise<Record<string, unknown>[]>
}
type Items<T> = { readonly items: readonly T[] }

const SMALL_BATCHES = { SYNCLINE_BATCH_ROWS_MAX: '500' }

async function makeSite(
  t: Pick<Test, 'teardown'>,
  name: string,
  database?: string,
  original?: SiteProcess,
): Promise<Ground> {
  const made = database ?? (await cluster.createDatabase()).name
  const url = cluster.url(made)
  const pool = new pg.Pool({ connectionString: url, max: 2 })
  pool.on('error', () => {})
  t.teardown(() => pool.end())
  // A copy of a site has its key, and knows its administrator.
  const copied = original && {
    env: { ...SMALL_BATCHES, SYNCLINE_KEY_FILE: join(original.dataDir, 'site.key') },
    tokenFile: join(original.dataDir, 'admin.token'),
  }
  const site = await startSiteProcess(t, { name, databaseUrl: url, env: SMALL_BATCHES, ...copied })
  return { site, database: made, query: async (text) => (await pool.query(text)).rows }
}

const hub = await makeSite(t, 'hub')
const field = await makeSite(t, 'field')
const { code } = await hub.site.api<{ code: string }>('POST', '/invitations', { name: 'field' })
await field.site.api('POST', '/peers/join', { code, name: 'hub' })

type Scene = {
  readonly table: string
  readonly sync: (resources?: readonly string[]) => Promise<RunView>
  readonly count: (ground: Ground, where?: string) => Promise<number>
  readonly brakes: (ground?: Ground) => Promise<readonly Brake[]>
  readonly taskId: number
}

/** A table of its own on both sides with so many rows, in step. */
async function scene(table: string, rows: number, task: Record<string, unknown> = {}): Promise<Scene> {
  for (const { query, site } of [hub, field]) {
    await query(`create table ${table} (id text primary key, name text not null, n int not null default 0)`)
    await site.api('POST', '/resources', { tables: [{ table }] }, { prefer: 'wait' })
  }
  for (const direction of ['pull', 'push'])
    await hub.site.api('PUT', `/peers/field/grants/${direction}/${table}`, {}, { 'if-match': '*' })
  await hub.query(
    `insert into ${table} (id, name) select 'r' || lpad(n::text, 5, '0'), 'row ' || n from generate_series(1, ${rows}) n`,
  )
  const made = await field.site.api<{ id: number }>('POST', '/tasks', {
    peer: 'hub',
    resource: table,
    mode: 'both',
    ...task,
  })
  const sync = async (resources: readonly string[] = [table]) => runNow(field, { peer: 'hub', resources })
  await sync()
  const brakes = async (ground = field) =>
    (await ground.site.api<Items<Brake>>('GET', '/brakes?open=true')).items.filter(({ resource }) => resource === table)
  const count = async ({ query }: Ground, where = 'true') =>
    Number((await query(`select count(*) as n from ${table} where ${where}`))[0]?.n)
  return { table, sync, count, brakes, taskId: made.id }
}

async function runNow(ground: Ground, body: object): Promise<RunView> {
  const { runs } = await ground.site.api<{ runs: { runId: string }[] }>('POST', '/sync', body)
  for (;;) {
    const run = await ground.site.api<RunView>('GET', `/runs/${runs[0]?.runId}`)
    if (run.finishedAt !== null) return run
    await new Promise((resolve) => setTimeout(resolve, 30))
  }
}

const release = (ground: Ground, brake: Brake | undefined, comment?: string) =>
  ground.site.api<Brake>('POST', `/brakes/${brake?.token}/release`, { comment })

const checkpoints = (table: string) =>
  field.query(
    `select direction, value from syncline.checkpoint where resource_id = (select id from syncline.resource where name = '${table}') order by 1`,
  )

for (const [title, wipe] of [
  ['deleted', 'delete from'],
  ['truncated', 'truncate'],
] as const) {
  t.test(
    `I10: a source table that was ${title} stops the pull before anything is written; a release works once, by name`,
    async (t) => {
      const table = `wiped_${title}`
      const { sync, count, brakes } = await scene(table, 400)
      const other = await scene(`beside_${title}`, 1)
      t.equal(await count(field), 400)
      const before = await checkpoints(table)
      await hub.query(`${wipe} ${table}`)
      await hub.query(`insert into beside_${title} values ('new', 'goes on')`)

      const run = await sync([table, other.table])
      t.match(run, { result: 'fatal', code: 'SYNC_RUN_BRAKED' })
      t.match(run.message, /"wiped_\w+" has no record at hub any more, and 400 would be deleted here/)
      t.match(run.message, /would delete 400 of 400 records \(100 %\) here; at most 100 or 10 %/)
      t.match(run.message, /syncline sync --release [0-9a-z]{8}/)
      t.equal(await count(field), 400, 'nothing was written')
      t.same(await checkpoints(table), before, 'and no checkpoint moved')
      t.equal(await other.count(field, `id = 'new'`), 1, 'the other resource of the run went on')

      t.match(await sync(), { code: 'SYNC_RUN_BRAKED' }, 'it stays stopped')
      const [brake, ...more] = await brakes()
      t.same(more, [])
      t.match(brake, { direction: 'pull', rules: ['empty', 'deletes'], times: 2, facts: { deletes: 400, living: 400 } })
      t.equal(brake?.facts.samples.length, 10)

      t.match(await release(field, brake, 'moved to another hub'), { releasedBy: 'administrator' })
      t.match(await sync(), { result: 'success', counts: { applied: 400 } })
      t.equal(await count(field), 0)
      const { items } = await field.site.api<Items<LogEntry>>('GET', `/log?action=release&resource=${table}`)
      t.match(items, [{ message: /^administrator released brake .*moved to another hub/ }])
      await t.rejects(release(field, brake), /SYNC_REQUEST_SETTLED/)

      await hub.query(`insert into ${table} (id, name) select 'again ' || n, 'x' from generate_series(1, 300) n`)
      t.match(await sync(), { result: 'success', counts: { applied: 300 } })
      await hub.query(`${wipe} ${table}`)
      t.match(await sync(), { code: 'SYNC_RUN_BRAKED' }, 'the release was for one time')
      t.equal(await count(field), 300)
    },
  )
}

t.test(
  'I10: half of the records deleted stops the pull, also where they come in many batches, and exactly at the limit of the task',
  async (t) => {
    const { table, sync, count, brakes, taskId } = await scene('half', 1_000)
    await hub.query(`delete from half where id > 'r00500'`)
    t.match(await sync(), { code: 'SYNC_RUN_BRAKED', message: /would delete 500 of 1,000 records \(50 %\) here/ })
    t.equal(await count(field), 1_000)
    const limit = (maxDeletes: string) =>
      field.site.api('PATCH', `/tasks/${taskId}`, { maxDeletes }, { 'if-match': '*' })
    await limit('499')
    t.match(await sync(), { code: 'SYNC_RUN_BRAKED', message: /at most 499 may be deleted/ })
    await limit('50%')
    t.match(await sync(), { result: 'success' })
    t.equal(await count(field), 500)
    t.same(await brakes(), [], 'what no longer stops is no longer told')
    await t.rejects(limit('lots'), /SYNC_REQUEST_INVALID/)

    await limit('none')
    await hub.query(`update half set n = n + 1 where id <= 'r00040'`)
    await field.site.api('PATCH', `/tasks/${taskId}`, { maxChanges: '39' }, { 'if-match': '*' })
    t.match(await sync(), { code: 'SYNC_RUN_BRAKED', message: /would change 40 of 500 records \(8 %\) here/ })
    t.equal(await count(field, 'n > 0'), 0, table)
  },
)

t.test(
  'I10: more than one batch is weighed before the first of them is applied, by versions and without values',
  async (t) => {
    const { sync, count, brakes } = await scene('many', 2_600, { maxChanges: '2000' })
    t.equal(await count(field), 2_600)
    await hub.query(`update many set n = n + 1`)
    const run = await sync()
    t.match(run, { code: 'SYNC_RUN_BRAKED', message: /would change 2,600 of 2,600 records/ })
    t.equal(await count(field, 'n > 0'), 0)
    await release(field, (await brakes())[0])
    t.match(await sync(), { result: 'success', counts: { applied: 2_600 } })
    t.equal(await count(field, 'n = 1'), 2_600)
    t.match(await sync(), { result: 'success', counts: { pulled: 0 } })
    t.same(
      await field.query(
        `select ending from syncline.brake b join syncline.resource r on r.id = b.resource_id where r.name = 'many'`,
      ),
      [{ ending: 'used' }],
    )
  },
)

t.test('I10: a table that was emptied here is not pushed as deletions, and the hub keeps what it has', async (t) => {
  const { sync, count, brakes } = await scene('emptied', 300)
  await field.query('delete from emptied')
  t.match(await sync(), {
    code: 'SYNC_RUN_BRAKED',
    message: /"emptied" has no record here any more, and 300 would be deleted at hub/,
  })
  t.equal(await count(hub), 300)
  t.same(await brakes(hub), [], 'the hub was not even asked to')
  const [brake] = await brakes()
  t.match(brake, { direction: 'push', facts: { deletes: 300, living: 300 } })
  await release(field, brake)
  t.match(
    await sync(),
    { code: 'SYNC_RUN_BRAKED', message: /what field pushes of "emptied" would delete 300 of 300/ },
    'the hub has a brake of its own',
  )
  t.equal(await count(hub), 300)
  const [there] = await brakes(hub)
  t.match(there, { direction: 'receive', facts: { announced: 300 } })
  await release(hub, there)
  t.match(await sync(), { result: 'success', counts: { pushed: 300 } })
  t.equal(await count(hub), 0)
})

t.test('I10: a canary that is missing or deleted at the peer stops the run', async (t) => {
  const { sync, count, taskId, brakes } = await scene('mine', 20, { canary: 'r00001' })
  await hub.query(`insert into mine values ('x', 'y')`)
  t.match(await sync(), { result: 'success' })
  await hub.query(`delete from mine where id in ('r00001', 'r00002')`)
  t.match(await sync(), { code: 'SYNC_RUN_BRAKED', message: /the canary record "r00001" of "mine" was deleted at hub/ })
  t.equal(await count(field), 21)
  await field.site.api('PATCH', `/tasks/${taskId}`, { canary: 'nobody' }, { 'if-match': '*' })
  t.match(await sync(), { code: 'SYNC_RUN_BRAKED', message: /the canary record "nobody" of "mine" is not at hub/ })
  await field.site.api('PATCH', `/tasks/${taskId}`, { canary: 'r00003' }, { 'if-match': '*' })
  t.match(await sync(), { result: 'success' })
  t.equal(await count(field), 19)
  t.same(await brakes(), [])
})

t.test('I10: a source that was set up anew, with no deletions to tell of, is noticed as empty', async (t) => {
  const { sync, count } = await scene('anew', 40)
  await hub.query(`set session_replication_role = replica; delete from anew; set session_replication_role = origin`)
  await hub.query(
    `delete from syncline.record where resource_id = (select id from syncline.resource where name = 'anew')`,
  )
  t.match(await sync(), {
    code: 'SYNC_RUN_BRAKED',
    message: /"anew" has no record at hub any more, and 40 that came from there are here/,
  })
  t.equal(await count(field), 40)
})

t.test('a peer that was restored is followed, and that is told; a copy that lives beside it is not', async (t) => {
  const { sync, count } = await scene('restored', 50)
  const dump = await cluster.dump(hub.database)
  await hub.query(`insert into restored values ('lost', 'after the backup')`)
  await sync()
  await hub.site.stop()
  const old = await cluster.createDatabase()
  await cluster.restore(old.name, dump)
  const copy = await makeSite(t, 'copy', old.name, hub.site)
  const address = (url: string) => field.site.api('PATCH', '/peers/hub', { url }, { 'if-match': '*' })
  await address(copy.site.url)
  const run = await sync()
  t.match(run, { result: 'success' }, String(run.message))
  t.match((await field.site.api<Items<LogEntry>>('GET', '/log?action=follow')).items, [
    { peer: 'hub', result: 'warning', message: /was restored or copied/ },
  ])
  t.equal(await count(copy, `id = 'lost'`), 1, 'what the backup had not is there again')

  // The one that it was restored from is started again by mistake.
  await field.query(
    `update syncline.peer_mark set superseded_at = superseded_at - interval '1 hour', first_at = first_at - interval '1 hour'`,
  )
  await hub.site.start()
  await address(hub.site.url)
  t.match(await sync(), { result: 'success' }, 'a new mark: from here nobody can tell')
  await field.query(`update syncline.peer_mark set superseded_at = superseded_at - interval '1 hour'`)
  await address(copy.site.url)
  const cloned = await sync()
  t.match(cloned, { code: 'SYNC_PEER_CLONED', message: /two sites call themselves/ })
  const [brake] = (await field.site.api<Items<Brake>>('GET', '/brakes?open=true&peer=hub')).items.filter(
    ({ resource }) => resource === null,
  )
  t.match(brake, { direction: 'peer', rules: ['clone'] })
  await address(hub.site.url)
  t.match(await sync(), { code: 'SYNC_PEER_CLONED' }, 'which one is right a person says')
  await copy.site.stop()
  await release(field, brake, 'the copy is stopped')
  t.match(await sync(), { result: 'success' })
})

t.test('a field site and its copy, which both push to a hub, are told apart by the hub', async (t) => {
  const { table, sync, count } = await scene('cloned', 5)
  const dump = await cluster.dump(field.database)
  const twin = await cluster.createDatabase()
  await cluster.restore(twin.name, dump)
  const copy = await makeSite(t, 'twin', twin.name, field.site)
  await copy.query(`insert into ${table} values ('copy', 'from the copy')`)
  t.match(
    await runNow(copy, { peer: 'hub', resources: [table] }),
    { result: 'success' },
    'a copy alone is as a restart',
  )
  await hub.query(`update syncline.peer_mark set superseded_at = superseded_at - interval '2 minutes'`)
  await field.query(`insert into ${table} values ('field', 'from the field')`)
  await new Promise((resolve) => setTimeout(resolve, 2_100))
  const run = await sync()
  t.match(run, { code: 'SYNC_PEER_CLONED' }, String(run.message))
  t.equal(await count(hub, `id = 'field'`), 0)
  t.match(
    await runNow(copy, { peer: 'hub', resources: [table] }),
    { code: 'SYNC_PEER_CLONED' },
    'nor does the copy go on',
  )
  const [brake] = (await hub.site.api<Items<Brake>>('GET', '/brakes?open=true&peer=field')).items.filter(
    ({ resource }) => resource === null,
  )
  await copy.site.stop()
  await release(hub, brake)
  t.match(await sync(), { result: 'success' })
  t.equal(await count(hub, `id = 'field'`), 1)
})
