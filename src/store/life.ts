import { type Kysely, sql } from 'kysely'
import type { Json } from '../sync/index.ts'
import { jsonSql, referenceSql } from './lines-sql.ts'
import { wasPurged } from './purged.ts'
import { quoteIdent } from './quote.ts'
import { storedId } from './records.ts'
import { isoTime } from './registry/index.ts'
import { liveTable, type ResourceInfo } from './resources.ts'
import type { Database } from './schema.ts'
import { microsToIso, runOf } from './undo-plan.ts'

/** A version of a record that was here, or that lost here. */
export type LifeEntry = {
  /** present: as it is now · past: it was here · lost: it lost a conflict · discarded: a person gave it up while it waited. */
  readonly kind: 'present' | 'past' | 'lost' | 'discarded'
  /** Site where the version was made, by its name here. */
  readonly site: string
  readonly version: { readonly origin: string; readonly clock: number }
  /** When it was made, by the clock of its site. */
  readonly writtenAt: string
  /** Peer that it came by; null when it was made or settled here. */
  readonly via: string | null
  /** Run of this site that brought it; null for the application, for writes by hand and for what a peer pushed. */
  readonly runId: string | null
  readonly deleted: boolean
  /** Values by column, references as record ids; null for a deletion. */
  readonly data: Readonly<Record<string, Json>> | null
  /** Fields that differ from the version before it that is known here. For a loser: from what won. */
  readonly changed: Readonly<Record<string, { readonly was: Json; readonly is: Json }>>
  /** How it ended here; null for the present one. */
  readonly ended: {
    readonly at: string
    /** replaced, deleted, left, lost a conflict, discarded. */
    readonly how: string
    readonly runId: string | null
    /** Policy that decided, where the versions were concurrent. */
    readonly rule: string | null
  } | null
}

/** Everything that this site knows of a record. */
export type RecordLife = {
  readonly resource: string
  readonly id: string
  /** purged: it was deleted, and its tombstone as well. */
  readonly state: 'here' | 'deleted' | 'purged' | 'unknown'
  /** Oldest first. Versions that the application itself replaced here leave no trace. */
  readonly life: readonly LifeEntry[]
  /** There is more than is shown. */
  readonly truncated: boolean
  readonly quarantine: readonly {
    readonly peer: string
    readonly code: string
    readonly reason: string
    readonly waitsFor: string | null
    readonly attempts: number
    readonly firstAt: string
    readonly retryAt: string | null
  }[]
  readonly conflicts: readonly {
    readonly id: string
    readonly peer: string | null
    readonly openedAt: string
    readonly resolvedAt: string | null
    readonly resolvedBy: string | null
    readonly resolution: string | null
  }[]
  /** Fields that the table has no column for. */
  readonly parked: Readonly<Record<string, Json>> | null
  /** References that wait for their target. */
  readonly pending: readonly { readonly column: string; readonly resource: string; readonly id: string }[]
}

const ENTRIES_MAX = 100

/** The life of a record here: each version that is known with its origin, path, run and rule, and what else there is about it. */
export async function readLife(db: Kysely<Database>, resource: ResourceInfo, id: string): Promise<RecordLife> {
  const stored = storedId(resource, id)
  const [past, present] = [await readPast(db, resource, stored), await readPresent(db, resource, stored)]
  const purged = present === null && (await wasPurged(db, resource, stored))
  const kept = past.slice(0, ENTRIES_MAX).reverse()
  const rows = present === null ? kept : [...kept, present]
  return {
    resource: resource.name,
    id: stored,
    state: present !== null ? (present.deleted ? 'deleted' : 'here') : purged ? 'purged' : 'unknown',
    life: withChanges(rows),
    truncated: past.length > ENTRIES_MAX,
    ...(await aroundOf(db, resource, stored)),
  }
}

type LifeRow = {
  readonly kind: LifeEntry['kind']
  readonly site: string
  readonly origin: string
  readonly clock: string
  readonly via: string | null
  readonly run: string | null
  readonly deleted: boolean
  readonly data: Readonly<Record<string, Json>> | null
  readonly ended_at: string | null
  readonly how: string | null
  readonly ended_by: string | null
  readonly rule: string | null
}

const named = sql`coalesce(p.name, case when o.uuid = self.uuid then self.name end, o.uuid::text) as site, o.origin, v.name as via`
const sources = (alias: string) => sql`
  join syncline.site o on o.id = ${sql.ref(`${alias}.origin`)} cross join syncline.self self
  left join syncline.peer p on p.uuid = o.uuid left join syncline.peer v on v.site_id = ${sql.ref(`${alias}.source`)}`

async function readPast(db: Kysely<Database>, resource: ResourceInfo, id: string): Promise<readonly LifeRow[]> {
  const { rows } = await sql<LifeRow>`
    select case h.reason when 'lost a conflict' then 'lost' when 'discarded' then 'discarded' else 'past' end as kind, ${named}, h.clock,
           case when h.reason in ('lost a conflict', 'discarded') then h.run_id else ${runOf(sql`h.xact`, sql`h.resource_id`)} end as run,
           h.deleted, case when h.data is null then null else h.data::jsonb || coalesce(h.refs, '{}') end as data,
           h.at::text as ended_at, h.reason as how, h.run_id as ended_by, h.rule
      from syncline.history h ${sources('h')}
     where h.resource_id = ${resource.id} and h.record_id = ${id} collate "C" order by h.id desc limit ${ENTRIES_MAX + 1}`.execute(
    db,
  )
  return rows
}

async function readPresent(db: Kysely<Database>, resource: ResourceInfo, id: string): Promise<LifeRow | null> {
  const translated = resource.references.filter((each) => !each.direct || each.cyclic)
  const refs = translated.map((each) => sql`${each.column.name}::text, ${sql.raw(referenceSql(resource, each))}`)
  // As on the wire: a document that is JSON's null is not the absence of one.
  const documents = resource.columns
    .filter(({ form }) => form === 'json')
    .map(({ name, baseType }) => sql`${name}::text, ${sql.raw(jsonSql(`t.${quoteIdent(name)}`, baseType))}`)
  const own = [...refs, ...documents]
  const data = own.length === 0 ? sql`to_jsonb(t.*)` : sql`to_jsonb(t.*) || jsonb_build_object(${sql.join(own)})`
  const { rows } = await sql<LifeRow>`
    select 'present' as kind, ${named}, r.clock, ${runOf(sql`r.xact`, sql`r.resource_id`)} as run, r.deleted,
           case when not r.deleted then (
             select ${data} from ${sql.raw(liveTable(resource))} t where t.${sql.id(resource.keyColumn)} = r.record_id::${sql.raw(resource.keyType)}) end as data,
           null as ended_at, null as how, null as ended_by, null as rule
      from syncline.record r ${sources('r')}
     where r.resource_id = ${resource.id} and r.record_id = ${id} collate "C"`.execute(db)
  return rows[0] ?? null
}

/** Rows with what changed from one version that was here to the next. What lost is held against what is there after it. */
function withChanges(rows: readonly LifeRow[]): readonly LifeEntry[] {
  let before: LifeRow['data'] = null
  return rows.map((row, n) => {
    const held = row.kind === 'past' || row.kind === 'present'
    const other: LifeRow['data'] = held
      ? before
      : (rows.slice(n + 1).find(({ kind }) => kind === 'past' || kind === 'present')?.data ?? null)
    const changed = row.kind === 'discarded' ? {} : differing(other, row.data)
    if (held) before = row.data
    return {
      kind: row.kind,
      site: row.site,
      version: { origin: row.origin, clock: Number(row.clock) },
      writtenAt: microsToIso(row.clock),
      via: row.via,
      runId: row.run,
      deleted: row.deleted,
      data: row.data,
      changed,
      ended:
        row.ended_at === null
          ? null
          : { at: isoTime(row.ended_at), how: row.how ?? '', runId: row.ended_by, rule: row.rule },
    }
  })
}

function differing(before: LifeRow['data'], now: LifeRow['data']): LifeEntry['changed'] {
  if (before === null || now === null) return {}
  const names = Object.keys(now).filter((name) => name in before && comparable(before[name]) !== comparable(now[name]))
  return Object.fromEntries(names.map((name) => [name, { was: before[name] ?? null, is: now[name] ?? null }]))
}

/** What was kept of a replaced row does not tell JSON's null from no document. */
function comparable(value: Json | undefined): string {
  const text = JSON.stringify(value ?? null)
  return text === '{"$json":null}' ? 'null' : text
}

type Around = Pick<RecordLife, 'quarantine' | 'conflicts' | 'parked' | 'pending'>

async function aroundOf(db: Kysely<Database>, resource: ResourceInfo, id: string): Promise<Around> {
  const of = (alias: string) =>
    sql`${sql.ref(`${alias}.resource_id`)} = ${resource.id} and ${sql.ref(`${alias}.record_id`)} = ${id} collate "C"`
  const quarantine = await sql<Around['quarantine'][number]>`
    select p.name as peer, q.code, q.reason, w.name || coalesce('/' || q.waits_record_id, '') as "waitsFor", q.attempts, q.first_at::text as "firstAt", q.retry_at::text as "retryAt"
      from syncline.quarantine q join syncline.peer p on p.id = q.peer_id left join syncline.resource w on w.id = q.waits_resource_id
     where ${of('q')} order by p.name`.execute(db)
  const conflicts = await sql<Around['conflicts'][number]>`
    select c.id, p.name as peer, c.opened_at::text as "openedAt", c.resolved_at::text as "resolvedAt", c.resolved_by as "resolvedBy", c.resolution
      from syncline.conflict c left join syncline.peer p on p.id = c.peer_id where ${of('c')} order by c.id desc limit ${ENTRIES_MAX}`.execute(
    db,
  )
  const parked = await sql<{ fields: Readonly<Record<string, Json>> }>`
    select fields from syncline.parked k where ${of('k')}`.execute(db)
  const pending = await sql<Around['pending'][number]>`
    select f.column_name as column, s.name as resource, f.target_record_id as id
      from syncline.pending_ref f join syncline.resource s on s.id = f.target_resource_id where ${of('f')} order by 1`.execute(
    db,
  )
  return {
    quarantine: quarantine.rows.map((row) => ({
      ...row,
      firstAt: isoTime(row.firstAt),
      retryAt: isoTime(row.retryAt),
    })),
    conflicts: conflicts.rows.map((row) => ({
      ...row,
      openedAt: isoTime(row.openedAt),
      resolvedAt: isoTime(row.resolvedAt),
    })),
    parked: parked.rows[0]?.fields ?? null,
    pending: pending.rows,
  }
}
