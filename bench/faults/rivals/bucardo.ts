/** Bucardo: triggers and a central daemon that writes into every database; all sites are sources of one sync, the latest change wins. */
import { execFile } from 'node:child_process'
import { chmod, mkdir, mkdtemp, readdir, readFile, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { promisify } from 'node:util'
import { plainEnvironment } from '../../../test/support/environment.ts'
import { type Cluster, type Owner, startPostgres } from '../../../test/support/postgres.ts'
import type { Rival, Shape, System } from '../contest.ts'
import { backUpCluster, openSqlSites, type SqlSite, startClusters } from '../sql-sites.ts'
import { clockLibrary, installDebian } from './install.ts'
import { clocksFor, type Holder, opensWith } from './opening.ts'

const execute = promisify(execFile)
const SETTINGS = { max_connections: 60 }
const SYNC = 'contest'
const COMMAND_MS = 30_000
/** Longest wait for one run of the sync. */
const KICK_SECONDS = 8

type Command = (...words: readonly string[]) => Promise<string>

export function bucardo(): Rival {
  let root = ''
  let library: string | undefined
  return {
    name: 'Bucardo',
    without: { duplicate: 'no requests: its daemon writes into all databases in one transaction each' },
    install: async () => {
      const unpacked = await installDebian('bucardo')
      root = unpacked.root
      library = await clockLibrary().catch(() => undefined)
      return { version: unpacked.versions.bucardo ?? '' }
    },
    ...opensWith((owner, shape) => openSystem(owner, shape, root, library)),
  }
}

async function openSystem(owner: Holder, shape: Shape, root: string, library: string | undefined): Promise<System> {
  const binDir = join(root, 'usr/lib/postgresql/15/bin')
  const clocks = await clocksFor(owner, shape, library)
  const perl = [join(root, 'usr/share/perl5'), ...(await perlFolders(root))].join(':')
  const control = await startPostgres(owner, { binDir, settings: SETTINGS, env: { PERL5LIB: perl } })
  const clusters = await startClusters(owner, shape.sites, (site) => ({
    binDir,
    settings: SETTINGS,
    ...(clocks[site] && { env: clocks[site].env }),
  }))
  const { command, folder } = await prepare(owner, control, root, binDir, perl)
  const sites = await openSqlSites(clusters, shape.ddl, shape.tables, async () => {
    await command('validate', SYNC).catch(() => '')
    await command('reload', SYNC).catch(() => '')
  })
  owner.teardown(async () => void (await Promise.all(sites.map((site) => site.disconnect()))))
  for (const { name, cluster, database } of sites)
    await command(
      'add',
      'db',
      name,
      `dbname=${database.name}`,
      `host=${cluster.host}`,
      `port=${cluster.port}`,
      'user=postgres',
    )
  await command('add', 'table', ...shape.tables, 'db=a', 'relgroup=all')
  await command('add', 'dbgroup', 'everybody', ...sites.map(({ name }) => `${name}:source`))
  await command('add', 'sync', SYNC, 'relgroup=all', 'dbs=everybody', 'conflict_strategy=bucardo_latest', 'autokick=0')
  const start = () => command('start')
  const killDaemon = () => killAll(folder)
  owner.teardown(killDaemon)
  await start()
  return {
    members: sites.map(({ member }) => member),
    quietRounds: 3,
    round: () =>
      command('kick', SYNC, String(KICK_SECONDS)).then(
        () => true,
        () => false,
      ),
    // A record that a database refuses fails the whole sync; nothing names the record but the daemon's log.
    waiting: async () => new Map(),
    kept: () => readFile(join(folder, 'conflicts'), 'utf8').catch(() => ''),
    saysEqual: async () => undefined,
    resume: async () => {
      await command('stop').catch(() => '')
      await killDaemon()
      await start()
    },
    kill: async (member, what) => {
      if (what === 'program') return killDaemon()
      const { cluster, disconnect } = sites[member] as SqlSite
      await disconnect()
      await cluster.halt('immediate')
      await cluster.resume()
    },
    revive: async () => {
      await killDaemon()
      await start()
    },
    backUp: async (member) => {
      const around = async (work: () => Promise<unknown>) => {
        await killDaemon()
        await work()
        await start()
      }
      let putBack = async () => {}
      await around(async () => {
        putBack = await backUpCluster(owner, sites[member] as SqlSite)
      })
      return () => around(() => putBack())
    },
    setClock: async (member, seconds) => clocks[member]?.set(seconds),
    duplicate: async () => {},
    replay: async () => {},
    raiseLimits: async () => {},
    part: async () => {},
    join: async () => {},
    close: () => owner.end(),
  }
}

/** Bucardo's own database, and its program with everything unpacked beside it. */
async function prepare(owner: Owner, control: Cluster, root: string, binDir: string, perl: string) {
  const folder = await mkdtemp(join(tmpdir(), 'syncline-bucardo-'))
  owner.teardown(() => rm(folder, { recursive: true, force: true }))
  await chmod(folder, 0o777)
  await mkdir(join(folder, 'log'))
  const env = plainEnvironment({
    PERL5LIB: perl,
    PATH: `${binDir}:${process.env.PATH}`,
    PGHOST: control.host,
    PGPORT: String(control.port),
    PGUSER: 'postgres',
    HOME: folder,
  })
  const common = [
    '--dbhost',
    control.host,
    '--dbport',
    String(control.port),
    '--dbuser',
    'postgres',
    '--dbname',
    'bucardo',
  ]
  const places = ['--piddir', folder, '--log-destination', join(folder, 'log'), '--quiet']
  const program = join(root, 'usr/bin/bucardo')
  const command: Command = async (...words) => {
    const args = [program, ...common, ...places, ...words]
    const { stdout, stderr } = await execute('perl', args, {
      env,
      cwd: join(root, 'usr/share/bucardo'),
      timeout: COMMAND_MS,
    })
    return stdout + stderr
  }
  await command('install', '--batch')
  await command(
    'set',
    `reason_file=${join(folder, 'reason')}`,
    `piddir=${folder}`,
    `log_conflict_file=${join(folder, 'conflicts')}`,
  )
  return { command, folder }
}

async function perlFolders(root: string): Promise<string[]> {
  const folders: string[] = []
  for (const machine of await readdir(join(root, 'usr/lib'))) {
    const perl = join(root, 'usr/lib', machine, 'perl5')
    for (const version of await readdir(perl).catch(() => [])) folders.push(join(perl, version))
  }
  return folders
}

/** Every process of the daemon says its number in a file of its folder. */
async function killAll(folder: string): Promise<void> {
  for (const name of await readdir(folder).catch(() => [])) {
    if (!name.endsWith('.pid')) continue
    const pid = Number.parseInt(await readFile(join(folder, name), 'utf8').catch(() => ''), 10)
    try {
      if (pid > 1) process.kill(pid, 'SIGKILL')
    } catch {
      // It has ended by itself.
    }
    await rm(join(folder, name), { force: true })
  }
}
