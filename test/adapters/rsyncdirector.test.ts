import t from 'tap'
import { parse } from 'yaml'
import { takeCron } from '../../src/adapters/legacy/director-cron.ts'
import { takeOverRsyncDirector } from '../../src/adapters/legacy/rsyncdirector.ts'
import { shellWords } from '../../src/adapters/legacy/shell-words.ts'
import { type Transfer, transferFaults } from '../../src/adapters/rsync/transfer-settings.ts'
import { lockFileFaults } from '../../src/adapters/ssh/lock-file.ts'

/** The settings of the example that RsyncDirector ships, without its remarks. */
const EXAMPLE = `
rsync_id: "my_rsyncdirector_instance"
cron_schedule: "* * * * *"
pid_file_dir: /var/run/rsyncdirector
metrics: { addr: 0.0.0.0, port: 9090, startup_timeout_seconds: 10, startup_retry_wait_seconds: 2, startup_retry_limit: 3 }
jobs:
  - id: local_rsync
    type: local
    actions:
      - { action: sync, id: sync-of-source-path, source: /source/path, dest: /path/on/local/host,
          opts: ["-av", "--delete", "--exclude '.cache'", "--exclude 'Downloads'"] }
  - id: local_desktop_to_backup_a
    type: remote
    user: root
    host: backup_a.example.com
    port: 22000
    private_ssh_key: /var/tmp/some-private-ssh-key
    lock_files:
      - { type: local, path: /var/run/rsyncdirector/local_desktop_to_backup_a }
      - { type: remote, host: backup_a.example.com, user: root, port: 22000,
          private_ssh_key: /var/tmp/some-private-ssh-key, path: /var/run/rsyncdirector/local_desktop_to_backup_a }
    blocks_on:
      - { type: remote, user: root, host: backup_a.example.com, port: 22000,
          private_ssh_key: /var/tmp/some-private-ssh-key, path: /var/run/some-block-file, wait_time: 300, timeout: 3600 }
      - { type: local, path: /lockfile/on/localhost, wait_time: 300 }
    actions:
      - { action: sync, id: sync-of-source-path, source: /source/path, dest: /path/on/remote/host,
          opts: ["-av", "--delete", "--exclude '.cache'", "--exclude 'Downloads'"] }
      - { action: command, id: command.sh, command: /path/to/some/command.sh,
          args: ["--arg1", "arg1_val", "--arg2", "arg2_val"] }
      - { action: sync, id: sync-some-other-path, source: /source/some/other/path, dest: /some/other/path/on/remote/host,
          opts: ["-avi", "--delete"] }
`

const taken = (text: string) => takeOverRsyncDirector(parse(text), 'Europe/Vienna')

/** One job with one action, from the parts that matter. */
function one(opts: readonly string[], more: object = {}) {
  const action = { action: 'sync', id: 'copy', source: '/a/', dest: '/b', opts, ...more }
  const { jobs, differences, faults } = takeOverRsyncDirector(
    { rsync_id: 'x', cron_schedule: '0 2 * * *', jobs: [{ id: 'j', type: 'local', actions: [action] }] },
    'UTC',
  )
  const [step] = (jobs[0] as { steps?: { transfer: Transfer }[] } | undefined)?.steps ?? []
  const text = (notes: readonly { path: string; message: string }[]) =>
    notes.map(({ path, message }) => `${path} ${message}`).join('\n')
  return { transfer: step?.transfer, job: jobs[0], told: text(differences), faults: text(faults) }
}

t.test('the example of RsyncDirector is taken over whole, and every difference is told', async (t) => {
  const { jobs, differences, faults } = taken(EXAMPLE)
  t.same(faults, [])
  const key = '/var/tmp/some-private-ssh-key'
  const backup = { host: 'backup_a.example.com', user: 'root', port: 22000, key }
  const mirrored = {
    options: ['--archive', '--delete'],
    rules: [{ exclude: '.cache' }, { exclude: 'Downloads' }],
    maxDelete: 'unlimited',
    emptySource: 'allow',
  }
  const lock = '/var/run/rsyncdirector/local_desktop_to_backup_a'
  t.same(jobs, [
    {
      name: 'my_rsyncdirector_instance.local_rsync',
      schedule: [{ cron: '* * * * *', timeZone: 'Europe/Vienna' }, { signal: true }],
      missed: 'skip',
      overlap: 'coalesce',
      leases: [{ lease: 'rsyncdirector/my_rsyncdirector_instance' }],
      steps: [
        { name: 'sync-of-source-path', transfer: { from: '/source/path', to: '/path/on/local/host', ...mirrored } },
      ],
    },
    {
      name: 'my_rsyncdirector_instance.local_desktop_to_backup_a',
      schedule: [{ event: 'job my_rsyncdirector_instance.local_rsync' }],
      missed: 'skip',
      overlap: 'coalesce',
      gates: [
        { file: { ...backup, path: '/var/run/some-block-file' }, every: 300, timeLimit: 3600, onTimeout: 'skip' },
        { file: { path: '/lockfile/on/localhost' }, every: 300 },
      ],
      leases: [
        { lease: 'rsyncdirector/my_rsyncdirector_instance' },
        { file: { path: lock } },
        { file: { ...backup, path: lock } },
      ],
      steps: [
        {
          name: 'sync-of-source-path',
          transfer: { from: '/source/path', to: { ...backup, path: '/path/on/remote/host' }, ...mirrored },
        },
        {
          name: 'command.sh',
          command: { argv: ['/path/to/some/command.sh', '--arg1', 'arg1_val', '--arg2', 'arg2_val'] },
        },
        {
          name: 'sync-some-other-path',
          transfer: {
            ...{ from: '/source/some/other/path', to: { ...backup, path: '/some/other/path/on/remote/host' } },
            ...{ options: ['--archive', '--delete'], maxDelete: 'unlimited', emptySource: 'allow' },
          },
        },
      ],
    },
  ])
  const told = differences.map(({ path, message }) => `${path} ${message}`).join('\n')
  for (const pattern of [
    /^\/pid_file_dir is not needed/m,
    /^\/metrics the metrics are at/m,
    /^\/cron_schedule is kept in the time zone Europe\/Vienna/m,
    /^\/jobs ran one after the other/m,
    /^\/jobs\/1\/private_ssh_key is used here; the original .* default keys/m,
    /^\/jobs\/1\/lock_files\/1\/private_ssh_key is used here/m,
    /^\/jobs\/1\/blocks_on\/0\/timeout is 3600 seconds.*twice as long/m,
    /^\/jobs\/1\/blocks_on\/0 what cannot be looked at counts as blocked/m,
    /^\/jobs\/1\/lock_files are made so that one alone can have them/m,
    /^\/jobs\/0\/actions\/0\/opts --delete: taken over without a limit/m,
    /^\/jobs\/1\/actions\/0 the key of backup_a\.example\.com must be trusted first/m,
    /^\/jobs\/1\/actions\/1\/command gets a plain environment, and the home of the user as its working folder/m,
    /^\/metrics .*job_id that of the job here, such as my_rsyncdirector_instance\.JOB/m,
    /^\/jobs\/0\/actions\/0 files that vanish .*24 of rsync.* are a warning/m,
    /^\/jobs ran one .*left out as its blocks_on were not free in time/m,
  ])
    t.match(told, pattern)
})

t.test(
  'a job that only tells what it would do breaks no chain: the next one goes by the schedule, or by the one before',
  async (t) => {
    const job = (id: string, opts: string[]) => ({
      ...{ id, type: 'local' },
      actions: [{ action: 'sync', id: 's', source: '/a', dest: '/b', opts }],
    })
    const schedules = (...jobs: object[]) => {
      const { jobs: made } = takeOverRsyncDirector({ rsync_id: 'x', cron_schedule: '0 2 * * *', jobs }, 'UTC')
      return (made as unknown as { schedule: object[] }[]).map(({ schedule }) => schedule)
    }
    const clock = [{ cron: '0 2 * * *', timeZone: 'UTC' }, { signal: true }]
    t.same(schedules(job('a', ['-an']), job('b', ['-a']), job('c', ['-a'])), [clock, clock, [{ event: 'job x.b' }]])
    t.same(schedules(job('a', ['-a']), job('b', ['-an']), job('c', ['-a'])), [
      clock,
      [{ event: 'job x.a' }],
      [{ event: 'job x.a' }],
    ])
  },
)

t.test('both spellings of the key are read, and the one that the program knew counts', async (t) => {
  const job = (keys: object) => {
    const { jobs, differences } = takeOverRsyncDirector(
      {
        rsync_id: 'x',
        cron_schedule: '0 2 * * *',
        jobs: [
          {
            id: 'j',
            type: 'remote',
            host: 'h',
            ...keys,
            actions: [{ action: 'sync', id: 's', source: '/a', dest: '/b', opts: ['-a'] }],
          },
        ],
      },
      'UTC',
    )
    const [
      {
        steps: [{ transfer }],
      },
    ] = jobs as unknown as [{ steps: [{ transfer: { to: { key?: string } } }] }]
    return [transfer.to.key, differences.filter(({ path }) => path.endsWith('private_ssh_key')).length]
  }
  t.same(job({ private_key_path: '/k' }), ['/k', 0])
  t.same(job({ private_ssh_key: '/k' }), ['/k', 1])
  t.same(job({ private_key_path: '/k', private_ssh_key: '/other' }), ['/k', 1])
  t.same(job({}), [undefined, 0])
})

t.test('options mean what they meant', async (t) => {
  const all = one([
    '-rtz',
    '--exclude=*.tmp',
    "--filter='P *.conf'",
    '--bwlimit',
    '500',
    '--timeout=60',
    '--max-delete=5',
    '--del',
    '-P',
    '--stats',
  ])
  t.equal(all.faults, '')
  t.same(all.transfer, {
    from: '/a/',
    to: '/b',
    options: ['--no-links', '--no-perms', '--recursive', '--times', '--compress', '--del'],
    rules: [{ exclude: '*.tmp' }, { protect: '*.conf' }],
    maxDelete: 5,
    emptySource: 'allow',
    bandwidth: { limit: '500K' },
    idleSeconds: 60,
    partial: true,
  })
  t.same(transferFaults(all.transfer as Transfer), [])
  t.match(one(['-a', '-n']).job, { dryRun: true })
  t.match(one(['-rlptgoD']).transfer?.options, [
    '--recursive',
    '--links',
    '--perms',
    '--times',
    '--group',
    '--owner',
    '--specials',
  ])
  t.match(one(['-a'], { source: "'/a b/' /c", dest: '"/d e"' }).transfer, { from: ['/a b/', '/c'], to: '/d e' })
  t.match(one(['-a', "-e 'ssh -p 2200 -i /k'"], { source: 'me@host:/x/' }).transfer, {
    from: { host: 'host', user: 'me', port: 2200, key: '/k', path: '/x/' },
  })
})

t.test('what cannot be taken over is named with its reason, and nothing is written', async (t) => {
  const bad: [readonly string[], object, RegExp][] = [
    [['-a', '--rsync-path="sudo rsync"'], {}, /--rsync-path is not allowed: it names a program/],
    [['-aL'], {}, /--copy-links is not allowed/],
    [['-a', '--exclude-from=/etc/list'], {}, /--exclude-from is not allowed: it reads a file/],
    [['-a', '--filter="merge /etc/rules"'], {}, /rules from files are not taken over/],
    [['-a', "-e 'ssh -o ProxyCommand=x'"], {}, /is not taken over: name port, key and user/],
    [['-a', '/another/source'], {}, /is no option: it would have been one more source/],
    [['-a'], { source: '/a/*' }, /source has \*, which the original gave to a shell/],
    [['-a'], { source: '$HOME/x' }, /source has \$/],
    [['-a'], { source: 'relative' }, /must be an absolute path/],
    [['-a'], { dest: '/a; rm -rf /' }, /dest has ;/],
    [['-a', '--exclude=`id`'], {}, /opts\/1 has `/],
    [['-a'], { action: 'other' }, /must be sync or command/],
  ]
  for (const [opts, more, pattern] of bad) {
    const { job, faults } = one(opts, more)
    t.match(faults, pattern)
    t.equal(job, undefined)
  }
  const { faults, differences } = taken(
    'rsync_id: x\ncron_schedule: "0 2"\nunheard: 1\njobs: [{ id: a, type: cloud, port: 99999 }]',
  )
  const text = [...faults, ...differences].map(({ path, message }) => `${path} ${message}`).join('\n')
  for (const pattern of [
    /cron_schedule .* five fields/,
    /jobs\/0\/type must be/,
    /jobs\/0\/actions has no actions/,
    /^\/unheard is not known/m,
  ])
    t.match(text, pattern)
  t.match(takeOverRsyncDirector('text', 'UTC').faults, [{ path: '' }])
})

t.test('a command that needs a shell gets the one it had', async (t) => {
  const step = (command: string, args: readonly string[] = []) => {
    const { jobs } = takeOverRsyncDirector(
      {
        rsync_id: 'x',
        cron_schedule: '0 2 * * *',
        jobs: [{ id: 'j', type: 'local', actions: [{ action: 'command', id: 'c', command, args }] }],
      },
      'UTC',
    )
    return (jobs as unknown as [{ steps: [{ command: { argv: string[] } }] }])[0].steps[0].command.argv
  }
  t.same(step('/bin/dump', ['--to', "'a b'"]), ['/bin/dump', '--to', 'a b'])
  t.same(step('pg_dump app | gzip > /srv/app.gz'), ['/bin/bash', '-c', 'pg_dump app | gzip > /srv/app.gz'])
})

t.test('days of the week are those on which it ran', async (t) => {
  t.same(takeCron('0 2 * * *'), { cron: '0 2 * * *' })
  t.match(takeCron('0 2 * * 0'), { cron: '0 2 * * mon', told: /from Monday as 0/ })
  t.match(takeCron('*/5 1-3 * jan,feb 1-5'), { cron: '*/5 1-3 * jan,feb tue,wed,thu,fri,sat' })
  t.same(takeCron('0 2 * * SUN'), { cron: '0 2 * * sun' })
  t.match(takeCron('0 2 * * */2'), { cron: '0 2 * * mon,wed,fri,sun' })
  for (const text of ['0 2 1 * mon', '0 2 * * 7', '0 2 * * 5-1', '0 2 last * *', '@daily'])
    t.match(takeCron(text), { fault: String }, text)
})

t.test('words are those of a shell', async (t) => {
  t.same(shellWords(`a  'b c' "d \\"e\\" $" f\\ g --x='y z'`).words, ['a', 'b c', 'd "e" $', 'f g', '--x=y z'])
  t.equal(shellWords("'$HOME;*'").needsShell, undefined)
  for (const text of ['$x', '"$x"', 'a*', 'a;b', 'a|b', '~/x', 'a\nb', "'open", '`x`'])
    t.type(shellWords(text).needsShell, 'string', text)
  t.equal(shellWords('a#b~c').needsShell, undefined)
})

t.test('what is taken over fits the settings of transfers and lock files', async (t) => {
  for (const job of taken(EXAMPLE).jobs as unknown as {
    steps: { transfer?: Transfer }[]
    leases: object[]
    gates?: object[]
  }[]) {
    for (const { transfer } of job.steps) if (transfer !== undefined) t.same(transferFaults(transfer), [])
    for (const each of [...job.leases, ...(job.gates ?? [])])
      if ('file' in each) t.same(lockFileFaults(each.file as Parameters<typeof lockFileFaults>[0]), [])
  }
})
