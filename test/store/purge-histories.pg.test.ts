/**
 * Random histories of three sites that all meet each other: writes, deletions, meetings, purges with and without regard to who has what, so that
 * every site is absent for longer than tombstones are kept, again and again. An oracle knows which write knew of which others.
 */
import t from 'tap'
import { purgeTombstones, readSelf } from '../../src/store/index.ts'
import { introduce, pullAll, pushAll, type Site, siteFactory, syncOnce } from '../support/sites.ts'

const DDL = 'create table place (id text primary key, name text)'
const IDS = Array.from('abcdefghijklmnop')
const HISTORIES = 12
const STEPS = 90

/** One write of the application. `past` are the writes of the same record that it knew of. */
type Write = { readonly n: number; readonly value: string | null; readonly past: ReadonlySet<Write> }

const sites = await siteFactory(t)

for (let seed = 1; seed <= HISTORIES; seed++) {
  t.test(`I6: neither revived nor lost, whatever is purged while whoever is away (history ${seed})`, async (t) => {
    const random = chance(seed)
    const all = await Promise.all(['one', 'two', 'three'].map((name) => sites.make(name, DDL, ['place'])))
    for (const [here, there] of pairsOf(all)) await introduce(here, there)
    const known = new Map(all.map((site) => [site, new Map<string, Set<Write>>(IDS.map((id) => [id, new Set()]))]))
    const writesAt = (site: Site, id: string) => known.get(site)?.get(id) ?? new Set<Write>()
    const trace: string[] = []
    let n = 0

    const write = async (site: Site) => {
      const id = pick(random, IDS)
      const living = (await site.sql('select from place where id = $1', [id])).length > 0
      const value = living && random() < 0.5 ? null : `${++n}`
      if (value === null) await site.sql('delete from place where id = $1', [id])
      else
        await site.sql('insert into place values ($1, $2) on conflict (id) do update set name = excluded.name', [
          id,
          value,
        ])
      const past = writesAt(site, id)
      past.add({ n: ++n, value, past: new Set(past) })
      trace.push(`${site.name}: ${id} = ${value}`)
    }
    const learn = (site: Site, from: Site) => {
      for (const id of IDS) for (const write of writesAt(from, id)) writesAt(site, id).add(write)
    }
    const meet = async (here: Site, there: Site, how = 'meets') => {
      if (how === 'pulls from') await pullAll(here, there)
      else if (how === 'pushes to') await pushAll(here, there)
      else await syncOnce(here, there)
      if (how !== 'pushes to') learn(here, there)
      if (how !== 'pulls from') learn(there, here)
      trace.push(`${here.name} ${how} ${there.name}`)
    }
    const purge = async (site: Site, days: number) => {
      const { logId } = await readSelf(site.store.db)
      const [done] = await purgeTombstones(site.store.db, { logId, days })
      trace.push(`${site.name} purges ${done?.purged ?? 0} (${days})`)
    }

    for (let step = 0; step < STEPS; step++) {
      const dice = random()
      if (dice < 0.5) await write(pick(random, all))
      else if (dice < 0.8) {
        const [here, there] = pick(random, pairsOf(all))
        const how = pick(random, ['meets', 'pulls from', 'pushes to'])
        await (random() < 0.5 ? meet(here, there, how) : meet(there, here, how))
      } else await purge(pick(random, all), random() < 0.8 ? 0 : 36_500)
    }
    for (let round = 0; round < 3; round++) for (const [here, there] of pairsOf(all)) await meet(here, there)

    const [first = all[0] as Site] = all
    const expected = IDS.map((id) => [id, lastWord(writesAt(first, id))] as const)
      .filter(([, value]) => value !== null)
      .map(([id, name]) => ({ id, name }))
    for (const site of all) {
      const found = await site.sql('select id, name from place order by id')
      if (JSON.stringify(found) !== JSON.stringify(expected)) t.comment(trace.join('\n'))
      t.same(found, expected, `${site.name} holds what it should`)
    }
  })
}

/** What the newest of the writes says that no other knew of: concurrent ones are settled by "newer". */
function lastWord(writes: ReadonlySet<Write>): string | null {
  const superseded = new Set([...writes].flatMap((write) => [...write.past]))
  const [last] = [...writes].filter((write) => !superseded.has(write)).sort((a, b) => b.n - a.n)
  return last?.value ?? null
}

function pairsOf(all: readonly Site[]): readonly (readonly [Site, Site])[] {
  return all.flatMap((here, n) => all.slice(n + 1).map((there) => [here, there] as const))
}

function pick<T>(random: () => number, from: readonly T[]): T {
  return from[Math.floor(random() * from.length)] as T
}

/** A small generator of chance that repeats itself (mulberry32). */
function chance(seed: number): () => number {
  let state = seed * 0x9e3779b1
  return () => {
    state = (state + 0x6d2b79f5) | 0
    let mixed = Math.imul(state ^ (state >>> 15), 1 | state)
    mixed = (mixed + Math.imul(mixed ^ (mixed >>> 7), 61 | mixed)) ^ mixed
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 4_294_967_296
  }
}
