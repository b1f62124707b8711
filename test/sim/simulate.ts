/** One seed from its plan to its verdict. */
import type { Databases } from './cluster.ts'
import { heal } from './heal.ts'
import { lifeOf } from './inspect.ts'
import { machine } from './machine.ts'
import { network } from './network.ts'
import { Finding } from './oracle.ts'
import { planOf, type Shape, type Wishes } from './plan.ts'
import { endWorld, makeWorld, perform } from './world.ts'

export type Verdict = {
  readonly seed: string
  readonly shape: Shape
  /** The invariant that did not hold; null when all is well. */
  readonly failure: string | null
  readonly trace: readonly string[]
  readonly steps: number
  readonly requests: number
  readonly writes: number
  readonly durationMs: number
}

export async function simulate(databases: Databases, seed: string, wishes: Wishes = {}): Promise<Verdict> {
  const began = performance.now()
  const shape = planOf(seed, wishes)
  const { sites, topology, policy, links, weather, batchRows } = shape
  const trace: string[] = [
    `seed ${seed}: ${sites} sites, ${topology}, ${links[0]?.mode}, ${links.length} links, policy ${policy}, batches of ${batchRows.join(' ')}, faults ${weather.lose}`,
  ]
  const world = await makeWorld(databases, shape, (line) => trace.push(line))
  let failure: string | null = null
  try {
    for (const action of shape.actions) await perform(world, action)
    await heal(world)
  } catch (error) {
    failure = error instanceof Finding ? error.message : `the simulation failed: ${(error as Error).stack}`
    trace.push(`FOUND ${failure}`)
    const [, resource, id] = /(place|visit|tag) ([\w-]+)/.exec(failure) ?? []
    if (resource !== undefined && id !== undefined) {
      for (const site of world.sites) trace.push(...(await lifeOf(site, resource, id).catch(() => [])))
    }
  } finally {
    await endWorld(world)
  }
  const alarm = trace.find((line) => line.startsWith('  ALARM'))
  if (failure === null && alarm !== undefined) failure = alarm.trim()
  const durationMs = Math.round(performance.now() - began)
  const counts = { steps: machine.steps, requests: network.requests, writes: world.oracle.writes.length }
  return { seed, shape, failure, trace, ...counts, durationMs }
}
