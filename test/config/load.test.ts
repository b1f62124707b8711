import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import t from 'tap'
import {
  type ConfigInputs,
  loadConfig,
  loadConfigFromProcess,
  readConfig,
  redact,
  SETTING_NAMES,
  SETTINGS,
  settingOf,
  variableName,
} from '../../src/config/index.ts'
import { SynclineError } from '../../src/sync/index.ts'

const folder = mkdtempSync(join(tmpdir(), 'syncline-config-'))
t.teardown(() => rmSync(folder, { recursive: true, force: true }))

type Given = { env?: Record<string, string>; flags?: Record<string, unknown>; hostname?: string }

function inputs({ env = {}, flags = {}, hostname = 'office-7' }: Given = {}): ConfigInputs {
  return { env, flags, hostname, cwd: folder, readFile: (path) => readFileSync(path, 'utf8') }
}

const load = (given: Given = {}) => loadConfig(inputs(given))

/** The faults as `place: message`, one an element. */
const faultsOf = (given: Given) => readConfig(inputs(given)).faults.map(({ where, message }) => `${where}: ${message}`)

function file(name: string, text: string): string {
  const path = join(folder, name)
  writeFileSync(path, text)
  return path
}

t.test('without any setting a site has every default', async (t) => {
  t.same(load(), {
    dataDir: join(folder, 'syncline-data'),
    name: 'office-7',
    roles: ['serve', 'schedule', 'work'],
    logLevel: 'info',
    host: '127.0.0.1',
    port: 8420,
    trustProxy: [],
    noProxy: [],
    folderRoots: [],
    connectionsMax: 1,
    bodyBytesMax: 64 * 1024 * 1024,
    recordBytesMax: 8 * 1024 * 1024,
    depthMax: 64,
    batchRowsMax: 1000,
    batchBytesMax: 4 * 1024 * 1024,
    requestTimeoutMs: 120_000,
    clockAheadMaxMs: 300_000,
    historyDays: 90,
    logDays: 90,
    tombstoneDays: 90,
    alarmEverySeconds: 60,
    alarmCalmSeconds: 180,
    alarmLevel: 'warning',
    alarmIntervals: 3,
    alarmQuarantineHours: 24,
    alarmQuarantineMax: 1_000,
    alarmQuarantinePerHour: 100,
    alarmCheckpointHours: 24,
    alarmHorizonSeconds: 300,
    alarmClockSeconds: 60,
    alarmVerifyHours: 48,
    alarmDiskMegabytes: 1_024,
    alarmFailures: 5,
    alarmPausedHours: 24,
    alarmJobMinutes: 60,
  })
})

t.test('a PostgreSQL database brings the larger defaults, which still can be set', async (t) => {
  const SYNCLINE_DATABASE_URL = 'postgres://u:p@db/x'
  t.match(load({ env: { SYNCLINE_DATABASE_URL } }), { batchRowsMax: 10_000, connectionsMax: 10 })
  t.equal(load({ env: { SYNCLINE_DATABASE_URL, SYNCLINE_BATCH_ROWS_MAX: '77' } }).batchRowsMax, 77)
  t.equal(load({ env: { SYNCLINE_BATCH_ROWS_MAX: '2000' } }).batchRowsMax, 2000, 'also on the embedded database')
})

t.test('every default of the table passes the check that it imposes on others', async (t) => {
  for (const name of SETTING_NAMES) {
    const { default: fallback, defaultEmbedded } = settingOf(name)
    for (const value of [fallback, defaultEmbedded]) {
      if (value === undefined || name === 'trustProxy' || name === 'noProxy') continue
      t.same(faultsOf({ flags: { [name]: value } }), [], name)
    }
  }
})

t.test('flags win over the environment, and that over the file', async (t) => {
  const config = file('order.yaml', 'port: 1001\nlogLevel: debug\nname: from-file\n')
  const env = { SYNCLINE_PORT: '1002', SYNCLINE_NAME: 'from-env', SYNCLINE_CONFIG: config }
  const reading = readConfig(inputs({ env, flags: { port: '1003', host: undefined } }))
  t.match(reading.config, { port: 1003, logLevel: 'debug', name: 'from-env', host: '127.0.0.1' })
  t.same(reading.sources, { port: '--port', logLevel: `logLevel in ${config}`, name: 'SYNCLINE_NAME' })
  const other = file('other.yaml', 'port: 1004\n')
  t.match(load({ env: { SYNCLINE_CONFIG: config }, flags: { config: other } }), { port: 1004, name: 'office-7' })
})

t.test('a file may be YAML or JSON, empty, or full of comments', async (t) => {
  const json = file('a.json', '{\n\t"port": 1,\n\t"roles": ["serve"],\n\t"noProxy": [".example.org", "10.0.0.1"]\n}')
  t.match(load({ flags: { config: json } }), { port: 1, roles: ['serve'], noProxy: ['.example.org', '10.0.0.1'] })
  t.equal(load({ flags: { config: file('empty.yaml', '') } }).port, 8420)
  t.equal(load({ flags: { config: file('comment.yaml', '# nothing yet\n') } }).port, 8420)
})

t.test('lists are separated by commas in the environment and on the command line', async (t) => {
  t.same(load({ env: { SYNCLINE_ROLES: 'serve, work' } }).roles, ['serve', 'work'])
  t.same(load({ flags: { noProxy: 'a.example,.b.example:8080' } }).noProxy, ['a.example', '.b.example:8080'])
  t.same(load({ env: { SYNCLINE_NO_PROXY: '' } }).noProxy, [])
})

t.test('relative paths count from the file that says them, else from the working directory', async (t) => {
  const key = file('tls.key', 'pem')
  const config = file('paths.yaml', 'dataDir: state\ntlsKeyFile: tls.key\ntlsCertFile: ./tls.key\n')
  const reading = loadConfig({ ...inputs({ flags: { config } }), cwd: '/' })
  t.match(reading, { dataDir: join(folder, 'state'), tlsKeyFile: key, tlsCertFile: key })
  t.equal(loadConfig({ ...inputs({ env: { SYNCLINE_DATA_DIR: 'state' } }), cwd: '/srv' }).dataDir, '/srv/state')
  const roots = { ...inputs({ env: { SYNCLINE_FOLDER_ROOTS: 'a, /b/../c' } }), cwd: '/srv' }
  t.same(loadConfig(roots).folderRoots, ['/srv/a', '/c'], 'each of several')
})

t.test('URLs lose the slash at their end', async (t) => {
  t.equal(
    load({ env: { SYNCLINE_PUBLIC_URL: 'https://hub.example.org/sync/' } }).publicUrl,
    'https://hub.example.org/sync',
  )
})

t.test('all faults of all sources are reported at once, each at its place', async (t) => {
  const config = file(
    'faults.yaml',
    'port: "8420"\nlogLevel: loud\nprot: 1\nroles: [serve, sing]\nhost: ~\nbatchRowsMax: 1.5\n',
  )
  const env = {
    SYNCLINE_CONFIG: config,
    SYNCLINE_PORT: '99999',
    SYNCLINE_DATABASE_ULR: 'postgres://u:p@h/d',
    SYNCLINE_DEPTH_MAX: 'deep',
    SYNCLINE_HISTORY_DAYS: '0',
    SYNCLINE_TLS_CERT_FILE: 'nowhere.pem',
    PATH: '/bin',
  }
  const expected = [
    `port in ${config}: must be a whole number, not "8420"`,
    `logLevel in ${config}: must be one of trace, debug, info, warn, error, fatal, silent, not "loud"`,
    `prot in ${config}: there is no such setting; did you mean port?`,
    `roles in ${config} (item 2): must be one of serve, schedule, work, not "sing"`,
    `host in ${config}: must be a text, not null`,
    `batchRowsMax in ${config}: must be a whole number, not 1.5`,
    'SYNCLINE_PORT: must be at most 65535, not 99999',
    'SYNCLINE_DATABASE_ULR: there is no such setting; did you mean SYNCLINE_DATABASE_URL?',
    'SYNCLINE_DEPTH_MAX: must be a whole number, not "deep"',
    'SYNCLINE_HISTORY_DAYS: must be at least 1, not 0',
    `SYNCLINE_TLS_CERT_FILE: cannot read ${join(folder, 'nowhere.pem')}: there is no such file`,
    'SYNCLINE_TLS_CERT_FILE: needs SYNCLINE_TLS_KEY_FILE (tlsKeyFile) as well',
    '--base-url: there is no such setting',
    '--log-levle: there is no such setting; did you mean --log-level?',
  ]
  const given = { env, flags: { baseUrl: 'x', logLevle: 'info' } }
  t.same(faultsOf(given).sort(), expected.sort())
  t.throws(() => load(given), new SynclineError('SYNC_CONFIG_INVALID', faultsOf(given).join('\n')))
  t.notOk('config' in readConfig(inputs(given)), 'and there is no half-good configuration')
})

t.test('unknown variables are refused in any case, other programs’ variables are none of ours', async (t) => {
  t.same(faultsOf({ env: { syncline_port: '1' } }), [
    'syncline_port: there is no such setting; did you mean SYNCLINE_PORT?',
  ])
  t.same(faultsOf({ env: { SYNCLINE: '1', SYNCLINER_PORT: '1', HTTP_PROXY: 'x' } }), [])
  t.same(faultsOf({ env: { SYNCLINE_CONFG: 'x' } }), [
    'SYNCLINE_CONFG: there is no such setting; did you mean SYNCLINE_CONFIG?',
  ])
})

t.test('variables that Kubernetes makes for a Service are explained', async (t) => {
  const faults = faultsOf({ env: { SYNCLINE_PORT: 'tcp://10.0.0.1:8420', SYNCLINE_SERVICE_HOST: '10.0.0.1' } })
  t.equal(faults.length, 2)
  for (const fault of faults) t.match(fault, /enableServiceLinks: false/)
})

t.test('a value that is set but empty is a fault, never the default', async (t) => {
  for (const variable of [
    'SYNCLINE_DATABASE_URL',
    'SYNCLINE_DATA_DIR',
    'SYNCLINE_PORT',
    'SYNCLINE_ROLES',
    'SYNCLINE_TOKEN',
  ]) {
    t.match(faultsOf({ env: { [variable]: '' } }), [new RegExp(`^${variable}: must`)], variable)
  }
  t.same(faultsOf({ env: { SYNCLINE_CONFIG: '' } }), ['SYNCLINE_CONFIG: must be the path of a file'])
})

t.test('every secret may be given as a file, whose line end does not count', async (t) => {
  const values = {
    databaseUrl: 'postgres://u:p@h/d',
    proxy: 'http://u:p@proxy:3128',
    smtpUrl: 'smtps://u:p@mail.example.org',
    webhookUrl: 'https://alarms.example.org/?key=1',
    webhookSecret: 'a secret of some length',
    token: 'a-token',
  }
  t.same(
    SETTING_NAMES.filter((name) => settingOf(name).secret),
    Object.keys(values),
  )
  const needed = { SYNCLINE_MAIL_FROM: 'a@b', SYNCLINE_MAIL_TO: 'c@d', SYNCLINE_WEBHOOK_SECRET: 'another that is long' }
  for (const [name, value] of Object.entries(values)) {
    const { [variableName(name) as 'SYNCLINE_WEBHOOK_SECRET']: _, ...env } = needed
    const path = file(`${name}.secret`, `${value}\r\n`)
    t.match(load({ env: { ...env, [`${variableName(name)}_FILE`]: path } }), { [name]: value })
    const config = file('secret.yaml', `${name}File: ${name}.secret\n`)
    t.match(load({ env, flags: { config } }), { [name]: value }, 'relative to the file')
    t.match(load({ env, flags: { [`${name}File`]: path } }), { [name]: value })
  }
})

t.test('a secret given twice in one source, or from a file that is missing, empty or wrong, is a fault', async (t) => {
  const good = file('good.secret', 'postgres://u:p@h/d\n')
  const [SYNCLINE_DATABASE_URL, SYNCLINE_DATABASE_URL_FILE] = ['postgres://u:p@h/d', good]
  t.same(faultsOf({ env: { SYNCLINE_DATABASE_URL, SYNCLINE_DATABASE_URL_FILE } }), [
    'SYNCLINE_DATABASE_URL_FILE: SYNCLINE_DATABASE_URL is set too; give one of them',
  ])
  t.same(
    faultsOf({ env: { SYNCLINE_DATABASE_URL_FILE }, flags: { databaseUrl: 'postgres://other/d' } }),
    [],
    'but a later source replaces an earlier one',
  )
  const file1 = (path: string) => faultsOf({ env: { SYNCLINE_TOKEN_FILE: path } })
  t.same(file1(join(folder, 'gone')), [
    `SYNCLINE_TOKEN_FILE: cannot read ${join(folder, 'gone')}: there is no such file`,
  ])
  t.same(file1(folder), [`SYNCLINE_TOKEN_FILE: cannot read ${folder}: it is a folder`])
  t.same(file1(file('blank', '\n')), [`SYNCLINE_TOKEN_FILE: ${join(folder, 'blank')} is empty`])
  t.same(file1(''), ['SYNCLINE_TOKEN_FILE: must be the path of a file'])
  t.same(file1(file('two-lines', 'hunter2\nmore')), [
    'SYNCLINE_TOKEN_FILE: must be a token: printable characters without spaces',
  ])
})

t.test('no message ever shows a secret', async (t) => {
  const secret = 'hunter2'
  const broken = file('broken.yaml', `port: 1\ndatabaseUrl: "postgres://u:${secret}@h/d\nname: [\n`)
  const twice = file('twice.yaml', `token: ${secret}\ntoken: ${secret}\n`)
  const given: Given[] = [
    { env: { SYNCLINE_DATABASE_URL: `mysql://u:${secret}@h/d` } },
    { env: { SYNCLINE_PROXY: `socks://u:${secret}@h` } },
    { env: { SYNCLINE_TOKEN_FILE: file('spaced', `${secret} ${secret}`) } },
    { flags: { token: [secret] } },
    { flags: { config: broken } },
    { flags: { config: twice } },
  ]
  for (const one of given) {
    const text = faultsOf(one).join('\n')
    t.not(text, '')
    t.notMatch(text, secret)
  }
  t.match(faultsOf({ flags: { config: twice } }), [/^line 2 of .*twice.yaml: Map keys must be unique/])
})

t.test('a file that is not a plain list of settings is a fault', async (t) => {
  const bad = (text: string) => faultsOf({ flags: { config: file('bad.yaml', text) } })
  t.match(bad('- 1\n'), [/must be a list of settings/])
  t.match(bad('just text\n'), [/must be a list of settings/])
  t.match(bad('a: [\n'), [/^line 2 of .*Flow sequence/])
  t.match(bad('name: &x a\nhost: *x\n'), [/Alias/])
  t.match(bad('name: !!js/regexp x\n'), [/^line 1 of .*tag/])
  t.match(bad('port: 1\n---\nport: 2\n'), [/multiple documents/])
  t.match(bad('__proto__: {port: 1}\nconstructor: 1\n'), [/^__proto__ in .*no such setting/, /^constructor in /])
  t.same(faultsOf({ flags: { config: 'gone.yaml' } }), [
    `--config: cannot read ${join(folder, 'gone.yaml')}: there is no such file`,
  ])
})

t.test('values are held to their form', async (t) => {
  const verdicts: [string, string, boolean][] = [
    ['DATABASE_URL', 'postgresql://db.example/x?sslmode=require', true],
    ['DATABASE_URL', 'postgres://user:pw@/db?host=/run/postgresql', true],
    ['DATABASE_URL', 'db.example/x', false],
    ['PUBLIC_URL', 'https://user@hub.example', false],
    ['PUBLIC_URL', 'ftp://hub.example', false],
    ['PUBLIC_URL', 'https://hub.example/?a=1', false],
    ['PROXY', 'http://user:p%40ss@proxy.example:3128', true],
    ['PROXY', 'proxy.example:3128', false],
    ['PROXY', 'http://proxy.example/path', false],
    ['HOST', '::', true],
    ['HOST', 'localhost', true],
    ['HOST', '0.0.0.0:80', false],
    ['HOST', '300.1.1.1', false],
    ['NAME', 'Büro Wien', true],
    ['NAME', 'a:b', false],
    ['NAME', ' a', false],
    ['NAME', 'a\nb', false],
    ['TRUST_PROXY', 'loopback,10.0.0.0/8,::1,fd00::/8', true],
    ['TRUST_PROXY', '10.0.0.0/33', false],
    ['TRUST_PROXY', 'true', false],
    ['NO_PROXY', 'a b', false],
    ['ROLES', 'serve,serve', false],
    ['PORT', '0', true],
    ['PORT', '8420 ', false],
    ['PORT', '1e3', false],
    ['PORT', '-1', false],
    ['TOKEN', 'with space', false],
  ]
  for (const [name, value, good] of verdicts) {
    t.equal(faultsOf({ env: { [`SYNCLINE_${name}`]: value } }).length === 0, good, `${name}=${value}`)
  }
})

t.test('limits fit into each other', async (t) => {
  t.match(load({ env: { SYNCLINE_BODY_BYTES_MAX: '2048' } }), { recordBytesMax: 2048, batchBytesMax: 2048 })
  t.same(faultsOf({ env: { SYNCLINE_BODY_BYTES_MAX: '2048' }, flags: { recordBytesMax: '4096' } }), [
    '--record-bytes-max: must be at most bodyBytesMax (2048), not 4096',
  ])
})

t.test('certificate and key of the server come together', async (t) => {
  const SYNCLINE_TLS_CLIENT_CA_FILE = file('ca.pem', 'pem')
  t.same(faultsOf({ env: { SYNCLINE_TLS_CLIENT_CA_FILE } }), [
    'SYNCLINE_TLS_CLIENT_CA_FILE: needs SYNCLINE_TLS_CERT_FILE (tlsCertFile) as well',
  ])
})

t.test('a host name that cannot be a site name gives way to a plain one', async (t) => {
  t.equal(load({ hostname: '' }).name, 'site')
  t.equal(load({ hostname: 'x'.repeat(200) }).name, 'site')
})

t.test('a configuration cannot be changed', async (t) => {
  const config = load()
  t.throws(() => Object.assign(config, { port: 1 }), TypeError)
  t.throws(() => (config.roles as string[]).push('x'), TypeError)
  t.throws(() => (SETTINGS.roles.default as unknown as string[]).push('x'), TypeError, 'nor the defaults it shares')
})

t.test('a printed configuration keeps what helps and hides what is secret', async (t) => {
  const shown = (name: string, value: string) => redact(load({ flags: { [name]: value } }))[name]
  t.equal(
    shown('databaseUrl', 'postgres://app:hunter2@db:5432/x?sslmode=require&password=hunter2'),
    'postgres://app:***@db:5432/x?***',
  )
  t.equal(shown('databaseUrl', 'postgres://db/x'), 'postgres://db/x')
  t.equal(shown('databaseUrl', 'postgres://app@db/x'), 'postgres://app@db/x')
  t.equal(shown('databaseUrl', 'postgres://app:hun@ter2@db/x'), '***')
  t.equal(shown('proxy', 'http://u:hunter2@proxy:3128'), 'http://u:***@proxy:3128')
  t.equal(shown('token', 'hunter2'), '***')
  t.equal(redact(load())['port'], 8420)
  t.notOk('token' in redact(load()))
})

t.test('the settings of this process come from its environment', async (t) => {
  const before = { ...process.env }
  t.teardown(() => {
    process.env = before
  })
  for (const name of Object.keys(process.env)) if (name.startsWith('SYNCLINE_')) delete process.env[name]
  process.env['SYNCLINE_PORT'] = '4711'
  t.match(loadConfigFromProcess({ host: '::1' }), {
    port: 4711,
    host: '::1',
    dataDir: join(process.cwd(), 'syncline-data'),
  })
})

t.test('mail and webhooks need all that belongs to them, in its right form', async (t) => {
  t.same(faultsOf({ env: { SYNCLINE_SMTP_URL: 'smtp://localhost:25' } }), [
    'SYNCLINE_SMTP_URL: needs SYNCLINE_MAIL_FROM (mailFrom) as well',
    'SYNCLINE_SMTP_URL: needs SYNCLINE_MAIL_TO (mailTo) as well',
  ])
  t.same(faultsOf({ env: { SYNCLINE_WEBHOOK_URL: 'https://x.example.org/' } }), [
    'SYNCLINE_WEBHOOK_URL: needs SYNCLINE_WEBHOOK_SECRET (webhookSecret) as well',
  ])
  const wrong = {
    SYNCLINE_SMTP_URL: ['mail.example.org', 'http://mail.example.org', 'smtp://'],
    SYNCLINE_MAIL_FROM: ['nobody', 'a@b, c@d', 'A <a@b>', 'a@b\nBcc: x@y'],
    SYNCLINE_WEBHOOK_URL: ['alarms.example.org', 'ftp://x/'],
    SYNCLINE_WEBHOOK_SECRET: ['short'],
    SYNCLINE_ALARM_LEVEL: ['loud'],
    SYNCLINE_ALARM_EVERY_SECONDS: ['0', '4000', 'often'],
  }
  for (const [name, values] of Object.entries(wrong))
    for (const value of values) t.match(faultsOf({ env: { [name]: value } })[0], new RegExp(`^${name}: must`), value)
})
