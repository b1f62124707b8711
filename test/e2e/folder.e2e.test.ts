/**
 * Two sites that never meet: each reads and writes files in a folder of its own, and jobs carry them over a host that both reach. Real sites, real
 * rsync, sftp and sshd.
 */
import { chmodSync, mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import pg from 'pg'
import t from 'tap'
import { parse, stringify } from 'yaml'
import { syncline as command } from '../cli/terminal.ts'
import { startPostgres } from '../support/postgres.ts'
import { type SiteProcess, startSiteProcess } from '../support/site-process.ts'
import { startHosts } from '../support/sshd.ts'

const cluster = await startPostgres(t)
const { exchange } = await startHosts(t, ['exchange'])
const TABLES = `
  create table area (id uuid primary key, name text not null, made timestamptz);
  create table visit (id uuid primary key, area_id uuid references area, people int, cost numeric, more jsonb);`
const NAMES = ['area', 'visit']

type Place = {
  readonly site: SiteProcess
  readonly folder: string
  readonly pool: pg.Pool
  readonly rows: () => Promise<unknown>
}

async function place(name: string): Promise<Place> {
  const root = mkdtempSync(join(tmpdir(), `syncline-${name}-`))
  chmodSync(root, 0o777)
  t.teardown(() => rmSync(root, { recursive: true, force: true }))
  const folder = join(root, 'exchange')
  for (const path of [folder, join(folder, 'in'), join(folder, 'out')]) {
    mkdirSync(path)
    chmodSync(path, 0o777)
  }
  const { url } = await cluster.createDatabase()
  const pool = new pg.Pool({ connectionString: url, max: 2 })
  pool.on('error', () => {})
  t.teardown(() => pool.end())
  await pool.query(TABLES)
  const site = await startSiteProcess(t, { name, databaseUrl: url, env: { SYNCLINE_FOLDER_ROOTS: root } })
  await site.api('POST', '/resources', { tables: NAMES.map((table) => ({ table })) }, { prefer: 'wait' })
  const rows = async () =>
    Promise.all(NAMES.map(async (table) => (await pool.query(`select * from ${table} order by id`)).rows))
  return { site, folder, pool, rows }
}

/** A command of a person on the machine of a site. */
async function syncline({ site }: Place, ...argv: string[]) {
  const { code, stdout, stderr } = await command([...argv, '--data-dir', site.dataDir])
  return { exit: code, text: stdout, said: stderr }
}

type Run = { readonly phase: string; readonly result: string | null; readonly message: string | null }

async function runJob({ site }: Place, job: string): Promise<Run> {
  const { runId } = await site.api<{ runId: string }>('POST', `/jobs/${job}/runs`, {})
  for (let tries = 0; ; tries++) {
    const run = await site.api<Run>('GET', `/job-runs/${runId}`)
    if (run.phase === 'over') return run
    if (tries === 1200) throw new Error(`${job}: ${JSON.stringify(run)}`)
    await sleep(50)
  }
}

const [office, field] = [await place('office'), await place('field')]
const ways = { office: 'field', field: 'office' } as const

t.test('folders are set up by commands, and looked into', async (t) => {
  for (const [name, { folder }] of Object.entries({ office, field }) as [keyof typeof ways, Place][]) {
    const here = name === 'office' ? office : field
    const outside = await syncline(
      here,
      'peer',
      'add',
      'outside',
      '--type',
      'folder',
      '--path',
      '/tmp',
      '--read',
      '*.json',
    )
    t.match(outside, { exit: 1, said: /SYNC_PEER_FOLDER_FORBIDDEN[\s\S]*is below none of/ })
    const settings = [
      '--path',
      folder,
      '--format',
      'json',
      '--read',
      'in/*.json',
      '--write',
      `out/\${site}-\${timestamp}.json`,
      '--layout',
      'all',
      '--settle',
      '0',
    ]
    const added = await syncline(here, 'peer', 'add', ways[name], '--type', 'folder', ...settings)
    t.match(added, { exit: 0, text: `Peer ${ways[name]} is registered.\n` })
    for (const resource of NAMES)
      t.equal((await syncline(here, 'task', 'add', ways[name], resource, '--mode', 'both')).exit, 0)
    t.match(
      (await syncline(here, 'peer', 'test', ways[name])).text,
      /this site may pull +visit, area\n[\s\S]*reads +json from in\/\*\.json/,
    )
  }
  t.match(
    (await syncline(office, 'folder', 'set', 'field', '--readable', '--after', 'keep')).text,
    /writes +json, readable, to out\//,
  )
  t.match(await syncline(office, 'folder', 'set', 'field', '--write', '../up.json'), {
    exit: 2,
    said: /below the folder|begins with a dot/,
  })
  t.match((await syncline(office, 'peer', 'show', 'field')).text, /address +file:\/\/\//)
})

t.test('folders are in the set-up of a site as one file, and made from it', async (t) => {
  const file = join(office.folder, '..', 'site.yaml')
  const plan = async () => (await syncline(office, 'config', 'plan', file)).text
  t.equal((await syncline(office, 'config', 'export', file)).exit, 0)
  const setup = parse(readFileSync(file, 'utf8')) as { peers: { folder: Record<string, unknown> }[] }
  const settings = {
    path: office.folder,
    read: 'in/*.json',
    format: 'json',
    layout: 'all',
    readable: true,
    settleSeconds: 0,
  }
  t.match(setup.peers, [{ name: 'field', kind: 'folder', folder: settings }])
  t.notOk('url' in (setup.peers[0] ?? {}))
  t.notMatch(await plan(), /^[+~-]/m, 'as it is there')
  const write = (change: object) => {
    const peers = setup.peers.map((peer) => ({ ...peer, folder: { ...peer.folder, ...change } }))
    writeFileSync(file, stringify({ ...setup, peers }))
  }
  write({ after: 'move', colour: 'red', read: '../x' })
  const refused = await syncline(office, 'config', 'plan', file)
  t.match(refused, { exit: 2, said: /\/peers\/0\/folder\/read [\s\S]*\/peers\/0\/folder\/colour is not known here/ })
  write({ after: 'move' })
  t.match(await plan(), /^~ peer field \(after\)$/m)
  t.equal((await syncline(office, 'config', 'apply', file)).exit, 0)
  t.match((await syncline(office, 'folder', 'show', 'field')).text, /then +moved to done/)
  t.equal((await syncline(office, 'peer', 'remove', 'field')).exit, 0)
  write({})
  t.match(await plan(), /^\+ peer field$/m)
  t.equal((await syncline(office, 'config', 'apply', file)).exit, 0)
  t.match((await syncline(office, 'folder', 'show', 'field')).text, /then +kept/)
  t.notMatch(await plan(), /^[+~-]/m)
})

t.test('I3: two sites end equal, whose files go by rsync and sftp over a host that both reach', async (t) => {
  const [toOffice, toField] = [join(exchange.dir, 'to-office'), join(exchange.dir, 'to-field')]
  for (const path of [toOffice, toField]) exchange.run('mkdir', '-p', path)
  for (const here of [office, field]) {
    const about = ['transfer', 'trust', exchange.ssh.host, '--port', String(exchange.ssh.port), '--json']
    const { items } = JSON.parse((await syncline(here, ...about)).text) as { items: { fingerprint: string }[] }
    t.equal((await syncline(here, ...about, '--fingerprint', items[0]?.fingerprint ?? '')).exit, 0)
  }
  const jobs = {
    office: [
      { name: 'fetch', transfer: { from: { ...exchange.ssh, path: `${toOffice}/` }, to: `${office.folder}/in/` } },
      { name: 'records', sync: { peer: 'field' } },
      { name: 'give', transfer: { from: `${office.folder}/out/`, to: { ...exchange.ssh, path: `${toField}/` } } },
    ],
    field: [
      { name: 'fetch', transfer: { from: { ...exchange.ssh, path: `${toField}/` }, to: `${field.folder}/in/` } },
      { name: 'records', sync: { peer: 'office' } },
      {
        name: 'give',
        upload: {
          from: `${field.folder}/out`,
          files: '*.json',
          sftp: { ...exchange.ssh, path: toOffice },
          after: 'move',
        },
      },
    ],
  }
  for (const [name, steps] of Object.entries(jobs)) {
    const { site } = name === 'office' ? office : field
    const applied = await site.api<{ faults: unknown[] }>('POST', '/jobs/apply', {
      jobs: [{ name: 'exchange', steps }],
    })
    t.same(applied.faults, [])
  }
  const both = async (times: number) => {
    for (let n = 0; n < times; n++)
      for (const here of [office, field]) t.match(await runJob(here, 'exchange'), { result: 'success' })
  }
  const fill = ({ pool }: Place, from: number) =>
    pool.query(`
      insert into area select md5('area' || n)::uuid, 'Area "' || n || E'" \\n', timestamptz '2026-01-01T00:00:00.000001Z' + n * interval '1 minute' from generate_series(${from}, ${from + 50}) n;
      insert into visit select md5('visit' || n)::uuid, md5('area' || ${from} + n % 50)::uuid, n, n / 7.0, jsonb_build_object('n', n) from generate_series(${from}, ${from + 1500}) n;`)
  await fill(office, 1)
  await fill(field, 5_001)
  await both(2)
  t.same(await office.rows(), await field.rows())
  t.equal((await office.pool.query('select from visit')).rowCount, 3002)

  await office.pool.query(
    `update visit set people = 0 where people < 10; delete from visit where people between 20 and 30`,
  )
  await field.pool.query(`update area set name = 'By the field' where id = md5('area5')::uuid`)
  await office.pool.query(`update area set name = 'By the office' where id = md5('area5')::uuid`)
  await both(2)
  t.same(await office.rows(), await field.rows(), 'I7: after edits, deletions and a conflict')
  const before = exchange.run('ls', toOffice, toField)
  await both(1)
  t.equal(exchange.run('ls', toOffice, toField), before, 'where nothing changed, no file is made')
  t.same(
    readdirSync(join(field.folder, 'out')).filter((name) => name.endsWith('.json')),
    [],
    'what was given is put away',
  )
  const [name = ''] = readdirSync(join(office.folder, 'out'))
  t.match(
    readFileSync(join(office.folder, 'out', name), 'utf8'),
    /^\{"resources":\[\n\{"resource":"area","changes":\[\n\{\n {2}"id"/,
  )
})

t.test('a file that cannot be read is told everywhere, and a dump brings back what was lost', async (t) => {
  writeFileSync(join(field.folder, 'in', 'torn.json'), '{"resources":[{"resource":"area","changes":[')
  t.match(await runJob(field, 'exchange'), { result: 'error' })
  t.match(
    (await syncline(field, 'folder', 'files', 'office', '--state', 'refused')).text,
    /in\/torn\.json +refused.*SYNC_FORMAT_INVALID/,
  )
  t.match(readFileSync(join(field.folder, 'quarantine/in/torn.json.reason.txt'), 'utf8'), /SYNC_FORMAT_INVALID/)
  const { items } = await field.site.api<{ items: { action: string; result: string }[] }>(
    'GET',
    '/log?peer=office&limit=20',
  )
  t.ok(items.some(({ action, result }) => action === 'import in/torn.json' && result === 'error'))
  t.match(await runJob(field, 'exchange'), { result: 'success' })

  await office.pool.query(`update area set name = 'Lost on the way' where id = md5('area7')::uuid`)
  t.match((await syncline(office, 'sync', 'field', '--preview')).text, /push/)
  await office.site.sync('field')
  for (const each of readdirSync(join(office.folder, 'out'))) rmSync(join(office.folder, 'out', each))
  await runJob(office, 'exchange')
  await runJob(field, 'exchange')
  t.notSame(await office.rows(), await field.rows(), 'nobody can know')
  t.match((await syncline(office, 'folder', 'dump', 'field')).text, /^\d+ records are in 1 files\.\n$/)
  await runJob(office, 'exchange')
  t.match(await runJob(field, 'exchange'), { result: 'success' })
  t.same(await office.rows(), await field.rows())
})
