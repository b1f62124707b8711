import { sql, type Transaction } from 'kysely'
import type { BatchReport, Outcome, Rejection } from '../sync/index.ts'
import type { Database } from './schema.ts'

/** Rejections listed in a report; the counts are always complete. */
const REJECTIONS_MAX = 1_000

const OUTCOMES: Readonly<Record<string, Outcome>> = {
  n: 'applied',
  f: 'applied',
  v: 'merged',
  s: 'known',
  l: 'skipped',
  r: 'skipped',
  a: 'conflict',
  w: 'quarantined',
  b: 'quarantined',
  q: 'quarantined',
  o: 'refused',
}

const REASONS: Readonly<Record<string, string>> = {
  v: 'changed on both sides; settled by policy, the values here stayed',
  f: 'changed on both sides; settled by policy, the values here were replaced and kept in history',
  a: 'changed on both sides; waits for a person',
  l: 'no longer matches the filter of this link',
  r: 'no longer matches the filter of this link; removed here and kept in history',
}

/** What became of the staged records. Records written here by hand wait nowhere: what would be quarantined is refused. */
export async function reportStaged(trx: Transaction<Database>, byHand: boolean): Promise<BatchReport> {
  const counts = { ...emptyReport().counts }
  const { rows } = await sql<{ class: string; announce: boolean; count: number }>`
    select class::text, announce, count(*)::int from pg_temp.syncline_stage group by 1, 2`.execute(trx)
  for (const row of rows) counts[outcomeOf(row, byHand)] += row.count
  if (counts.applied + counts.known === rows.reduce((sum, row) => sum + row.count, 0))
    return { counts, rejections: [], truncated: false }
  const listed = await sql<{
    id: string
    class: string
    code: string | null
    reason: string | null
    announce: boolean
  }>`
    select id, class::text, code, reason, announce from pg_temp.syncline_stage
     where class not in ('n', 's') and (class <> 'f' or announce) order by n limit ${REJECTIONS_MAX + 1}`.execute(trx)
  const rejections = listed.rows.slice(0, REJECTIONS_MAX).map((row): Rejection => {
    return {
      id: row.id,
      outcome: outcomeOf(row, byHand) as Rejection['outcome'],
      ...(row.code === null ? {} : { code: row.code }),
      reason: row.reason ?? REASONS[row.class] ?? '',
    }
  })
  return { counts, rejections, truncated: listed.rows.length > REJECTIONS_MAX }
}

/** What is announced although it was written is the outcome of a conflict. */
function outcomeOf(row: { readonly class: string; readonly announce: boolean }, byHand: boolean): Outcome {
  if (row.class === 'f' && row.announce) return 'merged'
  const outcome = OUTCOMES[row.class] ?? 'refused'
  return outcome === 'quarantined' && byHand ? 'refused' : outcome
}

export function emptyReport(): BatchReport {
  return {
    counts: { applied: 0, known: 0, skipped: 0, merged: 0, conflict: 0, quarantined: 0, refused: 0 },
    rejections: [],
    truncated: false,
  }
}
