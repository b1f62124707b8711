/** What is told of runs of jobs: each is a line of the log and some numbers. */
export type JobEvents = {
  readonly jobBlocked: (event: { readonly job: string; readonly runId: string; readonly reason: string }) => void
  readonly jobStarted: (event: {
    readonly job: string
    readonly runId: string
    readonly cause: string
    readonly resumed: boolean
    readonly leases: number
    /** From the due time, or the wish of a person, to the begin. */
    readonly lateMs: number
  }) => void
  readonly jobStepEnded: (event: {
    readonly job: string
    readonly runId: string
    readonly step: string
    readonly kind: string
    readonly attempt: number
    readonly result: string
    readonly message: string
    readonly durationMs: number
    readonly code?: string
    readonly threw: boolean
    readonly counts: Readonly<Record<string, number>>
    readonly retryMs?: number
  }) => void
  readonly jobFinished: (event: {
    readonly job: string
    readonly runId: string
    readonly result: string
    readonly dryRun: boolean
    readonly durationMs: number
    readonly blockedMs: number
    /** Leases that it held. */
    readonly leases: number
    readonly code?: string
    readonly message?: string
  }) => void
  /** At most once a second while a step tells how far it is. */
  readonly jobProgressed: (event: {
    readonly job: string
    readonly runId: string
    readonly step: string
    readonly progress: Readonly<Record<string, number>>
  }) => void
  /** Another process goes on with it, or this one when it is there again. */
  readonly jobGivenBack: (event: {
    readonly job: string
    readonly runId: string
    readonly reason: string
    readonly leases: number
  }) => void
}
