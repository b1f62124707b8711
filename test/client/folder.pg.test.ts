import t from 'tap'
import { type FolderSite, folderSites, type TestFolder, testFolder } from './folder-sites.ts'

const make = await folderSites(t)
const ID = (n: number) => `00000000-0000-4000-8000-${String(n).padStart(12, '0')}`

/** Two sites and two folders: what one writes, the other reads. */
async function pair(t: Parameters<typeof make>[0], format: 'json' | 's3xml' | 's3json' | 'csv', more: object = {}) {
  const [there, back] = [await testFolder(t), await testFolder(t)]
  const [a, b] = [await make(t, 'a', [there, back]), await make(t, 'b', [there, back])]
  const ending = format === 's3xml' ? 'xml' : format === 'csv' ? 'csv' : 'json'
  const names = { write: `\${resource}-\${timestamp}.${ending}`, read: `\${resource}-*.${ending}` }
  const hub = await testFolder(t)
  // One folder, and a folder for each way below it.
  const roots = [hub]
  const [left, right] = [await make(t, 'left', roots), await make(t, 'right', roots)]
  await left.add('right', {
    path: hub.path,
    format,
    ...more,
    write: `to-right/${names.write}`,
    read: `to-left/${names.read}`,
  })
  await right.add('left', {
    path: hub.path,
    format,
    ...more,
    write: `to-left/${names.write}`,
    read: `to-right/${names.read}`,
  })
  return { left, right, hub, a, b }
}

const VALUES = {
  area: `select id, name, tags, more, made::text from area order by id`,
  visit: `select id, area_id, people, cost::text, seen, note from visit order by id`,
}
async function valuesOf(site: FolderSite) {
  return { area: await site.query(VALUES.area), visit: await site.query(VALUES.visit) }
}

async function exchange(left: FolderSite, right: FolderSite, times = 2) {
  for (let n = 0; n < times; n++) {
    t.match(await left.run('right'), { result: 'success' })
    t.match(await right.run('left'), { result: 'success' })
  }
}

t.test('I3: two sites that exchange through two folders alone end equal', async (t) => {
  const { left, right } = await pair(t, 'json')
  await left.query(
    `insert into area values ('n', 'North', '{a,"b c"}', '{"x": [1, null]}', '2026-01-02 03:04:05.678901Z'), ('s', null, null, null, null)`,
  )
  await left.query(
    `insert into visit values ('${ID(1)}', 'n', 3, 12.340, true, 'first, "quoted"'), ('${ID(2)}', 's', null, 1e20, false, '')`,
  )
  await right.query(`insert into area values ('w', 'West', '{}', '"text"', null)`)
  await exchange(left, right)
  t.same(await valuesOf(left), await valuesOf(right))
  t.equal((await valuesOf(left)).area.length, 3)
})
