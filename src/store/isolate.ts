import { sql, type Transaction } from 'kysely'
import { type LineBatch, SynclineError } from '../sync/index.ts'
import { INEXACT, markInexact } from './exact.ts'
import type { DatabaseError } from './explain.ts'
import type { ResourceInfo } from './resources.ts'
import type { Database } from './schema.ts'
import { type StageCounts, stagedLinesSql, targetTable, type Unreadable } from './stage.ts'
import { type Vacated, vacancyFor } from './vacate.ts'
import { incomingSql, outsideFilter, type Range, type WriteContext, writeRange } from './write.ts'

/** Writing tried anew because records turned out to lie outside the grant's filter. */
const FILTER_TRIES = 3
/** Rounds in which records wait for each other to give up a unique value. */
const UNIQUE_ROUNDS = 8

/** How to write one batch: what a lock that is not to be had means. */
export type Attempt = {
  readonly write: WriteContext
  readonly counts: StageCounts
  readonly patience: 'wait' | 'set aside'
}

/** Classes of errors that concern the connection, the transaction, locks, the server or the program, not a record. */
const BEYOND_RECORDS = /^(08|0A|25|26|28|2D|34|3B|3D|40|42|53|55|57|58|F0|XX)/

/**
 * True for an error that lies in a record: its values, a constraint, or whatever a trigger of the application makes of it, under any code
 * that its author chose.
 */
function isRecordFault({ code = '', where = '' }: DatabaseError): boolean {
  if (code.length !== 5) return false
  if (where.includes('RAISE')) return true
  if (/^(42|0A)/.test(code)) return where !== ''
  return !BEYOND_RECORDS.test(code)
}

/** Writes a range under a savepoint. Returns the error that one of its records caused, after undoing the range; throws any other. */
export async function attempt(
  trx: Transaction<Database>,
  { write, counts, patience }: Attempt,
  range: Range,
): Promise<DatabaseError | null> {
  for (let tries = 1; tries <= FILTER_TRIES; tries++) {
    await sql`savepoint syncline_range`.execute(trx)
    try {
      await writeRange(trx, write, range, counts)
      const outside = await outsideFilter(trx, write, range)
      if (outside.length === 0) {
        await sql`release savepoint syncline_range`.execute(trx)
        return null
      }
      await sql`rollback to savepoint syncline_range`.execute(trx)
      await sql`
        update pg_temp.syncline_stage set class = 'o', code = 'SYNC_RECORD_OUTSIDE_GRANT', reason = 'the record would not match the filter of the grant'
         where n = any(${[...outside]}::int4[])`.execute(trx)
    } catch (cause) {
      const error = cause as DatabaseError
      const inUse = patience === 'set aside' && error.code === '55P03'
      if (!inUse && !isRecordFault(error)) throw cause
      await sql`rollback to savepoint syncline_range`.execute(trx)
      return error
    }
  }
  throw new SynclineError(
    'SYNC_STORE_BUSY',
    'the rows that the filter of the grant looks at change while they are written',
  )
}

/** How many indexes of a table may be in the way of one batch. */
const VACATED_MAX = 8

/**
 * Writes a range; where its records are in each other's way because they hand unique values to one another, lets them give these up first.
 * Returns what `attempt` does.
 */
export async function attemptAll(
  trx: Transaction<Database>,
  tried: Attempt,
  range: Range,
): Promise<DatabaseError | null> {
  let error = await attempt(trx, tried, range)
  for (let vacated: readonly Vacated[] = []; error !== null && vacated.length < VACATED_MAX; ) {
    const more = (tried.counts.f ?? 0) > 1 ? await vacancyFor(trx, tried.write, error) : null
    if (more === null || vacated.some(({ column }) => column.name === more.column.name)) return error
    vacated = [...vacated, more]
    error = await attempt(trx, { ...tried, write: { ...tried.write, vacated } }, range)
  }
  return error
}

/** Writes a range, all but the records that the database refuses: each of those is set aside alone, with the database's words (I8). */
export async function writeWithoutFaulty(trx: Transaction<Database>, tried: Attempt, range: Range): Promise<void> {
  let taken: readonly number[] = await writeHalves(trx, tried, range)
  // A unique value may have been given up by a record that was written after the one that takes it.
  for (let round = 0; taken.length > 0 && round < UNIQUE_ROUNDS; round++) {
    const still: number[] = []
    for (const n of taken) {
      await sql`update pg_temp.syncline_stage set class = case when l_origin is null then 'n' else 'f' end::"char", code = null, reason = null
                 where n = ${n}`.execute(trx)
      still.push(...(await writeHalves(trx, tried, { from: n, to: n })))
    }
    if (still.length === taken.length) return
    taken = still
  }
}

/** Bisects a range. Returns the places of those that were set aside because another record has their unique value. */
async function writeHalves(trx: Transaction<Database>, tried: Attempt, range: Range): Promise<readonly number[]> {
  const error = await attempt(trx, tried, range)
  if (error === null) return []
  const { rows } = await sql<{ low: number; mid: number; high: number; count: number }>`
    select min(n) as low, max(n) as high, count(*)::int as count, (percentile_disc(0.5) within group (order by n)) as mid
      from pg_temp.syncline_stage where class in ('n', 'f', 'v', 'r') and n between ${range.from} and ${range.to}`.execute(
    trx,
  )
  const span = rows[0]
  if (span === undefined || span.count === 0) throw error
  if (span.count === 1) {
    if (error.code === '23503' && (await waitForParent(trx, tried.write, span.low))) return []
    if (error.code === INEXACT && (await markInexact(trx, tried.write.inexact, ['n', 'f'], sql`s.n = ${span.low}`)))
      return []
    await sql`
      update pg_temp.syncline_stage set class = 'q', code = ${error.code === '55P03' ? 'SYNC_RECORD_IN_USE' : 'SYNC_RECORD_CONSTRAINT'}, reason = ${wordsOf(error)}
       where n = ${span.low}`.execute(trx)
    return error.code === '23505' || error.code === '23P01' ? [span.low] : []
  }
  const first = await writeHalves(trx, tried, { from: span.low, to: span.mid })
  return [...first, ...(await writeHalves(trx, tried, { from: span.mid + 1, to: span.high }))]
}

/** A record whose parent was refused before it waits for that one, so that it is tried again when the parent is here. */
async function waitForParent(trx: Transaction<Database>, write: WriteContext, n: number): Promise<boolean> {
  for (const reference of write.resource.references) {
    const at = write.columns.find((each) => each.column.name === reference.column.name)?.at
    if (at === undefined || (reference.cyclic && !reference.column.notNull)) continue
    const { numAffectedRows } = await sql`
      update pg_temp.syncline_stage s set class = 'w', w_resource = ${reference.resourceId}, w_id = s.payload::jsonb ->> ${sql.lit(at)}, code = 'SYNC_RECORD_PARENT_MISSING',
             reason = format('%s refers to %s %s, which is not here yet', ${reference.column.name}::text, ${reference.resource}::text, s.payload::jsonb ->> ${sql.lit(at)})
       where s.n = ${n} and s.kind = 'p' and s.payload::jsonb ->> ${sql.lit(at)} is not null and not exists (
         select from ${targetTable(reference)} p where p.${sql.id(reference.targetKey)} = (s.payload::jsonb ->> ${sql.lit(at)})::${sql.raw(reference.targetKeyType)})`.execute(
      trx,
    )
    if (Number(numAffectedRows ?? 0) > 0) return true
  }
  return false
}

/** True for an error that reading a line can cause. */
export function isReadingFault(error: unknown): boolean {
  return /^(22|23514|54)/.test((error as DatabaseError).code ?? '')
}

/** The lines whose id, values or references cannot be read in the types of this table. By bisection: the usual batch has none. */
export async function findUnreadable(
  trx: Transaction<Database>,
  resource: ResourceInfo,
  batch: LineBatch,
  write: WriteContext,
): Promise<readonly Unreadable[]> {
  const lines = batch.text.split('\n')
  const references = resource.references.flatMap((reference) => {
    const at = batch.columns.indexOf(reference.column.name)
    return at < 0 ? [] : [`(s.v ->> ${at})::${reference.targetKeyType}`]
  })
  const values = [`s.id::${resource.keyType}`, ...references, ...write.columns.map((each) => incomingSql(write, each))]
  const bad: Unreadable[] = []
  const search = async (from: number, to: number): Promise<void> => {
    await sql`savepoint syncline_read`.execute(trx)
    let error: DatabaseError | undefined
    try {
      await sql`
        select max(length(row(${sql.raw(values.join(', '))})::text))
          from (select x.*, nullif(x.payload, '')::jsonb as v from (${stagedLinesSql(resource, lines.slice(from, to).join('\n'))}) x offset 0) s`.execute(
        trx,
      )
    } catch (cause) {
      if (!isReadingFault(cause)) throw cause
      error = cause as DatabaseError
    }
    await sql`rollback to savepoint syncline_read`.execute(trx)
    if (error === undefined) return
    if (to - from === 1) {
      bad.push({ n: from + 1, reason: wordsOf(error) })
      return
    }
    const middle = (from + to) >>> 1
    await search(from, middle)
    await search(middle, to)
  }
  await search(0, lines.length)
  return bad
}

function wordsOf(error: DatabaseError): string {
  return [error.message, error.detail]
    .filter((part) => part !== undefined && part !== '')
    .join('; ')
    .slice(0, 2_000)
}
