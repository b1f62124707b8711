import { mkdtempSync, readFileSync, rmSync, utimesSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import t, { type Test } from 'tap'
import { createLockFiles, type LockClaim, lockFileFaults, lockFileLabel } from '../../src/adapters/ssh/lock-file.ts'
import { createSsh } from '../../src/adapters/ssh/ssh.ts'
import { startHosts } from '../support/sshd.ts'

const { backup01 } = await startHosts(t, ['backup01'])
const folder = mkdtempSync(join(tmpdir(), 'syncline-locks-'))
t.teardown(() => rmSync(folder, { recursive: true, force: true }))
const locks = createLockFiles(createSsh({ folder, hostKeys: async () => [backup01.hostKey] }))
const { signal } = new AbortController()

// Each has a file of its own; most of the time is spent waiting for connections.
t.jobs = 4
const test = (title: string, body: (t: Test) => Promise<void>) => t.test(title, { buffered: true }, body)

const claim = (token: string, more: Partial<LockClaim> = {}): LockClaim => ({
  token,
  runId: `run-${token}`,
  job: 'documents',
  site: { uuid: '0b5c3a52-0000-4000-8000-000000000001', name: 'laptop01', host: 'laptop01.example.org', pid: 4711 },
  ttlSeconds: 60,
  ...more,
})

/** A name that a shell would make something of. */
const odd = (name: string) => `it's ${name}; $(id)`

for (const [title, place] of [
  ['on another host', (name: string) => ({ ...backup01.ssh, path: join(backup01.dir, odd(name)) })],
  ['here', (name: string) => ({ path: join(folder, odd(name)) })],
] as const) {
  const file = (name: string) => {
    const where = place(name)
    return {
      where,
      contents: () => readFileSync(where.path, 'utf8'),
      /** Makes it look as if nobody had touched it for so long. */
      age: (seconds: number) => {
        const time = new Date(Date.now() - seconds * 1000)
        if ('host' in where) backup01.run('touch', '-d', time.toISOString(), where.path)
        else utimesSync(where.path, time, time)
      },
    }
  }

  test(`a lock file ${title} is taken once, shown, renewed and released by its token alone`, async (t) => {
    const { where, contents } = file('once')
    t.same(await locks.look(where, signal), { free: true })
    t.same(await locks.take(where, claim('a'), signal), { taken: true })
    const [pid, body = ''] = contents().split('\n')
    t.equal(pid, '4711', 'the first line is the process, as RsyncDirector writes it')
    t.match(JSON.parse(body), {
      syncline: 1,
      name: 'laptop01',
      host: 'laptop01.example.org',
      run: 'run-a',
      job: 'documents',
    })
    t.notMatch(body, '"a"', 'the token itself is not shown')

    const reason =
      /is held by job documents of site laptop01 \(laptop01\.example\.org, process 4711, run run-a\) since .*; last sign of life \d+ s ago/
    t.match(await locks.look(where, signal), { free: false, reason })
    t.match(await locks.take(where, claim('b'), signal), { taken: false, reason })
    t.equal(await locks.renew(where, claim('b'), signal), false)
    await locks.release(where, claim('b'), signal)
    t.match(await locks.look(where, signal), { free: false }, 'another one cannot release it')

    t.same(await locks.take(where, claim('a'), signal), { taken: true }, 'taking again is taking once')
    t.equal(await locks.renew(where, claim('a'), signal), true)
    await locks.release(where, claim('a'), signal)
    t.same(await locks.look(where, signal), { free: true })
    t.equal(await locks.renew(where, claim('a'), signal), false)
    await locks.release(where, claim('a'), signal)
  })

  test(`of many who take a lock file ${title} at once, one has it`, async (t) => {
    const { where, age } = file('many')
    const tokens = Array.from({ length: 12 }, (_, index) => `many-${index}`)
    const all = await Promise.all(tokens.map((token) => locks.take(where, claim(token), signal)))
    t.equal(all.filter(({ taken }) => taken).length, 1)
    age(61)
    const over = await Promise.all(tokens.map((token) => locks.take(where, claim(`over-${token}`), signal)))
    t.equal(over.filter(({ taken }) => taken).length, 1, 'also of many who take over a stale one')
    await Promise.all(tokens.map((token) => locks.release(where, claim(`over-${token}`), signal)))
    t.same(await locks.look(where, signal), { free: true })
  })

  test(`a lock file ${title} becomes stale by the silence of its owner alone`, async (t) => {
    const { where, age } = file('stale')
    await locks.take(where, claim('silent'), signal)
    age(20)
    t.match(await locks.take(where, claim('next'), signal), { taken: false })
    age(61)
    t.same(await locks.look(where, signal), { free: true })
    t.equal(await locks.renew(where, claim('silent'), signal), true, 'the owner lives after all')
    t.match(await locks.take(where, claim('next'), signal), { taken: false })
    age(61)
    t.same(await locks.take(where, claim('next'), signal), { taken: true })
    t.equal(
      await locks.renew(where, claim('silent'), signal),
      false,
      'the owner that comes back learns that it lost it',
    )
    await locks.release(where, claim('silent'), signal)
    t.match(await locks.look(where, signal), { free: false, reason: /run run-next/ })
    await locks.release(where, claim('next'), signal)
  })

  test(`a lock file ${title} of RsyncDirector, or of anybody else, is never touched`, async (t) => {
    const { where, contents, age } = file('foreign')
    for (const text of ['12345', '', 'not a number\n{"syncline":1}', '1\n{"syncline":1,"token":"x","ttlSeconds":1}']) {
      if ('host' in where) backup01.run('sh', '-c', 'printf %s "$1" > "$2"', 'sh', text, where.path)
      else writeFileSync(where.path, text)
      age(10 * 86_400)
      t.match(await locks.look(where, signal), { free: false, reason: /is held by / })
      t.match(await locks.take(where, claim('a'), signal), { taken: false })
      await locks.release(where, claim('a'), signal)
      t.equal(contents(), text)
      if ('host' in where) backup01.run('rm', '-f', where.path)
      else rmSync(where.path)
    }
  })
}

test('RsyncDirector waits for the file; when it removes it as its own, the owner learns that it is lost', async (t) => {
  const where = { ...backup01.ssh, path: join(backup01.dir, 'director.lock') }
  await locks.take(where, claim('a'), signal)
  const before = readFileSync(where.path, 'utf8')
  // Its own commands, in the words it uses.
  t.equal(backup01.run('sh', '-c', `ls ${where.path}`).trim(), where.path)
  t.throws(() => backup01.run('sh', '-c', `echo 99 > ${where.path}`), /ermission denied/)
  t.equal(readFileSync(where.path, 'utf8'), before)
  // What it does at the end of a job, whether it got the lock or not.
  backup01.run('sh', '-c', `rm -f ${where.path}`)
  t.equal(await locks.renew(where, claim('a'), signal), false)
})

test('what cannot be found out is a failure, never free', async (t) => {
  const lost = { ...backup01.ssh, path: join(backup01.dir, 'no/such/folder/lock') }
  await t.rejects(locks.look(lost, signal), { code: 'SYNC_TRANSFER_FAILED', message: /no\/such\/folder/ })
  await t.rejects(locks.take(lost, claim('a'), signal), { code: 'SYNC_TRANSFER_FAILED' })
  await t.rejects(locks.look({ ...lost, port: 1 }, signal), { code: 'SYNC_TRANSFER_UNREACHABLE' })
  const closed = { ...backup01.ssh, path: join(backup01.dir, 'closed/lock') }
  backup01.run('mkdir', '-m', '555', join(backup01.dir, 'closed'))
  await t.rejects(locks.take(closed, claim('a'), signal), { code: 'SYNC_TRANSFER_FAILED' })
  backup01.run('mkdir', join(backup01.dir, 'folder.lock'))
  const folder = { ...backup01.ssh, path: join(backup01.dir, 'folder.lock') }
  t.match(await locks.take(folder, claim('a'), signal), { taken: false, reason: /it is no file/ })
  t.same(backup01.run('ls', '-A', folder.path), '', 'and nothing is put into it')
})

test('a lock file is named alike by all who mean it, and its faults are found', async (t) => {
  t.equal(lockFileLabel({ path: '/run/x.lock' }), '/run/x.lock')
  t.equal(
    lockFileLabel({ host: 'b', user: 'one', path: '/x' }),
    lockFileLabel({ host: 'b', user: 'two', port: 22, path: '/x' }),
  )
  t.same(lockFileFaults({ path: '/x', host: 'backup01' }), [])
  t.match(lockFileFaults({ path: 'x' }), [{ path: '/path' }])
  t.match(lockFileFaults({ path: '/x', user: 'root' }), [{ path: '/host' }])
  t.match(lockFileFaults({ path: '/x\n', host: '-oX' }), [{ path: '/path' }, { path: '/host' }])
})
