import { type ChildProcess, execFile, spawn } from 'node:child_process'
import { access, mkdtemp, readFile, rm, stat, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { delimiter, dirname, join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import t from 'tap'
import { type Ending, syncline } from '../cli/terminal.ts'
import { asUser, plainEnvironment } from '../support/environment.ts'
import { startPostgres } from '../support/postgres.ts'

t.setTimeout(600_000)

const BIN = join(import.meta.dirname, '../../bin/syncline')
/** A city that the field site adds. */
const ID = '0198c0de-0000-7000-8000-00000000000a'
const START_MS = 60_000

/** A site in a process of its own, and the command line in its data folder. */
type Site = {
  readonly dataDir: string
  /** Starts `serve` and waits until it answers; gives what it told the person. */
  readonly start: () => Promise<string>
  /** Ends it as a supervisor would, and gives its exit code. */
  readonly stop: (signal?: NodeJS.Signals) => Promise<number | null>
  readonly signal: (signal: NodeJS.Signals) => void
  /** A command by the program itself, as a shell calls it. */
  readonly bin: (args: readonly string[], input?: string) => Promise<Ending>
  /** The same within this process, which takes a tenth of the time. */
  readonly run: (args: readonly string[], input?: string) => Promise<Ending>
  /** A command that must succeed, its JSON read. */
  readonly json: <T>(...args: string[]) => Promise<T>
}

const home = await mkdtemp(join(tmpdir(), 'syncline-cli-e2e-'))
t.teardown(() => rm(home, { recursive: true, force: true }))

/** The environment of the tests without settings of theirs, and with their own Node first. */
function environment(settings: Readonly<Record<string, string>>): NodeJS.ProcessEnv {
  const PATH = [dirname(process.execPath), process.env.PATH].join(delimiter)
  return plainEnvironment({ ...settings, PATH, NO_COLOR: '1' })
}

function makeSite(name: string, settings: Readonly<Record<string, string>> = {}): Site {
  const dataDir = join(home, name)
  const env = environment({ SYNCLINE_DATA_DIR: dataDir, SYNCLINE_PORT: '0', SYNCLINE_NAME: name, ...settings })
  let child: ChildProcess | undefined
  let ended: Promise<number | null> = Promise.resolve(null)
  const start = async () => {
    const started = spawn(...asUser(BIN, ['serve']), { env, cwd: home, stdio: ['ignore', 'pipe', 'pipe'] })
    child = started
    ended = new Promise((resolve) => started.once('exit', resolve))
    const output = { stdout: '', stderr: '' }
    started.stdout.on('data', (data: Buffer) => (output.stdout += data))
    started.stderr.on('data', (data: Buffer) => (output.stderr += data))
    t.teardown(() => started.kill('SIGKILL'))
    for (let waitedMs = 0; waitedMs < START_MS; waitedMs += 50) {
      if (started.exitCode !== null) break
      if (/data folder/.test(output.stderr)) return output.stderr
      await sleep(50)
    }
    throw new Error(`${name} did not start:\n${output.stdout}${output.stderr}`)
  }
  const run = (args: readonly string[], input = '') => syncline([...args, '--data-dir', dataDir], input)
  const bin = (args: readonly string[], input = '') =>
    new Promise<Ending>((resolve) => {
      const options = { env, cwd: home, maxBuffer: 64 * 1024 ** 2 }
      const command = execFile(...asUser(BIN, args), options, (error, stdout, stderr) =>
        resolve({ code: error === null ? 0 : Number(error.code), stdout, stderr }),
      )
      command.stdin?.end(input)
    })
  return {
    dataDir,
    start,
    bin,
    run,
    stop: (signal = 'SIGTERM') => {
      child?.kill(signal)
      return ended
    },
    signal: (signal) => void child?.kill(signal),
    json: async <T>(...args: string[]) => {
      const { code, stdout, stderr } = await run([...args, '--json'])
      if (code !== 0) throw new Error(`syncline ${args.join(' ')} ended with ${code}: ${stdout}${stderr}`)
      return JSON.parse(stdout) as T
    },
  }
}

type Items<T> = { readonly items: readonly T[] }

const cluster = await startPostgres(t)
const database = await cluster.createDatabase()
await cluster.query(
  database.name,
  `create table country (code text primary key, name text not null);
   create table city (id serial primary key, uuid uuid not null unique default gen_random_uuid(), name text not null,
                      population int check (population >= 0), country text references country);
   insert into country values ('AT', 'Austria'), ('SI', 'Slovenia');
   insert into city (name, population, country) select 'city ' || n, n, 'AT' from generate_series(1, 20) n`,
)
const hub = makeSite('hub', { SYNCLINE_DATABASE_URL: database.url })
const field = makeSite('field')

t.test('the first start makes site, keys and an administrator token that is shown once', async (t) => {
  const told = await Promise.all([hub.start(), field.start()])
  for (const [n, site] of [hub, field].entries()) {
    const token = (await readFile(join(site.dataDir, 'admin.token'), 'utf8')).trim()
    t.match(told[n], new RegExp(`administrator token +${token}`))
    t.equal((await stat(site.dataDir)).mode & 0o777, 0o700)
    t.match(told[n], new RegExp(`data folder +${site.dataDir}\n`))
  }
  t.equal(await hub.stop(), 0)
  await t.rejects(access(join(hub.dataDir, 'address')), 'a stopped site leaves no address')
  const again = await hub.start()
  t.notMatch(again, /administrator token/)
  const uuids = [told[0], again].map((text) => /uuid +(\S+)/.exec(text ?? '')?.[1])
  t.equal(uuids[0], uuids[1])
})

t.test('a second process on the data folder is refused with 2, and names who has it', async (t) => {
  t.match(await field.bin(['serve']), { code: 2, stderr: /SYNC_CONFIG_DATA_DIR_LOCKED/ })
})

t.test('tables are attached with what becomes of them said, and unsuitable ones refused with the reason', async (t) => {
  const attached = await hub.run(['resource', 'attach', 'public.country', 'public.city'])
  t.match(attached, {
    code: 0,
    stdout: /country: table public\.country.*\n.*city: table public\.city, records identified by uuid/s,
  })
  t.match(attached.stderr, /^attach: /)
  t.match(await hub.run(['resource', 'check']), { code: 0, stdout: /ok +country\nok +city/ })
  t.match(await hub.run(['resource', 'show', 'city']), {
    code: 0,
    stdout: /^id +int4 +no +no +-\nuuid +uuid +no +as the id/m,
  })
  t.match(await hub.run(['resource', 'attach', 'pg_stat_activity']), { code: 1, stderr: /SYNC_RESOURCE_UNSUITABLE/ })

  for (const [name, schema] of Object.entries({
    country: { type: 'object', properties: { id: { type: 'string' }, name: { type: 'string' } }, required: ['name'] },
    city: {
      type: 'object',
      properties: {
        name: { type: 'string' },
        population: { type: 'integer' },
        country: { type: 'string', 'x-ref': 'country' },
      },
    },
  })) {
    const made = await field.run(['resource', 'create', name, '--schema', '-'], JSON.stringify(schema))
    t.match(made, { code: 0, stdout: new RegExp(`^${name}: table syncline\\.data_${name}`) })
  }
})

t.test('one code registers both sides, once', async (t) => {
  const offer = ['--pull', 'country,city', '--push', 'country,city']
  const invited = await hub.bin(['peer', 'invite', 'field', ...offer])
  t.match(invited, { code: 0, stdout: /^syncline1\.[\w-]+\n$/ })
  t.match(await hub.run(['peer', 'invitations']), {
    code: 0,
    stdout: /^field +ends in .* country,city +country,city$/m,
  })
  t.match(await field.run(['peer', 'join', '-', '--name', 'hub'], invited.stdout), { code: 0, stdout: /^Joined hub/ })
  const again = await field.run(['peer', 'join', invited.stdout.trim(), '--name', 'hub2'])
  t.match(again, { code: 1, stderr: /SYNC_AUTH_PAIRING_INVALID|SYNC_REQUEST_EXISTS/ })
  t.match(await hub.run(['peer', 'show', 'field']), { code: 0, stdout: /push +city +newer/ })
  t.equal((await hub.json<Items<unknown>>('peer', 'list')).items.length, 1)
})

t.test('tasks are added, listed and run; both sites then hold the same', async (t) => {
  for (const resource of ['country', 'city']) {
    const added = await field.run(['task', 'add', 'hub', resource, '--mode', 'both', '--on-conflict', 'ask'])
    t.match(added, { code: 0, stdout: new RegExp(`pulls and pushes ${resource} with hub, by hand`) })
  }
  t.match(await field.run(['status']), { code: 0, stdout: /^amber +hub +city +both +never +has not run yet/m })

  const synced = await field.bin(['sync', 'hub'])
  t.match(synced, { code: 0, stdout: /success +22 pulled, 22 applied/ })
  t.match(await field.run(['task', 'set', 'hub', 'city', '--every', '1h']), { code: 0, stdout: /every 1 h/ })
  t.match(await field.run(['schedule', 'list']), { code: 0, stdout: /hub +city +every 1 h .* in \d+ min/ })
  t.match(
    await field.run([
      'record',
      'put',
      'city',
      ID,
      '--set',
      'name=Maribor',
      '--set',
      'population=96000',
      '--ref',
      'country=SI',
    ]),
    { code: 0, stdout: /country +country SI/ },
  )
  // The schedule that was just set may have pushed it already.
  t.match(await field.run(['sync']), { code: 0, stdout: /success/ })
  const rows = await cluster.query(
    database.name,
    `select name, population, country from city where uuid::text like '0198c0de%'`,
  )
  t.same(rows, [{ name: 'Maribor', population: 96000, country: 'SI' }])
  t.match(await field.run(['verify', 'hub']), { code: 0, stdout: /city +21 +equal/ })
  t.match(await field.run(['status']), {
    code: 0,
    stdout: /^green +hub +city +both .* equal at \d\d:\d\d:\d\d, 21 records/m,
  })
  t.match(await hub.json('record', 'get', 'city', ID), {
    data: { name: 'Maribor' },
  })
})

t.test('a conflict waits for a person: the exit code is 3 until it is settled', async (t) => {
  await cluster.query(database.name, `update country set name = 'Österreich' where code = 'AT'`)
  t.equal((await field.run(['record', 'put', 'country', 'AT', '--set', 'name=Autriche'])).code, 0)
  t.equal((await field.bin(['sync', 'hub', 'country'])).code, 3)
  t.match(await field.run(['status']), { code: 3, stdout: /1 conflict to decide/ })
  const { items } = await field.json<Items<{ id: string; recordId: string }>>('conflict', 'list')
  t.match(items, [{ recordId: 'AT' }])
  const id = items[0]?.id ?? ''
  t.match(await field.run(['conflict', 'show', id]), { code: 0, stdout: /^\* +name +(\S+ +)?Autriche +Österreich$/m })
  t.match(await field.run(['conflict', 'resolve', id, 'both']), { code: 2 })
  t.match(await field.run(['conflict', 'resolve', id, 'theirs', '--comment', 'as they say']), {
    code: 0,
    stdout: /keeps theirs/,
  })
  t.match(await field.run(['sync', 'hub', 'country']), { code: 0 })
  t.match(await field.run(['conflict', 'list', '--settled']), { code: 0, stdout: /AT/ })
  t.match(await field.run(['status']), { code: 0 })
  t.match(await field.run(['record', 'get', 'country', 'AT', '--history']), {
    code: 0,
    stdout: /name +Österreich.*Autriche/s,
  })
})

t.test('a record that the other side refuses waits there alone', async (t) => {
  const bad = '0198c0de-0000-7000-8000-00000000000b'
  await field.run(['record', 'put', 'city', bad, '--set', 'name=Atlantis', '--set', 'population=-1'])
  t.match(await field.run(['sync', 'hub']), { code: 3, stdout: /1 in quarantine there/ })
  const { items } = await hub.json<Items<{ id: string }>>('quarantine', 'list')
  const id = items[0]?.id ?? ''
  t.match(await hub.run(['quarantine', 'show', id]), { code: 0, stdout: /city_population_check/ })
  t.match(await hub.run(['quarantine', 'retry', id]), { code: 3, stdout: /waits on/ })
  t.match(await hub.run(['status']), { code: 3, stdout: /1 record in quarantine/ })
  t.match(await hub.run(['quarantine', 'discard', id]), { code: 0 })
  t.match(await hub.run(['quarantine', 'discard', id]), { code: 1, stderr: /SYNC_REQUEST_NOT_FOUND/ })
  t.match(await field.run(['record', 'delete', 'city', bad]), { code: 0 })
  t.match(await field.run(['sync', 'hub']), { code: 0 })
})

t.test('records go out and in again in every format, the same', async (t) => {
  const before = await field.bin(['record', 'export', 'city', '--format', 'csv'])
  t.match(before, { code: 0, stdout: /^id,name,population,country\n/ })
  for (const format of ['csv', 'ndjson', 'json', 'xml']) {
    const name = join(home, `cities.${format}`)
    t.match(await field.run(['record', 'export', 'city', name]), { code: 0, stdout: '' }, `${format} out`)
    await field.run(['record', 'put', 'city', ID, '--set', 'population=1'])
    t.match(
      await field.run(['record', 'import', 'city', name]),
      { code: 0, stdout: /1 (applied|merged)/ },
      `${format} in`,
    )
    t.equal((await field.run(['record', 'export', 'city', '--format', 'csv'])).stdout, before.stdout, format)
  }
  const some = await field.run([
    'record',
    'export',
    'city',
    '--format',
    'csv',
    '--filter',
    'population > 19',
    '--columns',
    'name',
  ])
  t.equal(some.stdout.split('\n').length, 4)
  t.match(await field.run(['record', 'import', 'city'], `{"id":"${ID}","data":{"nmae":"y"}}\n`), {
    code: 1,
    stdout: /nmae/,
  })
  t.match(await field.run(['record', 'import', 'city', '--format', 'json'], '{'), {
    code: 1,
    stderr: /SYNC_FORMAT_INVALID/,
  })
})

t.test('the log tells what happened, also as it happens, and the run each step', async (t) => {
  t.match(await field.run(['log', '--peer', 'hub', '--resource', 'city']), { code: 0, stdout: /success.*hub city/ })
  const { items } = await field.json<Items<{ id: string; result: string }>>('run', 'list', '--limit', '1')
  t.match(await field.run(['run', 'show', items[0]?.id ?? '']), { code: 0, stdout: /cause +hand/ })
  const follower = spawn(...asUser(BIN, ['log', '--follow', '--json', '--limit', '1']), {
    env: environment({ SYNCLINE_DATA_DIR: field.dataDir }),
    stdio: ['ignore', 'pipe', 'inherit'],
  })
  t.teardown(() => follower.kill('SIGKILL'))
  let seen = ''
  follower.stdout.on('data', (data: Buffer) => (seen += data))
  for (let tries = 0; tries < 1_200 && !seen.includes('\n'); tries++) await sleep(50)
  const first = seen.split('\n').length
  // SIGHUP runs every task now.
  await cluster.query(database.name, `update country set name = 'Slovenija' where code = 'SI'`)
  field.signal('SIGHUP')
  for (let tries = 0; tries < 1_200 && seen.split('\n').length === first; tries++) await sleep(50)
  const entries = seen
    .trim()
    .split('\n')
    .map((line) => JSON.parse(line) as { id: string; resource: string })
  t.ok(entries.length > 1)
  t.equal(new Set(entries.map(({ id }) => id)).size, entries.length, 'no entry is shown twice')
})

t.test('another site is reached by its address and a token that may do no more than its role', async (t) => {
  const { token } = await hub.json<{ token: string }>('token', 'issue', 'viewer', '--role', 'viewer', '--ttl', '1h')
  const url = (await readFile(join(hub.dataDir, 'address'), 'utf8')).trim()
  await writeFile(join(home, 'viewer.token'), token)
  const there = ['--url', url, '--token-file', join(home, 'viewer.token')]
  t.match(await field.run(['resource', 'list', ...there]), { code: 0, stdout: /public\.city/ })
  t.match(await field.run(['peer', 'pause', 'field', ...there]), { code: 1, stderr: /SYNC_AUTH_FORBIDDEN/ })
  t.match(await field.run(['resource', 'list', '--url', url]), { code: 2, stderr: /SYNC_AUTH_MISSING/ })
})

t.test('the doctor finds the site well, and a missing trigger', async (t) => {
  const well = await hub.bin(['doctor'])
  t.match(well, { code: 0, stdout: /^ok +rights/m })
  t.match(well.stdout, /^ok +triggers/m)
  await cluster.query(
    database.name,
    `do $$ declare name text; begin
       for name in select tgname from pg_trigger where tgrelid = 'country'::regclass and not tgisinternal limit 1
       loop execute format('drop trigger %I on country', name); end loop; end $$`,
  )
  t.match(await hub.bin(['doctor']), { code: 1, stdout: /^fail +triggers +country: .*\n +to mend: /m })
  t.match(await hub.run(['resource', 'check', 'country']), { code: 1, stdout: /^fault country/ })
  t.equal((await hub.run(['resource', 'attach', 'public.country'])).code, 0)
  t.match(await hub.run(['resource', 'check', 'country']), { code: 0 })
})

t.test('a peer that does not answer ends with 4, and so does a site that does not run', async (t) => {
  t.equal(await hub.stop('SIGINT'), 0)
  t.match(await field.bin(['sync', 'hub', 'city']), { code: 4, stdout: /ECONNREFUSED|connect/ })
  t.match(await field.run(['status']), { code: 0, stdout: /^red +hub/m })
  t.match(await hub.bin(['status']), { code: 4, stderr: /SYNC_CONFIG_SITE_UNREACHABLE.*syncline serve/s })
})

t.test('a detached table is as it was, and a site that is asked to end does so with 0', async (t) => {
  await hub.start()
  for (const resource of ['city', 'country']) t.equal((await hub.run(['resource', 'detach', resource])).code, 0)
  const left = await cluster.query(
    database.name,
    `select from pg_trigger where tgrelid in ('city'::regclass, 'country'::regclass) and not tgisinternal`,
  )
  t.equal(left.length, 0)
  t.same(await Promise.all([hub.stop(), field.stop()]), [0, 0])
})
