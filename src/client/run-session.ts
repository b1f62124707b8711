import assert from 'node:assert/strict'
import type {
  Brake,
  ExchangeLimits,
  ExchangeLink,
  NewLogEntry,
  Proof,
  ResourceInfo,
  Store,
  Task,
} from '../store/index.ts'
import { type BatchReport, type LineBatch, needsAttention, type Skew, SynclineError } from '../sync/index.ts'
import type { Told } from './answers.ts'
import type { PeerLink } from './connections.ts'
import { edenWords } from './eden/words.ts'
import type { Greeting, Pulled } from './peer-client.ts'
import type { RunEvents, RunProgress } from './runner.ts'
import { type RunCounts, sentence } from './tally.ts'
import type { PullGuard } from './weigh.ts'

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
  /** How each resource is pulled: a first copy in rows, until they meet something that is here already. */
  readonly forms: Map<string, 'rows' | 'lines'>
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
export type Fetched = { readonly pulled: Pulled; readonly after: string | null; readonly fetchMs: number }

/** Says once what would be said of every record. */
export function refuseSkew(reason: string | null | undefined): void {
  if (reason != null) throw new SynclineError('SYNC_RESOURCE_SKEW', reason)
}

export function batchEntry(
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

export function taskOf(run: RunSession, resource: string): Task {
  return run.tasks.get(resource) ?? assert.fail(`the run has a task for ${resource}`)
}
