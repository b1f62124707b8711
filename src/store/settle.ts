import { sql, type Transaction } from 'kysely'
import { decide, mintVersion, type Policy, type Seen, unionSeen, type Version } from '../sync/index.ts'
import { payloadSql, referenceSql } from './lines-sql.ts'
import type { LineHeader } from './quarantine.ts'
import { siteIds } from './registry/index.ts'
import { liveTable } from './resources.ts'
import type { Database } from './schema.ts'
import { incomingSql, type WriteContext } from './write.ts'

/** Conflicts fetched at once: their values pass through memory. */
const PAGE = 500

export type SettleContext = WriteContext & {
  readonly peerId: number | null
  readonly policy: Policy
  readonly clockAheadMaxMicros: number
}

type ConflictRow = {
  readonly n: number
  readonly id: string
  readonly kind: string
  readonly class: 'c' | 'u'
  readonly clock: string | null
  readonly origin: string | null
  readonly seen: Record<string, string> | null
  readonly l_clock: string
  readonly l_origin: string
  readonly l_seen: Record<string, string> | null
  readonly l_deleted: boolean
  readonly equal: boolean | null
  readonly ours: string | null
  readonly theirs: string | null
  readonly now_us: string
}

export type Settled = {
  readonly taken: number
  readonly kept: number
  readonly rewritten: number
  readonly asked: number
  readonly equal: number
}

/**
 * Settles the staged records that are concurrent with what is here, and those pushed without a version over a living record.
 * Whatever is decided, the losing values go to history, and what a decision changed is announced on every link.
 */
export async function settleConflicts(
  trx: Transaction<Database>,
  context: SettleContext,
  header: LineHeader,
): Promise<Settled> {
  const total = { taken: 0, kept: 0, rewritten: 0, asked: 0, equal: 0 }
  for (let after = -1; ; ) {
    const rows = await conflictPage(trx, context, after)
    const sites = await siteNumbers(trx, context, rows)
    for (const row of rows) {
      const verdict = row.class === 'u' ? settlePush(row, context) : settleOne(row, context)
      total[verdict.tally] += 1
      await carryOut(trx, context, header, row, verdict, sites)
    }
    const last = rows.at(-1)
    if (last === undefined || rows.length < PAGE) return total
    after = last.n
  }
}

type Verdict = {
  readonly tally: keyof Settled
  /** f: write the incoming content · v: only the version changes · s: nothing to do · a: a person decides. */
  readonly class: 'f' | 'v' | 's' | 'a'
  readonly version?: Version
  readonly announce: boolean
  /** Whose values lost and go to history. */
  readonly loser?: 'local' | 'incoming'
}

/** A push without a version is the peer's own write at the time of arrival: it has seen what is here. Equal content is no write. */
function settlePush(row: ConflictRow, context: SettleContext): Verdict {
  if (row.equal) return { tally: 'equal', class: 's', announce: false }
  const local = localVersion(row)
  return {
    tally: 'rewritten',
    class: 'f',
    version: mint(row, context, row.origin ?? context.policy.here, unionSeen(local, local)),
    announce: false,
  }
}

function settleOne(row: ConflictRow, context: SettleContext): Verdict {
  const local = localVersion(row)
  const incoming = version(row.clock ?? '0', row.origin ?? '', row.seen)
  const decision = decide(
    { version: local, deleted: row.l_deleted, content: row.equal ? 'equal' : 'local' },
    { version: incoming, deleted: row.kind === 'd', content: row.equal ? 'equal' : 'incoming' },
    context.policy,
  )
  switch (decision.kind) {
    case 'take':
      return row.equal
        ? { tally: 'equal', class: 'v', version: decision.version, announce: true }
        : { tally: 'taken', class: 'f', version: decision.version, announce: true }
    case 'keep':
      return {
        tally: row.equal ? 'equal' : 'kept',
        class: 'v',
        version: decision.version,
        announce: true,
        ...(row.equal ? {} : { loser: 'incoming' as const }),
      }
    case 'rewrite': {
      const mine = decision.content === 'local'
      const next = mint(row, context, decision.origin, decision.seen)
      return {
        tally: 'rewritten',
        class: mine ? 'v' : 'f',
        version: next,
        announce: true,
        ...(mine ? { loser: 'incoming' as const } : {}),
      }
    }
    case 'ask':
      return { tally: 'asked', class: 'a', announce: false }
    default:
      return decision satisfies never
  }
}

function mint(row: ConflictRow, context: SettleContext, origin: string, seen: Seen): Version {
  return mintVersion({ origin, seen, nowMicros: Number(row.now_us), aheadMaxMicros: context.clockAheadMaxMicros })
}

async function carryOut(
  trx: Transaction<Database>,
  context: SettleContext,
  header: LineHeader,
  row: ConflictRow,
  verdict: Verdict,
  sites: Map<string, number>,
): Promise<void> {
  if (verdict.loser === 'incoming') {
    await sql`
      insert into syncline.history (resource_id, record_id, run_id, reason, origin, clock, seen, deleted, source, rule, data)
      select ${context.resource.id}, s.id, ${context.runId}::int8, 'lost a conflict', s.origin, s.clock, s.seen, s.kind = 'd', ${context.source}::int4, ${context.rule},
             (select json_object_agg(name, nullif(s.payload, '')::jsonb -> (at - 1)::int4) from unnest(${header.columns}::text[]) with ordinality c(name, at))
        from pg_temp.syncline_stage s where s.n = ${row.n}`.execute(trx)
  }
  if (verdict.class === 'a') await openConflict(trx, context, header, row)
  const next = verdict.version
  const seen =
    next?.seen === undefined || Object.keys(next.seen).length === 0
      ? null
      : JSON.stringify(
          Object.fromEntries(Object.entries(next.seen).map(([origin, clock]) => [String(sites.get(origin)), clock])),
        )
  await sql`
    update pg_temp.syncline_stage set class = ${verdict.class}::"char", announce = ${verdict.announce}, in_clock = clock, in_origin = origin,
           clock = coalesce(${next?.clock ?? null}::int8, clock), origin = coalesce(${next === undefined ? null : sites.get(next.origin)}::int4, origin),
           seen = case when ${next !== undefined} then ${seen}::jsonb else seen end
     where n = ${row.n}`.execute(trx)
}

/** Keeps both sides of a conflict for a person. A later change of the same record updates the open entry. */
async function openConflict(
  trx: Transaction<Database>,
  context: SettleContext,
  header: LineHeader,
  row: ConflictRow,
): Promise<void> {
  const line = await sql<{ line: string }>`
    select to_json(id)::text || e'\\t' || coalesce(clock::text, '') || e'\\t0\\t\\t' || kind::text || e'\\t' || coalesce(payload, '') as line from pg_temp.syncline_stage where n = ${row.n}`.execute(
    trx,
  )
  const theirs = version(row.clock ?? '0', row.origin ?? '', row.seen)
  await sql`
    insert into syncline.conflict as c (peer_id, resource_id, record_id, run_id, ours, ours_version, theirs, theirs_version, header, line)
    values (${context.peerId}, ${context.resource.id}, ${row.id}, ${context.runId}::int8, ${row.ours}::jsonb, ${JSON.stringify(localVersion(row))}::jsonb,
            ${row.theirs}::jsonb, ${JSON.stringify(theirs)}::jsonb, ${JSON.stringify({ resource: header.resource, columns: header.columns, refs: header.refs, origins: [theirs.origin] })}::jsonb, ${line.rows[0]?.line ?? ''})
    on conflict (resource_id, record_id) where resolved_at is null do update set
      peer_id = excluded.peer_id, run_id = excluded.run_id, ours = excluded.ours, ours_version = excluded.ours_version,
      theirs = excluded.theirs, theirs_version = excluded.theirs_version, header = excluded.header, line = excluded.line, updated_at = now()`.execute(
    trx,
  )
}

async function conflictPage(
  trx: Transaction<Database>,
  context: SettleContext,
  after: number,
): Promise<readonly ConflictRow[]> {
  const { resource, columns } = context
  const key = sql.id(resource.keyColumn)
  const sent = columns.map((each) => each.column)
  const all = (parts: readonly string[]) => (parts.length === 0 ? 'true' : parts.join(' and '))
  // Two versions have the same content only if they read the same: 1.0 and 1.00 would stay different. A person who sends 1.0 again changes nothing.
  const alike = all(columns.map((each) => sameSql(context, each, '::text')))
  const equal = all(columns.map((each) => sameSql(context, each, textual(each.column.baseType))))
  const origin = (site: string) => sql`(select o.origin from syncline.site o where o.id = ${sql.raw(site)})`
  const named = (seen: string) =>
    sql`(select jsonb_object_agg(o.origin, e.value) from jsonb_each_text(${sql.raw(seen)}) e join syncline.site o on o.id = e.key::int4)`
  const { rows } = await sql<ConflictRow>`
    select s.n, s.id, s.kind::text, s.class::text, s.clock, ${origin('s.origin')} as origin, ${named('s.seen')} as seen,
           s.l_clock, ${origin('s.l_origin')} as l_origin, ${named('s.l_seen')} as l_seen, s.l_deleted,
           case when s.l_deleted then s.kind = 'd' when s.kind = 'd' then false when s.class = 'u' then ${sql.raw(equal)} else ${sql.raw(alike)} end as equal,
           case when s.l_deleted then null else ${sql.raw(payloadSql(resource, sent))} end as ours, nullif(s.payload, '') as theirs,
           (extract(epoch from clock_timestamp()) * 1000000)::int8 as now_us
      from (select x.*, nullif(x.payload, '')::jsonb as v from pg_temp.syncline_stage x where x.class in ('c', 'u') and x.n > ${after} order by x.n limit ${PAGE}) s
      left join ${sql.raw(liveTable(resource))} t on t.${key} = s.id::${sql.raw(resource.keyType)}
     order by s.n`.execute(trx)
  return rows
}

/** A reference is compared by the record that it names: one whose target is not here yet would look like none. */
function sameSql(context: SettleContext, each: SettleContext['columns'][number], cast: string): string {
  const { resource } = context
  const reference = resource.references.find((other) => other.column.name === each.column.name)
  if (reference !== undefined) return `${referenceSql(resource, reference)} is not distinct from (s.v ->> ${each.at})`
  return `t.${quote(each.column.name)}${cast} is not distinct from (${incomingSql(context, each)})${cast}`
}

const quote = (name: string) => `"${name.replaceAll('"', '""')}"`
const textual = (typeName: string) =>
  ['json', '_json', 'xml', 'point', 'polygon', 'box', 'line', 'lseg', 'path', 'circle'].includes(typeName)
    ? '::text'
    : ''

function localVersion(row: ConflictRow): Version {
  return version(row.l_clock, row.l_origin, row.l_seen)
}

function version(clock: string, origin: string, seen: Record<string, string> | null): Version {
  const entries = Object.entries(seen ?? {}).map(([site, at]) => [site, Number(at)])
  return { origin, clock: Number(clock), seen: Object.fromEntries(entries) }
}

/** Numbers of the origins that the versions of these rows, or what is decided of them, can name. There may be many others. */
async function siteNumbers(
  trx: Transaction<Database>,
  context: SettleContext,
  rows: readonly ConflictRow[],
): Promise<Map<string, number>> {
  const named = new Set([context.policy.here])
  for (const row of rows) {
    for (const origin of [row.origin, row.l_origin]) if (origin !== null) named.add(origin)
    for (const seen of [row.seen, row.l_seen]) for (const origin of Object.keys(seen ?? {})) named.add(origin)
  }
  const origins = [...named]
  const ids = await siteIds(trx, origins)
  return new Map(origins.map((origin, index) => [origin, ids[index] as number]))
}
