import { setTimeout as sleep } from 'node:timers/promises'
import { lookupPeer, type Peer, type Store, servableHeads, withLease } from '../store/index.ts'
import { type Mode, retryDelayMs } from '../sync/index.ts'
import { isActive, type Runs } from './runs.ts'

/** A task that moves as soon as there is something to move. */
export type LiveTask = { readonly peerId: number; readonly resource: string; readonly mode: Mode }

export type LiveDeps = {
  readonly store: Store
  readonly runs: Runs
  /** The peer's announcements: an empty text when the stream opens or is kept open, else what moved. Ends with an error or the signal. */
  readonly listen: (peer: Peer, signal: AbortSignal) => AsyncIterable<string>
  readonly onError: (error: unknown) => void
}

export type Live = { readonly refresh: (tasks: readonly LiveTask[]) => void; readonly stop: () => Promise<void> }

/** How often our own change orders are looked at for something to push. */
const WATCH_MS = 500
/** How long a process waits before it asks again whether it may serve a peer that another one serves. */
const ELSEWHERE_MS = 15_000
const RECONNECT = { baseMs: 500, maxMs: 60_000 }
/** A run that failed is not repeated faster than this, whatever moves. */
const FAILED_MS = 1_000
/** A paused peer loses its loop at the next look at the tasks; until then its loop only waits. */
const PAUSED_MS = 2_000

type Loop = { readonly tasks: string; readonly end: AbortController; readonly done: Promise<void> }

/** Keeps live tasks moving: one loop for each peer, in one of the processes that share the database. */
export function startLive(deps: LiveDeps): Live {
  const loops = new Map<number, Loop>()
  const ended = new Set<Promise<void>>()

  const stopLoop = (peerId: number, loop: Loop) => {
    loop.end.abort(new Error('the live loop ends'))
    loops.delete(peerId)
    ended.add(loop.done)
    void loop.done.finally(() => ended.delete(loop.done))
  }

  return {
    refresh: (tasks) => {
      const wanted = Map.groupBy(tasks, ({ peerId }) => peerId)
      for (const [peerId, loop] of loops) {
        if (JSON.stringify(wanted.get(peerId)) !== loop.tasks) stopLoop(peerId, loop)
      }
      for (const [peerId, own] of wanted) {
        if (loops.has(peerId)) continue
        const end = new AbortController()
        const signal = AbortSignal.any([end.signal, deps.runs.signal])
        const done = serve(deps, peerId, own, signal).catch((error: unknown) => {
          if (!signal.aborted) deps.onError(error)
        })
        loops.set(peerId, { tasks: JSON.stringify(own), end, done })
      }
    },
    stop: async () => {
      for (const [peerId, loop] of loops) stopLoop(peerId, loop)
      await Promise.all(ended)
    },
  }
}

/** Serves one peer whenever no other process does. */
async function serve(deps: LiveDeps, peerId: number, tasks: readonly LiveTask[], signal: AbortSignal): Promise<void> {
  while (!signal.aborted) {
    try {
      await withLease(deps.store, `live ${peerId}`, (lost) =>
        follow(deps, peerId, tasks, AbortSignal.any([signal, lost])),
      )
    } catch (error) {
      if (signal.aborted) return
      if (!isActive(error)) deps.onError(error)
    }
    await pause(ELSEWHERE_MS, signal)
  }
}

/** Runs whenever something moved on either side. */
async function follow(deps: LiveDeps, peerId: number, tasks: readonly LiveTask[], signal: AbortSignal): Promise<void> {
  const resources = tasks.map(({ resource }) => resource)
  const kicks = new Kicks()
  signal.addEventListener('abort', () => kicks.kick(), { once: true })
  const parts = [runOnKicks(deps, peerId, resources, kicks, signal)]
  if (tasks.some(({ mode }) => mode !== 'push')) parts.push(hearPeer(deps, peerId, resources, kicks, signal))
  const pushed = tasks.filter(({ mode }) => mode !== 'pull').map(({ resource }) => resource)
  if (pushed.length > 0) parts.push(watchOwn(deps, pushed, kicks, signal))
  await Promise.all(parts)
}

async function runOnKicks(
  deps: LiveDeps,
  peerId: number,
  resources: readonly string[],
  kicks: Kicks,
  signal: AbortSignal,
): Promise<void> {
  kicks.kick()
  while (!signal.aborted) {
    await kicks.next()
    if (signal.aborted) return
    const peer = await lookupPeer(deps.store.db, peerId)
    if (peer === null) return
    if (peer.paused) {
      await pause(PAUSED_MS, signal)
      kicks.kick()
      continue
    }
    const until = peer.retryAt === null ? 0 : Date.parse(peer.retryAt) - Date.now()
    if (until > 0) await pause(until, signal)
    if (signal.aborted) return
    try {
      const { retryAt, result } = await deps.runs.run(peer, { resources, cause: 'live' })
      if (retryAt !== null) kicks.kick()
      if (result === 'error' || result === 'fatal') await pause(FAILED_MS, signal)
    } catch (error) {
      if (signal.aborted) return
      if (!isActive(error)) deps.onError(error)
      // What moved is still there to be moved.
      await pause(FAILED_MS, signal)
      kicks.kick()
    }
  }
}

/** Keeps the peer's event stream open. What came while it was not open is found by the run that its opening sets off. */
async function hearPeer(
  deps: LiveDeps,
  peerId: number,
  resources: readonly string[],
  kicks: Kicks,
  signal: AbortSignal,
): Promise<void> {
  for (let attempt = 1; !signal.aborted; attempt++) {
    const peer = await lookupPeer(deps.store.db, peerId)
    if (peer === null) return
    if (peer.paused) {
      await pause(PAUSED_MS, signal)
      continue
    }
    let open = false
    try {
      for await (const data of deps.listen(peer, signal)) {
        if (!open || concerns(data, resources)) kicks.kick()
        open = true
        attempt = 1
      }
    } catch {
      // The next run meets the same trouble, if it lasts, and tells of it with its reason.
      if (signal.aborted) return
    }
    await pause(retryDelayMs({ attempt, random: Math.random(), ...RECONNECT }), signal)
  }
}

function concerns(data: string, resources: readonly string[]): boolean {
  if (data === '') return false
  try {
    const { resource } = JSON.parse(data) as { readonly resource?: unknown }
    return typeof resource !== 'string' || resources.includes(resource)
  } catch {
    return true
  }
}

async function watchOwn(
  deps: LiveDeps,
  resources: readonly string[],
  kicks: Kicks,
  signal: AbortSignal,
): Promise<void> {
  let before: ReadonlyMap<string, string> | null = null
  while (!signal.aborted) {
    const now = await servableHeads(deps.store.db, resources).catch(() => before)
    const last = before
    if (now !== null && last !== null && [...now].some(([name, head]) => last.get(name) !== head)) kicks.kick()
    before = now
    await pause(WATCH_MS, signal)
  }
}

/** Remembers that something moved until somebody takes it up; many at once count as one. */
class Kicks {
  #kicked = false
  #wake = () => {}

  kick(): void {
    this.#kicked = true
    this.#wake()
  }

  async next(): Promise<void> {
    if (!this.#kicked) {
      await new Promise<void>((resolve) => {
        this.#wake = resolve
      })
    }
    this.#kicked = false
  }
}

async function pause(ms: number, signal: AbortSignal): Promise<void> {
  await sleep(ms, undefined, { signal }).catch(() => {})
}
