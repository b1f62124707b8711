import {
  addReports,
  appendLog,
  applyPull,
  countElsewhere,
  countTold,
  emptyReport,
  getSetting,
  listAgreements,
  type Missing,
  noteTold,
  nothingWaits,
  readHorizon,
  redrive,
  reviveBlocked,
  setSetting,
  takeMissing,
  toldTo,
} from '../store/index.ts'
import { type BatchReport, type RunResult, SynclineError } from '../sync/index.ts'
import { compareResource } from './compare.ts'
import { PeerError } from './peer-error.ts'
import type { RunSession } from './run-session.ts'
import { countPulled } from './tally.ts'

/** Ids go in the address of a request: what one may carry, far below what servers take. */
const IDS_CHARACTERS_MAX = 6_000
const IDS_MAX = 100
/** A record that was asked for may miss another one itself. */
const DEPTH_MAX = 8

/**
 * The end of a run: what waited is tried again, deletions that can never go through lose, what waits on either side is told to the other, and what
 * records wait for is asked for by id. A peer that does not answer to that has answered to all that matters: the next run goes on here.
 */
export async function settleWaiting(run: RunSession, outcome: RunResult): Promise<void> {
  const before = run.counts.applied + run.counts.merged
  const { quarantined = 0, discarded = 0 } = run.greeted?.waiting ?? {}
  if (quarantined + discarded === 0 && (await nothingWaits(run.store.db, run.link.peer.id, memoryOf(run)))) return
  await redriveQuarantine(run)
  // A run that ended early knows too little, and its peer most likely does not answer.
  if (outcome.failure !== null) return
  const complete =
    outcome.tasks.every(({ failure }) => failure === null) &&
    run.allTasks.every(({ resource }) => run.tasks.has(resource))
  try {
    await settleWithPeer(run, complete)
    if (run.counts.applied + run.counts.merged > before) await compareSettled(run)
  } catch (error) {
    if (run.signal.aborted || error instanceof PeerError || error instanceof SynclineError) return
    run.events.internalError({ where: 'run', err: error, runId: run.runId })
  }
}

/** What explained a difference when the run compared may have been settled since. */
async function compareSettled(run: RunSession): Promise<void> {
  const { store, link, peer, signal } = run
  for (const { resource: name, verdict } of await listAgreements(store.db, link.peer.id)) {
    const [task, resource] = [run.tasks.get(name), run.resources.get(name)]
    if (verdict !== 'waiting' || task === undefined || resource === undefined) continue
    const proof = run.proofs.get(name)
    await compareResource({ store, client: peer.client, peer: link.peer, resource, task, proof, signal })
  }
}

async function settleWithPeer(run: RunSession, complete: boolean): Promise<void> {
  const { store, link, runId, limits } = run
  if (complete) await reviveBlocked(store, link, 'pull', runId, limits)
  await exchangeTold(run, complete)
  for (let depth = 0; depth < DEPTH_MAX; depth++) {
    const missing = await takeMissing(store.db, link.peer.id, pulledResources(run))
    if (missing.length === 0) return
    const report = await fetchMissing(run, missing)
    if (report.counts.applied + report.counts.merged === 0) return
    await redriveQuarantine(run)
  }
}

/** What waited for something that this run, or time, has brought. */
async function redriveQuarantine({ store, link, runId, limits, counts }: RunSession): Promise<void> {
  const began = performance.now()
  const report = await redrive(store, link.self, runId, limits)
  const { applied, merged, conflict, quarantined, refused, known, skipped } = report.counts
  const done = applied + merged + known + skipped
  if (done === 0) return
  countPulled(counts, { ...report, counts: { ...report.counts, quarantined: 0 } }, 0, 0)
  await appendLog(store.db, {
    peer: link.peer,
    runId,
    mode: 'pull',
    direction: 'none',
    action: 'retry',
    result: 'success',
    message: `${done} from quarantine could be settled, ${quarantined} wait on`,
    changes: done,
    applied: applied + merged,
    conflicts: conflict,
    quarantined,
    refused,
    durationMs: performance.now() - began,
  })
}

/** How long an open transaction is nothing to speak of: a bulk load, a report that also writes. */
const HELD_MS = 10_000

/** What keeps changes from being sent, here or at the peer, in words; null when nothing does. Such a run has nothing to do, and says why. */
export async function heldBack({ store, greeted, allTasks, link }: RunSession): Promise<string | null> {
  const since = (ageMs: number) => new Date(Date.now() - ageMs).toISOString().slice(0, 19).replace('T', ' ')
  const holder = await readHorizon(store.db)
  const words: string[] = []
  if (holder !== null && holder.ageMs > HELD_MS && allTasks.some(({ mode }) => mode !== 'pull')) {
    const { pid, application, state } = holder
    words.push(
      `changes here are held back since ${since(holder.ageMs)} UTC by process ${pid} (${application}, ${state})`,
    )
  }
  const theirs = greeted?.heldMs ?? 0
  if (theirs > HELD_MS && allTasks.some(({ mode }) => mode !== 'push'))
    words.push(`changes at ${link.peer.name} are held back since ${since(theirs)} UTC by a transaction there`)
  return words.length === 0 ? null : words.join('; ')
}

/** Kept in the database: what the last process told has to be taken back by this one. */
function memoryOf({ link }: RunSession): string {
  return `waiting:told:${link.peer.id}`
}

/** Tells the peer what waits here of its records and hears the same of ours, where there is or was anything to tell. */
async function exchangeTold(run: RunSession, complete: boolean): Promise<void> {
  const { store, link, peer, greeted } = run
  // A site of an earlier make neither tells nor listens.
  if (greeted === null || greeted.waiting === null) return
  const { db } = store
  const memory = memoryOf(run)
  const [here, there, before] = await Promise.all([
    countTold(db, link.peer.id),
    countElsewhere(db, link.peer.id),
    getSetting(db, memory),
  ])
  const now = here.quarantined + here.discarded
  const known = there.quarantined + there.discarded + greeted.waiting.quarantined + greeted.waiting.discarded
  if (now === 0 && known === 0 && (before === undefined || before === 0)) return
  const told = await peer.client.tellWaiting({ ...(await toldTo(db, link.peer.id)), complete }, run.signal)
  await noteTold(db, link.peer.id, told)
  if (before !== now) await setSetting(db, memory, now)
}

function pulledResources(run: RunSession): readonly string[] {
  const offered = new Set((run.greeted?.resources ?? []).filter(({ pull }) => pull).map(({ name }) => name))
  return run.allTasks
    .filter(({ mode, resource }) => mode !== 'push' && offered.has(resource))
    .map(({ resource }) => resource)
}

async function fetchMissing(run: RunSession, missing: readonly Missing[]): Promise<BatchReport> {
  let total = emptyReport()
  for (const { resource, ids } of missing) {
    const task = run.allTasks.find((each) => each.resource === resource)
    if (task === undefined) continue
    for (const some of portions(ids)) {
      const { filter, columns } = task
      const { batches, bytes } = await run.peer.client.pullChosen({
        resource,
        ids: some,
        filter,
        columns,
        signal: run.signal,
      })
      for (const batch of batches) {
        if (batch.count === 0) continue
        const { next: _, ...records } = batch
        const report = await applyPull(run.store, run.link, { task, batch: records, runId: run.runId }, run.limits)
        countPulled(run.counts, report, batch.count, bytes)
        total = addReports(total, report)
      }
    }
  }
  return total
}

function* portions(ids: readonly string[]): Iterable<readonly string[]> {
  let some: string[] = []
  let length = 0
  for (const id of ids) {
    const more = encodeURIComponent(JSON.stringify(id)).length + 3
    if (some.length > 0 && (some.length === IDS_MAX || length + more > IDS_CHARACTERS_MAX)) {
      yield some
      some = []
      length = 0
    }
    some.push(id)
    length += more
  }
  if (some.length > 0) yield some
}
