import t, { type Test } from 'tap'
import { attach, createPeer, createTask } from '../../src/store/index.ts'
import { siteOfRepository } from '../../src/sync/index.ts'
import { startEdenDouble } from '../support/eden-double.ts'
import { type EdenPair, edenSites, KEY, uuid } from './eden-sites.ts'

const pair = await edenSites(t)

/** One organisation with an office, a sector and a location. */
function seed({ eden }: EdenPair, at = '2026-01-02T03:04:05'): void {
  eden.put('gis_location', uuid(1), { name: 'Harbour', level: 'L1', lat: 18.5392, lon: -72.335, inherited: false }, at)
  eden.put('org_sector', uuid(2), { name: 'Shelter', abrv: 'SHE' }, at)
  eden.put(
    'org_organisation',
    uuid(3),
    { name: 'Relief "Alpha" & <Friends>', acronym: 'RAF', year: 1999, comments: 'one\ntwo', founded: '1999-12-31' },
    at,
  )
  eden.put(
    'org_office',
    uuid(4),
    {
      name: 'HQ',
      code: 'AHQ',
      obsolete: false,
      opened_at: '2001-02-03T04:05:06',
      organisation_id: uuid(3),
      location_id: uuid(1),
    },
    at,
  )
  eden.put('org_sector_organisation', uuid(5), { organisation_id: uuid(3), sector_id: uuid(2) }, at)
}

const organisation = async ({ query }: EdenPair, n = 3) =>
  (await query(`select * from org_organisation where id = '${uuid(n)}'`))[0]

t.test('a first run brings everything of Eden, and takes everything there', async (t) => {
  const sites = await pair(t)
  const { eden, query, run } = sites
  seed(sites)
  await query(`insert into gis_location values ('${uuid(11)}', 'Hill', 'L2', 1.5, 2.25, true, null)`)
  await query(
    `insert into org_organisation (id, name, year, founded) values ('${uuid(13)}', 'Ours', 2003, '2003-04-05')`,
  )
  await query(
    `insert into org_office values ('${uuid(14)}', 'Our HQ', null, true, '2020-01-01T10:00:00Z', '${uuid(13)}', '${uuid(11)}')`,
  )
  const report = await run()
  t.match(report, { result: 'success', code: null })
  t.match(await organisation(sites), {
    name: 'Relief "Alpha" & <Friends>',
    acronym: 'RAF',
    year: 1999,
    comments: 'one\ntwo',
  })
  const [office] = await query(
    `select name, obsolete, opened_at at time zone 'UTC' as opened, organisation_id, location_id from org_office where id = '${uuid(4)}'`,
  )
  t.match(office, { name: 'HQ', obsolete: false, organisation_id: uuid(3), location_id: uuid(1) })
  t.equal((await query('select count(*)::int as n from org_sector_organisation'))[0]?.n, 1)
  t.match(eden.rows('org_organisation').get(uuid(13))?.values, { name: 'Ours', year: 2003, founded: '2003-04-05' })
  t.match(eden.rows('org_office').get(uuid(14))?.values, {
    obsolete: true,
    opened_at: '2020-01-01T10:00:00',
    organisation_id: uuid(13),
    location_id: uuid(11),
  })
  t.equal(eden.rows('org_office').get(uuid(14))?.mci, 1, 'one hop from where it was made')
  t.same(
    await query('select verdict from syncline.agreement'),
    Array(5).fill({ verdict: 'equal' }),
    'I9: a full comparison proves both equal',
  )

  const asked = eden.requests.length
  const idle = await run()
  t.match(idle, { result: 'success', counts: { pulled: 0, pushed: 0 } })
  t.equal(eden.requests.slice(asked).filter(({ method }) => method !== 'GET').length, 0, 'I4: nothing goes back')
})

t.test('the log has Eden’s own words for what this site asked of it', async (t) => {
  const sites = await pair(t, { names: ['org_sector', 'org_organisation'] })
  const { eden, query, run } = sites
  eden.put('org_sector', uuid(2), { name: 'Shelter', abrv: 'SHE' }, '2026-01-02T03:04:05')
  await query(`insert into org_sector values ('${uuid(9)}', 'Ours', null)`)
  const { runId } = await run()
  const log = async () =>
    query(
      `select resource, mode, direction, action, result, remote, message, run_id from syncline.log where action <> 'compare' order by id`,
    )
  const words = { direction: 'outgoing', result: 'success', remote: false, run_id: runId }
  const [none, imported, sent, ...rest] = (await log()).sort((a, b) =>
    `${a.action} ${a.resource}` < `${b.action} ${b.resource}` ? -1 : 1,
  )
  t.match(none, {
    ...words,
    resource: 'org_organisation',
    mode: 'pull',
    action: 'import',
    message: 'No data to import (already up-to-date)',
  })
  t.match(imported, {
    ...words,
    resource: 'org_sector',
    mode: 'pull',
    action: 'import',
    message: /^Data imported successfully \(1 records\): 1 change/,
  })
  t.match(sent, {
    ...words,
    resource: 'org_sector',
    mode: 'push',
    action: 'send',
    message: /^data sent successfully \(1 records\): 1 change/,
  })
  t.same(rest, [])
  // The Eden forgot this site: it is told again who that is.
  eden.registered.clear()
  await query(`update org_sector set name = 'Later' where id = '${uuid(9)}'`)
  await run()
  t.match(
    (await log()).filter(({ action }) => action === 'request registration'),
    [{ mode: 'push', direction: 'outgoing', message: /^Registration/ }],
  )
  await eden.close()
  await run()
  t.match((await log()).at(-1), { result: 'error', message: /^Peer repository unavailable \(/ })
})

t.test('what is sent is what an unpatched Eden takes', async (t) => {
  const sites = await pair(t)
  const { eden, query, run } = sites
  seed(sites)
  await run()
  const text = '&lt;b&gt; "quoted" <i>&amp;</i> true 12 null'
  await query(`update org_organisation set comments = '${text}', website = 'true', year = 2001`)
  await query(`insert into org_sector values ('${uuid(22)}', '12', 'null')`)
  t.match(await run(), { result: 'success' })
  t.match(eden.rows('org_organisation').get(uuid(3))?.values, { comments: text, website: 'true', year: 2001 })
  t.match(eden.rows('org_sector').get(uuid(22))?.values, { name: '12', abrv: 'null' })
  const pushes = eden.requests.filter(({ method }) => method === 'POST')
  t.ok(pushes.length > 0)
  for (const { headers, body, query } of pushes) {
    t.match(headers, {
      'content-type': 'text/xml',
      'content-disposition': 'attachment; filename="data.xml"',
      authorization: /^Basic /,
    })
    t.ok(headers['content-length'])
    t.equal(query.get('repository'), `urn:uuid:${sites.self.uuid}`)
    for (const [element = ''] of body.toString().matchAll(/<resource [^>]*>/g))
      t.match(element, / modified_on="\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d"/)
    t.notMatch(body.toString(), /<reference [^>]*null=/)
    for (const [element = ''] of body.toString().matchAll(/<data [^>]*>/g)) t.match(element, / (value|null)="/)
  }
  const cursors = eden.requests.map(({ query }) => query.get('msince')).filter((text) => text !== null)
  t.ok(cursors.length > 0)
  for (const text of cursors) t.match(text, /^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d$/)
  t.notOk(
    eden.requests.some(({ method }) => !['GET', 'POST'].includes(method)),
    'never a DELETE',
  )
})

t.test('I1: what the cursor of Eden passes over is found by a full comparison', async (t) => {
  const sites = await pair(t)
  const { eden, query, run, longAfter } = sites
  seed(sites)
  await run()
  eden.put('org_organisation', uuid(30), { name: 'Came by a third site' }, '2020-05-05T05:05:05')
  await run()
  t.same(await query(`select id from org_organisation where id = '${uuid(30)}'`), [], 'the cursor does not show it')
  t.equal(
    (
      await query(
        `select verdict from syncline.agreement a join syncline.resource r on r.id = a.resource_id where r.name = 'org_organisation'`,
      )
    )[0]?.verdict,
    'equal',
    'and nothing moved',
  )
  await longAfter()
  t.match(await run(), { result: 'success' })
  t.equal((await query(`select name from org_organisation where id = '${uuid(30)}'`))[0]?.name, 'Came by a third site')
})

t.test('I1: a component that changes under a master that does not is brought', async (t) => {
  const sites = await pair(t)
  const { eden, query, run } = sites
  seed(sites)
  await run()
  eden.put('org_office', uuid(4), { code: 'NEW' })
  await run()
  t.equal((await query('select code from org_office'))[0]?.code, 'NEW')
})

t.test(
  'I8: what Eden does not take is named with its reason, though it answers with success; the rest is taken',
  async (t) => {
    const sites = await pair(t)
    const { eden, query, run } = sites
    await query(
      `insert into org_organisation (id, name, year) values ('${uuid(41)}', 'Good', 1999), ('${uuid(42)}', 'Bad', 12)`,
    )
    const report = await run()
    t.match(report, { result: 'warning', counts: { pushApplied: 1, pushRefused: 1 } })
    t.ok(eden.rows('org_organisation').has(uuid(41)))
    t.notOk(eden.rows('org_organisation').has(uuid(42)))
    const [there] = await query(`select record_id, outcome, reason from syncline.elsewhere`)
    t.match(there, { record_id: uuid(42), outcome: 'refused', reason: /year: Enter an integer between 1850 and 2099/ })
    await query(`update org_organisation set year = 2012 where id = '${uuid(42)}'`)
    t.match(await run(), { result: 'success', counts: { pushApplied: 1 } })
    t.equal(eden.rows('org_organisation').get(uuid(42))?.values.year, 2012)
  },
)

t.test('I9: a push that Eden reports as updated and refused is not taken for done, and is sent again', async (t) => {
  const sites = await pair(t)
  const { eden, query, run } = sites
  seed(sites)
  await run()
  eden.policy('THIS')
  await query(`update org_organisation set name = 'Changed here'`)
  const report = await run()
  t.match(report, { result: 'warning', counts: { pushApplied: 0, pushRefused: 1 } })
  t.match(eden.rows('org_organisation').get(uuid(3))?.values, { name: /Relief/ })
  t.match(
    (await query(`select reason from syncline.elsewhere`))[0]?.reason,
    /Eden shows other values: name as they were before/,
  )
  eden.policy('NEWER')
  await query(`update syncline.eden_record set retry_at = now() - interval '1 second' where refused is not null`)
  t.match(await run(), { result: 'success', counts: { pushApplied: 1 } })
  t.equal(eden.rows('org_organisation').get(uuid(3))?.values.name, 'Changed here')
  t.same(await query('select * from syncline.elsewhere'), [])
})

for (const [onConflict, winner] of [
  ['mine', 'Ours'],
  ['theirs', 'Theirs'],
  ['newer', 'Theirs'],
  ['ask', null],
] as const) {
  t.test(`I7: concurrent edits are told by what each had seen: ${onConflict}`, async (t) => {
    const sites = await pair(t, { onConflict })
    const { eden, query, run } = sites
    seed(sites)
    await run()
    await query(`update org_organisation set name = 'Ours'`)
    eden.put('org_organisation', uuid(3), { name: 'Theirs' }, new Date(Date.now() + 60_000).toISOString().slice(0, 19))
    await run()
    await run()
    const here = (await organisation(sites))?.name
    const there = eden.rows('org_organisation').get(uuid(3))?.values.name
    if (winner === null) {
      t.same([here, there], ['Ours', 'Theirs'])
      t.equal((await query('select count(*)::int as n from syncline.conflict where resolved_at is null'))[0]?.n, 1)
    } else t.same([here, there], [winner, winner])
  })
}

t.test('a second that both sites wrote in, and edits one after the other, are no conflict', async (t) => {
  const sites = await pair(t, { onConflict: 'ask' })
  const { eden, query, run } = sites
  seed(sites)
  await run()
  for (let n = 0; n < 3; n++) {
    eden.put('org_organisation', uuid(3), { name: `Theirs ${n}` })
    await run()
    t.equal((await organisation(sites))?.name, `Theirs ${n}`)
    await query(`update org_organisation set name = 'Ours ${n}'`)
    t.match(await run(), { result: 'success' })
    t.equal(eden.rows('org_organisation').get(uuid(3))?.values.name, `Ours ${n}`)
  }
  t.same(await query('select * from syncline.conflict'), [])
})

t.test('a time that Eden set back by itself is no write, and the next push is taken', async (t) => {
  const sites = await pair(t)
  const { eden, query, run, longAfter } = sites
  seed(sites)
  await run()
  // Another site's older push with a reference was refused, and left its time.
  Object.assign(eden.rows('org_organisation').get(uuid(3)) ?? {}, { modified_on: '2025-01-01T00:00:00' })
  await longAfter()
  t.match(await run(), { result: 'success', counts: { applied: 0 } })
  await query(`update org_organisation set name = 'After'`)
  t.match(await run(), { result: 'success', counts: { pushApplied: 1 } })
  t.equal(eden.rows('org_organisation').get(uuid(3))?.values.name, 'After')
})

t.test('a record that Eden stamped again, unchanged and ahead of time, still takes what is written here', async (t) => {
  const sites = await pair(t)
  const { eden, query, run } = sites
  seed(sites)
  await run()
  const ahead = new Date(Date.now() + 120_000).toISOString().slice(0, 19)
  Object.assign(eden.rows('org_organisation').get(uuid(3)) ?? {}, { modified_on: ahead })
  await run()
  await query(`update org_organisation set name = 'Here'`)
  t.match(await run(), { result: 'success', counts: { pushApplied: 1 } })
  t.match(eden.rows('org_organisation').get(uuid(3)), { modified_on: ahead, values: { name: 'Here' } })
})

t.test('I1: a record from the future waits alone, and hides nothing that comes after it', async (t) => {
  const sites = await pair(t, { names: ['org_sector'] })
  const { eden, query, run } = sites
  eden.put('org_sector', uuid(50), { name: 'From the future' }, '2030-01-01T00:00:00')
  await run()
  t.match(await query('select code from syncline.quarantine'), [{ code: 'SYNC_RECORD_CLOCK_AHEAD' }])
  eden.put('org_sector', uuid(51), { name: 'Now' })
  await run()
  t.same(await query('select name from org_sector'), [{ name: 'Now' }])
})

t.test('I9: what moved since everything was compared is not called equal, and why is said', async (t) => {
  const sites = await pair(t, { names: ['org_sector'] })
  const { eden, query, run, longAfter } = sites
  const verdict = async () => (await query('select verdict, reason from syncline.agreement'))[0]
  eden.put('org_sector', uuid(60), { name: 'One' })
  await run()
  t.match(await verdict(), { verdict: 'equal', reason: null })
  eden.put('org_sector', uuid(61), { name: 'Two' })
  await run()
  t.match(await verdict(), {
    verdict: 'unknown',
    reason: /its cursor can pass over changes: everything was compared last on/,
  })
  await longAfter()
  eden.put('org_sector', uuid(62), { name: 'Three' })
  await run()
  t.match(await verdict(), { verdict: 'equal', reason: null })
})

t.test('I6: deletions go both ways; one that Eden refuses is told, and goes through when it can', async (t) => {
  const sites = await pair(t)
  const { eden, query, run } = sites
  seed(sites)
  eden.put('org_organisation', uuid(6), { name: 'Alone' }, '2026-01-02T03:04:05')
  await run()
  eden.remove('org_organisation', uuid(6))
  await run()
  t.same(await query(`select id from org_organisation where id = '${uuid(6)}'`), [])
  // Someone at Eden opens an office that is not here yet when the organisation is deleted here.
  await query(`delete from org_sector_organisation; delete from org_office; delete from org_organisation`)
  eden.put('org_office', uuid(7), { name: 'New office', organisation_id: uuid(3) })
  const report = await run({ resources: ['org_organisation'] })
  t.match(report, { result: 'warning', counts: { pushRefused: 1 } })
  t.match((await query(`select reason from syncline.elsewhere`))[0]?.reason, /still|referenced by other records/)
  t.equal(eden.rows('org_organisation').get(uuid(3))?.deleted, false)
})

t.test('what Eden empties is empty here; what Eden cannot be told to empty is told', async (t) => {
  const sites = await pair(t)
  const { eden, query, run } = sites
  seed(sites)
  await run()
  eden.put('org_organisation', uuid(3), { year: null, acronym: null })
  await run()
  t.match(await organisation(sites), { year: null, acronym: null, founded: /1999/ })
  await query(`update org_organisation set founded = null, comments = null`)
  const report = await run()
  t.match(report, { result: 'warning', counts: { pushRefused: 1 } })
  t.match(
    (await query(`select reason from syncline.elsewhere`))[0]?.reason,
    /no way to be told that a value is empty: it keeps founded/,
  )
  t.match(eden.rows('org_organisation').get(uuid(3))?.values, { founded: '1999-12-31', comments: '' })
  await run()
  t.match(await organisation(sites), { founded: null, comments: null }, 'and does not come back')
})

t.test('I11: fields without a column here, and who made a record, are kept and given back', async (t) => {
  const sites = await pair(t)
  const { eden, query, run } = sites
  await query('alter table org_organisation drop column acronym')
  await query('alter table org_office drop column location_id')
  seed(sites)
  Object.assign(eden.rows('org_organisation').get(uuid(3)) ?? {}, { approved: false })
  await run()
  await query(`update org_organisation set name = 'Changed'`)
  await query(`update org_office set name = 'Moved'`)
  t.match(await run(), { result: 'success' })
  const [sent = '', office = ''] = eden.requests
    .filter(({ method }) => method === 'POST')
    .map(({ body }) => body.toString())
  t.match(sent, /<data field="acronym" value="&quot;RAF&quot;"/)
  t.match(sent, / mci="2" created_on="2026-01-02T03:04:05" .*created_by="admin@example.com" .*approved="false"/)
  const [reference = ''] = /<reference field="location_id"[^>]*>/.exec(office) ?? []
  t.match(reference, ' resource="gis_location"')
  t.match(reference, ` uuid="${uuid(1)}"`)
  t.equal(eden.rows('org_organisation').get(uuid(3))?.approved, false)
})

t.test('an Eden that forgot this site is told again who it is', async (t) => {
  const sites = await pair(t)
  const { eden, query, run } = sites
  seed(sites)
  await run()
  eden.registered.clear()
  await query(`update org_organisation set name = 'Again'`)
  t.match(await run(), { result: 'success' })
  t.same([...eden.registered], [`urn:uuid:${sites.self.uuid}`])
  t.equal(eden.rows('org_organisation').get(uuid(3))?.values.name, 'Again')
})

t.test('an Eden that was put back to an earlier state gets what it lost, and takes nothing back here', async (t) => {
  const sites = await pair(t)
  const { eden, query, run, longAfter } = sites
  seed(sites)
  await run()
  const before = structuredClone([...eden.rows('org_organisation')])
  eden.put('org_organisation', uuid(3), { name: 'Written later' })
  eden.put('org_organisation', uuid(8), { name: 'Made later' })
  await run()
  eden.rows('org_organisation').clear()
  for (const [id, row] of before) eden.rows('org_organisation').set(id, row)
  await query(`update syncline.eden_record set shown_at = shown_at + 60`)
  await longAfter()
  await run()
  t.equal((await organisation(sites))?.name, 'Written later')
  t.equal(eden.rows('org_organisation').get(uuid(3))?.values.name, 'Written later')
  t.equal(eden.rows('org_organisation').get(uuid(8))?.values.name, 'Made later')
  t.ok((await query(`select message from syncline.log where message like '%as they were before%'`)).length > 0)
})

t.test('references follow a merge at Eden', async (t) => {
  const sites = await pair(t)
  const { eden, query, run } = sites
  seed(sites)
  eden.put('org_organisation', uuid(6), { name: 'The same, once more' }, '2026-01-02T03:04:05')
  await run()
  await query(`insert into org_office (id, name, organisation_id) values ('${uuid(9)}', 'Only here', '${uuid(6)}')`)
  t.equal(eden.remove('org_organisation', uuid(6), uuid(3)), null)
  await run()
  t.match(await run(), { result: 'success' })
  t.same(await query(`select id from org_organisation where id = '${uuid(6)}'`), [])
  t.equal((await query(`select organisation_id from org_office where id = '${uuid(9)}'`))[0]?.organisation_id, uuid(3))
  t.equal(eden.rows('org_office').get(uuid(9))?.values.organisation_id, uuid(3))
})

t.test('a long table comes and goes in batches', async (t) => {
  const sites = await pair(t, { names: ['org_sector'] })
  const { eden, query, run } = sites
  for (let n = 0; n < 2_500; n++)
    eden.put('org_sector', uuid(10_000 + n), { name: `Theirs ${n}` }, '2026-01-02T03:04:05')
  await query(
    `insert into org_sector select 'urn:uuid:00000000-0000-4000-9000-' || lpad(n::text, 12, '0'), 'Ours ' || n from generate_series(1, 650) n`,
  )
  t.match(await run(), { result: 'success', counts: { applied: 2_500, pushApplied: 650 } })
  const documents = eden.requests
    .filter(({ method }) => method === 'POST')
    .map(({ body }) => body.toString().split('<resource ').length - 1)
  t.ok(documents.length >= 4 && documents.every((count) => count <= 200), `documents of ${documents}`)
  t.equal(eden.rows('org_sector').size, 3_150)
})

t.test('I2: an answer that is cut off, refused or late leaves nothing half done', async (t) => {
  const sites = await pair(t, { names: ['org_sector'] })
  const { eden, query, run } = sites
  for (let n = 0; n < 300; n++) eden.put('org_sector', uuid(20_000 + n), { name: `Theirs ${n}` }, '2026-01-02T03:04:05')
  let answers = 0
  eden.misbehave = ({ method, query }, response) => {
    if (method !== 'GET' || query.get('msince')?.startsWith('22') || answers++ > 2) return false
    response.writeHead(200, { 'content-type': 'text/xml', 'content-length': '100000' })
    response.write(
      `<?xml version='1.0' encoding='utf-8'?>\n<s3xml success="true"><resource name="org_sector" uuid="${uuid(20_000)}" mci="1" modified_on="2026-01-02T03:04:05"><data field="name">Theirs 0</data></resource>`,
    )
    setTimeout(() => response.destroy(), 20)
    return true
  }
  await run()
  eden.misbehave = () => false
  t.match(await run(), { code: null })
  t.equal((await query('select count(*)::int as n from org_sector'))[0]?.n, 300)
  await query(`update org_sector set abrv = 'X'`)
  let posts = 0
  eden.misbehave = ({ method }, response) => {
    if (method !== 'POST' || posts++ > 0) return false
    response.writeHead(503).end()
    return true
  }
  await run()
  await run()
  t.equal([...eden.rows('org_sector').values()].filter(({ values }) => values.abrv === 'X').length, 300)
})

t.test('a wrong password, and an Eden that hangs, are told as what they are', async (t: Test) => {
  const sites = await pair(t, { names: ['org_sector'] })
  const { eden, run } = sites
  eden.misbehave = (_, response) => {
    response
      .writeHead(401, { 'www-authenticate': 'Basic realm="eden"', 'content-type': 'text/html' })
      .end('Authentication Required')
    return true
  }
  t.match(await run(), { code: 'SYNC_AUTH_MISSING', message: /Authentication Required/ })
  eden.misbehave = (_, response) => {
    response.writeHead(303, { location: '/eden/default/index' }).end()
    return true
  }
  t.match(await run(), { code: 'SYNC_PEER_REFUSED', message: /is the address that of the application/ })
})

t.test('a preview tells what a run would do, and writes nothing here or there', async (t) => {
  const sites = await pair(t, { names: ['org_sector'] })
  const { eden, query, run, preview } = sites
  eden.put('org_sector', uuid(70), { name: 'One' })
  eden.put('org_sector', uuid(71), { name: 'Two' })
  await run()
  eden.put('org_sector', uuid(70), { name: 'Changed there' })
  eden.put('org_sector', uuid(72), { name: 'Three' })
  await query(
    `update org_sector set name = 'Changed here' where id = '${uuid(71)}'; insert into org_sector values ('${uuid(73)}', 'Four')`,
  )
  const posts = () => eden.requests.filter(({ method }) => method === 'POST').length
  const state = () =>
    query(
      `select (select jsonb_agg(s order by id) from org_sector s) as rows, (select jsonb_agg(e.prints order by record_id) from syncline.eden_record e) as known`,
    )
  const [before, sent] = [await state(), posts()]
  const { tasks } = await preview()
  t.match(tasks, [
    {
      resource: 'org_sector',
      parts: [{ direction: 'pull', writes: { inserts: 1, updates: 1 } }, { direction: 'push' }],
    },
  ])
  t.same([await state(), posts()], [before, sent])
  t.match(await run(), { result: 'success', counts: { applied: 2, pushApplied: 2 } })
})

t.test('a task that only pushes does not look at what Eden has, and is taken all the same', async (t) => {
  const sites = await pair(t, { names: ['org_sector'], mode: 'push' })
  const { eden, query, run } = sites
  eden.put('org_sector', uuid(80), { name: 'There already' })
  await query(`insert into org_sector values ('${uuid(80)}', 'Ours'), ('${uuid(81)}', 'New')`)
  t.match(await run(), { result: 'success', counts: { pulled: 0, pushApplied: 2 } })
  eden.put('org_sector', uuid(80), { name: 'Edited there' })
  await query(`update org_sector set name = name || ' again'`)
  t.match(await run(), { result: 'success', counts: { pushApplied: 2 } })
  t.same(
    [...eden.rows('org_sector').values()].map(({ values }) => values.name),
    ['Ours again', 'New again'],
  )
})

t.test('what Eden fills in, and a task that only pushes never pulls, holds nothing back', async (t) => {
  const sites = await pair(t, { names: ['org_organisation'], mode: 'push' })
  const { eden, query, run } = sites
  await query(`insert into org_organisation (id, name) values ('${uuid(82)}', 'Ours')`)
  eden.misbehave = ({ method }, response) => {
    const row = () => eden.rows('org_organisation').get(uuid(82))
    if (method === 'POST') response.on('finish', () => Object.assign(row()?.values ?? {}, { acronym: 'FILLED' }))
    return false
  }
  t.match(await run(), { result: 'success', counts: { pushApplied: 1 } })
  eden.misbehave = () => false
  await query(`update org_organisation set name = 'Ours again'`)
  t.match(await run(), { result: 'success', counts: { pushApplied: 1, pushRefused: 0 } })
  t.match(eden.rows('org_organisation').get(uuid(82))?.values, { name: 'Ours again' })
})

t.test('a record that Eden lost, after an edit there that waits here, is sent as it is here', async (t) => {
  const sites = await pair(t, { names: ['org_organisation'], onConflict: 'ask' })
  const { eden, query, run, longAfter } = sites
  await query('alter table org_organisation add check (year < 2000)')
  eden.put('org_organisation', uuid(83), { name: 'Both', year: 1999 }, '2026-01-02T03:04:05')
  t.match(await run(), { result: 'success' })
  eden.put('org_organisation', uuid(83), { year: 2010 })
  await run()
  t.match(await query('select record_id from syncline.quarantine'), [{ record_id: uuid(83) }])
  eden.rows('org_organisation').delete(uuid(83))
  await longAfter()
  await run()
  await run()
  t.match(eden.rows('org_organisation').get(uuid(83))?.values, { name: 'Both', year: 1999 })
})

t.test('a task that only pulls sends nothing', async (t) => {
  const sites = await pair(t, { names: ['org_sector'], mode: 'pull' })
  const { eden, query, run } = sites
  eden.put('org_sector', uuid(90), { name: 'Theirs' })
  await query(`insert into org_sector values ('${uuid(91)}', 'Ours')`)
  t.match(await run(), { result: 'success', counts: { applied: 1, pushed: 0 } })
  t.equal(eden.requests.filter(({ method }) => method === 'POST').length, 0)
})

for (const stamped of [0, 5_000]) {
  t.test(
    `what Eden fills in is a write behind ours, and no conflict, ${stamped === 0 ? 'at our time' : 'at its own'}`,
    async (t) => {
      const sites = await pair(t, { names: ['org_organisation'], onConflict: 'ask' })
      const { eden, query, run } = sites
      await query(`insert into org_organisation (id, name) values ('${uuid(95)}', 'Ours')`)
      eden.misbehave = ({ method }, response) => {
        if (method !== 'POST') return false
        response.on('finish', () => {
          const row = eden.rows('org_organisation').get(uuid(95))
          const at = Date.parse(`${row?.modified_on}Z`) + stamped
          Object.assign(row ?? {}, { modified_on: new Date(at).toISOString().slice(0, 19) })
          Object.assign(row?.values ?? {}, { acronym: 'FILLED', website: 'http://made.example.org' })
        })
        return false
      }
      t.match(await run(), { result: 'success', counts: { pushApplied: 1 } })
      eden.misbehave = () => false
      t.match(await run(), { result: 'success', counts: { applied: 1, pushed: 0 } })
      t.match(await organisation(sites, 95), { name: 'Ours', acronym: 'FILLED' })
      t.match(await run(), { result: 'success', counts: { pulled: 0, pushed: 0 } })
      t.same(await query('select * from syncline.conflict'), [])
    },
  )
}

t.test('a file of Eden comes from its own address alone, and is not sent back', async (t) => {
  const sites = await pair(t, { names: [] })
  const { eden, query, run, store, peer } = sites
  await query('alter table org_organisation add column logo bytea')
  await attach(store, [{ table: 'org_organisation' }])
  await createTask(store.db, { peerId: peer.id, resource: 'org_organisation', mode: 'both' })
  eden.files.set('logo.png', Buffer.from([0, 1, 255]))
  eden.put('org_organisation', uuid(3), { name: 'With a logo', logo: 'logo.png' })
  eden.put('org_organisation', uuid(4), { name: 'With a trap', logo: 'http://169.254.169.254/latest/meta-data' })
  eden.put('org_organisation', uuid(5), { name: 'With nothing', logo: 'lost.png' })
  t.match(await run(), { code: null, counts: { applied: 3 } })
  t.same(await query(`select encode(logo, 'hex') as logo from org_organisation order by id`), [
    { logo: '0001ff' },
    { logo: null },
    { logo: null },
  ])
  const [entry] = await query(`select message from syncline.log where message like '%files did not come%'`)
  t.match(entry?.message, /^2 files did not come; first: logo of .*(not at the address of this peer|it answered 404)/)
  await query(`update org_organisation set name = 'Changed' where id = '${uuid(3)}'`)
  t.match(await run(), { result: 'success', counts: { pushApplied: 1 } })
  t.notMatch(eden.requests.find(({ method }) => method === 'POST')?.body.toString(), /logo/)
  t.match(eden.rows('org_organisation').get(uuid(3))?.values, { name: 'Changed', logo: 'logo.png' })
  t.match(await run(), { counts: { pulled: 0, pushed: 0 } })
})

t.test(
  'I8: a record of Eden that cannot be read here waits alone with its reason, and comes when Eden has another value',
  async (t) => {
    const sites = await pair(t, { names: ['org_organisation'] })
    const { eden, query, run } = sites
    eden.put('org_organisation', uuid(3), { name: 'Good', year: 1999 })
    eden.put('org_organisation', uuid(4), { name: 'Bad', year: 'long ago' })
    t.match(await run(), { result: 'warning', counts: { applied: 1, quarantined: 1 } })
    t.same(await query('select name from org_organisation'), [{ name: 'Good' }])
    const [waiting] = await query('select record_id, line from syncline.quarantine')
    t.match(waiting, { record_id: uuid(4), line: /year.*is no number/ })
    t.match(
      await query('select verdict from syncline.agreement'),
      [{ verdict: 'waiting' }],
      'I9: and nothing is called equal',
    )
    t.match(await query(`select result, message from syncline.log where message like '1 records cannot be read%'`), [
      { result: 'error' },
    ])
    t.match(await run(), { counts: { pulled: 0 } })
    eden.put('org_organisation', uuid(4), { year: 2001 })
    t.match(await run(), { result: 'success', counts: { applied: 1 } })
    t.same(await query('select name, year from org_organisation order by id'), [
      { name: 'Good', year: 1999 },
      { name: 'Bad', year: 2001 },
    ])
    t.same(await query('select * from syncline.quarantine'), [])
  },
)

t.test('I11: records of tables that are not here are kept as they came, and told of once', async (t) => {
  const sites = await pair(t, { names: ['org_organisation'] })
  const { query, run, longAfter } = sites
  seed(sites)
  await run()
  await longAfter()
  await run()
  const kept = await query(
    `select table_name, uuid, record_id, element -> 'fields' as fields from syncline.eden_stranger order by table_name`,
  )
  t.match(kept, [
    { table_name: 'gis_location', uuid: uuid(1), record_id: null },
    { table_name: 'org_office', uuid: uuid(4), record_id: uuid(3) },
    { table_name: 'org_sector', uuid: uuid(2), record_id: null },
    { table_name: 'org_sector_organisation', uuid: uuid(5), record_id: uuid(3) },
  ])
  t.match(JSON.stringify(kept[1]?.fields), /AHQ/)
  const told = await query(`select message from syncline.log where message like '%no resource of that name%'`)
  t.match(told, [
    { message: /gis_location, org_office, org_sector, org_sector_organisation along with org_organisation/ },
  ])
})

t.test('what one Eden tells of a record beside its values goes on to another one, one hop further', async (t) => {
  const sites = await pair(t, { names: ['org_sector'] })
  const { eden, run, runWith, store, self } = sites
  const other = await startEdenDouble(t)
  other.registered.add(`urn:uuid:${self.uuid}`)
  const token = `${other.username}:${other.password}`
  const { id } = await createPeer(store.db, KEY, {
    name: 'other',
    uuid: siteOfRepository(other.uuid) ?? '',
    kind: 'eden',
    url: other.url,
    token,
  })
  await createTask(store.db, { peerId: id, resource: 'org_sector', mode: 'both' })
  Object.assign(eden.put('org_sector', uuid(2), { name: 'Shelter' }, '2026-01-02T03:04:05'), { mci: 3 })
  await run()
  t.match(await runWith('other'), { result: 'success', counts: { pushApplied: 1 } })
  t.match(other.rows('org_sector').get(uuid(2)), {
    mci: 5,
    modified_on: '2026-01-02T03:04:05',
    values: { name: 'Shelter' },
  })
  t.match(
    other.requests.find(({ method }) => method === 'POST')?.body.toString(),
    /created_on="2026-01-02T03:04:05" .*created_by="admin@example.com"/,
  )
  other.put('org_sector', uuid(2), { name: 'Changed at the other' })
  await runWith('other')
  await run()
  t.equal(eden.rows('org_sector').get(uuid(2))?.values.name, 'Changed at the other')
  t.match(
    [await run(), await runWith('other')],
    [{ counts: { pulled: 0, pushed: 0 } }, { counts: { pulled: 0, pushed: 0 } }],
    'I4',
  )
})

t.test('I11: what stands in a record of one Eden, and is no table here, goes on with it to another Eden', async (t) => {
  const sites = await pair(t, { names: ['org_organisation'] })
  const { run, runWith, store, self, query } = sites
  const other = await startEdenDouble(t)
  other.registered.add(`urn:uuid:${self.uuid}`)
  const account = { url: other.url, token: `${other.username}:${other.password}` }
  const named = { name: 'other', uuid: siteOfRepository(other.uuid) ?? '', kind: 'eden' }
  const { id } = await createPeer(store.db, KEY, { ...named, ...account })
  await createTask(store.db, { peerId: id, resource: 'org_organisation', mode: 'push' })
  seed(sites)
  await run()
  await query(
    `update syncline.eden_stranger set element = jsonb_set(element, '{attributes}', (element -> 'attributes') - 'modified_on') where table_name = 'org_sector_organisation'`,
  )
  t.match(await runWith('other'), { counts: { pushApplied: 1 } })
  t.match(other.rows('org_office').get(uuid(4))?.values, { name: 'HQ', organisation_id: uuid(3) }, 'with its own time')
  t.equal(other.rows('org_office').get(uuid(4))?.modified_on, '2026-01-02T03:04:05')
  t.equal(other.rows('org_sector_organisation').size, 0, 'what has no time would be new each time, and stays')
})

t.test('a record whose name is no urn keeps the name that Eden gives it, with its domain', async (t) => {
  const sites = await pair(t, { names: ['org_sector'] })
  const { eden, query, run } = sites
  eden.put('org_sector', 'SHELTER', { name: 'Shelter' })
  eden.put('org_sector', 'WATER, SANITATION', { name: 'Water' })
  await run()
  t.same(await query('select id from org_sector order by id'), [{ id: 'vm/SHELTER' }, { id: 'vm/WATER, SANITATION' }])
  await query(`update org_sector set name = name || ' changed'; insert into org_sector values ('OURS', 'Ours')`)
  t.match(await run(), { result: 'success', counts: { pushApplied: 3 } })
  t.same(
    [...eden.rows('org_sector')].map(([id, { values }]) => [id, values.name]),
    [
      ['SHELTER', 'Shelter changed'],
      ['WATER, SANITATION', 'Water changed'],
      ['urn:syncline:OURS', 'Ours'],
    ],
  )
  t.match(await run(), { counts: { pulled: 0, pushed: 0 } })
})

t.test('an Eden with a clock that is behind loses no edit made there after it took ours', async (t) => {
  const sites = await pair(t, { names: ['org_sector'] })
  const { eden, query, run } = sites
  eden.clockAheadMs = -3_600_000
  eden.put('org_sector', uuid(2), { name: 'Theirs' })
  await run()
  await query(`update org_sector set name = 'Ours'`)
  t.match(await run(), { result: 'success', counts: { pushApplied: 1 } })
  const stamped = eden.rows('org_sector').get(uuid(2))?.modified_on ?? ''
  eden.put('org_sector', uuid(2), { name: 'Theirs, later' })
  t.ok((eden.rows('org_sector').get(uuid(2))?.modified_on ?? '') < stamped, 'with an earlier time')
  await query(`update syncline.eden_table set compared_at = now() - interval '1 day'`)
  t.match(await run(), { result: 'success', counts: { applied: 1 } })
  t.same(await query('select name from org_sector'), [{ name: 'Theirs, later' }])
  await query(`update org_sector set name = 'Ours again'`)
  t.match(await run(), { result: 'success', counts: { pushApplied: 1 } })
  t.equal(eden.rows('org_sector').get(uuid(2))?.values.name, 'Ours again')
})
