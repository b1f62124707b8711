import { sql } from 'kysely'
import t from 'tap'
import { pruneHistory } from '../../src/store/index.ts'
import { bothStores } from './both-stores.ts'

const { all } = await bothStores(t)
for (const { name, fresh } of all) {
  t.test(`${name}: values in history are kept for the days that were asked for and no longer`, async (t) => {
    const { db } = await fresh()
    const keep = (id: string, age: string) =>
      sql`insert into syncline.history (resource_id, record_id, at, reason, origin, clock, deleted)
          values (1, ${id}, now() - ${age}::interval, 'replaced', 1, 1, false)`.execute(db)
    await keep('old', '31 days')
    await keep('young', '29 days')
    t.equal(await pruneHistory(db, 30), 1)
    const left = await db.selectFrom('syncline.history').select('record_id').execute()
    t.same(left, [{ record_id: 'young' }])
  })
}
