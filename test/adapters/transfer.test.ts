import { execFileSync, spawn } from 'node:child_process'
import { randomBytes } from 'node:crypto'
import { mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, statSync, utimesSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import t, { type Test } from 'tap'
import { buildArgv } from '../../src/adapters/rsync/argv.ts'
import { planTransfer, runTransfer, type Transfer, type TransferProgress } from '../../src/adapters/rsync/index.ts'
import { legsOf } from '../../src/adapters/rsync/transfer-settings.ts'
import { createSsh } from '../../src/adapters/ssh/ssh.ts'
import { SynclineError } from '../../src/sync/index.ts'
import { processes, startHosts } from '../support/sshd.ts'

const hosts = await startHosts(t, ['backup01', 'gate', 'shaky'])
const { backup01, gate, shaky } = hosts
const folder = mkdtempSync(join(tmpdir(), 'syncline-transfer-'))
t.teardown(() => rmSync(folder, { recursive: true, force: true }))
const ssh = createSsh({
  folder: join(folder, 'ssh'),
  hostKeys: async () => Object.values(hosts).map(({ hostKey }) => hostKey),
})
const deps = { ssh, now: () => Date.now() }
const { signal } = new AbortController()

// Most of the time is spent waiting for connections.
t.jobs = 4
const test = (title: string, body: (t: Test) => Promise<void>) => t.test(title, { buffered: true }, body)

/** A folder with the files given, and an empty one beside it. */
function places(t: Test, files: Readonly<Record<string, string>>): { readonly from: string; readonly to: string } {
  const dir = mkdtempSync(join(folder, 'place-'))
  t.teardown(() => rmSync(dir, { recursive: true, force: true }))
  const [from, to] = [join(dir, 'from'), join(dir, 'to')]
  mkdirSync(from)
  for (const [name, content] of Object.entries(files)) {
    mkdirSync(join(from, name, '..'), { recursive: true })
    writeFileSync(join(from, name), content)
  }
  return { from, to }
}

/** A folder of its own on the host. */
function on(host: typeof backup01, name: string): string {
  const path = join(host.dir, name)
  host.run('mkdir', '-p', path)
  return path
}

function tree(path: string): readonly string[] {
  return readdirSync(path, { recursive: true, encoding: 'utf8' }).sort()
}

async function fails(t: Test, work: Promise<unknown>, code: string, message: RegExp): Promise<void> {
  await t.rejects(work, { name: 'SynclineError', code, message })
}

const run = (transfer: Transfer) => runTransfer(deps, transfer, { signal })

test('a folder is copied here, and the second time there is nothing to do', async (t) => {
  const { from, to } = places(t, { 'a.txt': 'one', 'sub/b.txt': 'two', "odd name; $(touch x) 'q'.txt": 'three' })
  const { counts } = await run({ from: `${from}/`, to })
  t.match(counts, { files: 3, bytes: 11, found: 3, deleted: 0 })
  t.same(tree(to), ['a.txt', "odd name; $(touch x) 'q'.txt", 'sub', 'sub/b.txt'])
  t.match((await run({ from: `${from}/`, to })).counts, { files: 0, bytes: 0, found: 3 })
})

test('a folder goes to a host and comes back, and its paths are nobody’s commands', async (t) => {
  const { from, to } = places(t, { 'a.txt': 'one', 'sub/b c.txt': 'two' })
  const there = on(backup01, "to; touch 'pwned' $(id)")
  const place = { ...backup01.ssh, path: there }
  t.match((await run({ from: `${from}/`, to: place })).counts, { files: 2 })
  t.same(tree(there), ['a.txt', 'sub', 'sub/b c.txt'])
  t.match((await run({ from: { ...place, path: `${there}/` }, to })).counts, { files: 2, bytes: 6 })
  t.same(tree(to), ['a.txt', 'sub', 'sub/b c.txt'])
  t.same(
    readdirSync(backup01.dir).filter((name) => name.includes('pwned') && !name.includes('touch')),
    [],
  )
})

test('a path of any characters is that path, also for an rsync that does not escape them by itself', async (t) => {
  const { from } = places(t, { 'a.txt': 'one' })
  for (const version of [undefined, [3, 1, 3]] as const) {
    const name = `${version === undefined ? 'new' : 'old'} ~ a\\b*?[x]{a,b}'"$HOME;ü`
    const transfer: Transfer = { from: `${from}/`, to: { ...backup01.ssh, path: `${backup01.dir}/${name}` } }
    const [leg] = legsOf(transfer)
    if (version === undefined || leg === undefined) await run(transfer)
    else {
      const { config: sshConfig } = await ssh.route(backup01.ssh)
      const [program, ...args] = buildArgv(transfer, leg, { version, sshConfig })
      execFileSync(program, args)
    }
    t.equal(readFileSync(join(backup01.dir, name, 'a.txt'), 'utf8'), 'one')
  }
})

test('many sources go to many destinations', async (t) => {
  const one = places(t, { 'a.txt': '1' })
  const two = places(t, { 'b.txt': '2' })
  const there = on(backup01, 'many')
  const { counts } = await run({
    from: [`${one.from}/`, `${two.from}/`],
    to: [one.to, { ...backup01.ssh, path: there }],
  })
  t.match(counts, { files: 4, found: 4 })
  t.same(tree(one.to), ['a.txt', 'b.txt'])
  t.same(tree(there), ['a.txt', 'b.txt'])
})

test('a plan is the exact command line with what it would do, and writes nothing', async (t) => {
  const { from } = places(t, { 'a.txt': 'one', 'skip.tmp': 'x' })
  const there = on(backup01, 'planned')
  backup01.run('sh', '-c', `echo old > '${there}/old.txt'`)
  const transfer: Transfer = {
    from: `${from}/`,
    to: { ...backup01.ssh, path: there },
    preset: 'mirror',
    rules: [{ exclude: '*.tmp' }],
  }
  const [leg, ...more] = await planTransfer(deps, transfer, { signal })
  t.same(more, [])
  t.match(leg, { files: 1, bytes: 3, deleted: 1, names: ['+ a.txt', '- old.txt'] })
  t.same(tree(there), ['old.txt'])
  const config = leg?.argv.find((word) => word.startsWith('--rsh='))?.slice('--rsh=ssh -F '.length) ?? ''
  t.match(readFileSync(config, 'utf8'), /StrictHostKeyChecking yes/)
  t.notMatch(readFileSync(config, 'utf8'), /StrictHostKeyChecking (?:no|accept)/)
  const [program = '', ...args] = leg?.argv ?? []
  t.same(args.slice(args.indexOf('--')), ['--', `${from}/`, `${backup01.ssh.host}:${there}`])
  execFileSync(program, args)
  t.same(tree(there), ['a.txt'], 'what the plan shows can be run by hand')
})

test('rules decide what is copied and what is protected', async (t) => {
  const { from, to } = places(t, { 'keep.log': '1', 'drop.log': '2', 'a.txt': '3' })
  mkdirSync(to)
  for (const name of ['local.conf', 'gone.txt']) writeFileSync(join(to, name), 'here')
  const rules = [{ include: 'keep.log' }, { exclude: '*.log' }, { protect: '*.conf' }]
  t.match((await run({ from: `${from}/`, to, preset: 'mirror', rules })).counts, { deleted: 1 })
  t.same(tree(to), ['a.txt', 'keep.log', 'local.conf'])
})

test('permission presets make files fit for a group, for everybody, for nobody else', async (t) => {
  const { from, to } = places(t, { 'a.txt': '1', 'dir/run.sh': '2' })
  execFileSync('chmod', ['755', join(from, 'dir/run.sh')])
  const mode = (name: string) => (statSync(join(to, name)).mode & 0o7777).toString(8)
  const modes = async (permissions: NonNullable<Transfer['permissions']>) => {
    await run({ from: `${from}/`, to, permissions })
    return [mode('dir'), mode('a.txt'), mode('dir/run.sh')]
  }
  t.same(await modes('group'), ['2770', '660', '770'])
  t.same(await modes('group-read'), ['2750', '640', '750'])
  t.same(
    await modes('private'),
    ['2700', '600', '700'].map((each) => each.replace(/^2/, '')),
  )
  t.same(await modes('public'), ['755', '644', '755'])
})

test('a mirror stops at its limit of deletions, and before an empty source', async (t) => {
  const { from, to } = places(t, { 'a.txt': '1' })
  mkdirSync(to)
  for (let index = 0; index < 5; index++) writeFileSync(join(to, `old${index}`), '')
  const mirror: Transfer = { from: `${from}/`, to, preset: 'mirror' }
  await fails(t, run({ ...mirror, maxDelete: 2 }), 'SYNC_TRANSFER_BRAKED', /more would have been deleted/)
  t.equal(tree(to).length, 4)
  rmSync(join(from, 'a.txt'))
  await fails(t, run(mirror), 'SYNC_TRANSFER_BRAKED', /is empty/)
  t.equal(tree(to).length, 4)
  const there = on(backup01, 'empty')
  for (const path of [`${there}/`, there])
    await fails(t, run({ ...mirror, from: { ...backup01.ssh, path } }), 'SYNC_TRANSFER_BRAKED', /is empty/)
  t.match((await run({ ...mirror, emptySource: 'allow' })).counts, { deleted: 4 })
})

test('a host is believed only with the key that was trusted, and says who does not let one in', async (t) => {
  const { from } = places(t, { 'a.txt': '1' })
  const to = { ...backup01.ssh, path: on(backup01, 'trust') }
  const nobody = createSsh({ folder: join(folder, 'ssh'), hostKeys: async () => [] })
  await fails(
    t,
    runTransfer({ ...deps, ssh: nobody }, { from, to }, { signal }),
    'SYNC_TRANSFER_UNTRUSTED',
    /nobody has trusted/,
  )
  const wrong = createSsh({
    folder: join(folder, 'ssh'),
    hostKeys: async () => [{ ...backup01.hostKey, key: gate.hostKey.key }],
  })
  await fails(
    t,
    runTransfer({ ...deps, ssh: wrong }, { from, to }, { signal }),
    'SYNC_TRANSFER_UNTRUSTED',
    /another host key/,
  )
  await fails(t, run({ from, to: { ...to, key: gate.ssh.key } }), 'SYNC_TRANSFER_DENIED', /does not let this site in/)
  await fails(t, run({ from, to: { ...to, port: 1 } }), 'SYNC_TRANSFER_UNREACHABLE', /cannot be reached/)
  t.same(tree(to.path), [])
})

test('the keys of a host are shown before anybody trusts it, also over a jump host', async (t) => {
  t.match(await ssh.scan(backup01.ssh), [{ type: 'ssh-ed25519', key: backup01.hostKey.key }])
  t.same(await ssh.scan({ ...backup01.ssh, jump: gate.ssh }), [backup01.hostKey])
  await fails(t, ssh.scan({ host: '127.0.0.1', port: 1 }), 'SYNC_TRANSFER_UNREACHABLE', /shows no host key/)
})

test('a transfer goes over a jump host', async (t) => {
  const { from } = places(t, { 'a.txt': '1' })
  const there = on(backup01, 'jumped')
  const keyOfGate = gate.addKey(`restrict,port-forwarding,permitopen="${backup01.ssh.host}:${backup01.ssh.port}"`)
  const jump = { ...gate.ssh, key: keyOfGate }
  t.match((await run({ from: `${from}/`, to: { ...backup01.ssh, jump, path: there } })).counts, { files: 1 })
  t.same(tree(there), ['a.txt'])
})

test('a host that is restricted to a folder lets in and out what it should, and nothing else', async (t) => {
  const { from, to } = places(t, { 'a b.txt': 'one', 'sub/c.txt': 'two' })
  const box = on(backup01, 'box')
  on(backup01, 'box/inner')
  const both = { ...backup01.ssh, key: backup01.addKey(`restrict,command="/usr/bin/rrsync ${box}"`) }
  const reader = { ...backup01.ssh, key: backup01.addKey(`restrict,command="/usr/bin/rrsync -ro ${box}"`) }
  t.match(
    (await run({ from: `${from}/`, to: { ...both, path: '/inner' }, preset: 'mirror', verify: 'checksum' })).counts,
    { files: 2, verified: 2 },
  )
  t.same(tree(join(box, 'inner')), ['a b.txt', 'sub', 'sub/c.txt'])
  t.match((await run({ from: { ...reader, path: '/inner/' }, to })).counts, { files: 2 })
  await fails(t, run({ from: `${from}/`, to: { ...reader, path: '/inner' } }), 'SYNC_TRANSFER_DENIED', /read-only/)
  await fails(t, run({ from: { ...both, path: '/../planned/' }, to }), 'SYNC_TRANSFER_DENIED', /\.\./)
  await t.rejects(ssh.script(both, 'echo out > escaped\n'), { name: 'SynclineError' }, 'no command but rsync is run')
  t.notOk(tree(backup01.dir).includes('escaped'))
})

test('I12: a copy is checked against the sha256 made at the source, and a damaged file is found and copied again', async (t) => {
  const { from, to } = places(t, { 'a.txt': 'one', 'sub/b.txt': 'two', '-n': 'dash' })
  const there = on(backup01, 'sums')
  const transfer: Transfer = { from: `${from}/`, to: { ...backup01.ssh, path: there }, verify: 'sha256' }
  const first = await run(transfer)
  t.match(first.counts, { files: 3, verified: 3 })
  t.match(first.manifests, [/^[0-9a-f]{64}$/])
  // Of the same size and time, so that rsync by itself would pass it over.
  const { mtime } = statSync(join(there, 'a.txt'))
  backup01.run('sh', '-c', `printf ONE > '${there}/a.txt'`)
  backup01.run('touch', '-d', mtime.toISOString(), join(there, 'a.txt'))
  const lines: string[] = []
  const again = await runTransfer(deps, transfer, { signal, say: (line) => lines.push(line) })
  t.match(lines, [/1 files are not at the destination as they are at the source \(a\.txt\): copying again/])
  t.match(again.counts, { files: 1, verified: 3 })
  t.same(again.manifests, first.manifests)
  t.equal(readFileSync(join(there, 'a.txt'), 'utf8'), 'one')

  t.match((await run({ from: { ...backup01.ssh, path: `${there}/` }, to, verify: 'sha256' })).counts, { verified: 3 })
  t.match((await run({ from: join(from, 'a.txt'), to: join(to, 'renamed.txt'), verify: 'sha256' })).counts, {
    verified: 1,
  })
})

test('I12: what rsync passes over by size and time is found by its content', async (t) => {
  const { from, to } = places(t, { 'a.txt': 'one' })
  const transfer: Transfer = { from: `${from}/`, to, verify: 'checksum' }
  await run(transfer)
  const { atime, mtime } = statSync(join(to, 'a.txt'))
  writeFileSync(join(to, 'a.txt'), 'ONE')
  utimesSync(join(to, 'a.txt'), atime, mtime)
  t.match((await run({ ...transfer, verify: 'again' })).counts, { files: 0, verified: 1 }, 'not by another look')
  t.match((await run(transfer)).counts, { files: 1 })
  t.equal(readFileSync(join(to, 'a.txt'), 'utf8'), 'one')
})

test('a source that is written to all the time is told, and not called complete', async (t) => {
  const { from, to } = places(t, { 'log.txt': 'x' })
  // A process of its own: it goes on whatever this one is busy with.
  const writer = spawn('/bin/sh', ['-c', 'while echo x >> "$1"; do sleep 0.002; done', 'sh', join(from, 'log.txt')])
  const ended = new Promise((resolve) => writer.once('exit', resolve))
  try {
    for (const verify of ['again', 'sha256'] as const)
      await fails(
        t,
        run({ from: `${from}/`, to, verify }),
        'SYNC_TRANSFER_INCOMPLETE',
        /changed at the source.*log\.txt/,
      )
  } finally {
    writer.kill()
    await ended
  }
  t.match((await run({ from: `${from}/`, to, verify: 'sha256' })).counts, { verified: 1 })
})

test('a transfer that is stopped keeps what it has, ends its whole process group, and goes on from there', async (t) => {
  const { from } = places(t, {})
  writeFileSync(join(from, 'large.bin'), randomBytes(16 * 1024 * 1024))
  for (const there of [join(from, '../there'), on(backup01, 'large')]) {
    const to = there.startsWith(backup01.dir) ? { ...backup01.ssh, path: there } : there
    const stopper = new AbortController()
    const seen: TransferProgress[] = []
    const slow = runTransfer(
      deps,
      { from: `${from}/`, to, bandwidth: { limit: '2M' }, options: ['--no-whole-file'] },
      {
        signal: stopper.signal,
        progress: (progress) => {
          seen.push(progress)
          if ((progress.bytes ?? 0) > 3 * 1024 * 1024) stopper.abort(new Error('stopped by hand'))
        },
      },
    )
    await fails(t, slow, 'SYNC_TRANSFER_STOPPED', /what was copied so far stays/)
    t.ok((seen.at(-1)?.rate ?? 0) > 0)
    t.same(await noneLeft(there), [], 'nothing of it is left')
    const { counts } = await run({ from: `${from}/`, to, options: ['--no-whole-file'] })
    t.equal(counts.files, 1)
    t.ok(counts.sent < 14 * 1024 * 1024, `${counts.sent} bytes were sent the second time`)
    t.same(tree(there), ['large.bin'])
  }
})

test('a connection that is lost under way is told as such, and the next try goes on from there', async (t) => {
  const { from } = places(t, {})
  writeFileSync(join(from, 'large.bin'), randomBytes(6 * 1024 * 1024))
  const transfer: Transfer = {
    from: `${from}/`,
    to: { ...shaky.ssh, path: on(shaky, 'large') },
    options: ['--no-whole-file'],
  }
  let stopping: Promise<void> | undefined
  const progress = ({ bytes }: TransferProgress) => {
    if ((bytes ?? 0) > 1024 * 1024) stopping ??= shaky.stop()
  }
  const slow = runTransfer(deps, { ...transfer, bandwidth: { limit: '1M' } }, { signal, progress })
  await fails(t, slow, 'SYNC_TRANSFER_INTERRUPTED', /broke|failed/)
  await stopping
  await fails(t, run(transfer), 'SYNC_TRANSFER_UNREACHABLE', /cannot be reached/)
  await noneLeft(on(shaky, 'large'))
  await shaky.start()
  const { counts } = await run(transfer)
  t.equal(counts.files, 1)
  t.ok(counts.sent < 5.5 * 1024 * 1024, `${counts.sent} bytes were sent the second time`)
})

test('the hours of the bandwidth change under way', async (t) => {
  const { from, to } = places(t, {})
  writeFileSync(join(from, 'large.bin'), Buffer.alloc(32 * 1024 * 1024, 'x'))
  const midnight = Date.UTC(2026, 0, 5)
  const began = Date.now()
  // Four seconds before eight, when the limit ends.
  const now = () => midnight + 8 * 3_600_000 - 4_000 + (Date.now() - began)
  const lines: string[] = []
  const bandwidth = { timeZone: 'UTC', hours: [{ from: '00:00', to: '08:00', limit: '512K' }] }
  const { counts } = await runTransfer(
    { ssh, now },
    { from: `${from}/`, to, bandwidth },
    { signal, say: (line) => lines.push(line) },
  )
  t.match(lines, [/going on with another limit/])
  t.equal(counts.files, 1)
  t.ok(Date.now() - began < 45_000, 'at 512 KiB in a second it would have taken 64 seconds')
})

test('files that vanish are a warning; files that cannot be read are a failure', async (t) => {
  const { from, to } = places(t, { 'a.txt': '1' })
  await fails(t, run({ from: join(from, 'nothing'), to }), 'SYNC_TRANSFER_FAILED', /could not be copied: .*nothing/)
  await fails(t, run({ from: `${from}/`, to: join(to, 'not/there/yet') }), 'SYNC_TRANSFER_FAILED', /./)
  const there = on(backup01, 'closed')
  backup01.run('chmod', '000', there)
  await fails(
    t,
    run({ from: `${from}/`, to: { ...backup01.ssh, path: `${there}/deep/` } }),
    'SYNC_TRANSFER_FAILED',
    /Permission denied/,
  )
  backup01.run('chmod', '755', there)
})

test('a definition with faults starts nothing', async (t) => {
  const error = await run({
    from: 'relative',
    to: { host: '-oProxyCommand=x', path: '/x' },
    options: ['-e', 'sh'],
  }).catch((error: unknown) => error)
  t.ok(error instanceof SynclineError && error.code === 'SYNC_TRANSFER_INVALID')
  t.match(
    String(error),
    /\/from must be an absolute path[\s\S]*\/to\/host is not a host name[\s\S]*--rsh is not allowed/,
  )
})

/** The other host hears of an end when the connection ends, and then puts aside what it has. Gives what is still there after a minute. */
async function noneLeft(text: string): Promise<readonly string[]> {
  for (let tries = 0; tries < 600 && processesOf(text).length > 0; tries++) await sleep(100)
  return processesOf(text)
}

function processesOf(text: string): readonly string[] {
  return processes()
    .map(({ args }) => args)
    .filter((args) => args.startsWith('rsync') && args.includes(text))
}
