import { ALARM_SETTINGS } from './alarm-settings.ts'

/** What a setting is called in each source, what it may hold and what it means. The table below is the only home of defaults. */
export type Setting = {
  readonly type: 'string' | 'integer' | 'array'
  readonly group: Group
  readonly description: string
  readonly default?: string | number | readonly string[]
  /** Takes the place of `default` where the site runs on the embedded database. */
  readonly defaultEmbedded?: number
  /** Words for a default that is known only when the settings are read. */
  readonly defaultText?: string
  /** Never printed; may also be given as `…File`, the path of a file that holds it. */
  readonly secret?: true
  /** The file at this path must be readable when the settings are read. */
  readonly readable?: true
  readonly format?: string
  readonly enum?: readonly string[]
  readonly items?: { readonly type: 'string'; readonly format?: string; readonly enum?: readonly string[] }
  readonly minimum?: number
  readonly maximum?: number
  readonly minItems?: number
  readonly uniqueItems?: true
}

export const GROUPS = {
  site: 'The site',
  server: 'The server',
  outgoing: 'Connections to peers',
  limits: 'Limits',
  keeping: 'What is kept',
  alarms: 'Alarms',
  client: 'The command line',
} as const
export type Group = keyof typeof GROUPS

export const ROLES = ['serve', 'schedule', 'work'] as const
export const LOG_LEVELS = ['trace', 'debug', 'info', 'warn', 'error', 'fatal', 'silent'] as const

/** Every setting by its name in a file; environment variable and flag are derived from it (names.ts). */
export const SETTINGS = {
  databaseUrl: {
    type: 'string',
    group: 'site',
    format: 'postgres-url',
    secret: true,
    defaultText: 'the embedded database in the data folder',
    description: 'PostgreSQL database of this site, such as postgres://user:password@host:5432/database.',
  },
  dataDir: {
    type: 'string',
    group: 'site',
    format: 'path',
    default: './syncline-data',
    description: 'Folder for keys, the administrator token and the embedded database. One process per folder.',
  },
  keyFile: {
    type: 'string',
    group: 'site',
    format: 'path',
    readable: true,
    defaultText: '`site.key` in the data folder, made at the first start',
    description:
      'File with the key that encrypts secrets at rest: 32 bytes in base64. Processes that share one database need the same key.',
  },
  name: {
    type: 'string',
    group: 'site',
    format: 'site-name',
    defaultText: 'the host name',
    description: 'Name of this site as people and peers see it.',
  },
  roles: {
    type: 'array',
    group: 'site',
    items: { type: 'string', enum: ROLES },
    minItems: 1,
    uniqueItems: true,
    default: ROLES,
    description: 'What this process does: answer requests, put due work on the queue, perform work.',
  },
  logLevel: {
    type: 'string',
    group: 'site',
    enum: LOG_LEVELS,
    default: 'info',
    description: 'Least level that is logged. `info` is one line per run, request or step of the life cycle.',
  },
  host: {
    type: 'string',
    group: 'server',
    format: 'host',
    default: '127.0.0.1',
    description: 'Address to listen on; 0.0.0.0 or :: for all.',
  },
  port: {
    type: 'integer',
    group: 'server',
    minimum: 0,
    maximum: 65_535,
    default: 8420,
    description: 'TCP port to listen on; 0 takes a free one.',
  },
  publicUrl: {
    type: 'string',
    group: 'server',
    format: 'http-url',
    defaultText: 'the address the server listens on',
    description: 'URL at which peers reach this site; pairing codes carry it.',
  },
  tlsCertFile: {
    type: 'string',
    group: 'server',
    format: 'path',
    readable: true,
    description: 'PEM file with the certificate chain of the server. With it the server speaks HTTPS only.',
  },
  tlsKeyFile: {
    type: 'string',
    group: 'server',
    format: 'path',
    readable: true,
    description: 'PEM file with the private key of that certificate.',
  },
  tlsClientCaFile: {
    type: 'string',
    group: 'server',
    format: 'path',
    readable: true,
    description: 'PEM file with the authorities whose client certificates are accepted (mutual TLS).',
  },
  trustProxy: {
    type: 'array',
    group: 'server',
    items: { type: 'string', format: 'network' },
    uniqueItems: true,
    default: [],
    description:
      'Reverse proxies whose X-Forwarded headers are believed: addresses, networks (10.0.0.0/8), loopback, linklocal, uniquelocal.',
  },
  proxy: {
    type: 'string',
    group: 'outgoing',
    format: 'proxy-url',
    secret: true,
    description:
      'HTTP proxy for connections to peers, such as http://user:password@proxy:3128. A peer may have its own.',
  },
  noProxy: {
    type: 'array',
    group: 'outgoing',
    items: { type: 'string', format: 'no-proxy' },
    uniqueItems: true,
    default: [],
    description:
      'Hosts reached without the proxy: names, .domains with all below them, addresses, each optionally with :port.',
  },
  caFile: {
    type: 'string',
    group: 'outgoing',
    format: 'path',
    readable: true,
    description: 'PEM file with authorities trusted for peers, besides the usual ones.',
  },
  folderRoots: {
    type: 'array',
    group: 'outgoing',
    items: { type: 'string', format: 'path' },
    uniqueItems: true,
    default: [],
    defaultText: 'none: no folder may be a peer',
    description: 'Folders in and below which peers of the type folder may be, and with them files be read and written.',
  },
  connectionsMax: {
    type: 'integer',
    group: 'limits',
    minimum: 1,
    maximum: 1000,
    default: 10,
    defaultEmbedded: 1,
    description:
      'Connections to the database that this process may hold; the embedded database has one whatever is set.',
  },
  bodyBytesMax: {
    type: 'integer',
    group: 'limits',
    minimum: 1024,
    maximum: 1_073_741_824,
    default: 67_108_864,
    description: 'Bytes of one request or answer, after decompression.',
  },
  recordBytesMax: {
    type: 'integer',
    group: 'limits',
    minimum: 1024,
    maximum: 268_435_456,
    default: 8_388_608,
    description: 'Bytes of one record as JSON. At most bodyBytesMax.',
  },
  depthMax: {
    type: 'integer',
    group: 'limits',
    minimum: 1,
    maximum: 1000,
    default: 64,
    description: 'Levels that a body may be nested.',
  },
  batchRowsMax: {
    type: 'integer',
    group: 'limits',
    minimum: 1,
    maximum: 50_000,
    default: 10_000,
    defaultEmbedded: 1000,
    description: 'Records in one batch.',
  },
  batchBytesMax: {
    type: 'integer',
    group: 'limits',
    minimum: 1024,
    maximum: 1_073_741_824,
    default: 4_194_304,
    description: 'Bytes after which a batch ends; a single larger record travels alone. At most bodyBytesMax.',
  },
  requestTimeoutMs: {
    type: 'integer',
    group: 'limits',
    minimum: 100,
    maximum: 3_600_000,
    default: 120_000,
    description: 'Milliseconds that one request may take, here and at a peer.',
  },
  clockAheadMaxMs: {
    type: 'integer',
    group: 'limits',
    minimum: 0,
    maximum: 86_400_000,
    default: 300_000,
    description:
      'Milliseconds that a change may be stamped ahead of this site; a change further ahead waits in quarantine.',
  },
  historyDays: {
    type: 'integer',
    group: 'keeping',
    minimum: 1,
    maximum: 36_500,
    default: 90,
    description: 'Days that overwritten and losing values of records are kept, for undo and explanation.',
  },
  logDays: {
    type: 'integer',
    group: 'keeping',
    minimum: 1,
    maximum: 36_500,
    default: 90,
    description: 'Days that runs and log entries are kept.',
  },
  tombstoneDays: {
    type: 'integer',
    group: 'keeping',
    minimum: 1,
    maximum: 36_500,
    default: 90,
    description:
      'Days that deletions wait for peers that have not taken them; after that only a hash of the record id is kept.',
  },
  ...ALARM_SETTINGS,
  url: {
    type: 'string',
    group: 'client',
    format: 'http-url',
    defaultText: 'the site that runs on the data folder',
    description: 'Site that the command line talks to.',
  },
  token: {
    type: 'string',
    group: 'client',
    format: 'token',
    secret: true,
    defaultText: 'the administrator token in the data folder',
    description: 'Token that the command line shows there.',
  },
} as const satisfies Record<string, Setting>

export type SettingName = keyof typeof SETTINGS

type ValueOf<S> = S extends { readonly enum: readonly (infer E)[] }
  ? E
  : S extends { readonly type: 'integer' }
    ? number
    : S extends { readonly type: 'array'; readonly items: infer I }
      ? readonly ValueOf<I>[]
      : string

/** `name` has no default in the table, but always a value: the host name. */
type Present =
  | { [K in SettingName]: (typeof SETTINGS)[K] extends { readonly default: unknown } ? K : never }[SettingName]
  | 'name'

/** The settings of one process, complete and frozen. Paths are absolute, URLs end without a slash. Secrets are in it: print `redact(config)`. */
export type Config = { readonly [K in Present]: ValueOf<(typeof SETTINGS)[K]> } & {
  readonly [K in Exclude<SettingName, Present>]?: ValueOf<(typeof SETTINGS)[K]>
}

export const SETTING_NAMES = Object.keys(SETTINGS) as SettingName[]

/** The table seen without its literal types, for code that treats all settings alike. */
export function settingOf(name: SettingName): Setting {
  return SETTINGS[name]
}
