import { pipeline } from 'node:stream/promises'
import { setTimeout as sleep } from 'node:timers/promises'
import pg from 'pg'
import { from as copyFrom, to as copyTo } from 'pg-copy-streams'
import t, { type Test } from 'tap'
import { makeCertificates } from '../support/certificates.ts'
import { startPostgres } from '../support/postgres.ts'
import { startProxy } from '../support/proxy.ts'
import { type RunView, type SiteProcess, startSiteProcess } from '../support/site-process.ts'

/** Kills of either side; the twenty take `SYNCLINE_TEST_KILLS=20`. */
const KILLS = Number(process.env.SYNCLINE_TEST_KILLS ?? 4)
const ROWS = 10_000

/** A table as applications have them: a serial key of its own, a reference to itself by that key, and a uuid that is the same everywhere. */
const TABLE = `
  create table place (
    id serial primary key,
    uuid uuid not null unique default gen_random_uuid(),
    parent int references place (id),
    name text not null,
    population bigint,
    opened timestamptz default now(),
    facts jsonb
  );
  create index on place (parent)`
/** The table without what is local to a site. */
const CONTENT =
  'select p.uuid, q.uuid as parent, p.name, p.population, p.opened, p.facts from place p left join place q on q.id = p.parent'

const cluster = await startPostgres(t, { settings: { max_connections: 200 } })

type Ground = {
  readonly site: SiteProcess
  readonly query: (text: string) => Promise<Record<string, unknown>[]>
  readonly pool: pg.Pool
}

async function makeSite(
  t: Test,
  name: string,
  options: { env?: Record<string, string>; ca?: string } = {},
): Promise<Ground> {
  const { url } = await cluster.createDatabase()
  const pool = new pg.Pool({ connectionString: url, max: 2 })
  // A test may end the server under it.
  pool.on('error', () => {})
  t.teardown(() => pool.end())
  const query: Ground['query'] = async (text) => (await pool.query(text)).rows
  await query(TABLE)
  const site = await startSiteProcess(t, { name, databaseUrl: url, ...options })
  return { site, query, pool }
}

const fill = (ground: Ground, count: number, name: string) =>
  ground.query(`
    insert into place (name, population, facts)
      select '${name} ' || n, n * 1000003::bigint, jsonb_build_object('n', n, 'text', E'a\\tb\\n"c"') from generate_series(1, ${count}) n;
    update place p set parent = (select min(id) from place where name like '${name}%') where name like '${name}%' and id % 3 = 0`)

const attach = ({ site }: Ground) =>
  site.api('POST', '/resources', { tables: [{ table: 'place', key: 'uuid' }] }, { prefer: 'wait' })

/** One code, two commands: `field` joins `hub` and syncs the table with it both ways. */
async function pair(hub: Ground, field: Ground): Promise<void> {
  const invitation = { name: field.site.name, pull: ['place'], push: ['place'] }
  const { code } = await hub.site.api<{ code: string }>('POST', '/invitations', invitation)
  await field.site.api('POST', '/peers/join', { code, name: hub.site.name })
  await field.site.api('POST', '/tasks', { peer: hub.site.name, resource: 'place', mode: 'both' })
}

/** Rows that one side has and the other has not: the rows of one are copied to the other, then EXCEPT both ways. */
async function differences(a: Ground, b: Ground): Promise<number> {
  const [from, to] = await Promise.all([a.pool.connect(), b.pool.connect()])
  try {
    await to.query(`create temp table other as ${CONTENT} limit 0`)
    const source = from.query(copyTo(`copy (${CONTENT}) to stdout`))
    await pipeline(source, to.query(copyFrom('copy other from stdin')))
    const { rows } = await to.query<{ n: number }>(`
      with here as (${CONTENT})
      select (select count(*) from (select * from here except all select * from other) x)::int
           + (select count(*) from (select * from other except all select * from here) y)::int as n`)
    return rows[0]?.n ?? -1
  } finally {
    await to.query('drop table if exists other')
    from.release()
    to.release()
  }
}

/** Makes each batch that arrives take its time, so that whoever wants to come in the middle of a run does. Gives what ends that. */
async function slowly({ query }: Ground): Promise<() => Promise<unknown>> {
  await query(`
    create function dawdle() returns trigger language plpgsql as $$ begin perform pg_sleep(0.25); return null; end $$;
    create trigger dawdle after insert on place for each statement execute function dawdle()`)
  return () => query('drop function dawdle() cascade')
}

const count = async (ground: Ground, where = 'true') =>
  (await ground.query(`select count(*)::int as n from place where ${where}`))[0]?.n

t.test('two sites with a table of their own become equal both ways and prove it', async (t) => {
  const hub = await makeSite(t, 'hub')
  const field = await makeSite(t, 'field')
  await fill(hub, ROWS, 'hub')
  await fill(field, ROWS, 'field')
  await Promise.all([attach(hub), attach(field)])
  await pair(hub, field)

  const first = await field.site.sync('hub')
  t.match(first, { result: 'success', counts: { applied: ROWS, pushed: ROWS } }, String(first.message))
  t.equal(await differences(hub, field), 0)
  t.equal(await count(hub), 2 * ROWS)

  await hub.query(
    `update place set population = population + 1 where id % 10 = 0; delete from place where name like 'field %7'`,
  )
  await field.query(
    `update place set name = name || '!' where id % 10 = 1; delete from place where parent is null and name like 'hub %9'`,
  )
  t.match(await field.site.sync('hub'), { result: 'success' })
  t.equal(await differences(hub, field), 0)
  const report = { peer: 'hub', resources: [{ resource: 'place', equal: true, differing: [] }] }
  t.match(await field.site.api('POST', '/peers/hub/verify', {}), report)
  t.match(await field.site.sync('hub'), { result: 'success', counts: { pulled: 0, pushed: 0 } })

  await t.test('a difference that came in behind the triggers is named and repaired', async (t) => {
    const [first, second] = await hub.query('select uuid from place order by uuid limit 2')
    await hub.query(`
      set session_replication_role = replica;
      delete from syncline.record where record_id in ('${first?.uuid}', '${second?.uuid}');
      delete from place where uuid in ('${first?.uuid}', '${second?.uuid}');
      set session_replication_role = origin`)
    const found = { resources: [{ equal: false, differing: [first?.uuid, second?.uuid] }] }
    t.match(await field.site.api('POST', '/peers/hub/verify', {}), found)
    t.match(await field.site.api('POST', '/peers/hub/verify', { repair: true, preview: true }), {
      ...found,
      repair: { runId: null, preview: { tasks: [{ resource: 'place', parts: [{ writes: { deletes: 2 } }, {}] }] } },
    })
    t.equal(await differences(hub, field), 2, 'a preview writes nothing')
    type Mended = { readonly repair: { readonly runId: string } }
    const mended = await field.site.api<Mended>('POST', '/peers/hub/verify', { repair: true })
    t.match(mended, { ...report, repair: { applied: 2, preview: null } })
    t.equal(await differences(hub, field), 0)
    const undone = { counts: { restored: 2 } }
    t.match(
      await field.site.api('POST', `/runs/${mended.repair.runId}/undo`, {}),
      undone,
      'and is a run like any other',
    )
    t.match(await field.site.sync('hub'), { result: 'success', counts: { pushed: 2 } })
    t.equal(await differences(hub, field), 0)
    const { items } = await hub.site.api<{ items: unknown[] }>('GET', '/runs?kind=received&limit=1')
    t.match(items, [{ peer: 'field', received: String, counts: { applied: 2 } }])

    await field.query(`
      set session_replication_role = replica;
      delete from syncline.record where record_id in (select uuid::text from place where name like 'hub 2%');
      delete from place where name like 'hub 2%';
      set session_replication_role = origin`)
    const verify = async (options: object) => {
      type Found = { readonly equal: boolean; readonly differing: string[]; readonly detail: string }
      const { resources } = await field.site.api<{ resources: Found[] }>('POST', '/peers/hub/verify', options)
      return resources[0]
    }
    const few = await verify({})
    t.match(few, { equal: false, detail: /search ended after 100/ })
    t.equal(few?.differing.length, 100)
    const all = await verify({ deep: true })
    const gone = await hub.query(`select uuid from place where name like 'hub 2%' order by uuid`)
    t.same(
      all?.differing,
      gone.map(({ uuid }) => uuid),
      'every one of them, and no other',
    )
    t.match(await verify({ repair: true }), { equal: true, differing: [] })
    t.equal(await differences(hub, field), 0)
  })

  await t.test('SIGHUP runs every task now', async (t) => {
    await hub.query(`insert into place (name) values ('by signal')`)
    field.site.signal('SIGHUP')
    while ((await count(field, `name = 'by signal'`)) === 0) await sleep(50)
    t.equal(await count(field, `name = 'by signal'`), 1)
  })

  await t.test('a live task follows both sides, an interval comes by itself', async (t) => {
    const { items } = await field.site.api<{ items: { id: number; revision: number }[] }>('GET', '/tasks')
    const [task] = items
    const change = (schedule: string, revision: number) =>
      field.site.api<{ revision: number }>(
        'PATCH',
        `/tasks/${task?.id}`,
        { schedule },
        { 'if-match': `"${revision}"`, 'content-type': 'application/merge-patch+json' },
      )
    const { revision } = await change('live', task?.revision ?? 0)
    await hub.query(`insert into place (name) values ('live from hub')`)
    await field.query(`insert into place (name) values ('live from field')`)
    while ((await differences(hub, field)) > 0) await sleep(50)
    t.equal(await count(hub, `name like 'live from%'`), 2)
    await change('every:5', revision)
    await hub.query(`insert into place (name) values ('in time')`)
    while ((await count(field, `name = 'in time'`)) === 0) await sleep(50)
    t.equal(await count(field, `name = 'in time'`), 1)
    const causesNow = async () => {
      const { items: runs } = await field.site.api<{ items: { cause: string }[] }>('GET', '/runs?limit=100')
      return new Set(runs.map(({ cause }) => cause))
    }
    // A live run that was under way may have brought it.
    while (!(await causesNow()).has('schedule')) await sleep(100)
    const causes = await causesNow()
    for (const cause of ['hand', 'signal', 'live', 'schedule']) t.ok(causes.has(cause), cause)
  })
  t.equal(await field.site.stop(), 0)
  t.equal(await hub.site.stop(), 0)
})

t.test(`${KILLS} times kill -9 of either side in the middle: nothing is lost or doubled`, async (t) => {
  const hub = await makeSite(t, 'hub')
  const field = await makeSite(t, 'field', { env: { SYNCLINE_BATCH_ROWS_MAX: '500' } })
  await fill(hub, 5_000, 'hub')
  await fill(field, 5_000, 'field')
  await Promise.all([attach(hub), attach(field)])
  await pair(hub, field)
  let interrupted = 0
  for (let round = 0; round < KILLS; round++) {
    // Rows of its own only: an edit that met a deletion would rightly bring the row back.
    await hub.query(`update place set population = population + 1 where name like 'hub %' and id % 2 = ${round % 2}`)
    await field.query(
      `insert into place (name) select 'round ${round} ' || n from generate_series(1, 500) n; delete from place where name = 'field ${round + 2}'`,
    )
    const victim = round % 2 === 0 ? field : hub
    const running = field.site.sync('hub').then(
      (run: RunView) => run.result,
      () => 'gone',
    )
    // Somewhere within a run of about a second.
    await sleep(50 + ((round * 137) % 600))
    await victim.site.kill()
    if ((await running) !== 'success') interrupted += 1
    await victim.site.start()
  }
  t.ok(interrupted >= KILLS / 2, `${interrupted} of ${KILLS} runs were cut short`)
  for (let tries = 0; ; tries++) {
    const run = await field.site.sync('hub')
    if (run.result === 'success') break
    if (tries === 5) t.match(run, { result: 'success' })
    if (tries === 5) break
    await sleep(200)
  }
  t.equal(await differences(hub, field), 0)
  t.equal(await count(hub), 10_000 + KILLS * 500 - KILLS)
  t.match(await field.site.api('POST', '/peers/hub/verify', {}), { resources: [{ equal: true }] })
  const { items } = await field.site.api<{ items: { state: string }[] }>('GET', '/runs?limit=100')
  t.ok(
    items.every(({ state }) => ['finished', 'interrupted', 'cancelled'].includes(state)),
    'no run stays open',
  )
})

t.test('SIGTERM in the middle of a run ends it at a safe point', async (t) => {
  const hub = await makeSite(t, 'hub')
  const field = await makeSite(t, 'field', { env: { SYNCLINE_BATCH_ROWS_MAX: '500' } })
  await fill(hub, 8_000, 'hub')
  await Promise.all([attach(hub), attach(field)])
  await pair(hub, field)
  const nothingHere = { resources: [{ equal: false, checked: 8_000, detail: /search ended/ }] }
  t.match(await field.site.api('POST', '/peers/hub/verify', {}), nothingHere)
  const atOnce = await slowly(field)
  const running = field.site.sync('hub').catch(() => null)
  while ((await count(field)) === 0) await sleep(10)
  t.equal(await field.site.stop(), 0)
  await running
  const here = (await count(field)) as number
  t.ok(here < 8_000 && here % 500 === 0, `${here} rows: whole batches`)
  await field.site.start()
  const { items } = await field.site.api<{ items: RunView[] }>('GET', '/runs?limit=1')
  t.match(items, [{ state: 'cancelled' }])
  await atOnce()
  t.match(await field.site.sync('hub'), { result: 'success', counts: { pulled: 8_000 - here } })
  t.equal(await differences(hub, field), 0)
})

t.test('a pairing code works once, only for who made it, and registers nothing when it does not', async (t) => {
  const hub = await makeSite(t, 'hub')
  const field = await makeSite(t, 'field')
  await attach(hub)
  const { code } = await hub.site.api<{ code: string }>('POST', '/invitations', { name: 'field', pull: ['place'] })
  const join = (text: string) => field.site.api('POST', '/peers/join', { code: text })
  const parts = JSON.parse(Buffer.from(code.split('.')[1] ?? '', 'base64url').toString()) as Record<string, string>
  const altered = (over: Record<string, string>) =>
    `syncline1.${Buffer.from(JSON.stringify({ ...parts, ...over })).toString('base64url')}`
  await t.rejects(join(altered({ key: 'A'.repeat(43) })), /SYNC_PEER_MISMATCH/)
  t.same((await field.site.api<{ items: unknown[] }>('GET', '/peers')).items, [])
  await t.rejects(join(altered({ expires: '2020-01-01T00:00:00Z' })), /SYNC_AUTH_PAIRING_INVALID/)
  await t.rejects(join(altered({ secret: 'A'.repeat(43) })), /SYNC_AUTH_PAIRING_INVALID/)
  await t.rejects(join(code.slice(0, -9)), /SYNC_AUTH_PAIRING_INVALID/)
  // The first attempt was redeemed over there before the proof failed here.
  const again = await hub.site.api<{ code: string }>('POST', '/invitations', { name: 'field2', pull: ['place'] })
  await hub.site.api('DELETE', '/peers/field', undefined, { 'if-match': '*' })
  t.match(await join(again.code), { name: 'hub', url: hub.site.url, hasToken: true })
  await t.rejects(join(again.code), /SYNC_REQUEST_EXISTS/)
})

t.test(
  'a hub with a private authority is paired with and synced through a proxy, by who shows a certificate',
  async (t) => {
    const tls = makeCertificates(t)
    const proxy = await startProxy(t, 'user', 'word')
    const secure = {
      SYNCLINE_TLS_CERT_FILE: tls.server.certFile,
      SYNCLINE_TLS_KEY_FILE: tls.server.keyFile,
      SYNCLINE_TLS_CLIENT_CA_FILE: tls.caFile,
    }
    const outgoing = { SYNCLINE_CA_FILE: tls.caFile, SYNCLINE_PROXY: `http://user:word@127.0.0.1:${proxy.port}` }
    const hub = await makeSite(t, 'hub', { env: secure, ca: tls.ca })
    const field = await makeSite(t, 'field', { env: outgoing })
    await fill(hub, 100, 'hub')
    await fill(field, 100, 'field')
    await Promise.all([attach(hub), attach(field)])
    await pair(hub, field)

    t.match(await field.site.sync('hub'), { result: 'fatal', message: /certificate/i })
    const certificate = { clientCertPem: tls.client.cert, clientKeyPem: tls.client.key }
    await field.site.api('PATCH', '/peers/hub', certificate, {
      'if-match': '*',
      'content-type': 'application/merge-patch+json',
    })
    t.match(await field.site.sync('hub'), { result: 'success', counts: { applied: 100, pushApplied: 100 } })
    t.equal(await differences(hub, field), 0)
    t.ok(proxy.seen.length >= 2, `${proxy.seen.length} connections`)
    t.ok(proxy.seen.every((each) => each === `CONNECT ${new URL(hub.site.url).host}`))
    const said = [...hub.site.lines, ...field.site.lines].join('\n')
    t.notMatch(said, /user:word|PRIVATE KEY/, 'no secret is in the log')
  },
)

t.test('a database that goes away and comes back costs a run, not the site', async (t) => {
  const hub = await makeSite(t, 'hub')
  const field = await makeSite(t, 'field', { env: { SYNCLINE_BATCH_ROWS_MAX: '500' } })
  await fill(hub, 5_000, 'hub')
  await Promise.all([attach(hub), attach(field)])
  await pair(hub, field)
  const atOnce = await slowly(field)
  const running = field.site.sync('hub').then(
    ({ result }) => result,
    () => 'no answer',
  )
  while ((await count(field)) === 0) await sleep(10)
  await cluster.halt('immediate')
  t.not(await running, 'success')
  await sleep(300)
  await cluster.resume()
  await atOnce()
  const again = async () => field.site.sync('hub').catch(() => null)
  while ((await again())?.result !== 'success') await sleep(100)
  t.equal(await differences(hub, field), 0)
  t.equal(await count(field), 5_000)
  t.equal(await field.site.stop(), 0, 'it is the process that was started')
  t.equal(await hub.site.stop(), 0)
})
