import { type ChildProcess, spawn } from 'node:child_process'
import { once } from 'node:events'
import { mkdtempSync, readFileSync, rmSync } from 'node:fs'
import { chmod, mkdir, readdir, realpath, stat, symlink, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { createInterface } from 'node:readline'
import { setFlagsFromString } from 'node:v8'
import { runInNewContext } from 'node:vm'
import t from 'tap'
import { openDataDir, readAddress, readAdminToken } from '../../src/config/index.ts'

const base = mkdtempSync(join(tmpdir(), 'syncline-data-'))
const children = new Set<ChildProcess>()
t.teardown(() => {
  for (const child of children) child.kill('SIGKILL')
  rmSync(base, { recursive: true, force: true })
})

let count = 0
const freshFolder = () => join(base, `site-${++count}`)

type Starter = { child: ChildProcess; pid: number; said: string }

/** What a starter runs: it opens the folder, says what came of it, and holds it until a signal. */
const PROGRAM = `
  const { openDataDir } = await import(${JSON.stringify(new URL('../../src/config/index.ts', import.meta.url))})
  try {
    const dir = await openDataDir(process.argv[1])
    await dir.writeAddress('http://127.0.0.1:' + process.pid)
    process.on('SIGTERM', () => dir.release().then(() => process.exit(0)))
    setInterval(() => {}, 60_000)
    process.stdout.write('held ' + dir.key.toString('base64') + '\\n')
  } catch (error) {
    process.stdout.write('refused ' + error.code + ' ' + error.message + '\\n')
  }`

/** Starts a process of its own that opens the folder, and waits for what it says about that. */
async function start(folder: string): Promise<Starter> {
  const options = ['--input-type=module', '-e', PROGRAM, folder]
  const child = spawn(process.execPath, options, { stdio: ['ignore', 'pipe', 'inherit'] })
  children.add(child)
  const [said] = await once(createInterface({ input: child.stdout }), 'line')
  return { child, pid: child.pid ?? 0, said }
}

async function end(starter: Starter, signal: NodeJS.Signals): Promise<void> {
  const ended = once(starter.child, 'exit')
  starter.child.kill(signal)
  await ended
  children.delete(starter.child)
}

const mode = async (path: string) => (await stat(path)).mode & 0o777

t.test('the first start makes a private folder with a private key, the next ones find them', async (t) => {
  const folder = join(freshFolder(), 'deep', 'er')
  const first = await openDataDir(folder)
  t.equal(first.path, await realpath(folder))
  t.equal(first.key.length, 32)
  t.equal(await mode(folder), 0o700)
  for (const name of await readdir(folder)) t.equal(await mode(join(folder, name)), 0o600, name)
  t.same((await readdir(folder)).sort(), ['holder', 'lock', 'site.key'])
  t.equal(readFileSync(join(folder, 'site.key'), 'utf8'), `${first.key.toString('base64')}\n`)
  await first.release()
  await chmod(join(folder, 'site.key'), 0o644)
  const second = await openDataDir(folder)
  t.same(second.key, first.key)
  t.equal(await mode(join(folder, 'site.key')), 0o600, 'a key that a copy left open is closed again')
  await second.release()
  const other = await openDataDir(freshFolder())
  t.notSame(other.key, first.key)
  await other.release()
})

t.test('a second process is refused and told who holds the folder', async (t) => {
  const folder = freshFolder()
  const holder = await start(folder)
  t.match(holder.said, /^held /)
  const second = await start(folder)
  t.equal(
    second.said.split(' on ')[0],
    `refused SYNC_CONFIG_DATA_DIR_LOCKED The data folder ${await realpath(folder)} is used by process ${holder.pid}`,
  )
  const link = freshFolder()
  await symlink(folder, link)
  await t.rejects(openDataDir(link), { code: 'SYNC_CONFIG_DATA_DIR_LOCKED' }, 'also by another path')
  t.equal(await readAddress(folder), `http://127.0.0.1:${holder.pid}`, 'which leaves the files of the holder alone')
  await end(holder, 'SIGTERM')
  t.same((await readdir(folder)).sort(), ['lock', 'site.key'])
  const third = await start(folder)
  t.equal(third.said, holder.said, 'and once it is released the next has it, with the same key')
  await end(third, 'SIGTERM')
})

t.test('a killed process leaves nothing that keeps the next one out', async (t) => {
  const folder = freshFolder()
  const killed = await start(folder)
  await end(killed, 'SIGKILL')
  t.same((await readdir(folder)).sort(), ['address', 'holder', 'lock', 'site.key'])
  const dir = await openDataDir(folder)
  t.equal(await dir.readAddress(), undefined, 'the address of the dead server is gone')
  t.match(readFileSync(join(folder, 'holder'), 'utf8'), new RegExp(`^${process.pid} `))
  await dir.release()
})

t.test('of many starters at once exactly one gets a folder that a killed process held', async (t) => {
  const folder = freshFolder()
  let holder = await start(folder)
  for (let round = 1; round <= 5; round++) {
    await end(holder, 'SIGKILL')
    const starters = await Promise.all(Array.from({ length: 5 }, () => start(folder)))
    const [winner, ...others] = starters.filter(({ said }) => said.startsWith('held '))
    if (winner === undefined) return t.fail(`nobody got the folder in round ${round}`)
    t.same(others, [], `round ${round}`)
    for (const { said } of starters.filter((starter) => starter !== winner)) {
      t.match(said, new RegExp(`^refused SYNC_CONFIG_DATA_DIR_LOCKED .* process ${winner.pid} on `))
    }
    holder = winner
  }
  await end(holder, 'SIGKILL')
})

t.test('of many opens at once in one process one gets the folder, and it keeps other processes out', async (t) => {
  const folder = freshFolder()
  const opens = await Promise.allSettled(Array.from({ length: 8 }, () => openDataDir(folder)))
  const [dir, ...more] = opens.flatMap((open) => (open.status === 'fulfilled' ? [open.value] : []))
  t.same(more, [])
  await t.rejects(openDataDir(folder), { code: 'SYNC_CONFIG_DATA_DIR_LOCKED' })
  const other = await start(folder)
  t.match(other.said, new RegExp(`^refused .* process ${process.pid} on `))
  await Promise.all([dir?.release(), dir?.release()])
  const next = await start(folder)
  t.match(next.said, /^held /)
  await dir?.release()
  await t.rejects(
    openDataDir(folder),
    { code: 'SYNC_CONFIG_DATA_DIR_LOCKED' },
    'a late second release lets go of nothing',
  )
  await end(next, 'SIGKILL')
})

t.test('a folder stays held when nothing refers to it any more', async (t) => {
  const folder = freshFolder()
  await openDataDir(folder)
  setFlagsFromString('--expose-gc')
  const collectGarbage = runInNewContext('gc') as () => void
  for (let round = 1; round <= 3; round++) {
    collectGarbage()
    await new Promise((resolve) => setTimeout(resolve, 10))
  }
  t.match((await start(folder)).said, /^refused /)
})

t.test('a process id of another program in the file of a dead holder does not count', async (t) => {
  const folder = freshFolder()
  await (await openDataDir(folder)).release()
  await writeFile(join(folder, 'holder'), `1 somewhere\n`)
  const dir = await openDataDir(folder)
  t.ok(dir.key)
  await dir.release()
})

t.test('token and address are found by the command line in the same folder', async (t) => {
  const folder = freshFolder()
  t.equal(await readAdminToken(folder), undefined, 'before there is a folder')
  const dir = await openDataDir(folder)
  t.equal(await dir.readAdminToken(), undefined)
  await dir.writeAdminToken('first')
  await dir.writeAdminToken('second')
  await dir.writeAddress('https://127.0.0.1:8420')
  t.equal(await dir.readAdminToken(), 'second')
  t.equal(await readAdminToken(folder), 'second')
  t.equal(await readAddress(folder), 'https://127.0.0.1:8420')
  t.equal(await mode(join(folder, 'admin.token')), 0o600)
  await dir.release()
  t.equal(await readAddress(folder), undefined, 'nobody listens any more')
  t.equal(await readAdminToken(folder), 'second', 'but the token stays good')
})

t.test('a shared key comes from its file, which is never made by itself', async (t) => {
  const keyFile = `${freshFolder()}.key`
  const folder = freshFolder()
  await t.rejects(openDataDir(folder, { keyFile }), {
    code: 'SYNC_CONFIG_INVALID',
    message: `keyFile: there is no file ${keyFile}`,
  })
  await writeFile(keyFile, `${Buffer.alloc(32, 7).toString('base64')}\n`)
  const dir = await openDataDir(folder, { keyFile })
  t.same(dir.key, Buffer.alloc(32, 7), 'and the refusal did not keep the lock')
  t.notOk((await readdir(folder)).includes('site.key'))
  await dir.release()
})

t.test('a damaged key stops the start instead of being replaced', async (t) => {
  const folder = freshFolder()
  await mkdir(folder)
  for (const text of [
    '',
    'short',
    `${Buffer.alloc(31).toString('base64')}\n`,
    `${Buffer.alloc(33).toString('base64')}\n`,
  ]) {
    await writeFile(join(folder, 'site.key'), text)
    await t.rejects(openDataDir(folder), { code: 'SYNC_CONFIG_INVALID', message: /site\.key is not a key/ })
    t.equal(readFileSync(join(folder, 'site.key'), 'utf8'), text)
  }
})

t.test('a folder that cannot be made or locked is named', async (t) => {
  const file = freshFolder()
  await writeFile(file, '')
  await t.rejects(openDataDir(join(file, 'below')), { code: 'SYNC_CONFIG_INVALID', message: /below cannot be made: / })
  const folder = freshFolder()
  await mkdir(join(folder, 'lock'), { recursive: true })
  await t.rejects(openDataDir(folder), { code: 'SYNC_CONFIG_INVALID', message: / cannot be locked: / })
})
