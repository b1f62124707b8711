import assert from 'node:assert/strict'
import {
  addReports,
  brakesWith,
  checkpointsOf,
  collectPush,
  emptyReport,
  everyItem,
  listTasks,
  loadResources,
  type Peer,
  type PreviewedApply,
  type PreviewedRecord,
  type PreviewedWrites,
  passOf,
  previewPull,
  type ResourceInfo,
  type Task,
  withPeerLease,
} from '../store/index.ts'
import {
  type BatchReport,
  type BrakeDirection,
  type Failure,
  type LineBatch,
  type Mode,
  type Skew,
  SynclineError,
} from '../sync/index.ts'
import { failureOf } from './failure.ts'
import { countLeaving, type Leaving } from './leaving.ts'
import { mappedLink } from './mapped.ts'
import type { Pulled } from './peer-client.ts'
import { refuseSkew } from './run-session.ts'
import type { RunnerDeps } from './runner.ts'
import { knownSkews } from './schemas.ts'
import { inOrder } from './task-order.ts'
import { type FirstBatch, pullWeight, pushWeight, type Scales, type Weighed } from './weigh.ts'

/** Settings of a task that are tried before they are kept. */
export type TaskChange = Partial<Pick<Task, 'mode' | 'filter' | 'columns' | 'onConflict' | 'master' | 'onLeft'>>

export type PreviewOptions = {
  readonly resources?: readonly string[] | undefined
  /** Tries the one task of this resource with other settings. */
  readonly change?: { readonly resource: string; readonly settings: TaskChange } | undefined
  readonly signal?: AbortSignal | undefined
}

/** What one direction of a task would do. */
export type PreviewedPart = {
  readonly direction: 'pull' | 'push'
  readonly changes: number
  readonly bytes: number
  readonly batches: number
  /** False when only the first batches were looked at. */
  readonly complete: boolean
  readonly counts: BatchReport['counts']
  readonly writes: PreviewedWrites
  readonly samples: readonly PreviewedRecord[]
  readonly rejections: BatchReport['rejections']
  /** Why a brake would stop it: of this site, or of the peer for what is pushed. */
  readonly braked: readonly string[]
  /** How long the real run would take, from what was measured; null when nothing moved. */
  readonly estimateMs: number | null
  readonly failure: Failure | null
}

export type PreviewedTask = {
  readonly resource: string
  readonly mode: Mode
  readonly parts: readonly PreviewedPart[]
  /** What another filter would leave out from then on; absent where no other filter is tried. */
  readonly leaving?: Leaving
}

/** What a run with a peer would do now. Nothing of it was done, here or there. */
export type PreviewReport = {
  readonly peer: string
  readonly tasks: readonly PreviewedTask[]
  /** The peer was restored or copied: a run would follow it and offer and ask for everything again. */
  readonly newLog: boolean
  readonly durationMs: number
}

/** How much one preview fetches, holds in memory and tries; what is beyond is told as not looked at. */
const BATCHES_MAX = 20
const BYTES_MAX = 64 << 20
const APPLY_MAX_MS = { server: 60_000, embedded: 10_000 } as const
const REJECTIONS_MAX = 50

type Bench = Scales & {
  readonly deps: RunnerDeps
  readonly passes: Awaited<ReturnType<typeof brakesWith>>
  readonly skews: ReadonlyMap<string, Skew>
}
type Fetched = {
  readonly task: Task
  readonly resource: ResourceInfo
  readonly batches: readonly LineBatch[]
  readonly requests: number
  readonly bytes: number
  /** As they are held in memory, where they may have travelled compressed. */
  readonly held: number
  readonly complete: boolean
  readonly fetchMs: number
  readonly weighed: Weighed
  readonly due: number
}

/**
 * What the tasks with a peer would do now, by the code that would do it: pulls are fetched and applied in one transaction that is rolled back,
 * pushes are tried by the peer in the same way. Bounded in batches, bytes and time.
 * Errors: those of a run that cannot begin (SYNC_PEER_PAUSED, SYNC_RUN_ACTIVE, SYNC_PEER_UNREACHABLE …); what concerns one task is in its part.
 */
export async function previewPeer(deps: RunnerDeps, peer: Peer, options: PreviewOptions): Promise<PreviewReport> {
  if (peer.paused) throw new SynclineError('SYNC_PEER_PAUSED', `peer "${peer.name}" is paused`)
  const connection = await deps.connections.of(peer)
  return withPeerLease(deps.store, peer.id, async (lost) => {
    const began = performance.now()
    const { db } = deps.store
    const signal = AbortSignal.any([lost, ...(options.signal ? [options.signal] : [])])
    const site = await connection.client.greet(signal)
    if (site.uuid !== peer.uuid)
      throw new SynclineError('SYNC_PEER_MISMATCH', `site ${peer.uuid} was expected, ${site.uuid} answered`)
    const newLog = peer.logId !== null && peer.logId !== site.logId
    const [tasks, resources, checkpoints, passes, self] = await Promise.all([
      everyItem((page) => listTasks(db, { ...page, peerId: peer.id })),
      loadResources(db),
      checkpointsOf(db, peer.id),
      brakesWith(db, peer.id),
      deps.self(),
    ])
    const chosen = tasksOf(tasks, options)
    const mapped = await mappedLink(deps.store, peer.id, connection.client, chosen, resources)
    const ordered = inOrder(
      mapped.tasks,
      resources.map(({ name }) => name),
      peer,
      options.resources,
    )
    const bench: Bench = {
      store: deps.store,
      link: { self, peer },
      peer: { ...connection, client: mapped.client },
      limits: deps.limits,
      signal,
      deps,
      passes,
      skews: await knownSkews(deps.store, peer, chosen, resources),
    }
    const known = (name: string) => (newLog ? {} : (checkpoints.get(name) ?? {}))
    const infoOf = ({ resource }: Task) =>
      resources.find(({ name }) => name === resource) ?? assert.fail(`${resource} is attached`)
    const pulls = await pullParts(
      bench,
      ordered.filter(({ mode }) => mode !== 'push'),
      infoOf,
      (name) => known(name).pull ?? null,
    )
    const found: PreviewedTask[] = []
    for (const task of ordered) {
      const parts = pulls.has(task.resource) ? [pulls.get(task.resource) as PreviewedPart] : []
      if (task.mode !== 'pull') parts.push(await pushPart(bench, task, infoOf(task), known(task.resource).push))
      const leaving = await leavingOf(bench, tasks, task, infoOf(task))
      found.push({ resource: task.resource, mode: task.mode, parts, ...(leaving !== null && { leaving }) })
    }
    return { peer: peer.name, tasks: found, newLog, durationMs: Math.round(performance.now() - began) }
  })
}

/** Where a task is tried with another filter. */
async function leavingOf(
  { store, link, peer, signal }: Bench,
  kept: readonly Task[],
  { resource: name, filter }: Task,
  resource: ResourceInfo,
): Promise<Leaving | null> {
  const now = kept.find((task) => task.resource === name)?.filter ?? null
  if (filter === null || filter === now) return null
  return countLeaving({ store, client: peer.client, peer: link.peer, resource, signal }, now, filter)
}

function tasksOf(tasks: readonly Task[], { change }: PreviewOptions): readonly Task[] {
  if (change === undefined) return tasks.filter(({ enabled }) => enabled)
  return tasks.filter(({ resource }) => resource === change.resource).map((task) => ({ ...task, ...change.settings }))
}

/** Everything that is pulled, tried in one transaction, parents before those that refer to them. */
async function pullParts(
  bench: Bench,
  tasks: readonly Task[],
  infoOf: (task: Task) => ResourceInfo,
  afterOf: (resource: string) => string | null,
): Promise<ReadonlyMap<string, PreviewedPart>> {
  const parts = new Map<string, PreviewedPart>()
  const fetched: Fetched[] = []
  let room = { batches: BATCHES_MAX, bytes: BYTES_MAX }
  for (const task of tasks) {
    try {
      const got = await fetchPull(bench, task, infoOf(task), afterOf(task.resource), room)
      room = { batches: room.batches - got.requests, bytes: room.bytes - got.held }
      fetched.push(got)
    } catch (error) {
      parts.set(task.resource, failed(bench, 'pull', error))
    }
  }
  const { store, link, limits } = bench
  const deadline = performance.now() + APPLY_MAX_MS[store.server ? 'server' : 'embedded']
  const pulls = fetched.map(({ task, batches }) => ({ task, resource: task.resource, batches }))
  try {
    const tried = await previewPull(store, link, pulls, limits, deadline)
    for (const [at, one] of fetched.entries()) {
      const applied = tried[at]
      if (applied !== undefined) parts.set(one.task.resource, pullPart(one, applied))
    }
  } catch (error) {
    for (const { task } of fetched) parts.set(task.resource, failed(bench, 'pull', error))
  }
  return parts
}

async function fetchPull(
  bench: Bench,
  task: Task,
  resource: ResourceInfo,
  from: string | null,
  room: { readonly batches: number; readonly bytes: number },
): Promise<Fetched> {
  const began = performance.now()
  refuseSkew(bench.skews.get(task.resource)?.pull)
  const refs = Object.fromEntries(resource.references.map((each) => [each.column.name, each.resource]))
  const { filter, columns, canary } = task
  const ask = (after: string | null, weigh: boolean) =>
    bench.peer.client.pull({
      resource: task.resource,
      after,
      filter,
      columns,
      canary,
      refs,
      weigh,
      preview: true,
      signal: bench.signal,
    })
  let after = from
  const first = await ask(after, true).catch((error: unknown) => {
    if (!(error instanceof SynclineError) || error.code !== 'SYNC_CHECKPOINT_GONE' || from === null) throw error
    after = null
    return ask(null, true)
  })
  const begin: FirstBatch = { batches: first.batches, more: first.more, told: first.told, after }
  const weighed = await pullWeight(bench, task, resource, begin, passFor(bench, task.resource, 'pull'))
  const pages: Pulled[] = [first]
  let bytes = first.bytes
  let held = sizeOf(first)
  for (let last = first; last.more && last.checkpoint !== after; ) {
    if (pages.length >= room.batches || held >= room.bytes) break
    after = last.checkpoint
    last = await ask(after, false)
    pages.push(last)
    bytes += last.bytes
    held += sizeOf(last)
  }
  const count = pages.reduce((sum, page) => sum + page.count, 0)
  const due = first.told?.due == null ? count : Math.max(count, first.told.due.puts + first.told.due.deletes)
  return {
    ...{ task, resource, weighed, due, bytes, held },
    batches: pages.flatMap((page) => page.batches).filter((batch) => batch.count > 0),
    requests: pages.length,
    complete: pages.at(-1)?.more !== true,
    fetchMs: performance.now() - began,
  }
}

function sizeOf({ batches }: Pulled): number {
  return batches.reduce((sum, { text }) => sum + text.length, 0)
}

function pullPart(
  { bytes, batches, complete, fetchMs, weighed, due }: Fetched,
  applied: PreviewedApply,
): PreviewedPart {
  const { report, writes, samples, changes, durationMs } = applied
  return {
    ...{ direction: 'pull', changes, bytes, writes, samples, batches: applied.batches },
    complete: complete && applied.batches === batches.length,
    counts: report.counts,
    rejections: report.rejections.slice(0, REJECTIONS_MAX),
    braked: weighed.trips.map(({ reason }) => reason),
    estimateMs: changes === 0 ? null : Math.round(((fetchMs + durationMs) * Math.max(due, changes)) / changes),
    failure: null,
  }
}

async function pushPart(
  bench: Bench,
  task: Task,
  resource: ResourceInfo,
  from: string | undefined,
): Promise<PreviewedPart> {
  const began = performance.now()
  const { filter, columns } = task
  const { store, link, limits, peer, signal } = bench
  try {
    refuseSkew(bench.skews.get(task.resource)?.push)
    const { trips } = await pushWeight(bench, task, resource, from, passFor(bench, task.resource, 'push'))
    const braked = new Set(trips.map(({ reason }) => reason))
    let report = emptyReport()
    let writes: PreviewedWrites = { inserts: 0, updates: 0, deletes: 0 }
    let [changes, bytes, batches] = [0, 0, 0]
    let after = from
    let complete = false
    while (!complete && batches < BATCHES_MAX) {
      const request = { resource: task.resource, after, filter, columns, quiet: true }
      const batch = await collectPush(store, link, request, limits).catch((error: unknown) => {
        if (after === undefined || !(error instanceof SynclineError) || error.code !== 'SYNC_CHECKPOINT_GONE')
          throw error
        return collectPush(store, link, { ...request, after: undefined }, limits)
      })
      if (batch.count > 0) {
        const sent = await peer.client.push(batch, signal, { preview: 'values' })
        const { preview } = sent
        if (preview === undefined)
          throw new SynclineError('SYNC_PEER_REFUSED', 'the peer does not tell what a push would do')
        report = addReports(report, sent.report)
        writes = {
          inserts: writes.inserts + preview.inserts,
          updates: writes.updates + preview.updates,
          deletes: writes.deletes + preview.deletes,
        }
        if (preview.braked !== null) braked.add(preview.braked)
        changes += batch.count
        bytes += sent.bytes
        batches++
      }
      complete = batch.next?.more !== true || batch.next.checkpoint === after
      after = batch.next?.checkpoint
    }
    return {
      ...{
        direction: 'push',
        changes,
        bytes,
        batches,
        complete,
        writes,
        samples: [],
        braked: [...braked],
        failure: null,
      },
      counts: report.counts,
      rejections: report.rejections.slice(0, REJECTIONS_MAX),
      estimateMs: changes === 0 ? null : Math.round(performance.now() - began),
    }
  } catch (error) {
    return failed(bench, 'push', error)
  }
}

function passFor({ passes }: Bench, resource: string, direction: BrakeDirection) {
  return passOf(passes.find((brake) => brake.resource === resource && brake.direction === direction))
}

function failed({ deps, signal }: Bench, direction: 'pull' | 'push', error: unknown): PreviewedPart {
  signal.throwIfAborted()
  const failure = failureOf(error, (err) => deps.events.internalError({ where: 'preview', err }))
  return {
    ...{ direction, changes: 0, bytes: 0, batches: 0, complete: false, counts: emptyReport().counts, samples: [] },
    ...{ writes: { inserts: 0, updates: 0, deletes: 0 }, rejections: [], braked: [], estimateMs: null, failure },
  }
}
