/** The end of a seed: everything works again, time passes, persons do what waits for them, and sites come to rest. */
import { mend } from './application.ts'
import { checkRest } from './check.ts'
import { contentOf, type Waiting, waitingAt } from './inspect.ts'
import { machine } from './machine.ts'
import { FAIR, network } from './network.ts'
import { OTHERS, PROBES } from './operations.ts'
import { Finding, shorten } from './oracle.ts'
import type { SimSite } from './site.ts'
import {
  addColumn,
  drain,
  endLate,
  look,
  resolveOne,
  revive,
  startHousekeeping,
  startRun,
  verify,
  type World,
} from './world.ts'

const ROUNDS_MAX = 25
const HELPS_MAX = 40
const DECISIONS_MAX = 30
const BELIEVED_MS = 300_000
const DAY_MICROS = 86_400_000_000

export async function heal(world: World): Promise<void> {
  const { sites, tell } = world
  tell('healing')
  world.apart.clear()
  network.setWeather(FAIR)
  for (const site of sites) {
    const said = await endLate(world, site, site.index % 2 === 0)
    if (said !== null) tell(`  ${site.name} end: ${said}`)
    await revive(world, site)
  }
  await drain(world)
  // One site has changed its table, so that all will.
  if (world.shape.actions.some((action) => action.do === 'column')) {
    for (const site of sites) await addColumn(world, site)
    await drain(world)
  }
  await look(world)
  await setClocksRight(world)
  for (let helps = 0; ; helps++) {
    await syncUntilQuiet(world)
    if ((await needs(world)) !== '') {
      await keepHouses(world, false)
      await syncUntilQuiet(world)
    }
    await look(world)
    if (!(await helpOnce(world))) break
    if (helps === HELPS_MAX) throw new Finding(`stuck: persons are needed again and again: ${await needs(world)}`)
  }
  await checkRest(sites, world.oracle, newest(world))
  await keepHouses(world, true)
  await look(world)
  await verify(world, world.shape.actions.length)
  await probe(world)
}

/** By policy `newer` the newest wins; where clocks were wrong by more than sites believe each other, cause and effect go before it. */
function newest({ shape }: World): boolean {
  const wrong = shape.actions.some((action) => action.do === 'clock' && Math.abs(action.skewMs) > BELIEVED_MS)
  return shape.policy === 'newer' && !wrong
}

async function keepHouses(world: World, prune: boolean): Promise<void> {
  for (const site of world.sites) startHousekeeping(world, site, prune)
  await drain(world)
}

/** All clocks show the same time, later than any of them did. */
async function setClocksRight(world: World): Promise<void> {
  for (const { name } of world.sites) machine.setSkew(name, 0)
  await tomorrow(world, machine.aheadMost())
}

async function tomorrow({ sites }: World, more = 0): Promise<void> {
  machine.advance(more + DAY_MICROS)
  for (const site of sites) await site.app.query(`select setval('sim.clock', ${machine.clockOf(site.name)})`)
}

/** Runs every link in turn until a whole round moves nothing. */
async function syncUntilQuiet(world: World): Promise<number> {
  let moved = 0
  for (let round = 0; round < ROUNDS_MAX; round++) {
    const before = network.lines
    for (const link of world.shape.links) {
      startRun(world, link)
      await drain(world)
    }
    if (network.lines === before) return moved
    moved += network.lines - before
    await tomorrow(world)
  }
  throw new Finding(`never quiet: after ${ROUNDS_MAX} rounds changes still travel`)
}

/** What waits for a person gets one. True when there was something to do. */
async function helpOnce(world: World): Promise<boolean> {
  for (const site of world.sites) {
    // All that stands on the desk of one site, before anybody hears of it.
    let decided = 0
    for (; decided < DECISIONS_MAX; decided++) {
      const said = await resolveOne(world, site, site.index)
      if (said === null) break
      world.tell(`  a person at ${site.name} decides: ${said}`)
    }
    if (decided > 0) return true
  }
  // A decision that cannot be written at another site stands on the desk there, so that no order of the two makes them go on for ever.
  for (const site of world.sites) {
    for (const waiting of await waitingAt(site)) {
      const cure = await cureOf(site, waiting)
      if (cure === null) continue
      const said = await mend(site.app, site.name, cure, world.oracle)
      world.tell(
        `  a person at ${site.name} mends ${waiting.code} of ${waiting.resource} ${shorten(waiting.id)}: ${said}`,
      )
      await tomorrow(world)
      return true
    }
  }
  const rest = await needs(world)
  if (rest !== '') throw new Finding(`stuck: ${rest}`)
  return false
}

async function needs({ sites }: World): Promise<string> {
  const all: string[] = []
  for (const site of sites) {
    for (const { resource, id, code, reason, waitsId } of await waitingAt(site))
      all.push(`${site.name}: ${resource} ${shorten(id)} ${code} ${reason} ${waitsId ?? ''}`)
  }
  return all.join('\n  ')
}

async function cureOf(site: SimSite, waiting: Waiting): Promise<readonly string[] | null> {
  const { code, resource, id, columns, payload, waitsId } = waiting
  if (code === 'SYNC_RECORD_CONSTRAINT') {
    const unique = resource === 'place' ? 'code' : 'slot'
    const value = (JSON.parse(payload) as unknown[])[columns.indexOf(unique)]
    const { rows } = await site.app.query(`select from ${resource} where ${unique} = $1`, [value])
    return rows.length === 0
      ? null
      : [`update ${resource} set ${unique} = null, label = $word where ${unique} = '${value}'`]
  }
  if (code === 'SYNC_RECORD_PARENT_MISSING' && waitsId !== null) {
    const { rows } = await site.app.query('select from place where key = $1', [waitsId])
    const waitsToo = (await waitingAt(site)).some((other) => other.resource === 'place' && other.id === waitsId)
    return rows.length > 0 || waitsToo ? null : [`insert into place (key, label) values ('${waitsId}', $word)`]
  }
  if (code === 'SYNC_RECORD_STILL_REFERENCED') return [`update place set label = $word where key = '${id}'`]
  return null
}

/**
 * I4: one more change reaches every site, and on a tree it passes each link once and never goes back. I9: before it does, a comparison sees it,
 * also where one statement changed two records alike.
 */
async function probe(world: World): Promise<void> {
  const { sites, shape, oracle } = world
  const at = sites[shape.links[0]?.here ?? 0]
  if (at === undefined) return
  const put = (ids: readonly string[]) =>
    `insert into tag (id, label) values ${ids.map((id) => `('${id}', $word)`).join(', ')} on conflict (id) do update set label = excluded.label`
  const gone = `delete from tag where id in (${PROBES.map((id) => `'${id}'`).join(', ')})`
  // Other records in their place: as many, written alike.
  const steps = { insert: [put(PROBES)], 'others instead': [gone, put(OTHERS)], update: [put(OTHERS)] }
  for (const [what, statements] of Object.entries(steps)) {
    world.tell(`probe by ${what} at ${at.name}: ${await mend(at.app, at.name, statements, oracle)}`)
    await verify(world, 0, false)
    const moved = await syncUntilQuiet(world)
    await checkRest(sites, oracle, newest(world))
    const links = new Set(shape.links.map(({ here, there }) => [here, there].sort().join()))
    // Where both sides of a link begin runs, each asks and tells by its own checkpoints.
    const tree = links.size === sites.length - 1 && links.size === shape.links.length
    const changes = statements.length * PROBES.length
    if (tree && moved !== links.size * changes) {
      throw new Finding(`echo: ${changes} changes of ${at.name} travelled ${moved} times over ${links.size} links`)
    }
    const content = await contentOf(at)
    const last = what === 'insert' ? PROBES : OTHERS
    if (last.some((id) => content.every((line) => !line.startsWith(`tag ${id} `))))
      throw new Finding('lost: the probe is gone')
  }
}
