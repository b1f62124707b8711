import { randomBytes, randomUUID } from 'node:crypto'
import t from 'tap'
import {
  clearSetting,
  createPeer,
  createTask,
  findGrant,
  findTask,
  findTaskFor,
  getSetting,
  isoTime,
  listGrants,
  listSettings,
  listTasks,
  type NewPeer,
  originsOf,
  removeGrant,
  removeTask,
  setGrant,
  setSetting,
  siteIds,
  updateTask,
} from '../../src/store/index.ts'
import { addResource, bothStores, checkpoint, checkpoints, refused, warm } from './both-stores.ts'

const { all } = await bothStores(t)
const key = randomBytes(32)

const aPeer = (name: string, more: Partial<NewPeer> = {}): NewPeer => ({ name, uuid: randomUUID(), ...more })

for (const ground of all) {
  t.test(`sites, on ${ground.name}`, async (t) => {
    const store = await ground.fresh()
    const [a, b, c] = [randomUUID(), `${randomUUID()}/abc234defg`, randomUUID()]

    t.test('every origin has one number, in the order asked for, also when asked for twice', async (t) => {
      const [first, second] = await siteIds(store.db, [a, b])
      const [, third] = await siteIds(store.db, [b, c, a, b])
      t.same(await siteIds(store.db, [b, c, a, b]), [second, third, first, second])
      t.equal(new Set([first, second, third]).size, 3)
      t.same(await originsOf(store.db, [second ?? 0, first ?? 0, second ?? 0]), [b, a, b])
      t.same(await siteIds(store.db, []), [])
      t.same(await originsOf(store.db, []), [])
      await t.rejects(originsOf(store.db, [4711]), /no site 4711/)
    })

    t.test('origins that nobody has heard of are believed in bounded numbers only', async (t) => {
      const before = await store.db.selectFrom('syncline.site').select('id').execute()
      await t.rejects(
        siteIds(
          store.db,
          Array.from({ length: 1_001 }, () => randomUUID()),
        ),
        {
          code: 'SYNC_REQUEST_TOO_LARGE',
        },
      )
      t.same(await store.db.selectFrom('syncline.site').select('id').execute(), before)
    })

    t.test('what is no origin is refused before anything is written', async (t) => {
      const sites = async () => (await store.db.selectFrom('syncline.site').select('id').execute()).length
      const before = await sites()
      const wrong = [a.toUpperCase(), `${a}/`, `${a}/A`, `${a}/x/y`, 'hub', '', `${a}\n`, `${a}/${'x'.repeat(33)}`]
      for (const origin of wrong) {
        await t.rejects(
          siteIds(store.db, [randomUUID(), origin]),
          { code: 'SYNC_FORMAT_INVALID' },
          JSON.stringify(origin),
        )
      }
      t.equal(await sites(), before)
    })

    t.test(
      'transactions that add the same origins at once, each in its own order, agree and never deadlock',
      async (t) => {
        const stores = await warm(await Promise.all(Array.from({ length: 4 }, () => ground.another(store))))
        const origins = Array.from({ length: 1_000 }, () => randomUUID())
        const answers = await Promise.all(
          stores.map(async ({ db }, n) => {
            const mine = n % 2 === 0 ? origins : origins.toReversed()
            const ids = await db.transaction().execute((trx) => siteIds(trx, mine))
            return n % 2 === 0 ? ids : ids.toReversed()
          }),
        )
        for (const answer of answers) t.same(answer, answers[0])
        t.equal(new Set(answers[0]).size, 1_000)
      },
    )
  })

  t.test(`grants, on ${ground.name}`, async (t) => {
    const store = await ground.fresh()
    const { db } = store
    const [place, road] = [await addResource(store, 'place'), await addResource(store, 'road')]
    const hub = await createPeer(db, key, aPeer('hub'))
    const master = randomUUID()

    t.test('without a grant there is none; with one it holds for that peer, resource and direction only', async (t) => {
      t.equal(await findGrant(db, hub.id, 'place', 'pull'), null)
      const grant = await setGrant(db, {
        peerId: hub.id,
        resource: 'place',
        direction: 'pull',
        filter: 'beds > 3\n and open',
        columns: ['a', 'b'],
      })
      t.same(grant, {
        peerId: hub.id,
        resource: 'place',
        direction: 'pull',
        filter: 'beds > 3\n and open',
        columns: ['a', 'b'],
        onConflict: 'newer',
        fields: {},
        maxDeletes: null,
        maxChanges: null,
        master: null,
      })
      t.same(await findGrant(db, hub.id, 'place', 'pull'), grant)
      const other = await createPeer(db, key, aPeer('other'))
      t.equal(await findGrant(db, hub.id, 'place', 'push'), null)
      t.equal(await findGrant(db, hub.id, 'road', 'pull'), null)
      t.equal(await findGrant(db, other.id, 'place', 'pull'), null)
    })

    t.test('setting it again replaces it as a whole', async (t) => {
      const grant = await setGrant(db, {
        peerId: hub.id,
        resource: 'place',
        direction: 'pull',
        onConflict: 'master',
        master: master.toUpperCase(),
      })
      t.match(grant, { filter: null, columns: null, onConflict: 'master', master })
      await setGrant(db, { peerId: hub.id, resource: 'road', direction: 'push' })
      await setGrant(db, { peerId: hub.id, resource: 'place', direction: 'push' })
      const list = await listGrants(db, hub.id)
      t.same(list[0], grant)
      t.same(
        list.map((each) => `${each.resource} ${each.direction}`),
        ['place pull', 'place push', 'road push'],
      )
    })

    t.test('what has no meaning is refused', async (t) => {
      const base = { peerId: hub.id, resource: 'place', direction: 'pull' }
      await refused(t, 'SYNC_REQUEST_INVALID', /master|policy|direction|column|filter/, [
        () => setGrant(db, { ...base, onConflict: 'master' }),
        () => setGrant(db, { ...base, master }),
        () => setGrant(db, { ...base, onConflict: 'loudest' }),
        () => setGrant(db, { ...base, direction: 'both' }),
        () => setGrant(db, { ...base, columns: [] }),
        () => setGrant(db, { ...base, columns: ['a', 'a'] }),
        () => setGrant(db, { ...base, filter: 'a = \0' }),
      ])
      await refused(t, 'SYNC_REQUEST_NOT_FOUND', /resource|peer/, [
        () => setGrant(db, { ...base, resource: 'river' }),
        () => setGrant(db, { ...base, peerId: 4711 }),
        () => removeGrant(db, hub.id, 'road', 'pull'),
      ])
    })

    t.test('taking a pull grant back forgets how far the peer had pulled that resource', async (t) => {
      await checkpoint(db, hub, place)
      await checkpoint(db, hub, road)
      await removeGrant(db, hub.id, 'place', 'push')
      t.equal((await checkpoints(db, hub)).length, 6)
      await removeGrant(db, hub.id, 'place', 'pull')
      t.same(await checkpoints(db, hub), ['ack', 'pull', 'pull', 'push', 'push'])
      t.equal(await findGrant(db, hub.id, 'place', 'pull'), null)
    })
  })

  t.test(`tasks, on ${ground.name}`, async (t) => {
    const store = await ground.fresh()
    const { db } = store
    const place = await addResource(store, 'place')
    await addResource(store, 'road')
    const hub = await createPeer(db, key, aPeer('hub'))

    t.test('there is at most one for each peer and resource', async (t) => {
      const task = await createTask(db, { peerId: hub.id, resource: 'place', mode: 'both', schedule: 'every:300' })
      t.match(task, {
        peer: 'hub',
        peerId: hub.id,
        resource: 'place',
        mode: 'both',
        onConflict: 'newer',
        onLeft: 'keep',
      })
      t.match(task, { schedule: 'every:300', enabled: true, revision: 1, filter: null, columns: null, master: null })
      t.same(await findTask(db, task.id), task)
      t.same(await findTask(db, String(task.id)), task)
      t.same(await findTaskFor(db, hub.id, 'place'), task)
      t.equal(await findTaskFor(db, hub.id, 'road'), null)
      await refused(t, 'SYNC_REQUEST_EXISTS', /"hub" .* "place"/, [
        () => createTask(db, { peerId: hub.id, resource: 'place', mode: 'pull' }),
      ])
      await refused(t, 'SYNC_REQUEST_NOT_FOUND', /river|4711|task/, [
        () => createTask(db, { peerId: hub.id, resource: 'river', mode: 'pull' }),
        () => createTask(db, { peerId: 4711, resource: 'road', mode: 'pull' }),
        () => findTask(db, 4711),
        () => findTask(db, 'place'),
        () => updateTask(db, 4711, {}),
        () => removeTask(db, 4711),
      ])
    })

    t.test('a change keeps what it does not name and is made for one revision', async (t) => {
      const task = await findTaskFor(db, hub.id, 'place')
      const id = task?.id ?? 0
      const master = randomUUID()
      const changed = await updateTask(db, id, { filter: 'a = 1', onConflict: 'master', master, onLeft: 'remove' }, 1)
      t.match(changed, {
        mode: 'both',
        schedule: 'every:300',
        filter: 'a = 1',
        onConflict: 'master',
        master,
        onLeft: 'remove',
        revision: 2,
      })
      await refused(t, 'SYNC_REQUEST_CHANGED', /revision 2/, [
        () => updateTask(db, id, { enabled: false }, 1),
        () => removeTask(db, id, 1),
      ])
      t.match(await updateTask(db, id, { enabled: false }), {
        onConflict: 'master',
        master,
        enabled: false,
        revision: 3,
      })
      t.match(await updateTask(db, id, { onConflict: 'ask', schedule: null, filter: null }), {
        onConflict: 'ask',
        master: null,
        schedule: null,
        filter: null,
      })
      await refused(t, 'SYNC_REQUEST_INVALID', /./, [
        () => updateTask(db, id, { mode: 'sideways' }),
        () => updateTask(db, id, { onLeft: 'burn' }),
        () => updateTask(db, id, { schedule: '' }),
      ])
    })

    t.test(
      'a direction that is left out forgets how far it had come; removal forgets both, the peer’s own place stays',
      async (t) => {
        const id = (await findTaskFor(db, hub.id, 'place'))?.id ?? 0
        await checkpoint(db, hub, place)
        await updateTask(db, id, { enabled: true })
        t.same(await checkpoints(db, hub), ['ack', 'pull', 'push'])
        await updateTask(db, id, { mode: 'pull' })
        t.same(await checkpoints(db, hub), ['ack', 'pull'])
        await removeTask(db, id)
        t.same(await checkpoints(db, hub), ['ack'])
      },
    )

    t.test('tasks are listed by peer, resource, mode and whether they are enabled', async (t) => {
      const other = await createPeer(db, key, aPeer('other'))
      await createTask(db, { peerId: hub.id, resource: 'place', mode: 'pull' })
      await createTask(db, { peerId: hub.id, resource: 'road', mode: 'push', enabled: false })
      await createTask(db, { peerId: other.id, resource: 'road', mode: 'push' })
      const names = async (query: Parameters<typeof listTasks>[1]) =>
        (await listTasks(db, query)).items.map((task) => `${task.peer} ${task.resource}`)
      t.same(await names({}), ['other road', 'hub road', 'hub place'])
      t.same(await names({ peerId: hub.id }), ['hub road', 'hub place'])
      t.same(await names({ resource: 'road' }), ['other road', 'hub road'])
      t.same(await names({ mode: 'push', enabled: true }), ['other road'])
      t.same(await names({ limit: 1, before: (await listTasks(db, { limit: 1 })).next ?? '' }), ['hub road'])
    })
  })

  t.test(`settings, on ${ground.name}: any JSON is kept, and never set differs from null`, async (t) => {
    const { db } = await ground.fresh()
    t.equal(await getSetting(db, 'brakes'), undefined)
    for (const value of [{ deletes: 0.2, list: [1, 'a', null] }, null, false, 0, 'text', ['x']]) {
      await setSetting(db, 'brakes', value)
      t.same(await getSetting(db, 'brakes'), value)
    }
    await setSetting(db, 'age', 3)
    t.same(
      [...(await listSettings(db))],
      [
        ['age', 3],
        ['brakes', ['x']],
      ],
    )
    await clearSetting(db, 'brakes')
    await clearSetting(db, 'brakes')
    t.equal(await getSetting(db, 'brakes'), undefined)
    await t.rejects(setSetting(db, 'bad', 'a\0b'), { code: 'SYNC_REQUEST_INVALID', message: /NUL/ })
    await t.rejects(setSetting(db, '', 1), { code: 'SYNC_REQUEST_INVALID' })
  })
}

t.test('times are ISO 8601 with six digits of a second, so that they sort as text', async (t) => {
  for (const [text, iso] of [
    ['2026-11-22 00:22:48+00', '2026-11-22T00:22:48.000000Z'],
    ['2026-11-22 00:22:48.65+00', '2026-11-22T00:22:48.650000Z'],
    ['2026-11-22 00:22:48.656123+00:00', '2026-11-22T00:22:48.656123Z'],
    ['2026-11-22 05:52:48+05:30', '2026-11-22T05:52:48.000000+05:30'],
    ['2026-11-22 02:22:48-08', '2026-11-22T02:22:48.000000-08:00'],
    ['infinity', 'infinity'],
  ] as const) {
    t.equal(isoTime(text), iso)
  }
  t.equal(isoTime(null), null)
})
