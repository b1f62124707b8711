import { mkdtemp, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import t from 'tap'
import { EXIT } from '../../src/cli/exit.ts'
import { fakeSite, syncline } from './terminal.ts'

const peer = { name: 'relief', kind: 'eden' }
const column = { name: 'name', type: 'text', notNull: false, sent: true, refersTo: null }
const resource = {
  ...{ id: 1, name: 'org_sector', table: 'syncline.data_org_sector', key: 'id', columns: [column], fingerprint: 'f' },
  ...{ managed: true, addedUuid: false, ready: true, attachedAt: '2026-11-22T09:00:00Z' },
}

t.test('peer add --type eden gives an account, whose password comes from a file', async (t) => {
  const folder = await mkdtemp(join(tmpdir(), 'syncline-eden-'))
  t.teardown(() => rm(folder, { recursive: true }))
  const file = join(folder, 'password')
  await writeFile(file, 'correct horse\n')
  const { flags, asked } = await fakeSite(t, { 'POST /peers/eden': { status: 201, body: peer } })
  const address = ['--address', 'http://relief.example.org/eden']
  const account = ['--user', 'sync@example.org', '--password-file', file]
  const added = await syncline(['peer', 'add', 'relief', '--type', 'eden', ...address, ...account, ...flags])
  t.match(added, { code: EXIT.done, stdout: /Peer relief is registered/ })
  t.match(JSON.parse(asked[0]?.body ?? '{}'), {
    name: 'relief',
    url: address[1],
    username: 'sync@example.org',
    password: 'correct horse',
  })
  for (const wrong of [
    ['--type', 'other'],
    ['--user', 'somebody'],
    ['--type', 'eden', '--peer-token-file', file],
  ]) {
    const { code, stderr } = await syncline(['peer', 'add', 'relief', ...wrong, ...flags])
    t.equal(code, EXIT.wrongUse, stderr)
  }
})

t.test('resource create --from-eden makes several tables, and names what has no column', async (t) => {
  const made = [{ resource, without: ['logo (upload)'] }]
  const { flags, asked } = await fakeSite(t, { 'POST /resources/eden': { status: 201, body: { made } } })
  const told = await syncline(['resource', 'create', '--from-eden', 'relief', 'org_sector', 'org_office', ...flags])
  t.match(told, { code: EXIT.done, stdout: /Without a column, and kept beside the record: logo \(upload\)/ })
  t.same(JSON.parse(asked[0]?.body ?? '{}'), { peer: 'relief', tables: ['org_sector', 'org_office'] })
  t.equal((await syncline(['resource', 'create', 'city', ...flags])).code, EXIT.wrongUse)
})

t.test('dataset publishes tables, makes the archive and follows a data set of an Eden', async (t) => {
  const archive = { url: 'http://here/eden/x.zip', madeAt: '2026-11-22T09:00:00.000000Z', records: 7, bytes: 900 }
  const dataset = { code: 'RELIEF', name: 'Relief', tables: [{ resource: 'org_office', filter: '~.name=A' }], archive }
  const followed = { code: 'RELIEF', name: 'Relief', archive: null, made: ['org_office'], kept: [], without: ['org_x'] }
  const { flags, asked } = await fakeSite(t, {
    'POST /datasets': { status: 201, body: dataset },
    'GET /datasets': { status: 200, body: { items: [dataset] } },
    'POST /datasets/RELIEF/archive': { status: 200, body: dataset },
    'DELETE /datasets/RELIEF': { status: 204, body: null },
    'POST /peers/relief/datasets': { status: 200, body: followed },
  })
  const added = ['--table', 'org_office=~.name=A', '--table', 'org_sector']
  t.equal((await syncline(['dataset', 'add', 'RELIEF', ...added, ...flags])).code, EXIT.done)
  t.same(JSON.parse(asked[0]?.body ?? '{}'), {
    ...{ code: 'RELIEF', name: 'RELIEF' },
    tables: [{ resource: 'org_office', filter: '~.name=A' }, { resource: 'org_sector' }],
  })
  t.match(await syncline(['dataset', 'list', ...flags]), { stdout: /RELIEF +Relief +org_office \(~\.name=A\)/ })
  t.match(await syncline(['dataset', 'archive', 'RELIEF', ...flags]), { stdout: /7 records, 900 bytes: http:/ })
  t.match(await syncline(['dataset', 'remove', 'RELIEF', ...flags]), { stdout: /no longer published/ })
  const every = ['--every', '1h']
  const told = await syncline(['dataset', 'follow', 'relief', 'RELIEF', ...every, ...flags])
  t.match(told.stdout, /Pulled from now on: org_office\.\n+Not here: org_x.*\n.*It has no archive/s)
  t.same(JSON.parse(asked.at(-1)?.body ?? '{}'), { code: 'RELIEF', schedule: 'every:3600' })
  const both = await syncline(['dataset', 'follow', 'relief', 'RELIEF', ...every, '--schedule', '0 * * * *', ...flags])
  t.equal(both.code, EXIT.wrongUse)
})
