/** Finds a short list of actions that still shows the same failure. */
import type { Verdict } from './simulate.ts'

/** The invariant that was broken, without the facts of the case. */
function kindOf(failure: string | null): string | null {
  return failure === null ? null : (/^[\w ]+/.exec(failure)?.[0] ?? failure)
}

/**
 * Leaves out halves, quarters and so on down to single actions, for as long as the failure stays and `deadline` (performance.now) allows.
 * `simulate` is given the numbers of the actions to keep.
 */
export async function shrink(
  simulate: (kept: readonly number[]) => Promise<Verdict>,
  first: Verdict,
  deadline: number,
): Promise<Verdict> {
  let best = first
  for (let size = Math.ceil(best.shape.actions.length / 2); size >= 1; size = size === 1 ? 0 : Math.ceil(size / 2)) {
    for (let from = 0; from < best.shape.actions.length; ) {
      if (performance.now() > deadline) return best
      const numbers = best.shape.actions.map(({ n }) => n)
      const tried = await simulate(numbers.filter((_, at) => at < from || at >= from + size))
      if (kindOf(tried.failure) === kindOf(first.failure)) best = tried
      else from += size
    }
  }
  return best
}
