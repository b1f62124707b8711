/**
 * A real PostgreSQL of its own for a test file, with no state installed by hand: `startPostgres(t)` makes a private cluster under the
 * temporary folder on a free port of 127.0.0.1 and removes it at teardown. A watchdog process removes it even when the test is killed.
 *
 *     const cluster = await startPostgres(t)
 *     const database = await cluster.createDatabase()             // { name, url, drop }
 *     const copy = await cluster.createDatabase({ template: database.name })
 *     const role = await cluster.createRole()                     // a plain role: no superuser, no createdb
 *     const owned = await cluster.createDatabase({ owner: role }) // owned.url connects as that role
 *     await cluster.restore(copy.name, await cluster.dump(owned.name))
 *
 * Making a cluster takes well under a second, a database from a template about 50 ms: one cluster per test file, one template per file.
 */
import { type ChildProcess, execFile, spawn } from 'node:child_process'
import { randomInt } from 'node:crypto'
import { existsSync, readdirSync, readFileSync } from 'node:fs'
import { chmod, chown, mkdtemp, readFile, rm } from 'node:fs/promises'
import { createServer } from 'node:net'
import { tmpdir } from 'node:os'
import { delimiter, join } from 'node:path'
import pg from 'pg'

export type ClusterOptions = {
  /** Wait for the disk at every commit, as in production, which benches want. Without it a commit outlives the server, not the machine. */
  readonly fsync?: boolean
  /** Server settings, such as `{ wal_level: 'logical' }`; they win over the ones chosen here. */
  readonly settings?: Readonly<Record<string, string | number>>
  /** Folder of the server's programs; default the newest on this machine. */
  readonly binDir?: string
  /** Environment of the server in addition to the own one, such as a clock of its own. */
  readonly env?: Readonly<Record<string, string>>
}

export type DatabaseOptions = {
  /** Database to copy, with all it holds; nobody may be connected to it. */
  readonly template?: string
  /** Role that owns the database and that `url` connects as; default the superuser. */
  readonly owner?: string
}

export type TestDatabase = {
  readonly name: string
  readonly url: string
  /** Ends every connection and removes the database. Not needed at the end of a test file. */
  readonly drop: () => Promise<void>
}

export type Cluster = {
  readonly host: string
  readonly port: number
  /** Major version, such as 15. */
  readonly version: number
  /** Data folder; its files belong to the system user that runs the server. */
  readonly dataDir: string
  /** Connection string of a database, as `role` or as the superuser. Any role is let in without a password. */
  readonly url: (database: string, role?: string) => string
  readonly createDatabase: (options?: DatabaseOptions) => Promise<TestDatabase>
  /** A new login role. `attributes` is SQL, such as `createdb replication`; default none. */
  readonly createRole: (attributes?: string) => Promise<string>
  /** Runs SQL as the superuser and returns its rows; for statements about the cluster or a database as a whole. */
  readonly query: (database: string, text: string) => Promise<Record<string, unknown>[]>
  /** Path of a program of this PostgreSQL, such as `pg_dump`. */
  readonly bin: (name: string) => string
  /** Runs a client program with PGHOST, PGPORT and PGUSER set; resolves with what it wrote to standard output. */
  readonly run: (name: string, args: readonly string[], input?: Buffer) => Promise<Buffer>
  readonly dump: (database: string) => Promise<Buffer>
  /** Restores a dump into an existing, empty database. */
  readonly restore: (database: string, dump: Buffer) => Promise<void>
  /** Stops the server: `fast` ends connections and checkpoints, `immediate` is a crash that the next start recovers from. */
  readonly halt: (mode: 'fast' | 'immediate') => Promise<void>
  /** Starts a halted server again on the same port. */
  readonly resume: () => Promise<void>
}

/** What a cluster needs of a test: a place to put its end. */
export type Owner = { readonly teardown: (handler: () => Promise<void>) => void }

type SystemUser = { readonly uid: number; readonly gid: number }

const HOST = '127.0.0.1'
const SUPERUSER = 'postgres'
const START_TRIES = 5

/** Starts a private cluster that lives until the teardown of `t`. */
export async function startPostgres(t: Owner, options: ClusterOptions = {}): Promise<Cluster> {
  const binDir = options.binDir ?? findBinaries()
  const user = serverUser()
  const home = await mkdtemp(join(tmpdir(), 'syncline-postgres-'))
  if (user !== undefined) await chown(home, user.uid, user.gid)
  await chmod(home, 0o755)
  const dataDir = join(home, 'data')
  const watchdog = startWatchdog(binDir, home, user)
  t.teardown(() => endWatchdog(watchdog, home))

  const locale = process.platform === 'linux' ? 'C.UTF-8' : 'C'
  const initdb = ['-D', dataDir, '-U', SUPERUSER, '-A', 'trust', '-E', 'UTF8', `--locale=${locale}`, '--no-sync']
  await execute(join(binDir, 'initdb'), initdb, { user })
  const version = Number.parseInt(readFileSync(join(dataDir, 'PG_VERSION'), 'utf8'), 10)
  const control = (...args: string[]) =>
    execute(join(binDir, 'pg_ctl'), ['-D', dataDir, '-s', '-w', ...args], {
      user,
      ...(options.env && { env: { ...process.env, ...options.env } }),
    })
  const start = (port: number) =>
    control('-t', '60', '-l', join(home, 'log'), '-o', serverArguments(port, options), 'start')
  const port = await startOnFreePort(start, join(home, 'log'))

  const url = (database: string, role = SUPERUSER) => `postgres://${role}@${HOST}:${port}/${database}`
  const bin = (name: string) => join(binDir, name)
  const run = (name: string, args: readonly string[], input?: Buffer) => {
    const env = { ...process.env, PGHOST: HOST, PGPORT: String(port), PGUSER: SUPERUSER }
    return execute(bin(name), args, { env, input })
  }
  const query = async (database: string, text: string) => {
    const client = new pg.Client({ connectionString: url(database) })
    await client.connect()
    try {
      const { rows } = await client.query<Record<string, unknown>>(text)
      return rows
    } finally {
      await client.end()
    }
  }
  let serial = 0
  const createDatabase = async ({ template, owner }: DatabaseOptions = {}): Promise<TestDatabase> => {
    const name = `test_${++serial}`
    const clauses = [template && `template ${quote(template)}`, owner && `owner ${quote(owner)}`].filter(Boolean)
    await query('postgres', `create database ${quote(name)} ${clauses.join(' ')}`)
    const drop = async () => void (await query('postgres', `drop database if exists ${quote(name)} with (force)`))
    return { name, url: url(name, owner), drop }
  }
  const createRole = async (attributes = '') => {
    const name = `role_${++serial}`
    await query('postgres', `create role ${quote(name)} login ${attributes}`)
    return name
  }
  return {
    host: HOST,
    port,
    version,
    dataDir,
    url,
    createDatabase,
    createRole,
    query,
    bin,
    run,
    dump: (database) => run('pg_dump', ['-Fc', '-d', database]),
    restore: async (database, dump) => void (await run('pg_restore', ['--exit-on-error', '-d', database], dump)),
    halt: async (mode) => void (await control('-m', mode, 'stop')),
    resume: async () => void (await start(port)),
  }
}

/** Folder of the newest server on this machine; `SYNCLINE_TEST_POSTGRES_BIN` names another one. */
export function findBinaries(): string {
  const named = process.env.SYNCLINE_TEST_POSTGRES_BIN
  const debian = '/usr/lib/postgresql'
  const versions = existsSync(debian) ? readdirSync(debian).sort((a, b) => Number(b) - Number(a)) : []
  const folders = named ? [named] : versions.map((version) => join(debian, version, 'bin'))
  if (!named) folders.push(...(process.env.PATH ?? '').split(delimiter).filter(Boolean))
  const found = folders.find((folder) =>
    ['initdb', 'pg_ctl', 'postgres'].every((name) => existsSync(join(folder, name))),
  )
  if (found !== undefined) return found
  throw new Error(`No PostgreSQL server in ${named ?? `${debian} or PATH`}: apt-get install postgresql`)
}

/** PostgreSQL refuses to run as root: then the system user to run it as; undefined for anybody else. */
function serverUser(): SystemUser | undefined {
  if (process.getuid?.() !== 0) return undefined
  const users = readFileSync('/etc/passwd', 'utf8').split('\n')
  for (const name of ['postgres', 'nobody']) {
    const fields = users.find((line) => line.startsWith(`${name}:`))?.split(':')
    if (fields !== undefined) return { uid: Number(fields[2]), gid: Number(fields[3]) }
  }
  throw new Error('PostgreSQL cannot run as root, and this system has no user named postgres or nobody')
}

/** Arguments for `postgres`, as one text that pg_ctl hands to a shell. */
function serverArguments(port: number, { fsync = false, settings = {} }: ClusterOptions): string {
  const onOff = fsync ? 'on' : 'off'
  const all = {
    listen_addresses: HOST,
    port,
    unix_socket_directories: '',
    fsync: onOff,
    full_page_writes: onOff,
    max_connections: 100,
    shared_buffers: '64MB',
    max_wal_size: '4GB',
    ...settings,
  }
  return Object.entries(all)
    .map(([name, value]) => `-c '${name}=${value}'`)
    .join(' ')
}

/** Between finding a free port and using it another process may take it; then the next one is tried. */
async function startOnFreePort(start: (port: number) => Promise<unknown>, logFile: string): Promise<number> {
  for (let tries = 1; ; tries++) {
    const port = await freePort()
    try {
      await start(port)
      return port
    } catch (cause) {
      const log = await readFile(logFile, 'utf8').catch(() => '')
      if (tries === START_TRIES) throw new Error(`PostgreSQL did not start:\n${log}`, { cause })
    }
  }
}

/** Ports that no system gives away by itself, to listeners or to connections that go out: between looking and using nobody gets one by chance. */
const PORTS = { first: 11_000, last: 32_000 }

/** A TCP port of 127.0.0.1 that nobody listens on. It may be left and taken again. */
export async function freePort(): Promise<number> {
  for (let tries = 0; tries < 100; tries++) {
    const port = randomInt(PORTS.first, PORTS.last)
    const server = createServer()
    const free = await new Promise<boolean>((resolve) =>
      server.once('error', () => resolve(false)).listen(port, HOST, () => resolve(true)),
    )
    if (!free) continue
    await new Promise((resolve) => server.close(resolve))
    return port
  }
  throw new Error('No port is free')
}

/**
 * A process of its own that waits for the end of its standard input, which comes when this process ends in whatever way; then it crashes
 * the server and removes its folder. Detached, so that Ctrl-C at the terminal does not end it too early.
 */
function startWatchdog(binDir: string, home: string, user: SystemUser | undefined): ChildProcess {
  const script = 'cat >/dev/null; "$1/pg_ctl" -D "$2/data" -s -w -m immediate stop; rm -rf "$2"'
  const child = spawn('/bin/sh', ['-c', script, 'sh', binDir, home], {
    ...user,
    detached: true,
    cwd: '/',
    stdio: ['pipe', 'ignore', 'ignore'],
  })
  child.unref()
  return child
}

async function endWatchdog(watchdog: ChildProcess, home: string): Promise<void> {
  const ended = new Promise<void>((resolve) => watchdog.once('exit', () => resolve()))
  watchdog.ref()
  watchdog.stdin?.end()
  if (watchdog.exitCode === null && watchdog.signalCode === null) await ended
  await rm(home, { recursive: true, force: true })
}

type Execution = {
  readonly user?: SystemUser | undefined
  readonly env?: NodeJS.ProcessEnv
  readonly input?: Buffer | undefined
}

/** Runs a program to its end; a failure carries what it wrote to standard error. */
function execute(file: string, args: readonly string[], { user, env, input }: Execution): Promise<Buffer> {
  return new Promise((resolve, reject) => {
    const options = { ...user, ...(env && { env }), cwd: '/', encoding: 'buffer' as const, maxBuffer: 1024 ** 3 }
    const child = execFile(file, args, options, (error, stdout, stderr) => {
      if (error) reject(new Error(`${file} failed: ${stderr.toString().trim()}`, { cause: error }))
      else resolve(stdout)
    })
    // A program that fails early closes its input; its exit code tells that better than the broken pipe.
    child.stdin?.on('error', () => {})
    child.stdin?.end(input)
  })
}

function quote(identifier: string): string {
  return `"${identifier.replaceAll('"', '""')}"`
}
