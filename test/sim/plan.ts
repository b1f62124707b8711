/** What a seed makes happen: sites, links, policy, and a list of actions. Each action draws from a stream of its own, so that one can be left out and the others stay. */

import type { Weather } from './network.ts'
import { type Operation, operationOf } from './operations.ts'
import { type Random, randomOf } from './random.ts'

export type Link = { readonly here: number; readonly there: number; readonly mode: 'both' | 'pull' }

export type Shape = {
  readonly seed: string
  readonly sites: number
  readonly topology: 'pair' | 'chain' | 'star' | 'ring' | 'mesh'
  readonly links: readonly Link[]
  readonly policy: 'newer' | 'master' | 'ask' | 'merge'
  readonly master: number
  readonly batchRows: readonly number[]
  readonly weather: Weather
  readonly actions: readonly Action[]
}

export type Action = { readonly n: number; readonly site: number; readonly gap: number; readonly pauseMs: number } & (
  | { readonly do: 'write'; readonly operations: readonly Operation[] }
  | { readonly do: 'begin'; readonly operation: Operation; readonly meanwhile: Operation }
  | { readonly do: 'end'; readonly commit: boolean }
  | { readonly do: 'run'; readonly link: number; readonly back: boolean }
  | { readonly do: 'crash'; readonly down: number }
  | { readonly do: 'part'; readonly link: number; readonly length: number }
  | { readonly do: 'clock'; readonly skewMs: number }
  | { readonly do: 'house' | 'dump' | 'restore' | 'quiet' | 'look' | 'verify' | 'resolve' | 'column' }
)

const WEIGHTS = {
  write: 52,
  begin: 5,
  end: 6,
  run: 34,
  crash: 5,
  part: 3,
  clock: 3,
  dump: 3,
  restore: 2.5,
  quiet: 2,
  look: 4,
  verify: 4,
  resolve: 3,
  house: 5,
  column: 0.8,
}
export type ActionName = keyof typeof WEIGHTS

const FIRST_WRITES = 5
const DAY_MS = 86_400_000
const JUMPS_MS = [
  -30 * DAY_MS,
  -2 * DAY_MS,
  -DAY_MS / 24,
  -60_000,
  -1,
  0,
  0,
  1,
  60_000,
  DAY_MS / 24,
  DAY_MS,
  45 * DAY_MS,
]

/** Narrows what a seed draws, to look into something or to keep CI short. */
export type Wishes = {
  readonly actions?: number | undefined
  readonly without?: readonly ActionName[] | undefined
  /** Only these actions, by number. */
  readonly keep?: ReadonlySet<number> | undefined
  readonly policy?: Shape['policy'] | undefined
  readonly topology?: Shape['topology'] | undefined
}

export function planOf(seed: string, wishes: Wishes = {}): Shape {
  const random = randomOf(seed, 'shape')
  const sites = random.pick([2, 2, 2, 2, 3, 3, 3, 3, 3, 4, 5])
  const drawn = random.pick(['chain', 'star', 'ring', 'ring', 'mesh'] as const)
  const topology = sites === 2 ? 'pair' : (wishes.topology ?? drawn)
  const links = linksOf(topology, sites, random)
  const policy = random.pick(['newer', 'newer', 'master', 'ask', 'merge'] as const)
  const rough = random.pick([0, 0.02, 0.06, 0.12])
  const count = wishes.actions ?? random.pick([30, 45, 70])
  const all = Array.from({ length: count }, (_, n) => actionOf(seed, n, sites, links.length))
  const actions = all.filter(
    (action) => wishes.keep?.has(action.n) !== false && wishes.without?.includes(action.do) !== true,
  )
  return {
    seed,
    sites,
    topology,
    links,
    policy: wishes.policy ?? policy,
    master: random.below(sites),
    batchRows: Array.from({ length: sites }, () => random.pick([1, 2, 3, 5, 100])),
    weather: { refuse: rough, lose: rough, cut: rough, repeat: rough },
    actions,
  }
}

function linksOf(topology: Shape['topology'], sites: number, random: Random): readonly Link[] {
  const pairs: [number, number][] = []
  for (let here = 0; here < sites; here++) {
    if (topology === 'star' && here > 0) pairs.push([here, 0])
    if ((topology === 'chain' || topology === 'pair' || topology === 'ring') && here > 0) pairs.push([here - 1, here])
    if (topology === 'mesh') for (let there = here + 1; there < sites; there++) pairs.push([here, there])
  }
  if (topology === 'ring') pairs.push([sites - 1, 0])
  const way = random.pick(['one', 'one', 'both pull', 'both'] as const)
  return pairs.flatMap(([a, b]) => {
    const [here, there] = random.chance(0.5) ? [a, b] : [b, a]
    if (way === 'one') return [{ here, there, mode: 'both' as const }]
    const mode = way === 'both' ? 'both' : 'pull'
    return [{ here, there, mode } as const, { here: there, there: here, mode } as const]
  })
}

function actionOf(seed: string, n: number, sites: number, links: number): Action {
  const random = randomOf(seed, 'action', n)
  // Something has to be there first.
  const name = n < FIRST_WRITES ? 'write' : random.weighted(WEIGHTS)
  // Mostly the actions fall into the middle of runs.
  const gap = random.pick([0, 1, 3, 10, 30, 80, 200])
  const base = { n, site: random.below(sites), gap, pauseMs: 1 + random.below(random.chance(0.2) ? 200_000 : 3_000) }
  switch (name) {
    case 'write':
      return { ...base, do: name, operations: Array.from({ length: 1 + random.below(3) }, () => operationOf(random)) }
    case 'begin': {
      const kind = random.pick(['putPlace', 'putVisit', 'putTag'] as const)
      return { ...base, do: name, operation: operationOf(random, kind), meanwhile: operationOf(random, kind) }
    }
    case 'end':
      return { ...base, do: name, commit: random.chance(0.7) }
    case 'run':
      return { ...base, do: name, link: random.below(links), back: random.chance(0.5) }
    case 'crash':
      return { ...base, do: name, down: random.below(8) }
    case 'part':
      return { ...base, do: name, link: random.below(links), length: 2 + random.below(15) }
    case 'clock':
      return { ...base, do: name, skewMs: random.pick(JUMPS_MS) }
    default:
      return { ...base, do: name }
  }
}
