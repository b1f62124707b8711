/** What every rival does alike to open a system for a scenario and to end it. */
import type { Owner } from '../../../test/support/postgres.ts'
import type { Rival, Shape, System } from '../contest.ts'
import { endAll } from '../endings.ts'
import { type Clock, makeClock } from '../sql-sites.ts'

export type Holder = Owner & { readonly end: () => Promise<void> }

/** Opens a system that ends what it began where it cannot be opened. */
export async function openOrEnd(open: (owner: Holder) => Promise<System>): Promise<System> {
  const owner = endAll()
  try {
    return await open(owner)
  } catch (error) {
    await owner.end()
    throw error
  }
}

/** `open` and `end` of a rival that keeps nothing between scenarios: whatever is still open ends with it. */
export function opensWith(openSystem: (owner: Holder, shape: Shape) => Promise<System>): Pick<Rival, 'open' | 'end'> {
  const opened = endAll()
  return {
    open: (shape) =>
      openOrEnd((owner) => {
        opened.teardown(() => owner.end())
        return openSystem(owner, shape)
      }),
    end: () => opened.end(),
  }
}

/** A clock for each site, where the scenario sets clocks and the library that makes them is there; none otherwise. */
export async function clocksFor(owner: Owner, shape: Shape, library: string | undefined): Promise<readonly Clock[]> {
  if (!shape.needs.includes('clock') || library === undefined) return []
  const clocks: Clock[] = []
  for (let n = 0; n < shape.sites; n++) clocks.push(await makeClock(owner, library))
  return clocks
}
