import assert from 'node:assert/strict'
import {
  type Compared,
  compileFilter,
  explainScan,
  type FoundComparison,
  joinFilters,
  noteComparison,
  notePostponed,
  type Peer,
  type Proof,
  type ResourceInfo,
  type Store,
  type Task,
  totalOf,
  waitingFor,
} from '../store/index.ts'
import {
  isJsonObject,
  judgeTotals,
  type RunEvent,
  SynclineError,
  sameTotal,
  type Total,
  type Verdict,
  type Waiting,
} from '../sync/index.ts'
import type { PeerClient } from './peer-client.ts'
import { PeerError } from './peer-error.ts'
import type { RunSession } from './run-session.ts'
import { countCompared } from './tally.ts'

/** What the comparison of one resource with a peer needs. */
export type ComparisonDeps = {
  readonly store: Store
  readonly client: PeerClient
  readonly peer: Peer
  readonly resource: ResourceInfo
  readonly task: Task
  /** What the last comparison found. */
  readonly proof: Proof | undefined
  readonly signal?: AbortSignal | undefined
}

export type Outcome = { readonly verdict: Verdict; readonly reason: string | null; readonly records: number | null }

/** An agreement of this age is looked at anew although nothing seems to have changed since. */
const PROVED_MS = 3_600_000
/** A comparison that has to read every record may take this part of the time at most. */
const SCAN_SHARE = 1 / 50

/** A comparison that did not prove both sides equal is made anew after this time although nothing moved. */
const UNPROVED_MS = 60_000

/** Whether a new comparison would find what the last one found: nothing was written here since, and the peer had nothing to send. */
export function stillKnown(proof: Proof | undefined, now: number): boolean {
  if (proof === undefined || proof.verdict === 'different' || proof.head !== proof.headNow) return false
  return now - Date.parse(proof.comparedAt) < (proof.verdict === 'equal' ? PROVED_MS : UNPROVED_MS)
}

/**
 * Compares a resource with a peer by one total of each side, and notes what that means. What moves meanwhile makes a difference for a moment, so
 * one that nothing explains is looked at twice. A comparison that cannot be made is noted as such and fails nothing.
 */
export async function compareResource(deps: ComparisonDeps): Promise<Outcome> {
  const { store, peer, resource } = deps
  const later = postponedUntil(deps)
  if (later !== null) {
    const reason = `not compared since the last change: with a filter every record has to be read, which is done again from ${later} on`
    await notePostponed(store.db, peer.id, resource.id, reason)
    return { verdict: 'waiting', reason, records: null }
  }
  const began = performance.now()
  const note = (found: Omit<FoundComparison, 'tookMs'>) =>
    noteComparison(store.db, peer.id, resource.id, { ...found, tookMs: performance.now() - began })
  try {
    const found = await compare(deps)
    await note(found)
    return found
  } catch (error) {
    const known = explainScan(error)
    if (deps.signal?.aborted || !(known instanceof SynclineError || known instanceof PeerError)) throw error
    const outcome = { verdict: 'unknown', reason: known.message, records: null } as const
    await note({ ...outcome, head: null, scope: deps.proof?.scope ?? '' })
    return outcome
  }
}

/** The effect `compare` of a run. */
export async function compareBoth(run: RunSession, name: string): Promise<RunEvent> {
  run.doing = `compare ${name}`
  const began = performance.now()
  const { peer } = run.link
  const found = await compareResource({
    ...{ store: run.store, client: run.peer.client, peer, signal: run.signal, proof: run.proofs.get(name) },
    task: run.tasks.get(name) ?? assert.fail(`the run has a task for ${name}`),
    resource: run.resources.get(name) ?? assert.fail(`${name} is attached`),
  })
  const { verdict, reason, records } = found
  run.events.resourceCompared({
    ...{ runId: run.runId, peer: peer.name, resource: name, verdict },
    ...(records !== null && { records }),
    ...(reason !== null && { reason }),
    durationMs: Math.round(performance.now() - began),
  })
  countCompared(run.counts, verdict)
  return { type: 'compared', attention: verdict === 'different' }
}

/** A filter makes it necessary to read every record on both sides, which is not done after every run. Null: now. */
function postponedUntil({ proof, task }: ComparisonDeps): string | null {
  if (proof === undefined || (proof.scope === '' && task.filter === null)) return null
  const at = Date.parse(proof.comparedAt) + proof.tookMs / SCAN_SHARE
  return Date.now() < at ? new Date(at).toISOString() : null
}

async function compare(deps: ComparisonDeps): Promise<Omit<FoundComparison, 'tookMs'>> {
  const { store, peer, resource, task, proof } = deps
  let scope = proof?.scope ?? ''
  let here = await totalHere(deps, scope)
  let there = await ask(deps, here)
  if (there.hidden) {
    const reason = 'the grant of the peer has a filter that this site may not see'
    return { verdict: 'unknown', reason, records: null, head: null, scope: '' }
  }
  if ((there.filter ?? '') !== scope) {
    scope = there.filter ?? ''
    here = await totalHere(deps, scope)
    if (sameTotal(here, there)) there = await ask(deps, here)
  }
  if (sameTotal(here, there)) return { verdict: 'equal', reason: null, records: here.records, head: here.head, scope }
  const waiting = await waitingFor(store.db, peer, resource, task.mode === 'pull' ? null : 'push')
  here = await totalHere(deps, scope)
  there = await ask(deps, here, waiting)
  const { verdict, reason } = judgeTotals({
    here,
    there,
    waitingHere: waiting,
    waitingThere: there.waiting,
    mode: task.mode,
  })
  const differing = verdict === 'equal' ? null : Math.abs(here.records - there.records) || null
  return { verdict, reason, records: here.records, head: here.head, scope, differing }
}

/** What this site counts within the filter of the task and, as far as it is known, that of the peer's grant. */
export async function totalHere(
  { store, peer, resource, task }: Pick<ComparisonDeps, 'store' | 'peer' | 'resource' | 'task'>,
  granted: string,
): Promise<Compared> {
  const text = joinFilters([task.filter, granted])
  const filter = text === null ? undefined : await compileFilter(store, resource, text)
  return totalOf(store, { resource, filter, keptFrom: peer.id })
}

/** Lets the peer note for its status that both sides are equal. */
export async function tellTotal(
  { client, resource, task, signal }: Pick<ComparisonDeps, 'client' | 'resource' | 'task' | 'signal'>,
  { records, sum }: Total,
  values = false,
): Promise<void> {
  const told = {
    records,
    sum,
    mode: task.mode,
    ...(values && { values }),
    ...(task.filter !== null && { filter: task.filter }),
  }
  await client.compare(resource.name, told, signal)
}

type There = Total & { readonly filter: string | null; readonly hidden: boolean; readonly waiting: Waiting }

async function ask({ client, resource, task, signal }: ComparisonDeps, here: Total, waiting?: Waiting): Promise<There> {
  const { records, sum } = here
  const told = { records, sum, ...(task.filter !== null && { filter: task.filter }) }
  const answer = await client.compare(resource.name, { ...told, ...(waiting && { waiting, mode: task.mode }) }, signal)
  const counts = isJsonObject(answer.waiting) ? answer.waiting : {}
  const count = (value: unknown) => (Number.isSafeInteger(value) && (value as number) > 0 ? (value as number) : 0)
  if (!Number.isSafeInteger(answer.records) || typeof answer.sum !== 'string' || !/^-?\d{1,60}$/.test(answer.sum)) {
    const what = `POST /digests/${resource.name} at ${client.host}`
    throw new PeerError('SYNC_PEER_REFUSED', `${what}: the answer is no digest`, { status: 200, retryable: false })
  }
  return {
    records: answer.records as number,
    sum: answer.sum,
    filter: typeof answer.filter === 'string' ? answer.filter : null,
    hidden: answer.hidden === true,
    waiting: {
      changes: count(counts.changes),
      quarantine: count(counts.quarantine),
      discarded: count(counts.discarded),
      conflicts: count(counts.conflicts),
    },
  }
}
