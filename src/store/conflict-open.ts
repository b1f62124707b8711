import { sql, type Transaction } from 'kysely'
import { type ConflictRow, incomingVersion, localVersion, type SettleContext } from './conflict-page.ts'
import { payloadSql } from './lines-sql.ts'
import type { LineHeader } from './quarantine.ts'
import { liveTable, sentColumns } from './resources.ts'
import type { Database } from './schema.ts'

type Asked = { readonly row: ConflictRow; readonly fields?: readonly string[] }

/**
 * Keeps both sides of conflicts, and what they began with where history still knows it, for a person. A version that has seen the other side
 * of an open entry takes its place there; one that the other side has seen says nothing new; anything else is an entry of its own, so that
 * no peer's change is forgotten over another's.
 */
export async function openConflicts(
  trx: Transaction<Database>,
  context: SettleContext,
  header: LineHeader,
  asked: readonly Asked[],
): Promise<void> {
  const { resource } = context
  const rows = asked.map(({ row, fields }) => {
    const theirs = incomingVersion(row)
    return {
      n: row.n,
      ours_version: localVersion(row),
      theirs_version: theirs,
      seen: { ...theirs.seen, [theirs.origin]: theirs.clock },
      fields: fields ?? null,
    }
  })
  const sent = sentColumns(resource)
  // Numbers of this database say nothing to a person.
  const numbered = resource.references.filter(({ direct }) => !direct).map(({ column }) => column.name)
  const names = sent.map((column) => column.name)
  const object = (values: string, columns: readonly string[]) =>
    sql`(select jsonb_object_agg(name, ${sql.raw(values)} -> (at - 1)::int4) from unnest(${columns}::text[]) with ordinality c(name, at))`
  await sql`create temporary table if not exists syncline_asked (
    n int4, id text collate "C", ours jsonb, ours_version jsonb, theirs jsonb, theirs_version jsonb, seen jsonb, fields text[], line text, base jsonb, base_version jsonb
  ) on commit delete rows`.execute(trx)
  await sql`delete from pg_temp.syncline_asked`.execute(trx)
  const has = (version: string, dot: string) =>
    `(case when ${dot}.origin = ${version}_origin then ${version}_clock else (${version}_seen ->> ${dot}.origin::text)::int8 end) >= ${dot}.clock`
  await sql`
    insert into pg_temp.syncline_asked (n, id, ours, ours_version, theirs, theirs_version, seen, fields, line, base, base_version)
    select s.n, s.id, case when s.l_deleted then null else ${object(`(${payloadSql(resource, sent)})::jsonb`, names)} end, v.ours_version, case when s.kind = 'd' then null else ${object('s.payload::jsonb', header.columns)} end, v.theirs_version, v.seen,
           case when v.fields is null then null else array(select jsonb_array_elements_text(v.fields)) end,
           to_json(s.id)::text || e'\\t' || coalesce(s.clock::text, '') || e'\\t0\\t\\t' || s.kind::text || e'\\t' || coalesce(s.payload, ''), b.data, b.version
      from jsonb_to_recordset(${JSON.stringify(rows)}::jsonb) v(n int4, ours_version jsonb, theirs_version jsonb, seen jsonb, fields jsonb)
      join pg_temp.syncline_stage s on s.n = v.n
      left join ${sql.raw(liveTable(resource))} t on t.${sql.id(resource.keyColumn)} = s.id::${sql.raw(resource.keyType)}
      left join lateral (
        select case when h.deleted then null else (h.data::jsonb - case when h.refs is null and h.reason <> 'lost a conflict' then ${numbered}::text[] else '{}' end) || coalesce(h.refs, '{}') end as data,
               jsonb_build_object('origin', w.origin, 'clock', h.clock) as version
          from syncline.history h join syncline.site w on w.id = h.origin
               cross join lateral (select s.l_origin, s.l_clock, s.l_seen, s.origin as s_origin, s.clock as s_clock, s.seen as s_seen) x
         where h.resource_id = ${sql.lit(resource.id)} and h.record_id = s.id and ${sql.raw(has('x.l', 'h'))} and ${sql.raw(has('x.s', 'h'))}
         order by h.id desc limit 1
      ) b on true`.execute(trx)
  const known = sql`(a.seen ->> (c.theirs_version ->> 'origin'))::int8 >= (c.theirs_version ->> 'clock')::int8`
  const open = sql`c.resource_id = ${resource.id} and c.record_id = a.id and c.resolved_at is null`
  // What an open entry has, or what stands behind it, is nothing new.
  await sql`
    delete from pg_temp.syncline_asked a using syncline.conflict c
     where ${open} and coalesce(
       (c.theirs_version -> 'seen' ->> (a.theirs_version ->> 'origin'))::int8,
       case when c.theirs_version ->> 'origin' = a.theirs_version ->> 'origin' then (c.theirs_version ->> 'clock')::int8 end) >= (a.theirs_version ->> 'clock')::int8`.execute(
    trx,
  )
  const entry = JSON.stringify({ resource: header.resource, columns: header.columns, refs: header.refs })
  const headerOf = sql`${entry}::jsonb || jsonb_build_object('origins', jsonb_build_array(a.theirs_version ->> 'origin'))`
  const { rows: taken } = await sql<{ n: number; id: string }>`
    update syncline.conflict c set peer_id = ${context.peerId}, run_id = ${context.runId}::int8, base = coalesce(a.base, c.base), base_version = coalesce(a.base_version, c.base_version),
           ours = a.ours, ours_version = a.ours_version, theirs = a.theirs, theirs_version = a.theirs_version, fields = a.fields, header = ${headerOf}, line = a.line, updated_at = clock_timestamp()
      from pg_temp.syncline_asked a
     where c.id = (select min(c.id) from syncline.conflict c where ${open} and ${known})
    returning a.n, c.id::text`.execute(trx)
  const places = taken.map(({ n }) => n)
  const ids = taken.map(({ id }) => id)
  if (taken.length > 0) {
    await sql`
      update syncline.conflict c set resolved_at = clock_timestamp(), resolution = 'superseded'
        from pg_temp.syncline_asked a where ${open} and ${known} and c.id <> all (${ids}::int8[])`.execute(trx)
  }
  await sql`
    insert into syncline.conflict (peer_id, resource_id, record_id, run_id, base, base_version, ours, ours_version, theirs, theirs_version, fields, header, line)
    select ${context.peerId}, ${resource.id}, a.id, ${context.runId}::int8, a.base, a.base_version, a.ours, a.ours_version, a.theirs, a.theirs_version, a.fields, ${headerOf}, a.line
      from pg_temp.syncline_asked a where a.n <> all (${places}::int4[]) order by a.n`.execute(trx)
}
