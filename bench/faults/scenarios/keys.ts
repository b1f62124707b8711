/** Situations of keys: what is unique, what identifies, what refers. */
import type { Scenario } from '../contest.ts'
import type { State } from '../judge.ts'
import { begin, bystanders } from './flow.ts'
import { CODED, FAMILY, ITEM, id, item } from './tables.ts'

export const uniqueClash: Scenario = {
  name: 'unique clash',
  group: 'situation',
  about: 'both sites make a different record with the same unique value; a person corrects one of them',
  shape: CODED,
  act: async (contest) => {
    const { a, b } = contest
    await contest.apart(async () => {
      await contest.put(a, 'item', id(1), { code: 'X', name: 'of a' })
      await contest.put(b, 'item', id(2), { code: 'X', name: 'of b' })
    })
    await contest.settle()
    await bystanders(contest)
  },
  heal: async ({ put, b, system }) => {
    await put(b, 'item', id(2), { code: 'Y', name: 'of b, corrected' })
    await system.resume()
  },
}

export const keyChange: Scenario = {
  name: 'primary key change',
  group: 'situation',
  about: 'an update changes the primary key; for one record the other site edits the old one meanwhile',
  shape: { ...ITEM, needs: ['sql'] },
  act: async (contest) => {
    const { a, b, oracle } = contest
    await begin(contest, [1, 2, 3], (qty) => ({ name: 'first', qty }))
    await a.sql(`update item set id = '${id(11)}', name = 'moved' where id = '${id(1)}'`)
    await contest.confirm(a, item(1), item(11))
    await contest.settle()
    let edited: State = null
    await contest.apart(async () => {
      await b.put('item', id(2), { name: 'edited under the old key' })
      edited = await contest.stateAt(b, item(2))
      await a.sql(`update item set id = '${id(12)}' where id = '${id(2)}'`)
      await contest.confirm(a, item(12))
    })
    oracle.raced(item(2), [{ state: null }, { state: edited, mark: 'edited under the old key' }])
    await contest.settle()
  },
}

export const swappedUnique: Scenario = {
  name: 'swapped unique values',
  group: 'situation',
  about: 'two records exchange their unique values in one transaction, three others pass theirs round',
  shape: CODED,
  act: async (contest) => {
    const { a } = contest
    await begin(contest, [1, 2, 3, 4, 5], (n) => ({ code: `C${n}`, name: `item ${n}` }))
    const code = (n: number, to: string) => `update item set code = '${to}' where id = '${id(n)}'`
    await a.sql(`begin; ${code(1, 'free')}; ${code(2, 'C1')}; ${code(1, 'C2')}; commit`)
    await a.sql(`begin; ${code(3, 'free')}; ${code(5, 'C3')}; ${code(4, 'C5')}; ${code(3, 'C4')}; commit`)
    await contest.confirm(a, ...[1, 2, 3, 4, 5].map(item))
    await contest.settle()
    await bystanders(contest)
  },
  heal: ({ system }) => system.resume(),
}

export const truncate: Scenario = {
  name: 'TRUNCATE',
  group: 'situation',
  about:
    'one site truncates the table while the other one, not knowing, adds a record; the truncation never saw that one',
  shape: { ...ITEM, needs: ['sql'] },
  act: async (contest) => {
    const { a, b, oracle } = contest
    for (let n = 1; n <= 5; n++) await contest.put(n % 2 ? a : b, 'item', id(n), { name: 'first', qty: n })
    await contest.settle()
    await contest.apart(async () => {
      await contest.put(b, 'item', id(6), { name: 'written at b meanwhile', qty: 6 })
      await a.sql('truncate item')
    })
    for (let n = 1; n <= 5; n++) oracle.removed(item(n))
    await contest.settle()
    await contest.put(a, 'item', id(7), { name: 'after it', qty: 7 })
  },
}

export const selfReference: Scenario = {
  name: 'self reference and cycle',
  group: 'situation',
  about: 'a record refers to itself, two refer to each other, and a chain is written from its end',
  shape: {
    ddl: 'create table item (id uuid primary key, up uuid references item (id) deferrable initially immediate, name text)',
    tables: ['item'],
    sites: 2,
    needs: ['sql'],
  },
  act: async (contest) => {
    const { a, b } = contest
    const row = (n: number, up: number | null, name: string) =>
      `insert into item values ('${id(n)}', ${up === null ? 'null' : `'${id(up)}'`}, '${name}')`
    await a.sql(row(1, 1, 'its own parent'))
    await a.sql(`begin; set constraints all deferred; ${row(2, 3, 'one')}; ${row(3, 2, 'two')}; commit`)
    await b.sql(
      `begin; set constraints all deferred; ${row(8, 7, 'leaf')}; ${row(7, 6, 'branch')}; ${row(6, null, 'root')}; commit`,
    )
    await contest.confirm(a, ...[1, 2, 3].map(item))
    await contest.confirm(b, ...[6, 7, 8].map(item))
    await contest.settle()
    await contest.noOrphans('item', 'up', 'item')
    await b.sql(`begin; set constraints all deferred; delete from item where id in ('${id(2)}', '${id(3)}'); commit`)
    await contest.confirm(b, item(2), item(3))
    await a.sql(`update item set up = '${id(8)}' where id = '${id(1)}'`)
    await contest.confirm(a, item(1))
    await contest.settle()
    await contest.noOrphans('item', 'up', 'item')
  },
  heal: ({ system }) => system.resume(),
}

const NEWBORN = 'new child of a parent that is being deleted'

export const cascade: Scenario = {
  name: 'cascade delete',
  group: 'situation',
  about: 'a parent goes with its children by cascade; for another parent the other site adds a child meanwhile',
  shape: FAMILY,
  act: async (contest) => {
    const { a, b, oracle } = contest
    for (const n of [1, 2, 3]) {
      await contest.put(a, 'parent', id(n), { name: `parent ${n}` })
      for (const m of [0, 1])
        await contest.put(a, 'child', id(10 * n + m), { parent: id(n), name: `child ${m} of ${n}` })
    }
    await contest.settle()
    await contest.remove(a, 'parent', id(1))
    for (const m of [10, 11]) oracle.removed(`child/${id(m)}`)
    await contest.settle()
    await contest.apart(async () => {
      const parent = await contest.stateAt(b, `parent/${id(2)}`)
      await a.remove('parent', id(2))
      for (const m of [20, 21]) oracle.removed(`child/${id(m)}`)
      await b.put('child', id(22), { parent: id(2), name: NEWBORN })
      const child = await contest.stateAt(b, `child/${id(22)}`)
      // Either the parent lives again for its new child, or the child goes too and is kept.
      oracle.raced(`parent/${id(2)}`, [{ state: null }, { state: parent }])
      oracle.raced(`child/${id(22)}`, [{ state: null }, { state: child, mark: NEWBORN }])
    })
    await contest.settle()
    await contest.put(b, 'child', id(32), { parent: id(3), name: 'bystander' })
    await contest.settle()
    await contest.mustFlow(`child/${id(32)}`)
    await contest.noOrphans('child', 'parent', 'parent')
  },
  heal: async ({ remove, b, system, settle, oracle }) => {
    if ((await system.waiting()).size === 0) return
    // A person at b decides: what refers to the deleted parent goes too.
    await remove(b, 'child', id(22))
    oracle.removed(`parent/${id(2)}`)
    await system.resume()
    await settle()
    await system.resume()
  },
}
