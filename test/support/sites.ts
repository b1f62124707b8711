/**
 * Whole sites inside one test process: a database, its migrations, an identity, attached tables and peers. What travels between two of them
 * goes through the same verbs as over HTTP, without the HTTP.
 *
 *     const sites = await siteFactory(t)
 *     const [a, b] = [await sites.make('a', DDL, ['place']), await sites.make('b', DDL, ['place'])]
 *     await introduce(a, b)
 *     await a.sql('insert into place …')
 *     await syncOnce(a, b)                                        // a pulls from b, then pushes to b
 */
import { randomBytes } from 'node:crypto'
import { CompiledQuery } from 'kysely'
import pg from 'pg'
import {
  applyPull,
  attach,
  collectPush,
  createPeer,
  type ExchangeLimits,
  ensureSelf,
  loadResources,
  migrate,
  openStore,
  type Peer,
  type PullTask,
  readCheckpoint,
  receiveChanges,
  redrive,
  type Self,
  type Store,
  serveChanges,
  setGrant,
  writeCheckpoint,
} from '../../src/store/index.ts'
import { type BatchReport, changesOfLines, type LineBatch, type PutChange } from '../../src/sync/index.ts'
import { type Cluster, type Owner, startPostgres } from './postgres.ts'

export type Row = Record<string, unknown>

export type Site = {
  readonly name: string
  readonly url: string
  readonly store: Store
  readonly self: Self
  readonly key: Buffer
  /** Peers by name, as this site knows them. */
  readonly peers: Map<string, Peer>
  /** A statement of the owning application, on a connection of its own. */
  readonly sql: (text: string, values?: readonly unknown[]) => Promise<Row[]>
  /** Another connection of the application; ended with the test. */
  readonly connect: () => Promise<pg.Client>
}

export type SiteOptions = { readonly owner?: string; readonly connections?: number }

export type Sites = {
  readonly cluster: Cluster
  /** A site of its own. `tables` are attached, in one call. */
  readonly make: (name: string, ddl: string, tables?: readonly string[], options?: SiteOptions) => Promise<Site>
  /** A site on a database that exists, such as a restored one. */
  readonly open: (name: string, url: string, key?: Buffer) => Promise<Site>
}

/** Sites on one PostgreSQL cluster that lives as long as the test file. */
export async function siteFactory(t: Owner, cluster?: Cluster): Promise<Sites> {
  const server = cluster ?? (await startPostgres(t, { settings: { max_connections: 400 } }))
  const template = await server.createDatabase()
  const first = await openStore({ databaseUrl: template.url, dataDir: '/nonexistent' })
  await migrate(first)
  await first.close()
  const open: Sites['open'] = async (name, url, key = randomBytes(32)) => {
    const store = await openStore({ databaseUrl: url, dataDir: '/nonexistent', connectionsMax: 4 })
    t.teardown(() => store.close())
    await migrate(store)
    const connect = async () => {
      const client = new pg.Client({ connectionString: url })
      // A test may end the server under it.
      client.on('error', () => {})
      await client.connect()
      t.teardown(() => client.end())
      return client
    }
    const client = await connect()
    const sql: Site['sql'] = async (text, values) => (await client.query(text, values && [...values])).rows as Row[]
    const self = await ensureSelf(store.db, { name, key })
    return { name, url, store, self, key, peers: new Map(), sql, connect }
  }
  const make: Sites['make'] = async (name, ddl, tables = [], options = {}) => {
    const database = await server.createDatabase(
      options.owner === undefined ? { template: template.name } : { owner: options.owner },
    )
    const site = await open(name, database.url)
    await site.sql(ddl)
    if (tables.length > 0)
      await attach(
        site.store,
        tables.map((table) => ({ table })),
      )
    return site
  }
  return { cluster: server, make, open }
}

/** A site on the embedded database in `dataDir`. Its application shares the one connection. One at a time in a process: each takes much memory. */
export async function openEmbedded(name: string, dataDir: string, key: Buffer): Promise<Site> {
  const store = await openStore({ dataDir })
  await migrate(store)
  const self = await ensureSelf(store.db, { name, key })
  const run: Site['sql'] = async (text, values = []) =>
    (await store.db.executeQuery<Row>(CompiledQuery.raw(text, [...values]))).rows
  const connect = () => Promise.reject(new Error('the embedded database has one connection'))
  return { name, url: dataDir, store, self, key, peers: new Map(), sql: run, connect }
}

/** Registers two sites with each other; each may pull and push everything that is attached. */
export async function introduce(a: Site, b: Site): Promise<void> {
  for (const [here, there] of [
    [a, b],
    [b, a],
  ] as const) {
    const peer = await createPeer(here.store.db, here.key, { name: there.name, uuid: there.self.uuid })
    here.peers.set(there.name, peer)
    for (const { name } of await loadResources(here.store.db)) await grantAll(here, there, name)
  }
}

export async function grantAll(here: Site, there: Site, resource: string): Promise<void> {
  for (const direction of ['pull', 'push'] as const) {
    await setGrant(here.store.db, { peerId: peerOf(here, there).id, resource, direction })
  }
}

export function peerOf(here: Site, there: Site): Peer {
  const peer = here.peers.get(there.name)
  if (peer === undefined) throw new Error(`${here.name} has no peer ${there.name}`)
  return peer
}

/** The link between two sites as `here` sees it. */
export function linkOf(here: Site, there: Site) {
  return { self: here.self, peer: peerOf(here, there) }
}

export const LIMITS: ExchangeLimits = {
  batchRowsMax: 10_000,
  batchBytesMax: 4 << 20,
  recordBytesMax: 1 << 20,
  clockAheadMaxMs: 300_000,
}

export const TASK: PullTask = { onConflict: 'newer', master: null, onLeft: 'keep' }

export type SyncOptions = {
  readonly task?: Partial<PullTask>
  readonly limits?: Partial<ExchangeLimits>
  readonly resources?: readonly string[]
  readonly filter?: string
  readonly columns?: readonly string[]
  /** Applies every batch a second time, as a client would whose answer was lost. */
  readonly twice?: boolean
}

export type Travelled = {
  /** Lines that were sent, both ways. */
  lines: number
  batches: number
  readonly reports: BatchReport[]
}

/** What `here` does in one run with `there`: pulls, applies, tries quarantine again, pushes, each resource parents first. */
export async function syncOnce(here: Site, there: Site, options: SyncOptions = {}): Promise<Travelled> {
  const travelled: Travelled = { lines: 0, batches: 0, reports: [] }
  await pullAll(here, there, options, travelled)
  await pushAll(here, there, options, travelled)
  return travelled
}

export async function pullAll(
  here: Site,
  there: Site,
  options: SyncOptions = {},
  travelled: Travelled = { lines: 0, batches: 0, reports: [] },
): Promise<Travelled> {
  const limits = { ...LIMITS, ...options.limits }
  const task = { ...TASK, ...options.task }
  for (const { id, name } of await resourcesOf(here, options)) {
    let caughtUp: number | undefined
    for (;;) {
      const after = (await readCheckpoint(here.store.db, peerOf(here, there).id, id, 'pull')) ?? undefined
      const batch = await serveChanges(
        there.store,
        linkOf(there, here),
        { resource: name, after, filter: options.filter, columns: options.columns },
        limits,
      )
      if (batch.purges !== caughtUp)
        await pullPurged(here, there, { name, after, purges: batch.purges, task, options, limits })
      caughtUp = batch.purges
      for (let times = options.twice ? 2 : 1; times > 0; times--) {
        travelled.reports.push(await applyPull(here.store, linkOf(here, there), { task, batch, runId: null }, limits))
      }
      travelled.lines += batch.count
      travelled.batches++
      if (!batch.next?.more) break
    }
  }
  travelled.reports.push(await redrive(here.store, here.self, null, limits))
  return travelled
}

/** What a run does before it goes on from a place behind which tombstones were purged. */
async function pullPurged(
  here: Site,
  there: Site,
  pull: {
    readonly name: string
    readonly after: string | undefined
    readonly purges: number | undefined
    readonly task: PullTask
    readonly options: SyncOptions
    readonly limits: ExchangeLimits
  },
): Promise<void> {
  const { name, purges, task, options, limits } = pull
  for (let after = pull.after, left = purges !== undefined; left; ) {
    const request = { resource: name, after, filter: options.filter, columns: options.columns, purged: true }
    const batch = await serveChanges(there.store, linkOf(there, here), request, limits)
    await applyPull(here.store, linkOf(here, there), { task, batch, runId: null }, limits)
    left = batch.next?.more === true
    after = batch.next?.checkpoint
  }
}

export async function pushAll(
  here: Site,
  there: Site,
  options: SyncOptions = {},
  travelled: Travelled = { lines: 0, batches: 0, reports: [] },
): Promise<Travelled> {
  const limits = { ...LIMITS, ...options.limits }
  for (const { id, name } of await resourcesOf(here, options)) {
    for (;;) {
      const after = (await readCheckpoint(here.store.db, peerOf(here, there).id, id, 'push')) ?? undefined
      const request = { resource: name, after, filter: options.filter, columns: options.columns }
      const batch = await collectPush(here.store, linkOf(here, there), request, limits)
      for (let from: string | undefined = after, left = batch.purges !== undefined; left; ) {
        const page = await collectPush(
          here.store,
          linkOf(here, there),
          { ...request, after: from, purged: true },
          limits,
        )
        const push = { resource: name, batches: [page], byHand: false, runId: null }
        await receiveChanges(there.store, linkOf(there, here), push, limits)
        left = page.next?.more === true
        from = page.next?.checkpoint
      }
      for (let times = options.twice ? 2 : 1; times > 0; times--) {
        const push = { resource: name, batches: [batch], byHand: false, runId: null }
        travelled.reports.push(await receiveChanges(there.store, linkOf(there, here), push, limits))
      }
      await writeCheckpoint(
        here.store.db,
        peerOf(here, there).id,
        id,
        'push',
        (batch.next as { checkpoint: string }).checkpoint,
      )
      travelled.lines += batch.count
      travelled.batches++
      if (!batch.next?.more) break
    }
  }
  travelled.reports.push(await redrive(there.store, there.self, null, limits))
  return travelled
}

async function resourcesOf(here: Site, options: SyncOptions) {
  const all = await loadResources(here.store.db)
  return all.filter((resource) => options.resources === undefined || options.resources.includes(resource.name))
}

/** Everything that a peer would be served of a resource after a checkpoint, in batches, without remembering anything. */
export async function serveAll(
  there: Site,
  here: Site,
  resource: string,
  options: { readonly after?: string | undefined; readonly limits?: Partial<ExchangeLimits> } = {},
): Promise<{ readonly batches: readonly LineBatch[]; readonly checkpoint: string; readonly ids: readonly string[] }> {
  const batches: LineBatch[] = []
  for (let after = options.after; ; ) {
    const batch = await serveChanges(
      there.store,
      linkOf(there, here),
      { resource, after },
      { ...LIMITS, ...options.limits },
    )
    batches.push(batch)
    after = batch.next?.checkpoint
    if (batch.next?.more) continue
    const ids = batches.flatMap((each) => changesOfLines(each).map((change) => change.id))
    return { batches, checkpoint: after ?? '', ids }
  }
}

/** Sum of the counts of several reports. */
export function totalOf(travelled: Pick<Travelled, 'reports'>): BatchReport['counts'] {
  const total = { applied: 0, known: 0, skipped: 0, merged: 0, conflict: 0, quarantined: 0, refused: 0 }
  for (const { counts } of travelled.reports) {
    for (const outcome of Object.keys(total) as (keyof typeof total)[]) total[outcome] += counts[outcome]
  }
  return total
}

/** Every version of a site: resource, id, dot and deletion, in order. */
export async function versionsOf(site: Site): Promise<readonly string[]> {
  const rows = await site.sql(`
    select r.name || ' ' || c.record_id || ' ' || o.origin || ' ' || c.clock || case when c.deleted then ' deleted' else '' end as line
      from syncline.record c join syncline.resource r on r.id = c.resource_id join syncline.site o on o.id = c.origin
     order by r.name, c.record_id`)
  return rows.map((row) => row.line as string)
}

/** What the feed of a site says of one record: its version as rows of the database hold it. */
export async function recordOf(site: Site, id: string): Promise<Row | undefined> {
  const [row] = await site.sql(
    `select o.origin, c.clock::text, c.deleted, c.seen, c.source, c.xact::text from syncline.record c join syncline.site o on o.id = c.origin where c.record_id = $1`,
    [id],
  )
  return row
}

/** The one put of a batch, decoded. */
export function onlyPut(batch: LineBatch): PutChange {
  const [change, ...rest] = changesOfLines(batch)
  if (change?.kind !== 'put' || rest.length > 0) throw new Error(`not one put: ${batch.text}`)
  return change
}

/** A generator of whole numbers below a bound, the same each time for a seed. */
export function chance(seed: number): (below: number) => number {
  let state = seed
  return (below) => {
    state = (Math.imul(state, 1_664_525) + 1_013_904_223) >>> 0
    return Math.floor((state / 2 ** 32) * below)
  }
}
