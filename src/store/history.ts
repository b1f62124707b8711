import { type Kysely, sql } from 'kysely'
import type { Json, Version } from '../sync/index.ts'
import { isoTime, type Page, type PageQuery, pageBounds, toPage } from './registry/index.ts'
import type { Database } from './schema.ts'

/** Values of a record that were overwritten, deleted, lost a conflict, left a filter or were discarded here. */
export type HistoryEntry = {
  readonly id: string
  readonly at: string
  readonly reason: string
  readonly runId: string | null
  readonly version: Version
  readonly deleted: boolean
  /** The values by column as they were here; null for a deletion. */
  readonly data: Json
}

type HistoryRow = Omit<HistoryEntry, 'version'> & {
  readonly origin: string
  readonly clock: string
  readonly seen: Readonly<Record<string, string>> | null
}

/** The earlier and losing values of one record, newest first. */
export async function readHistory(
  db: Kysely<Database>,
  record: { readonly resourceId: number; readonly id: string },
  query: PageQuery = {},
): Promise<Page<HistoryEntry>> {
  const bounds = pageBounds(query)
  const { rows } = await sql<HistoryRow>`
    select h.id, h.at, h.reason, h.run_id as "runId", o.origin, h.clock, h.deleted, h.data,
           (select jsonb_object_agg(s.origin, e.value) from jsonb_each_text(h.seen) e join syncline.site s on s.id = e.key::int4) as seen
      from syncline.history h join syncline.site o on o.id = h.origin
     where h.resource_id = ${record.resourceId} and h.record_id = ${record.id}
       and (${bounds.before}::int8 is null or h.id < ${bounds.before}::int8)
     order by h.id desc limit ${bounds.take}`.execute(db)
  return toPage(rows, bounds, ({ origin, clock, seen, ...row }) => ({
    ...row,
    at: isoTime(row.at),
    version: { origin, clock: Number(clock), ...(seen === null ? {} : { seen: numbers(seen) }) },
  }))
}

function numbers(seen: Readonly<Record<string, string>>): Record<string, number> {
  return Object.fromEntries(Object.entries(seen).map(([origin, clock]) => [origin, Number(clock)]))
}
