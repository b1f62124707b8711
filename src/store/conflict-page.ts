import { sql, type Transaction } from 'kysely'
import type { FieldMark, Policy, Version } from '../sync/index.ts'
import { payloadSql, referenceSql } from './lines-sql.ts'
import { liveTable } from './resources.ts'
import type { Database } from './schema.ts'
import { incomingSql, type WriteContext } from './write.ts'

/** Conflicts fetched at once: their values pass through memory. */
export const PAGE = 500

export type SettleContext = WriteContext & {
  readonly peerId: number | null
  readonly policy: Policy
  readonly clockAheadMaxMicros: number
}

/** A staged record that is concurrent with what is here; origins by name. */
export type ConflictRow = {
  readonly n: number
  readonly id: string
  readonly kind: string
  readonly class: 'c' | 'u'
  readonly clock: string | null
  readonly origin: string | null
  readonly seen: Record<string, string> | null
  readonly fields: NumberedFields | null
  readonly l_clock: string
  readonly l_origin: string
  readonly l_seen: Record<string, string> | null
  readonly l_fields: NumberedFields | null
  readonly l_deleted: boolean
  readonly equal: boolean | null
  /** Whether each column that both have reads the same on both sides. */
  readonly alike: readonly boolean[] | null
  /** Values as JSON arrays: ours in the order of the columns that both have, theirs in that of the batch. */
  readonly ours: string | null
  readonly theirs: string | null
  /** Names of the sites whose numbers stand in `fields`. */
  readonly sites: Readonly<Record<string, string>> | null
  readonly now_us: string
}

type NumberedFields = Readonly<Record<string, FieldMark>>

/** The next staged records in question, with both contents; `after` is the place of the last one before. */
export async function conflictPage(
  trx: Transaction<Database>,
  context: SettleContext,
  after: number,
): Promise<readonly ConflictRow[]> {
  const { resource, columns } = context
  const key = sql.id(resource.keyColumn)
  const sent = columns.map((each) => each.column)
  const all = (parts: readonly string[]) => (parts.length === 0 ? 'true' : parts.join(' and '))
  // Two versions have the same content only if they read the same: 1.0 and 1.00 would stay different. A person who sends 1.0 again changes nothing.
  const alike = columns.map((each) => sameSql(context, each, '::text'))
  const equal = all(columns.map((each) => sameSql(context, each, textual(each.column.baseType))))
  const both = sql`not s.l_deleted and s.kind <> 'd'`
  const merging = context.policy.name === 'merge'
  const origin = (site: string) => sql`(select o.origin from syncline.site o where o.id = ${sql.raw(site)})`
  const named = (seen: string) =>
    sql`(select jsonb_object_agg(o.origin, e.value) from jsonb_each_text(${sql.raw(seen)}) e join syncline.site o on o.id = e.key::int4)`
  const { rows } = await sql<ConflictRow>`
    select s.n, s.id, s.kind::text, s.class::text, s.clock, ${origin('s.origin')} as origin, ${named('s.seen')} as seen, s.fields,
           s.l_clock, ${origin('s.l_origin')} as l_origin, ${named('s.l_seen')} as l_seen, r.fields as l_fields, s.l_deleted,
           case when s.fields is null and r.fields is null then null else (select jsonb_object_agg(o.id, o.origin) from syncline.site o where o.id in (
             select syncline.field_origins(s.fields) union select syncline.field_origins(r.fields))) end as sites,
           case when s.l_deleted then s.kind = 'd' when s.kind = 'd' then false when s.class = 'u' then ${sql.raw(equal)} else ${sql.raw(all(alike))} end as equal,
           ${merging && columns.length > 0 ? sql`case when ${both} then array[${sql.raw(alike.join(', '))}] end` : sql`null::bool[]`} as alike,
           case when s.l_deleted then null else ${sql.raw(payloadSql(resource, sent))} end as ours, nullif(s.payload, '') as theirs,
           (extract(epoch from clock_timestamp()) * 1000000)::int8 as now_us
      from (select x.*, nullif(x.payload, '')::jsonb as v from pg_temp.syncline_stage x where x.class in ('c', 'u') and x.n > ${after} order by x.n limit ${PAGE}) s
      join lateral (
        select r.fields from syncline.record r where r.resource_id = ${sql.lit(resource.id)} and r.record_id = s.id offset 0) r on true
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

export function localVersion(row: ConflictRow): Version {
  return version(row.l_clock, row.l_origin, row.l_seen, row.l_fields, row.sites)
}

export function incomingVersion(row: ConflictRow): Version {
  return version(row.clock ?? '0', row.origin ?? '', row.seen, row.fields, row.sites)
}

function version(
  clock: string,
  origin: string,
  seen: Record<string, string> | null,
  fields: NumberedFields | null,
  sites: Readonly<Record<string, string>> | null,
): Version {
  const entries = Object.entries(seen ?? {}).map(([site, at]) => [site, Number(at)])
  return {
    origin,
    clock: Number(clock),
    seen: Object.fromEntries(entries),
    ...(fields === null ? {} : { fields: named(fields, sites ?? {}) }),
  }
}

/** Every part of a mark is an object by number of a site. */
function named(fields: NumberedFields, sites: Readonly<Record<string, string>>): NonNullable<Version['fields']> {
  const byOrigin = (part: object) =>
    Object.fromEntries(Object.entries(part).map(([site, value]) => [sites[site] ?? '', value]))
  const mark = (given: FieldMark) =>
    Object.fromEntries(Object.entries(given).map(([part, value]) => [part, byOrigin(value)])) as FieldMark
  return Object.fromEntries(Object.entries(fields).map(([column, given]) => [column, mark(given)]))
}
