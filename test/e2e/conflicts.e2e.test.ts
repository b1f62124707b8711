import pg from 'pg'
import t, { type Test } from 'tap'
import { syncline } from '../cli/terminal.ts'
import { startPostgres } from '../support/postgres.ts'
import { type SiteProcess, startSiteProcess } from '../support/site-process.ts'

t.setTimeout(600_000)

const TABLE = 'create table item (id text primary key, name text, note text, price numeric(10,2), stock int)'
const cluster = await startPostgres(t)

type Ground = {
  readonly site: SiteProcess
  readonly query: (text: string) => Promise<Record<string, unknown>[]>
  readonly run: (...args: string[]) => ReturnType<typeof syncline>
}

async function makeSite(t: Test, name: string): Promise<Ground> {
  const { url } = await cluster.createDatabase()
  const client = new pg.Client({ connectionString: url })
  client.on('error', () => {})
  await client.connect()
  t.teardown(() => client.end())
  const query: Ground['query'] = async (text) => (await client.query(text)).rows
  await query(TABLE)
  const site = await startSiteProcess(t, { name, databaseUrl: url })
  await site.api('POST', '/resources', { tables: [{ table: 'item' }] }, { prefer: 'wait' })
  return { site, query, run: (...args) => syncline([...args, '--data-dir', site.dataDir]) }
}

const RULES = ['--on-conflict', 'merge', '--field', 'stock=sum', '--field', 'price=greatest', '--field', 'note=ask']

t.test('two sites by the command line: fields merge, what asks is decided, and both are proved equal', async (t) => {
  const [hub, field] = await Promise.all([makeSite(t, 'hub'), makeSite(t, 'field')])
  const { code } = await hub.site.api<{ code: string }>('POST', '/invitations', {
    name: 'field',
    pull: ['item'],
    push: ['item'],
  })
  await field.site.api('POST', '/peers/join', { code, name: 'hub' })

  t.match(await hub.run('peer', 'grant', 'field', 'item', '--push', '--on-conflict', 'mine'), { code: 0 })
  const refused = await field.run('task', 'add', 'hub', 'item', '--mode', 'both', '--on-conflict', 'mine')
  t.match(refused, {
    code: 1,
    stderr: /SYNC_REQUEST_CONTRADICTORY.*mine on both sites: each takes its own values back/s,
  })
  t.match(refused.stderr, /To mend it, first at "hub": `syncline peer grant field item --push --on-conflict theirs`/)
  t.match(await hub.run('peer', 'grant', 'field', 'item', '--push'), { code: 0 }, 'as the invitation had it')
  const { uuid } = await field.site.api<{ uuid: string }>('GET', '/site')
  const master = ['task', 'add', 'hub', 'item', '--mode', 'both', '--on-conflict', 'master', '--master', uuid]
  const [, command = ''] = /first at "hub": `syncline ([^`]+)`/.exec((await field.run(...master)).stderr) ?? []
  t.equal(command, `peer grant field item --push --on-conflict master --master ${uuid}`)
  t.match(await hub.run(...command.split(' ')), { code: 0 })
  t.match(await field.run(...master), { code: 0 }, 'the command that the message names mends it')
  t.match(await field.run('task', 'remove', 'hub', 'item'), { code: 0 })
  t.match(await hub.run('peer', 'grant', 'field', 'item', '--push', '--on-conflict', 'mine'), { code: 0 })
  const wrong = await field.run(
    'task',
    'add',
    'hub',
    'item',
    '--mode',
    'both',
    '--on-conflict',
    'merge',
    '--field',
    'name=sum',
  )
  t.match(wrong, { code: 2, stderr: /sum works on numbers, and field "name" is none of these/ })
  const doubtful = await field.run('task', 'add', 'hub', 'item', '--mode', 'both', ...RULES)
  t.match(doubtful, { code: 0, stdout: /note: merge here against mine at the peer/ })
  t.match(await hub.run('peer', 'grant', 'field', 'item', '--push', ...RULES), { code: 0 })
  const agreed = await field.run('task', 'set', 'hub', 'item', ...RULES)
  t.match(agreed, { code: 0 })
  t.notMatch(agreed.stdout, /note:/)

  await hub.query(`insert into item select 'i' || n, 'item', 'note', 10, 10 from generate_series(1, 4) n`)
  t.match(await field.run('sync', 'hub'), { code: 0 })
  await hub.query(`update item set name = 'named at the hub', stock = stock + 5, price = 12`)
  await field.query(`update item set stock = stock - 2, price = 11`)
  await field.query(`update item set note = 'seen in the field' where id = 'i1'`)
  await hub.query(`update item set note = 'seen at the hub' where id = 'i1'`)
  t.match(await field.run('sync', 'hub'), { code: 3 }, 'something waits for a person')
  const merged = { name: 'named at the hub', stock: 13, price: '12.00', note: 'note' }
  for (const site of [field, hub])
    t.match(
      await site.query(`select * from item where id > 'i1' order by id`),
      [merged, merged, merged],
      site.site.name,
    )

  const shown = await field.run('conflict', 'show', '1')
  t.match(shown, { code: 0, stdout: /FIELD +BASE +OURS +THEIRS/ })
  t.match(shown.stdout, /^\* +note +note +seen in the field +seen at the hub$/m)
  t.match(shown.stdout, /by +hub +field +hub/)
  t.match(shown.stdout, /needs +note/)
  t.match(await field.run('conflict', 'resolve', '--all', 'ours', '--resource', 'item'), {
    code: 0,
    stdout: /1 conflict would be decided/,
  })
  const decided = await field.run(
    'conflict',
    'resolve',
    '1',
    '--field',
    'name=theirs',
    '--set',
    'note=seen by both',
    '--set',
    'stock=13',
    '--comment',
    'asked around',
  )
  t.match(decided, { code: 0, stdout: /keeps what was chosen/ })
  t.match(await field.run('sync', 'hub'), { code: 0 })
  for (const site of [field, hub]) {
    t.match(await site.query(`select * from item where id = 'i1'`), [
      { note: 'seen by both', name: 'named at the hub', stock: 13 },
    ])
    t.match(await site.run('conflict', 'list'), { stdout: /No conflicts/ })
  }
  t.match(await field.run('verify', 'hub'), { code: 0, stdout: /item +4 +equal/ })
  const { items } = await hub.site.api<{ items: { resolution: string }[] }>('GET', '/conflicts?open=false')
  t.match(items, [{ resolution: 'elsewhere' }])
})
