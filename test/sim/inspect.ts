/** Reads what a site holds straight from its database. */
import type pg from 'pg'
import { ALL_IDS } from './operations.ts'
import type { Held, Holding } from './oracle.ts'
import type { SimSite } from './site.ts'

const LIVE = `
  select 'place' as resource, key::text as id, label from place
  union all select 'visit', key::text, label from visit
  union all select 'tag', id, label from tag`

/** Every id that a simulation uses: of what is purged, only a hash of the id is left. */
const IDS = `unnest(array['${ALL_IDS.join("','")}'])`

const SEEN = (seen: string) =>
  `(select jsonb_object_agg(w.origin, e.value) from jsonb_each(${seen}) e join syncline.site w on w.id = e.key::int4) as seen`

const RECORDS = `
  select r.name as resource, c.record_id as id, o.origin, c.clock::text, c.deleted, l.label, c.xact::text, ${SEEN('c.seen')}
    from syncline.record c join syncline.resource r on r.id = c.resource_id join syncline.site o on o.id = c.origin
    left join (${LIVE}) l on l.resource = r.name and l.id = c.record_id and not c.deleted
  union all
  select r.name, i.id, o.origin, p.clock::text, true, null, p.xact::text, ${SEEN('p.seen')}
    from syncline.purged p join syncline.resource r on r.id = p.resource_id join syncline.site o on o.id = p.origin
    join ${IDS} i(id) on hashtextextended(i.id, 0) = p.id_hash
   where not exists (select from syncline.record c where c.resource_id = p.resource_id and c.record_id = i.id)
   order by 1, 2`

/** Losing, waiting and overwritten values. */
const KEPT = `
  select r.name as resource, h.record_id as id, o.origin, h.clock::text, h.deleted, h.data ->> 'label' as label, ${SEEN('h.seen')}
    from syncline.history h join syncline.resource r on r.id = h.resource_id join syncline.site o on o.id = h.origin
`

/** Versions that wait, of which only the dot is looked at. */
const WAITING = `
  select r.name as resource, q.record_id as id, o.origin, q.clock::text, split_part(q.line, e'\\t', 5) = 'd' as deleted, null as label
    from syncline.quarantine q join syncline.resource r on r.id = q.resource_id join syncline.site o on o.id = q.origin
  union all
  select r.name, c.record_id, v ->> 'origin', v ->> 'clock', false, null
    from syncline.conflict c join syncline.resource r on r.id = c.resource_id, unnest(array[c.ours_version, c.theirs_version]) v`

/** The content that must be equal, local numbers read as what they stand for. Not everywhere are all columns. */
const CONTENT = `
  select 'place ' || key || ' ' || to_jsonb(t) - 'id' as line from place t
  union all select 'visit ' || v.key || ' ' || (to_jsonb(v) - 'id' - 'place_id' || jsonb_build_object('place', p.key)) from visit v left join place p on p.id = v.place_id
  union all select 'tag ' || id || ' ' || to_jsonb(t) from tag t order by 1`

export type Found = Held & { readonly xact: string }

export async function recordsOf(client: pg.Client): Promise<readonly Found[]> {
  return (await client.query<Found>(RECORDS)).rows
}

export async function holdingOf(site: SimSite): Promise<Holding> {
  const kept = await site.app.query<Held>(KEPT)
  const waiting = await site.app.query<Held>(WAITING)
  return { site: site.name, records: await recordsOf(site.app), kept: [...kept.rows, ...waiting.rows] }
}

export async function contentOf(site: SimSite): Promise<readonly string[]> {
  return (await site.app.query<{ line: string }>(CONTENT)).rows.map(({ line }) => line)
}

/** Rows without a record that lives, and the other way round. */
export async function strays(site: SimSite): Promise<readonly string[]> {
  const { rows } = await site.app.query<{ resource: string; id: string }>(`
    select coalesce(l.resource, v.resource) as resource, coalesce(l.id, v.id) as id from (${LIVE}) l full join (
      select r.name as resource, c.record_id as id from syncline.record c join syncline.resource r on r.id = c.resource_id where not c.deleted
    ) v on v.resource = l.resource and v.id = l.id where l.id is null or v.id is null`)
  return rows.map(({ resource, id }) => `${resource} ${id}`)
}

/** What each version has seen, its own dot included: by record and origin. */
export async function knowledgeOf(site: SimSite): Promise<ReadonlyMap<string, bigint>> {
  const { rows } = await site.app.query<{ key: string; clock: string }>(`
    select r.name || ' ' || c.id || ' of ' || o.origin as key, max(s.clock)::text as clock from (
      select resource_id, record_id as id, origin, clock, seen from syncline.record
      union all select p.resource_id, i.id, p.origin, p.clock, p.seen from syncline.purged p join ${IDS} i(id) on hashtextextended(i.id, 0) = p.id_hash
    ) c join syncline.resource r on r.id = c.resource_id
     cross join lateral (select c.origin, c.clock union all select e.key::int4, e.value::int8 from jsonb_each_text(c.seen) e) s(origin, clock)
      join syncline.site o on o.id = s.origin group by 1`)
  return new Map(rows.map(({ key, clock }) => [key, BigInt(clock)]))
}

export type Waiting = {
  readonly resource: string
  readonly id: string
  readonly peer: string
  readonly code: string
  readonly reason: string
  readonly waitsResource: string | null
  readonly waitsId: string | null
  readonly origin: string
  readonly clock: string
  readonly kind: string
  readonly columns: readonly string[]
  readonly payload: string
}

export async function waitingAt(site: SimSite): Promise<readonly Waiting[]> {
  const { rows } = await site.app.query<Waiting>(`
    select r.name as resource, q.record_id as id, p.name as peer, q.code, q.reason, w.name as "waitsResource", q.waits_record_id as "waitsId",
           o.origin, q.clock::text, split_part(q.line, e'\\t', 5) as kind, q.header -> 'columns' as columns, split_part(q.line, e'\\t', 6) as payload
      from syncline.quarantine q join syncline.resource r on r.id = q.resource_id join syncline.peer p on p.id = q.peer_id
      join syncline.site o on o.id = q.origin left join syncline.resource w on w.id = q.waits_resource_id order by q.id`)
  return rows
}

export type OpenConflict = {
  readonly id: string
  readonly resource: string
  readonly recordId: string
  readonly open: boolean
  /** The other side is a version that the database here refuses, which may well know ours. */
  readonly waits: boolean
  readonly ours: { readonly origin: string; readonly clock: number }
  readonly theirs: {
    readonly origin: string
    readonly clock: number
    readonly seen?: Readonly<Record<string, number>>
  }
  readonly theirLabel: string | null
  readonly theyDeleted: boolean
}

export async function conflictsAt(site: SimSite): Promise<readonly OpenConflict[]> {
  const { rows } = await site.app.query<OpenConflict>(`
    select c.id, r.name as resource, c.record_id as "recordId", c.resolved_at is null as open, c.header ? 'waits' as waits, c.ours_version as ours, c.theirs_version as theirs,
           c.theirs ->> (array_position(array(select jsonb_array_elements_text(c.header -> 'columns')), 'label') - 1) as "theirLabel",
           split_part(c.line, e'\\t', 5) = 'd' as "theyDeleted"
      from syncline.conflict c join syncline.resource r on r.id = c.resource_id order by c.id`)
  return rows
}

/** Everything that a site knows of one record, for a person who wonders what happened to it. */
export async function lifeOf(site: SimSite, resource: string, id: string): Promise<readonly string[]> {
  const { rows } = await site.app.query<{ line: string }>(
    `select concat_ws(' ', 'record', o.origin, c.clock, c.seen, case when c.deleted then 'deleted' end, 'from', c.source) as line
       from syncline.record c join syncline.resource r on r.id = c.resource_id join syncline.site o on o.id = c.origin where r.name = $1 and c.record_id = $2
     union all (select concat_ws(' ', 'history', h.reason, o.origin, h.clock, h.seen, case when h.deleted then 'deleted' end, h.data)
       from syncline.history h join syncline.resource r on r.id = h.resource_id join syncline.site o on o.id = h.origin where r.name = $1 and h.record_id = $2 order by h.id)
     union all select concat_ws(' ', 'quarantine', q.code, o.origin, q.clock, q.line)
       from syncline.quarantine q join syncline.resource r on r.id = q.resource_id join syncline.site o on o.id = q.origin where r.name = $1 and q.record_id = $2
     union all select concat_ws(' ', 'site', id, origin) from syncline.site`,
    [resource, id],
  )
  return rows.map(({ line }) => `${site.name}: ${line}`)
}
