import fc from 'fast-check'
import t from 'tap'
import { atLeast, buildArgv } from '../../src/adapters/rsync/argv.ts'
import { bandwidthFaults, limitAt } from '../../src/adapters/rsync/bandwidth.ts'
import { EXIT_CODES, exitCode } from '../../src/adapters/rsync/exit-codes.ts'
import { ALLOWED_NAMES, FORBIDDEN, optionFaults, parseOption, refusal } from '../../src/adapters/rsync/options.ts'
import { createReader, type Report, unescapeName } from '../../src/adapters/rsync/progress.ts'
import { readVersion } from '../../src/adapters/rsync/rsync.ts'
import { legsOf, type Transfer, transferFaults } from '../../src/adapters/rsync/transfer-settings.ts'
import { hostFaults, sshConfig } from '../../src/adapters/ssh/host.ts'

const VERSION = [3, 2, 7] as const

function argvOf(transfer: Transfer, version: readonly [number, number, number] = VERSION): readonly string[] {
  t.same(transferFaults(transfer), [])
  const [leg] = legsOf(transfer)
  if (leg === undefined) throw new Error('no leg')
  return buildArgv(transfer, leg, { version, ...(leg.host !== undefined && { sshConfig: '/data/ssh/config' }) })
}

const messages = (transfer: unknown) =>
  transferFaults(transfer as Transfer).map(({ path, message }) => `${path} ${message}`)

t.test('a transfer is a list of arguments', async (t) => {
  t.same(argvOf({ from: '/a/', to: '/b' }), [
    ...['rsync', '--recursive', '--links', '--perms', '--times', '--partial-dir=.syncline-partial', '--timeout=300'],
    ...['--', '/a/', '/b'],
  ])
  const full: Transfer = {
    from: ['/a b/', '/-e evil'],
    to: { host: 'backup01', user: 'sync', path: 'relative to the home' },
    preset: 'mirror',
    options: ['-Hz', '--chmod=F664', '--recursive'],
    rules: [{ include: '*/' }, { exclude: "it's" }, { protect: '/keep' }],
    permissions: 'group',
    group: 'storage',
    maxDelete: 5,
    delayUpdates: true,
    idleSeconds: 60,
  }
  t.same(argvOf(full), [
    ...['rsync', '--recursive', '--links', '--perms', '--times', '--delete-delay', '--hard-links', '--compress'],
    ...['--chmod=F664', '--chmod=Dug=rwx,Dg+s,Do=,Fug+rwX,Fo=', '--group', '--chown=:storage'],
    ...['--partial-dir=.syncline-partial', '--delay-updates', '--max-delete=5', '--timeout=60'],
    ...['--filter=+ */', "--filter=- it's", '--filter=P /keep', '--rsh=ssh -F /data/ssh/config'],
    ...['--', '/a b/', '/-e evil', 'backup01:./relative to the home'],
  ])
  t.ok(argvOf(full, [3, 1, 3]).includes('--protect-args'), 'an older rsync does not escape paths by itself')
  t.ok(argvOf({ from: '/a', to: '/b', preset: 'archive' }).includes('--no-devices'))
  t.notOk(argvOf({ from: '/a', to: '/b', options: ['--inplace'] }).some((word) => word.startsWith('--partial-dir')))
  t.notOk(
    argvOf({ from: '/a', to: '/b', preset: 'mirror', maxDelete: 'unlimited' }).some((word) => /max-delete/.test(word)),
  )
})

t.test('sources and destinations are grouped by what one rsync can do', async (t) => {
  const on = (host: string, path: string) => ({ host, path })
  const legs = legsOf({ from: ['/a', on('x', '/b'), '/c', on('x', '/d'), on('y', '/e')], to: ['/one', '/two'] })
  t.same(
    legs.map(({ sources, destination, host }) => [sources.length, destination, host?.host]),
    [
      [2, '/one', undefined],
      [2, '/one', 'x'],
      [1, '/one', 'y'],
      [2, '/two', undefined],
      [2, '/two', 'x'],
      [1, '/two', 'y'],
    ],
  )
})

t.test('no path, host or user can be an option, another host, or a line of a configuration', async (t) => {
  const bad: [unknown, RegExp][] = [
    [{ from: 'relative', to: '/b' }, /^\/from must be an absolute path$/],
    [{ from: '-e sh', to: '/b' }, /^\/from must be an absolute path$/],
    [{ from: 'host:/etc/passwd', to: '/b' }, /^\/from must be an absolute path$/],
    [{ from: 'rsync://host/module', to: '/b' }, /^\/from must be an absolute path$/],
    [{ from: '/a\n/etc', to: '/b' }, /control character/],
    [{ from: '/a', to: { host: 'h', path: '~/x' } }, /must not begin with ~/],
    [{ from: '/a', to: { host: 'h', path: '--rsync-path=x' } }, /must not begin with -/],
    [{ from: { host: 'h', path: '/srv/*' }, to: '/b' }, /character of patterns/],
    [{ from: '/a', to: { host: '-oProxyCommand=touch pwned', path: '/b' } }, /host is not a host name/],
    [{ from: '/a', to: { host: 'h:x', path: '/b' } }, /host is not a host name/],
    [{ from: '/a', to: { host: 'h', user: '-l root', path: '/b' } }, /user may have letters/],
    [{ from: '/a', to: { host: 'h', user: 'a\nProxyCommand x', path: '/b' } }, /user may have letters/],
    [{ from: '/a', to: { host: 'h', key: '/k"\nProxyCommand x', path: '/b' } }, /key must be an absolute path/],
    [{ from: '/a', to: { host: 'h', jump: { host: '$(x)' }, path: '/b' } }, /jump\/host is not a host name/],
    [{ from: { host: 'h', path: '/a' }, to: { host: 'g', path: '/b' } }, /is on another host, and so is a source/],
    [
      { from: ['/a', { host: 'h', path: '/a' }], to: '/b', preset: 'mirror' },
      /each would delete what the others brought/,
    ],
    [{ from: '/a', to: '/b', group: 'a:b' }, /group is not the name/],
    [{ from: '/a', to: '/b', rules: [{ exclude: 'a\nb' }] }, /rules\/0\/exclude is no pattern/],
    [{ from: '/a', to: '/b', preset: 'update', verify: 'sha256' }, /cannot be sha256/],
  ]
  for (const [transfer, pattern] of bad) t.match(messages(transfer).join('\n'), pattern)
  t.same(hostFaults({ host: 'fe80::1' }, ''), [])
})

t.test('whatever a path is, it is one argument after --, and reads as that path', async () => {
  const name = fc.string({ unit: 'grapheme', minLength: 1, maxLength: 30 })
  fc.assert(
    fc.property(name, name, (from, to) => {
      const transfer: Transfer = { from: `/${from}`, to: { host: 'h', path: to } }
      if (transferFaults(transfer).length > 0) return
      const argv = argvOf(transfer)
      const paths = argv.slice(argv.indexOf('--') + 1)
      return paths.length === 2 && paths[0] === `/${from}` && /^h:(?:\.\/|\/)/.test(paths[1] ?? '')
    }),
  )
})

t.test('an option is on the list, or refused with its reason', async (t) => {
  for (const name of ALLOWED_NAMES) t.notOk(Object.hasOwn(FORBIDDEN, name), `${name} is not both`)
  for (const [name, reason] of Object.entries(FORBIDDEN)) {
    t.match(refusal({ name, value: 'x' }), `--${name} is not allowed: ${reason}`)
    t.match(refusal({ name }), /is not allowed/)
  }
  const refused: [string, RegExp][] = [
    ['-e ssh', /--rsh is not allowed: it names a program/],
    ['-azessh', /--rsh is not allowed/],
    ['-aM--rsync-path=x', /--remote-option is not allowed/],
    ['--rsync-path=sudo rsync', /names a program to run on the other host/],
    ['--copy-links', /follows a symbolic link out/],
    ['-aL', /--copy-links is not allowed/],
    ['--link-dest=/etc', /does not take "\/etc"/],
    ['--backup-dir=../../x', /does not take/],
    ['--backup-dir=a/../b', /does not take/],
    ['--chmod=F664 --rsh=x', /does not take/],
    ['--delete=x', /takes no value/],
    ['--max-size', /needs a value/],
    ['--unheard-of', /not on the list/],
    ['--constructor', /not on the list/],
    ['no option', /is not an option/],
    ['--', /is not an option/],
    ['-Y', /-Y is not on the list/],
  ]
  for (const [text, pattern] of refused)
    t.match(
      optionFaults(text, '/x')
        .map(({ message }) => message)
        .join('\n'),
      pattern,
      text,
    )
  for (const text of ['-avz'.replace('v', ''), '--backup-dir=.old', '--link-dest=before', '--max-size=1.5G', '--del'])
    t.same(optionFaults(text, '/x'), [], text)
  t.same(parseOption('-rT/x'), [{ name: 'recursive' }, { name: 'temp-dir', value: '/x' }])
})

t.test('a configuration of ssh asks nobody and believes pinned keys alone, also on the way', async (t) => {
  const text = sshConfig(
    { host: 'target', user: 'u', port: 2222, key: '/keys/100%', jump: { host: 'fe80::1', key: '/keys/gate' } },
    { file: "/data/it's/config", knownHosts: '/data/known hosts', connectSeconds: 7 },
  )
  t.match(text, 'Host target\n  HostName target\n  Port 2222\n  User u\n  IdentityFile "/keys/100%%"')
  t.match(text, `ProxyCommand ssh -F '/data/it'\\''s/config' -W "[%h]:%p" hop-1\nHost hop-1\n  HostName fe80::1\n`)
  for (const line of [
    'BatchMode yes',
    'StrictHostKeyChecking yes',
    'UserKnownHostsFile "/data/known hosts"',
    'ConnectTimeout 7',
  ])
    t.match(text, `\n  ${line}\n`)
  t.match(text, /PermitLocalCommand no/)
})

const OUTPUT = [
  'sending incremental file list\n',
  '@@ .d..t...... 4096 ./\n@@ >f+++++++++ 3 a b.txt\n@@ cd+++++++++ 4096 sub/\n@@ >f.st...... 7 sub/\\#012new\\#134#012line -> x\n',
  '@@ *deleting   0 old name\n',
  '              3  42%    1.50kB/s    0:01:02  \r         32,768 100%   31.25MB/s    0:00:00 (xfr#2, to-chk=0/4)\n',
  '\nNumber of files: 1,004 (reg: 1,002, dir: 2)\nNumber of created files: 2 (reg: 1, dir: 1)\nNumber of deleted files: 1 (reg: 1)\n',
  'Number of regular files transferred: 2\nTotal file size: 1,234,567 bytes\nTotal transferred file size: 10 bytes\n',
  'Literal data: 10 bytes\nMatched data: 0 bytes\nFile list size: 0\nTotal bytes sent: 200\nTotal bytes received: 50\n',
  '\nsent 200 bytes  received 50 bytes  500.00 bytes/sec\ntotal size is 1,234,567  speedup is 4,938.27\n',
].join('')

t.test('what rsync reports is read, however it is cut into pieces', async (t) => {
  const read = (pieces: readonly string[]) => {
    const reports: Report[] = []
    const reader = createReader((report) => reports.push(report))
    for (const piece of pieces) reader.write(piece)
    reader.end()
    return reports
  }
  const whole = read([OUTPUT])
  t.same(whole.slice(0, 7), [
    { kind: 'text', text: 'sending incremental file list' },
    { kind: 'item', change: '.d..t......', bytes: 4096, name: './' },
    { kind: 'item', change: '>f+++++++++', bytes: 3, name: 'a b.txt' },
    { kind: 'item', change: 'cd+++++++++', bytes: 4096, name: 'sub/' },
    { kind: 'item', change: '>f.st......', bytes: 7, name: 'sub/\nnew\\#012line -> x' },
    { kind: 'deleted', name: 'old name' },
    { kind: 'progress', bytes: 32768, percent: 100, rate: 32768000, seconds: 0, files: 2, left: 0, found: 4 },
  ])
  t.same(Object.fromEntries(whole.flatMap((each) => (each.kind === 'total' ? [[each.name, each.value]] : []))), {
    ...{ files: 1004, regular: 1002, created: 2, deleted: 1, transferred: 2, size: 1234567, copied: 10, literal: 10 },
    ...{ sent: 200, received: 50, speedup: 4938.27 },
  })
  fc.assert(
    fc.property(fc.array(fc.nat(OUTPUT.length), { maxLength: 20 }), (cuts) => {
      const at = [0, ...cuts.sort((a, b) => a - b), OUTPUT.length]
      const pieces = at.slice(1).map((end, index) => OUTPUT.slice(at[index], end))
      const found = read(pieces)
      const told = (reports: readonly Report[]) => JSON.stringify(reports.filter(({ kind }) => kind !== 'progress'))
      const latest = (reports: readonly Report[]) => JSON.stringify(reports.findLast(({ kind }) => kind === 'progress'))
      return told(found) === told(whole) && latest(found) === latest(whole)
    }),
  )
  t.match(
    read(['              3  42%    1.50kB/s    0:01:02  \r']),
    [{ kind: 'progress', bytes: 3, percent: 42, rate: 1536, seconds: 62, files: null, left: null, found: null }],
    'progress that is not overwritten yet',
  )
  t.equal(read(['x'.repeat(1_000_000), '\n']).length, 1, 'a line without an end is bounded')
  t.equal(unescapeName('\\#303\\#244'), 'ä')
})

t.test('every exit code has a severity, and 24 is a warning', async (t) => {
  t.equal(exitCode(0).severity, 'success')
  t.equal(exitCode(24).severity, 'warning')
  t.equal(exitCode(25).severity, 'brake')
  t.equal(exitCode(null).severity, 'again')
  t.equal(exitCode(99).severity, 'error')
  t.match(exitCode(99).text, /99/)
  for (const code of [1, 2, 3, 4, 5, 6, 10, 11, 12, 13, 14, 20, 21, 22, 23, 24, 25, 30, 35])
    t.ok(EXIT_CODES[code], `${code}`)
})

t.test('rsync is the real one, and 3.1 or newer', async (t) => {
  t.same(readVersion('rsync  version 3.2.7  protocol version 32\n'), [3, 2, 7])
  t.same(readVersion('rsync  version v3.4.0pre1  protocol version 32\n'), [3, 4, 0])
  t.throws(() => readVersion('rsync  version 3.0.9  protocol version 30'), {
    code: 'SYNC_TRANSFER_TOOL',
    message: /3\.0\.9/,
  })
  t.throws(() => readVersion('openrsync: protocol version 29'), { code: 'SYNC_TRANSFER_TOOL', message: /openrsync/ })
  t.throws(() => readVersion(''), { code: 'SYNC_TRANSFER_TOOL' })
  t.ok(atLeast([3, 2, 4], [3, 2, 4]) && atLeast([4, 0, 0], [3, 9, 9]) && !atLeast([3, 1, 9], [3, 2, 0]))
})

t.test('the bandwidth follows its hours, in their time zone', async (t) => {
  const night = {
    timeZone: 'Europe/Vienna',
    limit: '500K',
    hours: [{ from: '22:00', to: '06:00', limit: 'unlimited' }],
  }
  const at = (text: string) => limitAt(night, Date.parse(text))
  t.same(at('2026-01-05T20:59:30Z'), { limit: '500K', forMs: 30_000 })
  t.same(at('2026-01-05T21:00:00Z'), { limit: '0', forMs: 8 * 3_600_000 })
  t.equal(at('2026-01-06T04:59:59Z').limit, '0')
  t.equal(at('2026-01-06T05:00:00Z').limit, '500K')
  t.equal(at('2026-07-06T20:00:00Z').limit, '0', 'summer time')
  const week = { timeZone: 'UTC', hours: [{ days: ['fri' as const], from: '20:00', to: '08:00', limit: '1M' }] }
  const of = (text: string) => limitAt(week, Date.parse(text)).limit
  t.same([of('2026-01-09T21:00:00Z'), of('2026-01-10T07:59:00Z'), of('2026-01-10T21:00:00Z')], ['1M', '1M', '0'])
  t.same(limitAt({ limit: '5M' }, 0), { limit: '5M', forMs: Number.POSITIVE_INFINITY })
  t.match(bandwidthFaults({ timeZone: 'Mars/Base', hours: [{ from: '08:00', to: '08:00', limit: '1M' }] }, ''), [
    { path: '/hours/0/to' },
    { path: '/timeZone' },
  ])
})
