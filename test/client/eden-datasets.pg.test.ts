import { createServer } from 'node:http'
import type { AddressInfo } from 'node:net'
import t, { type Test } from 'tap'
import { followDataset } from '../../src/client/index.ts'
import { listTasks } from '../../src/store/index.ts'
import { writeZip } from '../../src/sync/index.ts'
import { type EdenPair, edenSites, KEY, uuid } from './eden-sites.ts'
import { LIMITS } from './peer-site.ts'

const pair = await edenSites(t)
const TASK = 'urn:uuid:aaaaaaaa-0000-4000-8000-000000000001'
const SET = 'urn:uuid:dddddddd-0000-4000-8000-000000000001'
const STAMP = 'mci="1" created_on="2026-01-01T00:00:00" modified_on="2026-01-01T00:00:00"'
/** Sectors as they stood in the archive, some time ago. */
const ARCHIVED = `<s3xml success="true">${[2, 3]
  .map(
    (n) =>
      `<resource name="org_sector" uuid="${uuid(n)}" mci="2" created_on="2026-01-02T03:04:05" modified_on="2026-01-02T03:04:05"><data field="name">Sector ${n}</data></resource>`,
  )
  .join('')}</s3xml>`

async function zip(files: Readonly<Record<string, string>>): Promise<Buffer> {
  const sources = async function* () {
    for (const [name, text] of Object.entries(files))
      yield {
        name,
        pieces: (async function* () {
          yield text
        })(),
      }
  }
  const parts: Buffer[] = []
  for await (const part of writeZip(sources())) parts.push(part)
  return Buffer.concat(parts)
}

type Publishing = {
  archiveUrl: string | null
  archive: Buffer
  filter: string | null
  readonly tables: string[]
}

/** An Eden that publishes a data set of sectors, as Eden describes one. */
async function publishing(
  t: Test,
): Promise<{ sites: EdenPair; published: Publishing; follow: (code?: string) => ReturnType<typeof followDataset> }> {
  const sites = await pair(t, { names: [] })
  const { eden, store, self, peer } = sites
  const published: Publishing = {
    archiveUrl: '/default/download/sectors.zip',
    archive: await zip({ [`${TASK}.xml`]: ARCHIVED }),
    filter: null,
    tables: ['org_sector', 'org_nothing'],
  }
  for (const n of [2, 3]) eden.put('org_sector', uuid(n), { name: `Sector ${n}` }, '2026-01-02T03:04:05')
  eden.misbehave = ({ path, query }, response) => {
    const send = (type: string, body: string | Buffer) => {
      response.writeHead(200, { 'content-type': type }).end(body)
      return true
    }
    const { archiveUrl, archive, filter } = published
    if (path === '/eden/default/download/sectors.zip') return send('application/zip', archive)
    if (path === '/eden/sync/dataset.xml')
      return send(
        'text/xml',
        query.get('~.code') === 'SECTORS'
          ? `<s3xml><resource name="sync_dataset" uuid="${SET}" ${STAMP}><data field="code">SECTORS</data><data field="name">All sectors</data>${archiveUrl === null ? '' : `<data field="archive_url">${archiveUrl}</data>`}<data field="use_archive" value="${archiveUrl !== null}">-</data></resource></s3xml>`
          : '<s3xml success="false"/>',
      )
    if (path === '/eden/sync/task.xml')
      return send(
        'text/xml',
        `<s3xml>${published.tables.map((table, n) => `<resource name="sync_task" uuid="${TASK.slice(0, -1)}${n + 1}" ${STAMP}><data field="resource_name">${table}</data><data field="mode" value="1">pull</data><reference field="dataset_id" resource="sync_dataset" uuid="${SET}"/></resource>`).join('')}</s3xml>`,
      )
    if (path === '/eden/sync/resource_filter.xml')
      return send(
        'text/xml',
        filter === null
          ? '<s3xml/>'
          : `<s3xml><resource name="sync_resource_filter" uuid="urn:uuid:ffffffff-0000-4000-8000-000000000001" ${STAMP}><data field="tablename">org_sector</data><data field="filter_string">${filter}</data><reference field="task_id" resource="sync_task" uuid="${TASK}"/></resource></s3xml>`,
      )
    return false
  }
  const setup = { store, key: KEY, self, settings: { ...LIMITS, noProxy: [], logId: () => self.logId } }
  const { attach } = await import('../../src/store/index.ts')
  await attach(store, [{ table: 'org_sector' }])
  return { sites, published, follow: (code = 'SECTORS') => followDataset(setup, peer, { code }) }
}

const sectors = async ({ query }: EdenPair) =>
  (await query('select name from org_sector order by name')).map(({ name }) => name)
const pulls = ({ eden }: EdenPair) =>
  eden.requests.filter(
    ({ method, path, query }) =>
      method === 'GET' &&
      path.endsWith('/sync.xml') &&
      !query.has('[~]~.uuid__belongs') &&
      query.get('msince')?.startsWith('2200') !== true,
  )
const logged = async ({ query }: EdenPair) =>
  query(`select result, message from syncline.log where action = 'fetch archive' order by id`)

t.test('the first copy comes from the archive of the data set, and what came since by a pull', async (t) => {
  const { sites, follow } = await publishing(t)
  const { eden, store, run } = sites
  const followed = await follow()
  t.match(followed, {
    name: 'All sectors',
    archive: `${eden.url}/default/download/sectors.zip`,
    made: ['org_sector'],
    kept: [],
    without: ['org_nothing'],
  })
  t.match(await follow(), { made: [], kept: ['org_sector'] }, 'following it again makes nothing anew')
  t.match((await listTasks(store.db, {})).items, [{ resource: 'org_sector', mode: 'pull' }])
  eden.put('org_sector', uuid(4), { name: 'Sector 4' }, '2026-06-01T00:00:00')
  t.match(await run(), { result: 'success', counts: { applied: 3 } })
  t.same(await sectors(sites), ['Sector 2', 'Sector 3', 'Sector 4'])
  t.same(await logged(sites), [{ result: 'success', message: 'Data imported successfully (2 records), from archive' }])
  const [first, ...rest] = pulls(sites)
  t.equal(first?.query.get('msince'), '2026-01-02T02:59:05', 'from the youngest record of the archive, with an overlap')
  t.same(rest, [])
  const archive = eden.requests.filter(({ path }) => path.includes('download'))
  t.match(
    archive,
    [{ headers: { authorization: /^Basic / } }],
    'with the account, as it is below the address of the Eden',
  )
  eden.put('org_sector', uuid(2), { name: 'Sector 2b' })
  await run()
  t.same(await sectors(sites), ['Sector 2b', 'Sector 3', 'Sector 4'])
  t.equal(
    eden.requests.filter(({ path }) => path.includes('download')).length,
    1,
    'the archive is for the first time alone',
  )
})

t.test('where the archive does not do, everything is pulled', async (t) => {
  for (const [name, spoil, why] of [
    ['no zip', { archive: Buffer.from('<s3xml/>') }, /it is no zip archive/],
    ['another file', { archive: await zip({ 'x.xml': ARCHIVED }) }, /has no file urn:uuid:aaaaaaaa/],
    ['not there', { archiveUrl: '/default/download/gone.zip' }, /answered 404/],
    ['elsewhere', { archiveUrl: 'http://127.0.0.1:9/x.zip' }, /nobody here has accepted/],
    ['no address', { archiveUrl: 'file:///etc/passwd' }, /address of an archive is none/],
  ] as const)
    await t.test(name, async (t) => {
      const { sites, published, follow } = await publishing(t)
      await follow()
      Object.assign(published, spoil)
      t.match(await sites.run(), { result: 'success', counts: { applied: 2 } })
      t.same(await sectors(sites), ['Sector 2', 'Sector 3'])
      t.match(await logged(sites), [{ result: 'warning', message: why }])
      t.match(await logged(sites), [{ message: /; everything is pulled instead$/ }])
      t.notOk(pulls(sites)[0]?.query.has('msince'))
    })
  await t.test('none is to be used', async (t) => {
    const { sites, published, follow } = await publishing(t)
    published.archiveUrl = null
    t.match(await follow(), { archive: null })
    t.match(await sites.run(), { result: 'success', counts: { applied: 2 } })
    t.same(await logged(sites), [])
  })
  await t.test('one that breaks off in the middle of a record', async (t) => {
    const { sites, published, follow } = await publishing(t)
    published.archive = await zip({ [`${TASK}.xml`]: ARCHIVED.slice(0, -30) })
    await follow()
    t.match(await sites.run(), { result: 'success', counts: { applied: 2 } })
    t.match(await logged(sites), [{ result: 'warning', message: /; everything is pulled instead$/ }])
    t.same(await sectors(sites), ['Sector 2', 'Sector 3'])
  })
})

t.test('an archive elsewhere is fetched from where somebody accepted it, without the account', async (t) => {
  const { sites, published, follow } = await publishing(t)
  const asked: (string | undefined)[] = []
  const elsewhere = createServer((request, response) => {
    asked.push(request.headers.authorization)
    response.writeHead(200, { 'content-type': 'application/zip' }).end(published.archive)
  })
  await new Promise<void>((resolve) => elsewhere.listen(0, '127.0.0.1', resolve))
  t.teardown(() => new Promise((resolve) => elsewhere.close(resolve)))
  published.archiveUrl = `http://127.0.0.1:${(elsewhere.address() as AddressInfo).port}/files/sectors.zip?v=1`
  t.match(await follow(), { archive: published.archiveUrl })
  t.match(await sites.run(), { result: 'success', counts: { applied: 2 } })
  t.match(await logged(sites), [{ result: 'success' }])
  t.same(asked, [undefined])
})

t.test('the filters of a data set go with every pull', async (t) => {
  const { sites, published, follow } = await publishing(t)
  published.archiveUrl = null
  published.filter = '~.name__like=*2&amp;~.abrv=NONE'
  await follow()
  await sites.run()
  t.same(await sectors(sites), ['Sector 2'])
  for (const { query } of pulls(sites))
    t.match(Object.fromEntries(query), { '[org_sector]~.name__like': '*2', '[org_sector]~.abrv': 'NONE' })
  published.filter = '~.name__ne=A&amp;~.name__ne=B'
  await t.rejects(follow(), { code: 'SYNC_FILTER_INVALID' })
  await t.rejects(follow('OTHER'), { code: 'SYNC_REQUEST_NOT_FOUND' })
})
