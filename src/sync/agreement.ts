import type { Mode } from './record.ts'

/**
 * equal: both sites hold the same · waiting: they differ, and what waits explains why · different: they differ and nothing explains it ·
 * unknown: it could not be found out.
 */
export type Verdict = 'equal' | 'waiting' | 'different' | 'unknown'

export const VERDICTS: readonly Verdict[] = ['equal', 'waiting', 'different', 'unknown']

/**
 * What explains a difference on one side of a resource: changes that the other does not have yet, records in quarantine, open conflicts. What a person
 * gave up waits no more, and the sites differ by it until the record changes. Counted up to a bound.
 */
export type Waiting = {
  readonly changes: number
  readonly quarantine: number
  readonly discarded: number
  readonly conflicts: number
}

/** Sum of hashes over some records and how many they are. `sum` is decimal digits. */
export type Total = { readonly records: number; readonly sum: string }

export const NOTHING_WAITS: Waiting = { changes: 0, quarantine: 0, discarded: 0, conflicts: 0 }

/** Counting of what waits ends here. */
export const WAITING_MAX = 1_000

/** Additive: the same totals mean the same records, and two equal differences do not cancel each other. */
export function sameTotal(a: Total, b: Total): boolean {
  return a.records === b.records && BigInt(a.sum) === BigInt(b.sum)
}

/** What two totals of one resource mean, and in words why they differ. `mode` is that of the task, seen from here. */
export function judgeTotals(found: {
  readonly here: Total
  readonly there: Total
  readonly waitingHere: Waiting
  readonly waitingThere: Waiting
  readonly mode: Mode
}): { readonly verdict: Verdict; readonly reason: string | null } {
  const { here, there, waitingHere, waitingThere, mode } = found
  if (sameTotal(here, there)) return { verdict: 'equal', reason: null }
  const reasons = [...wordsOf(waitingHere, 'here'), ...wordsOf(waitingThere, 'at the peer')]
  if (reasons.length > 0) return { verdict: 'waiting', reason: reasons.join('; ') }
  const counts = `${number(here.records)} records here, ${number(there.records)} at the peer`
  if (mode !== 'both') {
    const way = mode === 'pull' ? 'pulls' : 'pushes'
    return { verdict: 'unknown', reason: `${counts}; the task only ${way}, so that one side may hold more` }
  }
  return { verdict: 'different', reason: here.records === there.records ? 'other versions of some records' : counts }
}

function wordsOf({ changes, quarantine, discarded, conflicts }: Waiting, where: string): readonly string[] {
  const some = (count: number, one: string, many: string) =>
    count === 0
      ? []
      : [
          `${count >= WAITING_MAX ? `${number(WAITING_MAX)} or more` : number(count)} ${count === 1 ? one : many} ${where}`,
        ]
  return [
    ...some(changes, 'change waits', 'changes wait'),
    ...some(quarantine, 'record in quarantine', 'records in quarantine'),
    ...some(discarded, 'record given up', 'records given up'),
    ...some(conflicts, 'conflict open', 'conflicts open'),
  ]
}

function number(count: number): string {
  return count.toLocaleString('en-US')
}
