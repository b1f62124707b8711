import t from 'tap'
import { EXIT } from '../../src/cli/exit.ts'
import { fakeSite, syncline } from './terminal.ts'

const settings = {
  ...{
    path: '/srv/ngo',
    format: 'csv',
    readFormat: null,
    read: 'in/*.csv',
    write: null,
    layout: 'resource',
    readable: false,
  },
  ...{ after: 'move', done: 'done', quarantine: 'quarantine', settleSeconds: 2 },
}

t.test('peer add --type folder takes the settings of a folder, and nothing of a connection', async (t) => {
  const { flags, asked } = await fakeSite(t, {
    'POST /peers/folder': { status: 201, body: { name: 'ngo', kind: 'folder' } },
  })
  const folder = [
    '--path',
    '/srv/ngo',
    '--read',
    'in/*.csv',
    '--read-format',
    'csv',
    '--write',
    'out/a.xml',
    '--settle',
    '1m',
    '--readable',
  ]
  const added = await syncline(['peer', 'add', 'ngo', '--type', 'folder', ...folder, '--after', 'move', ...flags])
  t.match(added, { code: EXIT.done, stdout: /Peer ngo is registered/ })
  t.same(JSON.parse(asked[0]?.body ?? '{}'), {
    ...{ name: 'ngo', path: '/srv/ngo', read: 'in/*.csv', write: 'out/a.xml', readFormat: 'csv', readable: true },
    ...{ after: 'move', settleSeconds: 60 },
  })
  for (const wrong of [
    ['--type', 'folder'],
    ['--type', 'folder', '--path', '/srv/ngo', '--address', 'http://x.example.org'],
    ['--path', '/srv/ngo'],
    ['--type', 'folder', '--path', '/srv/ngo', '--format', 'pdf'],
    ['--type', 'folder', '--path', '/srv/ngo', '--settle', '2h'],
  ])
    t.equal((await syncline(['peer', 'add', 'ngo', ...wrong, ...flags])).code, EXIT.wrongUse, wrong.join(' '))
  t.equal(asked.length, 1)
})

t.test('folder shows, changes, lists files and dumps', async (t) => {
  const file = {
    ...{ name: 'in/a.csv', bytes: 3, sha256: null, state: 'refused', gone: true, resources: { area: 2 }, leftOver: {} },
    ...{ reason: 'SYNC_FORMAT_INVALID: record 1', seenAt: new Date().toISOString(), takenAt: null },
  }
  const { flags, asked } = await fakeSite(t, {
    'GET /peers/ngo/folder': { body: settings },
    'PATCH /peers/ngo/folder': {
      body: { ...settings, read: null, write: 'out/x.json', format: 'json', layout: 'all', readable: true },
    },
    'GET /peers/ngo/folder/files': { body: { items: [file] } },
    'POST /peers/ngo/folder/dump': { body: { files: 1, records: 20 } },
  })
  const shown = await syncline(['folder', 'show', 'ngo', ...flags])
  t.match(
    shown.stdout,
    /reads +csv from in\/\*\.csv\nthen +moved to done\nunreadable +moved to quarantine\nsettles +2 s\nwrites +nothing\n/,
  )
  const changed = await syncline([
    'folder',
    'set',
    'ngo',
    '--no-read',
    '--write',
    'out/x.json',
    '--no-readable',
    '--settle',
    '0',
    ...flags,
  ])
  t.match(changed.stdout, /reads +nothing\nwrites +json, readable, to out\/x\.json\none file for +all resources/)
  t.same(
    JSON.parse(asked[1]?.body ?? '{}'),
    { read: null, write: 'out/x.json', readable: false, settleSeconds: 0 },
    'what is not given stays',
  )
  const files = await syncline(['folder', 'files', 'ngo', '--state', 'refused', '--limit', '5', ...flags])
  t.match(files.stdout, /in\/a\.csv +refused, no longer there +2 area +just now +SYNC_FORMAT_INVALID: record 1/)
  t.same(asked[2]?.query, { limit: '5', state: 'refused' })
  t.match(await syncline(['folder', 'dump', 'ngo', 'area', ...flags]), { stdout: '20 records are in 1 files.\n' })
  t.same(JSON.parse(asked[3]?.body ?? '{}'), { resources: ['area'] })
  t.match(JSON.parse((await syncline(['folder', 'show', 'ngo', '--json', ...flags])).stdout), settings)
})

t.test('peer test tells what a site offers, and what is in a folder', async (t) => {
  const resources = [{ name: 'area', pull: true, push: false }]
  const folder = { files: 2, some: ['in/a.csv', 'in/b.csv'], reads: 'csv from in/*.csv', writes: null }
  const { flags } = await fakeSite(t, {
    'POST /peers/hub/test': { body: { peer: 'hub', kind: 'syncline', clockOffsetMs: -1500, resources, folder: null } },
    'POST /peers/ngo/test': { body: { peer: 'ngo', kind: 'folder', clockOffsetMs: 0, resources, folder } },
  })
  t.match(
    (await syncline(['peer', 'test', 'hub', ...flags])).stdout,
    /hub answers\nclock +1\.5 s behind\nthis site may pull +area\nthis site may push +nothing/,
  )
  t.match(
    (await syncline(['peer', 'test', 'ngo', ...flags])).stdout,
    /files that fit +2\nthe oldest +in\/a\.csv, in\/b\.csv\nwrites +nothing/,
  )
})
