import { type Store, servableHeads } from '../store/index.ts'

export type Heads = ReadonlyMap<string, string>

/** Waits for changes that peers could pull. However many wait, the database is asked once in a while for all of them together. */
export type Watch = {
  /** Where the change orders stand now. */
  readonly heads: (resources: readonly string[]) => Promise<Heads>
  /** Resolves with the new heads as soon as one of those in `since` moved; with null when the time is over or `signal` aborts. */
  readonly moved: (since: Heads, timeoutMs: number, signal: AbortSignal) => Promise<Heads | null>
}

type Waiter = { readonly since: Heads; readonly wake: (heads: Heads) => void }

const POLL_MS = 300

export function createWatch(store: Store): Watch {
  const waiters = new Set<Waiter>()
  let polling = false

  const poll = async () => {
    const names = [...new Set([...waiters].flatMap((waiter) => [...waiter.since.keys()]))]
    // A database that is gone for a moment makes everybody wait a little longer; their time is bounded.
    const heads = await servableHeads(store.db, names).catch(() => null)
    for (const waiter of heads === null ? [] : waiters) {
      const moved = [...waiter.since].some(([name, head]) => heads?.get(name) !== head)
      if (moved && heads !== null)
        waiter.wake(new Map([...waiter.since.keys()].map((name) => [name, heads.get(name) ?? '0'])))
    }
    schedule()
  }
  const schedule = () => {
    polling = waiters.size > 0
    if (polling) setTimeout(() => void poll(), POLL_MS).unref()
  }

  return {
    heads: (resources) => servableHeads(store.db, resources),
    moved: (since, timeoutMs, signal) =>
      new Promise((resolve) => {
        const end = (heads: Heads | null) => {
          clearTimeout(timer)
          signal.removeEventListener('abort', stop)
          waiters.delete(waiter)
          resolve(heads)
        }
        const stop = () => end(null)
        const timer = setTimeout(stop, timeoutMs)
        const waiter = { since, wake: end }
        waiters.add(waiter)
        signal.addEventListener('abort', stop, { once: true })
        if (signal.aborted) stop()
        else if (!polling) schedule()
      }),
  }
}

/** Places for answers that wait, so that waiting peers cannot use up the server. */
export type Seats = { readonly take: (peerId: number) => (() => void) | null }

export function createSeats(max: number, perPeerMax: number): Seats {
  const taken = new Map<number, number>()
  let all = 0
  return {
    take: (peerId) => {
      const own = taken.get(peerId) ?? 0
      if (all >= max || own >= perPeerMax) return null
      all += 1
      taken.set(peerId, own + 1)
      let held = true
      return () => {
        if (!held) return
        held = false
        all -= 1
        const left = (taken.get(peerId) ?? 1) - 1
        if (left === 0) taken.delete(peerId)
        else taken.set(peerId, left)
      }
    },
  }
}
