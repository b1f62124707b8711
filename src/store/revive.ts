import { type RawBuilder, sql, type Transaction } from 'kysely'
import { mintVersion, type Seen, unionSeen, type Version } from '../sync/index.ts'
import type { Store } from './database.ts'
import type { ExchangeLimits, Link } from './exchange.ts'
import type { LineHeader } from './quarantine.ts'
import { siteIds } from './registry/index.ts'
import { liveTable, loadResources, type ResourceInfo } from './resources.ts'
import { appendLog } from './run-log.ts'
import type { Database } from './schema.ts'
import { EMPTYING, incomingKeys } from './stage.ts'

/** A record whose deletion elsewhere lost against what still refers to it here. */
export type Revived = { readonly resource: string; readonly recordId: string; readonly reason: string }

/** Deletions that lose in one pass, and the most passes: a revived child holds its parent. What is left goes on in the next run. */
const STEP = 1_000
const PASSES_MAX = 1_000

/**
 * Ends the wait of deletions that can never go through: everything that their site had to say was said, and rows that live here, and wait for nothing,
 * still refer to the record. Such a deletion did not know of them, so it loses: the record goes on as a new version of this site that has seen the
 * deletion, and flows to every site like any change (I1, I3). Two sites that revive the same record write equal content, which is no conflict.
 * Only right behind a complete exchange with the peer, as children travel after their parents. `via` is the way that the deletions came.
 */
export async function reviveBlocked(
  store: Store,
  link: Link,
  via: 'pull' | 'push',
  runId: string | null,
  limits: ExchangeLimits,
): Promise<readonly Revived[]> {
  const revived: Revived[] = []
  for (let pass = 0; pass < PASSES_MAX; pass++) {
    const resources = await blockedResources(store, link.peer.id, via)
    if (resources.length === 0) return revived
    let found = 0
    for (const resource of resources) {
      const some = await store.db.transaction().execute((trx) => reviveIn(trx, link, resource, via, runId, limits))
      found += some.length
      revived.push(...some)
    }
    if (found === 0) return revived
  }
  return revived
}

async function blockedResources(store: Store, peerId: number, via: string): Promise<readonly ResourceInfo[]> {
  const { rows } = await sql<{ id: number }>`
    select distinct resource_id as id from syncline.quarantine q where q.peer_id = ${peerId} and q.via = ${via} and ${isBlockedDelete}`.execute(
    store.db,
  )
  if (rows.length === 0) return []
  return (await loadResources(store.db)).filter((resource) => rows.some(({ id }) => id === resource.id))
}

/** A deletion, not a record that only left a filter: that one lives on elsewhere. */
const isBlockedDelete = sql`q.code = 'SYNC_RECORD_STILL_REFERENCED' and split_part(q.line, e'\\t', 5) = 'd' and split_part(q.line, e'\\t', 2) <> ''`

type Candidate = {
  readonly id: string
  readonly recordId: string
  readonly line: string
  readonly header: LineHeader
  readonly clock: string
  readonly origin: string
  readonly seen: Record<string, string> | null
  readonly children: string
}

async function reviveIn(
  trx: Transaction<Database>,
  link: Link,
  resource: ResourceInfo,
  via: string,
  runId: string | null,
  limits: ExchangeLimits,
): Promise<readonly Revived[]> {
  await sql`select pg_advisory_xact_lock(hashtextextended('syncline.apply', ${resource.id}))`.execute(trx)
  const revived: Revived[] = []
  for (const candidate of await candidates(trx, link.peer.id, resource, via)) {
    const local = named(candidate.clock, candidate.origin, candidate.seen)
    const gone = versionOf(candidate.line, candidate.header)
    const seen = unionSeen(local, gone)
    const version = mintVersion({
      origin: link.self.origin,
      seen,
      // Not now: the values are those of before the deletion, and against an edit made meanwhile elsewhere they are the older ones.
      nowMicros: Math.max(...Object.values(seen)),
      aheadMaxMicros: limits.clockAheadMaxMs * 1_000,
    })
    const reason = `its deletion by ${gone.origin} lost: rows of ${candidate.children}, which that site did not know of, refer to it here`
    await writeRevival(trx, resource, candidate, { version, gone, runId })
    await appendLog(trx, {
      peer: link.peer,
      runId,
      resource: resource.name,
      mode: via,
      direction: 'none',
      action: 'revive',
      result: 'success',
      message: `${candidate.recordId}: ${reason}`,
      changes: 1,
    })
    revived.push({ resource: resource.name, recordId: candidate.recordId, reason })
  }
  return revived
}

/** Blocked deletions of records that are as the deleting site knew them, with the table of a child that is waited for in vain. */
async function candidates(
  trx: Transaction<Database>,
  peerId: number,
  resource: ResourceInfo,
  via: string,
): Promise<readonly Candidate[]> {
  const key = sql.id(resource.keyColumn)
  const holds = (await incomingKeys(trx, resource)).filter(({ action }) => !EMPTYING.has(action))
  if (holds.length === 0) return []
  const all = await loadResources(trx)
  const children = holds.map((foreign) => {
    const refers = foreign.columns.map(
      (column, n) => sql`c.${sql.id(foreign.child_columns[n] ?? '')} = t.${sql.id(column)}`,
    )
    const child = all.find((each) => each.tableOid === Number(foreign.child_oid))
    return sql`when exists (select from ${sql.raw(foreign.child)} c where ${sql.join(refers, sql` and `)} ${settled(child)}) then ${foreign.child}::text`
  })
  const origin = (site: string) => sql`(select o.origin from syncline.site o where o.id = ${sql.raw(site)})`
  const { rows } = await sql<Candidate>`
    select q.id, q.record_id as "recordId", q.line, q.header, r.clock, ${origin('r.origin')} as origin,
           (select jsonb_object_agg(o.origin, e.value) from jsonb_each_text(r.seen) e join syncline.site o on o.id = e.key::int4) as seen,
           (extract(epoch from clock_timestamp()) * 1000000)::int8 as now_us, held.children
      from syncline.quarantine q
      join syncline.record r on r.resource_id = q.resource_id and r.record_id = q.record_id and not r.deleted
      join ${sql.raw(liveTable(resource))} t on t.${key} = q.record_id::${sql.raw(resource.keyType)}
      cross join lateral (select case ${sql.join(children, sql` `)} end as children) held
     where q.peer_id = ${peerId} and q.resource_id = ${resource.id} and q.via = ${via} and ${isBlockedDelete} and held.children is not null
     order by q.id limit ${STEP} for no key update of t, r skip locked`.execute(trx)
  return rows
}

/** Of a child that waits itself, for its own deletion or for a person, nobody knows yet whether it will go on referring. */
function settled(child: ResourceInfo | undefined): RawBuilder<unknown> {
  if (child === undefined) return sql``
  const id = sql`c.${sql.id(child.keyColumn)}::text collate "C"`
  return sql`and not exists (select from syncline.quarantine w where w.resource_id = ${child.id} and w.record_id = ${id})
         and not exists (select from syncline.conflict f where f.resource_id = ${child.id} and f.record_id = ${id} and f.resolved_at is null)`
}

async function writeRevival(
  trx: Transaction<Database>,
  resource: ResourceInfo,
  { recordId }: Candidate,
  { version, gone, runId }: { readonly version: Version; readonly gone: Version; readonly runId: string | null },
): Promise<void> {
  const origins = [...new Set([version, gone].flatMap((each) => [each.origin, ...Object.keys(each.seen ?? {})]))]
  const ids = await siteIds(trx, origins)
  const site = (origin: string) => ids[origins.indexOf(origin)] ?? null
  const seenText = (seen: Seen | undefined) =>
    seen === undefined
      ? null
      : JSON.stringify(Object.fromEntries(Object.entries(seen).map(([o, at]) => [String(site(o)), at])))
  await sql`
    update syncline.record set xact = pg_current_xact_id(), origin = ${site(version.origin)}, clock = ${version.clock}, seen = ${seenText(version.seen)}::jsonb, fields = null, source = null
     where resource_id = ${resource.id} and record_id = ${recordId}`.execute(trx)
  await sql`
    insert into syncline.history (resource_id, record_id, run_id, reason, origin, clock, seen, deleted)
    values (${resource.id}, ${recordId}, ${runId}::int8, 'revived', ${site(gone.origin)}, ${gone.clock}, ${seenText(gone.seen)}::jsonb, true)`.execute(
    trx,
  )
  await sql`
    delete from syncline.quarantine where resource_id = ${resource.id} and record_id = ${recordId}
       and origin = ${site(gone.origin)} and clock <= ${gone.clock}`.execute(trx)
}

function named(clock: string, origin: string, seen: Record<string, string> | null): Version {
  return {
    origin,
    clock: Number(clock),
    seen: Object.fromEntries(Object.entries(seen ?? {}).map(([site, at]) => [site, Number(at)])),
  }
}

/** The version in a line: its own words, so that what it has seen is complete. */
function versionOf(line: string, header: LineHeader): Version {
  const [, clock = '0', origin = '0', seen = ''] = line.split('\t')
  const others = seen === '' ? {} : (JSON.parse(seen) as Record<string, number>)
  return {
    origin: header.origins[Number(origin)] ?? '',
    clock: Number(clock),
    seen: Object.fromEntries(
      Object.entries(others)
        .filter(([index]) => index !== 'fields')
        .map(([index, at]) => [header.origins[Number(index)] ?? '', at]),
    ),
  }
}
