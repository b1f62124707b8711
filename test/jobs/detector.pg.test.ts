import { createServer } from 'node:http'
import { setTimeout as sleep } from 'node:timers/promises'
import t, { type Test } from 'tap'
import { createMailer, createWebhook, type Sender } from '../../src/adapters/index.ts'
import { type DetectorDeps, detect, intervalOf, startDetector } from '../../src/jobs/detector.ts'
import {
  type Alarm,
  closeLeases,
  createPeer,
  createTask,
  finishRun,
  listAlarms,
  notePeerFailure,
  pausePeer,
  resumePeer,
  startRun,
  takeSnapshot,
  updatePeer,
  writeCheckpoint,
} from '../../src/store/index.ts'
import { formatCheckpoint } from '../../src/sync/index.ts'
import { introduce, pullAll, type Site, siteFactory } from '../support/sites.ts'
import { startSmtp } from '../support/smtp.ts'

const sites = await siteFactory(t)
const DDL = 'create table item (id uuid primary key default gen_random_uuid(), name text)'
const MINUTE = 60_000
const HOUR = 60 * MINUTE

const THRESHOLDS: DetectorDeps['alarms']['thresholds'] = {
  intervals: 3,
  quarantineHours: 24,
  quarantineMax: 5,
  quarantinePerHour: 3,
  checkpointHours: 24,
  horizonSeconds: 1,
  clockSeconds: 60,
  verifyHours: 48,
  diskMegabytes: 100,
  failures: 2,
  pausedHours: 24,
  jobMinutes: 60,
}

let serial = 0

type Watched = {
  readonly site: Site
  readonly deps: DetectorDeps
  readonly told: string[]
  /** Looks at the site as if it were so many milliseconds later. */
  readonly look: (laterMs?: number) => Promise<readonly string[]>
  readonly errors: unknown[]
  disk: number
}

async function watch(over: Partial<DetectorDeps['alarms']> = {}): Promise<Watched> {
  const site = await sites.make(`w${++serial}`, DDL, ['item'])
  const told: string[] = []
  const errors: unknown[] = []
  const watched = { disk: 10_000 }
  const deps: DetectorDeps = {
    store: site.store,
    alarms: {
      everySeconds: 3_600,
      calmSeconds: 0,
      level: 'warning',
      thresholds: THRESHOLDS,
      channels: {
        webhook: async ({ moment, alarm }) => void told.push(`${moment} ${alarm.code} ${alarm.peer}`.trim()),
      },
      disks: async () => [{ path: '/data', freeBytes: watched.disk * 1024 ** 2 }],
      ...over,
    },
    events: { alarmBegun: () => {}, alarmEnded: () => {}, noticeFailed: ({ reason }) => errors.push(reason) },
    onError: (error) => errors.push(error),
  }
  const start = Date.now()
  let step = 0
  const look = async (laterMs = 0) => {
    await detect(deps, { at: start + laterMs + ++step, floor: start })
    return (await openAlarms(site)).map(({ code }) => code)
  }
  return Object.assign(watched, { site, deps, told, errors, look })
}

async function openAlarms(site: Site): Promise<readonly Alarm[]> {
  return (await listAlarms(site.store.db, { open: true })).items.toReversed()
}

const hub = (site: Site, url: string | null = 'http://hub.example.org') =>
  createPeer(site.store.db, site.key, { name: 'hub', uuid: '11111111-2222-4333-8444-555555555555', url })

async function succeed(site: Site, peer: { id: number; name: string }): Promise<void> {
  const { id } = await startRun(site.store.db, { peer, cause: 'test' })
  await finishRun(site.store.db, id, { result: 'success' })
}

t.test('a transaction that is held open is named with its process, application and query, once', async (t) => {
  const { site, look, told } = await watch()
  t.same(await look(), [])
  const holder = await site.connect()
  await holder.query(`set application_name = 'night load'; begin`)
  await holder.query(`insert into item (name) values ('held')`)
  const [{ pid }] = (await holder.query('select pg_backend_pid() as pid')).rows as [{ pid: number }]
  await sleep(1_100)
  t.same(await look(), ['horizon-held'])
  t.same(await look(), ['horizon-held'])
  const [alarm] = await openAlarms(site)
  t.match(
    alarm?.text,
    new RegExp(`process ${pid} \\(night load, idle in transaction\\).*its last query: select pg_backend_pid`),
  )
  t.match(alarm?.mend, new RegExp(`pg_terminate_backend\\(${pid}\\)`))
  t.ok(alarm?.notified.begin)
  await holder.query('rollback')
  t.same(await look(), [])
  t.same(await look(), [])
  t.same(told, ['begin horizon-held', 'end horizon-held'])
  const { items } = await listAlarms(site.store.db, { open: false })
  t.match(items, [{ code: 'horizon-held', notified: { begin: /Z$/, end: /Z$/ } }])
})

t.test('a trigger that is disabled is an alarm until it is there again', async (t) => {
  const { site, look, told } = await watch()
  await site.sql('alter table item disable trigger zz_syncline_update')
  t.same(await look(), ['capture-broken'])
  t.match(await openAlarms(site), [{ level: 'critical', resource: 'item', peer: '' }])
  await site.sql('alter table item enable always trigger zz_syncline_update')
  t.same(await look(), [])
  await site.sql('drop trigger zz_syncline_delete on item')
  t.same(await look(), ['capture-broken'])
  t.same(
    told,
    ['begin capture-broken', 'end capture-broken', 'begin capture-broken'],
    'a second time is a second episode',
  )
})

t.test('quarantine that grows, is large, or is old', async (t) => {
  const { site: b, look, told } = await watch()
  const a = await sites.make(`f${serial}`, DDL, ['item'])
  await introduce(a, b)
  await b.sql(`alter table item add check (name not like 'bad%')`)
  await a.sql(`insert into item (name) select 'bad ' || n from generate_series(1, 3) n`)
  await pullAll(b, a)
  t.same(await look(), [])
  await a.sql(`insert into item (name) values ('bad 4')`)
  await pullAll(b, a)
  t.same(await look(), ['quarantine-growing'])
  t.match(await openAlarms(b), [{ level: 'critical', peer: a.name, resource: 'item', text: /4 records of item from/ }])
  await a.sql(`insert into item (name) values ('bad 5'), ('bad 6')`)
  await pullAll(b, a)
  t.same(await look(), ['quarantine-growing', 'quarantine-large'])
  await b.sql(`update syncline.quarantine set first_at = now() - interval '25 hours'`)
  t.same(await look(), ['quarantine-large', 'quarantine-old'])
  await a.sql(`update item set name = 'good'`)
  await pullAll(b, a)
  t.same(await look(), [])
  t.same(
    told.toSorted(),
    ['begin', 'end'].flatMap((moment) =>
      ['quarantine-growing', 'quarantine-large', 'quarantine-old'].map((code) => `${moment} ${code} ${a.name}`),
    ),
  )
})

t.test('changes that wait to be sent, and a peer that does not succeed', async (t) => {
  const { site, look } = await watch()
  const peer = await hub(site)
  const task = await createTask(site.store.db, {
    peerId: peer.id,
    resource: 'item',
    mode: 'push',
    schedule: 'every:60',
  })
  t.equal(task.schedule, 'every:60')
  await succeed(site, peer)
  t.same(await look(), [])
  t.same(await look(4 * MINUTE), ['no-success'], 'nothing to send')
  await site.sql(`insert into item (name) values ('new')`)
  t.same(await look(5 * MINUTE), ['no-success'], 'it waits from now on')
  t.same(await look(9 * MINUTE), ['no-success', 'no-progress'])
  const [row] = await site.sql(`select xact::text, record_id from syncline.record`)
  const position = { xact: String(row?.xact), recordId: String(row?.record_id) }
  const resource = Number((await site.sql('select id from syncline.resource'))[0]?.id)
  await writeCheckpoint(
    site.store.db,
    peer.id,
    resource,
    'push',
    formatCheckpoint({ logId: site.self.logId, position }),
  )
  t.same(await look(10 * MINUTE), ['no-success'])
  t.same(await look(50 * HOUR), ['no-success', 'verify-old'])
  t.match((await openAlarms(site))[0]?.level, 'critical', 'the longer the worse')
})

t.test('a peer that fetches nothing although there is something', async (t) => {
  const { site, look } = await watch()
  const peer = await hub(site, null)
  await site.sql(
    `insert into syncline.peer_grant (peer_id, resource_id, direction) select ${peer.id}, id, 'pull' from syncline.resource`,
  )
  t.same(await look(30 * HOUR), [], 'there is nothing for it')
  await site.sql(`insert into item (name) values ('new')`)
  t.same(await look(31 * HOUR), [])
  t.same(await look(54 * HOUR), [])
  t.same(await look(56 * HOUR), ['checkpoint-old'])
  await look(57 * HOUR)
  const [row] = await site.sql(`select xact::text, record_id from syncline.record`)
  const position = { xact: String(row?.xact), recordId: String(row?.record_id) }
  const resource = Number((await site.sql('select id from syncline.resource'))[0]?.id)
  await writeCheckpoint(
    site.store.db,
    peer.id,
    resource,
    'ack',
    formatCheckpoint({ logId: `${site.self.logId}.x`, position }),
  )
  t.same(await look(58 * HOUR), [])
})

t.test('a peer that fails, is off its clock, or is paused for long', async (t) => {
  const { site, look } = await watch()
  const peer = await hub(site)
  await notePeerFailure(site.store.db, peer.id, new Date().toISOString())
  t.same(await look(), [])
  await notePeerFailure(site.store.db, peer.id, new Date().toISOString())
  t.same(await look(), ['peer-failing'])
  await site.sql('update syncline.peer set clock_offset_ms = -90000')
  t.same(await look(), ['peer-failing', 'clock-off'])
  await site.sql('update syncline.peer set clock_offset_ms = 0')
  const { pausedAt } = (await pausePeer(site.store.db, peer.id)) as { pausedAt?: unknown }
  t.equal(pausedAt, undefined, 'told by alarms, not by the peer')
  t.same(await look(), [])
  t.same(await look(25 * HOUR), ['peer-paused'])
  await updatePeer(site.store.db, site.key, peer.id, { url: 'http://other.example.org' })
  await pausePeer(site.store.db, peer.id)
  t.same(await look(25 * HOUR), ['peer-paused'], 'paused again is paused still')
  await resumePeer(site.store.db, peer.id)
  t.same(await look(25 * HOUR), [])
})

t.test('a job that fails, waits or is not set off is an alarm until it is well', async (t) => {
  const { site, look, told } = await watch()
  const [job] = await site.sql(
    `insert into syncline.job_definition (name, definition, enabled, next_due) values ('copy', '{"name":"copy","steps":[{"wait":1}]}', true, now() + interval '1 hour') returning id`,
  )
  const run = async (phase: string, more: string) => {
    const [row] = await site.sql(
      `insert into syncline.job_run (job_id, job_name, cause, definition, phase) values (${job?.id}, 'copy', 'schedule', '{}', '${phase}') returning id`,
    )
    await site.sql(`update syncline.job_run set ${more} where id = ${row?.id}`)
    return row?.id
  }
  const over = `finished_at = now(), result = 'error', message = 'step dump: ended with 1'`
  t.same(await look(), [])
  const failed = await run('over', `${over}, dead = true`)
  await site.sql(`update syncline.job_definition set last_result = 'error', last_finished_at = now()`)
  t.same(await look(), ['job-failed'])
  t.match(await openAlarms(site), [
    {
      level: 'warning',
      peer: '',
      resource: 'copy',
      text: 'the last run of job copy has failed: step dump: ended with 1',
      mend: new RegExp(`syncline job dismiss ${failed}`),
    },
  ])
  await run('over', `${over}, dead = true`)
  await look()
  t.match(await openAlarms(site), [{ level: 'critical', text: /the last 2 runs of job copy have failed/ }])
  await site.sql(
    `update syncline.job_run set dead = false; update syncline.job_definition set last_result = 'success', last_success_at = now()`,
  )
  t.same(await look(), [])
  const waits = await run('waiting', `waiting_since = now() - interval '50 minutes', reason = 'lease door is held'`)
  t.same(await look(), [])
  t.same(await look(20 * MINUTE), ['job-waiting'])
  t.match(await openAlarms(site), [
    { text: new RegExp(`^run ${waits} of job copy has waited to begin for 1 h.*: lease door is held$`) },
  ])
  await site.sql(`delete from syncline.job_run where id = ${waits}`)
  t.same(await look(25 * MINUTE), [])
  t.same(await look(3 * HOUR), ['job-overdue'], 'it was due an hour from now, and nobody took that up')
  t.match(await openAlarms(site), [
    { level: 'critical', text: /job copy was due (2 h|1 h \d+ min) ago, and no process/ },
  ])
  const dues = (...hours: number[]) =>
    Promise.all(
      hours.map((hour) =>
        run('over', `due_at = now() + interval '${hour} hours', finished_at = now(), result = 'skipped'`),
      ),
    )
  await dues(1, 2, 3)
  await site.sql(`update syncline.job_definition set next_due = now() + interval '4 hours'`)
  t.same(await look(3.5 * HOUR), ['job-overdue'], 'nor has one succeeded for more than three hours')
  t.match(await openAlarms(site), [{ level: 'warning', text: /no run of job copy has succeeded for 3 h/ }])
  const hangs = await run('running', 'started_at = now()')
  await look(3.6 * HOUR)
  t.match(await openAlarms(site), [
    { text: new RegExp(`and run ${hangs} has been under way for 3 h`), mend: /syncline job stop copy/ },
  ])
  await site.sql(`update syncline.job_definition set next_due = now() + interval '9 hours'`)
  t.same(await look(3.7 * HOUR), [], 'the next one comes after a longer pause')
  await site.sql(`update syncline.job_definition set next_due = now() + interval '4 hours'`)
  t.same(await look(3.8 * HOUR), ['job-overdue'])
  await site.sql(`update syncline.job_definition set enabled = false`)
  t.same(await look(3.9 * HOUR), [], 'one that is disabled is not late')
  t.equal(told.length, 8)
})

t.test('little room on the disk is an alarm that becomes worse without a second notice', async (t) => {
  const watched = await watch()
  watched.disk = 50
  await watched.look()
  watched.disk = 5
  await watched.look()
  t.match(await openAlarms(watched.site), [{ code: 'disk-low', level: 'critical', resource: '/data', text: /^5 MB/ }])
  watched.disk = 500
  await watched.look()
  t.same(watched.told, ['begin disk-low', 'end disk-low'])
})

t.test('of an alarm below the level nobody is told, until it rises to it', async (t) => {
  const watched = await watch({ level: 'critical' })
  watched.disk = 50
  await watched.look()
  t.same(watched.told, [])
  watched.disk = 5
  await watched.look()
  watched.disk = 500
  await watched.look()
  t.same(watched.told, ['begin disk-low', 'end disk-low'])
  watched.disk = 50
  await watched.look()
  watched.disk = 500
  await watched.look()
  t.equal(watched.told.length, 2)
})

t.test('two processes that look at once tell once; a look that comes late changes nothing', async (t) => {
  const { site, deps, told } = await watch({ disks: async () => [{ path: '/data', freeBytes: 0 }] })
  const at = Date.now()
  await Promise.all([1, 2, 3, 4].map(() => detect(deps, { at, floor: at })))
  const well = { ...deps, alarms: { ...deps.alarms, disks: async () => [] } }
  await detect(well, { at: at - MINUTE, floor: at })
  t.match(await openAlarms(site), [{ code: 'disk-low' }])
  t.equal(new Set(told).size, 1)
})

t.test('the whole way: mail and signed webhook, tried again until they are taken', async (t) => {
  const smtp = await startSmtp(t)
  const posts: { id: unknown; type: string }[] = []
  let refusing = true
  const server = createServer((request, response) => {
    let body = ''
    request.on('data', (chunk: Buffer) => {
      body += chunk.toString()
    })
    request.on('end', () => {
      if (!refusing) posts.push({ id: request.headers['webhook-id'], type: JSON.parse(body).type })
      response.writeHead(refusing ? 503 : 200).end()
    })
  })
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', () => resolve()))
  t.teardown(() => server.close())
  const { port } = server.address() as { port: number }
  const sender: Sender = { uuid: '0a8f0c1e-0d43-4f0a-9c5b-3c2b7f6f1d11', name: 'graz', url: 'http://graz.example.org' }
  const mail = createMailer({ url: smtp.url, from: 'syncline@example.org', to: ['operator@example.org'] })
  const webhook = createWebhook({ url: `http://127.0.0.1:${port}/`, secret: 'a secret of some length' })
  const watched = await watch({
    channels: { mail: (notice) => mail(sender, notice), webhook: (notice) => webhook(sender, notice) },
  })
  const { site, look, errors } = watched
  smtp.refuse(1)
  watched.disk = 5
  await look()
  t.equal(smtp.mails.length, 0)
  t.match(errors, [/451/, /answered 503/])
  t.match(await site.sql('select channel, attempts, error from syncline.alarm_notice order by channel'), [
    { channel: 'mail', attempts: 1, error: /451/ },
    { channel: 'webhook', attempts: 1, error: /503/ },
  ])
  await look()
  t.equal(errors.length, 2, 'not before its time')
  watched.disk = 500
  refusing = false
  const again = () => site.sql('update syncline.alarm_notice set next_at = now()')
  await again()
  await look()
  await again()
  await look()
  await again()
  await look()
  t.same(smtp.faults, [])
  t.match(
    smtp.mails.map(({ data }) => /^Subject: (.*)$/m.exec(data)?.[1]),
    [/critical: disk-low/, /over: disk-low/],
  )
  t.match(posts, [
    { id: /alarm\.\d+\.begin$/, type: 'alarm.begun' },
    { id: /alarm\.\d+\.end$/, type: 'alarm.ended' },
  ])
  t.match(await openAlarms(site), [])
})

t.test('the detector looks by itself, in one process at a time, and ends when it is told', async (t) => {
  const { site, deps, told, errors } = await watch({
    everySeconds: 0.05,
    disks: async () => [{ path: '/data', freeBytes: 0 }],
  })
  const ends = [startDetector(deps), startDetector(deps)]
  await until(t, () => told.length > 0)
  await Promise.all(ends.map((end) => end()))
  await closeLeases(site.store)
  const before = (await openAlarms(site))[0]?.last
  await sleep(200)
  t.equal((await openAlarms(site))[0]?.last, before)
  t.same(told, ['begin disk-low'])
  t.same(errors, [])
})

t.test('the pause between two runs of a schedule is the longest of the near future', async (t) => {
  const hours = (text: string) => (intervalOf(text) ?? Number.NaN) / HOUR
  t.equal(hours('every:7200'), 2)
  t.equal(hours('cron:0 3 * * *'), 24)
  t.equal(hours('cron:0 8 * * mon-fri'), 72, 'from Friday to Monday nothing is late')
  t.equal(intervalOf('live'), MINUTE)
})

t.test('the snapshot of a site that is new is empty, and costs no write', async (t) => {
  const { site } = await watch()
  const snapshot = await takeSnapshot(site.store.db, Date.now(), { intervalOf, floor: 0 })
  t.match(snapshot, { peers: [], tasks: [], pullers: [], quarantine: [], elsewhere: [], broken: [], jobs: [] })
  t.same(await site.sql(`select from syncline.setting where name like 'stall%'`), [])
})

async function until(t: Test, holds: () => boolean): Promise<void> {
  for (let tries = 0; tries < 1_200 && !holds(); tries++) await sleep(50)
  t.ok(holds(), 'in time')
}
