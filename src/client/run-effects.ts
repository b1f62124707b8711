import assert from 'node:assert/strict'
import {
  addReports,
  appendLog,
  applyPull,
  type Brake,
  collectPush,
  type ExchangeLimits,
  type ExchangeLink,
  emptyReport,
  type NewLogEntry,
  notePushed,
  type Proof,
  type ResourceInfo,
  type Store,
  type Task,
  writeCheckpoint,
} from '../store/index.ts'
import {
  type BatchReport,
  type Effect,
  type LineBatch,
  needsAttention,
  type RunEvent,
  type Skew,
  SynclineError,
} from '../sync/index.ts'
import type { Told } from './answers.ts'
import { compareBoth } from './compare.ts'
import type { PeerLink } from './connections.ts'
import { edenWords } from './eden/words.ts'
import { followLog, greet, termsOf } from './greet.ts'
import type { Greeting, Pulled, Pushed } from './peer-client.ts'
import { PeerError } from './peer-error.ts'
import { pullPurged, pushPurged } from './purged.ts'
import { fewerRows, retrying } from './retrying.ts'
import type { RunEvents, RunProgress } from './runner.ts'
import { countPulled, countPushed, type RunCounts, sentence } from './tally.ts'
import { braking, type PullGuard, usePass, weigh } from './weigh.ts'

/** Everything the effects of one run work on. */
export type RunSession = {
  readonly store: Store
  readonly link: ExchangeLink
  readonly peer: PeerLink
  readonly limits: ExchangeLimits
  readonly events: RunEvents
  readonly random: () => number
  readonly runId: string
  readonly tasks: ReadonlyMap<string, Task>
  readonly resources: ReadonlyMap<string, ResourceInfo>
  readonly counts: RunCounts
  readonly onProgress: (progress: RunProgress) => void
  /** Ends waiting and fetching. */
  readonly signal: AbortSignal
  /** Ends sending, some time after `signal`: an answer on its way saves sending the batch again. */
  readonly lateSignal: AbortSignal
  /** Fetched batches by the number the run machine knows them by. */
  readonly fetched: Map<number, Fetched>
  /** How far our own changes were sent, by resource. */
  readonly pushes: Map<string, PushState>
  /** What earlier comparisons found, by resource. */
  readonly proofs: ReadonlyMap<string, Proof>
  /** Records in one batch, lowered when a batch was too large for one of the two sides. */
  readonly rows: Map<string, number>
  /** How columns differ, by resource; empty before the peer was met. */
  skews: ReadonlyMap<string, Skew>
  /** Purges that this run has caught up with, by resource; with `push` before its name those that it told the peer of. */
  readonly purges: Map<string, number>
  /** What is stopped or released with the peer, read when first needed. */
  brakes: Promise<readonly Brake[]> | null
  /** Releases that let something of this run go on, by direction and resource: used up when it is done. */
  readonly released: Map<string, Brake>
  /** The brakes in the transactions that write what is pulled, by resource. */
  readonly guards: Map<string, PullGuard>
  /** What the peer told with the first batch of a pull, and where that began, by resource. */
  readonly firsts: Map<string, { readonly told: Told | null; readonly after: string | null }>
  /** Deletions that are due to the peer, by resource. */
  readonly announced: Map<string, number>
  /** Every enabled task with the peer, also those that this run leaves out. */
  readonly allTasks: readonly Task[]
  /** What the peer said of itself; null until it did. */
  greeted: Greeting | null
  batches: number
  doing: string
  lagMs: number | undefined
}

export type PushState = {
  readonly after: string | undefined
  readonly ended: boolean
  readonly next: Promise<LineBatch> | null
}

/** What was pulled from the place `after`. */
type Fetched = { readonly pulled: Pulled; readonly after: string | null; readonly fetchMs: number }

/** A batch of so many records is short. */
const FIRST_ROWS = 2_000

/** Performs one effect of the run machine and gives its answer. `finish` is the runner's own. */
export async function perform(run: RunSession, effect: Exclude<Effect, { do: 'finish' }>): Promise<RunEvent> {
  switch (effect.do) {
    case 'greet':
      return greet(run)
    case 'followLog':
      return followLog(run, effect.logId)
    case 'pull':
      return pull(run, effect)
    case 'weigh':
      return weigh(run, effect)
    case 'apply':
      return apply(run, effect.resource, effect.batch)
    case 'ack':
      return ack(run, effect.resource, effect.checkpoint)
    case 'push':
      return push(run, effect.resource)
    case 'compare':
      return compareBoth(run, effect.resource)
    default:
      return effect satisfies never
  }
}

async function pull(run: RunSession, { resource, after, weigh }: Extract<Effect, { do: 'pull' }>): Promise<RunEvent> {
  run.doing = `pull ${resource}`
  refuseSkew(run.skews.get(resource)?.pull)
  const { filter, columns, canary } = taskOf(run, resource)
  const refs = Object.fromEntries(
    (run.resources.get(resource)?.references ?? []).map((each) => [each.column.name, each.resource]),
  )
  const began = performance.now()
  const pulled = await fewerRows(run, `pull ${resource}`, run.limits.batchRowsMax, (most) =>
    retrying(run, run.signal, () => {
      // The first batch of a first copy is short: applying begins sooner, and the next batch comes meanwhile.
      const limit = weigh && after === null ? Math.max(Math.min(most, FIRST_ROWS), Math.ceil(most / 4)) : most
      const { runId, signal } = run
      return run.peer.client.pull({ resource, after, limit, filter, columns, refs, weigh, canary, runId, signal })
    }),
  )
  if (weigh) run.firsts.set(resource, { told: pulled.told, after })
  if (pulled.count === 0 && pulled.checkpoint === after && !pulled.more) return { type: 'pullEnded' }
  const batch = ++run.batches
  run.fetched.set(batch, { pulled, after, fetchMs: performance.now() - began })
  return { type: 'batchFetched', batch, checkpoint: pulled.checkpoint, more: pulled.more }
}

/** Says once what would be said of every record. */
export function refuseSkew(reason: string | null | undefined): void {
  if (reason != null) throw new SynclineError('SYNC_RESOURCE_SKEW', reason)
}

/** Before anything behind the place we come from is applied, with which that place would be forgotten: what was purged there. */
async function catchUp(run: RunSession, name: string, { pulled, after }: Fetched): Promise<void> {
  if (pulled.purges === undefined || pulled.purges === run.purges.get(name)) return
  const task = taskOf(run, name)
  const resource = run.resources.get(name) ?? assert.fail(`${name} is attached`)
  const { filter, columns } = task
  const query = { resource: name, filter, columns, purged: true, limit: run.limits.batchRowsMax, signal: run.signal }
  const ask = (from: string | null) => retrying(run, run.signal, () => run.peer.client.pull({ ...query, after: from }))
  await braking(run, name, () => pullPurged({ run, task, resource }, after, ask))
  run.purges.set(name, pulled.purges)
}

async function apply(run: RunSession, resource: string, number: number): Promise<RunEvent> {
  const found = run.fetched.get(number)
  assert(found !== undefined, `batch ${number} was fetched`)
  run.fetched.delete(number)
  const { pulled, fetchMs } = found
  await catchUp(run, resource, found)
  const task = taskOf(run, resource)
  const brake = run.guards.get(resource)
  const began = performance.now()
  let report = emptyReport()
  noteLag(run, pulled)
  for (const [at, batch] of pulled.batches.entries()) {
    const earlier = report
    const last = at === pulled.batches.length - 1
    // In the same commit: an entry that exists tells of what is there, and what is there has its entry.
    const applied = await braking(run, resource, () =>
      applyPull(
        run.store,
        run.link,
        {
          task,
          batch,
          runId: run.runId,
          guard: brake?.guard,
          alongside: async (trx, part) => {
            if (last && !pulled.more) await usePass(run, 'pull', resource, trx)
            if (!last || pulled.count === 0) return
            const durationMs = fetchMs + performance.now() - began
            await appendLog(
              trx,
              batchEntry(run, 'pull', resource, pulled.count, addReports(earlier, part), pulled.bytes, durationMs),
            )
          },
        },
        run.limits,
      ),
    )
    brake?.committed()
    report = addReports(report, applied)
  }
  countPulled(run.counts, report, pulled.count, pulled.bytes)
  const durationMs = Math.round(fetchMs + performance.now() - began)
  const moved = {
    runId: run.runId,
    peer: run.link.peer.name,
    resource,
    counts: report.counts,
    bytes: pulled.bytes,
    durationMs,
  }
  if (pulled.count > 0) run.events.batchPulled(moved)
  announce(run, resource, task, report)
  run.onProgress({ runId: run.runId, resource, direction: 'pull', changes: pulled.count, more: pulled.more })
  return { type: 'batchApplied', attention: needsAttention(report) }
}

async function ack(run: RunSession, resource: string, checkpoint: string): Promise<RunEvent> {
  await retrying(run, run.signal, () => run.peer.client.ack(resource, checkpoint, run.signal))
  run.peer.told.set(resource, checkpoint)
  return { type: 'acked' }
}

/** Sends the next batch that has something in it. Its checkpoint moves only after the peer's answer, so a lost answer repeats the batch. */
async function push(run: RunSession, resource: string): Promise<RunEvent> {
  run.doing = `push ${resource}`
  refuseSkew(run.skews.get(resource)?.push)
  for (;;) {
    const state = run.pushes.get(resource) ?? { after: undefined, ended: false, next: null }
    if (state.ended) {
      await usePass(run, 'push', resource, run.store.db)
      return { type: 'pushEnded' }
    }
    if (run.signal.aborted) return { type: 'aborted' }
    const batch = await (state.next ?? collectNext(run, resource, state.after))
    const { checkpoint, more } = nextOf(batch)
    if (batch.purges !== undefined && batch.purges !== run.purges.get(`push ${resource}`)) {
      const known = run.resources.get(resource) ?? assert.fail(`${resource} is attached`)
      await pushPurged({ run, task: taskOf(run, resource), resource: known }, state.after, (page) =>
        retrying(run, run.lateSignal, () => run.peer.client.push(page, run.lateSignal, { runId: nameOf(run) })),
      )
      run.purges.set(`push ${resource}`, batch.purges)
    }
    if (batch.count === 0) {
      if (checkpoint !== state.after) await moveOn(run, resource, checkpoint, null)
      run.pushes.set(resource, { after: checkpoint, ended: !more, next: null })
      continue
    }
    const next = more ? collectNext(run, resource, checkpoint) : null
    // Its failure counts when it is waited for.
    next?.catch(() => {})
    const began = performance.now()
    const sent = await send(run, resource, batch)
    if (sent === null) {
      run.pushes.set(resource, { ...state, next: null })
      continue
    }
    const durationMs = performance.now() - began
    const entry = batchEntry(run, 'push', resource, batch.count, sent.report, sent.bytes, durationMs)
    await moveOn(run, resource, checkpoint, { entry, batch, report: sent.report })
    run.pushes.set(resource, { after: checkpoint, ended: !more, next })
    countPushed(run.counts, sent.report, batch.count, sent.bytes)
    const { name: peer } = run.link.peer
    const { counts } = sent.report
    run.events.batchPushed({
      runId: run.runId,
      peer,
      resource,
      counts,
      bytes: sent.bytes,
      durationMs: Math.round(durationMs),
    })
    run.onProgress({ runId: run.runId, resource, direction: 'push', changes: batch.count, more })
    return { type: 'pushSent', attention: needsAttention(sent.report) }
  }
}

async function collectNext(run: RunSession, resource: string, after: string | undefined): Promise<LineBatch> {
  const { filter, columns } = taskOf(run, resource)
  const limit = run.rows.get(`push ${resource}`)
  try {
    return await collectPush(run.store, run.link, { resource, after, limit, filter, columns }, run.limits)
  } catch (error) {
    // A place in a log that this site has left means nothing any more; versions make repeating harmless (I2).
    if (after === undefined || !(error instanceof SynclineError) || error.code !== 'SYNC_CHECKPOINT_GONE') throw error
    return collectPush(run.store, run.link, { resource, limit, filter, columns }, run.limits)
  }
}

/** What the peer knows this run by: a database that is put back counts its runs from there again, in another log. */
function nameOf({ link, runId }: RunSession): string {
  return `${link.self.logId}/${runId}`
}

/** Null when the batch was too large for the peer and must be collected again with fewer records. */
async function send(run: RunSession, resource: string, batch: LineBatch): Promise<Pushed | null> {
  try {
    const announced = run.announced.get(resource)
    return await retrying(run, run.lateSignal, () =>
      run.peer.client.push(batch, run.lateSignal, { announced, runId: nameOf(run) }),
    )
  } catch (error) {
    if (!(error instanceof PeerError) || error.status !== 413 || batch.count === 1) throw error
    run.rows.set(`push ${resource}`, Math.ceil(batch.count / 2))
    return null
  }
}

type Sent = { readonly entry: NewLogEntry; readonly batch: LineBatch; readonly report: BatchReport }

async function moveOn(run: RunSession, resource: string, checkpoint: string, sent: Sent | null): Promise<void> {
  const { id } = run.resources.get(resource) ?? assert.fail(`${resource} is attached`)
  const link = { peerId: run.link.peer.id, resourceId: id, terms: termsOf(run).get(resource) ?? null }
  await run.store.db.transaction().execute(async (trx) => {
    await writeCheckpoint(trx, link.peerId, id, 'push', checkpoint)
    if (sent === null) return
    await notePushed(trx, link, sent.batch, sent.report)
    await appendLog(trx, sent.entry)
  })
}

function batchEntry(
  run: RunSession,
  mode: 'pull' | 'push',
  resource: string,
  changes: number,
  report: BatchReport,
  bytes: number,
  durationMs: number,
): NewLogEntry {
  const { applied, merged, conflict: conflicts, quarantined, refused } = report.counts
  return {
    peer: run.link.peer,
    runId: run.runId,
    resource,
    mode,
    direction: 'outgoing',
    action: mode === 'pull' ? 'apply' : 'send',
    result: needsAttention(report) ? 'warning' : 'success',
    message: sentence(changes, report),
    ...(run.link.peer.kind === 'eden' && edenWords(mode, changes, report, sentence(changes, report))),
    ...{ changes, applied: applied + merged, conflicts, quarantined, refused, bytes, durationMs },
  }
}

/** Lines about single records: enough to look into it, not one for each of many thousands. */
const ANNOUNCED_MAX = 20

function announce(run: RunSession, resource: string, task: Task, report: BatchReport): void {
  const about = { runId: run.runId, peer: run.link.peer.name, resource }
  for (const { id: recordId, outcome, code, reason } of report.rejections.slice(0, ANNOUNCED_MAX)) {
    if (outcome === 'quarantined') run.events.recordQuarantined({ ...about, recordId, code: code ?? '', reason })
    if (outcome === 'conflict')
      run.events.conflictDecided({ ...about, recordId, policy: task.onConflict, decision: 'open' })
  }
}

/** Age of the first change of the run: batches come in the order in which the peer committed them. */
function noteLag(run: RunSession, pulled: Pulled): void {
  if (run.lagMs !== undefined) return
  const text = pulled.batches.find(({ count }) => count > 0)?.text
  const clock = Number(text?.slice(0, 2_000).split('\t', 2)[1])
  if (clock > 0) run.lagMs = Math.max(0, Math.round(Date.now() - clock / 1000))
}

function nextOf(batch: LineBatch): NonNullable<LineBatch['next']> {
  assert(batch.next !== undefined, 'a collected batch has its checkpoint')
  return batch.next
}

function taskOf(run: RunSession, resource: string): Task {
  return run.tasks.get(resource) ?? assert.fail(`the run has a task for ${resource}`)
}
