import { readFileSync } from 'node:fs'
import type { AddressInfo } from 'node:net'
import { setTimeout as sleep } from 'node:timers/promises'
import { alarmSettings } from './alarm-settings.ts'
import {
  addEdenPeer,
  askRecord,
  createConnections,
  createFromEden,
  createLeaseClient,
  fetchEdenFile,
  followDataset,
  joinPeer,
  type PreviewOptions,
  type PreviewReport,
  previewPeer,
  repairPeer,
  runPeer,
  verifyPeer,
} from './client/index.ts'
import { type Config, type DataDir, openDataDir } from './config/index.ts'
import { folderActions } from './folders.ts'
import { jobParts } from './job-parts.ts'
import { checkSchedule, type Jobs, peersWithTasks, type RunPeer, startJobs } from './jobs/index.ts'
import { createObserve, type Observe } from './observe/index.ts'
import { buildApp, type ServerActions, type ServerDeps } from './server/index.ts'
import {
  closeLeases,
  ensureAdministrator,
  ensureSelf,
  findPeer,
  markInterruptedRuns,
  measureStore,
  migrate,
  openStore,
  readSelf,
  type Self,
  type Store,
} from './store/index.ts'
import { SynclineError } from './sync/index.ts'
import { transferParts } from './transfer.ts'

/** A running site. */
export type Site = {
  /** Where its server listens; empty when this process does not serve. */
  readonly url: string
  readonly uuid: string
  readonly name: string
  readonly dataDir: string
  /** Only when this start made it: nobody can be shown it again, but the data folder keeps it. */
  readonly adminToken: string | undefined
  /** Runs every task now. What fails is in the log. */
  readonly runAll: () => Promise<void>
  /** Takes no more work, ends what runs at a safe point, and lets go of everything. May be called twice. */
  readonly close: () => Promise<void>
  /** Resolves when the site cannot go on. */
  readonly failed: Promise<Error>
}

/** How long running work may take to reach a safe point, and answers to be sent. */
const STOP_MS = 20_000
/** A peer that is asked while a person waits has so long to answer. */
const ASK_MS = 5_000
const CLOSE_SERVER_MS = 5_000
/** Where several processes share a database, a run that was silent for so long lost its process. */
const SILENT_SECONDS = 60
/** A new log is rare; asking for it with every request would cost more than it tells. */
const SELF_FRESH_MS = 1_000
/** How soon this process notices that another one on the same database has started, and made a new mark. */
const SELF_REFRESH_MS = 20_000

/** What is given back in reverse when the site ends or does not come up. */
type Cleanup = { readonly add: (work: () => unknown) => void; readonly run: () => Promise<void> }

/**
 * Starts a site: log, data folder, database, identity, server, schedule. Throws with nothing left open. Signals are for the caller.
 * Errors: SYNC_CONFIG_… for what the settings name, SYNC_STORE_UNAVAILABLE.
 */
export async function startSite(config: Config): Promise<Site> {
  const began = performance.now()
  const observe = createObserve({ level: config.logLevel })
  const cleanup = createCleanup()
  try {
    return await compose(config, observe, cleanup, began)
  } catch (error) {
    await cleanup.run()
    throw error
  }
}

async function compose(config: Config, observe: Observe, cleanup: Cleanup, began: number): Promise<Site> {
  const { events } = observe
  const dir = await openDataDir(config.dataDir, { keyFile: config.keyFile })
  cleanup.add(dir.release)
  const { databaseUrl, connectionsMax } = config
  const store = await openStore({ databaseUrl, dataDir: dir.path, connectionsMax })
  cleanup.add(store.close)
  cleanup.add(() => closeLeases(store))
  await prepareDatabase(store, observe)
  const self = await ensureSelf(store.db, { name: config.name, key: dir.key })
  if (self.log === 'renewed')
    events.logRenewed({ from: 'an earlier one', to: self.logId, cause: 'the database was restored or copied' })
  const current = freshSelf(store, self, events)
  const refreshing = setInterval(() => void current.read().catch(() => {}), SELF_REFRESH_MS)
  cleanup.add(() => clearInterval(refreshing))
  const admin = await ensureAdministrator(store.db, 'administrator')
  if (admin !== null) await dir.writeAdminToken(admin.token)
  // Only one process can use an embedded database: every open run lost its process.
  await markInterruptedRuns(store.db, store.server ? { silentSeconds: SILENT_SECONDS } : {})
  observe.metrics.measureWith(() => measureStore(store.db))

  const settings = {
    ...config,
    caPem: readPem(config.caFile),
    logId: () => current.latest().logId,
    uuid: self.uuid,
    mark: () => current.latest().mark,
  }
  const eden = { store, key: dir.key, settings }
  const connections = createConnections(store, dir.key, settings)
  cleanup.add(connections.close)
  const runner = { store, self: current.read, connections, limits: config, events }
  const perform: RunPeer = (peer, options) => runPeer(runner, peer, options)

  const transfers = transferParts({ store, dataDir: dir.path })

  let jobs: Jobs | undefined
  const starting = Promise.withResolvers<Jobs>()
  // Whoever asks before the jobs are there waits; when they never come, the start has failed and says so itself.
  starting.promise.catch(() => {})
  const previewSync: ServerActions['previewSync'] = async ({ peer: ref, resources, change }) => {
    const peers = ref === undefined ? await peersWithTasks(store, resources) : [await findPeer(store.db, ref)]
    // One after the other: each tries in one transaction, and the embedded database has one connection.
    const found: PreviewReport[] = []
    for (const peer of peers)
      found.push(await previewPeer(runner, peer, { resources, change: change as PreviewOptions['change'] }))
    return found
  }
  const sender = async () => {
    const { uuid, name } = await current.read()
    return { uuid, name, url: config.publicUrl ?? url }
  }
  const actions: ServerActions = {
    jobs: async () => (await starting.promise).desk,
    syncNow: async (request) => (await starting.promise).syncNow(request),
    previewSync,
    scheduleChanged: () => jobs?.scheduleChanged(),
    nextRuns: () => jobs?.nextRuns() ?? [],
    checkSchedule,
    joinPeer: async ({ code, name }) => {
      const { publicUrl } = config
      const request = { store, key: dir.key, self: await current.read(), settings, publicUrl, code, name }
      const { peer, grants } = await joinPeer(request)
      events.peerPaired({ peer: peer.name, uuid: peer.uuid, by: 'joining' })
      return { ...peer, grants }
    },
    addEdenPeer: async (request) => addEdenPeer({ ...eden, self: await current.read() }, request),
    fetchEdenFile: async ({ peer, url }) => fetchEdenFile({ ...eden, self: await current.read() }, peer, url),
    followDataset: async ({ peer, ...wish }) => followDataset({ ...eden, self: await current.read() }, peer, wish),
    ...folderActions({ store, key: dir.key, limits: config, self: current.read, connections }),
    createFromEden: async ({ peer, tables }) => createFromEden({ ...eden, self: await current.read() }, peer, tables),
    peerPolicy: async ({ peer, resource }) => {
      const found = await findPeer(store.db, peer)
      if (found.url === null) return 'unknown'
      try {
        const { client } = await connections.of(found)
        const { resources, you } = await client.greet(AbortSignal.timeout(ASK_MS))
        const { policy = null, policyOf } = resources.find(({ name }) => name === resource) ?? {}
        return policy === null ? null : { ...policy, of: policyOf, you }
      } catch {
        // Whether the policies go together is told when the peer can be reached; the task works without that.
        return 'unknown'
      }
    },
    askRecord: ({ peer, resource, id }) => askRecord({ store, connections }, peer, resource, id),
    scanHost: transfers.scanHost,
    trustHost: transfers.trustHost,
    verifyPeer: async ({ peer: ref, resources, deep, repair, preview }) => {
      const peer = await findPeer(store.db, ref)
      if (!repair) {
        const found = await verifyPeer({ store, connections }, peer, { resources, deep })
        return { peer: peer.name, resources: found, repair: null }
      }
      const { resources: found, ...done } = await repairPeer(runner, peer, { resources, deep, preview })
      return { peer: peer.name, resources: found, repair: done }
    },
  }

  const failed = Promise.withResolvers<Error>()
  const url = config.roles.includes('serve')
    ? await listen(config, { store, dir, observe, actions, self: current.read }, cleanup, failed.resolve)
    : ''
  try {
    jobs = await startJobs({
      store,
      self: current.read,
      limits: config,
      logDays: config.logDays,
      historyDays: config.historyDays,
      tombstoneDays: config.tombstoneDays,
      schedule: config.roles.includes('schedule'),
      work: config.roles.includes('work'),
      runPeer: perform,
      listen: async function* (peer, signal) {
        yield* (await connections.of(peer)).client.events(signal)
      },
      alarms: alarmSettings(config, {
        store,
        dataDir: dir.path,
        sender,
      }),
      parts: jobParts(config, {
        sender,
        transfer: transfers,
        leases: createLeaseClient({ store, key: dir.key, settings }),
        preview: (peer, resources) => previewSync({ peer, resources }),
      }),
      events,
    })
    starting.resolve(jobs)
  } catch (error) {
    starting.reject(error)
    throw error
  }
  const running = jobs
  cleanup.add(() => running.stop(STOP_MS))

  const { uuid, name } = self
  const about = { uuid, name, version: version(), database: store.server ? 'server' : 'embedded' } as const
  events.siteStarted({
    ...about,
    roles: config.roles,
    ...(url !== '' && { address: url }),
    durationMs: Math.round(performance.now() - began),
  })
  let closing: Promise<void> | undefined
  const close = async () => {
    const stopping = performance.now()
    events.siteStopping({ cause: 'asked' })
    await cleanup.run()
    events.siteStopped({ durationMs: Math.round(performance.now() - stopping) })
  }
  return {
    url,
    uuid,
    name,
    dataDir: dir.path,
    adminToken: admin?.token,
    runAll: () => runAll(running, observe),
    close: () => {
      closing ??= close()
      return closing
    },
    failed: failed.promise,
  }
}

async function prepareDatabase(store: Store, { events }: Observe): Promise<void> {
  const began = performance.now()
  const applied = await migrate(store)
  if (applied.length > 0) events.databaseMigrated({ applied, durationMs: Math.round(performance.now() - began) })
}

/** This site, read again when what is known of it is old: another process may have begun a new log. */
function freshSelf(
  store: Store,
  first: Self,
  events: Observe['events'],
): { readonly latest: () => Self; readonly read: () => Promise<Self> } {
  let known = first
  let readAt = performance.now()
  return {
    latest: () => known,
    read: async () => {
      if (performance.now() - readAt < SELF_FRESH_MS) return known
      const before = known.logId
      known = { ...known, ...(await readSelf(store.db)) }
      if (known.logId !== before)
        events.logRenewed({ from: before, to: known.logId, cause: 'the database was put back while this process ran' })
      readAt = performance.now()
      return known
    },
  }
}

type Served = Pick<ServerDeps, 'store' | 'observe' | 'actions' | 'self'> & { readonly dir: DataDir }

/** Listens, and tells the command line in the same folder where. Gives the address. */
async function listen(
  config: Config,
  { store, dir, observe, actions, self }: Served,
  cleanup: Cleanup,
  failed: (error: Error) => void,
): Promise<string> {
  let address = ''
  const { tlsCertFile, tlsKeyFile, tlsClientCaFile } = config
  const cert = readPem(tlsCertFile)
  const key = readPem(tlsKeyFile)
  const app = await buildApp({
    store,
    key: dir.key,
    self,
    observe,
    // The connections of the setting are those to the database; the server has its own bound.
    limits: serverLimits(config),
    publicUrl: () => config.publicUrl ?? address,
    version: version(),
    trustProxy: config.trustProxy,
    ...(cert !== undefined && key !== undefined && { tls: { cert, key, clientCa: readPem(tlsClientCaFile) } }),
    actions,
  })
  cleanup.add(() => Promise.race([app.close(), closeHard(app.server)]))
  await app.listen({ host: config.host, port: config.port })
  app.server.on('error', failed)
  const { port } = app.server.address() as AddressInfo
  address = `${cert === undefined ? 'http' : 'https'}://${reachable(config.host)}:${port}`
  await dir.writeAddress(address)
  return address
}

function serverLimits(config: Config): ServerDeps['limits'] {
  const { connectionsMax: _, ...limits } = config
  return limits
}

/** Who does not take the end of an answer cannot keep the site from ending. */
async function closeHard(server: { closeAllConnections(): void }): Promise<void> {
  await sleep(CLOSE_SERVER_MS, undefined, { ref: false })
  server.closeAllConnections()
}

/** An address of this machine under which a server that listens on `host` can be reached. */
function reachable(host: string): string {
  if (host === '0.0.0.0') return '127.0.0.1'
  if (host === '::') return '[::1]'
  return host.includes(':') ? `[${host}]` : host
}

async function runAll(jobs: Jobs, { events }: Observe): Promise<void> {
  for (const { reason } of (await Promise.allSettled([jobs.desk.runAll(), jobs.syncNow({ cause: 'signal' })])).filter(
    (each) => each.status === 'rejected',
  )) {
    // A site without tasks has nothing to run.
    if (reason instanceof SynclineError && reason.code === 'SYNC_REQUEST_NOT_FOUND') continue
    events.internalError({ where: 'site', err: reason })
  }
}

function createCleanup(): Cleanup {
  const works: (() => unknown)[] = []
  return {
    add: (work) => works.push(work),
    run: async () => {
      const failures: unknown[] = []
      for (let work = works.pop(); work !== undefined; work = works.pop()) {
        // One part that does not end well must not keep the others open.
        await Promise.resolve(work()).catch((error: unknown) => failures.push(error))
      }
      if (failures.length > 0) throw failures[0]
    },
  }
}

function readPem(file: string | undefined): string | undefined {
  return file === undefined ? undefined : readFileSync(file, 'utf8')
}

/** Of the program: package.json stands beside src in a checkout, and above dist in the package. */
function version(): string {
  for (const place of ['../package.json', '../../package.json']) {
    try {
      return (JSON.parse(readFileSync(new URL(place, import.meta.url), 'utf8')) as { version: string }).version
    } catch {
      // Looked for in the other place.
    }
  }
  return 'unknown'
}
