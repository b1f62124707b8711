/** A simulated site: its database, its program while that lives, and the connections of its application. */
import pg from 'pg'
import { createConnections, type RunEvents, type RunnerDeps } from '../../src/client/index.ts'
import { createObserve, type Observe } from '../../src/observe/index.ts'
import { buildApp, type ServerActions } from '../../src/server/index.ts'
import {
  ensureSelf,
  markInterruptedRuns,
  migrate,
  openStore,
  readSelf,
  type Self,
  type Store,
} from '../../src/store/index.ts'
import { type Databases, KEY, originOf, SITES } from './cluster.ts'
import { machine, type Process } from './machine.ts'
import { network } from './network.ts'

/** Bounds that make batches of a few records, so that one run takes several. */
export const LIMITS = {
  bodyBytesMax: 4_000_000,
  recordBytesMax: 100_000,
  depthMax: 32,
  batchBytesMax: 100_000,
  requestTimeoutMs: 3_600_000,
  clockAheadMaxMs: 300_000,
  requestsPerMinuteMax: 1e9,
  refusalsPerMinuteMax: 1e9,
  eventLoopDelayMaxMs: 1e9,
}

/** The program of a site while it lives. */
export type Program = {
  readonly observe: Observe
  readonly process: Process
  readonly store: Store
  readonly self: Self
  readonly runner: RunnerDeps
}

export type SimSite = {
  readonly index: number
  readonly name: string
  readonly database: string
  readonly batchRowsMax: number
  program: Program | null
  /** Connections of the application: one for statements, one for a transaction that stays open. */
  app: pg.Client
  late: pg.Client
  /** How often the database was put back. */
  lives: number
}

/** What the program says went wrong in a way that it did not foresee. */
export type Alarm = (site: string, what: string) => void

export async function makeSite(
  databases: Databases,
  prefix: string,
  index: number,
  batchRowsMax: number,
): Promise<SimSite> {
  const name = SITES[index] ?? ''
  const database = `${prefix}_${name}`
  await databases.copy(database, `sim_${name}`)
  const site = { index, name, database, batchRowsMax, program: null, lives: 0 } as unknown as SimSite
  await connectApplication(databases, site)
  return site
}

async function connectApplication(databases: Databases, site: SimSite): Promise<void> {
  const connect = async () => {
    const options = '-c timezone=UTC -c lock_timeout=5ms'
    const client = new pg.Client({ connectionString: databases.url(site.database), application_name: 'app', options })
    client.on('error', () => {})
    await client.connect()
    return client
  }
  site.app = await connect()
  site.late = await connect()
}

/** Sets the clock of a site's database to the site's time. */
export async function setClock(site: SimSite): Promise<void> {
  await site.app.query(`select setval('sim.clock', ${machine.clockOf(site.name)})`)
}

/** Starts the program of a site, as `serve` does. */
export async function startProgram(databases: Databases, site: SimSite, alarm: Alarm): Promise<void> {
  const process: Process = { site: site.name, alive: true, gated: false }
  await setClock(site)
  site.program = await machine.run({ process, actor: `${site.name} starts` }, async () => {
    const limits = { ...LIMITS, batchRowsMax: site.batchRowsMax }
    const store = await openStore({
      databaseUrl: databases.url(site.database),
      dataDir: '/nonexistent',
      connectionsMax: 12,
    })
    await migrate(store)
    const self = await ensureSelf(store.db, { name: site.name, key: KEY })
    await markInterruptedRuns(store.db, { silentSeconds: 60 })
    let latest = self
    const current = async () => {
      latest = { ...self, ...(await readSelf(store.db)) }
      return latest
    }
    const observe = createObserve({
      level: 'error',
      destination: { write: (line) => internal(line, (text) => process.alive && alarm(site.name, text)) },
    })
    const settings = { ...limits, noProxy: [], logId: () => latest.logId }
    const connections = createConnections(store, KEY, settings)
    const events = observe.events as RunEvents
    const app = await buildApp({
      store,
      key: KEY,
      self: current,
      observe,
      limits,
      publicUrl: () => originOf(site.index),
      version: '0.0.0',
      trustProxy: [],
      actions: {} as ServerActions,
    })
    await app.ready()
    network.connect(originOf(site.index), { site: site.name, process, app })
    return { process, observe, store, self, runner: { store, self: current, connections, limits, events } }
  })
  process.gated = true
}

function internal(line: string, tell: (text: string) => void): void {
  const { msg, err, code, event } = JSON.parse(line) as {
    msg?: string
    event?: string
    code?: string
    err?: { message?: string; stack?: string }
  }
  if (event === 'internal.error')
    tell(`${msg ?? ''} ${code ?? ''} ${err?.message ?? ''} ${err?.stack?.split('\n').slice(1, 8).join(' | ') ?? ''}`)
}

/** Ends a program where it stands. What its connections had open is rolled back. */
export async function crash(databases: Databases, site: SimSite): Promise<void> {
  const { program } = site
  if (program === null) return
  site.program = null
  machine.kill(program.process)
  network.disconnect(program.process)
  await databases.endSessions(site.database, 'syncline')
}

/** Keeps a copy of a site's database as it is, as a dump would. The program does not run meanwhile. */
export async function keepDump(databases: Databases, site: SimSite, name: string): Promise<void> {
  await disconnectApplication(site)
  await databases.copy(name, site.database)
  await connectApplication(databases, site)
}

/** Puts an earlier copy in the place of a site's database. The program does not run meanwhile. */
export async function restoreDump(databases: Databases, site: SimSite, name: string): Promise<void> {
  await disconnectApplication(site)
  await databases.drop(site.database)
  await databases.copy(site.database, name)
  await connectApplication(databases, site)
  site.lives++
}

export async function disconnectApplication(site: SimSite): Promise<void> {
  await Promise.all([site.app.end(), site.late.end()])
}
