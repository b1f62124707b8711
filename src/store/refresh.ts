import { SynclineError } from '../sync/index.ts'
import { attach } from './attach.ts'
import type { Store } from './database.ts'

/** A table that was altered since it was attached. */
type Altered = { readonly name: string; readonly table: string; readonly key: string }

/** What came of a table that was altered: null when its columns are known again. */
export type Refreshed = { readonly resource: string; readonly problem: string | null }

/**
 * Attaches tables again whose columns were altered: from then on new ones travel and are filled with what was parked for them, and what is sent
 * for those that are gone is parked. One look at the catalogue where nothing was altered. A table that cannot be attached as it is now stays as
 * it was known, and so does one that is in use.
 */
export async function refreshAltered(store: Store): Promise<readonly Refreshed[]> {
  const running = underWay.get(store)
  if (running !== undefined) return running
  const started = refresh(store).finally(() => underWay.delete(store))
  underWay.set(store, started)
  return started
}

/** Whoever comes meanwhile waits for the same. */
const underWay = new WeakMap<Store, Promise<readonly Refreshed[]>>()

async function refresh(store: Store): Promise<readonly Refreshed[]> {
  const refreshed: Refreshed[] = []
  for (const { name, table, key } of await alteredTables(store)) {
    try {
      await attach(store, [{ table, name, key }])
      refreshed.push({ resource: name, problem: null })
    } catch (error) {
      if (!(error instanceof SynclineError)) throw error
      if (error.code !== 'SYNC_STORE_BUSY') refreshed.push({ resource: name, problem: error.message })
    }
  }
  return refreshed
}

/** Asked in every run, so its plan, which takes longer than the rest, is kept with the connection. */
async function alteredTables(store: Store): Promise<readonly Altered[]> {
  const text = `
    select r.name, format('%s.%s', r.table_schema, r.table_name) as table, r.key_column as key
      from syncline.resource r
     where r.ready and not r.managed
       and exists (select from pg_class c join pg_namespace n on n.oid = c.relnamespace
                    where c.oid = r.table_oid and n.nspname = r.table_schema and c.relname = r.table_name)
       and exists (select from pg_attribute a where a.attrelid = r.table_oid and a.attname = r.key_column and not a.attisdropped)
       and exists (
         select from (select c ->> 'name' as name, c ->> 'declared' as declared, (c ->> 'notNull')::bool as required
                        from jsonb_array_elements(r.columns) c) known
           full join (select a.attname::text as name, format_type(a.atttypid, a.atttypmod) as declared, a.attnotnull or t.typnotnull as required
                        from pg_attribute a join pg_type t on t.oid = a.atttypid
                       where a.attrelid = r.table_oid and a.attnum > 0 and not a.attisdropped) now using (name)
          where known.declared is distinct from now.declared or known.required is distinct from now.required)
     order by r.name`
  const { rows } = await store.pool.query<Altered>({ name: 'syncline_altered', text })
  return rows
}
