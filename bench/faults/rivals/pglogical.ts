/** pglogical: PostgreSQL's logical decoding both ways, every site subscribed to every other one, the last update wins. */

import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import type { Rival, Shape, System } from '../contest.ts'
import { backUpCluster, openSqlSites, type SqlSite, startClusters } from '../sql-sites.ts'
import { clockLibrary, installDebian } from './install.ts'
import { clocksFor, type Holder, opensWith } from './opening.ts'

const SETTINGS = {
  wal_level: 'logical',
  shared_preload_libraries: 'pglogical',
  track_commit_timestamp: 'on',
  'pglogical.conflict_resolution': 'last_update_wins',
  max_worker_processes: 30,
  max_replication_slots: 20,
  max_wal_senders: 20,
  wal_retrieve_retry_interval: '500ms',
  wal_receiver_status_interval: '1s',
  // Newer builds trust only their own plugins until this names another one.
  output_plugin_libraries: 'pgoutput,test_decoding,pglogical_output',
}
/** It works by itself; a round is this wait. */
const ROUND_MS = 400

export function pglogical(): Rival {
  let root = ''
  let library: string | undefined
  return {
    name: 'pglogical',
    without: { duplicate: 'no requests: one stream whose position the database keeps' },
    install: async () => {
      const unpacked = await installDebian('pglogical')
      root = unpacked.root
      library = await clockLibrary().catch(() => undefined)
      return { version: unpacked.versions['postgresql-15-pglogical'] ?? '' }
    },
    ...opensWith((owner, shape) => openSystem(owner, shape, join(root, 'usr/lib/postgresql/15/bin'), library)),
  }
}

async function openSystem(owner: Holder, shape: Shape, binDir: string, library: string | undefined): Promise<System> {
  const clocks = await clocksFor(owner, shape, library)
  const clusters = await startClusters(owner, shape.sites, (site) => ({
    binDir,
    settings: SETTINGS,
    ...(clocks[site] && { env: clocks[site].env }),
  }))
  const sites = await openSqlSites(clusters, shape.ddl, shape.tables, async () => {})
  owner.teardown(async () => void (await Promise.all(sites.map((site) => site.disconnect()))))
  for (const { member, database, name } of sites) {
    const dsn = dsnOf(database.url)
    await member.sql('create extension pglogical')
    await member.sql(`select pglogical.create_node('${name}', '${dsn}')`)
    for (const table of shape.tables)
      await member.sql(`select pglogical.replication_set_add_table('default', '${table}')`)
  }
  for (const here of sites) {
    for (const there of sites) {
      if (here === there) continue
      await here.member.sql(`select pglogical.create_subscription('${here.name}_from_${there.name}', '${dsnOf(there.database.url)}',
        synchronize_data := false, forward_origins := '{}')`)
    }
  }
  for (const here of sites)
    for (const there of sites)
      if (here !== there)
        await here.member.sql(`select pglogical.wait_for_subscription_sync_complete('${here.name}_from_${there.name}')`)
  const subscriptions = async (change: 'enable' | 'disable') => {
    for (const here of sites)
      for (const there of sites)
        if (here !== there)
          await here.member.sql(
            `select pglogical.alter_subscription_${change}('${here.name}_from_${there.name}', true)`,
          )
    // The worker ends or begins a moment later.
    await sleep(ROUND_MS)
  }
  const restart = async ({ cluster, disconnect }: SqlSite, mode: 'fast' | 'immediate') => {
    await disconnect()
    await cluster.halt(mode)
    await cluster.resume()
  }
  return {
    members: sites.map(({ member }) => member),
    // A worker that failed or lost its server comes again after some seconds.
    quietRounds: 40,
    round: async () => {
      await sleep(ROUND_MS)
      return true
    },
    // Conflicts are lines in the server's log, without the values that gave way; what cannot be applied is an error there.
    waiting: async () => new Map(),
    kept: async () => '',
    saysEqual: async () => undefined,
    resume: async () => {
      for (const site of sites) await restart(site, 'fast')
      await sleep(1_000)
    },
    kill: (member) => restart(sites[member] as SqlSite, 'immediate'),
    revive: async () => {},
    backUp: (member) => backUpCluster(owner, sites[member] as SqlSite),
    setClock: async (member, seconds) => clocks[member]?.set(seconds),
    duplicate: async () => {},
    replay: async () => {},
    raiseLimits: async () => {},
    part: () => subscriptions('disable'),
    join: () => subscriptions('enable'),
    close: () => owner.end(),
  }
}

function dsnOf(url: string): string {
  const { hostname, port, pathname, username } = new URL(url)
  return `host=${hostname} port=${port} dbname=${pathname.slice(1)} user=${username}`
}
