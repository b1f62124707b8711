import t from 'tap'
import { EXIT } from '../../src/cli/exit.ts'
import { fakeSite, syncline } from './terminal.ts'

const version = { origin: 'uuid', clock: 1 }
const at = '2026-11-22T09:30:00.000Z'
const side = (data: object | null, site: string | null = 'hub') => ({ data, version, site, at })
const conflict = {
  id: '12',
  peer: 'hub',
  resource: 'city',
  recordId: 'graz',
  runId: '7',
  base: side({ name: 'Graz', beds: 1 }),
  ours: side({ name: 'Gratz', beds: 1 }, 'field'),
  theirs: side({ name: 'Graz!', beds: 1 }, null),
  fields: ['name'],
  openedAt: at,
  updatedAt: '2026-11-22T10:30:00.000Z',
  resolvedAt: null,
  resolvedBy: null,
  resolution: null,
  comment: null,
}

t.test('a conflict is shown as both had it and as each has it, with who wrote it when', async (t) => {
  const { flags } = await fakeSite(t, { 'GET /conflicts/12': { body: conflict } })
  const { stdout } = await syncline(['conflict', 'show', '12', ...flags])
  t.match(stdout, /FIELD +BASE +OURS +THEIRS/)
  t.match(stdout, /by +hub +field +uuid/)
  t.match(stdout, /^\* +name +Graz +Gratz +Graz!$/m)
  t.match(stdout, /^ +beds +1 +1 +1$/m)
  t.match(stdout, /needs +name/)
  const bare = { ...conflict, base: null, ours: side(null), fields: null }
  const { flags: others } = await fakeSite(t, { 'GET /conflicts/12': { body: bare } })
  const gone = await syncline(['conflict', 'show', '12', ...others])
  t.match(gone.stdout, /^\* +name +\(deleted\) +Graz!$/m)
  t.notMatch(gone.stdout, /BASE/)
})

t.test('a decision is a side, sides of fields, values, or all of these', async (t) => {
  const { flags, asked } = await fakeSite(t, {
    'POST /conflicts/12/resolve': { body: { ...conflict, resolution: 'merged', resolvedAt: at } },
  })
  const sent = async (...words: string[]) => {
    const result = await syncline(['conflict', 'resolve', ...words, ...flags])
    return { code: result.code, body: JSON.parse(asked.at(-1)?.body ?? 'null') }
  }
  t.same(await sent('12', 'theirs', '--comment', 'so'), { code: 0, body: { take: 'theirs', comment: 'so' } })
  t.same(
    await sent(
      '12',
      '--field',
      'name=theirs',
      '--field',
      'beds=ours',
      '--set',
      'note=a=b',
      '--set',
      'tags=["x"]',
      '--set',
      'shut=null',
      '--rule',
    ),
    {
      code: 0,
      body: { fields: { name: 'theirs', beds: 'ours' }, values: { note: 'a=b', tags: ['x'], shut: null }, rule: true },
    },
  )
  const before = asked.length
  for (const words of [
    [],
    ['12', '--field', 'name'],
    ['12', '--field', 'a=ours', '--field', 'a=theirs'],
    ['12', '--set', 'a=[1'],
    ['12', 'ours', '--peer', 'hub'],
    ['12', 'ours', '--yes'],
    ['12', 'ours', '--all'],
  ])
    t.equal((await sent(...words)).code, EXIT.wrongUse, words.join(' '))
  t.equal(asked.length, before, 'nothing of these was sent')
})

t.test('many conflicts are counted first, and decided only with --yes', async (t) => {
  let left = 1200
  const failed = [{ id: '3', recordId: 'x', code: 'SYNC_RECORD_CONSTRAINT', reason: 'too long' }]
  const { flags, asked } = await fakeSite(t, {
    'POST /conflicts/resolve': ({ body }) => {
      const { preview } = JSON.parse(body) as { preview: boolean }
      const matched = left
      const resolved = preview ? 0 : Math.min(500, left - failed.length)
      left -= resolved
      return { body: { matched, resolved, failed: preview ? [] : failed } }
    },
  })
  const words = ['conflict', 'resolve', 'theirs', '--all', '--peer', 'hub', '--resource', 'city', '--filter', 'a = 1']
  t.match(await syncline([...words, ...flags]), { code: 0, stdout: /1,200 conflicts would be decided\. Give --yes/ })
  t.equal(left, 1200)
  const done = await syncline([...words, '--yes', ...flags])
  t.match(done, { code: EXIT.waiting, stdout: /1,199 conflicts decided\.\nConflict 3 \(x\) stays open: too long/ })
  t.same(JSON.parse(asked.at(-1)?.body ?? ''), {
    take: 'theirs',
    peer: 'hub',
    resource: 'city',
    filter: 'a = 1',
    preview: false,
  })
  left = 0
  t.match(await syncline([...words, '--yes', ...flags]), { code: 0, stdout: /No conflict matches/ })
})

t.test('rules of fields go with tasks and grants, and doubts about a policy are told', async (t) => {
  const { flags, asked } = await fakeSite(t, {
    'POST /tasks': {
      status: 201,
      body: {
        id: 1,
        peer: 'hub',
        resource: 'item',
        mode: 'both',
        enabled: true,
        schedule: null,
        warnings: ['merge here against newer'],
      },
    },
    'PUT /peers/hub/grants/push/item': { body: {} },
    'GET /tasks': {
      body: {
        items: [
          {
            id: 1,
            peer: 'hub',
            resource: 'item',
            mode: 'both',
            enabled: true,
            schedule: null,
            onConflict: 'merge',
            fields: { stock: 'sum', '*': 'newer' },
            columns: null,
            filter: null,
          },
        ],
        next: null,
      },
    },
  })
  const rules = ['--on-conflict', 'merge', '--field', 'stock=sum', '--field', '*=newer']
  const made = await syncline(['task', 'add', 'hub', 'item', '--mode', 'both', ...rules, '--force', ...flags])
  t.match(made, { code: 0, stdout: /note: merge here against newer/ })
  const sent = () => JSON.parse(asked.at(-1)?.body ?? '')
  t.match(sent(), { onConflict: 'merge', fields: { stock: 'sum', '*': 'newer' }, force: true })
  t.match(await syncline(['task', 'list', ...flags]), { stdout: /merge stock=sum \*=newer/ })
  await syncline(['peer', 'grant', 'hub', 'item', '--push', ...rules, ...flags])
  t.same(sent(), { onConflict: 'merge', fields: { stock: 'sum', '*': 'newer' } })
})
