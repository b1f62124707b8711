import { type Kysely, sql, type Transaction } from 'kysely'
import { type BatchReport, changesOfLines, type Json, type LineBatch, SynclineError } from '../sync/index.ts'
import { type ApplyContext, applyLines, emptyReport } from './apply.ts'
import type { Store } from './database.ts'
import {
  addReports,
  applyContext,
  type ContextChoice,
  type ExchangeLimits,
  type Link,
  type PullTask,
  pullChoice,
  pushChoice,
  readyResource,
} from './exchange.ts'
import { Braked, receiveBrake } from './guard.ts'
import { payloadSql } from './lines-sql.ts'
import { findGrant } from './registry/index.ts'
import { liveTable, type ResourceInfo, sentColumns } from './resources.ts'
import { rolledBack } from './rolled-back.ts'
import type { Database } from './schema.ts'

/** One column of a record whose value would be another. `theirs` where both sides had changed the record. */
export type FieldDifference = {
  readonly field: string
  readonly before: Json
  readonly after: Json
  readonly theirs?: Json
}

/** A record that would be touched. `decision` where both sides had changed it: whose values would stand afterwards. */
export type PreviewedRecord = {
  readonly id: string
  readonly kind: 'insert' | 'update' | 'delete' | 'keep'
  readonly decision?: 'ours' | 'theirs' | 'merged' | 'open'
  readonly fields: readonly FieldDifference[]
}

/** What would become of the rows of the table. */
export type PreviewedWrites = { readonly inserts: number; readonly updates: number; readonly deletes: number }

/** What applying some batches of one resource would do. */
export type PreviewedApply = {
  readonly resource: string
  readonly report: BatchReport
  readonly writes: PreviewedWrites
  readonly samples: readonly PreviewedRecord[]
  /** Batches that were tried; fewer than were given when the time was over. */
  readonly batches: number
  readonly changes: number
  readonly durationMs: number
}

/** Records shown of each resource, and conflicts beside them. */
const SAMPLES_MAX = 20
/** A row that an application holds is waited for as long as a real run would in the end. */
const LOCK_WAIT_MS = 800

export type PullPreview = { readonly task: PullTask; readonly resource: string; readonly batches: readonly LineBatch[] }

/**
 * Applies batches of several resources, in the order given, in one transaction that is rolled back: children find the parents that came before
 * them. Ends at `deadlineMs` of performance.now(). Errors: those of a real run, such as SYNC_STORE_BUSY.
 */
export async function previewPull(
  store: Store,
  link: Link,
  pulls: readonly PullPreview[],
  limits: ExchangeLimits,
  deadlineMs: number,
): Promise<readonly PreviewedApply[]> {
  const prepared: { context: Context; batches: readonly LineBatch[] }[] = []
  for (const { resource: name, task, batches } of pulls) {
    const resource = await readyResource(store, name)
    const context = await applyContext(store, link, resource, null, limits, pullChoice(task, link.self, resource))
    prepared.push({ context, batches })
  }
  return rolledBack(store, async (trx) => {
    const found: PreviewedApply[] = []
    for (const { context, batches } of prepared) found.push(await tryBatches(trx, context, batches, deadlineMs))
    return found
  })
}

/** What a push of a peer would do here, and the brake that would stop it. No values of this site: the peer may not be allowed to see them. */
export type PreviewedPush = {
  readonly report: BatchReport
  readonly writes: PreviewedWrites
  readonly braked: string | null
}

/** Tries what a peer would push. Errors: SYNC_AUTH_FORBIDDEN, SYNC_STORE_BUSY. */
export async function previewReceive(
  store: Store,
  link: Link,
  push: {
    readonly resource: string
    readonly batches: readonly LineBatch[]
    readonly byHand: boolean
    readonly announced?: number | undefined
  },
  limits: ExchangeLimits,
): Promise<PreviewedPush> {
  const resource = await readyResource(store, push.resource)
  const grant = await findGrant(store.db, link.peer.id, resource.name, 'push')
  const choice = await pushChoice(store, link, resource)
  if (grant === null || choice === null)
    throw new SynclineError('SYNC_AUTH_FORBIDDEN', `peer "${link.peer.name}" may not push "${resource.name}"`)
  const { guard } = receiveBrake(store, link, resource, grant, push.announced ?? 0)
  let braked: string | null = null
  const looking: ContextChoice = {
    ...choice,
    unknownFields: push.byHand ? 'refuse' : choice.unknownFields,
    guard: (trx, counts) =>
      guard(trx, counts).catch((error: unknown) => {
        if (!(error instanceof Braked)) throw error
        braked ??= error.message
      }),
  }
  const context = await applyContext(store, link, resource, null, limits, looking)
  const { report, writes } = await rolledBack(store, (trx) =>
    tryBatches(trx, context, push.batches, Number.POSITIVE_INFINITY),
  )
  return { report, writes, braked }
}

type Context = Omit<ApplyContext, 'patience' | 'lockWaitMs'>

async function tryBatches(
  trx: Transaction<Database>,
  context: Context,
  batches: readonly LineBatch[],
  deadlineMs: number,
): Promise<PreviewedApply> {
  const began = performance.now()
  const { resource } = context
  let report = emptyReport()
  let writes: PreviewedWrites = { inserts: 0, updates: 0, deletes: 0 }
  const samples: PreviewedRecord[] = []
  let tried = 0
  let changes = 0
  for (const batch of batches) {
    if (tried > 0 && performance.now() > deadlineMs) break
    const eyes = createEyes(resource, batch, SAMPLES_MAX - samples.length)
    const guard: Context['guard'] = async (inner, counts) => {
      await eyes.before(inner)
      await context.guard?.(inner, counts)
    }
    const part = await applyLines(trx, { ...context, guard, patience: 'set aside', lockWaitMs: LOCK_WAIT_MS }, batch)
    const seen = await eyes.after(trx, part)
    writes = {
      inserts: writes.inserts + seen.writes.inserts,
      updates: writes.updates + seen.writes.updates,
      deletes: writes.deletes + seen.writes.deletes,
    }
    samples.push(...seen.samples)
    report = addReports(report, part)
    tried++
    changes += batch.count
  }
  const durationMs = Math.round(performance.now() - began)
  return { resource: resource.name, report, writes, samples, batches: tried, changes, durationMs }
}

type Noted = { readonly id: string; readonly conflict: boolean; readonly theirs: readonly Json[] | null }

/** Looks at a batch between its classification and its writing, and again afterwards, in the same transaction. */
function createEyes(resource: ResourceInfo, batch: LineBatch, samplesMax: number) {
  let staged = false
  let living: ReadonlyMap<string, string> = new Map()
  let noted: readonly Noted[] = []
  let before: ReadonlyMap<string, readonly Json[]> = new Map()
  const columns = sentColumns(resource).map(({ name }) => name)
  return {
    before: async (trx: Transaction<Database>) => {
      staged = true
      noted = await notable(trx, batch, samplesMax)
      living = await stagedRows(trx, resource, null)
      before = await rowsOf(
        trx,
        resource,
        noted.map(({ id }) => id),
      )
    },
    after: async (trx: Transaction<Database>, report: BatchReport) => {
      const writes = staged
        ? await stagedWrites(trx, resource, living)
        : { inserts: report.counts.applied, updates: 0, deletes: 0 }
      if (!staged) noted = firstOf(batch, samplesMax)
      const after = await rowsOf(
        trx,
        resource,
        noted.map(({ id }) => id),
      )
      const classes = staged
        ? await classesOf(
            trx,
            noted.map(({ id }) => id),
          )
        : new Map<string, string>()
      const samples = noted.flatMap((each) => {
        const record = describe(
          each,
          columns,
          batch.columns,
          before.get(each.id),
          after.get(each.id),
          classes.get(each.id),
        )
        return record === null ? [] : [record]
      })
      return { writes, samples }
    },
  }
}

/** Conflicts first, then deletions, then other values, then new records. What the peer has is read from its line: a merge changes what is staged. */
async function notable(trx: Transaction<Database>, batch: LineBatch, most: number): Promise<readonly Noted[]> {
  if (most <= 0) return []
  const { rows } = await sql<{ n: number; id: string; conflict: boolean }>`
    select n, id, announce or class = 'a' as conflict
      from pg_temp.syncline_stage
     where class in ('f', 'v', 'a', 'r') or class = 'n' and kind = 'p'
     order by not (announce or class = 'a'), not (kind = 'd' or class = 'r'), class = 'n', n limit ${most}`.execute(trx)
  const lines = rows.some(({ conflict }) => conflict) ? batch.text.split('\n') : []
  return rows.map(({ n, id, conflict }) => ({ id, conflict, theirs: conflict ? valuesIn(lines[n - 1] ?? '') : null }))
}

function valuesIn(line: string): readonly Json[] | null {
  const payload = line.split('\t')[5] ?? ''
  return payload === '' ? null : (JSON.parse(payload) as readonly Json[])
}

async function classesOf(trx: Transaction<Database>, ids: readonly string[]): Promise<ReadonlyMap<string, string>> {
  const { rows } = await sql<{ id: string; class: string }>`
    select id, class::text from pg_temp.syncline_stage where id = any(${[...ids]}::text[])`.execute(trx)
  return new Map(rows.map((row) => [row.id, row.class]))
}

/** A newer version whose values that travel are those that are here already changes no row. */
async function stagedWrites(
  trx: Transaction<Database>,
  resource: ResourceInfo,
  before: ReadonlyMap<string, string>,
): Promise<PreviewedWrites> {
  const { rows } = await sql<Omit<PreviewedWrites, 'updates'> & { readonly written: readonly string[] | null }>`
    select count(*) filter (where kind = 'p' and (class = 'n' or class = 'f' and l_deleted))::int as inserts,
           array_agg(id) filter (where kind = 'p' and class = 'f' and not l_deleted) as written,
           count(*) filter (where class = 'r' or kind = 'd' and class = 'f' and not l_deleted)::int as deletes
      from pg_temp.syncline_stage`.execute(trx)
  const { inserts = 0, deletes = 0, written = null } = rows[0] ?? {}
  const after = written === null ? new Map<string, string>() : await stagedRows(trx, resource, written)
  const updates = (written ?? []).filter((id) => before.get(id) !== after.get(id)).length
  return { inserts, updates, deletes }
}

/** A hash of the values of each row that a staged change, or one of those named, is about. */
async function stagedRows(
  trx: Transaction<Database>,
  resource: ResourceInfo,
  ids: readonly string[] | null,
): Promise<ReadonlyMap<string, string>> {
  const key = sql.id(resource.keyColumn)
  const { rows } = await sql<{ id: string; hash: string }>`
    select s.id, md5(${sql.raw(payloadSql(resource, sentColumns(resource)))}) as hash
      from pg_temp.syncline_stage s join ${sql.raw(liveTable(resource))} t on t.${key} = s.id::${sql.raw(resource.keyType)}
     where s.kind = 'p' and s.class <> 's' and (${ids === null ? null : [...ids]}::text[] is null or s.id = any(${ids === null ? null : [...ids]}::text[]))`.execute(
    trx,
  )
  return new Map(rows.map(({ id, hash }) => [id, hash]))
}

/** A batch of nothing but new records is not staged. */
function firstOf(batch: LineBatch, most: number): readonly Noted[] {
  const lines = batch.text === '' || most <= 0 ? [] : batch.text.split('\n', most)
  const few = { ...batch, text: lines.join('\n'), count: lines.length }
  return changesOfLines(few).map(({ id }) => ({ id, conflict: false, theirs: null }))
}

/** Values of living rows by record id, in the order of the columns that travel. */
async function rowsOf(
  db: Kysely<Database>,
  resource: ResourceInfo,
  ids: readonly string[],
): Promise<ReadonlyMap<string, readonly Json[]>> {
  if (ids.length === 0) return new Map()
  const key = sql.id(resource.keyColumn)
  const { rows } = await sql<{ id: string; data: readonly Json[] }>`
    select t.${key}::text as id, (${sql.raw(payloadSql(resource, sentColumns(resource)))})::json as data
      from unnest(${[...ids]}::text[]) i(id) join ${sql.raw(liveTable(resource))} t on t.${key} = i.id::${sql.raw(resource.keyType)}`.execute(
    db,
  )
  return new Map(rows.map(({ id, data }) => [id, data]))
}

function describe(
  { id, conflict, theirs }: Noted,
  columns: readonly string[],
  sent: readonly string[],
  before: readonly Json[] | undefined,
  after: readonly Json[] | undefined,
  stage: string | undefined,
): PreviewedRecord | null {
  if (before === undefined && after === undefined && !conflict) return null
  const fields = columns.flatMap((field, at): FieldDifference[] => {
    const [was, is] = [before?.[at] ?? null, after?.[at] ?? null]
    const place = sent.indexOf(field)
    const other = theirs === null || place < 0 ? undefined : (theirs[place] ?? null)
    const differs = !same(was, is) || (conflict && other !== undefined && !same(was, other))
    return differs ? [{ field, before: was, after: is, ...(conflict && other !== undefined && { theirs: other }) }] : []
  })
  const kind =
    before === undefined ? (after === undefined ? 'keep' : 'insert') : after === undefined ? 'delete' : 'update'
  if (!conflict) return fields.length === 0 && kind === 'update' ? null : { id, kind, fields }
  return {
    id,
    kind: kind === 'update' && fields.every((each) => same(each.before, each.after)) ? 'keep' : kind,
    decision: decisionOf(stage, fields),
    fields,
  }
}

function decisionOf(
  stage: string | undefined,
  fields: readonly FieldDifference[],
): NonNullable<PreviewedRecord['decision']> {
  if (stage === 'a') return 'open'
  const taken = fields.filter(({ theirs, after }) => theirs !== undefined && same(theirs, after)).length
  if (stage === 'v' || taken === 0) return 'ours'
  return taken === fields.length ? 'theirs' : 'merged'
}

function same(a: Json, b: Json): boolean {
  return JSON.stringify(a) === JSON.stringify(b)
}
