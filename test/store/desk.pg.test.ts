import { randomBytes, randomUUID } from 'node:crypto'
import { sql } from 'kysely'
import t from 'tap'
import {
  attach,
  compileFilter,
  createManaged,
  createPeer,
  digestOf,
  ensureSelf,
  findConflict,
  findResource,
  listConflicts,
  measureStore,
  readRecord,
  readRecords,
  readSelf,
  receiveChanges,
  renameSite,
  replaceSetting,
  resolveConflict,
  type Store,
  servableHeads,
  setGrant,
  writeByHand,
} from '../../src/store/index.ts'
import { type Change, changesOfLines, linesOfChanges } from '../../src/sync/index.ts'
import { bothStores } from './both-stores.ts'

const { all } = await bothStores(t)
const key = randomBytes(32)
const limits = { batchRowsMax: 1000, batchBytesMax: 1_000_000, recordBytesMax: 100_000, clockAheadMaxMs: 300_000 }
const country = {
  type: 'object',
  properties: {
    id: { type: 'string' },
    name: { type: 'string', maxLength: 40 },
    population: { type: 'integer', minimum: 0 },
  },
  required: ['name'],
}
const city = {
  type: 'object',
  description: "Somebody's city",
  properties: {
    name: { type: 'string', description: 'As people there call it' },
    country: { type: 'string', 'x-ref': 'country' },
    twin: { type: ['string', 'null'], 'x-ref': 'city' },
    size: { type: 'string', enum: ['small', "o'big"] },
    founded: { type: 'string', format: 'date' },
    seen: { type: 'string', format: 'date-time' },
    area: { type: 'number' },
    capital: { type: 'boolean' },
    tags: { type: 'array' },
  },
  required: ['name', 'country'],
}

async function site(store: Store) {
  const self = await ensureSelf(store.db, { name: 'here', key })
  const write = (resource: string, ...changes: Change[]) =>
    writeByHand(store, self, resource, linesOfChanges(resource, changes, { country: 'country', twin: 'city' }), limits)
  return { self, write }
}
const put = (id: string, data: Change extends infer C ? (C extends { data: infer D } ? D : never) : never): Change => ({
  kind: 'put',
  id,
  data,
})

for (const ground of all) {
  t.test(`the desk of a site, on ${ground.name}`, async (t) => {
    const store = await ground.fresh()
    const { self, write } = await site(store)

    t.test(
      'a managed table has the columns that its JSON Schema describes, and is synced like any other',
      async (t) => {
        const made = await createManaged(store, { name: 'country', schema: country })
        t.match(made, {
          name: 'country',
          managed: true,
          ready: true,
          tableSchema: 'syncline',
          tableName: 'data_country',
        })
        const cities = await createManaged(store, { name: 'city', schema: city })
        t.same(
          cities.columns.map(({ name, typeName, notNull }) => `${name} ${typeName}${notNull ? ' not null' : ''}`),
          [
            'id uuid not null',
            'name text not null',
            'country text not null',
            'twin uuid',
            'size text',
            'founded date',
            'seen timestamptz',
            'area float8',
            'capital bool',
            'tags jsonb',
          ],
        )
        t.same(
          cities.references.map((each) => [each.column.name, each.resource]),
          [
            ['country', 'country'],
            ['twin', 'city'],
          ],
        )
        const at = await write('country', put('AT', { name: 'Austria', population: 9_000_000 }))
        t.equal(at.counts.applied, 1)
        const bad = await write(
          'country',
          put('XX', { name: 'x'.repeat(41) }),
          put('YY', { name: 'Y', population: -1 }),
        )
        t.same(
          bad.rejections.map(({ id, outcome, code }) => [id, outcome, code]),
          [
            ['XX', 'refused', 'SYNC_RECORD_CONSTRAINT'],
            ['YY', 'refused', 'SYNC_RECORD_CONSTRAINT'],
          ],
        )
        const odd = await write('city', {
          kind: 'put',
          id: randomUUID(),
          data: { name: 'Nowhere', size: 'huge' },
          refs: { country: { resource: 'country', id: 'AT' } },
        })
        t.equal(odd.counts.applied, 0, 'not in the enum')
        const { rows } = await sql<{
          text: string
        }>`select obj_description('syncline.data_city'::regclass) as text`.execute(store.db)
        t.equal(rows[0]?.text, "Somebody's city")
      },
    )

    t.test('every fault of a JSON Schema is named at once, and nothing is made', async (t) => {
      const schema = {
        type: 'object',
        oneOf: [],
        required: ['gone'],
        properties: {
          id: { type: 'integer' },
          'x"; drop table syncline.self; --': { type: 'string' },
          xmin: { type: 'string' },
          a: { type: 'string', pattern: '^a' },
          b: { type: ['string', 'integer'] },
          c: { type: 'string', format: 'email' },
          d: { type: 'string', 'x-ref': 'nothing' },
          e: { type: 'boolean', enum: [true] },
          f: { type: 'string', minimum: 3 },
          g: 'text',
        },
      }
      await t.rejects(createManaged(store, { name: 'bad name', schema }), {
        code: 'SYNC_REQUEST_INVALID',
        message:
          /"bad name".*"oneOf".*"gone".*"id" must.*"xmin".*"pattern".*"b": type.*"c": format.*"d": x-ref.*"e": enum.*"f": minimum.*"g": it must/s,
      })
      await t.rejects(createManaged(store, { name: 'empty', schema: { type: 'object', properties: {} } }), {
        code: 'SYNC_REQUEST_INVALID',
      })
      await t.rejects(createManaged(store, { name: 'city', schema: city }), { code: 'SYNC_REQUEST_EXISTS' })
      const quoted = await createManaged(store, {
        name: 'quoted',
        schema: { type: 'object', properties: { 'x"; drop table syncline.self; --': { type: 'string' } } },
      })
      t.equal(quoted.columns[1]?.name, 'x"; drop table syncline.self; --')
      t.ok(await readSelf(store.db))
    })

    t.test('tables of Syncline itself cannot be attached', async (t) => {
      for (const table of ['syncline.token', 'syncline.data_country']) {
        await t.rejects(attach(store, [{ table, name: 'other' }]), {
          code: 'SYNC_RESOURCE_UNSUITABLE',
          message: /belongs to Syncline/,
        })
      }
      await t.rejects(attach(store, [{ table: 'syncline.token', name: 'other', managed: true }]), {
        code: 'SYNC_RESOURCE_UNSUITABLE',
      })
    })

    t.test('records are read page by page, by id each once, or newest first', async (t) => {
      for (let n = 0; n < 25; n++)
        await write('country', put(`c${String(n).padStart(2, '0')}`, { name: `Country ${n}`, population: n }))
      await write('country', { kind: 'delete', id: 'c07' })
      const resource = await findResource(store.db, 'country')
      const read = async (more: Partial<Parameters<typeof readRecords>[1]>) => {
        const ids: string[] = []
        for (let after: string | undefined; ; ) {
          const page = await readRecords(store.db, {
            resource,
            order: 'id',
            rowsMax: 4,
            bytesMax: 1_000_000,
            deleted: false,
            after,
            ...more,
          })
          ids.push(...changesOfLines(page.batch).map((change) => `${change.kind === 'delete' ? '-' : ''}${change.id}`))
          if (page.next === null) return ids
          after = page.next
        }
      }
      const byId = await read({})
      t.equal(byId.length, 25)
      t.same(byId, [...byId].sort())
      t.same(await read({ rowsMax: 25 }), byId, 'a page that holds exactly all says that it is the last')
      t.same(await read({ bytesMax: 1 }), byId, 'one record always fits')
      const newest = await read({ order: 'newest', deleted: true })
      t.same(newest.slice(0, 3), ['-c07', 'c24', 'c23'])
      t.equal(newest.length, 26)
      t.same(await read({ filter: await compileFilter(store, resource, "population > 22 and id != 'AT'") }), [
        'c23',
        'c24',
      ])
      const [first] = changesOfLines(
        (
          await readRecords(store.db, {
            resource,
            columns: ['name'],
            order: 'id',
            rowsMax: 1,
            bytesMax: 1,
            deleted: false,
          })
        ).batch,
      )
      t.match(first, { id: 'AT', data: { name: 'Austria' }, version: { origin: self.origin } })
      t.notOk(first?.kind === 'put' && 'population' in first.data)
      for (const after of [
        'x',
        Buffer.from('["1; drop","a"]').toString('base64url'),
        Buffer.from('[1,"a"]').toString('base64url'),
      ]) {
        await t.rejects(read({ after, order: 'newest' }), { code: 'SYNC_REQUEST_INVALID' })
      }
    })

    t.test('one record is read with its version, also when it was deleted', async (t) => {
      const resource = await findResource(store.db, 'country')
      const gone = await readRecord(store.db, resource, 'c07')
      t.match(gone && changesOfLines(gone), [{ kind: 'delete', id: 'c07', version: { origin: self.origin } }])
      t.equal(await readRecord(store.db, resource, 'never'), null)
      const id = randomUUID()
      await write('city', {
        kind: 'put',
        id,
        data: { name: 'Graz' },
        refs: { country: { resource: 'country', id: 'AT' } },
      })
      const found = await readRecord(store.db, await findResource(store.db, 'city'), id.toUpperCase())
      t.match(found && changesOfLines(found), [
        { id, refs: { country: { resource: 'country', id: 'AT' }, twin: null } },
      ])
    })

    t.test('digests of pieces add up to the digest of the whole, and tell where two sites differ', async (t) => {
      const resource = await findResource(store.db, 'country')
      const whole = { from: null, to: null }
      const [total] = await digestOf(store.db, { resource }, whole)
      t.match(total, { from: null, to: null, count: 25 })
      const pieces = await digestOf(store.db, { resource }, whole, 5)
      t.equal(pieces.length, 5)
      t.equal(
        pieces.reduce((sum, piece) => sum + piece.count, 0),
        total?.count,
      )
      t.equal(String(pieces.reduce((sum, piece) => sum + BigInt(piece.sum), 0n)), total?.sum)
      t.same(
        pieces.map(({ from }) => from),
        [null, ...pieces.slice(0, -1).map(({ to }) => to)],
        'they follow each other without a gap',
      )
      for (const piece of pieces)
        t.same(await digestOf(store.db, { resource }, piece), [piece], 'a piece asked for alone is the same')
      await write('country', put('c13', { name: 'Changed' }))
      const after = await digestOf(store.db, { resource }, whole, 5)
      const differing = pieces.filter((piece, n) => piece.sum !== after[n]?.sum)
      t.equal(differing.length, 1)
      t.ok((differing[0]?.from ?? '') < 'c13' && 'c13' <= (differing[0]?.to ?? '~'))
      t.match(
        await digestOf(store.db, { resource, filter: await compileFilter(store, resource, 'population >= 23') }, whole),
        [{ count: 3 }],
      )
      t.same(await digestOf(store.db, { resource }, { from: 'z', to: null }, 9), [
        { from: 'z', to: null, count: 0, sum: '0' },
      ])
    })

    t.test('the head that peers can be served moves with every change of the resource and of no other', async (t) => {
      const heads = async () => servableHeads(store.db, ['country', 'city', 'unknown'])
      const before = await heads()
      t.same([...before.keys()].sort(), ['city', 'country'])
      await write('country', put('c14', { name: 'Moved' }))
      const after = await heads()
      t.not(after.get('country'), before.get('country'))
      t.equal(after.get('city'), before.get('city'))
    })

    t.test('a conflict that waits is settled by a new write that has seen both sides', async (t) => {
      const uuid = randomUUID()
      const peer = await createPeer(store.db, key, { name: 'field', uuid })
      await setGrant(store.db, { peerId: peer.id, resource: 'country', direction: 'push', onConflict: 'ask' })
      const clock = Date.now() * 1000
      const pushed = (id: string, name: string, at: number): Promise<unknown> =>
        receiveChanges(
          store,
          { self, peer },
          {
            resource: 'country',
            batches: linesOfChanges(
              'country',
              [
                {
                  ...put(id, { name, flag: 'red' }),
                  version: { origin: uuid, clock: at, seen: { [randomUUID()]: 5 } },
                },
              ],
              {},
            ),
            byHand: false,
            runId: null,
          },
          limits,
        )
      for (const id of ['AT', 'c01', 'c02', 'c03']) await pushed(id, 'Theirs', clock)
      const open = await listConflicts(store.db, { open: true, peer: 'field', resource: 'country' })
      t.equal(open.items.length, 4)
      const of = (id: string) => open.items.find(({ recordId }) => recordId === id)?.id ?? ''
      const conflict = await findConflict(store.db, of('AT'))
      t.match(conflict, {
        peer: 'field',
        resource: 'country',
        recordId: 'AT',
        resolvedAt: null,
        ours: { data: { name: 'Austria' }, version: { origin: self.origin } },
        theirs: { data: { name: 'Theirs', flag: 'red' }, version: { origin: uuid, clock } },
      })
      const resource = await findResource(store.db, 'country')
      const now = async (id: string) =>
        changesOfLines((await readRecord(store.db, resource, id)) ?? (t.fail('gone') as never))[0]
      const before = await now('AT')

      const kept = await resolveConflict(
        store,
        self,
        { id: of('AT'), choice: 'ours', by: 'Ada', comment: 'known here' },
        limits,
      )
      t.match(kept, { resolution: 'ours', resolvedBy: 'Ada', comment: 'known here', resolvedAt: /T/ })
      t.match(await now('AT'), { data: { name: 'Austria' }, version: { origin: self.origin, seen: { [uuid]: clock } } })
      t.ok(((await now('AT'))?.version?.clock ?? 0) > (before?.version?.clock ?? 0))

      await resolveConflict(store, self, { id: of('c01'), choice: 'theirs', by: 'Ada' }, limits)
      t.match(await now('c01'), { data: { name: 'Theirs' }, version: { origin: self.origin, seen: { [uuid]: clock } } })
      await t.rejects(resolveConflict(store, self, { id: of('c01'), choice: 'ours', by: 'Bob' }, limits), {
        code: 'SYNC_REQUEST_SETTLED',
      })
      await t.rejects(resolveConflict(store, self, { id: '999999', choice: 'ours', by: 'Bob' }, limits), {
        code: 'SYNC_REQUEST_NOT_FOUND',
      })

      const theirs = (await now('c02'))?.version
      await receiveChanges(
        store,
        { self, peer },
        {
          resource: 'country',
          batches: linesOfChanges(
            'country',
            [
              {
                ...put('c02', { name: 'Agreed' }),
                version: { origin: uuid, clock: clock + 9, seen: { [self.origin]: theirs?.clock ?? 0 } },
              },
            ],
            {},
          ),
          byHand: false,
          runId: null,
        },
        limits,
      )
      t.match(await findConflict(store.db, of('c02')), { resolution: 'elsewhere', resolvedBy: null })
      t.match(
        (await listConflicts(store.db, { open: true })).items.map(({ recordId }) => recordId),
        ['c03'],
      )
      t.equal((await listConflicts(store.db, { open: false })).items.length, 3)
      const page = await listConflicts(store.db, { limit: 3 })
      t.equal((await listConflicts(store.db, { limit: 3, before: page.next ?? '' })).items.length, 1)
      t.match(await measureStore(store.db), { conflictsOpen: 1, quarantine: [], checkpoints: [], horizonAgeMs: 0 })
    })

    t.test('what the database refuses leaves the conflict open', async (t) => {
      await sql`alter table syncline.data_country add constraint no_theirs check (name <> 'Theirs') not valid`.execute(
        store.db,
      )
      const [conflict] = (await listConflicts(store.db, { open: true })).items
      await t.rejects(resolveConflict(store, self, { id: conflict?.id ?? '', choice: 'theirs', by: 'Ada' }, limits), {
        code: 'SYNC_RECORD_CONSTRAINT',
      })
      t.equal((await findConflict(store.db, conflict?.id ?? '')).resolvedAt, null)
    })

    t.test('a setting is replaced only where nobody else was first', async (t) => {
      t.equal(await replaceSetting(store.db, 'colour', { a: 1 }, undefined), true)
      t.equal(await replaceSetting(store.db, 'colour', 'red', undefined), false)
      t.equal(await replaceSetting(store.db, 'colour', 'red', { a: 2 }), false)
      t.equal(await replaceSetting(store.db, 'colour', null, { a: 1 }), true)
      t.equal(await replaceSetting(store.db, 'colour', 'red', null), true)
      const both = await Promise.all([1, 2].map((n) => replaceSetting(store.db, 'new', n, undefined)))
      t.same(both.filter(Boolean).length, 1)
    })

    t.test('a site keeps the name that it was given, whatever it is started with', async (t) => {
      t.equal((await renameSite(store.db, 'Hub Vienna')).name, 'Hub Vienna')
      t.equal((await ensureSelf(store.db, { name: 'here', key })).name, 'Hub Vienna')
      await t.rejects(renameSite(store.db, ' '), { code: 'SYNC_REQUEST_INVALID' })
    })
  })
}
