import { type Kysely, type Selectable, sql } from 'kysely'
import { type Json, SynclineError } from '../sync/index.ts'
import { inTransaction, isoTime, olderThan, type Page, type PageQuery, pageBounds, toPage } from './registry/index.ts'
import type { Database } from './schema.ts'

/** A job as it was defined, and what became of it so far. */
export type JobEntry = {
  readonly id: number
  readonly name: string
  /** As people wrote it. */
  readonly definition: Json
  /** Goes up with every change. */
  readonly revision: number
  readonly enabled: boolean
  /** What sets it off besides times. */
  readonly events: readonly string[]
  readonly createdAt: string
  readonly changedAt: string
  readonly nextDue: string | null
  readonly lastResult: string | null
  readonly lastFinishedAt: string | null
  readonly lastSuccessAt: string | null
}

/** A definition that was checked, with what follows from it. */
export type CheckedJob = {
  readonly name: string
  readonly definition: Json
  readonly enabled: boolean
  readonly events: readonly string[]
  /** When it is due first, from now on. */
  readonly nextDue: Date | null
}

export type JobChange = {
  readonly name: string
  readonly does: 'add' | 'change' | 'remove' | 'keep'
}

/** What applying these definitions would do. With `prune` jobs that are not among them are removed. */
export async function compareJobs(
  db: Kysely<Database>,
  jobs: readonly CheckedJob[],
  prune: boolean,
): Promise<readonly JobChange[]> {
  const known = new Map((await allJobs(db)).map((job) => [job.name, job]))
  const named = new Set(jobs.map(({ name }) => name))
  const wanted = jobs.map(({ name, definition }): JobChange => {
    const before = known.get(name)
    if (before === undefined) return { name, does: 'add' }
    return { name, does: same(before.definition, definition) ? 'keep' : 'change' }
  })
  const gone = prune ? [...known.keys()].filter((name) => !named.has(name)) : []
  return [...wanted, ...gone.map((name): JobChange => ({ name, does: 'remove' }))]
}

/** Makes jobs what these definitions say, all in one commit. Runs that are under way go on as they began. */
export async function applyJobs(
  db: Kysely<Database>,
  jobs: readonly CheckedJob[],
  prune: boolean,
): Promise<readonly JobChange[]> {
  return inTransaction(db, async (trx) => {
    // Two who apply at once would each see the state before the other.
    await sql`select pg_advisory_xact_lock(hashtextextended('syncline.job_definition', 0))`.execute(trx)
    const changes = await compareJobs(trx, jobs, prune)
    for (const job of jobs) {
      const does = changes.find(({ name }) => name === job.name)?.does
      if (does === 'add') await insertJob(trx, job)
      if (does === 'change') await changeJob(trx, job)
    }
    for (const { name } of changes.filter(({ does }) => does === 'remove')) await removeJob(trx, name)
    return changes
  })
}

async function insertJob(db: Kysely<Database>, job: CheckedJob): Promise<void> {
  await db
    .insertInto('syncline.job_definition')
    .values({ name: job.name, ...columnsOf(job), last_result: null })
    .execute()
}

async function changeJob(db: Kysely<Database>, job: CheckedJob): Promise<void> {
  await db
    .updateTable('syncline.job_definition')
    .set({
      ...columnsOf(job),
      revision: sql<number>`revision + 1`,
      considered_at: sql<string>`clock_timestamp()`,
      changed_at: sql<string>`clock_timestamp()`,
    })
    .where('name', '=', job.name)
    .execute()
}

function columnsOf({ definition, enabled, events, nextDue }: CheckedJob) {
  return {
    definition: JSON.stringify(definition),
    enabled,
    events: [...events],
    next_due: nextDue === null ? null : nextDue.toISOString(),
  }
}

/** Takes a job away; its history stays until it is pruned. Errors: SYNC_REQUEST_NOT_FOUND, SYNC_REQUEST_CHANGED. */
export async function removeJob(db: Kysely<Database>, name: string, revision?: number): Promise<void> {
  const found = await findJob(db, name)
  if (revision !== undefined && revision !== found.revision)
    throw new SynclineError('SYNC_REQUEST_CHANGED', `job "${name}" is at revision ${found.revision} now`)
  // What waits to begin has no job any more; what runs ends by itself.
  await db
    .updateTable('syncline.job_run')
    .set({
      phase: 'over',
      result: 'skipped',
      message: 'the job was removed',
      finished_at: sql<string>`clock_timestamp()`,
      changed_at: sql<string>`clock_timestamp()`,
    })
    .where('job_id', '=', found.id)
    .where('phase', 'in', ['queued', 'waiting'])
    .where('worker', 'is', null)
    .execute()
  // Nobody can make good any more what it failed in.
  await db
    .updateTable('syncline.job_run')
    .set({ dead: false })
    .where('job_id', '=', found.id)
    .where('dead', '=', true)
    .execute()
  await db.deleteFrom('syncline.job_definition').where('id', '=', found.id).execute()
}

/** A job by name. Errors: SYNC_REQUEST_NOT_FOUND. */
export async function findJob(db: Kysely<Database>, name: string): Promise<JobEntry> {
  const row = await db.selectFrom('syncline.job_definition').selectAll().where('name', '=', name).executeTakeFirst()
  if (row === undefined) throw new SynclineError('SYNC_REQUEST_NOT_FOUND', `there is no job "${name.slice(0, 80)}"`)
  return toJob(row)
}

/** Jobs, newest first. */
export async function listJobs(
  db: Kysely<Database>,
  query: PageQuery & { readonly enabled?: boolean | undefined } = {},
): Promise<Page<JobEntry>> {
  const bounds = pageBounds(query)
  let select = db.selectFrom('syncline.job_definition').selectAll().where(olderThan('id', bounds))
  if (query.enabled !== undefined) select = select.where('enabled', '=', query.enabled)
  return toPage(await select.orderBy('id', 'desc').limit(bounds.take).execute(), bounds, toJob)
}

export async function allJobs(db: Kysely<Database>): Promise<readonly JobEntry[]> {
  return (await db.selectFrom('syncline.job_definition').selectAll().orderBy('name').execute()).map(toJob)
}

/** Jobs that may be set off by a signal. */
export async function jobsToSignal(db: Kysely<Database>): Promise<readonly JobEntry[]> {
  const rows = await db
    .selectFrom('syncline.job_definition')
    .selectAll()
    .where('enabled', '=', true)
    .orderBy('name')
    .execute()
  return rows.map(toJob)
}

export function toJob(row: Selectable<Database['syncline.job_definition']>): JobEntry {
  return {
    id: row.id,
    name: row.name,
    definition: row.definition,
    revision: row.revision,
    enabled: row.enabled,
    events: row.events,
    createdAt: isoTime(row.created_at),
    changedAt: isoTime(row.changed_at),
    nextDue: isoTime(row.next_due),
    lastResult: row.last_result,
    lastFinishedAt: isoTime(row.last_finished_at),
    lastSuccessAt: isoTime(row.last_success_at),
  }
}

/** Equal as JSON, whatever the order of members. */
function same(a: Json, b: Json): boolean {
  if (a === b) return true
  if (typeof a !== 'object' || typeof b !== 'object' || a === null || b === null) return false
  if (Array.isArray(a) || Array.isArray(b))
    return (
      Array.isArray(a) && Array.isArray(b) && a.length === b.length && a.every((item, n) => same(item, b[n] as Json))
    )
  const [x, y] = [a as Readonly<Record<string, Json>>, b as Readonly<Record<string, Json>>]
  const keys = Object.keys(x)
  return keys.length === Object.keys(y).length && keys.every((key) => key in y && same(x[key] as Json, y[key] as Json))
}
