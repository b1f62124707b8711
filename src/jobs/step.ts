/**
 * What the job engine asks of those who do the work. The composition root (src/site.ts) gives it one handler for each kind of step, and one
 * keeper for each kind of lease that is not in the database; the schema of a job is put together from theirs (src/jobs/definition.ts).
 */

/** A JSON Schema (draft 2020-12), as plain data. */
export type JsonSchema = Readonly<Record<string, unknown>>

/** Something wrong in a definition. `path` is a JSON Pointer below what was checked, such as `/from/0`. */
export type Fault = { readonly path: string; readonly message: string }

/** How far a step is. What nobody knows is null. `rate` is bytes in a second. */
export type StepProgress = {
  readonly bytes: number | null
  readonly total: number | null
  readonly files: number | null
  readonly rate: number | null
  readonly secondsLeft: number | null
}

/** Who is at work, for those who leave a trace of it elsewhere. */
export type StepSite = { readonly uuid: string; readonly name: string; readonly host: string; readonly pid: number }

export type StepContext = {
  /** Aborts when the job is stopped, its time is over or the site ends; the reason is an Error. All that was started ends with it. */
  readonly signal: AbortSignal
  readonly runId: string
  readonly job: string
  /** Name of the step in its job. */
  readonly step: string
  /** 1 for the first try of this step in this run. */
  readonly attempt: number
  readonly site: StepSite
  /** What became of the steps before, by name. */
  readonly before: Readonly<Record<string, StepEnd>>
  /** A line of output. Kept up to a bound: the beginning and the end. */
  readonly say: (line: string) => void
  /** May be called as often as there is something new. */
  readonly progress: (progress: StepProgress) => void
  /** Milliseconds since 1970. */
  readonly now: () => number
}

/** What a step is asked before anything is run, and all it is asked in a dry run: it writes nothing, here or elsewhere. */
export type PlanContext = Pick<StepContext, 'signal' | 'job' | 'step' | 'site' | 'now'>

export type StepPlan = {
  /** One sentence: what would be done. */
  readonly summary: string
  /** Exactly what would be started, one list of arguments for each program. */
  readonly argv?: readonly (readonly string[])[]
  /** How much would be moved, where that can be known. */
  readonly files?: number | null
  readonly bytes?: number | null
  /** More to know, such as why something cannot be told. */
  readonly notes?: readonly string[]
}

/**
 * How a step ended that came to an end. `warning` goes on like success and is shown. `error` fails the step; `again: false` says that trying
 * again is of no use. Counts become metrics and history: use `bytes`, `files`, `deleted` where they are meant.
 */
export type StepResult = {
  readonly result: 'success' | 'warning' | 'error'
  readonly message: string
  /** An error code of the table, where one fits. */
  readonly code?: string
  readonly again?: boolean
  readonly counts?: Readonly<Record<string, number>>
}

/** A step that has ended, as later steps may look at it. */
export type StepEnd = Pick<StepResult, 'result' | 'message'> & { readonly counts: Readonly<Record<string, number>> }

/**
 * One kind of step. In a definition its settings stand under its kind: `{ name: copy, transfer: { … } }`. What `run` throws fails the step
 * like `error`; a SynclineError keeps its code, and is tried again when its code may be.
 */
export type StepHandler<Settings = never> = {
  readonly kind: string
  /** Of the settings. Objects in it refuse what they do not know; every member has a description. */
  readonly schema: JsonSchema
  /** What a schema cannot say. Called only for settings that fit the schema. */
  readonly check?: (settings: Settings) => readonly Fault[]
  /** True for settings with which a step that was cut off (its process died) may be begun again without asking. */
  readonly repeatable: (settings: Settings) => boolean
  /** Peers that the step has to do with; limits of runs per peer count by them. */
  readonly peers?: (settings: Settings) => readonly string[]
  /** How long what it started may take to end when it is asked to; a run is not over before that. Half a minute when absent. */
  readonly graceMs?: (settings: Settings) => number
  readonly plan: (settings: Settings, context: PlanContext) => Promise<StepPlan>
  readonly run: (settings: Settings, context: StepContext) => Promise<StepResult>
}

/** Who takes a lease. The token is what counts: whoever shows it may take again, renew and release, also from another process. */
export type LeaseClaim = {
  readonly token: string
  readonly runId: string
  readonly job: string
  readonly site: StepSite
  /** Without a renewal for so long the lease is stale. */
  readonly ttlSeconds: number
}

/** `reason` is for the person who wonders why nothing goes on: who holds it, where, since when. */
export type Taken = { readonly taken: true } | { readonly taken: false; readonly reason: string }
export type Seen = { readonly free: true } | { readonly free: false; readonly reason: string }

/**
 * Leases that live elsewhere: lock files on this and other hosts (`file`), leases of a peer (`peer`). In a definition the settings stand under
 * the kind, in `gates` as well as in `leases`: `{ file: { path: /srv/x.lock, host: backup01 } }`. Nothing is kept in the process: each call
 * has all it needs. What is thrown while looking or taking counts as blocked, with its message as the reason.
 */
export type HostLease<Where = never> = {
  readonly kind: string
  readonly schema: JsonSchema
  readonly check?: (where: Where) => readonly Fault[]
  readonly peers?: (where: Where) => readonly string[]
  /** Names the lease for people, and alike for all who mean the same one: several are taken in the order of these names. */
  readonly label: (where: Where) => string
  /** Free or not, without changing anything. */
  readonly look: (where: Where, signal: AbortSignal) => Promise<Seen>
  readonly take: (where: Where, claim: LeaseClaim, signal: AbortSignal) => Promise<Taken>
  /** False when the lease is no longer this claim's. */
  readonly renew: (where: Where, claim: LeaseClaim, signal: AbortSignal) => Promise<boolean>
  /** Only what this claim holds; nothing happens when it holds nothing. */
  readonly release: (where: Where, claim: LeaseClaim, signal: AbortSignal) => Promise<void>
}
