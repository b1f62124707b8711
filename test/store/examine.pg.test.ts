import t from 'tap'
import { attach, examineDatabase, migrate, openStore, type Store } from '../../src/store/index.ts'
import { startPostgres } from '../support/postgres.ts'

const cluster = await startPostgres(t)
const needed = async (store: Store) => {
  const { rights } = await examineDatabase(store.db)
  return rights.filter(({ needed }) => needed).map(({ missing }) => missing)
}

t.test('every right that the role lacks is named with the grant that helps, and none that it has', async (t) => {
  const [owner, role] = [await cluster.createRole(), await cluster.createRole()]
  const { name } = await cluster.createDatabase({ owner })
  await cluster.query(name, `revoke all on database ${name} from public`)
  await cluster.query(name, `grant connect on database ${name} to ${role}`)
  const store = await openStore({ databaseUrl: cluster.url(name, role), dataDir: '/nonexistent' })
  t.teardown(() => store.close())

  const before = await examineDatabase(store.db)
  t.equal(before.role, role)
  t.same(await needed(store), ['temporary tables', 'a schema of its own'])
  t.same(
    before.rights.filter(({ needed }) => !needed).map(({ grant }) => grant),
    [`grant pg_read_all_stats to ${role}`],
  )
  for (const { grant } of before.rights) await cluster.query(name, grant)
  t.same((await examineDatabase(store.db)).rights, [])

  await migrate(store)
  await cluster.query(
    name,
    `create table "Odd city" (id uuid primary key, name text); alter table "Odd city" owner to ${owner}`,
  )
  await cluster.query(name, `grant select, insert, update, delete, trigger on "Odd city" to ${role}`)
  await attach(store, [{ table: 'Odd city', name: 'city' }])
  t.same(await needed(store), [])
  await cluster.query(name, `revoke insert, trigger on "Odd city" from ${role}`)
  const [lacking] = (await examineDatabase(store.db)).rights
  t.match(lacking, { missing: 'insert, trigger on public."Odd city"', needed: true })
  await cluster.query(name, lacking?.grant ?? '')
  t.same(await needed(store), [])
})
