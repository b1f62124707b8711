import { type Kysely, sql } from 'kysely'
import {
  changesOfLines,
  type FilteredPart,
  type FilterTree,
  filterColumns,
  formatFilter,
  type HorizonHolder,
  type Position,
  parseCheckpoint,
  parseFilter,
  type ReachFacts,
} from '../sync/index.ts'
import { brakesWith } from './brakes.ts'
import { captureFaults } from './capture.ts'
import { checkpointsOf } from './checkpoints.ts'
import { SENT_ID_BYTES_MAX } from './collect.ts'
import type { Store } from './database.ts'
import { digestRecords } from './digests.ts'
import { attachCommand } from './mends.ts'
import { wasPurged } from './purged.ts'
import { readRecord, storedId } from './records.ts'
import { findGrant, findTaskFor, isoTime, type Peer, readSelf, type Task } from './registry/index.ts'
import { liveTable, loadResources, type ResourceInfo, sentColumns } from './resources.ts'
import type { Database } from './schema.ts'
import { compileFilter, joinFilters, scopeMark } from './scope.ts'

/** Transactions named that hold the order of changes back. */
const HOLDERS_MAX = 5
/** Records that lie between a record id and the one that `rangeOf` begins at: practically none. */
const NEAR_MAX = 1_000

/** What this site knows of a record and of the ways between it and a peer; all of `ReachFacts` but what the peer itself says. */
export async function gatherReach(
  store: Store,
  peer: Peer,
  resource: ResourceInfo,
  id: string,
): Promise<Omit<ReachFacts, 'asked'>> {
  const { db } = store
  const stored = storedId(resource, id)
  const [task, pull, push] = await Promise.all([
    findTaskFor(db, peer.id, resource.name),
    findGrant(db, peer.id, resource.name, 'pull'),
    findGrant(db, peer.id, resource.name, 'push'),
  ])
  const pushes = task?.enabled === true && task.mode !== 'pull'
  const record = await readPlace(db, resource, stored)
  const rules = pushes ? ([['task', task]] as const) : pull === null ? [] : ([['grant', pull]] as const)
  const living = record !== null && !record.deleted
  const filtered: FilteredPart[] = []
  for (const [of, { filter }] of living ? rules : [])
    if (filter !== null) filtered.push(...(await unmatched(store, resource, stored, of, filter)))
  const kept = rules.flatMap(([, { columns }]) =>
    columns === null ? [] : sentColumns(resource).filter(({ name }) => !columns.includes(name)),
  )
  const faults = await captureFaults(db, resource)
  const brakes = await brakesWith(db, peer.id)
  return {
    peer: peer.name,
    resource: resource.name,
    id: stored,
    idBytes: Buffer.byteLength(stored),
    idBytesMax: SENT_ID_BYTES_MAX,
    record:
      record === null
        ? null
        : { deleted: record.deleted, cameFromPeer: record.via === peer.siteId, position: record.position },
    row: await hasRow(db, resource, stored),
    purged: await wasPurged(db, resource, stored),
    captureFault:
      faults.length === 0
        ? null
        : faults.map(({ table, fault, mend }) => `${table}: ${fault}; to mend: ${mend}`).join('; '),
    attach: attachCommand(resource),
    link: {
      paused: peer.paused,
      lastSeenAt: peer.lastSeenAt,
      failures: peer.failures,
      retryAt: peer.retryAt,
    },
    task:
      task === null ? null : { mode: task.mode, enabled: task.enabled, schedule: task.schedule, filter: task.filter },
    grants: { pull: pull !== null, push: push !== null },
    filtered,
    columnsKept: kept.map(({ name }) => name),
    brakes: brakes
      .filter((brake) => brake.releasedAt === null && (brake.resource === null || brake.resource === resource.name))
      .map(({ direction, reason, token }) => ({ direction, reason, token })),
    ...(await waitingOf(db, peer, resource, stored)),
    ...(await reachedOf(db, peer, resource, task)),
    heldBy: record === null || !record.held ? [] : await holders(db),
  }
}

/** The digest of a record as both sites make it, null where none lives here; and the range that holds it alone. */
export async function digestOfRecord(
  store: Store,
  resource: ResourceInfo,
  id: string,
): Promise<{ readonly from: string | null; readonly to: string; readonly hash: string | null }> {
  const to = storedId(resource, id)
  const from = justBefore(to)
  const found = await digestRecords(store.db, { resource }, { from, to }, NEAR_MAX)
  return { from, to, hash: found.find((each) => each.id === to)?.hash ?? null }
}

/** A text with nothing but `id`, and what nobody calls a record, between it and `id`. */
export function justBefore(id: string): string | null {
  const last = [...id].at(-1)
  if (last === undefined) return null
  const head = id.slice(0, id.length - last.length)
  const code = last.codePointAt(0) ?? 0
  if (code <= 1) return head === '' ? null : head
  // Code points of surrogates are no characters.
  const before = String.fromCodePoint(code - 1 >= 0xd800 && code - 1 <= 0xdfff ? 0xd7ff : code - 1)
  const tail = Buffer.byteLength(head) > 600 ? '' : '\u{10ffff}'
  return `${head}${before}${tail}`
}

type Place = {
  readonly deleted: boolean
  readonly via: number | null
  readonly position: Position
  readonly held: boolean
}

async function readPlace(db: Kysely<Database>, resource: ResourceInfo, id: string): Promise<Place | null> {
  const { rows } = await sql<{ deleted: boolean; via: number | null; xact: string; held: boolean }>`
    select r.deleted, r.source as via, r.xact::text, r.xact >= pg_snapshot_xmin(pg_current_snapshot()) as held
      from syncline.record r where r.resource_id = ${resource.id} and r.record_id = ${id} collate "C"`.execute(db)
  const [row] = rows
  if (row === undefined) return null
  const { deleted, via, xact, held } = row
  return { deleted, via, held, position: { xact, recordId: id } }
}

/** Text that is no identity of this table is no row of it. */
async function hasRow(db: Kysely<Database>, resource: ResourceInfo, id: string): Promise<boolean> {
  const { rows } = await sql<{ found: boolean }>`
    select exists (select from ${sql.raw(liveTable(resource))} t where t.${sql.id(resource.keyColumn)}::text = ${id}) as found`.execute(
    db,
  )
  return rows[0]?.found ?? false
}

/** The parts of a filter, joined by "and", that a record does not match, each with what the record has there. */
async function unmatched(
  store: Store,
  resource: ResourceInfo,
  id: string,
  of: 'task' | 'grant',
  text: string,
): Promise<readonly FilteredPart[]> {
  const tree = parseFilter(text)
  const trees: readonly FilterTree[] = tree.kind === 'and' ? tree.trees : [tree]
  const parts: FilteredPart[] = []
  for (const each of trees) {
    const part = formatFilter(each)
    const condition = await compileFilter(store, resource, part)
    const { rows } = await sql<{ matches: boolean }>`
      select coalesce(${condition}, false) as matches from ${sql.raw(liveTable(resource))} t
       where t.${sql.id(resource.keyColumn)}::text = ${id}`.execute(store.db)
    if (rows[0]?.matches === false) parts.push({ of, part, values: await valuesFor(store, resource, id, each) })
  }
  return parts
}

async function valuesFor(
  store: Store,
  resource: ResourceInfo,
  id: string,
  tree: FilterTree,
): Promise<Readonly<Record<string, unknown>>> {
  const own = await valuesOf(store.db, resource, id)
  const values: Record<string, unknown> = {}
  for (const { reference, name } of filterColumns(tree)) {
    if (reference === undefined) {
      values[name] = name === 'id' && !(name in own) ? id : own[name]
      continue
    }
    const link = resource.references.find(
      ({ column }) => column.name === reference || column.name === `${reference}_id`,
    )
    const target = (await loadResources(store.db)).find(({ id: each }) => each === link?.resourceId)
    const targetId = link === undefined ? undefined : own[link.column.name]
    const there = target === undefined || typeof targetId !== 'string' ? {} : await valuesOf(store.db, target, targetId)
    values[`${reference}.${name}`] = name === 'id' ? targetId : there[name]
  }
  return values
}

/** Values of a record by column, references as record ids; empty for one that does not live here. */
async function valuesOf(db: Kysely<Database>, resource: ResourceInfo, id: string): Promise<Record<string, unknown>> {
  const batch = await readRecord(db, resource, id)
  const [change] = batch === null ? [] : changesOfLines(batch)
  if (change?.kind !== 'put') return {}
  const refs = Object.entries(change.refs ?? {}).map(([name, target]) => [name, target?.id ?? null])
  return { [resource.keyColumn]: id, ...change.data, ...Object.fromEntries(refs) }
}

async function waitingOf(
  db: Kysely<Database>,
  peer: Peer,
  resource: ResourceInfo,
  id: string,
): Promise<Pick<ReachFacts, 'quarantine' | 'elsewhere' | 'openConflict'>> {
  const of = sql`resource_id = ${resource.id} and record_id = ${id} collate "C"`
  const quarantine = await sql<NonNullable<ReachFacts['quarantine']>>`
    select code, reason, attempts from syncline.quarantine where peer_id = ${peer.id} and ${of}`.execute(db)
  const elsewhere = await sql<NonNullable<ReachFacts['elsewhere']>>`
    select outcome, code, reason from syncline.elsewhere where peer_id = ${peer.id} and ${of}`.execute(db)
  const conflict = await sql<{ id: string }>`
    select id from syncline.conflict where resolved_at is null and ${of}`.execute(db)
  return {
    quarantine: quarantine.rows[0] ?? null,
    elsewhere: elsewhere.rows[0] ?? null,
    openConflict: conflict.rows[0]?.id ?? null,
  }
}

/** How far the peer is, in this site's order as it is now. A checkpoint of another log or scope begins anew. */
async function reachedOf(
  db: Kysely<Database>,
  peer: Peer,
  resource: ResourceInfo,
  task: Task | null,
): Promise<Pick<ReachFacts, 'pushed' | 'acknowledged' | 'pulledAt'>> {
  const { logId } = await readSelf(db)
  const found = (await checkpointsOf(db, peer.id)).get(resource.name) ?? {}
  const scope = task === null ? '' : scopeMark(joinFilters([task.filter]), task.columns)
  const place = (text: string | undefined, fits: (mark: string) => boolean): Position | null => {
    if (text === undefined) return null
    const { logId: of, position } = parseCheckpoint(text)
    const [log, mark] = of.split('.')
    return log === logId && fits(mark === undefined ? '' : `.${mark}`) ? position : null
  }
  const { rows } = await sql<{ at: string }>`
    select at from syncline.checkpoint where peer_id = ${peer.id} and resource_id = ${resource.id} and direction = 'pull'`.execute(
    db,
  )
  return {
    pushed: place(found.push, (mark) => mark === scope),
    acknowledged: place(found.ack, () => true),
    pulledAt: isoTime(rows[0]?.at ?? null),
  }
}

/** The open write transactions of the cluster, oldest first: what they keep from being read waits for them. */
async function holders(db: Kysely<Database>): Promise<readonly HorizonHolder[]> {
  const { rows } = await sql<HorizonHolder & { since: string | null }>`
    select pid, coalesce(application_name, '') as application, coalesce(state, '') as state, coalesce(query_start, xact_start)::text as since,
           left(regexp_replace(coalesce(query, ''), '\\s+', ' ', 'g'), 200) as query
      from pg_stat_activity where backend_xid is not null and pid <> pg_backend_pid()
    union all
    select null, gid, 'prepared', prepared::text, '' from pg_prepared_xacts
     order by since limit ${HOLDERS_MAX}`.execute(db)
  return rows.map((row) => ({ ...row, since: isoTime(row.since) }))
}
