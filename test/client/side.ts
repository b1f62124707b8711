/** A site of a test of the client: a store with tables that are attached, without a server of its own. */
import type { Test } from 'tap'
import { attach, closeLeases, ensureSelf, migrate, openStore, type Self, type Store } from '../../src/store/index.ts'
import { startPostgres } from '../support/postgres.ts'

export type Side = { readonly store: Store; readonly self: Self }

/** Sites on one PostgreSQL, each with `tables` of its own, of which `names` are attached. */
export async function sideFactory(t: Test, tables: string) {
  const cluster = await startPostgres(t)
  const template = await cluster.createDatabase()
  const first = await openStore({ databaseUrl: template.url, dataDir: '/nonexistent' })
  await migrate(first)
  await first.pool.query(tables)
  await first.close()
  return async (
    t: Test,
    site: { readonly name: string; readonly key: Buffer; readonly names: readonly string[] },
  ): Promise<Side> => {
    const { url } = await cluster.createDatabase({ template: template.name })
    const store = await openStore({ databaseUrl: url, dataDir: '/nonexistent', connectionsMax: 4 })
    t.teardown(async () => {
      await closeLeases(store)
      await store.close()
    })
    const self = await ensureSelf(store.db, { name: site.name, key: site.key })
    const wanted = site.names.map((table) => ({ table }))
    await attach(store, wanted)
    return { store, self }
  }
}
