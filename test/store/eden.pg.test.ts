import t from 'tap'
import {
  dueAtEden,
  type EdenMemory,
  edenTotal,
  endEdenComparison,
  findResource,
  lastEdenComparison,
  readEdenMemory,
  seenHere,
  totalOf,
  writeEdenMemory,
} from '../../src/store/index.ts'
import { introduce, peerOf, siteFactory, syncOnce } from '../support/sites.ts'

const sites = await siteFactory(t)
const DDL = 'create table place (id text primary key, name text)'
const [here, eden] = [await sites.make('here', DDL, ['place']), await sites.make('eden', DDL, ['place'])]
await introduce(here, eden)
await eden.sql(`insert into place values ('one', 'One'), ('two', 'Two')`)
await syncOnce(here, eden)
const [row] = await here.sql(`select id from syncline.resource where name = 'place'`)
const place = { peerId: peerOf(here, eden).id, resourceId: row?.id as number }
const { db } = here.store

/** What a site holds, as Eden would be found to have it. */
async function memories(): Promise<EdenMemory[]> {
  const rows = await here.sql(
    `select c.record_id, o.origin, c.clock::text from syncline.record c join syncline.site o on o.id = c.origin order by 1`,
  )
  return rows.map((each) => ({
    recordId: each.record_id as string,
    uuid: `urn:${each.record_id}`,
    have: {
      modifiedOn: 1_700_000_000,
      deleted: false,
      prints: { name: 'x' },
      version: { origin: each.origin as string, clock: Number(each.clock) },
    },
    emptied: ['acronym'],
    shownAt: 1_700_000_001,
    kept: { mci: 1, attributes: { created_by: 'a@example.org', odd: '"<&' } },
    gone: false,
    replacedBy: null,
    refused: null,
    attempts: 0,
  }))
}

t.test('what Eden showed is kept to the letter', async (t) => {
  const all = await memories()
  await writeEdenMemory(db, place, all)
  await writeEdenMemory(db, place, all)
  const found = await readEdenMemory(db, place, ['one', 'two', 'three'])
  t.same(
    [...found.values()].sort((a, b) => (a.recordId < b.recordId ? -1 : 1)),
    all.map((each) => ({ ...each, sent: undefined })),
  )
  const sent = { modifiedOn: 5, deleted: true, prints: {}, version: { origin: here.self.uuid, clock: 7 } }
  await writeEdenMemory(db, place, [{ ...(all[0] as EdenMemory), sent, have: undefined }])
  const one = (await readEdenMemory(db, place, ['one'])).get('one')
  t.same([one?.sent, one?.have], [sent, undefined])
})

t.test('I9: what Eden has is counted as a site counts its own', async (t) => {
  await writeEdenMemory(db, place, await memories())
  const resource = await findResource(db, 'place')
  const { records, sum } = await totalOf(here.store, { resource, keptFrom: place.peerId })
  t.same(await edenTotal(db, place), { records, sum, refused: 0 })
  t.equal(records, 2)
})

t.test('a full comparison finds what Eden no longer shows', async (t) => {
  const all = await memories()
  t.same(await lastEdenComparison(db, place), {
    ...{ round: 0, comparedAt: null, tookMs: 0 },
    ...{ archivedAt: null, dataset: null },
  })
  await writeEdenMemory(db, place, all.slice(0, 1), 1)
  t.same(await endEdenComparison(db, place, 1, 12.4), ['two'])
  const last = await lastEdenComparison(db, place)
  t.match(last, { round: 1, tookMs: 12 })
  t.ok(last.comparedAt)
  t.equal((await edenTotal(db, place)).records, 1)
  t.same(await endEdenComparison(db, place, 2, 1), ['one'], 'and says it once')
})

t.test('what was not taken is due again after a while, later each time', async (t) => {
  const [one] = await memories()
  await writeEdenMemory(db, place, [{ ...(one as EdenMemory), refused: 'Eden kept its own', attempts: 3 }])
  t.same(await dueAtEden(db, place, 10), [])
  await here.sql(`update syncline.eden_record set retry_at = retry_at - interval '8 minutes'`)
  t.same(await dueAtEden(db, place, 10), ['one'])
})

t.test('a version that is here already is known by its clock', async (t) => {
  const [one] = await memories()
  const { version } = (one as EdenMemory).have as NonNullable<EdenMemory['have']>
  const asked = (clock: number, origin = version.origin) => new Map([['one', { origin, clock }]])
  t.same([...(await seenHere(db, place, asked(version.clock)))], ['one'])
  t.same([...(await seenHere(db, place, asked(version.clock + 1)))], [])
  t.same([...(await seenHere(db, place, asked(1, here.self.uuid)))], [])
})
