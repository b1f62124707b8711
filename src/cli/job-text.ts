import type { JobRunEntry, JobStepEntry } from '../store/index.ts'
import type { ProgressStep } from './output.ts'
import { bytes, cell, count, duration, plainLines, time } from './text.ts'

/** How jobs and their runs look to a person. */

type Guarded = { readonly label: string; readonly free: boolean; readonly reason: string | null }

export type Planned = {
  readonly job: string
  readonly dryRun: boolean
  readonly gates: readonly Guarded[]
  readonly leases: readonly Guarded[]
  readonly steps: readonly {
    readonly name: string
    readonly kind: string
    readonly stage: 'steps' | 'always'
    readonly plan: {
      readonly summary: string
      readonly argv?: readonly (readonly string[])[]
      readonly files?: number | null
      readonly bytes?: number | null
      readonly notes?: readonly string[]
    } | null
    readonly failure: string | null
  }[]
}

export function planText({ job, dryRun, gates, leases, steps }: Planned): string {
  const guard = (what: string) => (each: Guarded) =>
    `${what} ${cell(each.label)}: ${each.free ? 'free' : `not free, ${cell(each.reason)}`}`
  return [
    `${cell(job)}${dryRun ? ' (only tells what it would do, unless run with --execute)' : ''}`,
    ...gates.map(guard('gate')),
    ...leases.map(guard('lease')),
    ...steps.flatMap(({ name, stage, plan, failure }) => [
      `${stage === 'always' ? 'always' : 'step'} ${cell(name)}: ${cell(plan?.summary ?? failure)}`,
      ...(plan?.argv ?? []).map((words) => `  ${words.map(quoted).join(' ')}`),
      ...(plan?.files == null
        ? []
        : [`  ${count(plan.files)} files${plan.bytes == null ? '' : `, ${bytes(plan.bytes)}`}`]),
      ...(plan?.notes ?? []).map((note) => `  ${cell(note)}`),
    ]),
  ].join('\n')
}

/** One line for a run in a list. */
export function runLine(run: JobRunEntry): string {
  const took =
    run.startedAt === null || run.finishedAt === null
      ? ''
      : ` in ${duration(Date.parse(run.finishedAt) - Date.parse(run.startedAt))}`
  const why = run.reason ?? run.message ?? ''
  const extra = [
    run.dryRun ? 'dry run' : '',
    run.coalesced > 0 ? `stands for ${run.coalesced} more` : '',
    run.dead ? 'waits for a person' : '',
  ].filter((part) => part !== '')
  return `run ${run.id}  ${time(run.startedAt ?? run.queuedAt)}  ${run.cause}  ${run.result ?? run.phase}${took}${extra.length === 0 ? '' : `  (${extra.join(', ')})`}${why === '' ? '' : `  ${cell(why)}`}`
}

export function runText(run: JobRunEntry, steps: readonly JobStepEntry[]): string {
  const counts = Object.entries(run.counts).map(
    ([what, value]) => `${what} ${what === 'bytes' ? bytes(value) : count(value)}`,
  )
  return [
    runLine(run),
    ...(counts.length === 0 ? [] : [counts.join(', ')]),
    ...steps.flatMap((step) => [
      `${step.stage === 'always' ? 'always' : 'step'} ${cell(step.name)}${step.attempt > 1 ? ` (try ${step.attempt})` : ''}: ${step.result ?? 'runs'}${step.message === null ? '' : `, ${cell(step.message)}`}`,
      ...(step.output === '' ? [] : [plainLines(step.output.trimEnd()).replace(/^/gm, '  ')]),
    ]),
  ].join('\n')
}

/** What a bar shows of a run. */
export function progressOf(run: JobRunEntry): ProgressStep {
  if (run.phase !== 'running') return { step: run.reason === null ? run.phase : `${run.phase}: ${run.reason}` }
  const told = run.progress as Readonly<Record<string, unknown>> | null
  const value = (key: string) => (typeof told?.[key] === 'number' ? (told[key] as number) : undefined)
  const [done, total, rate, left] = [value('bytes'), value('total'), value('rate'), value('secondsLeft')]
  const detail = [
    rate === undefined ? '' : `${bytes(rate)}/s`,
    left === undefined ? '' : `${duration(left * 1000)} left`,
  ].filter((part) => part !== '')
  return {
    step: typeof told?.step === 'string' ? told.step : (run.reason ?? 'running'),
    ...(detail.length > 0 && { detail: detail.join(', ') }),
    ...(done !== undefined && { done }),
    ...(total !== undefined && { total }),
  }
}

/** As a shell would have to be told it; for reading only. */
function quoted(word: string): string {
  return /^[\w@%+=:,./-]+$/.test(word) ? word : `'${cell(word).replaceAll("'", `'\\''`)}'`
}
