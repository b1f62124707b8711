/** Faults of knowledge: who knew what when, over which way, and from which yesterday. */
import type { Scenario } from '../contest.ts'
import { FAMILY, ITEM, id } from './tables.ts'

export const duplicates: Scenario = {
  name: 'duplicate delivery',
  group: 'fault',
  about:
    'every writing request arrives twice, every third answer is lost, and in the end all old requests arrive once more',
  shape: { ...ITEM, needs: ['duplicate'] },
  act: async (contest) => {
    const { a, b, system } = contest
    await system.duplicate()
    for (let n = 1; n <= 20; n++) await contest.put(n % 2 ? a : b, 'item', id(n), { name: `first ${n}`, qty: n })
    await contest.settle()
    for (let n = 1; n <= 6; n++) await contest.put(n % 2 ? b : a, 'item', id(n), { name: `second ${n}`, qty: n * 10 })
    for (const n of [7, 8]) await contest.remove(n % 2 ? b : a, 'item', id(n))
    await contest.settle()
    await contest.put(a, 'item', id(9), { name: 'third 9', qty: 900 })
    await contest.settle()
  },
  heal: async ({ system }) => system.replay(),
}

export const deleteAgainstUpdate: Scenario = {
  name: 'delete against update',
  group: 'fault',
  about:
    'one site deletes a record while the other one, not knowing, edits it; either may win, an edit that gives way must be kept',
  shape: ITEM,
  act: async (contest) => {
    const { a, b } = contest
    for (const n of [1, 2, 3, 4, 5]) await contest.put(a, 'item', id(n), { name: 'first', qty: n })
    await contest.settle()
    await contest.race('item', id(1), [
      [a, null],
      [b, { name: 'edited at b 1' }, 'edited at b 1'],
    ])
    await contest.race('item', id(2), [
      [a, { name: 'edited at a 2' }, 'edited at a 2'],
      [b, null],
    ])
    await contest.race('item', id(3), [
      [b, { name: 'edited at b 3' }, 'edited at b 3'],
      [a, null],
    ])
    await contest.race('item', id(4), [
      [a, null],
      [b, null],
    ])
    await contest.put(b, 'item', id(5), { name: 'not in the race' })
    await contest.settle()
    // Whatever came out, a deletion that has seen it ends it.
    await contest.remove(b, 'item', id(3)).catch(() => {})
  },
}

export const deleteThenCreate: Scenario = {
  name: 'delete then re-create',
  group: 'fault',
  about:
    'a deleted id is written again: at the same site, at the other one, within one exchange, and at both sites at once',
  shape: ITEM,
  act: async (contest) => {
    const { a, b } = contest
    for (const n of [1, 2, 3, 4]) await contest.put(a, 'item', id(n), { name: 'first', qty: n, note: 'to go' })
    await contest.settle()
    await contest.remove(a, 'item', id(3))
    await contest.put(a, 'item', id(3), { name: 'again at a at once', qty: 33 })
    for (const n of [1, 2, 4]) await contest.remove(a, 'item', id(n))
    await contest.settle()
    await contest.put(a, 'item', id(1), { name: 'again at a', qty: 11 })
    await contest.put(b, 'item', id(2), { name: 'again at b', qty: 22 })
    await contest.race('item', id(4), [
      [a, { name: 'born again at a' }, 'born again at a'],
      [b, { name: 'born again at b' }, 'born again at b'],
    ])
    await contest.settle()
    await contest.remove(b, 'item', id(1))
    await contest.settle()
  },
}

export const ring: Scenario = {
  name: 'three-site ring',
  group: 'fault',
  about: 'three sites in a ring write, edit one record at once, and delete what came over two hops',
  shape: { ...ITEM, sites: 3 },
  act: async (contest) => {
    const { a, b, c } = contest
    for (const [n, at] of [a, b, c].entries()) {
      await contest.put(at, 'item', id(n + 1), { name: `first of ${at.name}`, qty: n })
      await contest.put(at, 'item', id(n + 11), { name: `another of ${at.name}`, qty: n })
    }
    await contest.settle()
    await contest.put(b, 'item', id(1), { name: 'b edits what a wrote' })
    await contest.remove(c, 'item', id(11))
    await contest.remove(a, 'item', id(12))
    await contest.race('item', id(2), [
      [a, { name: 'race of a' }, 'race of a'],
      [b, { name: 'race of b' }, 'race of b'],
      [c, { name: 'race of c' }, 'race of c'],
    ])
    await contest.settle()
    await contest.put(c, 'item', id(1), { name: 'c edits what b edited' })
    await contest.put(a, 'item', id(11), { name: 'a writes again what c deleted' })
    await contest.put(b, 'item', id(2), { name: 'b ends the race' })
  },
}

export const missingParent: Scenario = {
  name: 'missing parent',
  group: 'fault',
  about: 'the child of a parent that the other site has deleted arrives; the parent comes back later',
  shape: {
    ...FAMILY,
    ddl: `create table parent (id uuid primary key, name text);
      create table child (id uuid primary key, parent uuid references parent (id), name text)`,
    tables: ['child'],
  },
  act: async (contest) => {
    const { a, b } = contest
    // The parents are not part of the exchange: each site has its own, as with a table that another program fills.
    for (const at of [a, b]) await at.sql(`insert into parent values ('${id(1)}', 'known at both')`)
    await a.sql(`insert into parent values ('${id(2)}', 'known at a only')`)
    await contest.put(a, 'child', id(21), { parent: id(2), name: 'without its parent' })
    await contest.put(a, 'child', id(22), { parent: id(1), name: 'with its parent' })
    await contest.put(b, 'child', id(23), { parent: id(1), name: 'of b' })
    await contest.settle()
    await contest.mustFlow(`child/${id(22)}`, `child/${id(23)}`)
    await contest.noOrphans('child', 'parent', 'parent')
  },
  heal: async ({ b, system }) => {
    await b.sql(`insert into parent values ('${id(2)}', 'now known here')`)
    await system.resume()
  },
}

export const restored: Scenario = {
  name: 'peer restored from yesterday',
  group: 'fault',
  about:
    'the data of one site are put back to a copy made before the last exchanges; what either site still has must be at both',
  shape: { ...ITEM, needs: ['backup'] },
  act: async (contest) => {
    const { a, b, system } = contest
    for (let n = 1; n <= 8; n++) await contest.put(n % 2 ? a : b, 'item', id(n), { name: `before ${n}`, qty: n })
    await contest.settle()
    const putBack = await system.backUp(0)
    await contest.put(a, 'item', id(1), { name: 'a after the copy', qty: 10 })
    await contest.put(b, 'item', id(2), { name: 'b after the copy', qty: 20 })
    await contest.put(a, 'item', id(31), { name: 'new at a after the copy', qty: 31 })
    await contest.put(b, 'item', id(32), { name: 'new at b after the copy', qty: 32 })
    await contest.remove(a, 'item', id(3))
    await contest.remove(b, 'item', id(4))
    await contest.settle()
    await putBack()
    await contest.put(a, 'item', id(33), { name: 'a after it was put back', qty: 33 })
    await contest.put(a, 'item', id(5), { name: 'a after it was put back', qty: 50 })
    await contest.put(b, 'item', id(6), { name: 'b goes on', qty: 60 })
    await contest.settle()
  },
  heal: async (contest) => {
    await contest.system.resume()
    await contest.put(contest.b, 'item', id(34), { name: 'b afterwards', qty: 34 })
    await contest.settle()
    await contest.put(contest.a, 'item', id(34), { name: 'a saw it', qty: 35 })
  },
}
