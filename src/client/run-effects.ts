import assert from 'node:assert/strict'
import { appendLog, collectPush, type NewLogEntry, notePushed, writeCheckpoint } from '../store/index.ts'
import {
  type BatchReport,
  type Effect,
  type LineBatch,
  needsAttention,
  type RunEvent,
  SynclineError,
} from '../sync/index.ts'
import { compareBoth } from './compare.ts'
import { followLog, greet, termsOf } from './greet.ts'
import type { Pushed } from './peer-client.ts'
import { PeerError } from './peer-error.ts'
import { apply, pull } from './pull-effects.ts'
import { pushPurged } from './purged.ts'
import { retrying } from './retrying.ts'
import { batchEntry, type RunSession, refuseSkew, taskOf } from './run-session.ts'
import { countPushed } from './tally.ts'
import { usePass, weigh } from './weigh.ts'

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

function nextOf(batch: LineBatch): NonNullable<LineBatch['next']> {
  assert(batch.next !== undefined, 'a collected batch has its checkpoint')
  return batch.next
}
