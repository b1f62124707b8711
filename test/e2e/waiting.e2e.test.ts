import { createHmac } from 'node:crypto'
import { mkdtemp, readFile, rm } from 'node:fs/promises'
import { createServer } from 'node:http'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import pg from 'pg'
import t, { type Test } from 'tap'
import { syncline } from '../cli/terminal.ts'
import { startPostgres } from '../support/postgres.ts'
import { type SiteProcess, startSiteProcess } from '../support/site-process.ts'
import { startSmtp } from '../support/smtp.ts'

t.setTimeout(600_000)

const TABLES = `
  create table person (id text primary key, name text);
  create table visit (id text primary key, person text not null references person, note text)`
const NAMES = ['person', 'visit']

const cluster = await startPostgres(t, { settings: { max_connections: 200 } })
const folder = await mkdtemp(join(tmpdir(), 'syncline-waiting-'))
t.teardown(() => rm(folder, { recursive: true, force: true }))

type Ground = {
  readonly site: SiteProcess
  readonly query: (text: string) => Promise<Record<string, unknown>[]>
  readonly connect: () => Promise<pg.Client>
  readonly run: (...args: string[]) => ReturnType<typeof syncline>
}

async function makeSite(t: Test, name: string, env: Record<string, string> = {}): Promise<Ground> {
  const { url } = await cluster.createDatabase()
  const connect = async () => {
    const client = new pg.Client({ connectionString: url })
    client.on('error', () => {})
    await client.connect()
    t.teardown(() => client.end())
    return client
  }
  const client = await connect()
  const query: Ground['query'] = async (text) => (await client.query(text)).rows
  await query(TABLES)
  const site = await startSiteProcess(t, { name, databaseUrl: url, env })
  await site.api('POST', '/resources', { tables: NAMES.map((table) => ({ table })) }, { prefer: 'wait' })
  return { site, query, connect, run: (...args) => syncline([...args, '--data-dir', site.dataDir]) }
}

async function pair(hub: Ground, field: Ground): Promise<void> {
  const { code } = await hub.site.api<{ code: string }>('POST', '/invitations', {
    name: 'field',
    pull: NAMES,
    push: NAMES,
  })
  await field.site.api('POST', '/peers/join', { code, name: 'hub' })
  for (const resource of NAMES) await field.site.api('POST', '/tasks', { peer: 'hub', resource, mode: 'both' })
}

async function two(t: Test, env: Record<string, string> = {}): Promise<readonly [Ground, Ground]> {
  const [hub, field] = await Promise.all([makeSite(t, 'hub', env), makeSite(t, 'field', env)])
  await pair(hub, field)
  return [hub, field]
}

type Entry = { id: string; recordId: string; reason: string; outcome: string; dependants: number }
const waiting = async (ground: Ground, side: string): Promise<Entry[]> =>
  (await ground.site.api<{ items: Entry[] }>('GET', `/quarantine?side=${side}`)).items

t.test('what waits at the hub is seen at the field; given up there, it is named here', async (t) => {
  const [hub, field] = await two(t)
  await hub.query(`alter table person add constraint short check (length(name) < 10)`)
  await field.query(
    `insert into person values ('a', 'much too long'), ('b', 'also too long'), ('c', 'ok'); insert into visit values ('v', 'a', 'x')`,
  )
  t.match(await field.site.sync('hub'), { result: 'warning', counts: { pushQuarantined: 3 } })
  t.match(
    (await waiting(field, 'there')).toSorted((x, y) => (x.recordId < y.recordId ? -1 : 1)),
    [
      { recordId: 'a', outcome: 'quarantined', reason: /violates check constraint "short"/, dependants: 1 },
      { recordId: 'b', outcome: 'quarantined' },
      { recordId: 'v', outcome: 'quarantined', waitsFor: { resource: 'person', id: 'a' } },
    ],
  )
  const listed = await field.run('quarantine', 'list')
  t.match(listed.stdout, /there .* hub +person +a +1 .*check constraint "short"/)

  const file = join(folder, 'waiting.ndjson')
  t.equal((await hub.run('quarantine', 'export', 'person', file)).code, 0)
  const lines = (await readFile(file, 'utf8'))
    .trim()
    .split('\n')
    .map((line) => JSON.parse(line))
  t.same(
    lines.toSorted((x, y) => (x.id < y.id ? -1 : 1)),
    [
      { id: 'a', data: { name: 'much too long' } },
      { id: 'b', data: { name: 'also too long' } },
    ],
  )
  t.match((await hub.run('quarantine', 'export', 'visit', '--full')).stdout, /"reason":"person refers to person a/)

  const here = (await waiting(hub, 'here')).find(({ recordId }) => recordId === 'b')
  const discarded = await hub.run('quarantine', 'discard', here?.id ?? '', '--because', 'entered twice')
  t.equal(discarded.code, 0)
  t.match((await hub.run('log')).stdout, /discard .*b was given up by administrator because entered twice/)
  t.match(
    (await hub.run('status')).stdout,
    /a record was given up here since then/,
    'at once, not with the next comparison',
  )
  await field.site.sync('hub')
  t.match(
    (await field.run('quarantine', 'list', '--side', 'there')).stdout,
    /discarded +discarded at hub by administrator because entered twice/,
  )
  await field.site.sync('hub')
  for (const [ground, where] of [
    [field, 'at the peer'],
    [hub, 'here'],
  ] as const)
    t.match((await ground.run('status')).stdout, new RegExp(`1 record given up ${where}`), 'although nothing moved')
  const verified = await field.run('verify', 'hub', 'person')
  t.match(verified.stdout, /b was discarded at hub by administrator because entered twice/)
  t.match(await hub.query('select id from person order by id'), [{ id: 'c' }])

  // The schema arrives: attach again, and what waited is applied without anybody's retry.
  await hub.query('alter table person drop constraint short')
  await hub.site.api('POST', '/resources', { tables: NAMES.map((table) => ({ table })) }, { prefer: 'wait' })
  await field.site.sync('hub')
  t.match(await hub.query('select id from person order by id'), [{ id: 'a' }, { id: 'c' }])
  t.match(await hub.query('select id from visit'), [{ id: 'v' }])
  t.match(await waiting(field, 'there'), [{ recordId: 'b', outcome: 'discarded' }])
  for (const [ground, where] of [
    [field, 'at the peer'],
    [hub, 'here'],
  ] as const) {
    const { stdout } = await ground.run('status')
    t.match(stdout, new RegExp(`differs: 1 record given up ${where}`), 'what was given up is not said to wait')
    t.notMatch(stdout, /[1-9]\d* records? in quarantine/)
  }
  await field.query(`update person set name = 'b' where id = 'b'`)
  await field.site.sync('hub')
  t.match(await hub.query('select id from person order by id'), [{ id: 'a' }, { id: 'b' }, { id: 'c' }])
  await field.site.sync('hub')

  // What is mended in the table is seen by a retry at once, and by a run, which then compares once more.
  const alter = (change: string) => field.query(`alter table person ${change}`)
  const held = async (name: string) => {
    await hub.query(`update person set name = '${name}' where id = 'c'`)
    t.match(await field.site.sync('hub'), { result: 'warning' })
    const [entry] = await waiting(field, 'here')
    return entry?.id ?? ''
  }
  await alter('alter column name type varchar(12) using left(name, 12)')
  await field.site.sync('hub')
  const long = await held('longer than twelve letters')
  await alter('alter column name type text')
  t.match(await field.run('quarantine', 'retry', long), { code: 0, stdout: /is applied/ })
  await field.run('verify', 'hub', 'person', '--deep', '--repair')
  await alter(`add constraint no_bad check (name <> 'bad')`)
  await held('bad')
  await alter('drop constraint no_bad')
  await field.query(`update syncline.quarantine set retry_at = now()`)
  t.match(await field.site.sync('hub'), { result: 'success', counts: { applied: 1 } })
  t.match(
    (await field.run('status')).stdout,
    /green +hub +person/,
    'what was settled at the end of the run is compared',
  )
  t.same(await waiting(field, 'there'), [])
  t.equal((await field.run('verify', 'hub')).code, 0)
})

t.test(
  'I1: a deletion and a new reference that cross are equal again after two runs, and the run says so',
  async (t) => {
    const [hub, field] = await two(t)
    await field.query(`insert into person values ('p', 'Ada'), ('q', 'Bea')`)
    await field.site.sync('hub')
    await field.query(`delete from person where id = 'p'`)
    await hub.query(`insert into visit values ('v', 'p', 'unknown to the field'); delete from person where id = 'q'`)
    await field.query(`insert into visit values ('w', 'q', 'unknown to the hub')`)
    for (let run = 0; run < 3; run++) await field.site.sync('hub')
    for (const ground of [hub, field]) {
      t.same(await ground.query('select id from person order by id'), [{ id: 'p' }, { id: 'q' }])
      t.same(await ground.query('select id from visit order by id'), [{ id: 'v' }, { id: 'w' }])
      t.same(await waiting(ground, 'here'), [])
      t.same(await waiting(ground, 'there'), [])
      t.equal((await ground.query(`select from syncline.log where action = 'revive'`)).length, 1)
    }
    t.equal((await field.run('verify', 'hub')).code, 0)
    const quiet = await field.site.sync('hub')
    t.match(quiet, { result: 'success', counts: { pulled: 0, pushed: 0 } })
  },
)

t.test(
  'a record whose parent the peer has is asked for by id, and what was refused goes when the grant is widened',
  async (t) => {
    const [hub, field] = await two(t)
    await hub.query(`insert into person values ('p', 'Ada'), ('far', 'Bea'); insert into visit values ('v', 'p', 'x')`)
    const { runs } = await field.site.api<{ runs: { runId: string }[] }>('POST', '/sync', {
      peer: 'hub',
      resources: ['visit'],
    })
    await until(
      t,
      async () => (await field.site.api<{ finishedAt: string }>('GET', `/runs/${runs[0]?.runId}`)).finishedAt !== null,
    )
    t.same(await field.query('select id from person'), [{ id: 'p' }], 'only the one that was waited for')
    t.same(await field.query('select id from visit'), [{ id: 'v' }])
    const [peer] = (await hub.site.api<{ items: { id: number }[] }>('GET', '/peers')).items
    const grant = (filter: string | null) =>
      hub.site.api('PUT', `/peers/${peer?.id}/grants/push/person`, { filter }, { 'if-match': '*' })
    await grant(`name = 'Ada'`)
    await field.query(`insert into person values ('n', 'Nora')`)
    t.match(await field.site.sync('hub'), { counts: { pushRefused: 1 } })
    t.match(await waiting(field, 'there'), [{ recordId: 'n', outcome: 'refused' }])
    t.match(await field.site.sync('hub'), { counts: { pushed: 0 } })
    await grant(null)
    await field.site.sync('hub')
    t.same(await hub.query(`select name from person where id = 'n'`), [{ name: 'Nora' }], 'I1')
    t.same(await waiting(field, 'there'), [])
  },
)

t.test('what was told of a record that waits is taken back, also by another process', async (t) => {
  const [hub, field] = await two(t)
  await field.query(`alter table person add constraint short check (length(name) < 5)`)
  await hub.query(`insert into person values ('a', 'too long')`)
  await field.site.sync('hub')
  t.match(await waiting(hub, 'there'), [{ recordId: 'a', reason: /short/ }], 'the hub hears what waits at the field')
  await field.site.stop()
  await field.query('delete from syncline.quarantine')
  await field.site.start()
  await field.site.sync('hub')
  t.same(await waiting(hub, 'there'), [])
})

t.test('alarms: seen everywhere, sent once when they begin and once when they end', async (t) => {
  const smtp = await startSmtp(t)
  const secret = 'a secret of some length'
  const posts: { type: string; code: string }[] = []
  const server = createServer((request, response) => {
    let body = ''
    request.on('data', (chunk: Buffer) => {
      body += chunk.toString()
    })
    request.on('end', () => {
      const { 'webhook-id': id, 'webhook-timestamp': at, 'webhook-signature': signature } = request.headers
      const expected = `v1,${createHmac('sha256', secret).update(`${id}.${at}.${body}`).digest('base64')}`
      if (signature === expected) {
        const { type, data } = JSON.parse(body)
        posts.push({ type, code: data.alarm.code })
      }
      response.writeHead(signature === expected ? 204 : 401).end()
    })
  })
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', () => resolve()))
  t.teardown(() => server.close())
  const [hub, field] = await two(t, {
    SYNCLINE_ALARM_EVERY_SECONDS: '1',
    SYNCLINE_ALARM_CALM_SECONDS: '1',
    SYNCLINE_ALARM_HORIZON_SECONDS: '2',
    SYNCLINE_ALARM_FAILURES: '1',
    SYNCLINE_ALARM_QUARANTINE_PER_HOUR: '1',
    SYNCLINE_ALARM_DISK_MEGABYTES: '1',
    SYNCLINE_SMTP_URL: smtp.url,
    SYNCLINE_MAIL_FROM: 'syncline@example.org',
    SYNCLINE_MAIL_TO: 'operator@example.org',
    SYNCLINE_WEBHOOK_URL: `http://127.0.0.1:${(server.address() as { port: number }).port}/`,
    SYNCLINE_WEBHOOK_SECRET: secret,
  })
  const codes = async () =>
    (await field.site.api<{ items: { code: string }[] }>('GET', '/alarms?open=true')).items.map(({ code }) => code)
  const raised = (code: string) => until(t, async () => (await codes()).includes(code), `${code} begins`)
  const over = (code: string) => until(t, async () => !(await codes()).includes(code), `${code} ends`)
  const events = listen(t, field, /alarm\.ended.*"code":"capture-broken"/s)

  // A transaction held open.
  const holder = await field.connect()
  await holder.query(`set application_name = 'night load'; begin; insert into person values ('held', 'x')`)
  await raised('horizon-held')
  const health = await fetch(`${field.site.url}/health`)
  t.match(await health.json(), { status: /warning|critical/, alarms: [{ code: 'horizon-held', text: /night load/ }] })
  t.match(
    await (await fetch(`${field.site.url}/metrics`)).text(),
    /^syncline_alarm\{code="horizon-held",peer="",level="\w+"\} 1$/m,
  )
  const status = await field.run('status')
  t.match(status.stdout, /(warning|critical) +nothing that was written .* process \d+ \(night load/)
  t.match((await field.run('doctor')).stdout, /alarm horizon-held .*night load/)
  t.equal((await field.run('alarm', 'list')).code, 3)
  let held = await field.site.sync('hub')
  for (let tries = 0; tries < 100 && !/held back/.test(held.message ?? ''); tries++) {
    await sleep(300)
    held = await field.site.sync('hub')
  }
  t.match(held.message, /changes here are held back since .* UTC by process \d+ \(night load, idle in transaction\)/)
  t.match((await field.run('status')).stdout, /held back since .* by process \d+/)
  await holder.query('rollback')
  await over('horizon-held')

  // A trigger that is dropped, and is there again.
  await field.query('alter table person disable trigger zz_syncline_insert')
  await raised('capture-broken')
  t.match(await (await fetch(`${field.site.url}/health`)).json(), { status: 'critical' })
  t.equal((await fetch(`${field.site.url}/health`)).status, 503)
  await field.query('alter table person enable always trigger zz_syncline_insert')
  await over('capture-broken')

  // Quarantine that fills.
  await field.query(`alter table person add constraint none check (name <> 'bad')`)
  await hub.query(`insert into person values ('x1', 'bad'), ('x2', 'bad'), ('x3', 'bad')`)
  await field.site.sync('hub')
  await raised('quarantine-growing')
  t.match((await field.run('status')).stdout, /red +hub +person .*went into quarantine within an hour/)
  await hub.query(`update person set name = 'good'`)
  await field.site.sync('hub')
  await over('quarantine-growing')

  // A clock that is off.
  await field.query(`update syncline.peer set clock_offset_ms = 3600000`)
  await raised('clock-off')
  await field.site.sync('hub')
  await over('clock-off')

  // The peer stops.
  await hub.site.stop()
  await field.site.sync('hub')
  await raised('peer-failing')
  await hub.site.start()
  await field.query(`update syncline.peer set retry_at = null`)
  await field.site.sync('hub')
  await over('peer-failing')

  const expected = ['horizon-held', 'capture-broken', 'quarantine-growing', 'clock-off', 'peer-failing']
  const pairs = expected.flatMap((code) => [`alarm.begun ${code}`, `alarm.ended ${code}`]).sort()
  const told = () =>
    posts.map(({ type, code }) => `${type} ${code}`).filter((each) => expected.includes(each.split(' ')[1] ?? ''))
  await until(t, async () => new Set(told()).size >= pairs.length, 'all is told')
  // Both sites tell the same party; what concerns only the field is told once.
  const mine = told().filter((each) => !each.endsWith('horizon-held'))
  t.same(
    mine.toSorted(),
    pairs.filter((each) => !each.endsWith('horizon-held')),
  )
  t.equal(new Set(told()).size, pairs.length)
  t.same(smtp.faults, [])
  await until(
    t,
    async () => smtp.mails.some(({ data }) => /^Subject: .*over: capture-broken/m.test(data)),
    'by mail too',
  )
  const subjects = smtp.mails.map(({ data }) => /^Subject: (.*)$/m.exec(data)?.[1] ?? '')
  t.equal(subjects.filter((each) => /critical: capture-broken/.test(each)).length, 1)
  t.equal(subjects.filter((each) => /over: capture-broken/.test(each)).length, 1)
  const heard = await events()
  t.match(heard, /event: alarm\.begun\nid: \d+\.alarm\.begun\ndata: \{.*"code":"capture-broken"/)
  t.match(heard, /event: alarm\.ended\nid: \d+\.alarm\.ended\ndata: \{.*"code":"capture-broken"/)
})

/** Listens to the events of a site; gives what came, once it is enough. */
function listen(t: Test, { site }: Ground, enough: RegExp): () => Promise<string> {
  let heard = ''
  const gone = new AbortController()
  t.teardown(() => gone.abort())
  const reading = (async () => {
    const token = (await readFile(join(site.dataDir, 'admin.token'), 'utf8')).trim()
    const answer = await fetch(`${site.url}/api/v1/events`, {
      headers: { authorization: `Bearer ${token}` },
      signal: gone.signal,
    })
    const decoder = new TextDecoder()
    for await (const chunk of answer.body ?? []) heard += decoder.decode(chunk)
  })().catch(() => {})
  return async () => {
    for (let tries = 0; tries < 600 && !enough.test(heard); tries++) await sleep(100)
    gone.abort()
    await reading
    return heard
  }
}

async function until(t: Test, holds: () => Promise<boolean>, what = 'in time'): Promise<void> {
  for (let tries = 0; tries < 900; tries++) {
    if (await holds()) break
    await sleep(100)
  }
  t.ok(await holds(), what)
}
