import { existsSync, readFileSync } from 'node:fs'
import { createServer } from 'node:net'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import pg from 'pg'
import t, { type Test } from 'tap'
import { loadConfig } from '../../src/config/index.ts'
import { type Site, startSite } from '../../src/site.ts'
import { freePort, startPostgres } from '../support/postgres.ts'

const cluster = await startPostgres(t)

async function start(t: Test, dataDir: string, flags: Record<string, unknown> = {}): Promise<Site> {
  const readFile = (path: string) => readFileSync(path, 'utf8')
  const all = { dataDir, port: 0, name: 'here', logLevel: 'silent', ...flags }
  const site = await startSite(loadConfig({ env: {}, flags: all, readFile, hostname: 'here', cwd: dataDir }))
  t.teardown(site.close)
  return site
}

async function api<T>(site: { url: string }, token: string, method: string, path: string, body?: unknown): Promise<T> {
  const headers = { authorization: `Bearer ${token}`, 'content-type': 'application/json', prefer: 'wait' }
  const answer = await fetch(`${site.url}/api/v1${path}`, {
    method,
    headers,
    ...(body !== undefined && { body: JSON.stringify(body) }),
  })
  if (!answer.ok) throw new Error(`${method} ${path}: ${answer.status} ${await answer.text()}`)
  return (await answer.json()) as T
}

t.test('the first start makes an administrator token and keeps it; every start says where it listens', async (t) => {
  const dataDir = t.testdir()
  const { url: databaseUrl } = await cluster.createDatabase()
  const first = await start(t, dataDir, { databaseUrl })
  t.match(first, { name: 'here', dataDir, url: /^http:\/\/127\.0\.0\.1:\d+$/, adminToken: /^syncline_a_/ })
  t.equal(readFileSync(join(dataDir, 'admin.token'), 'utf8'), `${first.adminToken}\n`)
  t.equal(readFileSync(join(dataDir, 'address'), 'utf8'), `${first.url}\n`)
  t.match(await api(first, first.adminToken ?? '', 'GET', '/site'), { uuid: first.uuid, url: first.url })
  await Promise.all([first.close(), first.close()])
  t.notOk(existsSync(join(dataDir, 'address')))
  await t.rejects(fetch(first.url), /fetch failed/)

  const second = await start(t, dataDir, { databaseUrl, host: '0.0.0.0' })
  t.match(second, { uuid: first.uuid, adminToken: undefined, url: /^http:\/\/127\.0\.0\.1:/ })
  t.match(await api(second, first.adminToken ?? '', 'GET', '/site'), { uuid: first.uuid })
})

t.test('a start that fails lets go of everything', async (t) => {
  const dataDir = t.testdir()
  const { url: databaseUrl, name } = await cluster.createDatabase()
  const port = await freePort()
  const occupied = createServer()
  await new Promise<void>((resolve) => occupied.listen(port, '127.0.0.1', resolve))
  await t.rejects(start(t, dataDir, { databaseUrl, port }), { code: 'EADDRINUSE' })
  await new Promise((resolve) => occupied.close(resolve))
  const connections = async () =>
    (await cluster.query('postgres', `select from pg_stat_activity where datname = '${name}'`)).length
  for (let tries = 0; tries < 200 && (await connections()) > 0; tries++) await sleep(50)
  t.equal(await connections(), 0, 'no connection is left')
  const site = await start(t, dataDir, { databaseUrl, port })
  t.equal(site.url, `http://127.0.0.1:${port}`)
  await t.rejects(start(t, dataDir, { databaseUrl }), { code: 'SYNC_CONFIG_DATA_DIR_LOCKED' })
  await t.rejects(start(t, t.testdir({ other: {} }), { databaseUrl, dataDir: join(t.testdirName, 'other') }), {
    code: 'SYNC_CONFIG_DATA_KEY_WRONG',
  })
})

t.test('processes that share a database share the work: one serves, another runs what is due', async (t) => {
  const folders = t.testdir({ hub: {}, web: {}, worker: {} })
  const hubDatabase = await cluster.createDatabase()
  const sharedDatabase = await cluster.createDatabase()
  const pools = [hubDatabase, sharedDatabase].map(({ url }) => new pg.Pool({ connectionString: url, max: 1 }))
  t.teardown(() => Promise.all(pools.map((pool) => pool.end())))
  for (const pool of pools)
    await pool.query('create table city (id uuid primary key default gen_random_uuid(), name text)')
  const [hubPool, pool] = pools as [pg.Pool, pg.Pool]

  const hub = await start(t, join(folders, 'hub'), { databaseUrl: hubDatabase.url, name: 'hub' })
  const databaseUrl = sharedDatabase.url
  const web = await start(t, join(folders, 'web'), { databaseUrl, name: 'field', roles: ['serve'] })
  const keyFile = join(folders, 'web', 'site.key')
  const worker = await start(t, join(folders, 'worker'), {
    databaseUrl,
    name: 'field',
    keyFile,
    roles: ['schedule', 'work'],
  })
  t.match(worker, { url: '', uuid: web.uuid, adminToken: undefined })

  for (const site of [hub, web])
    await api(site, site.adminToken ?? '', 'POST', '/resources', { tables: [{ table: 'city' }] })
  const invitation = { name: 'field', pull: ['city'], push: ['city'] }
  const { code } = await api<{ code: string }>(hub, hub.adminToken ?? '', 'POST', '/invitations', invitation)
  const call = <T>(method: string, path: string, body?: unknown) =>
    api<T>(web, web.adminToken ?? '', method, path, body)
  await call('POST', '/peers/join', { code, name: 'hub' })
  await hubPool.query(`insert into city (name) values ('Wien')`)
  await call('POST', '/tasks', { peer: 'hub', resource: 'city', mode: 'both', schedule: 'every:5' })
  const cities = async () =>
    (await pool.query(`select name from city order by name`)).rows.map((row) => row.name as string)
  const dueTimes = async () => (await call<{ items: { at: string | null }[] }>('GET', '/schedules')).items
  // The plan is made anew after the answer to the request that changed it.
  for (let tries = 0; tries < 600 && (await dueTimes())[0]?.at === null; tries++) await sleep(100)
  t.match(await dueTimes(), [{ at: /T/ }], 'who only serves still knows when it is due')
  // The worker finds the new task by itself.
  while ((await cities()).length === 0) await sleep(50)
  t.same(await cities(), ['Wien'])
  const scheduled = async () => {
    const { items } = await call<{ items: { cause: string; result: string }[] }>('GET', '/runs')
    return items.some(({ cause, result }) => cause === 'schedule' && result === 'success')
  }
  while (!(await scheduled())) await sleep(50)
  t.ok(await scheduled())
  // A run by hand is done by the process that is asked, beside the worker.
  await hubPool.query(`insert into city (name) values ('Graz')`)
  const { runs } = await call<{ runs: { runId: string }[] }>('POST', '/sync', {})
  t.equal(runs.length, 1)
  while ((await cities()).length === 1) await sleep(50)
  t.same(await cities(), ['Graz', 'Wien'])
})

t.test('on the embedded database a site syncs with another one all the same', async (t) => {
  const folders = t.testdir({ hub: {}, field: {} })
  const hub = await start(t, join(folders, 'hub'), { name: 'hub' })
  const field = await start(t, join(folders, 'field'), { name: 'field' })
  const schema = { type: 'object', properties: { name: { type: 'string' } }, required: ['name'] }
  for (const site of [hub, field])
    await api(site, site.adminToken ?? '', 'POST', '/resources/managed', { name: 'city', schema })
  const { code } = await api<{ code: string }>(hub, hub.adminToken ?? '', 'POST', '/invitations', {
    name: 'field',
    pull: ['city'],
    push: ['city'],
  })
  const call = <T>(method: string, path: string, body?: unknown) =>
    api<T>(field, field.adminToken ?? '', method, path, body)
  await call('POST', '/peers/join', { code, name: 'hub' })
  await call('POST', '/tasks', { peer: 'hub', resource: 'city', mode: 'both', schedule: 'live' })
  const id = '11111111-2222-4333-8444-555555555555'
  await api(hub, hub.adminToken ?? '', 'PUT', `/records/city/${id}`, { data: { name: 'Linz' } })
  const here = async () =>
    (
      await fetch(`${field.url}/api/v1/records/city/${id}`, {
        headers: { authorization: `Bearer ${field.adminToken}` },
      })
    ).status
  while ((await here()) !== 200) await sleep(50)
  t.match(await call('POST', '/peers/hub/verify', {}), { resources: [{ resource: 'city', equal: true, checked: 1 }] })
  await field.close()
  await hub.close()
})
