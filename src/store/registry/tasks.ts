import { type Kysely, sql } from 'kysely'
import {
  type BrakeSettings,
  type Mapping,
  type Mode,
  mappingFault,
  NO_MAPPING,
  SynclineError,
  type TaskRun,
} from '../../sync/index.ts'
import { renewMarks } from '../field-marks.ts'
import { checkMappingNames } from '../peer-schema.ts'
import type { Database } from '../schema.ts'
import { forgetCheckpoints, resourceIdOf } from './grants.ts'
import { isRowId, olderThan, type Page, type PageQuery, pageBounds, toPage } from './page.ts'
import { notFound } from './peers.ts'
import { inTransaction } from './transaction.ts'
import {
  type BrakeLimitSettings,
  checkBrakes,
  checkLink,
  checkMode,
  checkText,
  checkWord,
  isoTime,
  type LinkRuleSettings,
  type LinkRules,
} from './values.ts'

export const ON_LEFT = ['keep', 'remove'] as const
/** What becomes of a record here that left the filter of the peer. */
export type OnLeft = (typeof ON_LEFT)[number]

/** What is synced with a peer: one resource, how and when. At most one task for each peer and resource. */
export type Task = LinkRules &
  BrakeSettings & {
    readonly id: number
    readonly peerId: number
    /** Name of the peer. */
    readonly peer: string
    readonly resource: string
    readonly mode: Mode
    readonly onLeft: OnLeft
    /** How columns here and at the peer belong together. */
    readonly mapping: Mapping
    /** `cron:<fields>`, `every:<seconds>`, `live`, or null for by hand only. */
    readonly schedule: string | null
    readonly enabled: boolean
    /** Null before the first run that came to it. */
    readonly lastRun: TaskRun | null
    readonly revision: number
    readonly createdAt: string
  }

export type TaskSettings = LinkRuleSettings &
  BrakeLimitSettings & {
    readonly emptyGuard?: boolean | undefined
    readonly canary?: string | null | undefined
    readonly mode?: string | undefined
    readonly onLeft?: string | undefined
    /** Parts that are given replace those of before; null takes the mapping away. */
    readonly mapping?: Partial<Mapping> | null | undefined
    readonly schedule?: string | null | undefined
    readonly enabled?: boolean | undefined
  }

export type NewTask = TaskSettings & { readonly peerId: number; readonly resource: string; readonly mode: string }

export type TaskQuery = PageQuery & {
  readonly peerId?: number | undefined
  readonly resource?: string | undefined
  readonly mode?: string | undefined
  readonly enabled?: boolean | undefined
}

/**
 * Makes a task. Filter, columns and schedule are kept as given: whoever calls has checked them.
 * Errors: SYNC_REQUEST_EXISTS, SYNC_REQUEST_NOT_FOUND, SYNC_REQUEST_INVALID.
 */
export async function createTask(db: Kysely<Database>, task: NewTask): Promise<Task> {
  const values = taskColumns(task, null)
  return inTransaction(db, async (trx) => {
    const resourceId = await resourceIdOf(trx, task.resource)
    const peer = await trx.selectFrom('syncline.peer').select('name').where('id', '=', task.peerId).executeTakeFirst()
    if (peer === undefined) throw notFound(task.peerId)
    await checkMappingNames(trx, task.peerId, task.resource, checkMapping(task.mapping ?? undefined))
    const row = await trx
      .insertInto('syncline.task')
      .values({ ...values, peer_id: task.peerId, resource_id: resourceId })
      .onConflict((conflict) => conflict.columns(['peer_id', 'resource_id']).doNothing())
      .returning('id')
      .executeTakeFirst()
    if (row === undefined) {
      throw new SynclineError(
        'SYNC_REQUEST_EXISTS',
        `peer "${peer.name}" already has a task for resource "${task.resource}"`,
      )
    }
    await renewMarks(trx, task.resource)
    return findTask(trx, row.id)
  })
}

/** Tasks, newest first. */
export async function listTasks(db: Kysely<Database>, query: TaskQuery = {}): Promise<Page<Task>> {
  const bounds = pageBounds(query)
  let select = selectTasks(db).where(olderThan('task.id', bounds))
  if (query.peerId !== undefined) select = select.where('task.peer_id', '=', query.peerId)
  if (query.resource !== undefined) select = select.where('resource.name', '=', query.resource)
  if (query.mode !== undefined) select = select.where('task.mode', '=', checkMode(query.mode))
  if (query.enabled !== undefined) select = select.where('task.enabled', '=', query.enabled)
  return toPage(await select.orderBy('task.id', 'desc').limit(bounds.take).execute(), bounds, toTask)
}

/** A task by id. Errors: SYNC_REQUEST_NOT_FOUND. */
export async function findTask(db: Kysely<Database>, id: number | string): Promise<Task> {
  const row = isRowId(String(id))
    ? await selectTasks(db)
        .where(sql<boolean>`task.id = ${String(id)}::int8`)
        .executeTakeFirst()
    : undefined
  if (row === undefined)
    throw new SynclineError('SYNC_REQUEST_NOT_FOUND', `there is no task ${String(id).slice(0, 40)}`)
  return toTask(row)
}

/** The task for a peer and a resource, or null. */
export async function findTaskFor(db: Kysely<Database>, peerId: number, resource: string): Promise<Task | null> {
  const row = await selectTasks(db)
    .where('task.peer_id', '=', peerId)
    .where('resource.name', '=', resource)
    .executeTakeFirst()
  return row === undefined ? null : toTask(row)
}

/**
 * Changes a task; absent settings stay. A direction that the new mode leaves out forgets how far it had come.
 * Errors: SYNC_REQUEST_CHANGED, SYNC_REQUEST_NOT_FOUND, SYNC_REQUEST_INVALID.
 */
export async function updateTask(
  db: Kysely<Database>,
  id: number,
  settings: TaskSettings,
  ifMatch?: number,
): Promise<Task> {
  return inTransaction(db, async (trx) => {
    const { task, resourceId } = await readForChange(trx, id, ifMatch)
    const values = taskColumns(settings, task)
    if (settings.mapping != null)
      await checkMappingNames(trx, task.peerId, task.resource, checkMapping(settings.mapping, task.mapping))
    await trx
      .updateTable('syncline.task')
      .set({ ...values, revision: task.revision + 1 })
      .where('id', '=', id)
      .execute()
    const left = (['pull', 'push'] as const).filter((direction) => values.mode !== 'both' && values.mode !== direction)
    await forgetCheckpoints(trx, task.peerId, resourceId, left)
    const covers = ({ mode, filter, columns }: Pick<Task, 'mode' | 'filter' | 'columns'>) =>
      JSON.stringify([mode, filter, columns])
    await renewMarks(trx, task.resource)
    const changed = await findTask(trx, id)
    if (covers(changed) !== covers(task)) await forgetAgreement(trx, task.peerId, resourceId)
    return changed
  })
}

/** Removes a task and how far it had come. The records stay. Errors: SYNC_REQUEST_CHANGED, SYNC_REQUEST_NOT_FOUND. */
export async function removeTask(db: Kysely<Database>, id: number, ifMatch?: number): Promise<void> {
  await inTransaction(db, async (trx) => {
    const { task, resourceId } = await readForChange(trx, id, ifMatch)
    await trx.deleteFrom('syncline.task').where('id', '=', id).execute()
    await forgetCheckpoints(trx, task.peerId, resourceId, ['pull', 'push'])
    await forgetAgreement(trx, task.peerId, resourceId)
    await renewMarks(trx, task.resource)
  })
}

/** When what a link covers has changed, what was found equal before says nothing. */
export async function forgetAgreement(trx: Kysely<Database>, peerId: number, resourceId: number): Promise<void> {
  await trx
    .deleteFrom('syncline.agreement')
    .where('peer_id', '=', peerId)
    .where('resource_id', '=', resourceId)
    .execute()
}

async function readForChange(trx: Kysely<Database>, id: number, ifMatch: number | undefined) {
  const row = await trx
    .selectFrom('syncline.task')
    .select('resource_id')
    .where(sql<boolean>`id = ${id}::int8`)
    .forUpdate()
    .executeTakeFirst()
  // Read after the lock: what it says now stays so until this transaction ends.
  const task = await findTask(trx, id)
  if (row === undefined) throw new Error(`task ${id} appeared while it was read`)
  if (ifMatch !== undefined && ifMatch !== task.revision) {
    const detail = `task ${id} has revision ${task.revision}, the request was made for revision ${ifMatch}`
    throw new SynclineError('SYNC_REQUEST_CHANGED', detail)
  }
  return { task, resourceId: row.resource_id }
}

function taskColumns(settings: TaskSettings, base: Task | null) {
  const link = checkLink(settings, base ?? undefined)
  const brakes = checkBrakes(settings, base ?? undefined)
  const canary = settings.canary === undefined ? (base?.canary ?? null) : settings.canary
  const schedule = settings.schedule === undefined ? (base?.schedule ?? null) : settings.schedule
  return {
    mode: checkMode(settings.mode ?? base?.mode ?? ''),
    filter: link.filter,
    columns: link.columns === null ? null : [...link.columns],
    on_conflict: link.onConflict,
    master: link.master,
    fields: JSON.stringify(link.fields),
    on_left: checkWord('what becomes of a record that left', settings.onLeft ?? base?.onLeft ?? 'keep', ON_LEFT),
    schedule: schedule === null ? null : checkText('the schedule', schedule, 200),
    enabled: settings.enabled ?? base?.enabled ?? true,
    max_deletes: brakes.maxDeletes,
    max_changes: brakes.maxChanges,
    empty_guard: settings.emptyGuard ?? base?.emptyGuard ?? true,
    canary: canary === null ? null : checkText('the canary', canary, 640),
    mapping: JSON.stringify(checkMapping(settings.mapping, base?.mapping)),
  }
}

/** The mapping that is given, or the one before. Errors: SYNC_REQUEST_INVALID where it contradicts itself. */
function checkMapping(given: Partial<Mapping> | null | undefined, before: Mapping = NO_MAPPING): Mapping {
  if (given === undefined) return before
  const parts = Object.entries(given ?? {}).filter(([, part]) => part !== undefined)
  const mapping: Mapping = given === null ? NO_MAPPING : { ...before, ...Object.fromEntries(parts) }
  const fault = mappingFault(mapping)
  if (fault !== null) throw new SynclineError('SYNC_REQUEST_INVALID', `the mapping: ${fault}`)
  return mapping
}

function selectTasks(db: Kysely<Database>) {
  return db
    .selectFrom('syncline.task as task')
    .innerJoin('syncline.peer as peer', 'peer.id', 'task.peer_id')
    .innerJoin('syncline.resource as resource', 'resource.id', 'task.resource_id')
    .selectAll('task')
    .select(['peer.name as peer', 'resource.name as resource'])
}

type TaskRow = Awaited<ReturnType<ReturnType<typeof selectTasks>['execute']>>[number]

function toTask(row: TaskRow): Task {
  const link = checkLink({
    filter: row.filter,
    columns: row.columns,
    onConflict: row.on_conflict,
    master: row.master,
    fields: row.fields,
  })
  return {
    ...link,
    id: row.id,
    peerId: row.peer_id,
    peer: row.peer,
    resource: row.resource,
    mode: row.mode,
    onLeft: row.on_left,
    schedule: row.schedule,
    enabled: row.enabled,
    maxDeletes: row.max_deletes,
    maxChanges: row.max_changes,
    emptyGuard: row.empty_guard,
    canary: row.canary,
    mapping: { ...NO_MAPPING, ...row.mapping },
    lastRun: row.last_run && {
      ...row.last_run,
      at: isoTime(row.last_run.at),
      succeededAt: isoTime(row.last_run.succeededAt),
    },
    revision: row.revision,
    createdAt: isoTime(row.created_at),
  }
}
