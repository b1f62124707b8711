import { randomUUID } from 'node:crypto'
import { rename, rm, stat, truncate, utimes, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import t from 'tap'
import { folderOf } from '../../src/client/folder/folder.ts'
import { refuseFile } from '../../src/client/folder/look.ts'
import { createFolderPuller } from '../../src/client/folder/pull.ts'
import {
  filesInFolder,
  findPeer,
  noteFolderFile,
  queueFolderFile,
  readFolder,
  updateFolderFile,
} from '../../src/store/index.ts'
import { folderSites, type TestFolder, testFolder } from './folder-sites.ts'

const make = await folderSites(t)

for (const [loss, lose] of [
  ['is gone', (path: string) => rm(path)],
  ['is gone with its folder', (path: string) => rm(join(path, '..'), { recursive: true })],
  ['is shorter than what was written', (path: string) => truncate(path, 10)],
] as const)
  t.test(`I1: a file in the making that ${loss} is told, and no other one stands for it`, async (t) => {
    const folder = await testFolder(t)
    const site = await make(t, 'here', [folder])
    const { id } = await site.add(
      'out',
      { path: folder.path, format: 'json', write: `out/\${resource}.json` },
      { mode: 'push', names: ['area'] },
    )
    const [{ resource } = {}] = await site.query(`select id as resource from syncline.resource where name = 'area'`)
    const spool = join(folder.path, '.syncline', `${site.self.uuid}-${id}-${resource}.part`)
    // A file in the place of the folder keeps what is written from its name.
    const fail = async () => {
      await writeFile(join(folder.path, 'out'), 'no folder')
      t.match(await site.run('out'), { result: 'error' })
      await rm(join(folder.path, 'out'))
      t.ok((await stat(spool)).size > 10)
    }
    const told = { result: 'error', message: /2 of area were written for "out" was removed by somebody: .*folder dump/ }
    await site.query(`insert into area (id, name) values ('a', 'one'), ('b', 'two')`)
    await fail()
    await lose(spool)
    await site.query(`insert into area (id, name) values ('c', 'three')`)
    t.match(await site.run('out'), told, 'where more is to be written')
    t.same(await folder.names('out'), [])
    t.match(await site.run('out'), { result: 'success' })
    t.same(await idsIn(folder, 'out/area.json'), ['c'], 'what was not delivered follows')

    await rm(join(folder.path, 'out'), { recursive: true })
    await site.query(`insert into area (id, name) values ('d', 'four'), ('e', 'five')`)
    await fail()
    await lose(spool)
    t.match(await site.run('out'), told, 'where it would only get its name')
    t.same(await folder.names('out'), [])
    t.match(await site.run('out'), { result: 'success' })
  })

async function idsIn(folder: TestFolder, name: string): Promise<readonly string[]> {
  return JSON.parse(await folder.text(name)).changes.map(({ id }: { id: string }) => id)
}

t.test('a file that replaced a wrong one is not put away for the faults of that one', async (t) => {
  const hub = await testFolder(t)
  const site = await make(t, 'here', [hub])
  const { db } = site.store
  await site.add(
    'ngo',
    { path: hub.path, read: 'in/*.csv', format: 'csv', after: 'delete' },
    { mode: 'pull', names: ['area'] },
  )
  const peer = await findPeer(db, 'ngo')
  const folder = folderOf({ ...site, peer, settings: await readFolder(db, peer) })
  const seen = async (name: string, text: string) => {
    await hub.put(name, text, 100)
    const { size, mtimeNs } = await stat(join(hub.path, name), { bigint: true })
    await noteFolderFile(db, peer.id, { name, bytes: Number(size), modified: String(mtimeNs) })
    const row = (await filesInFolder(db, peer.id)).find((file) => file.name === name)
    if (row === undefined) throw new Error(`${name} was noted`)
    return row
  }
  const replace = async (name: string, text: string) => {
    await hub.put('.new', text)
    await rename(join(hub.path, '.new'), join(hub.path, name))
  }

  const wrong = await seen('in/wrong.csv', 'nothing')
  await replace('in/wrong.csv', 'id,name\na,mended\n')
  t.match(await refuseFile(folder, wrong, 'it is cut'), /cannot be read: it is cut/)
  const left = await seen('in/left.csv', 'id,name\nx,old\n')
  await queueFolderFile(db, left, { sha256: 'x', resources: { area: 1 }, leftOver: { 'records of "b"': 2 } })
  await updateFolderFile(db, left, { state: 'taken' })
  await replace('in/left.csv', 'id,name\nb,mended too\n')
  await createFolderPuller(folder).clear(randomUUID())
  t.same(await hub.names(), ['in/left.csv', 'in/wrong.csv'], 'both stay under their names')
  t.match(await site.run('ngo'), { result: 'success' })
  t.same(await site.query('select id, name from area order by id'), [
    { id: 'a', name: 'mended' },
    { id: 'b', name: 'mended too' },
  ])

  const bad = await seen('in/bad.csv', 'nothing')
  await refuseFile(folder, bad, 'it is cut')
  t.same(await hub.names(), ['quarantine/in/bad.csv', 'quarantine/in/bad.csv.reason.txt'])
})

t.test('another content is read though its name, size and time are those of the one before', async (t) => {
  const folder = await testFolder(t)
  const site = await make(t, 'here', [folder])
  await site.add('ngo', { path: folder.path, read: 'in/*.csv', format: 'csv' }, { mode: 'pull', names: ['area'] })
  const put = async (name: string) => {
    await folder.put('in/a.csv', `id,name\na,${name}\n`)
    await utimes(join(folder.path, 'in/a.csv'), second, second)
  }
  // A file system that keeps times in seconds.
  const second = Math.floor(Date.now() / 1_000) + 2
  await put('one')
  t.match(await site.run('ngo'), { result: 'success', counts: { applied: 1 } })
  t.match(await site.run('ngo'), { result: 'success', counts: { pulled: 0 } }, 'what is the same is not read again')
  await put('two')
  t.match(await site.run('ngo'), { result: 'success', counts: { applied: 1 } })
  t.same(await site.query('select name from area'), [{ name: 'two' }])
})
