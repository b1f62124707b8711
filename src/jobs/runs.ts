import { setTimeout as sleep } from 'node:timers/promises'
import { everyItem, findPeer, listPeers, listTasks, type Peer, type Store } from '../store/index.ts'
import { SynclineError } from '../sync/index.ts'

/** What a run leaves behind, as far as it matters for what is done next. */
export type RunOutcome = {
  readonly runId: string
  readonly result: string
  readonly cancelled: boolean
  readonly code: string | null
  /** Scheduled runs with this peer wait until then. */
  readonly retryAt: string | null
}

/** Performs one run with a peer. The client's runPeer, given by the composition root. */
export type RunPeer = (
  peer: Peer,
  options: {
    readonly resources?: readonly string[] | undefined
    readonly cause: string
    readonly signal: AbortSignal
    readonly onStarted?: ((runId: string) => void) | undefined
  },
) => Promise<RunOutcome>

export type SyncRequest = {
  readonly peer?: string | undefined
  readonly resources?: readonly string[] | undefined
  readonly cause: string
}
export type StartedRuns = { readonly runs: readonly { readonly peer: string; readonly runId: string }[] }

/** The runs of this process, whatever set them off: bounded in number, and ended together. */
export type Runs = {
  /** One run to its end. Errors: those of RunPeer. */
  readonly run: (
    peer: Peer,
    options: { readonly resources?: readonly string[]; readonly cause: string; readonly signal?: AbortSignal },
  ) => Promise<RunOutcome>
  /** Starts runs now and gives their ids. A run that is under way with the peer is waited for a little. */
  readonly syncNow: (request: SyncRequest) => Promise<StartedRuns>
  /** Cancels every run at its next safe point, lets none begin, and waits at most `timeoutMs`. */
  readonly stop: (timeoutMs: number) => Promise<void>
  readonly signal: AbortSignal
}

/** Runs of one process at once. */
const RUNS_MAX = 8
/** How long a run by hand waits for another run with the same peer. */
const WAIT_ACTIVE_MS = 10_000
const WAIT_STEP_MS = 100

export function createRuns(deps: {
  readonly store: Store
  readonly runPeer: RunPeer
  readonly onError: (error: unknown) => void
}): Runs {
  const stopping = new AbortController()
  const active = new Set<Promise<unknown>>()
  const waiting: (() => void)[] = []
  let free = RUNS_MAX

  const seat = async () => {
    if (free > 0) free -= 1
    else await new Promise<void>((resolve) => waiting.push(resolve))
  }
  const leave = () => {
    const next = waiting.shift()
    if (next === undefined) free += 1
    else next()
  }

  const begin = (
    peer: Peer,
    options: {
      readonly resources?: readonly string[] | undefined
      readonly cause: string
      /** Cancels this run alone. */
      readonly signal?: AbortSignal | undefined
    },
    onStarted?: (runId: string) => void,
  ) => {
    const work = async () => {
      await seat()
      try {
        stopping.signal.throwIfAborted()
        const { signal: own, ...rest } = options
        const signal = own === undefined ? stopping.signal : AbortSignal.any([stopping.signal, own])
        return await deps.runPeer(peer, { ...rest, signal, onStarted })
      } finally {
        leave()
      }
    }
    const done = work()
    active.add(done)
    const forget = () => active.delete(done)
    done.then(forget, forget)
    return done
  }

  /** Resolves with the run's id as soon as it has one; afterwards the run goes on by itself. */
  const start = async (peer: Peer, request: SyncRequest): Promise<string> => {
    for (const until = Date.now() + WAIT_ACTIVE_MS; ; ) {
      try {
        return await new Promise<string>((resolve, reject) => {
          let started = false
          const done = begin(peer, request, (runId) => {
            started = true
            resolve(runId)
          })
          done.catch((error: unknown) => {
            if (started) deps.onError(error)
            else reject(error)
          })
        })
      } catch (error) {
        if (!isActive(error) || Date.now() > until) throw error
        await sleep(WAIT_STEP_MS, undefined, { signal: stopping.signal })
      }
    }
  }

  return {
    signal: stopping.signal,
    run: (peer, options) => begin(peer, options),
    syncNow: async (request) => {
      if (request.peer !== undefined) {
        const peer = await findPeer(deps.store.db, request.peer)
        return { runs: [{ peer: peer.name, runId: await start(peer, request) }] }
      }
      const peers = await peersWithTasks(deps.store, request.resources)
      const results = await Promise.allSettled(peers.map((peer) => start(peer, request)))
      const runs = results.flatMap((result, at) =>
        result.status === 'fulfilled' ? [{ peer: peers[at]?.name ?? '', runId: result.value }] : [],
      )
      const failed = results.find((result) => result.status === 'rejected')
      if (runs.length === 0 && failed !== undefined) throw failed.reason
      return { runs }
    },
    stop: async (timeoutMs) => {
      stopping.abort(new Error('the site stops'))
      await Promise.race([Promise.allSettled(active), sleep(timeoutMs, undefined, { ref: false })])
    },
  }
}

export function isActive(error: unknown): boolean {
  return error instanceof SynclineError && error.code === 'SYNC_RUN_ACTIVE'
}

/** Peers that this site can reach and has something to do with. Errors: SYNC_REQUEST_NOT_FOUND when there are none. */
export async function peersWithTasks(store: Store, resources: readonly string[] | undefined): Promise<readonly Peer[]> {
  const peers = await everyItem((page) => listPeers(store.db, { ...page, paused: false }))
  const tasks = await everyItem((page) => listTasks(store.db, { ...page, enabled: true }))
  const wanted = tasks.filter(({ resource }) => resources === undefined || resources.includes(resource))
  const found = peers.filter(({ id, url }) => url !== null && wanted.some(({ peerId }) => peerId === id))
  if (found.length > 0) return found
  const what = resources === undefined ? '' : ` for ${resources.join(', ')}`
  throw new SynclineError('SYNC_REQUEST_NOT_FOUND', `no peer that this site can reach has an enabled task${what}`)
}
