import type { Agreement, Peer, ResourceCheck, RunEntry, Task } from '../store/index.ts'
import type { Color } from './output.ts'
import { ago, cell, duration, plural, time, until } from './text.ts'

export type Light = 'green' | 'amber' | 'red'
export const LIGHT_COLORS: Readonly<Record<Light, Color>> = { green: 'green', amber: 'yellow', red: 'red' }

/** Green where there is nothing else. */
export function worst(lights: readonly Light[]): Light {
  return lights.includes('red') ? 'red' : lights.includes('amber') ? 'amber' : 'green'
}

/** One line of the status: a resource synced with a peer, or a peer without a task here. */
export type StatusRow = {
  readonly peer: string
  readonly resource: string | null
  readonly mode: string | null
  readonly light: Light
  /** Why it is not green, the worst first; or why it is. */
  readonly why: readonly string[]
  readonly lastRunAt: string | null
  readonly comparedAt: string | null
  /** When both sites were last found equal, and how many records they held. */
  readonly agreedAt: string | null
  readonly agreedRecords: number | null
  readonly waiting: { readonly conflicts: number; readonly quarantine: number }
}

/** What the status is made of. */
export type StatusFacts = {
  readonly peers: readonly Peer[]
  readonly tasks: readonly Task[]
  /** Last run with each peer, by its name. */
  readonly lastRuns: ReadonlyMap<string, RunEntry>
  /** What the last comparison found, by peer and resource: see `linkKey`. */
  readonly agreements: ReadonlyMap<string, Agreement>
  readonly checks: readonly ResourceCheck[]
  /** What waits, by peer and resource. */
  readonly conflicts: ReadonlyMap<string, number>
  readonly quarantine: ReadonlyMap<string, number>
  /** What a brake of this site has stopped, by peer and resource. */
  readonly stopped: ReadonlySet<string>
  readonly now: number
}

/** A comparison that is older says little about today. */
const COMPARED_AGE_MAX_MS = 24 * 3_600_000
/** A clock that is further off than this is said, whatever else is fine. */
const CLOCK_OFFSET_MAX_MS = 60_000

export function linkKey(peer: string, resource: string): string {
  return `${peer}\n${resource}`
}

/**
 * The lights. Green only where the last run succeeded and a comparison found both sides equal; red where something failed, is in quarantine or
 * was found different; amber for all that is not proved (I9).
 */
export function statusRows(facts: StatusFacts): readonly StatusRow[] {
  return facts.peers.flatMap((peer) => {
    const tasks = facts.tasks.filter((task) => task.peer === peer.name)
    if (tasks.length > 0) return tasks.map((task) => taskRow(peer, task, facts))
    const proved = [...facts.agreements.values()].filter((each) => each.peer === peer.name)
    return proved.length > 0 ? proved.map((each) => servedRow(peer, each, facts)) : [idleRow(peer, facts)]
  })
}

type Reason = { readonly light: Light; readonly text: string }

const red = (text: string): Reason => ({ light: 'red', text })
const amber = (text: string): Reason => ({ light: 'amber', text })

function taskRow(peer: Peer, task: Task, facts: StatusFacts): StatusRow {
  const key = linkKey(peer.name, task.resource)
  const run = facts.lastRuns.get(peer.name)
  const agreement = facts.agreements.get(key)
  const waiting = { conflicts: facts.conflicts.get(key) ?? 0, quarantine: facts.quarantine.get(key) ?? 0 }
  const reasons = [
    ...captureReasons(facts, task.resource),
    ...peerReasons(peer, run, facts.now),
    ...taskReasons(task, run, peer, facts.stopped.has(key)),
    ...waitingReasons(waiting),
    ...(task.enabled ? [] : [amber('the task is disabled')]),
    ...(task.lastRun === null ? [amber('has not run yet')] : []),
    ...comparisonReasons(peer, task.resource, agreement, facts.now),
  ]
  return {
    ...verdict(reasons, proofOf(agreement, facts.now)),
    peer: peer.name,
    resource: task.resource,
    mode: task.mode,
    lastRunAt: task.lastRun?.at ?? null,
    ...proofFields(agreement),
    waiting,
  }
}

/** A resource that a peer without a task here compares with us after its own runs. */
function servedRow(peer: Peer, agreement: Agreement, facts: StatusFacts): StatusRow {
  const { resource } = agreement
  const key = linkKey(peer.name, resource)
  const waiting = { conflicts: facts.conflicts.get(key) ?? 0, quarantine: facts.quarantine.get(key) ?? 0 }
  const reasons = [
    ...captureReasons(facts, resource),
    ...peerReasons(peer, undefined, facts.now),
    ...waitingReasons(waiting),
    ...comparisonReasons(peer, resource, agreement, facts.now),
  ]
  return {
    ...verdict(reasons, proofOf(agreement, facts.now)),
    ...{ peer: peer.name, resource, mode: null, lastRunAt: peer.lastSeenAt, ...proofFields(agreement), waiting },
  }
}

/** A peer that does all the connecting and never compared. */
function idleRow(peer: Peer, facts: StatusFacts): StatusRow {
  const sum = (counts: ReadonlyMap<string, number>) =>
    [...counts].filter(([key]) => key.startsWith(`${peer.name}\n`)).reduce((total, [, n]) => total + n, 0)
  const waiting = { conflicts: sum(facts.conflicts), quarantine: sum(facts.quarantine) }
  const seen = peer.lastSeenAt === null ? 'was never seen' : `was last seen ${ago(peer.lastSeenAt, facts.now)}`
  const reasons = [
    ...peerReasons(peer, undefined, facts.now),
    ...waitingReasons(waiting),
    amber(`no task here; it ${seen} and is compared from there`),
  ]
  return {
    ...verdict(reasons, ''),
    peer: peer.name,
    resource: null,
    mode: null,
    lastRunAt: peer.lastSeenAt,
    ...proofFields(undefined),
    waiting,
  }
}

/** What is wrong with the table and its triggers: one fault of four triggers is said once. */
function captureReasons({ checks }: StatusFacts, resource: string): readonly Reason[] {
  const { faults = [], mends = [] } = checks.find((check) => check.resource === resource) ?? {}
  const [first, ...more] = faults
  if (first === undefined) return []
  const others = more.length === 0 ? '' : ` (and ${more.length} more: syncline resource check ${cell(resource)})`
  return [red(`capture: ${cell(first)}${others}; to mend: ${cell(mends.join('; '))}`)]
}

function peerReasons(peer: Peer, run: RunEntry | undefined, now: number): readonly Reason[] {
  const offset = Math.abs(peer.clockOffsetMs ?? 0)
  const clock = offset > CLOCK_OFFSET_MAX_MS ? [amber(`its clock is ${duration(offset)} off`)] : []
  if (peer.paused) return [amber('the peer is paused'), ...clock]
  // What failed in one resource is told there: the others of the run went on.
  const ended = run?.state === 'interrupted' || run?.state === 'cancelled'
  const failed = (run?.result === 'error' || run?.result === 'fatal') && (peer.failures > 0 || ended)
  if (peer.failures === 0 && !failed) return clock
  const words = failed ? `last run failed: ${cell(run.message ?? run.code ?? run.state)}` : 'the peer fails'
  const again = peer.retryAt === null ? '' : `, again ${until(peer.retryAt, now)}`
  const times = peer.failures > 1 ? ` (${peer.failures} times in a row${again})` : again
  return [red(`${words}${times}`), ...clock]
}

/** What kept this resource from being synced in the last run that came to it, unless it kept everything. */
function taskReasons({ lastRun }: Task, run: RunEntry | undefined, peer: Peer, stopped: boolean): readonly Reason[] {
  if (lastRun === null || lastRun.result === 'success' || lastRun.result === 'warning') return []
  const { code, message } = lastRun
  if (peer.failures > 0 && run?.id === lastRun.runId && run.message === message) return []
  if (code !== 'SYNC_RUN_BRAKED') return [red(`last run failed: ${cell(message ?? code ?? lastRun.result)}`)]
  if (stopped) return []
  // A token in the words is one of this site, and it stops nothing any more.
  const ours = message?.includes('sync --release') === true
  return [ours ? amber('what a brake had stopped goes on with the next run') : red(`stopped: ${cell(message ?? code)}`)]
}

function waitingReasons({ conflicts, quarantine }: StatusRow['waiting']): readonly Reason[] {
  return [
    ...(quarantine > 0 ? [red(`${plural(quarantine, 'record')} in quarantine`)] : []),
    ...(conflicts > 0 ? [amber(`${plural(conflicts, 'conflict')} to decide`)] : []),
  ]
}

/** Green needs a proof: the last word of a comparison, on everything that was written, not older than a day. */
function comparisonReasons(
  peer: Peer,
  resource: string,
  agreement: Agreement | undefined,
  now: number,
): readonly Reason[] {
  const command = `syncline verify ${cell(peer.name)} ${cell(resource)}`
  if (agreement === undefined) return [amber(`never compared: ${command}`)]
  const { verdict, reason, comparedAt, differing, agreedAt, changedSince } = agreement
  const because = reason === null ? '' : `: ${cell(reason)}`
  const before = agreedAt === null ? 'not equal yet' : `last ${proofOf(agreement, now)}`
  const old = now - Date.parse(comparedAt) > COMPARED_AGE_MAX_MS
  switch (verdict) {
    case 'different': {
      const many = differing === null ? 'different' : `${plural(differing, 'record')} differ`
      const deep = reason?.includes('values') === true ? ' --deep' : ''
      return [red(`${many}${because}; ${before}; to mend: ${command}${deep} --repair`)]
    }
    case 'waiting':
      return [amber(`differs${because}; ${before}`)]
    case 'unknown':
      return [amber(`could not be proved${because}; ${before}`)]
    default:
      if (old) return [amber(`${before}, which is too long ago: ${command}`)]
      return changedSince ? [amber(`changes wait for the next run; ${before}`)] : []
  }
}

/** When both sites held the same, and how much that was: equal at 03:14:05, 171,075 records. */
function proofOf(agreement: Agreement | undefined, now: number): string {
  if (agreement === undefined || agreement.agreedAt === null) return 'never equal'
  const [day = '', clock = ''] = time(agreement.agreedAt).split(' ')
  const [today = ''] = time(new Date(now).toISOString()).split(' ')
  const records = agreement.agreedRecords === null ? '' : `, ${plural(agreement.agreedRecords, 'record')}`
  return `equal at ${day === today ? clock : `${day} ${clock}`}${records}`
}

function proofFields(agreement: Agreement | undefined): Pick<StatusRow, 'comparedAt' | 'agreedAt' | 'agreedRecords'> {
  const { comparedAt = null, agreedAt = null, agreedRecords = null } = agreement ?? {}
  return { comparedAt, agreedAt, agreedRecords }
}

function verdict(reasons: readonly Reason[], proof: string): Pick<StatusRow, 'light' | 'why'> {
  const order: readonly Light[] = ['red', 'amber', 'green']
  const sorted = reasons.toSorted((a, b) => order.indexOf(a.light) - order.indexOf(b.light))
  return { light: sorted[0]?.light ?? 'green', why: sorted.length === 0 ? [proof] : sorted.map(({ text }) => text) }
}
