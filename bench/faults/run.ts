/** One scenario against one system: open, act, heal, settle, compare everything. */
import { setTimeout as sleep } from 'node:timers/promises'
import type { Contest, Member, Rival, Scenario, System } from './contest.ts'
import { canonical, type Evidence, judge, Oracle, type State, type Verdict } from './judge.ts'

const SEED = 20_261_122
/** Longest wait for a system to become quiet. */
const SETTLE_MS = 25_000
/** Longest time of one scenario; a system that has not come to an end by then could not go on. */
const SCENARIO_MS = 120_000

export type Outcome =
  | { readonly kind: 'verdict'; readonly verdict: Verdict; readonly seconds: number }
  | { readonly kind: 'none'; readonly reason: string }
  /** The system could not even be brought into the situation; counts as stuck. */
  | { readonly kind: 'broken'; readonly reason: string; readonly seconds: number }

/** `seed` decides what is left to chance: when a program is killed, which record is next. */
export async function runScenario(rival: Rival, scenario: Scenario, seed = SEED): Promise<Outcome> {
  const missing = scenario.shape.needs.find((need) => rival.without[need] !== undefined)
  if (missing !== undefined) return { kind: 'none', reason: rival.without[missing] ?? '' }
  const started = performance.now()
  const seconds = () => (performance.now() - started) / 1000
  let system: System | undefined
  const play = async (): Promise<Outcome> => {
    system = await rival.open(scenario.shape)
    const contest = contestOf(system, seed)
    await scenario.act(contest)
    await scenario.heal?.(contest)
    await contest.settle()
    const verdict = judge(contest.oracle, await evidenceOf(system, contest.oracle))
    return { kind: 'verdict', verdict, seconds: seconds() }
  }
  const limit = new AbortController()
  try {
    return await Promise.race([play(), endOf(limit.signal)])
  } catch (error) {
    return { kind: 'broken', reason: error instanceof Error ? error.message : String(error), seconds: seconds() }
  } finally {
    limit.abort()
    await system?.close()
  }
}

async function endOf(signal: AbortSignal): Promise<never> {
  await sleep(SCENARIO_MS, undefined, { signal, ref: false }).catch(() => {})
  throw new Error(`came to no end within ${SCENARIO_MS / 1000} s`)
}

async function evidenceOf(system: System, oracle: Oracle): Promise<Evidence> {
  const sites = await Promise.all(
    system.members.map(async ({ name, contents }) => ({ name, contents: await contents() })),
  )
  const kept = new Map<string, string>()
  for (const [key, { oneOf }] of oracle.expected) if (oneOf.length > 1) kept.set(key, await system.kept(key))
  return { sites, waiting: await system.waiting(), kept, saysEqual: await system.saysEqual() }
}

/** Every site's contents as one text each: equal texts, equal contents. */
async function fingerprints(members: readonly Member[]): Promise<readonly string[]> {
  return Promise.all(
    members.map(async (member) =>
      [...(await member.contents())]
        .map(([key, state]) => `${key} ${canonical(state)}`)
        .sort()
        .join('\n'),
    ),
  )
}

function contestOf(system: System, seed: number): Contest {
  const oracle = new Oracle()
  const { members } = system
  const member = (index: number): Member => {
    const found = members[index]
    if (found === undefined) throw new Error(`there is no site ${index}`)
    return found
  }
  const stateAt: Contest['stateAt'] = async (at, key) => (await at.contents()).get(key) ?? null
  const confirm: Contest['confirm'] = async (at, ...keys) => {
    const contents = await at.contents()
    for (const key of keys) oracle.wrote(key, contents.get(key) ?? null)
  }
  const settle = async () => {
    const deadline = performance.now() + SETTLE_MS
    let before = ''
    for (let quiet = 0; quiet < system.quietRounds && performance.now() < deadline; ) {
      const done = await system.round()
      const all = await fingerprints(members)
      const now = all.join('\n--\n')
      const equal = new Set(all).size === 1
      quiet = now === before ? quiet + 1 : 0
      before = now
      // A system that reports failure although nothing moves gets the whole bound only while the sites differ.
      if (done && equal && quiet > 0) return
      if (!done) await sleep(200)
    }
  }
  const apart: Contest['apart'] = async (work) => {
    await system.part()
    await work()
    await system.join()
  }
  let state = seed
  return {
    system,
    oracle,
    get a() {
      return member(0)
    },
    get b() {
      return member(1)
    },
    get c() {
      return member(2)
    },
    put: async (at, table, id, values) => {
      await at.put(table, id, values)
      await confirm(at, `${table}/${id}`)
    },
    remove: async (at, table, id) => {
      await at.remove(table, id)
      oracle.removed(`${table}/${id}`)
    },
    race: (table, id, writes) =>
      apart(async () => {
        const key = `${table}/${id}`
        const oneOf: { state: State; mark?: string }[] = []
        for (const [at, values, mark] of writes) {
          await (values === null ? at.remove(table, id) : at.put(table, id, values))
          oneOf.push({ state: await stateAt(at, key), ...(mark !== undefined && { mark }) })
        }
        oracle.raced(key, oneOf)
      }),
    apart,
    confirm,
    stateAt,
    settle,
    mustFlow: async (...keys) => {
      const all = await Promise.all(members.map((each) => each.contents()))
      for (const key of keys) {
        const states = all.map((contents) => canonical(contents.get(key) ?? null))
        if (new Set(states).size > 1 || states[0] === 'nothing')
          oracle.saw(
            'stuck',
            `${key}, which has nothing to do with the fault, did not pass while another record waited`,
          )
      }
    },
    noOrphans: async (child, column, parent) => {
      for (const each of members) {
        const rows = await each.sql(
          `select c.id from ${child} c where c.${column} is not null and not exists (select from ${parent} p where p.id = c.${column})`,
        )
        for (const row of rows)
          oracle.saw('diverged', `${child}/${row.id} stood at ${each.name} without its parent, against the foreign key`)
      }
    },
    chance: (below) => {
      state = (Math.imul(state, 1_664_525) + 1_013_904_223) >>> 0
      return Math.floor((state / 2 ** 32) * below)
    },
  }
}
