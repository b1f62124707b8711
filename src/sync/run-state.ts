import type { ErrorCode } from './errors.ts'
import type { Mode } from './record.ts'

/** Where one run stands, what it asks for and what it is answered; src/sync/run.ts is the machine. */
export type RunState = {
  readonly at: StateName
  readonly expected: ExpectedPeer
  /** Tasks that were not begun yet. */
  readonly todo: readonly RunTask[]
  /** The task at work; null before the first one. */
  readonly work: Work | null
  readonly done: readonly TaskResult[]
  /** How many effects wait for their answer. */
  readonly outstanding: number
  readonly cancelled: boolean
  /** What ends the run before its tasks are done. */
  readonly ending: Failure | null
}

/** Who must answer at the address of the peer. `logId` is null until the peer was met once. */
export type ExpectedPeer = { readonly uuid: string; readonly logId: string | null }

export type RunTask = {
  readonly resource: string
  readonly mode: Mode
  /** Checkpoint committed by earlier runs; null asks for everything. */
  readonly after: string | null
  /** Checkpoint that the peer is known to have been told; the same one is not acknowledged again. */
  readonly acked: string | null
  /** True when both sides were found equal and nothing was written here since: without a change on its way they still are. */
  readonly proved: boolean
}

export type Failure = { readonly code: ErrorCode; readonly retryable: boolean; readonly detail: string }

/**
 * A pull with `weigh` begins a task: the peer is to tell what is due in all. `batch` of weigh is the first one, null when
 * nothing came.
 */
export type Effect =
  | { readonly do: 'greet' }
  | { readonly do: 'followLog'; readonly logId: string }
  | { readonly do: 'pull'; readonly resource: string; readonly after: string | null; readonly weigh: boolean }
  | {
      readonly do: 'weigh'
      readonly resource: string
      readonly direction: 'pull' | 'push'
      readonly batch: number | null
    }
  | { readonly do: 'apply'; readonly resource: string; readonly batch: number }
  | { readonly do: 'ack'; readonly resource: string; readonly checkpoint: string }
  | { readonly do: 'push'; readonly resource: string }
  | { readonly do: 'compare'; readonly resource: string }
  | { readonly do: 'finish'; readonly result: RunResult }

/**
 * `batch` is a number that whoever fetches gives to a batch to find it again. `attention` is needsAttention of the
 * report; of a comparison, that it found a difference which nothing explains.
 */
export type RunEvent =
  | { readonly type: 'greeted'; readonly uuid: string; readonly logId: string }
  | { readonly type: 'logFollowed' }
  | { readonly type: 'allowed' }
  | ({ readonly type: 'batchFetched' } & FetchedBatch)
  | { readonly type: 'pullEnded' }
  | { readonly type: 'batchApplied'; readonly attention: boolean }
  | { readonly type: 'acked' }
  | { readonly type: 'pushSent'; readonly attention: boolean }
  | { readonly type: 'pushEnded' }
  | { readonly type: 'compared'; readonly attention: boolean }
  | ({ readonly type: 'failed' } & Failure)
  | { readonly type: 'aborted' }
  | { readonly type: 'cancelled' }

/**
 * success · warning: something waits for a person · error: may work later · fatal: a person or a setting must change
 * first.
 */
export type ResultName = 'success' | 'warning' | 'error' | 'fatal'

export type TaskResult = { readonly resource: string; readonly result: ResultName; readonly failure: Failure | null }

/** How the last run that came to a task ended for it, as it is kept with the task. */
export type TaskRun = {
  readonly runId: string
  /** When the run began. */
  readonly at: string
  /** End of the last run that succeeded for the task; null when none ever did. */
  readonly succeededAt: string | null
  readonly result: ResultName
  readonly code: string | null
  readonly message: string | null
}

/** `result` is the worst of all. `tasks` has those that were begun. `failure` is what ended the run early. */
export type RunResult = {
  readonly result: ResultName
  readonly cancelled: boolean
  readonly failure: Failure | null
  readonly tasks: readonly TaskResult[]
}

export type RunStep = { readonly state: RunState; readonly effects: readonly Effect[] }

export type StateName =
  | 'greeting'
  | 'following'
  | 'fetching'
  | 'weighing'
  | 'overlapping'
  | 'holding'
  | 'applying'
  | 'acking'
  | 'pushing'
  | 'comparing'
  | 'settling'
  | 'finished'
export type EventName = RunEvent['type']

export type FetchedBatch = { readonly batch: number; readonly checkpoint: string; readonly more: boolean }

/** The task at work. */
export type Work = {
  readonly task: RunTask
  /** Checkpoint of the latest batch that was given to apply; the next one is asked for from there. */
  readonly reached: string | null
  readonly held: FetchedBatch | null
  /** What was weighed of this task, or is being weighed. */
  readonly weighed: 'nothing' | 'pull' | 'push'
  /** True once the pull began again from zero because the peer did not know our checkpoint. */
  readonly restarted: boolean
  /** True once anything went over the link: what was proved before says nothing about it. */
  readonly moved: boolean
  readonly attention: boolean
  readonly failure: Failure | null
}
