/** Nothing that a folder says is lost without a word, and nothing that it was told before takes back what was done since. */
import { rm } from 'node:fs/promises'
import { join } from 'node:path'
import t, { type Test } from 'tap'
import { findPeer } from '../../src/store/index.ts'
import { folderSites, testFolder } from './folder-sites.ts'

const make = await folderSites(t)
const ID = (n: number) => `00000000-0000-4000-8000-${String(n).padStart(12, '0')}`

async function oneSite(t: Test, settings: object, tasks: object = {}, limits: object = {}) {
  const folder = await testFolder(t)
  const site = await make(t, 'here', [folder], limits)
  await site.add(
    'ngo',
    { path: folder.path, format: 'csv', read: 'in/*', ...settings },
    { mode: 'pull', names: ['area'], ...tasks },
  )
  const area = async () =>
    Object.fromEntries((await site.query('select id, name from area order by id')).map(({ id, name }) => [id, name]))
  return { site, folder, area }
}

for (const [format, form] of [
  ['csv', (id: string, name: string) => `id,name\n${id},${name}\n`],
  ['json', (id: string, name: string) => JSON.stringify({ changes: [{ id, data: { name } }] })],
] as const)
  t.test(`I4: in ${format} an echo of what was told earlier takes nothing back`, async (t) => {
    const { site, folder, area } = await oneSite(t, { format, write: 'out/file' }, { mode: 'both' })
    await site.query(`insert into area (id, name) values ('A', 'v1'), ('B', 'v1')`)
    await site.run('ngo')
    await site.query(`update area set name = 'v2' where id = 'A'; delete from area where id = 'B'`)
    await site.run('ngo')
    await site.query(`update area set name = 'v3' where id = 'A'`)
    await site.run('ngo')
    await folder.put('in/first', await folder.text('out/file'))
    t.match(await site.run('ngo'), { result: 'success', counts: { conflicts: 0 } })
    t.same(await area(), { A: 'v3' }, 'the whole file')
    await folder.put('in/dump', form('A', 'v2'))
    await folder.put('in/dump2', form('B', 'v1'))
    t.match(await site.run('ngo'), { result: 'success', counts: { conflicts: 0 } })
    t.same(await area(), { A: 'v3' }, 'some fields')
    await folder.put('in/dump3', form('A', 'v3'))
    await site.run('ngo')
    await folder.put('in/dump4', form('A', 'v2'))
    await site.run('ngo')
    t.same(await area(), { A: 'v2' }, 'what goes back behind what it has shown to have is a write')
  })

for (const format of ['s3xml', 's3json'] as const)
  t.test(`I4: in ${format} an echo of what was told earlier takes nothing back`, async (t) => {
    const { site, folder, area } = await oneSite(t, { format, write: 'out/file' }, { mode: 'both', onConflict: 'ask' })
    await site.query(`insert into area (id, name) values ('A', 'v1'), ('B', 'v1')`)
    await site.run('ngo')
    await site.query(`update area set name = 'v2' where id = 'A'; delete from area where id = 'B'`)
    await site.run('ngo')
    await folder.put('in/first', await folder.text('out/file'))
    t.match(await site.run('ngo'), { result: 'success', counts: { conflicts: 0 } })
    t.same(await area(), { A: 'v2' })
    const second = (await folder.names('out')).find((name) => name !== 'file')
    await folder.put('in/second', await folder.text(`out/${second}`))
    t.match(await site.run('ngo'), { result: 'success', counts: { conflicts: 0 } })
    const proved = `select sent is null and told is null as proved from syncline.eden_record`
    t.same(await site.query(proved), [{ proved: true }, { proved: true }], 'what is shown need not be remembered')
  })

t.test('what is emptied in a file is no echo of what was told', async (t) => {
  const { site, folder } = await oneSite(t, { write: 'out/file' }, { mode: 'both' })
  await site.query(`insert into area (id, name, tags) values ('A', 'v1', '{x}')`)
  await site.run('ngo')
  await folder.put('in/emptied', 'id,name,tags\nA,v1,\n')
  t.match(await site.run('ngo'), { result: 'success' })
  t.match(await site.query('select name, tags from area'), [{ name: 'v1', tags: null }])
})

t.test('a file with records that no task takes any more is not deleted', async (t) => {
  const { site, folder } = await oneSite(t, { format: 'json', after: 'delete' }, { names: ['area', 'visit'] })
  const { store } = site
  const { id } = await findPeer(store.db, 'ngo')
  const both = (n: number) =>
    JSON.stringify({
      resources: [
        { resource: 'area', changes: [{ id: `a${n}`, data: { name: 'x' } }] },
        { resource: 'visit', changes: [{ id: ID(n), data: { people: 2 } }] },
      ],
    })
  await folder.put('in/1', both(1))
  await site.run('ngo', { resources: ['area'] })
  t.same(await folder.names(), ['in/1'], 'it waits for the other task')
  await site.query(
    `update syncline.task set enabled = false where resource_id = (select id from syncline.resource where name = 'visit')`,
  )
  t.match(await site.run('ngo'), { result: 'success' })
  t.same(await folder.names(), ['in/1'], 'a disabled task may be enabled again')
  await site.query(`update syncline.task set enabled = true`)
  await site.run('ngo')
  t.same(await folder.names(), [])
  t.equal((await site.query('select from visit')).length, 1)
  await folder.put('in/2', both(2))
  await site.run('ngo', { resources: ['area'] })
  await site.query(
    `delete from syncline.task where peer_id = ${id} and resource_id = (select id from syncline.resource where name = 'visit')`,
  )
  await site.run('ngo')
  t.same(await folder.names(), ['quarantine/in/2', 'quarantine/in/2.reason.txt'])
  t.match(await folder.text('quarantine/in/2.reason.txt'), /1 × records of "visit", which no task pulls/)
  t.match(
    (await site.log('ngo')).find(({ action }) => action === 'import in/2'),
    { result: 'warning', message: /\(1 records\): 1 of area; not taken: 1 × records of "visit"/ },
  )
})

t.test('one record that stands in a file several times is all that was said of it', async (t) => {
  const { site, folder, area } = await oneSite(t, { format: 'json' })
  const put = (name: string, changes: readonly object[]) => folder.put(`in/${name}`, JSON.stringify({ changes }))
  await put('parts', [
    { id: 'a', data: { name: 'first' } },
    { id: 'b', data: { name: 'b' } },
    { id: 'a', data: { tags: ['x'] } },
    { id: 'c', data: { name: 'c' } },
    { id: 'c', deleted: true },
    { id: 'd', data: { name: 'd' } },
    { id: 'd', deleted: true },
    { id: 'd', data: { name: 'again' } },
  ])
  t.match(await site.run('ngo'), { result: 'success' })
  t.match(await site.query('select id, name, tags from area order by id'), [
    { id: 'a', name: 'first', tags: ['x'] },
    { id: 'b', name: 'b', tags: null },
    { id: 'd', name: 'again', tags: null },
  ])
  const version = (clock: number) => ({ origin: ID(5), clock: 1_700_000_000_000_000 + clock })
  await put('versions', [
    { id: 'v', version: version(2), data: { name: 'v2' } },
    { id: 'v', version: version(1), data: { name: 'v1' } },
  ])
  t.match(await site.run('ngo'), { result: 'success' })
  t.match(await area(), { v: 'v2' })
  await put('again', [
    { id: 'a', data: { name: 'second' } },
    { id: 'a', data: { name: 'third' } },
  ])
  t.match(await site.run('ngo'), { counts: { pulled: 1 } }, 'parts are taken together')
  t.match(await area(), { a: 'third' })
})

t.test('a file with characters that no text of the database can hold is refused like every other', async (t) => {
  const { site, folder } = await oneSite(t, { format: 'json' })
  await folder.put('in/nul', '{"changes":[\0]}')
  await folder.put('in/good', JSON.stringify({ changes: [{ id: 'a', data: {} }] }))
  t.match(await site.run('ngo'), { result: 'error', code: 'SYNC_FORMAT_INVALID', counts: { applied: 1 } })
  t.same(await folder.names('quarantine'), ['in/nul', 'in/nul.reason.txt'])
})

t.test('a column that a task takes later has the values of the same file', async (t) => {
  const { site, folder } = await oneSite(t, {})
  const text = 'id,title,tags\na,North,"[""x""]"\n'
  await site.query(`update syncline.task set columns = '{tags}'`)
  await folder.put('in/1', text)
  t.match(await site.run('ngo'), { result: 'success' })
  t.match(await site.query('select name, tags from area'), [{ name: null, tags: ['x'] }])
  await site.query(
    `update syncline.task set columns = null, mapping = '{"rename": {"title": "name"}, "constant": {}, "omit": []}'`,
  )
  await folder.put('in/2', `${text}\n`)
  t.match(await site.run('ngo'), { result: 'success' })
  t.match(await site.query('select name from area'), [{ name: 'North' }], 'a task with more columns')
})

t.test('a column that gets a name here later has the values of the same file, and before is told', async (t) => {
  const { site, folder } = await oneSite(t, {})
  await folder.put('in/1', 'id,title\na,North\n')
  t.match(await site.run('ngo'), { result: 'success' })
  t.match(
    (await site.log('ngo')).filter(({ result }) => result === 'warning'),
    [{ message: 'there is no column title of area here: what stands in it goes into no table' }],
  )
  t.match(await site.query('select name from area'), [{ name: null }])
  await site.query(`update syncline.task set mapping = '{"rename": {"title": "name"}, "constant": {}, "omit": []}'`)
  await folder.put('in/2', 'id,title\r\na,North\r\n')
  t.match(await site.run('ngo'), { result: 'success' })
  t.match(await site.query('select name from area'), [{ name: 'North' }])
})

t.test('a file that is replaced before all of it was taken is told', async (t) => {
  const { site, folder, area } = await oneSite(t, {}, {}, { batchRowsMax: 10 })
  const rows = (name: string) => ['id,name', ...Array.from({ length: 50 }, (_, n) => `${name}${n},x`), ''].join('\n')
  await folder.put('in/file', rows('first'), 20)
  const stop = new AbortController()
  let batches = 0
  t.ok(
    (await site.run('ngo', { signal: stop.signal, onProgress: () => ++batches === 2 && stop.abort(new Error('cut')) }))
      .cancelled,
  )
  await folder.put('in/file', rows('other'))
  t.match(await site.run('ngo'), { result: 'success' })
  t.ok(Object.keys(await area()).length < 100)
  t.match(
    (await site.log('ngo')).filter(({ action, result }) => action === 'import in/file' && result === 'warning'),
    [{ message: 'the file was replaced by another one; it was not taken, or not all of it' }],
  )
})

t.test('a preview knows that a file was replaced', async (t) => {
  const { site, folder } = await oneSite(t, {})
  await folder.put('in/file', 'id,name\na,one\n', 20)
  await site.run('ngo')
  const counted = async () => (await site.preview('ngo')).tasks[0]?.parts[0]?.changes
  t.equal(await counted(), 0)
  await folder.put('in/file', 'id,name\na,two\nb,one\n')
  t.equal(await counted(), 2)
  await rm(join(folder.path, 'in/file'))
  t.equal(await counted(), 0)
})

t.test('a large table may begin with empty lines', async (t) => {
  const { site, folder } = await oneSite(t, { format: 'csv' })
  const rows = Array.from({ length: 4_000 }, (_, n) => `r${n},"id","""${'x'.repeat(700)}"""`)
  await folder.put('in/large', ['\ufeff', '', 'id,name,more', ...rows, ''].join('\r\n'))
  t.match(await site.run('ngo'), { result: 'success', counts: { applied: 4_000 } })
  rows[3_900] = 'r,too,many,cells'
  await folder.put('in/wrong', ['', '', 'id,name,more', ...rows, ''].join('\n'))
  t.match(await site.run('ngo'), { message: /record 3901 \(line 3904\): it has 4 cells/ })
})
