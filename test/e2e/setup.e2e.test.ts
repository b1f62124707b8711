import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import t from 'tap'
import { parse, stringify } from 'yaml'
import { syncline } from '../cli/terminal.ts'
import { startPostgres } from '../support/postgres.ts'
import { type SiteProcess, startSiteProcess } from '../support/site-process.ts'

/** The set-up of a site as one file: written, looked at, changed, and given to another site. */
const cluster = await startPostgres(t)
const folder = await mkdtemp(join(tmpdir(), 'syncline-setup-'))
t.teardown(() => rm(folder, { recursive: true, force: true }))
const file = (name: string) => join(folder, name)

const TABLES = `
  create table country (code text primary key, name text);
  create table city (id uuid primary key default gen_random_uuid(), name text, country text references country)`

async function site(name: string): Promise<SiteProcess> {
  const database = await cluster.createDatabase()
  await cluster.query(database.name, TABLES)
  return startSiteProcess(t, { name, databaseUrl: database.url })
}
const [hub, field] = [await site('hub'), await site('field')]
const at =
  (site: SiteProcess) =>
  (...args: readonly string[]) =>
    syncline([...args, '--data-dir', site.dataDir])
const run = at(field)

type Setup = {
  resources: object[]
  peers: { name: string; uuid: string; grants?: Record<string, Record<string, unknown>> }[]
  tasks: { peer: string; resource: string; schedule?: string; filter?: string }[]
  jobs: { name: string }[]
}
const read = async (name: string) => parse(await readFile(file(name), 'utf8')) as Setup
const write = async (name: string, setup: object) => writeFile(file(name), stringify(setup))

t.test('a set-up is exported without its secrets, and applying it again changes nothing', async (t) => {
  for (const each of [hub, field])
    t.equal((await at(each)('resource', 'attach', 'public.country', 'public.city')).code, 0)
  const grants = ['country', 'city']
  const { code } = await hub.api<{ code: string }>('POST', '/invitations', {
    name: 'field',
    pull: grants,
    push: grants,
  })
  await field.api('POST', '/peers/join', { code, name: 'hub' })
  await run('task', 'add', 'hub', 'country', '--mode', 'pull')
  await run('task', 'add', 'hub', 'city', '--mode', 'both', '--every', '15m', '--on-conflict', 'theirs')
  await writeFile(file('job.yaml'), 'name: note\nsteps: [{ wait: 0 }]\n')
  await run('job', 'apply', file('job.yaml'))
  t.equal((await run('config', 'export', file('site.yaml'))).code, 0)
  const setup = await read('site.yaml')
  t.match(setup, {
    resources: [
      { name: 'country', table: 'public.country', key: 'code' },
      { name: 'city', table: 'public.city', key: 'id' },
    ],
    peers: [{ name: 'hub', uuid: String, url: hub.url }],
    tasks: [
      { peer: 'hub', resource: 'city', mode: 'both', onConflict: 'theirs', schedule: 'every:900' },
      { peer: 'hub', resource: 'country', mode: 'pull' },
    ],
    jobs: [{ name: 'note', steps: [{ wait: 0 }] }],
  })
  t.same(Object.keys(setup.tasks[1] ?? {}), ['peer', 'resource', 'mode'], 'what is as usual is not written')
  t.notMatch(await readFile(file('site.yaml'), 'utf8'), /syncline_p_|token:/)
  t.match(await run('config', 'export', file('site.yaml')), { code: 2, stderr: /is there already/ })
  t.equal((await run('config', 'plan', file('site.yaml'))).stdout, 'Nothing would change.\n')
  await at(hub)('config', 'export', file('hub.yaml'))
  t.same((await read('hub.yaml')).peers[0]?.grants, {
    pull: { city: {}, country: {} },
    push: { city: {}, country: {} },
  })
})

t.test('every fault is told with its line, and nothing is changed', async (t) => {
  await writeFile(
    file('bad.yaml'),
    `resources:
  - { name: city, key: name }
  - { name: nowhere }
peers:
  - { name: hub, uuid: 11111111-2222-4333-8444-555555555555, grants: { pull: { moon: } } }
  - { nmae: x, url: 3 }
tasks:
  - { peer: hub, resource: city, mode: both }
  - { peer: nobody, resource: moon, mode: pull }
jobs:
  - name: not fine
    steps: []
`,
  )
  const first = await run('config', 'apply', file('bad.yaml'))
  t.equal(first.code, 2)
  t.match(first.stderr, /bad\.yaml:6: \/peers\/1 needs "name"/)
  t.match(first.stderr, /bad\.yaml:6: \/peers\/1\/nmae is not known here; known are name, uuid/)
  t.match(first.stderr, /bad\.yaml:6: \/peers\/1\/url must be a text or null/)
  const text = await readFile(file('bad.yaml'), 'utf8')
  await writeFile(file('bad.yaml'), text.replace(/^.*nmae.*$/m, '  - { name: other }'))
  const { stderr } = await run('config', 'apply', file('bad.yaml'))
  for (const pattern of [
    /bad\.yaml:2: \/resources\/0\/key is id at the site/,
    /bad\.yaml:3: \/resources\/1 is not at the site/,
    /bad\.yaml:5: \/peers\/0\/uuid is \S+ at the site/,
    /bad\.yaml:5: \/peers\/0\/grants\/pull\/moon is no resource/,
    /bad\.yaml:9: \/tasks\/1\/peer is no peer/,
    /bad\.yaml:9: \/tasks\/1\/resource is no resource/,
    /bad\.yaml:11: \/jobs\/0\/name /,
    /bad\.yaml:12: \/jobs\/0\/steps must not be empty/,
  ])
    t.match(stderr, pattern)
  t.equal((await run('config', 'plan', file('site.yaml'))).stdout, 'Nothing would change.\n')
})

t.test('a site becomes what the file says; what data hangs on goes only when that is asked for', async (t) => {
  const setup = await read('site.yaml')
  const [city] = setup.tasks
  await write('new.yaml', {
    peers: [{ ...setup.peers[0], paused: true, grants: { pull: { city: { filter: `name <> 'x'` } }, push: {} } }],
    tasks: [{ ...city, schedule: 'live', filter: `country = 'AT'`, maxDeletes: '5' }],
    jobs: [{ name: 'other', steps: [{ wait: 1 }] }],
  })
  const planned = (await run('config', 'plan', file('new.yaml'))).stdout
  t.equal(
    planned,
    `~ peer hub (paused)
+ grant hub pull city
~ task hub city (filter, maxDeletes, schedule)
- task hub country
+ job other
- job note
`,
  )
  const applied = await run('config', 'apply', file('new.yaml'))
  t.match(applied, {
    code: 0,
    stdout:
      /^peer hub: changed\ngrant hub pull city: made\ntask hub city: changed\ntask hub country: removed\nother: made\nnote: removed\n$/,
  })
  t.equal((await run('config', 'plan', file('new.yaml'))).stdout, 'Nothing would change.\n')
  t.match(await field.api('GET', '/peers/hub'), { paused: true, hasToken: true }, 'what it shows there stays')
  t.match(await field.api('GET', '/tasks'), {
    items: [{ resource: 'city', schedule: 'live', filter: `country = 'AT'`, maxDeletes: '5', onConflict: 'theirs' }],
  })

  await write('refused.yaml', { tasks: [{ ...city, filter: 'no such filter' }] })
  const refused = await run('config', 'apply', file('refused.yaml'))
  t.equal(refused.code, 2)
  t.match(refused.stderr, /task hub city: .*; nothing was changed/)

  await write('less.yaml', { resources: [setup.resources[0]], peers: [], tasks: [] })
  t.equal(
    (await run('config', 'plan', file('less.yaml'))).stdout,
    `  resource country
! resource city is not in the file: --prune removes it
! peer hub is not in the file: --prune removes it
- task hub city
`,
  )
  t.equal((await run('config', 'apply', file('less.yaml'), '--prune')).code, 0)
  t.same((await field.api<{ items: unknown[] }>('GET', '/peers')).items, [])
  t.match(await field.api('GET', '/resources'), { items: [{ name: 'country' }] })
})

t.test('a file makes another site the same, but for what is secret', async (t) => {
  const other = await site('other')
  await writeFile(file('token'), 'syncline_p_something\n')
  const setup = await read('site.yaml')
  await write('other.yaml', { ...setup, peers: [{ ...setup.peers[0], tokenFile: file('token') }] })
  const applied = await at(other)('config', 'apply', file('other.yaml'))
  t.equal(applied.code, 0, applied.stderr)
  t.match(await other.api('GET', '/peers/hub'), { hasToken: true })
  t.same(JSON.parse((await at(other)('config', 'export', '--json')).stdout), setup)
})
