import fs, { chmod, mkdir, mkdtemp, readdir, readFile, rm, symlink, writeFile } from 'node:fs/promises'
import { syncBuiltinESMExports } from 'node:module'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import t, { type Test } from 'tap'
import { openPlace, writeAll } from '../../src/client/folder/place.ts'

/** A folder that may be used, and one beside it that may not. */
async function places(t: Test) {
  const root = await mkdtemp(join(tmpdir(), 'syncline-place-'))
  t.teardown(() => rm(root, { recursive: true, force: true }))
  const [inside, outside] = [join(root, 'inside'), join(root, 'outside')]
  for (const path of [inside, outside, join(inside, 'in')]) await mkdir(path)
  await writeFile(join(outside, 'secret'), 'secret')
  return { place: await openPlace(inside, [inside]), inside, outside }
}

t.test('no name leads out, whatever lies on the way', async (t) => {
  const { place, inside, outside } = await places(t)
  await symlink(outside, join(inside, 'way'))
  await symlink(join(outside, 'secret'), join(inside, 'in/link'))
  await symlink(join(inside, 'in'), join(inside, 'same'))
  await writeFile(join(inside, 'in/file'), 'file')
  const forbidden = { code: 'SYNC_PEER_FOLDER_FORBIDDEN' }
  t.equal(await place.open('in/link'), undefined)
  t.equal(await place.open('in'), undefined, 'a folder is no file')
  t.equal(await place.open('in/none'), undefined)
  await t.rejects(place.open('way/secret'), forbidden)
  await t.rejects(place.open('../outside/secret'), forbidden)
  await t.rejects(place.open('same/file'), forbidden, 'not even where it leads back in')
  await t.rejects(place.write('way/new', 'x'), forbidden)
  await t.rejects(place.write('../outside/new', 'x'), forbidden)
  await t.rejects(place.write('way/deep/er/new', 'x'), forbidden)
  await t.rejects(place.move('in/file', 'way/file'), forbidden)
  await t.rejects(place.move('way/secret', 'in/secret'), forbidden)
  await t.rejects(place.remove('way/secret'), forbidden)
  t.equal(await readFile(join(outside, 'secret'), 'utf8'), 'secret')
  t.same(
    (await place.list([])).map(({ name }) => name),
    ['in/file'],
  )
  t.same(await place.list(['in']), [], 'but for what is left out')
})

t.test('a name that is taken is never taken away', async (t) => {
  const { place, inside } = await places(t)
  await writeFile(join(inside, 'a.xml'), 'before')
  const names = await Promise.all(Array.from({ length: 10 }, (_, n) => place.write('a.xml', `file ${n}`)))
  t.equal(new Set(names).size, 10, 'also where many want it at once')
  t.equal(await readFile(join(inside, 'a.xml'), 'utf8'), 'before')
  const found = await Promise.all(names.map((name) => readFile(join(inside, name), 'utf8')))
  t.same(
    found.sort(),
    Array.from({ length: 10 }, (_, n) => `file ${n}`),
  )
  t.match(await place.move('a-2.xml', 'deep/er/a.xml'), 'deep/er/a.xml')
  t.match(await place.move('a-3.xml', 'deep/er/a.xml'), 'deep/er/a-2.xml')
})

t.test('a folder must be there, and be allowed', async (t) => {
  const { inside, outside } = await places(t)
  await t.rejects(openPlace(inside, []), { code: 'SYNC_PEER_FOLDER_FORBIDDEN', message: /no folder at all/ })
  await t.rejects(openPlace(outside, [inside]), { code: 'SYNC_PEER_FOLDER_FORBIDDEN' })
  await t.rejects(openPlace(`${inside}-more`, [inside]), { code: 'SYNC_PEER_UNREACHABLE' })
  await mkdir(`${inside}-more`)
  await t.rejects(
    openPlace(`${inside}-more`, [inside]),
    { code: 'SYNC_PEER_FOLDER_FORBIDDEN' },
    'a longer name is another folder',
  )
  await t.rejects(openPlace(join(outside, 'secret'), [outside]), {
    code: 'SYNC_PEER_UNREACHABLE',
    message: /is no folder/,
  })
  t.equal((await openPlace(join(inside, 'in'), ['/nonexistent', inside])).base, join(inside, 'in'))
})

t.test('all of some bytes is written, or it is told', async (t) => {
  const taken: [string, number | null | undefined][] = []
  const part = async (bytes: Buffer, from: number, length: number, position: number) => {
    const bytesWritten = taken.length === 3 ? 0 : Math.min(length, 4)
    taken.push([bytes.subarray(from, from + bytesWritten).toString(), position])
    return { bytesWritten, buffer: bytes }
  }
  const handle = { write: part } as unknown as Parameters<typeof writeAll>[0]
  await writeAll(handle, Buffer.from('0123456789'), 100)
  t.same(taken, [
    ['0123', 100],
    ['4567', 104],
    ['89', 108],
  ])
  await t.rejects(writeAll(handle, Buffer.from('x'), 0), { code: 'SYNC_PEER_UNREACHABLE' })
})

t.test('a folder that nothing can be taken out of keeps its files, and gets no second names', async (t) => {
  const { place, inside } = await places(t)
  await writeFile(join(inside, 'in/file'), 'file')
  await mkdir(join(inside, 'done'))
  for (const [path, mode] of [
    [join(inside, '..'), 0o755],
    [inside, 0o777],
    [join(inside, 'done'), 0o777],
    [join(inside, 'in/file'), 0o666],
    [join(inside, 'in'), 0o555],
  ] as const)
    await chmod(path, mode)
  t.teardown(() => chmod(join(inside, 'in'), 0o755))
  // Root may do everything.
  const isRoot = process.geteuid?.() === 0
  if (isRoot) process.seteuid?.(65_534)
  try {
    await t.rejects(place.move('in/file', 'done/file'), { code: 'EACCES' })
  } finally {
    if (isRoot) process.seteuid?.(0)
  }
  t.same(await readdir(join(inside, 'done')), [])
  t.same(await readdir(join(inside, 'in')), ['file'])
})

t.test('a file that comes under a name while the one before is put away is not lost', async (t) => {
  const { place, inside } = await places(t)
  const { link, rename } = fs
  // Another program is as fast as it can be: it is there after any step.
  const coming = { link: [] as string[], rename: [] as string[] }
  const come = async (step: keyof typeof coming, path: unknown) => {
    const text = path === join(inside, 'in/a.csv') ? coming[step].shift() : undefined
    if (text === undefined) return
    await writeFile(join(inside, '.new'), text)
    await rename(join(inside, '.new'), join(inside, 'in/a.csv'))
  }
  fs.link = async (from, to) => link(from, to).then(() => come('link', from))
  fs.rename = async (from, to) => rename(from, to).then(() => come('rename', from))
  syncBuiltinESMExports()
  t.teardown(() => {
    Object.assign(fs, { link, rename })
    syncBuiltinESMExports()
  })
  const texts = async (below: string) => {
    const names = (await readdir(join(inside, below))).sort()
    return Promise.all(names.map((name) => readFile(join(inside, below, name), 'utf8')))
  }
  await writeFile(join(inside, 'in/a.csv'), 'first')
  coming.link = ['second']
  t.equal(await place.move('in/a.csv', 'done/a.csv'), 'done/a.csv')
  t.same([await texts('in'), await texts('done')], [['second'], ['first']])
  t.equal(await place.move('in/a.csv', 'done/a.csv'), 'done/a-2.csv')
  t.same([await texts('in'), await texts('done')], [[], ['second', 'first']], 'a file has one name in the end')
  await writeFile(join(inside, 'in/a.csv'), 'third')
  Object.assign(coming, { link: ['fourth'], rename: ['fifth'] })
  await place.move('in/a.csv', 'late/a.csv')
  t.same(await texts('late'), ['third'])
  t.same(await texts('in'), ['fourth', 'fifth'], 'also where yet another one comes before it has its name back')
  await writeFile(join(inside, 'in/a.csv'), 'sixth')
  coming.rename = ['seventh']
  await place.move('in/a.csv', 'last/a.csv')
  t.same([await texts('last'), (await texts('in'))[1]], [['sixth'], 'seventh'])
})
