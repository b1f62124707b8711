import { type Kysely, sql } from 'kysely'
import { inTransaction } from './registry/index.ts'
import type { Database } from './schema.ts'

/** Tries of steps, as the process that performs them writes them down. */

export type StepBegin = {
  readonly runId: string
  readonly stage: 'steps' | 'always'
  readonly place: number
  readonly name: string
  readonly kind: string
  readonly attempt: number
  readonly host: string
}

/** Opens a try of a step; one that was left open by a lost process is closed. Gives its id. */
export async function beginJobStep(db: Kysely<Database>, step: StepBegin): Promise<string> {
  return inTransaction(db, async (trx) => {
    await trx
      .updateTable('syncline.job_step')
      .set({
        finished_at: sql<string>`clock_timestamp()`,
        result: 'error',
        code: 'SYNC_JOB_INTERRUPTED',
        message: 'its process ended in the middle of it',
      })
      .where('run_id', '=', step.runId)
      .where('finished_at', 'is', null)
      .execute()
    const { runId, ...rest } = step
    const row = await trx
      .insertInto('syncline.job_step')
      .values({ run_id: runId, ...rest, result: null, code: null, message: null })
      .returning('id')
      .executeTakeFirstOrThrow()
    return row.id
  })
}

/** What a step has said so far; with an end, how it ended. */
export async function saveJobStep(
  db: Kysely<Database>,
  id: string,
  output: string,
  end?: {
    readonly result: 'success' | 'warning' | 'error'
    readonly code: string | null
    readonly message: string
    readonly counts: Readonly<Record<string, number>>
  },
): Promise<void> {
  await db
    .updateTable('syncline.job_step')
    .set({ output: storable(output) ?? '' })
    .$if(end !== undefined, (update) =>
      update.set({
        finished_at: sql<string>`clock_timestamp()`,
        result: end?.result ?? null,
        code: end?.code ?? null,
        message: storable(end?.message ?? null),
        counts: JSON.stringify(end?.counts ?? {}),
      }),
    )
    .where('id', '=', id)
    .where('finished_at', 'is', null)
    .execute()
}

/** What steps of a run ended as so far, by name: for a process that goes on with it. */
export async function endedSteps(
  db: Kysely<Database>,
  runId: string,
): Promise<
  readonly {
    readonly stage: 'steps' | 'always'
    readonly place: number
    readonly attempt: number
    readonly name: string
    readonly result: 'success' | 'warning' | 'error'
    readonly message: string
    readonly counts: Readonly<Record<string, number>>
  }[]
> {
  const rows = await db
    .selectFrom('syncline.job_step')
    .select(['stage', 'place', 'attempt', 'name', 'result', 'message', 'counts'])
    .where('run_id', '=', runId)
    .where('finished_at', 'is not', null)
    .orderBy('id')
    .execute()
  return rows.map(({ result, message, ...row }) => ({ ...row, result: result ?? 'error', message: message ?? '' }))
}

const TEXT_MAX = 8_388_608

/** PostgreSQL's text has no place for NUL. */
export function storable(text: string | null): string | null {
  return text === null ? null : text.slice(0, TEXT_MAX).replaceAll('\0', '\uFFFD')
}
