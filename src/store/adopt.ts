import { sql, type Transaction } from 'kysely'
import { nextVersion } from './capture-function.ts'
import type { Store } from './database.ts'
import { rowlessRecords, type StrayPage, strayRows } from './deep.ts'
import { liveTable, type ResourceInfo } from './resources.ts'
import type { Database } from './schema.ts'

/** What was done behind the triggers and is a change of this site from now on. */
export type Adopted = { readonly inserted: number; readonly deleted: number; readonly changed: number }

/** Rows looked at, and records written, in one commit. */
const STEP = 5_000

/**
 * Makes changes of this site of what was done to some records behind the triggers: a row without a living record is an insert, a living record without
 * a row a delete, and with `edited` a row that has both is an edit. What the triggers know already is left alone.
 */
export async function adoptRecords(
  store: Store,
  resource: ResourceInfo,
  ids: readonly string[],
  edited: readonly string[] = [],
): Promise<Adopted> {
  let total: Adopted = { inserted: 0, deleted: 0, changed: 0 }
  for (let at = 0; at < Math.max(ids.length, edited.length); at += STEP) {
    const [some, changed] = [ids.slice(at, at + STEP), edited.slice(at, at + STEP)]
    const step = await store.db.transaction().execute((trx) => adopt(trx, resource, some, changed))
    total = {
      inserted: total.inserted + step.inserted,
      deleted: total.deleted + step.deleted,
      changed: total.changed + step.changed,
    }
  }
  return total
}

/** The same for some records, in the transaction of the caller. */
export async function adopt(
  trx: Transaction<Database>,
  resource: ResourceInfo,
  ids: readonly string[],
  edited: readonly string[],
): Promise<Adopted> {
  const row = (id: string) =>
    sql`from ${sql.raw(liveTable(resource))} t where t.${sql.id(resource.keyColumn)} = ${sql.raw(id)}::${sql.raw(resource.keyType)}`
  const now = sql`(select (extract(epoch from clock_timestamp()) * 1000000)::int8 as now_us) now`
  // The rows first, then the records: the order in which an application takes them. What it did meanwhile is seen below.
  await sql`
    select from ${sql.raw(liveTable(resource))} t
     where t.${sql.id(resource.keyColumn)} = any (array(select w::${sql.raw(resource.keyType)} from unnest(${[...ids, ...edited]}::text[]) w))
     order by t.${sql.id(resource.keyColumn)} for no key update`.execute(trx)
  const written = await sql<{ deleted: boolean; mine: boolean }>`
    insert into syncline.record as r (resource_id, record_id, xact, origin, clock, deleted)
    select ${resource.id}, w.id, pg_current_xact_id(), self.site_id, now.now_us, false
      from unnest(${[...ids]}::text[]) w(id), syncline.self, ${now} where exists (select ${row('w.id')}) order by w.id
    on conflict (resource_id, record_id) do update set
      xact = excluded.xact, ${sql.raw(nextVersion('excluded.origin', '(extract(epoch from clock_timestamp()) * 1000000)::int8'))}, source = null, deleted = false
      where r.deleted`.execute(trx)
  const deleted = await sql`
    update syncline.record r set xact = pg_current_xact_id(), ${sql.raw(nextVersion('self.site_id', 'now.now_us'))}, source = null, deleted = true
      from syncline.self, ${now}
     where r.resource_id = ${sql.lit(resource.id)} and not r.deleted and r.record_id = any (${[...ids]}::text[]) and not exists (select ${row('r.record_id')})`.execute(
    trx,
  )
  const changed = await sql`
    update syncline.record r set xact = pg_current_xact_id(), ${sql.raw(nextVersion('self.site_id', 'now.now_us'))}, source = null
      from syncline.self, ${now}
     where r.resource_id = ${sql.lit(resource.id)} and not r.deleted and r.record_id = any (${[...edited]}::text[]) and exists (select ${row('r.record_id')})`.execute(
    trx,
  )
  const count = (result: { readonly numAffectedRows?: bigint }) => Number(result.numAffectedRows ?? 0)
  return { inserted: count(written), deleted: count(deleted), changed: count(changed) }
}

export type AdoptProgress = (step: { readonly doing: string; readonly done: number }) => void

/**
 * Looks through a whole table for what was inserted or deleted while its triggers were missing or disabled, and makes changes of this site of it, in
 * steps that hold nobody up for long. Rows that were edited meanwhile look like any other.
 */
export async function adoptMissed(
  store: Store,
  resource: ResourceInfo,
  progress: AdoptProgress = () => {},
): Promise<Adopted> {
  let total: Adopted = { inserted: 0, deleted: 0, changed: 0 }
  const scope = { resource }
  for (const [doing, look] of [
    ['looking for rows without a record', (after: string | null) => strayRows(store.db, scope, after, STEP)],
    ['looking for records without a row', (after: string | null) => rowlessRecords(store.db, resource, after, STEP)],
  ] as const) {
    let done = 0
    for (let after: string | null = null, first = true; first || after !== null; first = false) {
      const page: StrayPage = await look(after)
      const { inserted, deleted } = await adoptRecords(store, resource, page.ids)
      total = { ...total, inserted: total.inserted + inserted, deleted: total.deleted + deleted }
      done += page.ids.length
      progress({ doing, done })
      after = page.after
    }
  }
  return total
}
