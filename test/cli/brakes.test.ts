import t from 'tap'
import { withBrakes } from '../../src/cli/brake.ts'
import { EXIT } from '../../src/cli/exit.ts'
import type { Preview } from '../../src/cli/preview-text.ts'
import type { StatusRow } from '../../src/cli/status-lights.ts'
import type { Brake } from '../../src/store/index.ts'
import { type Answer, fakeSite, problem, syncline } from './terminal.ts'

const brake: Brake = {
  ...{ id: '4', token: '7k2m9qxd', peerId: 1, peer: 'hub', resource: 'city', direction: 'pull', rules: ['deletes'] },
  reason: 'pulling "city" from hub would delete 512 of 1,000 records (51.2 %) here',
  facts: { deletes: 512, changes: 0, living: 1_000, samples: ['AT', 'SI'] },
  ...{ runId: '9', openedAt: '2026-11-22T09:00:00Z', seenAt: '2026-11-22T09:30:00Z', times: 3 },
  ...{ releasedAt: null, releasedBy: null, comment: null, usedAt: null, endedAt: null, ending: null },
}
const released = { ...brake, releasedAt: '2026-11-22T10:00:00Z', releasedBy: 'ann', comment: 'closed' }
const page = (...items: unknown[]): Answer => ({ body: { items, next: null } })
const run = {
  ...{
    id: '9',
    peer: 'hub',
    cause: 'hand',
    state: 'finished',
    startedAt: '2026-11-22T10:00:00Z',
    counts: { pulled: 3 },
  },
  ...{ finishedAt: '2026-11-22T10:00:01Z', result: 'success', code: null, message: null },
}
const syncing = {
  'POST /sync': { status: 202, body: { runs: [{ peer: 'hub', runId: '9' }] } },
  'GET /runs/9': { body: run },
}

const said: Readonly<Record<string, string>> = {
  conflicts: '1 conflict (syncline conflict list --peer hub).',
  quarantine: '1 record in quarantine (syncline quarantine list --peer hub).',
  brakes: '1 brake (syncline brake list --peer hub).',
}

t.test('sync ends with 3 as long as anything with the peer waits for a person, whichever run brought it', async (t) => {
  for (const waiting of ['none', 'conflicts', 'quarantine', 'brakes']) {
    const nouns = ['conflicts', 'quarantine', 'brakes'].map((noun) => [
      `GET /${noun}`,
      noun === waiting ? page({}) : page(),
    ])
    const { flags, asked } = await fakeSite(t, { ...syncing, ...Object.fromEntries(nouns) })
    const { code, stdout } = await syncline(['sync', 'hub', ...flags])
    t.equal(code, waiting === 'none' ? EXIT.done : EXIT.waiting, waiting)
    if (waiting === 'none') t.notMatch(stdout, /Waiting/)
    else t.match(stdout, `Waiting for a person with hub: ${said[waiting]}`, 'and says why')
    const { waiting: told } = JSON.parse((await syncline(['sync', 'hub', '--json', ...flags])).stdout)
    t.same(told.length, waiting === 'none' ? 0 : 1)
    t.match(asked.find(({ path }) => path === '/brakes')?.query, { peer: 'hub', open: 'true' })
  }
  const stopped = { ...run, result: 'fatal', code: 'SYNC_RUN_BRAKED', message: brake.reason }
  const nothing = { 'GET /conflicts': page(), 'GET /quarantine': page(), 'GET /brakes': page(brake) }
  const { flags } = await fakeSite(t, { ...syncing, 'GET /runs/9': { body: stopped }, ...nothing })
  t.match(await syncline(['sync', 'hub', ...flags]), { code: EXIT.waiting, stdout: /would delete 512 of 1,000/ })
})

t.test('verify --release lets a repair go on as it was, and asks for nothing that nobody named', async (t) => {
  const stopped = {
    ...brake,
    direction: 'repair',
    facts: { ...brake.facts, deep: true, pushed: { deletes: 0, changes: 0 } },
  }
  const resources = [
    { resource: 'city', equal: true, verdict: 'equal', checked: 3, differing: [], differences: [], detail: undefined },
  ]
  const { flags, asked } = await fakeSite(t, {
    'GET /brakes/7k2m9qxd': { body: stopped },
    'POST /brakes/7k2m9qxd/release': { body: { ...stopped, releasedAt: '2026-11-22T10:00:00Z' } },
    'GET /brakes/other': { body: brake },
    'POST /peers/hub/verify': {
      body: { peer: 'hub', resources, repair: { runId: '9', applied: 3, adopted: 0, preview: null } },
    },
  })
  const bodies = () => asked.filter(({ path }) => path === '/peers/hub/verify').map(({ body }) => JSON.parse(body))
  t.match(await syncline(['verify', 'hub', 'city', '--deep', ...flags]), { code: 0 })
  t.same(bodies(), [{ deep: true, resources: ['city'] }])
  const done = await syncline(['verify', 'hub', '--release', '7k2m9qxd', '--comment', 'meant', ...flags])
  t.match(done, { code: 0, stdout: /Run 9 applied 3 records/ })
  t.same(bodies()[1], { deep: true, repair: true, resources: ['city'] })
  t.same(JSON.parse(asked.find(({ method, path }) => method === 'POST' && path.endsWith('/release'))?.body ?? ''), {
    comment: 'meant',
  })
  t.match(await syncline(['verify', 'hub', '--release', 'other', ...flags]), {
    code: EXIT.wrongUse,
    stderr: /stopped no repair but a run: syncline sync --release other/,
  })
  t.match(await syncline(['verify', 'field', '--release', '7k2m9qxd', ...flags]), { stderr: /a repair with hub/ })
  const told = await syncline(['sync', '--release', '7k2m9qxd', ...flags])
  t.match(told, { code: 0, stdout: /goes on with: syncline verify hub city --deep --repair/ })
  const row = { peer: 'hub', resource: 'city', light: 'green', why: [] } as unknown as StatusRow
  t.match(withBrakes([row], [stopped as Brake])[0]?.why, [/if it is meant: syncline verify hub --release 7k2m9qxd$/])
})

t.test('sync --release lets one thing go on and runs just that', async (t) => {
  const nothing = { 'GET /conflicts': page(), 'GET /quarantine': page(), 'GET /brakes': page() }
  const { flags, asked } = await fakeSite(t, {
    ...syncing,
    ...nothing,
    'POST /brakes/7k2m9qxd/release': { body: released },
    'POST /brakes/twice/release': problem('SYNC_REQUEST_SETTLED', 'brake twice was released by ann', 409),
  })
  const ended = await syncline(['sync', '--release', '7k2m9qxd', '--comment', 'closed', ...flags])
  t.match(ended, { code: 0, stdout: /3 pulled/, stderr: /Released: .*would delete 512/ })
  t.same(JSON.parse(asked[0]?.body ?? ''), { comment: 'closed' })
  t.same(JSON.parse(asked[1]?.body ?? ''), { peer: 'hub', resources: ['city'] })
  t.match(await syncline(['sync', '--release', 'twice', ...flags]), { code: EXIT.failed, stderr: /released by ann/ })
  t.equal(asked.filter(({ path }) => path === '/sync').length, 1, 'nothing runs without a release')
})

t.test('what a peer pushes is released without a run', async (t) => {
  const receive = { ...released, direction: 'receive' }
  const { flags, asked } = await fakeSite(t, { 'POST /brakes/7k2m9qxd/release': { body: receive } })
  t.match(await syncline(['sync', '--release', '7k2m9qxd', ...flags]), { code: 0, stdout: /hub may push city/ })
  t.equal(asked.length, 1)
})

t.test('brakes are listed, shown and released', async (t) => {
  const { flags, asked } = await fakeSite(t, {
    'GET /brakes': page(brake),
    'GET /brakes/7k2m9qxd': { body: released },
    'POST /brakes/7k2m9qxd/release': { body: released },
  })
  t.match(await syncline(['brake', 'list', ...flags]), {
    code: EXIT.waiting,
    stdout: /7k2m9qxd.*hub.*city.*pull.*stopped/,
  })
  t.equal(asked.at(-1)?.query.open, 'true')
  await syncline(['brake', 'list', '--all', '--peer', 'hub', ...flags])
  t.match(asked.at(-1)?.query, { peer: 'hub' })
  t.notOk('open' in (asked.at(-1)?.query ?? {}))
  t.match(await syncline(['brake', 'show', '7k2m9qxd', ...flags]), { code: 0, stdout: /512.*AT, SI.*ann.*closed/s })
  t.match(await syncline(['brake', 'release', '7k2m9qxd', ...flags]), { code: 0, stdout: /hub city may go on, once/ })
  const none = await fakeSite(t, { 'GET /brakes': page() })
  t.match(await syncline(['brake', 'list', ...none.flags]), { code: 0, stdout: 'Nothing is stopped.\n' })
})

t.test('what is stopped is red, with what to do, and only where it stands', async (t) => {
  const row = (peer: string, resource: string | null): StatusRow =>
    ({
      ...{ peer, resource, mode: 'both', light: 'green', why: ['proved equal'], lastRunAt: null },
      ...{ waiting: { conflicts: 0, quarantine: 0 } },
    }) as unknown as StatusRow
  const rows = [row('hub', 'city'), row('hub', 'country'), row('other', 'city'), row('field', null)]
  const lights = (...brakes: Brake[]) =>
    withBrakes(rows, brakes)
      .map(({ light }) => light)
      .join(' ')
  t.equal(lights(brake), 'red green green green')
  t.equal(lights({ ...brake, resource: null, direction: 'peer' }), 'red red green green')
  t.equal(lights({ ...brake, peer: 'field', direction: 'receive' }), 'green green green red')
  t.match(withBrakes(rows, [brake])[0]?.why, [/would delete 512 .*syncline sync --release 7k2m9qxd/])
})

const none = { applied: 0, known: 0, skipped: 0, merged: 0, conflict: 0, quarantined: 0, refused: 0 }
const preview: Preview = {
  peer: 'hub',
  newLog: false,
  durationMs: 120,
  tasks: [
    {
      resource: 'city',
      mode: 'both',
      parts: [
        {
          ...{
            direction: 'pull',
            changes: 1_200,
            bytes: 4_096,
            batches: 2,
            complete: false,
            estimateMs: 2_500,
            failure: null,
          },
          counts: { ...none, applied: 1_198, conflict: 1, quarantined: 1 },
          writes: { inserts: 1_000, updates: 190, deletes: 8 },
          samples: [
            { id: 'AT', kind: 'update', fields: [{ field: 'name', before: 'Wien', after: 'Vienna' }] },
            {
              id: 'SI',
              kind: 'keep',
              decision: 'open',
              fields: [{ field: 'name', before: 'a', after: 'a', theirs: 'b' }],
            },
            { id: 'HU', kind: 'delete', fields: [{ field: 'name', before: 'Budapest', after: null }] },
          ],
          rejections: [
            {
              id: 'x\u001b[1m',
              outcome: 'quarantined',
              code: 'SYNC_RECORD_PARENT_MISSING',
              reason: 'refers to country XX',
            },
          ],
          braked: ['pulling "city" from hub would delete 8'],
        },
      ],
    },
  ],
}

t.test('a preview is a table for people, with what would be other, and JSON for programs', async (t) => {
  const { flags, asked } = await fakeSite(t, { 'POST /sync/preview': { body: { items: [preview] } } })
  const { code, stdout } = await syncline(['sync', 'hub', 'city', '--preview', ...flags])
  t.equal(code, EXIT.waiting, 'a brake, a conflict and a quarantine would wait')
  for (const part of [
    /nothing of it was done/,
    /city +pull +1,200 first +1,000 +190 +8 +1 +1 +4.0 KiB +about 2.5 s/,
    /would be stopped: pulling "city"/,
    /only the first 2 batches/,
    /AT: other values here: name Wien -> Vienna/,
    /SI: changed on both sides, would wait for a person: name a -> a \(theirs b\)/,
    /HU: deleted here: name Budapest/,
    /quarantined x\\u\{1b\}\[1m: refers to country XX/,
  ])
    t.match(stdout, part)
  t.same(JSON.parse(asked[0]?.body ?? ''), { peer: 'hub', resources: ['city'] })
  t.same(JSON.parse((await syncline(['sync', '--preview', '--json', ...flags])).stdout), { items: [preview] })

  const calm = { ...preview, tasks: [] }
  const quiet = await fakeSite(t, { 'POST /sync/preview': { body: { items: [calm] } } })
  t.equal((await syncline(['sync', '--preview', ...quiet.flags])).code, EXIT.done)
})

t.test('task set --preview tries settings and keeps the old ones', async (t) => {
  const task = { id: 3, peer: 'hub', resource: 'city', mode: 'both', schedule: null, enabled: true }
  const { flags, asked } = await fakeSite(t, {
    'GET /tasks': page(task),
    'POST /tasks/3/preview': { body: preview },
    'PATCH /tasks/3': { body: task },
  })
  const tried = await syncline(['task', 'set', 'hub', 'city', '--filter', `country = 'AT'`, '--preview', ...flags])
  t.match(tried, { code: EXIT.waiting, stdout: /With hub, a run would do this/ })
  t.same(JSON.parse(asked.at(-1)?.body ?? ''), { filter: `country = 'AT'` })
  t.notOk(asked.some(({ method }) => method === 'PATCH'))
  const brakes = ['--max-deletes', '100,5%', '--max-changes', 'usual', '--empty-guard', 'off', '--canary', 'AT']
  t.equal((await syncline(['task', 'set', '3', ...brakes, ...flags])).code, 0)
  t.match(JSON.parse(asked.at(-1)?.body ?? ''), {
    maxDeletes: '100,5%',
    maxChanges: null,
    emptyGuard: false,
    canary: 'AT',
  })
  t.match(await syncline(['task', 'set', '3', '--no-canary', ...flags]), { code: 0 })
  t.equal(JSON.parse(asked.at(-1)?.body ?? '').canary, null)
  t.match(await syncline(['task', 'set', '3', '--empty-guard', 'maybe', ...flags]), { code: EXIT.wrongUse })
})
