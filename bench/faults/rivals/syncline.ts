/** Syncline itself: a process and a PostgreSQL for each site, HTTP between them, everything else as an operator finds it after `serve`. */
import { setTimeout as sleep } from 'node:timers/promises'
import type { Cluster, Owner } from '../../../test/support/postgres.ts'
import { type RunView, type SiteProcess, startSiteProcess } from '../../../test/support/site-process.ts'
import type { Rival, Shape, System } from '../contest.ts'
import { endAll } from '../endings.ts'
import { backUpCluster, NAMES, openSqlSites, type SqlSite, startClusters } from '../sql-sites.ts'
import { repeating, startWire, type Wire } from '../wire.ts'
import { clockLibrary } from './install.ts'
import { clocksFor, type Holder, openOrEnd } from './opening.ts'

const SETTINGS = { max_connections: 60 }
const BUSY_TRIES = 20
const MERGE_PATCH = { 'if-match': '*', 'content-type': 'application/merge-patch+json' }

type Link = { readonly from: SiteProcess; readonly to: SiteProcess; readonly wire: Wire }
type Comparison = { readonly resources: readonly { readonly equal: boolean }[] }
type Page = { readonly items: readonly Record<string, unknown>[] }

export function syncline(version: string): Rival {
  const keep = endAll()
  let clusters: Cluster[] = []
  let library: string | undefined
  const without: { clock?: string } = {}
  return {
    name: 'Syncline',
    without,
    install: async () => {
      library = await clockLibrary().catch((error: Error) => {
        without.clock = `needs libfaketime: ${error.message}`
        return undefined
      })
      return { version }
    },
    open: (shape) =>
      openOrEnd(async (owner) => {
        // A clock or a backup is for a cluster of its own; the others serve one scenario after the other.
        const own = shape.needs.includes('clock') || shape.needs.includes('backup')
        if (!own && clusters.length < shape.sites) {
          const more = await startClusters(keep, shape.sites - clusters.length, () => ({ settings: SETTINGS }))
          clusters = [...clusters, ...more]
        }
        return openSystem(owner, shape, own ? undefined : clusters.slice(0, shape.sites), library)
      }),
    end: () => keep.end(),
  }
}

async function openSystem(
  owner: Holder,
  shape: Shape,
  shared: readonly Cluster[] | undefined,
  library: string | undefined,
): Promise<System> {
  const names = NAMES.slice(0, shape.sites)
  const clocks = await clocksFor(owner, shape, library)
  const clusters =
    shared ??
    (await startClusters(owner, shape.sites, (site) => ({
      settings: SETTINGS,
      ...(clocks[site] && { env: clocks[site].env }),
    })))
  const attach = (site: number) =>
    (processes[site] as SiteProcess).api(
      'POST',
      '/resources',
      { tables: shape.tables.map((table) => ({ table, key: 'id' })) },
      { prefer: 'wait' },
    )
  const sites = await openSqlSites(clusters, shape.ddl, shape.tables, async (site) => void (await attach(site)))
  owner.teardown(async () => void (await Promise.all(sites.map((site) => site.disconnect()))))
  const processes = await Promise.all(
    names.map(async (name, site) =>
      patient(
        await startSiteProcess(owner, {
          name,
          databaseUrl: (sites[site] as SqlSite).database.url,
          env: { SYNCLINE_LOG_LEVEL: 'info', ...clocks[site]?.env },
        }),
      ),
    ),
  )
  await Promise.all(processes.map((_, site) => attach(site)))
  const links = await connect(owner, processes, shape)
  return {
    members: sites.map(({ member }) => member),
    quietRounds: 3,
    round: async () => {
      const results: boolean[] = []
      for (const { from, to } of links) results.push(await synced(from, to.name))
      return results.every(Boolean)
    },
    waiting: () => waitingOf(processes),
    kept: (key) => keptOf(processes, key),
    saysEqual: async () => {
      const reports: Comparison[] = []
      for (const { from, to } of links) reports.push(await from.api('POST', `/peers/${to.name}/verify`, { deep: true }))
      return reports.every(({ resources }) => resources.every(({ equal }) => equal))
    },
    resume: async () => {
      for (const { api } of processes) {
        const { items } = await api<Page>('GET', '/quarantine?limit=100')
        // One entry may bring in the others that waited for it.
        for (const { id } of items) await api('POST', `/quarantine/${id}/retry`).catch(() => {})
      }
    },
    kill: async (member, what) => {
      if (what === 'program') return (processes[member] as SiteProcess).kill()
      const { cluster, disconnect } = sites[member] as SqlSite
      await disconnect()
      await cluster.halt('immediate')
      await cluster.resume()
    },
    revive: async () => {
      for (const each of processes) {
        await each.kill()
        await each.start()
      }
    },
    backUp: async (member) => {
      const each = processes[member] as SiteProcess
      await each.stop()
      const putBack = await backUpCluster(owner, sites[member] as SqlSite)
      await each.start()
      return async () => {
        await each.stop()
        await putBack()
        await each.start()
      }
    },
    setClock: async (member, seconds) => clocks[member]?.set(seconds),
    ...repeating(links),
    raiseLimits: async () => {
      // The limit is a setting that a site reads when it starts.
      for (const each of processes) {
        await each.stop()
        each.env.SYNCLINE_RECORD_BYTES_MAX = String(64 << 20)
        await each.start()
      }
    },
    part: async () => {},
    join: async () => {},
    close: () => owner.end(),
  }
}

/** One code a link, two commands: a pair, or a ring when there are three. */
async function connect(owner: Owner, processes: readonly SiteProcess[], shape: Shape): Promise<readonly Link[]> {
  const links: Link[] = []
  const pairs =
    shape.sites === 2
      ? [[1, 0]]
      : [
          [1, 0],
          [2, 1],
          [0, 2],
        ]
  for (const [here = 0, there = 0] of pairs) {
    const [from, to] = [processes[here] as SiteProcess, processes[there] as SiteProcess]
    const invitation = { name: from.name, pull: shape.tables, push: shape.tables }
    const { code } = await to.api<{ code: string }>('POST', '/invitations', invitation)
    await from.api('POST', '/peers/join', { code, name: to.name })
    const wire = await startWire(owner, to.url)
    await from.api('PATCH', `/peers/${to.name}`, { url: wire.url }, MERGE_PATCH)
    for (const resource of shape.tables) await from.api('POST', '/tasks', { peer: to.name, resource, mode: 'both' })
    links.push({ from, to, wire })
  }
  return links
}

/** A client that comes again when a site says that it is busy, as the answer asks it to. */
function patient(site: SiteProcess): SiteProcess {
  const api: SiteProcess['api'] = async (...request) => {
    for (let tries = 1; ; tries++) {
      try {
        return await site.api(...request)
      } catch (error) {
        if (tries === BUSY_TRIES || !String(error).includes('SYNC_REQUEST_OVERLOADED')) throw error
        await sleep(500)
      }
    }
  }
  return { ...site, api }
}

async function synced(from: SiteProcess, peer: string): Promise<boolean> {
  try {
    const run: RunView = await from.sync(peer)
    return run.result === 'success'
  } catch {
    return false
  }
}

/** Quarantine and open conflicts of all sites: what the console and `syncline status` show. */
async function waitingOf(processes: readonly SiteProcess[]): Promise<ReadonlyMap<string, string>> {
  const waiting = new Map<string, string>()
  for (const { api, name } of processes) {
    const { items } = await api<Page>('GET', '/quarantine?limit=100')
    for (const each of items) waiting.set(`${each.resource}/${each.recordId}`, `${each.code} at ${name}`)
    const conflicts = await api<Page>('GET', '/conflicts?open=true&limit=100')
    for (const each of conflicts.items) waiting.set(`${each.resource}/${each.recordId}`, `conflict at ${name}`)
  }
  return waiting
}

async function keptOf(processes: readonly SiteProcess[], key: string): Promise<string> {
  const [table = '', id = ''] = [key.slice(0, key.indexOf('/')), key.slice(key.indexOf('/') + 1)]
  const texts: string[] = []
  for (const { api } of processes) {
    const history = await api('GET', `/records/${table}/${encodeURIComponent(id)}/history`).catch(() => ({}))
    texts.push(JSON.stringify(history))
  }
  return texts.join('\n')
}
