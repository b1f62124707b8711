import { setTimeout as sleep } from 'node:timers/promises'
import { beginJobStep, type Store, saveJobStep, type TakenRun } from '../store/index.ts'
import { ERRORS, type ErrorCode, mayRetryLater, SynclineError } from '../sync/index.ts'
import type { Step } from './definition.ts'
import { after } from './long-timer.ts'
import { createOutput } from './output.ts'
import { persist } from './persist.ts'
import type { Stage } from './plan.ts'
import type { StepEnd, StepHandler, StepPlan, StepProgress, StepResult, StepSite } from './step.ts'

/** One try of one step: its time, its output, its progress, its end. */

export type StepRunDeps = {
  readonly store: Store
  readonly site: StepSite
  readonly handlers: ReadonlyMap<string, StepHandler<unknown>>
  readonly onError: (error: unknown) => void
}

export type StepTry = {
  readonly run: TakenRun
  readonly step: Step
  readonly stage: Stage
  readonly place: number
  readonly attempt: number
  readonly outputBytes: number
  readonly before: Readonly<Record<string, StepEnd>>
  /** Ends the step from outside. */
  readonly signal: AbortSignal
  readonly progress: (progress: StepProgress) => void
}

export type StepOutcome = {
  readonly result: StepResult['result']
  readonly message: string
  readonly code: ErrorCode | undefined
  readonly again: boolean | undefined
  readonly counts: Readonly<Record<string, number>>
  /** The handler threw instead of reporting. */
  readonly threw: boolean
  readonly durationMs: number
}

/** How often what a step says is written down while it runs. */
const FLUSH_MS = 1_000
/** A handler that does not heed its signal is given up so long after what it grants to what it started. */
const GIVE_UP_MS = 30_000
const GIVE_UP_MAX_MS = 2 ** 31 - 1
/** Nobody waits for ever at the end of a run. */
const ALWAYS_SECONDS = 600

/** Performs a try; never throws for what the step does, only when the database does not take it. */
export async function runStep(deps: StepRunDeps, given: StepTry): Promise<StepOutcome> {
  const { run, step, stage, place, attempt, outputBytes } = given
  const { db } = deps.store
  const began = performance.now()
  const about = { runId: run.id, stage, place, name: step.name, kind: step.kind, attempt, host: deps.site.host }
  const id = await persist(() => beginJobStep(db, about))
  const output = createOutput(outputBytes)
  let saved = 0
  let saving: Promise<void> = Promise.resolve()
  const flush = () => {
    if (output.version() === saved) return
    saved = output.version()
    saving = saving.then(() => saveJobStep(db, id, output.text())).catch(deps.onError)
  }
  const timer = setInterval(flush, FLUSH_MS)
  try {
    const outcome = await within(deps, given, output.add)
    await saving
    const { result, message, counts } = outcome
    const end = { result, code: outcome.code ?? null, message, counts }
    await persist(() => saveJobStep(db, id, output.text(), end))
    return { ...outcome, durationMs: performance.now() - began }
  } finally {
    clearInterval(timer)
  }
}

/** The handler's work under a time limit, bounded even when it does not heed its signal. */
async function within(
  deps: StepRunDeps,
  given: StepTry,
  say: (line: string) => void,
): Promise<Omit<StepOutcome, 'durationMs'>> {
  const { step, signal, stage } = given
  const handler = deps.handlers.get(step.kind)
  if (handler === undefined)
    return failure('SYNC_JOB_FAILED', `this site does not know steps of the kind ${step.kind}`, false)
  const limit = new AbortController()
  const seconds = step.limitSeconds ?? (stage === 'always' ? ALWAYS_SECONDS : null)
  const over = new Error(`the time limit of ${seconds} s is over`)
  const endTimer = seconds === null ? () => {} : after(seconds * 1000, () => limit.abort(over))
  const either = AbortSignal.any([signal, limit.signal])
  try {
    const work = perform(deps, handler, given, say, either)
    const result = await Promise.race([work, givenUp(either, handler.graceMs?.(step.settings) ?? 0)])
    if (result.result === 'error' && limit.signal.aborted && !signal.aborted)
      return { ...failure('SYNC_JOB_TIME_LIMIT', over.message, undefined), counts: result.counts ?? {} }
    const { message, code, again, counts = {} } = result
    return { result: result.result, message, code: codeOf(code), again, counts, threw: false }
  } catch (error) {
    if (signal.aborted) return { ...failure('SYNC_JOB_FAILED', reasonOf(signal.reason), undefined), threw: true }
    if (limit.signal.aborted) return { ...failure('SYNC_JOB_TIME_LIMIT', over.message, undefined), threw: true }
    if (error instanceof SynclineError)
      return { ...failure(error.code, error.message, mayRetryLater(error.code) ? undefined : false), threw: true }
    return { ...failure('SYNC_JOB_FAILED', reasonOf(error), undefined), threw: true }
  } finally {
    endTimer()
  }
}

async function perform(
  { site }: StepRunDeps,
  handler: StepHandler<unknown>,
  { run, step, attempt, before, progress }: StepTry,
  say: (line: string) => void,
  signal: AbortSignal,
): Promise<StepResult> {
  const now = () => Date.now()
  const about = { signal, job: run.job, step: step.name, site, now }
  if (!run.dryRun) return handler.run(step.settings, { ...about, runId: run.id, attempt, before, say, progress })
  const plan = await handler.plan(step.settings, about)
  for (const line of planLines(plan)) say(line)
  const counts = { ...(plan.files != null && { files: plan.files }), ...(plan.bytes != null && { bytes: plan.bytes }) }
  return { result: 'success', message: `dry run: ${plan.summary}`, counts }
}

/** A plan as lines of text. */
export function planLines({ summary, argv = [], files, bytes, notes = [] }: StepPlan): readonly string[] {
  return [
    summary,
    ...argv.map(
      (words) => `  ${words.map((word) => (/^[\w@%+=:,./-]+$/.test(word) ? word : JSON.stringify(word))).join(' ')}`,
    ),
    ...(files == null ? [] : [`  ${files} files${bytes == null ? '' : `, ${bytes} bytes`}`]),
    ...notes.map((note) => `  ${note}`),
  ]
}

async function givenUp(signal: AbortSignal, graceMs: number): Promise<never> {
  await new Promise<void>((resolve) => {
    if (signal.aborted) resolve()
    else signal.addEventListener('abort', () => resolve(), { once: true })
  })
  await sleep(Math.min(GIVE_UP_MS + graceMs, GIVE_UP_MAX_MS), undefined, { ref: false })
  throw new Error('the step did not end when it was asked to')
}

function failure(code: ErrorCode, message: string, again: boolean | undefined) {
  return { result: 'error' as const, message, code, again, counts: {}, threw: false }
}

function codeOf(code: string | undefined): ErrorCode | undefined {
  return code !== undefined && Object.hasOwn(ERRORS, code) ? (code as ErrorCode) : undefined
}

function reasonOf(error: unknown): string {
  return error instanceof Error ? error.message : String(error)
}
