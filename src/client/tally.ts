import type { BatchReport, Outcome, Verdict } from '../sync/index.ts'

/** What one run did, as it is kept with the run. The counts of `pushed` are the peer's answers. */
export type RunCounts = {
  pulled: number
  applied: number
  merged: number
  known: number
  conflicts: number
  quarantined: number
  refused: number
  pushed: number
  pushApplied: number
  pushConflicts: number
  pushQuarantined: number
  pushRefused: number
  bytesIn: number
  bytesOut: number
  /** Resources that were compared, and those of them that differ without a reason. */
  compared: number
  different: number
}

export function emptyCounts(): RunCounts {
  const pulled = { pulled: 0, applied: 0, merged: 0, known: 0, conflicts: 0, quarantined: 0, refused: 0, bytesIn: 0 }
  return {
    ...pulled,
    pushed: 0,
    pushApplied: 0,
    pushConflicts: 0,
    pushQuarantined: 0,
    pushRefused: 0,
    bytesOut: 0,
    compared: 0,
    different: 0,
  }
}

export function countPulled(counts: RunCounts, report: BatchReport, changes: number, bytes: number): void {
  const { applied, merged, known, skipped, conflict, quarantined, refused } = report.counts
  counts.pulled += changes
  counts.applied += applied
  counts.merged += merged
  counts.known += known + skipped
  counts.conflicts += conflict
  counts.quarantined += quarantined
  counts.refused += refused
  counts.bytesIn += bytes
}

export function countPushed(counts: RunCounts, report: BatchReport, changes: number, bytes: number): void {
  const { applied, merged, conflict, quarantined, refused } = report.counts
  counts.pushed += changes
  counts.pushApplied += applied + merged
  counts.pushConflicts += conflict
  counts.pushQuarantined += quarantined
  counts.pushRefused += refused
  counts.bytesOut += bytes
}

export function countCompared(counts: RunCounts, verdict: Verdict): void {
  counts.compared += 1
  if (verdict === 'different') counts.different += 1
}

const WORDS: Readonly<Record<Outcome, string>> = {
  applied: 'applied',
  merged: 'merged',
  known: 'known already',
  skipped: 'skipped',
  conflict: 'in conflict',
  quarantined: 'in quarantine',
  refused: 'refused',
}

/** One sentence about a batch for the log, such as "1000 changes: 990 applied, 10 known already". */
export function sentence(changes: number, report: BatchReport): string {
  const parts = (Object.entries(report.counts) as [Outcome, number][])
    .filter(([, count]) => count > 0)
    .map(([outcome, count]) => `${count} ${WORDS[outcome]}`)
  const first = report.rejections.find(({ outcome }) => outcome === 'quarantined' || outcome === 'refused')
  const why = first === undefined ? '' : `; first: ${first.id}: ${first.reason}`
  return `${changes} ${changes === 1 ? 'change' : 'changes'}: ${parts.join(', ') || 'none'}${why}`.slice(0, 2_000)
}
