/** Performs what a plan says on real sites, and tells in lines what happened. */
import { runPeer, verifyPeer } from '../../src/client/index.ts'
import { keepHouse } from '../../src/jobs/housekeeping.ts'
import { attach, findPeer, resolveConflict } from '../../src/store/index.ts'
import { beginOperation, endOperation, type Outcome, operate, resetWords } from './application.ts'
import { checkCheckpoints, checkConflicts, checkKnowledge, fullComparison, type Memory } from './check.ts'
import { type Databases, SITES, START_MICROS } from './cluster.ts'
import { conflictsAt, holdingOf, recordsOf } from './inspect.ts'
import { machine } from './machine.ts'
import { FAIR, network } from './network.ts'
import { createOracle, Finding, type Oracle, shorten } from './oracle.ts'
import type { Action, Link, Shape } from './plan.ts'
import {
  type Alarm,
  crash,
  disconnectApplication,
  keepDump,
  LIMITS,
  makeSite,
  type Program,
  restoreDump,
  type SimSite,
  setClock,
  startProgram,
} from './site.ts'

export type World = {
  readonly shape: Shape
  readonly sites: readonly SimSite[]
  readonly oracle: Oracle
  readonly databases: Databases
  readonly memory: Memory
  readonly tell: (line: string) => void
  readonly alarm: Alarm
  /** Transactions that stay open, by site. */
  readonly late: Map<string, Outcome>
  /** Copies of databases as they were, by site. */
  readonly dumps: Map<string, string>
  readonly down: Map<string, number>
  readonly apart: Map<Link, number>
}

/** More steps than any plan takes: somebody goes round in circles. */
const STEPS_MAX = 60_000
/** Clocks jump by more. */
const TOMBSTONE_DAYS = 20
let worlds = 0

export async function makeWorld(databases: Databases, shape: Shape, tell: (line: string) => void): Promise<World> {
  machine.begin(shape.seed, START_MICROS, databases.control)
  network.begin(shape.seed, (text) => tell(`    ${text}`))
  resetWords()
  const prefix = `world_${process.pid}_${++worlds}`
  const sites: SimSite[] = []
  for (let index = 0; index < shape.sites; index++) {
    sites.push(await makeSite(databases, prefix, index, shape.batchRows[index] ?? 100))
  }
  const alarm: Alarm = (site, what) => tell(`  ALARM at ${site}: ${what}`)
  const world: World = {
    ...{ shape, sites, databases, tell, alarm, oracle: createOracle() },
    ...{ memory: new Map(), late: new Map(), dumps: new Map(), down: new Map(), apart: new Map() },
  }
  for (const site of sites) {
    await setRules(world, site)
    await startProgram(databases, site, alarm)
  }
  network.setWeather(shape.weather)
  network.setParted((a, b) => [...world.apart.keys()].some((link) => joins(world, link, a, b)))
  return world
}

export async function endWorld({ sites, databases, dumps }: World): Promise<void> {
  for (const site of sites) {
    await crash(databases, site)
    await disconnectApplication(site).catch(() => {})
    await databases.drop(site.database)
  }
  for (const dump of dumps.values()) await databases.drop(dump)
}

/** Forgets peers that the plan does not link, and makes the tasks of those that it does. */
async function setRules({ shape }: World, site: SimSite): Promise<void> {
  const own = shape.links.filter((link) => link.here === site.index || link.there === site.index)
  const linked = own.map((link) => SITES[link.here === site.index ? link.there : link.here] ?? '')
  const master = `(select uuid from syncline.peer where name = '${SITES[shape.master]}' union select uuid from syncline.self where name = '${SITES[shape.master]}')`
  const rules = `on_conflict = '${shape.policy}', master = ${shape.policy === 'master' ? master : 'null'}`
  await site.app.query(`update syncline.peer_grant set ${rules}`)
  for (const link of own.filter(({ here }) => here === site.index)) {
    await site.app.query(
      `insert into syncline.task (peer_id, resource_id, mode) select p.id, r.id, $2 from syncline.peer p, syncline.resource r where p.name = $1`,
      [SITES[link.there], link.mode],
    )
  }
  await site.app.query(`update syncline.task set ${rules}`)
  await site.app.query('delete from syncline.peer where name <> all($1)', [linked])
}

function joins({ sites }: World, link: Link, a: string, b: string): boolean {
  const ends = [sites[link.here]?.name, sites[link.there]?.name]
  return ends.includes(a) && ends.includes(b)
}

let serial = 0

/** Begins something that the program of a site does, beside all else. */
export function start(world: World, site: SimSite, what: string, work: (program: Program) => Promise<string>): void {
  const { program } = site
  if (program === null) return
  const actor = `${what} ${++serial}`
  const done = machine.run({ process: program.process, actor }, async () => work(program))
  done.then(
    (text) => world.tell(`  ${site.name}: ${what}: ${text}`),
    (error: { code?: string; message?: string; stack?: string }) => {
      if (!program.process.alive) return
      world.tell(`  ${site.name}: ${what} failed: ${error.code ?? error.stack} ${error.message}`)
    },
  )
}

/** Lets everything that is under way come to its end. */
export async function drain({ late }: World): Promise<void> {
  for (let steps = 0; ; steps++) {
    if (steps > STEPS_MAX) throw new Finding(`without end: ${machine.under().slice(0, 10).join('; ')}`)
    if (await machine.step()) continue
    // Who waits for a transaction of the application that stays open goes on waiting.
    if (late.size > 0 || !(await machine.breakDeadlock())) return
  }
}

export function startRun(world: World, link: Link): void {
  const [here, there] = [world.sites[link.here], world.sites[link.there]]
  if (here === undefined || there === undefined) return
  start(world, here, `run with ${there.name}`, async ({ store, runner }) => {
    const report = await runPeer(runner, await findPeer(store.db, there.name), { cause: 'hand' })
    const { result, code, message, counts } = report
    // Transaction numbers, which checkpoints hold, may have a digit more another time.
    const numbers = Object.entries(counts).filter(([name, count]) => count > 0 && !name.startsWith('bytes'))
    return `${result} ${code ?? ''} ${message ?? ''} ${numbers.map(([name, count]) => `${name} ${count}`).join(', ')}`
  })
}

/** What a site does by itself from time to time. History is kept for ever: it shows what lost. */
export function startHousekeeping(world: World, site: SimSite, prune: boolean): void {
  start(world, site, 'housekeeping', async ({ runner, observe }) => {
    const days = { logDays: 100_000, historyDays: 100_000, tombstoneDays: TOMBSTONE_DAYS }
    await keepHouse({ ...runner, ...days, events: observe.events }, { prune, horizonOldSeconds: 300 })
    return prune ? 'done, with tombstones' : 'done'
  })
}

/** A table gets one more column, and is attached again. */
export async function addColumn(world: World, site: SimSite): Promise<string | null> {
  if (site.program === null || world.late.has(site.name)) return null
  try {
    await site.app.query('alter table tag add column if not exists note text')
  } catch (error) {
    return `refused: ${(error as Error).message}`
  }
  start(world, site, 'attach tag again', async ({ store }) => {
    const [resource] = await attach(store, [{ table: 'tag' }])
    return resource?.columns.map(({ name }) => name).join(', ') ?? ''
  })
  return 'tag has a note'
}

/** One action of the plan, after some steps of what is under way. */
export async function perform(world: World, action: Action): Promise<void> {
  for (let step = 0; step < action.gap && (await machine.step()); step++);
  await machine.settle()
  machine.advance(action.pauseMs * 1_000)
  await passTime(world)
  const site = world.sites[action.site]
  if (site === undefined) return
  const head = `#${action.n} ${site.name} ${action.do}`
  const said = await act(world, site, action)
  if (said !== null) world.tell(`${head}: ${said}`)
}

async function passTime(world: World): Promise<void> {
  for (const site of world.sites) {
    await setClock(site)
    const down = world.down.get(site.name)
    if (down === undefined) continue
    if (down > 0) world.down.set(site.name, down - 1)
    else await revive(world, site)
  }
  for (const [link, left] of world.apart) {
    if (left > 0) world.apart.set(link, left - 1)
    else world.apart.delete(link)
  }
}

export async function revive(world: World, site: SimSite): Promise<void> {
  world.down.delete(site.name)
  if (site.program !== null) return
  await startProgram(world.databases, site, world.alarm)
  world.tell(`  ${site.name} starts`)
}

async function act(world: World, site: SimSite, action: Action): Promise<string | null> {
  const { oracle, late, databases, dumps } = world
  switch (action.do) {
    case 'write': {
      const said: string[] = []
      for (const each of action.operations)
        said.push(`${each.kind}: ${await operate(site.app, site.name, each, oracle)}`)
      return said.join('; ')
    }
    case 'begin': {
      if (late.has(site.name)) return null
      const outcome = await beginOperation(site.late, site.name, action.operation, oracle)
      if (outcome.text.startsWith('refused')) return outcome.text
      late.set(site.name, outcome)
      // What commits meanwhile goes on its way at once: the open transaction must not be passed by it.
      const meanwhile = await operate(site.app, site.name, action.meanwhile, oracle)
      const own = world.shape.links.filter(({ here, there }) => here === site.index || there === site.index)
      const link = own[action.n % own.length]
      if (link !== undefined) startRun(world, link)
      return `${outcome.text}, and meanwhile: ${meanwhile}`
    }
    case 'end':
      return endLate(world, site, action.commit)
    case 'run': {
      const link = world.shape.links[action.link]
      if (link !== undefined) startRun(world, link)
      return null
    }
    case 'crash':
      await crash(databases, site)
      world.down.set(site.name, action.down)
      return `down for ${action.down}`
    case 'part': {
      const link = world.shape.links[action.link]
      if (link === undefined) return null
      world.apart.set(link, action.length)
      return `${world.sites[link.here]?.name} and ${world.sites[link.there]?.name} for ${action.length}`
    }
    case 'clock':
      machine.setSkew(site.name, action.skewMs * 1_000)
      await setClock(site)
      return `${action.skewMs / 3_600_000} hours off`
    case 'dump':
      return dump(world, site)
    case 'restore':
      return restore(world, dumps.has(site.name) ? site : world.sites.find(({ name }) => dumps.has(name)))
    case 'quiet':
      await drain(world)
      return null
    case 'look':
      await look(world)
      return null
    case 'verify':
      return verify(world, action.n)
    case 'resolve':
      await drain(world)
      return resolveOne(world, site, action.n)
    case 'house':
      startHousekeeping(world, site, action.n % 2 === 0)
      return null
    case 'column':
      return addColumn(world, site)
    default:
      return action satisfies never
  }
}

export async function endLate(world: World, site: SimSite, commit: boolean): Promise<string | null> {
  const outcome = world.late.get(site.name)
  if (outcome === undefined) return null
  world.late.delete(site.name)
  return endOperation(site.late, world.oracle, outcome, commit)
}

async function dump(world: World, site: SimSite): Promise<string> {
  const { databases, dumps } = world
  await crash(databases, site)
  await endLate(world, site, false)
  const name = `${site.database}_dump`
  if (dumps.has(site.name)) await databases.drop(name)
  await keepDump(databases, site, name)
  dumps.set(site.name, name)
  await revive(world, site)
  return 'kept'
}

async function restore(world: World, site: SimSite | undefined): Promise<string | null> {
  const { databases, dumps } = world
  const name = dumps.get(site?.name ?? '')
  if (site === undefined || name === undefined) return null
  await crash(databases, site)
  await endLate(world, site, false)
  await restoreDump(databases, site, name)
  await revive(world, site)
  const holdings = []
  for (const each of world.sites) holdings.push(await holdingOf(each))
  return `${site.name} is put back to its dump; ${world.oracle.forgive(holdings)} writes are nowhere any more`
}

/** What must hold at any moment. */
export async function look(world: World): Promise<void> {
  await checkKnowledge(world.sites, world.memory)
  await checkCheckpoints(world.sites)
  await checkConflicts(world.sites, world.oracle)
}

/** I9: the verdict of the program's comparison is that of a full one. */
export async function verify(world: World, n: number, deep = n % 2 === 0): Promise<string | null> {
  await drain(world)
  const link = world.shape.links[n % world.shape.links.length]
  const [here, there] = [world.sites[link?.here ?? 0], world.sites[link?.there ?? 0]]
  if (link === undefined || here?.program == null || there?.program == null || world.apart.has(link)) return null
  const { store, runner } = here.program
  const weather = network.setWeather(FAIR)
  let found: Awaited<ReturnType<typeof verifyPeer>> | undefined
  start(world, here, `verify ${there.name}`, async () => {
    const peer = await findPeer(store.db, there.name)
    found = await verifyPeer({ store, connections: runner.connections }, peer, { deep })
    return found
      .map(({ resource, equal, differing }) => `${resource} ${equal ? 'equal' : differing.map(shorten).join(' ')}`)
      .join(', ')
  })
  await drain(world)
  network.setWeather(weather)
  if (found === undefined) return null
  const full = await fullComparison(here, there)
  for (const { resource, equal, differing } of found) {
    const { differ, waits } = full.get(resource) ?? { differ: [], waits: [] }
    const counted = link.mode === 'pull' ? differ.filter(({ onlyHere }) => !onlyHere) : differ
    const ids = counted.map(({ id }) => id)
    const unnamed = ids.filter((id) => !differing.includes(id) && !waits.includes(id))
    const invented = differing.filter((id) => !ids.includes(id))
    if (equal === (ids.length === 0) && unnamed.length === 0 && invented.length === 0) continue
    throw new Finding(
      `false verdict: verify says ${resource} of ${here.name} and ${there.name} is ${equal ? 'equal' : `different in ${differing.map(shorten).join(' ')}`}; different are ${ids.map(shorten).join(' ')}, of which ${waits.map(shorten).join(' ')} wait`,
    )
  }
  return 'as a full comparison'
}

/** A person decides one open conflict. */
export async function resolveOne(world: World, site: SimSite, n: number): Promise<string | null> {
  const conflict = (await conflictsAt(site)).find(({ open }) => open)
  if (conflict === undefined || site.program === null) return null
  const { resource, recordId: id, theirs, theirLabel, theyDeleted } = conflict
  const find = async () => (await recordsOf(site.app)).find((each) => each.resource === resource && each.id === id)
  const before = await find()
  const { store, runner } = site.program
  let done = false
  // What the database refuses, such as a unique value of theirs that another row here has, is decided the other way.
  for (const choice of n % 2 === 0 ? (['ours'] as const) : (['theirs', 'ours'] as const)) {
    if (done) break
    start(world, site, `resolve ${resource} ${shorten(id)}`, async () => {
      const decision = { id: conflict.id, choice, by: 'somebody' }
      await resolveConflict(store, await runner.self(), decision, { ...LIMITS, batchRowsMax: 100 })
      done = true
      return choice
    })
    await drain(world)
  }
  const after = await find()
  if (after !== undefined && (after.origin !== before?.origin || after.clock !== before.clock)) {
    const other = {
      resource,
      id,
      origin: theirs.origin,
      clock: String(theirs.clock),
      deleted: theyDeleted,
      label: theirLabel,
    }
    world.oracle.add({ ...after, site: site.name, before, also: [other] })
  }
  return `${resource} ${shorten(id)} is ${after?.deleted ? 'deleted' : after?.label}`
}
