import { spawn } from 'node:child_process'
import { existsSync } from 'node:fs'
import { setTimeout as sleep } from 'node:timers/promises'
import pg from 'pg'
import t from 'tap'
import { startPostgres } from './postgres.ts'

const cluster = await startPostgres(t)

async function rows(url: string, text: string): Promise<Record<string, unknown>[]> {
  const client = new pg.Client({ connectionString: url })
  await client.connect()
  try {
    return (await client.query<Record<string, unknown>>(text)).rows
  } finally {
    await client.end()
  }
}

t.test('a database is a copy of its template and goes away when dropped', async (t) => {
  const template = await cluster.createDatabase()
  await rows(template.url, 'create table place as select 7 as id')
  const copy = await cluster.createDatabase({ template: template.name })
  t.same(await rows(copy.url, 'select id from place'), [{ id: 7 }])
  await copy.drop()
  await t.rejects(rows(copy.url, 'select 1'), { code: '3D000' })
})

t.test('a role is no superuser and owns the database made for it', async (t) => {
  const role = await cluster.createRole()
  const database = await cluster.createDatabase({ owner: role })
  const [row] = await rows(database.url, `select current_user as name, current_setting('is_superuser') as superuser`)
  t.same(row, { name: role, superuser: 'off' })
})

t.test('a dump of one cluster restores into another with another system identifier', async (t) => {
  const other = await startPostgres(t)
  const identifier = 'select system_identifier::text as id from pg_control_system()'
  t.notSame(await cluster.query('postgres', identifier), await other.query('postgres', identifier))
  const source = await cluster.createDatabase()
  await rows(source.url, `create table place as select 'Wien' as name`)
  const target = await other.createDatabase()
  await other.restore(target.name, await cluster.dump(source.name))
  t.same(await rows(target.url, 'select name from place'), [{ name: 'Wien' }])
})

t.test('a crashed server comes back on the same port with what was committed', async (t) => {
  const own = await startPostgres(t, { settings: { max_connections: 20 } })
  const database = await own.createDatabase()
  await rows(database.url, 'create table place as select 1 as id')
  await own.halt('immediate')
  await t.rejects(rows(database.url, 'select 1'), { code: 'ECONNREFUSED' })
  await own.resume()
  t.same(await rows(database.url, 'select id from place'), [{ id: 1 }])
  t.same(await rows(database.url, 'show max_connections'), [{ max_connections: '20' }])
})

t.test('the cluster goes away when its process is killed', async (t) => {
  const program = `
    import { startPostgres } from ${JSON.stringify(new URL('./postgres.ts', import.meta.url).href)}
    const cluster = await startPostgres({ teardown: () => {} })
    console.log(cluster.dataDir)
    setInterval(() => {}, 1000)`
  const child = spawn(process.execPath, ['--input-type=module-typescript', '-e', program], {
    stdio: ['ignore', 'pipe', 'inherit'],
    cwd: import.meta.dirname,
  })
  const dataDir = await new Promise<string>((resolve) =>
    child.stdout.once('data', (data) => resolve(String(data).trim())),
  )
  t.ok(existsSync(`${dataDir}/postmaster.pid`))
  child.kill('SIGKILL')
  for (let waited = 0; existsSync(dataDir) && waited < 200; waited++) await sleep(50)
  t.notOk(existsSync(dataDir))
})
