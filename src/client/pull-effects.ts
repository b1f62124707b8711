import assert from 'node:assert/strict'
import { type Alongside, addReports, appendLog, applyPull, applyRows, emptyReport, type Task } from '../store/index.ts'
import {
  type BatchReport,
  comparePositions,
  type Effect,
  isMapped,
  needsAttention,
  parseCheckpoint,
  type RunEvent,
} from '../sync/index.ts'
import type { Pulled } from './peer-client.ts'
import { pullPurged } from './purged.ts'
import { fewerRows, retrying } from './retrying.ts'
import { batchEntry, type Fetched, type RunSession, refuseSkew, taskOf } from './run-session.ts'
import { countPulled } from './tally.ts'
import { braking, usePass } from './weigh.ts'

/** A batch of so many records is short. */
const FIRST_ROWS = 2_000

/** Fetches one batch. */
export async function pull(
  run: RunSession,
  { resource, after, weigh }: Extract<Effect, { do: 'pull' }>,
): Promise<RunEvent> {
  run.doing = `pull ${resource}`
  refuseSkew(run.skews.get(resource)?.pull)
  const { filter, columns, canary } = taskOf(run, resource)
  const refs = Object.fromEntries(
    (run.resources.get(resource)?.references ?? []).map((each) => [each.column.name, each.resource]),
  )
  const began = performance.now()
  // The first batch is weighed record by record before anything is written (I10), so it comes in lines.
  const rows = !weigh && run.forms.get(resource) === 'rows'
  const pulled = await fewerRows(run, `pull ${resource}`, run.limits.batchRowsMax, (most) =>
    retrying(run, run.signal, () => {
      // The first batch of a first copy is short: applying begins sooner, and the next batch comes meanwhile.
      const limit = weigh && after === null ? Math.max(Math.min(most, FIRST_ROWS), Math.ceil(most / 4)) : most
      const { runId, signal } = run
      return run.peer.client.pull({ resource, after, limit, filter, columns, refs, weigh, canary, rows, runId, signal })
    }),
  )
  if (weigh) run.firsts.set(resource, { told: pulled.told, after })
  if (weigh && after === null && maybeRows(run, resource)) run.forms.set(resource, 'rows')
  if (pulled.count === 0 && pulled.checkpoint === after && !pulled.more) return { type: 'pullEnded' }
  const batch = ++run.batches
  run.fetched.set(batch, { pulled, after, fetchMs: performance.now() - began })
  return { type: 'batchFetched', batch, checkpoint: pulled.checkpoint, more: pulled.more }
}

/** Rows go from database to database as they are: nothing is renamed or filtered on the way, and the embedded database has no COPY. */
function maybeRows(run: RunSession, resource: string): boolean {
  const { filter, mapping } = taskOf(run, resource)
  return run.store.server && run.link.peer.kind === 'syncline' && filter === null && !isMapped(mapping)
}

/** Before anything behind the place we come from is applied, with which that place would be forgotten: what was purged there. */
async function catchUp(
  run: RunSession,
  name: string,
  { pulled, after }: Pick<Fetched, 'pulled' | 'after'>,
): Promise<void> {
  if (pulled.purges === undefined || pulled.purges === run.purges.get(name)) return
  const task = taskOf(run, name)
  const resource = run.resources.get(name) ?? assert.fail(`${name} is attached`)
  const { filter, columns } = task
  const query = { resource: name, filter, columns, purged: true, limit: run.limits.batchRowsMax, signal: run.signal }
  const ask = (from: string | null) => retrying(run, run.signal, () => run.peer.client.pull({ ...query, after: from }))
  await braking(run, name, () => pullPurged({ run, task, resource }, after, ask))
  run.purges.set(name, pulled.purges)
}

/** Applies one fetched batch; its checkpoint, its log entry and what it brings are one commit. */
export async function apply(run: RunSession, resource: string, number: number): Promise<RunEvent> {
  const found = run.fetched.get(number)
  assert(found !== undefined, `batch ${number} was fetched`)
  run.fetched.delete(number)
  await catchUp(run, resource, found)
  const began = performance.now()
  noteLag(run, found.pulled)
  const { report, count, bytes } =
    (await applyAsRows(run, resource, found, began)) ?? (await applyAsLines(run, resource, found, began))
  run.guards.get(resource)?.committed()
  countPulled(run.counts, report, count, bytes)
  const durationMs = Math.round(found.fetchMs + performance.now() - began)
  const { name: peer } = run.link.peer
  if (count > 0) run.events.batchPulled({ runId: run.runId, peer, resource, counts: report.counts, bytes, durationMs })
  announce(run, resource, taskOf(run, resource), report)
  run.onProgress({ runId: run.runId, resource, direction: 'pull', changes: count, more: found.pulled.more })
  return { type: 'batchApplied', attention: needsAttention(report) }
}

/** What was applied, and how much of it came. */
type Applied = { readonly report: BatchReport; readonly count: number; readonly bytes: number }

/** Null where the batch did not come in rows, or they are not all new here. */
async function applyAsRows(
  run: RunSession,
  resource: string,
  fetched: Fetched,
  began: number,
): Promise<Applied | null> {
  const { rows, count, bytes } = fetched.pulled
  if (rows === undefined || run.forms.get(resource) !== 'rows') return null
  const alongside: Alongside = (trx, report) => noteBatch(trx, run, resource, fetched, report, began)
  const pull = { task: taskOf(run, resource), batch: rows, runId: run.runId, alongside }
  const report = await braking(run, resource, () => applyRows(run.store, run.link, pull, run.limits))
  if (report !== null) return { report, count, bytes }
  run.forms.set(resource, 'lines')
  return null
}

async function applyAsLines(run: RunSession, resource: string, fetched: Fetched, began: number): Promise<Applied> {
  let all: Applied = { report: emptyReport(), count: 0, bytes: 0 }
  for await (const { pulled, after } of asLines(run, resource, fetched)) {
    let report = emptyReport()
    for (const [at, batch] of pulled.batches.entries()) {
      const earlier = report
      const last = at === pulled.batches.length - 1
      const alongside: Alongside = async (trx, part) => {
        if (last) await noteBatch(trx, run, resource, { ...fetched, pulled, after }, addReports(earlier, part), began)
      }
      const { guard } = run.guards.get(resource) ?? {}
      const pull = { task: taskOf(run, resource), batch, runId: run.runId, guard, alongside }
      report = addReports(report, await braking(run, resource, () => applyPull(run.store, run.link, pull, run.limits)))
    }
    const { count, bytes } = pulled
    all = { report: addReports(all.report, report), count: all.count + count, bytes: all.bytes + bytes }
  }
  return all
}

/** In the commit of the batch: an entry that exists tells of what is there, and what is there has its entry. */
async function noteBatch(
  trx: Parameters<Alongside>[0],
  run: RunSession,
  resource: string,
  { pulled, fetchMs }: Fetched,
  report: BatchReport,
  began: number,
): Promise<void> {
  if (!pulled.more) await usePass(run, 'pull', resource, trx)
  if (pulled.count === 0) return
  const durationMs = fetchMs + performance.now() - began
  await appendLog(trx, batchEntry(run, 'pull', resource, pulled.count, report, pulled.bytes, durationMs))
}

/** What was fetched, in lines. In place of rows all up to their end is fetched anew: what changed meanwhile comes with it, and a second time later (I2). */
async function* asLines(
  run: RunSession,
  resource: string,
  fetched: Fetched,
): AsyncIterable<Pick<Fetched, 'pulled' | 'after'>> {
  if (fetched.pulled.rows === undefined) return yield fetched
  const { columns, filter } = taskOf(run, resource)
  const until = parseCheckpoint(fetched.pulled.checkpoint).position
  for (let after = fetched.after; ; ) {
    const from = { resource, after, filter, columns, runId: run.runId, signal: run.signal }
    const pulled = await fewerRows(run, `pull ${resource}`, fetched.pulled.count, (limit) =>
      retrying(run, run.signal, () => run.peer.client.pull({ ...from, limit })),
    )
    const reached = comparePositions(parseCheckpoint(pulled.checkpoint).position, until) >= 0
    await catchUp(run, resource, { pulled, after })
    yield { pulled: { ...pulled, more: fetched.pulled.more || !reached }, after }
    if (reached || pulled.checkpoint === after) return
    after = pulled.checkpoint
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
  const lines = pulled.batches.find(({ count }) => count > 0)?.text.slice(0, 2_000)
  const first = pulled.rows === undefined ? lines : Buffer.from(pulled.rows.rows.subarray(0, 2_000)).toString()
  const clock = Number(first?.split('\t', 2)[1])
  if (clock > 0) run.lagMs = Math.max(0, Math.round(Date.now() - clock / 1000))
}
