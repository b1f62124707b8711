import { setTimeout as sleep } from 'node:timers/promises'

/** The longest time that a timer of Node takes; a longer one would fire at once. */
const LONGEST_MS = 2 ** 31 - 1

/** Does `work` after any time, also after months. Gives what calls that off. */
export function after(ms: number, work: () => void): () => void {
  let timer: NodeJS.Timeout
  const until = performance.now() + ms
  const arm = () => {
    const left = until - performance.now()
    timer = setTimeout(left > LONGEST_MS ? arm : work, Math.min(Math.max(left, 0), LONGEST_MS))
  }
  arm()
  return () => clearTimeout(timer)
}

/** Lets any time pass. Throws the reason of the signal. */
export async function longSleep(ms: number, signal: AbortSignal): Promise<void> {
  for (let left = ms; left > 0; left -= LONGEST_MS) await sleep(Math.min(left, LONGEST_MS), undefined, { signal })
}
