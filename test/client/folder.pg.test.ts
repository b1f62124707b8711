import { writeFileSync } from 'node:fs'
import { chmod, link, mkdir, readdir, rename, rm, symlink, utimes, writeFile } from 'node:fs/promises'
import { userInfo } from 'node:os'
import { join } from 'node:path'
import t, { type Test } from 'tap'
import { dumpFolder } from '../../src/client/index.ts'
import { createTask, findPeer, listFolderFiles, listQuarantine } from '../../src/store/index.ts'
import { type FolderSite, folderSites, KEY, testFolder } from './folder-sites.ts'

const make = await folderSites(t)
const ID = (n: number) => `00000000-0000-4000-8000-${String(n).padStart(12, '0')}`

const VALUES = {
  area: 'select id, name, tags, more, made::text from area order by id',
  visit: 'select id, area_id, people, cost::text, seen, note from visit order by id',
}
async function valuesOf(site: FolderSite) {
  return { area: await site.query(VALUES.area), visit: await site.query(VALUES.visit) }
}
/** Versions too: the sites hold the same, and know that it is the same. */
async function versionsOf(site: FolderSite) {
  return site.query(`
    select r.name, c.record_id, o.origin, c.clock::text, c.deleted from syncline.record c
      join syncline.resource r on r.id = c.resource_id join syncline.site o on o.id = c.origin order by 1, 2`)
}

type Format = 'json' | 's3xml' | 's3json' | 'csv'

/** Two sites and one folder, in it a folder for each way. */
async function pair(t: Test, format: Format, more: object = {}, limits: object = {}) {
  const ending = { s3xml: 'xml', csv: 'csv', json: 'json', s3json: 'json' }[format]
  const [write, read] = [`\${resource}-\${timestamp}.${ending}`, `\${resource}-*.${ending}`]
  const hub = await testFolder(t)
  const [left, right] = [await make(t, 'left', [hub], limits), await make(t, 'right', [hub], limits)]
  const both = { path: hub.path, format, after: 'delete' as const, ...more }
  await left.add('right', { ...both, write: `to-right/${write}`, read: `to-left/${read}` })
  await right.add('left', { ...both, write: `to-left/${write}`, read: `to-right/${read}` })
  return { left, right, hub }
}

async function exchange(t: Test, left: FolderSite, right: FolderSite, times = 2) {
  for (let n = 0; n < times; n++) {
    t.match(await left.run('right'), { result: 'success', message: null })
    t.match(await right.run('left'), { result: 'success', message: null })
  }
}

async function fill(left: FolderSite, right: FolderSite) {
  await left.query(`insert into area values
    ('n', 'North "quoted", <b>&amp;</b>', '{a,"b c"}', '{"x": [1, null], "y": "é\\n"}', '2026-01-02 03:04:05Z'), ('s', null, null, null, null)`)
  await left.query(
    `insert into visit values ('${ID(1)}', 'n', 3, 12.340, true, E'first\r\nline'), ('${ID(2)}', 's', null, 1e20, false, '')`,
  )
  await right.query(`insert into area values ('w', 'West', '{}', '"text"', null)`)
}

t.test('I3: two sites that exchange through two folders alone end equal, to the last version', async (t) => {
  const { left, right, hub } = await pair(t, 'json')
  await fill(left, right)
  await left.query(`update area set made = '2026-01-02 03:04:05.678901Z' where id = 'n'`)
  await exchange(t, left, right)
  await left.query(`update area set name = 'North again' where id = 'n'; delete from visit where id = '${ID(2)}'`)
  await right.query(`update area set name = 'Westward' where id = 'w'; update area set tags = '{z}' where id = 's'`)
  await exchange(t, left, right)
  t.same(await valuesOf(left), await valuesOf(right))
  t.same(await versionsOf(left), await versionsOf(right))
  t.match(await left.query(`select name from area where id = 'n'`), [{ name: 'North again' }])
  t.equal((await left.query('select from visit')).length, 1, 'a deletion travels')
  await left.query(`update area set name = 'by left' where id = 's'`)
  await right.query(`update area set name = 'by right' where id = 's'`)
  await exchange(t, left, right)
  t.same(await valuesOf(left), await valuesOf(right), 'I7: both settle a conflict alike')
  t.same(await versionsOf(left), await versionsOf(right))
  t.same(await hub.names(), [], 'everything was taken and deleted')
  const files = await listFolderFiles(left.store.db, (await findPeer(left.store.db, 'right')).id)
  t.ok(files.length > 0 && files.every(({ state, gone }) => state === 'taken' && gone))
})

for (const format of ['s3xml', 's3json', 'csv'] as const)
  t.test(`I3: in ${format}, which has no versions, both sites end with the same values`, async (t) => {
    const { left, right, hub } = await pair(t, format)
    await fill(left, right)
    await exchange(t, left, right)
    t.same(await valuesOf(left), await valuesOf(right))
    await left.query(
      `update area set name = null, tags = '{c}' where id = 'n'; delete from visit where id = '${ID(2)}'`,
    )
    await right.query(`update visit set note = 'seen there', people = 7 where id = '${ID(1)}'`)
    await exchange(t, left, right)
    t.same(await valuesOf(left), await valuesOf(right))
    t.match(await left.query(`select note, people from visit`), [{ note: 'seen there', people: 7 }])
    await exchange(t, left, right, 1)
    t.same(await hub.names(), [], 'I4: nothing is told that did not change, and nothing comes back')
  })

t.test(
  'nothing is written where nothing changed, and a dump writes all there is, what came from there too',
  async (t) => {
    const { left, right, hub } = await pair(t, 'json')
    await fill(left, right)
    await exchange(t, left, right)
    await left.run('right')
    t.same(await hub.names('to-right'), [])
    const peer = await findPeer(left.store.db, 'right')
    const setup = { store: left.store, key: KEY, self: left.self, limits: left.limits }
    t.same(await dumpFolder(setup, peer, ['area']), { files: 1, records: 3 })
    await t.rejects(dumpFolder(setup, peer, ['elsewhere']), { code: 'SYNC_REQUEST_NOT_FOUND' })
    const [name = ''] = await hub.names('to-right')
    const { resource, changes } = JSON.parse(await hub.text(`to-right/${name}`))
    t.equal(resource, 'area')
    t.same(changes.map(({ id }: { id: string }) => id).sort(), ['n', 's', 'w'])
    t.match(await right.run('left'), { result: 'success', counts: { applied: 0 } }, 'I2')
    t.same(await versionsOf(left), await versionsOf(right))
  },
)

/** A site that only reads. */
async function reader(t: Test, settings: object, tasks: object = {}, limits: object = {}) {
  const folder = await testFolder(t)
  const site = await make(t, 'here', [folder], limits)
  await site.add(
    'ngo',
    { path: folder.path, read: 'in/*.csv', format: 'csv', ...settings },
    { mode: 'pull', names: ['area'], ...tasks },
  )
  const area = async () =>
    Object.fromEntries((await site.query('select id, name from area order by id')).map(({ id, name }) => [id, name]))
  return { site, folder, area }
}

t.test('files are read the oldest first and once each, over a restart, a touch and a new name', async (t) => {
  const { site, folder, area } = await reader(t, {})
  await folder.put('in/b.csv', 'id,name\na,second\n', 100)
  await folder.put('in/a.csv', 'id,name\na,third\n', 50)
  await folder.put('in/c.csv', 'id,name\na,first\nb,only\n', 200)
  t.match(await site.run('ngo'), { result: 'success' })
  t.same(await area(), { a: 'third', b: 'only' }, 'the oldest first')
  await site.query(`update area set name = 'changed here' where id = 'b'`)
  await site.restart()
  await utimes(join(folder.path, 'in/c.csv'), new Date(), new Date())
  t.match(await site.run('ngo'), { counts: { pulled: 0 } }, 'a touched file is known by what is in it')
  t.same(await area(), { a: 'third', b: 'changed here' })
  await folder.put('in/c.csv', 'id,name\na,fourth\n')
  await site.run('ngo')
  t.same(await area(), { a: 'fourth', b: 'changed here' }, 'a file with other content is new')
  await rm(join(folder.path, 'in/a.csv'))
  await site.run('ngo')
  await folder.put('in/a.csv', 'id,name\na,third\n')
  await site.run('ngo')
  t.same(await area(), { a: 'third', b: 'changed here' }, 'and so is one that was away')
  const taken = (await site.log('ngo')).filter(({ action }) => action.startsWith('import '))
  t.equal(taken.length, 5)
  t.match(taken.at(-1), {
    action: 'import in/c.csv',
    mode: 'pull',
    direction: 'outgoing',
    result: 'success',
    message: /^Data imported successfully \(2 records\): 2 of area; it is kept/,
  })
})

t.test('a full dump without versions that comes again and again says only what it says anew', async (t) => {
  const { site, folder, area } = await reader(t, { read: 'in/*.csv' }, { onConflict: 'ask' })
  const dump = (name: string, ...rows: string[]) => folder.put(`in/${name}.csv`, ['id,name', ...rows, ''].join('\n'))
  await dump('monday', 'a,one', 'b,one')
  await site.run('ngo')
  await site.query(`update area set name = 'ours' where id = 'a'`)
  await dump('tuesday', 'a,one', 'b,two', 'c,one')
  t.match(await site.run('ngo'), { result: 'success' })
  t.same(await area(), { a: 'ours', b: 'two', c: 'one' }, 'an edit here outlives a dump that knows nothing of it')
  await dump('wednesday', 'a,three', 'b,two', 'c,one')
  t.match(await site.run('ngo'), { result: 'warning', counts: { conflicts: 1 } }, 'I7: both wrote it')
  t.same(await area(), { a: 'ours', b: 'two', c: 'one' })
  t.match(await site.query(`select theirs from syncline.conflict`), [{ theirs: { name: 'three' } }])
  await dump('thursday', 'b,one', 'c,')
  await site.run('ngo')
  t.same(await area(), { a: 'ours', b: 'one', c: null }, 'what is back to what it was is written all the same')
})

t.test('columns that a file does not name are not sent', async (t) => {
  const { site, folder } = await reader(t, {})
  await folder.put('in/1.csv', 'id,name,tags\na,one,"[""x""]"\n', 10)
  await folder.put('in/2.csv', 'id,name\na,two\n')
  await site.run('ngo')
  t.match(await site.query('select name, tags from area'), [{ name: 'two', tags: ['x'] }])
})

t.test('what is being written is not read', async (t) => {
  const { site, folder, area } = await reader(t, { settleSeconds: 1 })
  for (const name of ['.hidden.csv', 'a.csv.part', 'b.tmp', 'c.csv~'])
    await folder.put(`in/${name}`, 'id,name\nx,no\n', 60)
  await folder.put('in/growing.csv', 'id,name\n')
  let size = 0
  // Each look finds it longer than the one before.
  const growing = setInterval(
    () => writeFileSync(join(folder.path, 'in/growing.csv'), `id,name\n${'g,row\n'.repeat(++size)}`),
    20,
  )
  t.teardown(() => clearInterval(growing))
  t.match(await site.run('ngo'), { result: 'success', counts: { pulled: 0 } })
  clearInterval(growing)
  t.same(await area(), {})
  await folder.put('in/growing.csv', 'id,name\ng,whole\n')
  t.match(await site.run('ngo'), { result: 'success' })
  t.same(await area(), { g: 'whole' })
})

t.test('a file that cannot be read goes into quarantine with the reason, and the others are taken', async (t) => {
  const { site, folder, area } = await reader(t, { after: 'move' })
  await folder.put('in/good.csv', 'id,name\na,one\n', 30)
  await folder.put('in/bad.csv', 'id,name\na,two,too many\n', 20)
  await folder.put('in/later.csv', 'id,name\nb,one\n', 10)
  t.match(await site.run('ngo'), {
    result: 'error',
    code: 'SYNC_FORMAT_INVALID',
    message: /in\/bad\.csv cannot be read: .*record 1 \(line 2\)/,
  })
  t.same(await area(), { a: 'one', b: 'one' }, 'I8')
  t.same(await folder.names(), [
    'done/in/good.csv',
    'done/in/later.csv',
    'quarantine/in/bad.csv',
    'quarantine/in/bad.csv.reason.txt',
  ])
  t.match(
    await folder.text('quarantine/in/bad.csv.reason.txt'),
    /SYNC_FORMAT_INVALID: record 1 \(line 2\): it has 3 cells/,
  )
  t.match(
    (await site.log('ngo')).find(({ action }) => action === 'import in/bad.csv'),
    { result: 'error', remote: true },
  )
  t.match(await site.run('ngo'), { result: 'success' })
  await folder.put('in/bad.csv', 'id,name\na,two\n')
  t.match(await site.run('ngo'), { result: 'success' })
  t.same(await area(), { a: 'two', b: 'one' }, 'mended, it is taken')
  await folder.put('in/large.csv', `id,name\n${'x'.repeat(2000)},y\n`)
  site.limits.bodyBytesMax = 1_000
  await site.restart()
  t.match(await site.run('ngo'), {
    code: 'SYNC_FORMAT_INVALID',
    message: /SYNC_REQUEST_TOO_LARGE: it has \d+ bytes; at most 1000/,
  })
})

t.test('I8: a record that the database refuses waits alone, and its file counts as taken', async (t) => {
  const { site, folder } = await reader(t, { read: `in/\${resource}.csv`, after: 'delete' }, { names: ['visit'] })
  await folder.put('in/visit.csv', `id,people,note\n${ID(1)},1,ok\n${ID(2)},many,bad\n${ID(3)},3,ok\n`)
  t.match(await site.run('ngo'), { result: 'warning', counts: { applied: 2, quarantined: 1 } })
  t.same(await folder.names(), [])
  t.match(await listQuarantine(site.store.db, { peer: 'ngo', limit: 10 }), [{ recordId: ID(2) }])
  await folder.put('in/visit.csv', `id,people,note\n${ID(2)},2,mended\n`)
  t.match(await site.run('ngo'), { result: 'success' })
  t.equal((await site.query('select from visit')).length, 3)
  t.same(await listQuarantine(site.store.db, { peer: 'ngo', limit: 10 }), [])
})

t.test('one file may hold several resources, and records of a child may come before those of its parent', async (t) => {
  const document = {
    resources: [
      {
        resource: 'visit',
        changes: [{ id: ID(1), data: { people: 2 }, refs: { area_id: { resource: 'area', id: 'n' } } }],
      },
      { resource: 'area', changes: [{ id: 'n', data: { name: 'North' } }] },
    ],
  }
  const { site, folder } = await reader(
    t,
    { format: 'json', read: 'in/*.json', after: 'delete' },
    { names: ['area', 'visit'] },
  )
  await folder.put('in/all.json', JSON.stringify(document))
  t.match(await site.run('ngo'), { result: 'success', counts: { applied: 2 } })
  t.match(await site.query('select area_id, people from visit'), [{ area_id: 'n', people: 2 }])
  t.same(await folder.names(), [])
  await folder.put('in/strange.json', JSON.stringify({ resource: 'elsewhere', changes: [] }))
  t.match(await site.run('ngo'), { message: /there is no resource "elsewhere" here/ }, 'I11: refused by name')
  t.same(await folder.names('quarantine'), ['in/strange.json', 'in/strange.json.reason.txt'])
})

const EDEN = `<?xml version="1.0"?>
<s3xml domain="relief" success="true" results="2">
  <resource name="area" uuid="urn:uuid:${ID(8)}" created_on="2026-01-01T00:00:00" modified_on="2026-02-01T00:00:00" mci="2" owned_by_user="x">
    <data field="name">Harbour &amp; port</data><data field="height" value="3">3</data>
    <resource name="visit" uuid="urn:uuid:${ID(9)}" created_on="2026-01-01T00:00:00" modified_on="2026-02-01T00:00:00" mci="2"><data field="people" value="4">4</data></resource>
    <resource name="strange_thing" uuid="urn:uuid:${ID(7)}" modified_on="2026-02-01T00:00:00"><data field="a">b</data></resource>
  </resource>
</s3xml>`

t.test('an export of Eden is read with its components, and what this site has no table for is kept', async (t) => {
  const { site, folder } = await reader(
    t,
    { format: 's3xml', read: 'in/*.xml', after: 'delete' },
    { names: ['area', 'visit'] },
  )
  await folder.put('in/export.xml', EDEN)
  t.match(await site.run('ngo'), { result: 'success', counts: { applied: 2 } })
  t.match(await site.query('select id, name from area'), [{ id: `urn:uuid:${ID(8)}`, name: 'Harbour & port' }])
  t.match(await site.query('select area_id, people from visit'), [{ area_id: `urn:uuid:${ID(8)}`, people: 4 }])
  t.match(await site.query('select table_name, record_id from syncline.eden_stranger'), [
    { table_name: 'strange_thing', record_id: `urn:uuid:${ID(8)}` },
  ])
  t.match(await site.query('select attributes from syncline.eden_record where mci = 2 limit 1'), [
    { attributes: { created_on: '2026-01-01T00:00:00' } },
  ])
  t.same(await folder.names(), [])
  await folder.put('in/older.xml', EDEN.replaceAll('2026-02-01', '2026-01-15').replace('Harbour', 'Old harbour'))
  t.match(await site.run('ngo'), { result: 'success' })
  t.match(
    await site.query('select name from area'),
    [{ name: 'Harbour & port' }],
    'what was overtaken does not come back',
  )
  await folder.put(
    'in/newer.xml',
    EDEN.replaceAll('2026-02-01', '2026-03-01').replace(/<data field="name">.*?<\/data>/, ''),
  )
  t.match(await site.run('ngo'), { result: 'success' })
  t.match(await site.query('select name from area'), [{ name: null }], 'an export leaves out what is empty')
  await folder.put(
    'in/broken.xml',
    EDEN.replace('<data field="people" value="4">4</data>', '<data field="people" value="four">4</data>').replaceAll(
      '2026-02-01',
      '2026-04-01',
    ),
  )
  t.match(await site.run('ngo'), { result: 'success' })
  t.match(
    (await site.log('ngo')).find(({ action }) => action === 'import in/broken.xml'),
    { result: 'warning', message: /not taken: 1 × visit urn:uuid:.*people.*it is in quarantine\/in\/broken\.xml now/ },
  )
})

t.test('what Eden merged is merged here, and references follow', async (t) => {
  const settings = { format: 's3xml', read: 'in/*.xml' }
  const { site, folder } = await reader(t, settings, { names: ['area', 'visit'] })
  const named = (n: number) => `urn:uuid:${ID(n)}`
  const record = (table: string, n: number, at: string, rest: string, more = '') =>
    `<resource name="${table}" uuid="${named(n)}" created_on="2026-01-01T00:00:00" modified_on="${at}" mci="2"${more}>${rest}</resource>`
  const [first, later] = ['2026-02-01T00:00:00', '2026-02-02T00:00:00']
  const areas = [1, 2].map((n) => record('area', n, first, `<data field="name">${n}</data>`)).join('')
  const visit = record('visit', 3, first, `<reference field="area_id" resource="area" uuid="${named(1)}"/>`)
  await folder.put('in/1.xml', `<s3xml>${visit}${areas}</s3xml>`, 20)
  t.match(await site.run('ngo'), { result: 'success', counts: { applied: 3 } })
  const gone = record('area', 1, later, '', ` deleted="True" replaced_by="${named(2)}"`)
  const kept = record('area', 2, later, '<data field="name">both</data>')
  await folder.put('in/2.xml', `<s3xml>${gone}${kept}</s3xml>`)
  await site.run('ngo')
  t.match(await site.run('ngo'), { result: 'success' })
  t.same(await site.query('select id, name from area'), [{ id: named(2), name: 'both' }])
  t.same(await site.query('select area_id from visit'), [{ area_id: named(2) }])
})

t.test('a document of our own in S3XML keeps its versions', async (t) => {
  const { site, folder } = await reader(t, { format: 's3xml', read: 'in/*.xml' })
  const version = `origin="${ID(5)}" clock="1700000000000000" seen="{&quot;${ID(6)}&quot;:5}"`
  await folder.put(
    'in/own.xml',
    `<s3xml count="1"><resource name="area" uuid="a" ${version}><data field="name" value="&quot;one&quot;"/></resource></s3xml>`,
  )
  t.match(await site.run('ngo'), { result: 'success' })
  t.match(
    await site.query(`select s.origin, r.clock::text from syncline.record r join syncline.site s on s.id = r.origin`),
    [{ origin: ID(5), clock: '1700000000000000' }],
  )
})

t.test('names are made from a template, and no file is ever overwritten', async (t) => {
  const folder = await testFolder(t)
  const site = await make(t, 'my site', [folder])
  const common = { path: folder.path, format: 'json' as const }
  await site.add(
    'each',
    { ...common, write: `each/\${id}.json`, layout: 'record', readable: true },
    { mode: 'push', names: ['area'] },
  )
  await site.add(
    'all',
    { ...common, write: `all/\${site}-\${year}\${month}\${day}.json`, layout: 'all' },
    { mode: 'push' },
  )
  await site.add(
    'same',
    { ...common, write: 'same.xml', format: 's3xml', readable: true },
    { mode: 'push', names: ['area'] },
  )
  await site.query(`insert into area (id, name) values ('../a', 'one'), ('b', 'two')`)
  for (const peer of ['each', 'all', 'same']) t.match(await site.run(peer), { result: 'success' })
  await site.query(
    `update area set name = 'three' where id = 'b'; insert into visit (id, area_id) values ('${ID(1)}', 'b')`,
  )
  for (const peer of ['each', 'all', 'same']) t.match(await site.run(peer), { result: 'success' })
  const today = new Date().toISOString().slice(0, 10).replaceAll('-', '')
  const names = await folder.names()
  t.same(
    names.filter((name) => !name.startsWith('all/')),
    ['each/__a.json', 'each/b-2.json', 'each/b.json', 'same-2.xml', 'same.xml'].map((name) =>
      name.replace('__a', '__a'),
    ),
  )
  t.match(
    names.filter((name) => name.startsWith('all/')),
    [/^all\/my_site-\d{8}-2\.json$/, /^all\/my_site-\d{8}\.json$/],
    today,
  )
  t.match(JSON.parse(await folder.text('each/b-2.json')), {
    resource: 'area',
    changes: [{ id: 'b', data: { name: 'three' }, version: { origin: site.self.uuid } }],
  })
  t.match(await folder.text('each/b.json'), /\n {2}"id": "b"/, 'for people to read')
  t.match(
    await folder.text('same.xml'),
    /<s3xml success="true">\n {2}<resource name="area"[^>]*>\n {4}<data field="name"/,
  )
  const [second = ''] = names.filter((name) => name.startsWith('all/'))
  t.match(JSON.parse(await folder.text(second)).resources, [
    { resource: 'area', changes: [{ id: 'b' }] },
    { resource: 'visit', changes: [{ id: ID(1), refs: { area_id: { resource: 'area', id: 'b' } } }] },
  ])
  t.match(
    (await site.log('same')).find(({ action }) => action === 'data export'),
    { mode: 'push', direction: 'outgoing', message: 'data sent successfully: same-2.xml: 1 of area' },
  )
})

t.test('nothing leads out of the folders that the settings allow', async (t) => {
  const { site, folder, area } = await reader(t, {})
  const outside = await testFolder(t)
  await outside.put('secret.csv', 'id,name\ns,secret\n')
  await mkdir(join(folder.path, 'in'))
  await symlink(join(outside.path, 'secret.csv'), join(folder.path, 'in/link.csv'))
  await symlink(outside.path, join(folder.path, 'in/more'))
  await symlink(outside.path, join(folder.path, 'out'))
  t.match(await site.run('ngo'), { result: 'success', counts: { pulled: 0 } })
  t.same(await area(), {})
  const add = (name: string, settings: object) =>
    site.add(name, { path: folder.path, ...settings }, { mode: 'push', names: ['area'] })
  await t.rejects(site.add('x', { path: outside.path, read: '*.xml' }), {
    code: 'SYNC_PEER_FOLDER_FORBIDDEN',
    message: /is below none of/,
  })
  await t.rejects(site.add('x', { path: join(folder.path, 'out'), read: '*.xml' }), {
    code: 'SYNC_PEER_FOLDER_FORBIDDEN',
  })
  await t.rejects(site.add('x', { path: join(folder.path, 'none'), read: '*.xml' }), {
    code: 'SYNC_PEER_UNREACHABLE',
    message: /it is not there/,
  })
  for (const settings of [
    { read: '../*.xml' },
    { read: '/etc/*' },
    { write: `.hidden/\${timestamp}.xml` },
    { write: `\${nothing}.xml` },
    { write: `\${id}.xml` },
    { write: `\${resource}.xml`, layout: 'all' },
    { write: 'a.csv', layout: 'all', format: 'csv' },
    { read: '*.xml', write: `\${timestamp}.xml`, after: 'delete' },
    { path: '/a/../b', read: '*' },
    { path: 'relative', read: '*' },
    { read: '*.xml', done: '../up' },
    {},
  ])
    await t.rejects(add('x', settings), { code: 'SYNC_REQUEST_INVALID' }, JSON.stringify(settings))
  await add('out', { write: 'out/a.xml' })
  await site.query(`insert into area (id) values ('a')`)
  t.match(await site.run('out'), { code: 'SYNC_PEER_FOLDER_FORBIDDEN', message: /symbolic link/ })
  t.same(await outside.names(), ['secret.csv'])
  await rm(join(folder.path, 'out'))
  t.match(await site.run('out'), { result: 'success' }, 'what was pushed waited for its name')
  t.same(await folder.names('out'), ['a.xml'])
  Object.assign(site.limits, { folderRoots: [] })
  await site.restart()
  t.match(await site.run('ngo'), { code: 'SYNC_PEER_FOLDER_FORBIDDEN', message: /may use no folder at all/ })
  Object.assign(site.limits, { folderRoots: [folder.path] })
  await site.restart()
  await rename(folder.path, `${folder.path}-away`)
  t.match(
    await site.run('ngo'),
    { result: 'error', code: 'SYNC_PEER_UNREACHABLE' },
    'a disk that is not mounted is waited for',
  )
  await rename(`${folder.path}-away`, folder.path)
})

t.test('I5: a large file is taken batch by batch, and goes on where it was', async (t) => {
  const { site, folder, area } = await reader(t, { after: 'delete' }, {}, { batchRowsMax: 10 })
  const rows = Array.from({ length: 95 }, (_, n) => `r${n},name ${n}`)
  await folder.put('in/large.csv', ['id,name', ...rows, ''].join('\n'))
  await folder.put('in/small.csv', 'id,name\nz,last\n')
  const stop = new AbortController()
  let batches = 0
  const report = await site.run('ngo', {
    signal: stop.signal,
    onProgress: () => ++batches === 3 && stop.abort(new Error('cut')),
  })
  t.ok(report.cancelled)
  const first = Object.keys(await area()).length
  t.ok(first >= 30 && first < 95, `${first} are here`)
  t.same(await folder.names(), ['in/large.csv', 'in/small.csv'], 'it is not let go of before all of it was taken')
  await site.restart()
  t.match(await site.run('ngo'), { result: 'success' })
  t.equal(Object.keys(await area()).length, 96)
  t.same(await folder.names(), [])
})

t.test('what a crash left of a file in the making is cut off, and the rest gets its name', async (t) => {
  const folder = await testFolder(t)
  const site = await make(t, 'here', [folder])
  await site.add(
    'out',
    { path: folder.path, format: 'json', write: `out/\${resource}.json` },
    { mode: 'push', names: ['area'] },
  )
  await site.query(`insert into area (id, name) values ('a', 'one')`)
  // Whoever takes the name away keeps the run from its end.
  await mkdir(join(folder.path, 'elsewhere'))
  await symlink(join(folder.path, 'elsewhere'), join(folder.path, 'out'))
  t.match(await site.run('out'), { code: 'SYNC_PEER_FOLDER_FORBIDDEN' })
  await rm(join(folder.path, 'out'))
  const [spool = ''] = await readdir(join(folder.path, '.syncline'))
  await writeFile(join(folder.path, '.syncline', spool), 'torn'.repeat(10_000), { flag: 'a' })
  await site.query(`insert into area (id, name) values ('b', 'two')`)
  await site.restart()
  t.match(await site.run('out'), { result: 'success' })
  const written = await Promise.all((await folder.names('out')).map((name) => folder.text(`out/${name}`)))
  t.same(written.flatMap((text) => JSON.parse(text).changes.map(({ id }: { id: string }) => id)).sort(), ['a', 'b'])
  await site.query(`insert into area (id, name) values ('c', 'three')`)
  await symlink(join(folder.path, 'elsewhere'), join(folder.path, 'away'))
  await rename(join(folder.path, 'out'), join(folder.path, 'kept'))
  await rename(join(folder.path, 'away'), join(folder.path, 'out'))
  await site.run('out')
  await rm(join(folder.path, '.syncline'), { recursive: true })
  t.match(
    await site.run('out'),
    { result: 'error', message: /was removed by somebody: `syncline folder dump out` writes everything again/ },
    'I1: a loss is told',
  )
})

for (const format of ['json', 'csv', 's3xml'] as const)
  t.test(`in ${format} columns have the names that the task gives them`, async (t) => {
    const { site, folder } = await reader(
      t,
      { format, read: 'in/*', write: `out/\${resource}` },
      { mode: 'both', names: ['visit'] },
    )
    const mapping = { rename: { remark: 'note', region: 'area_id' }, constant: { source: 'here' }, omit: ['cost'] }
    await site.query(`update syncline.task set mapping = '${JSON.stringify(mapping)}'`)
    await site.query(
      `insert into area values ('n'); insert into visit (id, area_id, note, cost) values ('${ID(1)}', 'n', 'ours', 5)`,
    )
    t.match(await site.run('ngo'), { result: 'success' })
    const [written = ''] = await folder.names('out')
    const text = await folder.text(`out/${written}`)
    for (const name of ['remark', 'region', 'source']) t.match(text, name)
    for (const name of ['note', 'area_id', 'cost']) t.notMatch(text, name)
    const soon = new Date(Date.now() + 5_000).toISOString().slice(0, 19)
    const their = text
      .replaceAll('ours', 'theirs')
      .replace(/"version":\{[^}]*\},/, '')
      .replace(/modified_on="[^"]*"/, `modified_on="${soon}"`)
    await folder.put('in/back', their)
    t.match(await site.run('ngo'), { counts: { pulled: 1 } })
    t.match(await site.query('select area_id, note, cost::text from visit'), [
      { area_id: 'n', note: 'theirs', cost: '5' },
    ])
  })

t.test('a field without a column goes on, in a table of its own where tables have one set of columns', async (t) => {
  const { site, folder } = await reader(t, { format: 'json', read: 'in/*.json' })
  await site.add('on', { path: folder.path, format: 'csv', write: 'on.csv' }, { mode: 'push', names: ['area'] })
  const version = { origin: ID(5), clock: 1_700_000_000_000_000 }
  const changes = [
    { id: 'a', version, data: { name: 'one' } },
    { id: 'b', version, data: { name: 'two', height: 3 } },
  ]
  await folder.put('in/a.json', JSON.stringify({ changes }))
  t.match(await site.run('ngo'), { result: 'success', counts: { applied: 2 } })
  t.match(await site.run('on'), { result: 'success' })
  t.equal(await folder.text('on.csv'), 'id,made,more,name,tags,_deleted\r\na,,,one,,\r\n')
  t.equal(await folder.text('on-2.csv'), 'id,height,made,more,name,tags,_deleted\r\nb,3,,,two,,\r\n', 'I11')
})

t.test('a large table of CSV is read piece by piece, and what is wrong in it is told by its line', async (t) => {
  const { site, folder, area } = await reader(t, {})
  const rows = Array.from({ length: 30_000 }, (_, n) => `r${n},"name ""${n}"",\n${'é'.repeat(30)}"`)
  await folder.put('in/large.csv', ['\ufeffid,name', ...rows, ''].join('\r\n'), 20)
  t.match(await site.run('ngo'), { result: 'success', counts: { applied: 30_000 } })
  const found = await area()
  t.equal(found.r0, `name "0",\n${'é'.repeat(30)}`)
  t.equal(found.r29999, `name "29999",\n${'é'.repeat(30)}`)
  rows[25_000] = 'r,too,many'
  await folder.put('in/wrong.csv', ['id,name', ...rows, ''].join('\n'))
  t.match(await site.run('ngo'), { message: /record 25001 \(line 50002\): it has 3 cells/ })
})

t.test('a large push becomes several files, each of them whole', async (t) => {
  const { left, right, hub } = await pair(t, 'csv', {}, { bodyBytesMax: 40_000, recordBytesMax: 10_000 })
  await left.query(`insert into area (id, name) select 'k' || n, repeat('x', 100) from generate_series(1, 500) n`)
  t.match(await left.run('right'), { result: 'success' })
  const files = await hub.names('to-right')
  t.ok(files.length > 4, `${files.length} files`)
  for (const name of files)
    t.match(await hub.text(`to-right/${name}`), /^id,made,more,name,tags,_deleted\r\nk[\s\S]*\r\n$/)
  t.match(await right.run('left'), { result: 'success', counts: { applied: 500 } })
  t.same(await valuesOf(left), await valuesOf(right))
})

t.test('a preview tells what a run would do and leaves everything as it is', async (t) => {
  const { site, folder, area } = await reader(t, { after: 'delete', write: `out/\${resource}.csv` }, { mode: 'both' })
  await folder.put('in/new.csv', 'id,name\na,one\nb,two\n')
  await folder.put('in/bad.csv', 'id\n\0\n')
  await site.query(`insert into area (id) values ('x')`)
  const look = async () => [
    await folder.names(),
    await site.query('select count(*) from syncline.folder_file'),
    await site.query('select count(*) from syncline.eden_record'),
  ]
  const before = await look()
  const { tasks } = await site.preview('ngo')
  t.match(tasks, [
    {
      parts: [
        { direction: 'pull', changes: 2, counts: { applied: 2 } },
        { direction: 'push', changes: 1 },
      ],
    },
  ])
  t.same(await look(), before)
  t.same(await area(), { x: null })
})

t.test('what a folder cannot do is refused in words', async (t) => {
  const { site, folder } = await reader(t, {})
  const { store } = site
  t.match(await site.query(`select verdict, reason from syncline.agreement`), [])
  await site.run('ngo')
  t.match(
    await site.query(`select verdict, reason from syncline.agreement`),
    [{ verdict: 'unknown', reason: /a folder gives no proof/ }],
    'I9: never green',
  )
  const { id } = await findPeer(store.db, 'ngo')
  await site.query(`update syncline.task set mode = 'push' where peer_id = ${id}`)
  await site.query(`insert into area (id) values ('a')`)
  t.match(await site.run('ngo'), { code: 'SYNC_REQUEST_INVALID', message: /nothing is written to the folder "ngo"/ })
  await site.query(`update syncline.task set mode = 'pull', filter = 'name = ''x''' where peer_id = ${id}`)
  t.match(await site.run('ngo'), { code: 'SYNC_FILTER_INVALID' })
  await site.query(`update syncline.task set filter = null where peer_id = ${id}`)
  await createTask(store.db, { peerId: id, resource: 'visit', mode: 'pull' })
  await folder.put('in/which.csv', 'id\na\n')
  t.match(await site.run('ngo'), { message: /nothing says which of area, visit a table is of/ })
  t.same(await folder.names(), ['in/which.csv'], 'the file is not to blame')
})

t.test('a folder that cannot be written to is read all the same, and says that its files stay', async (t) => {
  const { site, folder, area } = await reader(t, {}, {})
  await folder.put('in/a.csv', 'id,name\na,one\n')
  await folder.put('in/bad.csv', 'nothing\n')
  await site.query(`update syncline.folder set settings = settings || '{"after": "delete"}'`)
  await chmod(join(folder.path, 'in'), 0o555)
  t.teardown(() => chmod(join(folder.path, 'in'), 0o755))
  t.match(await site.run('ngo'), { result: 'error' })
  t.same(await area(), { a: 'one' })
  // Root may do everything.
  if (userInfo().uid !== 0)
    t.match((await site.log('ngo')).map(({ message }) => message).join('\n'), /it stays where it is/)
  t.match(await site.run('ngo'), { counts: { pulled: 0 } })
})

t.test('what the machine does not let the site do is told in words, and done when it does', async (t) => {
  const folder = await testFolder(t)
  const site = await make(t, 'here', [folder])
  const { id } = await site.add('out', { path: folder.path, write: 'a.xml' }, { mode: 'push', names: ['area'] })
  await site.query(`insert into area (id) values ('a')`)
  const [{ resource } = {}] = await site.query(`select id as resource from syncline.resource where name = 'area'`)
  const growing = join(folder.path, '.syncline', `${site.self.uuid}-${id}-${resource}.part`)
  await mkdir(growing, { recursive: true })
  t.match(await site.run('out'), { result: 'error', code: 'SYNC_PEER_UNREACHABLE', message: /^in the folder .*EISDIR/ })
  await rm(growing, { recursive: true })
  t.match(await site.run('out'), { result: 'success' })
  t.match(await folder.text('a.xml'), /uuid="urn:syncline:a"/)
})

t.test('a file of two names is read as what it is', async (t) => {
  const { site, folder, area } = await reader(t, {})
  await folder.put('in/a.csv', '\ufeffid,name\na,one\n')
  await link(join(folder.path, 'in/a.csv'), join(folder.path, 'in/b.csv'))
  t.match(await site.run('ngo'), { result: 'success', counts: { applied: 1 } })
  t.same(await area(), { a: 'one' })
})
