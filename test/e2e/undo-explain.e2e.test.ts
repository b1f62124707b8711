import pg from 'pg'
import t from 'tap'
import type { UndoReport } from '../../src/store/index.ts'
import { syncline } from '../cli/terminal.ts'
import { startPostgres } from '../support/postgres.ts'
import { type SiteProcess, startSiteProcess } from '../support/site-process.ts'

t.setTimeout(600_000)
const cluster = await startPostgres(t, { settings: { max_connections: 200 } })

type Ground = {
  readonly site: SiteProcess
  readonly query: (text: string) => Promise<Record<string, unknown>[]>
  /** A command line in the data folder of the site: how it ended and what it printed. */
  readonly cli: (
    ...args: string[]
  ) => Promise<{ readonly code: number; readonly stdout: string; readonly stderr: string }>
}

async function makeSite(name: string): Promise<Ground> {
  const { url } = await cluster.createDatabase()
  const pool = new pg.Pool({ connectionString: url, max: 2 })
  pool.on('error', () => {})
  t.teardown(() => pool.end())
  const site = await startSiteProcess(t, { name, databaseUrl: url })
  return {
    site,
    query: async (text) => (await pool.query(text)).rows,
    cli: (...args) => syncline([...args, '--data-dir', site.dataDir]),
  }
}

const hub = await makeSite('hub')
const field = await makeSite('field')
const { code } = await hub.site.api<{ code: string }>('POST', '/invitations', { name: 'field' })
await field.site.api('POST', '/peers/join', { code, name: 'hub' })
for (const { query, site } of [hub, field]) {
  await query('create table country (id text primary key, name text not null, size int)')
  await site.api('POST', '/resources', { tables: [{ table: 'country' }] }, { prefer: 'wait' })
}
for (const direction of ['pull', 'push'])
  await hub.site.api('PUT', `/peers/field/grants/${direction}/country`, {}, { 'if-match': '*' })
await field.site.api('POST', '/tasks', { peer: 'hub', resource: 'country', mode: 'both' })

const names = async (ground: Ground) =>
  (await ground.query('select id, name from country order by id')).map(({ id, name }) => `${id} ${name}`)

t.test('a run is looked at, taken back, synced on, and taken back again, by the command line', async (t) => {
  await hub.query(`insert into country values ('AT', 'Austria', 1), ('DE', 'Germany', 2), ('CH', 'Swiss', 3)`)
  await field.site.sync('hub')
  await hub.query(`update country set name = 'Österreich', size = 9 where id = 'AT'; delete from country where id = 'DE';
    insert into country values ('FR', 'France', 4); update country set name = 'Suisse' where id = 'CH'`)
  const run = await field.site.sync('hub')
  await field.query(`update country set name = 'Svizzera' where id = 'CH'`)
  const before = await names(field)

  const preview = await field.cli('run', 'undo', run.id, '--preview')
  t.equal(preview.code, 0)
  t.match(
    preview.stdout,
    new RegExp(`Undo of run ${run.id} would be: 1 removed, 1 restored, 1 back to their previous values`),
  )
  t.match(preview.stdout, /country\/AT +replaced +name +Österreich +Austria\n +size +9 +1/)
  t.match(preview.stdout, /country\/CH +replaced +field/)
  t.same(await names(field), before, 'a preview writes nothing')

  const done = await field.cli('run', 'undo', run.id)
  t.equal(done.code, 3, 'something was left for a person')
  t.match(done.stdout, /is taken back by run \d+: 1 removed, 1 restored, 1 back/)
  t.match(done.stdout, /1 record left as it is: changed since/)
  t.same(await names(field), ['AT Austria', 'CH Svizzera', 'DE Germany'])
  await field.site.sync('hub')
  t.same(await names(hub), await names(field), 'it syncs on like any change')
  t.match((await field.cli('log')).stdout, new RegExp(`run ${run.id} was taken back by administrator: 1 removed`))

  const again = await field.cli('run', 'undo', run.id)
  t.equal(again.code, 3, 'the record that was left waits still')
  t.match(again.stdout, /^Nothing to take back: run \d+ was taken back by run \d+ at 20/m)
  t.match(again.stdout, /1 record left as it is: changed since/)

  const forced = JSON.parse(
    (await field.cli('run', 'undo', run.id, '--force', 'country/CH', '--json')).stdout,
  ) as UndoReport
  t.match(forced.counts, { replaced: 1 })
  t.same(await names(field), ['AT Austria', 'CH Swiss', 'DE Germany'])
  const back = await field.cli('run', 'undo', forced.undoRunId as string)
  t.equal(back.code, 0)
  t.same(await names(field), ['AT Austria', 'CH Svizzera', 'DE Germany'], 'undoing the undo puts it back')
  t.match(await field.cli('run', 'undo', '999999'), { code: 1, stderr: /there is no run 999999/ })
  t.match((await field.cli('run', 'show', forced.undoRunId as string)).stdout, /undo of run/)
  await field.site.sync('hub')
})

t.test('a record is explained: its life, and what the peer has of it', async (t) => {
  const same = await field.cli('explain', 'country', 'AT', '--peer', 'hub')
  t.equal(same.code, 0)
  t.match(same.stdout, /^country\/AT lives here\n\n {2}id +AT\n {2}name +Austria/)
  t.match(
    same.stdout,
    /version {2}from hub, run \d+\n {4}name: Austria -> Österreich\n {4}size: 1 -> 9\n {4}replaced at .* in run \d+/,
  )
  t.match(same.stdout, /version, as it is now {2}made here, run \d+/)
  t.match(same.stdout, /hub has it as it is here\n {2}hub was asked just now/)
  await field.query(`update country set name = 'not yet there' where id = 'AT'`)
  const late = await field.cli('explain', 'country', 'AT', '--peer', 'hub')
  t.match(late.stdout, /hub has another version\n/)
  t.match(late.stdout, /not there: checkpoint\n {4}what this site pushes to hub has reached/)
  const json = JSON.parse((await field.cli('explain', 'country', 'AT', '--peer', 'hub', '--json')).stdout)
  t.match(json, { resource: 'country', id: 'AT', state: 'here', peer: { name: 'hub', has: 'other' } })
  await field.query(`delete from country where id = 'CH'`)
  t.match(
    (await field.cli('explain', 'country', 'CH', '--peer', 'hub')).stdout,
    /^country\/CH was deleted$[\s\S]*^hub has it still$/m,
  )
  await field.site.sync('hub')
  t.match((await field.cli('explain', 'country', 'CH', '--peer', 'hub')).stdout, /^hub does not have it either$/m)
  t.match(await field.cli('explain', 'country', 'XX'), {
    code: 0,
    stdout: /^country\/XX is not known here: this site has never had it$/m,
  })
  t.match(await field.cli('explain', 'nothing', 'XX'), { code: 1, stderr: /resource "nothing" is not attached here/ })
})
