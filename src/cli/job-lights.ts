import type { Alarm, JobRunEntry } from '../store/index.ts'
import type { Finding } from './doctor-checks.ts'
import type { Output } from './output.ts'
import { LIGHT_COLORS, type Light, worst } from './status-lights.ts'
import { ago, cell, duration, plural, time } from './text.ts'

/** A job as the site tells it. */
export type JobView = {
  readonly name: string
  readonly definition: unknown
  readonly enabled: boolean
  readonly nextDue: string | null
  readonly underWay: number
  readonly waitsFor: string | null
  readonly lastResult: string | null
  readonly lastFinishedAt: string | null
  readonly lastSuccessAt: string | null
}

/** One line of the status: a job. */
export type JobLight = {
  readonly job: string
  readonly light: Light
  /** Why it is not green, the worst first; or why it is. */
  readonly why: readonly string[]
  readonly nextDue: string | null
  readonly lastFinishedAt: string | null
  readonly lastSuccessAt: string | null
}

export type JobLightFacts = {
  readonly jobs: readonly JobView[]
  /** Runs that wait for a person, the newest first. */
  readonly dead: readonly JobRunEntry[]
  readonly alarms: readonly Alarm[]
  readonly now: number
}

/** A job that was due for longer than this is late. */
const LATE_MS = 60_000
const SHOWN_MAX = 50

/** Red where a run failed for good, amber where something keeps a job from its work, green where its last run succeeded. */
export function jobLights({ jobs, dead, alarms, now }: JobLightFacts): readonly JobLight[] {
  return jobs
    .toSorted((a, b) => (a.name < b.name ? -1 : 1))
    .map((job) => {
      const raised = alarms.filter(({ code, resource }) => code.startsWith('job-') && resource === job.name)
      const failed = dead.find((run) => run.job === job.name)
      const reasons = [
        ...failedReasons(failed),
        ...alarmReasons(raised, failed),
        ...stateReasons(job, failed !== undefined, now),
      ]
      const { name, nextDue, lastFinishedAt, lastSuccessAt } = job
      const light = worst(reasons.map((reason) => reason.light))
      const inOrder = reasons.toSorted((a, b) => ORDER.indexOf(a.light) - ORDER.indexOf(b.light))
      const why = reasons.length === 0 ? [wellText(job, now)] : inOrder.map(({ text }) => text)
      return { job: name, light, why, nextDue, lastFinishedAt, lastSuccessAt }
    })
}

type Reason = { readonly light: Light; readonly text: string }

const ORDER: readonly Light[] = ['red', 'amber', 'green']
const amber = (text: string): Reason => ({ light: 'amber', text })

function failedReasons(run: JobRunEntry | undefined): readonly Reason[] {
  if (run === undefined) return []
  const { id, job, message, code } = run
  const mend = `to mend: syncline job show ${cell(job)} --run ${id}; then syncline job run ${cell(job)} or syncline job dismiss ${id}`
  return [{ light: 'red', text: `run ${id} failed: ${cell(message ?? code)}; ${mend}` }]
}

function alarmReasons(alarms: readonly Alarm[], failed: JobRunEntry | undefined): readonly Reason[] {
  return alarms
    .filter(({ level, code }) => level !== 'info' && !(code === 'job-failed' && failed !== undefined))
    .map(({ level, text, mend }) => ({
      light: level === 'critical' ? 'red' : 'amber',
      text: `${cell(text)}; to mend: ${cell(mend)}`,
    }))
}

function stateReasons(job: JobView, told: boolean, now: number): readonly Reason[] {
  const { name, enabled, waitsFor, nextDue, lastResult } = job
  const late = nextDue === null ? 0 : now - Date.parse(nextDue)
  const show = `syncline job show ${cell(name)}`
  return [
    ...(waitsFor === null ? [] : [amber(`waits: ${cell(waitsFor)}`)]),
    ...(enabled && late > LATE_MS ? [amber(`was due ${duration(late)} ago, and nothing has taken that up`)] : []),
    ...(enabled ? [] : [amber('is disabled: nothing sets it off but a person')]),
    ...(lastResult === null && nextDue !== null ? [amber('has not run yet')] : []),
    ...(lastResult === 'error' && !told ? [amber(`its last run failed: ${show}`)] : []),
    ...(lastResult === 'stopped' ? [amber(`its last run was stopped: ${show}`)] : []),
    ...(lastResult === 'warning' ? [amber(`its last run ended with a warning: ${show}`)] : []),
  ]
}

function wellText({ lastSuccessAt, underWay }: JobView, now: number): string {
  const told = lastSuccessAt === null ? 'runs when somebody asks' : `succeeded ${ago(lastSuccessAt, now)}`
  return underWay > 0 ? `${told}; ${plural(underWay, 'run')} under way` : told
}

/** The lights of the jobs: how many there are of each, and those that are not green. */
export async function jobLightsText(out: Output, rows: readonly JobLight[]): Promise<readonly string[]> {
  if (rows.length === 0) return []
  const counts = ORDER.map((light) => [light, rows.filter((row) => row.light === light).length] as const)
  const told = counts.filter(([, count]) => count > 0).map(([light, count]) => `${count} ${light}`)
  const others = rows.filter(({ light }) => light !== 'green')
  const table = await out.table(
    ['STATUS', 'JOB', 'LAST RUN', 'NEXT', 'WHY'],
    others
      .slice(0, SHOWN_MAX)
      .map((row) => [
        out.paint(LIGHT_COLORS[row.light], row.light),
        cell(row.job),
        time(row.lastFinishedAt),
        time(row.nextDue),
        row.why.join('; '),
      ]),
  )
  const more = others.length > SHOWN_MAX ? [`and ${others.length - SHOWN_MAX} more: syncline job list`] : []
  return ['', `jobs: ${told.toReversed().join(', ')}`, ...(others.length === 0 ? [] : [table, ...more])]
}

/** What the doctor says of the jobs: each that is not well, with what to do. */
export function jobFindings(rows: readonly JobLight[]): readonly Finding[] {
  if (rows.length === 0) return []
  const bad = rows.filter(({ light }) => light !== 'green')
  if (bad.length === 0)
    return [{ about: 'jobs', state: 'ok', text: `${plural(rows.length, 'job')}, none of which waits or failed` }]
  return bad.map(({ job, light, why }) => {
    const [text = '', mend = `syncline job show ${cell(job)}`] = (why[0] ?? '').split('; to mend: ')
    return { about: `job ${cell(job)}`, state: light === 'red' ? 'fail' : 'warn', text, mend }
  })
}
