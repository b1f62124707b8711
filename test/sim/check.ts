/** What must always hold, looked at from outside: while everything is under way, and when sites have come to rest. */
import { parseCheckpoint } from '../../src/sync/index.ts'
import { RESOURCES } from './cluster.ts'
import { conflictsAt, contentOf, holdingOf, knowledgeOf, recordsOf, strays, waitingAt } from './inspect.ts'
import { Finding, type Holding, type Oracle, tell } from './oracle.ts'
import type { SimSite } from './site.ts'

/** What was known of each site's knowledge when it was last looked at; begins anew when its database is put back. */
export type Memory = Map<string, { readonly life: number; readonly known: ReadonlyMap<string, bigint> }>

/** Versions only learn: what one has seen is never forgotten. */
export async function checkKnowledge(sites: readonly SimSite[], memory: Memory): Promise<void> {
  for (const site of sites) {
    const known = await knowledgeOf(site)
    const earlier = memory.get(site.name)
    memory.set(site.name, { life: site.lives, known })
    if (earlier?.life !== site.lives) continue
    for (const [what, clock] of earlier.known) {
      const now = known.get(what)
      if (now === undefined || now < clock) {
        throw new Finding(
          `forgotten: at ${site.name}, the version of ${what} had seen ${clock} and now has seen ${now ?? 'nothing'}`,
        )
      }
    }
  }
}

const PASSED = `
  select r.name as resource, c.record_id as id, o.origin, c.clock::text
    from syncline.record c join syncline.resource r on r.id = c.resource_id join syncline.site o on o.id = c.origin
   where r.name = $1 and (c.xact, c.record_id) <= ($2::xid8, $3 collate "C")
     and c.source is distinct from (select site_id from syncline.peer where name = $4)`

/** I5: whatever lies before a checkpoint is known to who reached it, or waits there. */
export async function checkCheckpoints(sites: readonly SimSite[]): Promise<void> {
  for (const here of sites) {
    const { rows } = await here.app.query<{
      peer: string
      resource: string
      direction: 'pull' | 'push'
      value: string
      log: string | null
      own: string
    }>(`
      select p.name as peer, r.name as resource, c.direction, c.value, p.log_id as log, s.log_id as own
        from syncline.checkpoint c join syncline.peer p on p.id = c.peer_id join syncline.resource r on r.id = c.resource_id, syncline.self s
       where c.direction in ('pull', 'push')`)
    for (const { peer, resource, direction, value, log, own } of rows) {
      const there = sites.find(({ name }) => name === peer)
      if (there === undefined) continue
      const { rows: self } = await there.app.query<{ log: string }>('select log_id as log from syncline.self')
      const { logId, position } = parseCheckpoint(value)
      // Of a log that has ended, nobody says anything any more.
      if (log !== self[0]?.log || logId !== (direction === 'pull' ? log : own)) continue
      const [giver, taker] = direction === 'pull' ? [there, here] : [here, there]
      await checkPassed(giver, taker, { resource, ...position, direction })
    }
  }
}

type Passed = {
  readonly resource: string
  readonly xact: string
  readonly recordId: string
  readonly direction: string
}

async function checkPassed(giver: SimSite, taker: SimSite, at: Passed): Promise<void> {
  const { rows } = await giver.app.query<{ id: string; origin: string; clock: string }>(PASSED, [
    at.resource,
    at.xact,
    at.recordId,
    taker.name,
  ])
  if (rows.length === 0) return
  const known = await knowledgeOf(taker)
  const waiting = new Set((await waitingAt(taker)).map(({ resource, id }) => `${resource} ${id}`))
  // What a person is asked about is known by the version that waits.
  const asked = (await conflictsAt(taker)).filter(({ open }) => open)
  const isAsked = (name: string, origin: string, clock: string) =>
    asked.some(({ resource, recordId, theirs }) => {
      const seen = theirs.origin === origin ? theirs.clock : (theirs.seen?.[origin] ?? 0)
      return `${resource} ${recordId}` === name && BigInt(seen) >= BigInt(clock)
    })
  for (const { id, origin, clock } of rows) {
    const name = `${at.resource} ${id}`
    if (waiting.has(name) || isAsked(name, origin, clock) || (known.get(`${name} of ${origin}`) ?? 0n) >= BigInt(clock))
      continue
    throw new Finding(
      `passed: the ${at.direction} checkpoint between ${giver.name} and ${taker.name} is behind ${name} (${clock} of ${origin}), which ${taker.name} has not`,
    )
  }
}

/** I7: only what did not know of each other is a conflict. */
export async function checkConflicts(sites: readonly SimSite[], oracle: Oracle): Promise<void> {
  for (const site of sites) {
    for (const { resource, recordId: id, ours, theirs, waits } of await conflictsAt(site)) {
      if (waits) continue
      const [mine, other] = [ours, theirs].map(({ origin, clock }) =>
        oracle.byDot({ resource, id, origin, clock: String(clock) }),
      )
      if (mine === undefined || other === undefined) continue
      if (oracle.isBefore(mine, other) || oracle.isBefore(other, mine)) {
        throw new Finding(
          `no conflict: ${site.name} asks about ${tell(mine)} and ${tell(other)}, of which one had seen the other`,
        )
      }
    }
  }
}

/** I1, I3, I6: sites at rest are equal, and what they hold is what was written. */
export async function checkRest(sites: readonly SimSite[], oracle: Oracle, newest: boolean): Promise<void> {
  const holdings: Holding[] = []
  for (const site of sites) holdings.push(await holdingOf(site))
  const [first] = sites
  if (first === undefined) return
  const content = await contentOf(first)
  const versions = await versionsOf(first)
  for (const site of sites) {
    const stray = await strays(site)
    if (stray.length > 0) throw new Finding(`strays: at ${site.name} row and record of ${stray.join(', ')} disagree`)
    const [other, otherVersions] = [await contentOf(site), await versionsOf(site)]
    differ('content', first, content, site, other)
    differ('versions', first, versions, site, otherVersions)
  }
  const faults = oracle.judge(holdings, newest)
  if (faults.length > 0) throw new Finding(faults.join('\n  '))
}

async function versionsOf(site: SimSite): Promise<readonly string[]> {
  return (await recordsOf(site.app)).map(
    ({ resource, id, origin, clock, deleted }) => `${resource} ${id} ${clock} of ${origin}${deleted ? ' deleted' : ''}`,
  )
}

function differ(what: string, first: SimSite, a: readonly string[], site: SimSite, b: readonly string[]): void {
  const left = a.filter((line) => !b.includes(line))
  const right = b.filter((line) => !a.includes(line))
  if (left.length + right.length === 0) return
  throw new Finding(
    `diverged in ${what}:\n  ${first.name}: ${left.join(`\n  ${first.name}: `)}\n  ${site.name}: ${right.join(`\n  ${site.name}: `)}`,
  )
}

/** What differs between two sites by comparing everything that lives, and of which records one of them knows that they wait. */
export type Comparison = {
  readonly differ: readonly { readonly id: string; readonly onlyHere: boolean }[]
  readonly waits: readonly string[]
}

export async function fullComparison(here: SimSite, there: SimSite): Promise<ReadonlyMap<string, Comparison>> {
  const [ours, theirs] = [await recordsOf(here.app), await recordsOf(there.app)]
  const found = new Map<string, Comparison>()
  for (const name of RESOURCES) {
    const living = (records: typeof ours) =>
      new Map(
        records
          .filter(({ resource, deleted }) => resource === name && !deleted)
          .map((each) => [each.id, `${each.origin} ${each.clock}`]),
      )
    const [a, b] = [living(ours), living(theirs)]
    const ids = [...new Set([...a.keys(), ...b.keys()])].filter((id) => a.get(id) !== b.get(id))
    const waits: string[] = []
    for (const site of [here, there]) {
      for (const { resource, id } of await waitingAt(site)) if (resource === name) waits.push(id)
      for (const { resource, recordId, open } of await conflictsAt(site))
        if (resource === name && open) waits.push(recordId)
    }
    found.set(name, { differ: ids.map((id) => ({ id, onlyHere: !b.has(id) })), waits })
  }
  return found
}
