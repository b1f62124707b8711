import { createTask, setGrant } from '../src/store/index.ts'
import type { Owner } from '../test/support/postgres.ts'
import { introduce, peerOf, pullAll, type Site, siteFactory, totalOf } from '../test/support/sites.ts'
import { type Figure, median, say } from './report.ts'
import { createItem, fillItem } from './table.ts'

const CONFLICTS = 1_000
const ROUNDS = 3
const FIELDS = { medium: 'sum', note: 'newer' }

type Policy = 'newer' | 'merge'

/** A thousand records that both sites changed, settled in one pull; and what the marks of a merge cost a first copy. */
export async function benchConflicts(owner: Owner, options: { readonly rows: number }): Promise<Figure[]> {
  const factory = await siteFactory(owner)
  const figures: Figure[] = []
  for (const policy of ['newer', 'merge'] as const) {
    const times: number[] = []
    for (let round = 0; round < ROUNDS; round++) {
      const [a, b] = await pair(factory, policy, `${policy}${round}`)
      times.push(await settled(a, b, policy))
    }
    figures.push({
      what: `${CONFLICTS} conflicts decided by ${policy}`,
      value: median(times),
      unit: 'ms',
      must: '≤ 1,000 ms',
      reached: median(times) <= 1_000,
    })
  }
  const rates: Record<Policy, number[]> = { newer: [], merge: [] }
  for (let round = 0; round < ROUNDS; round++) {
    for (const policy of ['newer', 'merge'] as const) {
      const [a, b] = await pair(factory, policy, `copy${policy}${round}`)
      await a.sql(fillItem('item', 1, options.rows))
      const begin = performance.now()
      await pullAll(b, a, { task: taskOf(policy) })
      rates[policy].push(options.rows / ((performance.now() - begin) / 1000))
    }
  }
  // The best of each: what else the machine does only ever slows one of them down.
  const [merged, plain] = [Math.max(...rates.merge), Math.max(...rates.newer)]
  const ratio = merged / plain
  figures.push({
    what: `baseline of ${options.rows} rows that are merged from then on`,
    value: merged,
    unit: 'rows/s',
    ratio,
    must: '≥ 0.80 of the same without merge',
    reached: ratio >= 0.8,
  })
  return figures
}

const taskOf = (policy: Policy) => ({ onConflict: policy, fields: policy === 'merge' ? FIELDS : {} })

async function pair(
  factory: Awaited<ReturnType<typeof siteFactory>>,
  policy: Policy,
  name: string,
): Promise<readonly [Site, Site]> {
  const ddl = createItem('item')
  const [a, b] = [await factory.make(`${name}a`, ddl, ['item']), await factory.make(`${name}b`, ddl, ['item'])]
  await introduce(a, b)
  for (const [here, there] of [
    [a, b],
    [b, a],
  ] as const) {
    const link = { peerId: peerOf(here, there).id, resource: 'item', ...taskOf(policy) }
    await setGrant(here.store.db, { ...link, direction: 'push' })
    await createTask(here.store.db, { ...link, mode: 'both' })
  }
  return [a, b]
}

/** Milliseconds of the pull that meets the conflicts. */
async function settled(a: Site, b: Site, policy: Policy): Promise<number> {
  await a.sql(fillItem('item', 1, CONFLICTS))
  await pullAll(b, a, { task: taskOf(policy) })
  await a.sql(`update item set medium = medium + 1, note = note || ' a'`)
  await b.sql(`update item set medium = medium + 2`)
  const begin = performance.now()
  const counts = totalOf(await pullAll(b, a, { task: taskOf(policy) }))
  const ms = performance.now() - begin
  if (counts.merged !== CONFLICTS) throw new Error(`${counts.merged} of ${CONFLICTS} conflicts were settled`)
  say(`${CONFLICTS} conflicts by ${policy}: ${Math.round(ms)} ms`)
  return ms
}
