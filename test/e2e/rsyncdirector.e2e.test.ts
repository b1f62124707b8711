/**
 * Three hosts: a laptop copies to backup01, which copies all it has to backup-remote, and neither while the other one is at it. Both were set up
 * with RsyncDirector, and are taken over. Real sites, real rsync, real sshd.
 */
import { spawnSync } from 'node:child_process'
import { createHash, randomBytes } from 'node:crypto'
import { existsSync, mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import t from 'tap'
import { parse } from 'yaml'
import { asUser, plainEnvironment } from '../support/environment.ts'
import { startPostgres } from '../support/postgres.ts'
import { type SiteProcess, startSiteProcess } from '../support/site-process.ts'
import { processes, startHosts, type TestHost } from '../support/sshd.ts'

type Run = {
  readonly id: string
  readonly phase: string
  readonly reason: string | null
  readonly result: string | null
  readonly code: string | null
  readonly message: string | null
  readonly counts: Readonly<Record<string, number>>
  readonly progress: { readonly bytes?: number } | null
}

const cluster = await startPostgres(t)
const hosts = await startHosts(t, ['backup01', 'backup-remote'])
const { backup01, 'backup-remote': remote } = hosts
const folder = mkdtempSync(join(tmpdir(), 'syncline-laptop01-'))
t.teardown(() => rmSync(folder, { recursive: true, force: true }))
const documents = join(folder, 'documents')
mkdirSync(documents)

const sites: Record<'laptop01' | 'backup01', SiteProcess> = {
  laptop01: await site('laptop01'),
  backup01: await site('backup01'),
}
/** On backup01: held by whoever writes or reads what it has. */
const lock = join(backup01.dir, 'sync.lock')
const received = join(backup01.dir, 'documents')
const go = join(backup01.dir, 'go')
backup01.run('mkdir', received)

async function site(name: string): Promise<SiteProcess> {
  return startSiteProcess(t, { name, databaseUrl: (await cluster.createDatabase()).url })
}

/** The settings of a host, as RsyncDirector has them. */
const at = ({ ssh }: TestHost) => ({ user: ssh.user, host: ssh.host, port: ssh.port, private_key_path: ssh.key })

const LAPTOP = {
  rsync_id: 'laptop01',
  cron_schedule: '0 0 1 1 *',
  pid_file_dir: '/var/run/rsyncdirector',
  jobs: [
    {
      ...{ id: 'documents', type: 'remote', ...at(backup01) },
      blocks_on: [{ type: 'remote', ...at(backup01), path: join(backup01.dir, 'busy'), wait_time: 1 }],
      lock_files: [
        { type: 'local', path: join(folder, 'laptop.lock') },
        { type: 'remote', ...at(backup01), path: lock },
      ],
      actions: [
        { action: 'command', id: 'note', command: '/bin/sh', args: ['-c', `'date > "${documents}/when.txt"'`] },
        {
          ...{ action: 'sync', id: 'copy', source: `${documents}/`, dest: received },
          opts: ['-rt', "--exclude '*.tmp'"],
        },
      ],
    },
    {
      ...{ id: 'after', type: 'local' },
      actions: [
        { action: 'sync', id: 'copy', source: `${documents}/`, dest: join(folder, 'after'), opts: ['-a', '--delete'] },
      ],
    },
  ],
}
const BACKUP = {
  rsync_id: 'backup01',
  cron_schedule: '0 0 1 1 *',
  jobs: [
    {
      ...{ id: 'everything', type: 'remote', ...at(remote) },
      lock_files: [{ type: 'local', path: lock }],
      actions: [
        { action: 'sync', id: 'copy', source: `${received}/`, dest: remote.dir, opts: ['-rt'] },
        // Until the test has seen what it wants to see.
        {
          action: 'command',
          id: 'last',
          command: '/bin/sh',
          args: ['-c', `'until [ -e "${go}" ]; do sleep 0.1; done'`],
        },
      ],
    },
  ],
}

/** A command of a person on the machine of a site. */
function syncline(site: SiteProcess, ...argv: string[]) {
  const [program, args] = asUser(process.execPath, [join(import.meta.dirname, '../../src/cli/main.ts'), ...argv])
  const env = plainEnvironment({ SYNCLINE_DATA_DIR: site.dataDir })
  const { status, stdout, stderr } = spawnSync(program, args, { env, encoding: 'utf8' })
  return { exit: status, text: stdout, said: stderr }
}

/** Takes a configuration over as a person would, and gives it to the site. */
async function takeOver(name: 'laptop01' | 'backup01', config: unknown): Promise<string> {
  const [file, jobs] = [join(folder, `${name}.yaml`), join(folder, `${name}-jobs.yaml`)]
  writeFileSync(file, JSON.stringify(config))
  const { text } = syncline(sites[name], 'import-config', 'rsyncdirector', file, '--out', jobs)
  const taken = parse(readFileSync(jobs, 'utf8')) as { jobs: { leases: { every?: string }[] }[] }
  // Looked at more often than a person would want, so that the test does not take long.
  for (const { leases } of taken.jobs) for (const lease of leases) lease.every = '500ms'
  const applied = await sites[name].api<{ faults: unknown[] }>('POST', '/jobs/apply', taken)
  t.same(applied.faults, [])
  return text
}

async function runOf(site: SiteProcess, id: string): Promise<Run> {
  return site.api<Run>('GET', `/job-runs/${id}`)
}

async function until(site: SiteProcess, id: string, what: string, reached: (run: Run) => boolean): Promise<Run> {
  for (let tries = 0; ; tries++) {
    const run = await runOf(site, id)
    if (reached(run)) return run
    if (tries === 2400 || (run.phase === 'over' && tries > 0)) throw new Error(`${what}: ${JSON.stringify(run)}`)
    await sleep(50)
  }
}

const over = ({ phase }: Run) => phase === 'over'
const waitsFor =
  (pattern: RegExp) =>
  ({ reason }: Run) =>
    pattern.test(reason ?? '')

async function start(site: SiteProcess, job: string): Promise<string> {
  const { runId } = await site.api<{ runId: string }>('POST', `/jobs/${job}/runs`, {})
  return runId
}

function sum(path: string): string {
  return createHash('sha256').update(readFileSync(path)).digest('hex')
}

t.test('the set-ups are taken over, and the hosts are trusted by the fingerprints that they show', async (t) => {
  writeFileSync(join(folder, 'bad.yaml'), 'rsync_id: x\ncron_schedule: 0 2 * * *\njobs:\n  - id: j\n    type: cloud\n')
  const refused = syncline(
    sites.laptop01,
    'import-config',
    'rsyncdirector',
    join(folder, 'bad.yaml'),
    '--out',
    join(folder, 'bad'),
  )
  t.match(refused, { exit: 2, said: /bad\.yaml:5: \/jobs\/0\/type must be local or remote/ })
  t.notOk(existsSync(join(folder, 'bad')))
  t.match(await takeOver('laptop01', LAPTOP), /2 jobs are in .*Next: syncline job apply/)
  await takeOver('backup01', BACKUP)
  const untrusted = await until(
    sites.laptop01,
    await start(sites.laptop01, 'laptop01.documents'),
    'waits',
    waitsFor(/trusted yet/),
  )
  t.match(untrusted.reason, /nobody has trusted yet/, 'what cannot be looked at counts as blocked, and says why')
  await sites.laptop01.api('POST', '/jobs/laptop01.documents/stop', {})
  for (const [site, host] of [
    [sites.laptop01, backup01],
    [sites.backup01, remote],
  ] as const) {
    const about = ['transfer', 'trust', host.ssh.host, '--port', String(host.ssh.port), '--json']
    const shown = syncline(site, ...about)
    t.equal(shown.exit, 3, 'shown, and waits for a person')
    const { items } = JSON.parse(shown.text) as { items: { fingerprint: string; trusted: boolean }[] }
    t.match(items, [{ fingerprint: /^SHA256:/, trusted: false }])
    const other = syncline(site, ...about, '--fingerprint', `SHA256:${'x'.repeat(43)}`)
    t.match(other, { exit: 3, text: '', said: /SYNC_TRANSFER_UNTRUSTED/ })
    const trusted = syncline(site, ...about, '--fingerprint', items[0]?.fingerprint ?? '')
    t.match(JSON.parse(trusted.text), { items: [{ trusted: true }] })
    t.match(syncline(site, 'transfer', 'hosts').text, items[0]?.fingerprint)
  }
})

t.test('what is on the laptop goes to backup01, and its locks are gone afterwards', async (t) => {
  writeFileSync(join(documents, 'a.txt'), 'one')
  writeFileSync(join(documents, 'b.tmp'), 'no')
  const plan = await sites.laptop01.api<{
    leases: { free: boolean }[]
    steps: { plan: { files?: number; argv: string[][] } }[]
  }>('GET', '/jobs/laptop01.documents/plan')
  t.match(plan.leases, [{ free: true }, { free: true }, { free: true }])
  t.match(plan.steps[1]?.plan, { files: 1 })
  t.match(plan.steps[1]?.plan.argv[0]?.slice(-3), ['--', `${documents}/`, `${backup01.ssh.host}:${received}`])
  t.same(readdirSync(received), [], 'a plan writes nothing')
  const run = await until(sites.laptop01, await start(sites.laptop01, 'laptop01.documents'), 'ends', over)
  t.match(run, { result: 'success', counts: { files: 2 } })
  t.same(readdirSync(received).sort(), ['a.txt', 'when.txt'])
  const next = async () => (await sites.laptop01.api<{ items: Run[] }>('GET', '/job-runs?job=laptop01.after')).items[0]
  for (let tries = 0; (await next())?.result !== 'success'; tries++) {
    if (tries === 1200) throw new Error(`the job after it: ${JSON.stringify(await next())}`)
    await sleep(50)
  }
  t.same(readdirSync(join(folder, 'after')).sort(), ['a.txt', 'b.tmp', 'when.txt'], 'its end set off the next job')
  t.notOk(existsSync(lock) || existsSync(join(folder, 'laptop.lock')))
})

t.test('while backup01 copies to backup-remote the laptop waits, and says for whom', async (t) => {
  backup01.run('sh', '-c', `head -c 4000000 /dev/urandom > '${received}/large.bin'`)
  const everything = await start(sites.backup01, 'backup01.everything')
  await until(sites.backup01, everything, 'begins', ({ phase }) => phase === 'running')
  t.match(readFileSync(lock, 'utf8'), /^\d+\n\{"syncline":1,/)
  const mine = await start(sites.laptop01, 'laptop01.documents')
  const waiting = await until(sites.laptop01, mine, 'waits', waitsFor(/everything/))
  t.match(waiting.reason, /sync\.lock is held by job backup01\.everything of site backup01/)
  t.equal((await runOf(sites.backup01, everything)).phase, 'running')
  backup01.run('touch', go)
  t.match(await until(sites.backup01, everything, 'ends', over), { result: 'success' })
  t.equal(sum(join(remote.dir, 'large.bin')), sum(join(received, 'large.bin')))
  t.match(await until(sites.laptop01, mine, 'follows', over), { result: 'success' })
  t.notOk(existsSync(lock))
})

t.test('an RsyncDirector that has its lock there is waited for, and its file is not touched', async (t) => {
  for (const path of [lock, join(backup01.dir, 'busy')]) {
    backup01.run('sh', '-c', `echo 4711 > '${path}'`)
    const mine = await start(sites.laptop01, 'laptop01.documents')
    const waiting = await until(sites.laptop01, mine, 'waits', waitsFor(/4711/))
    t.match(waiting.reason, /is held by process 4711/)
    t.equal(readFileSync(path, 'utf8'), '4711\n')
    backup01.run('rm', path)
    t.match(await until(sites.laptop01, mine, 'follows', over), { result: 'success' })
  }
})

t.test(
  'a site that is killed in the middle of a transfer leaves no rsync behind, and goes on when it is back',
  async (t) => {
    writeFileSync(join(documents, 'half.bin'), randomBytes(10_000_000))
    const slow = structuredClone(LAPTOP)
    const [job] = slow.jobs as unknown as [{ actions: [unknown, { opts: string[] }] }, unknown]
    job.actions[1].opts.push('--bwlimit=2m')
    rmSync(join(folder, 'laptop01-jobs.yaml'))
    await takeOver('laptop01', slow)
    const id = await start(sites.laptop01, 'laptop01.documents')
    await until(sites.laptop01, id, 'moves', ({ progress }) => (progress?.bytes ?? 0) > 500_000)
    await sites.laptop01.kill()
    const left = () =>
      processes()
        .map(({ args }) => args)
        .filter((args) => args.startsWith('rsync') && args.includes(documents))
    for (let tries = 0; left().length > 0; tries++) {
      if (tries === 1200) throw new Error(`still there: ${left().join('\n')}`)
      await sleep(50)
    }
    t.notOk(existsSync(join(received, 'half.bin')), 'a file is whole or not there')
    t.ok(existsSync(lock), 'the lock stays until its owner is back, or is silent for too long')
    await sites.laptop01.start()
    t.match(await until(sites.laptop01, id, 'ends', over), { result: 'success' })
    t.equal(sum(join(received, 'half.bin')), sum(join(documents, 'half.bin')))
    t.notOk(existsSync(lock))
  },
)

t.test('a job that is stopped ends at once, and lets go of its locks', async (t) => {
  rmSync(join(documents, 'half.bin'))
  writeFileSync(join(documents, 'other.bin'), randomBytes(20_000_000))
  const id = await start(sites.laptop01, 'laptop01.documents')
  await until(sites.laptop01, id, 'moves', ({ progress }) => (progress?.bytes ?? 0) > 0)
  const begin = performance.now()
  await sites.laptop01.api('POST', '/jobs/laptop01.documents/stop', {})
  t.match(await until(sites.laptop01, id, 'stops', over), { result: 'stopped' })
  t.ok(performance.now() - begin < 25_000, 'not by the patience with a step that does not heed')
  t.notOk(existsSync(lock))
})
