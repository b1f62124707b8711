import { createHash } from 'node:crypto'
import { type RawBuilder, sql } from 'kysely'
import {
  type FilterColumn,
  filterColumns,
  formatFilter,
  type Position,
  parseCheckpoint,
  parseFilter,
  resolveFilter,
  SynclineError,
} from '../sync/index.ts'
import type { Store } from './database.ts'
import { filterSql } from './filter-sql.ts'
import { findGrant, getSetting, newLog, type Peer, setSetting } from './registry/index.ts'
import { loadResources, type ResourceInfo } from './resources.ts'

/** The columns that were asked for, all of which must be granted. Errors: SYNC_AUTH_FORBIDDEN naming the others. */
export function narrow(
  granted: readonly string[] | null,
  asked: readonly string[] | null | undefined,
  what: string,
): readonly string[] | null {
  if (asked == null) return granted
  const outside = granted === null ? [] : asked.filter((name) => !granted.includes(name))
  if (outside.length > 0) throw new SynclineError('SYNC_AUTH_FORBIDDEN', `${what}: not granted: ${outside.join(', ')}`)
  return asked
}

/** Every filter must match: that of the grant and that of the request. */
export function joinFilters(filters: readonly (string | null | undefined)[]): string | null {
  const given = filters.filter((text): text is string => text != null && text.trim() !== '')
  return given.length === 0 ? null : given.map((text) => `(${text})`).join(' and ')
}

/** A filter as a condition on the live row `t` of a resource. Errors: SYNC_FILTER_INVALID. */
export async function compileFilter(store: Store, resource: ResourceInfo, text: string): Promise<RawBuilder<boolean>> {
  const columns = filterColumnsOf(resource, await loadResources(store.db), 2)
  const tree = parseFilter(text)
  return filterSql(tree, resolveFilter(tree, columns, resource.keyColumn), 't')
}

/** Columns of a resource as filters know them. Local columns are left out: what does not travel cannot be asked for. */
function filterColumnsOf(resource: ResourceInfo, resources: readonly ResourceInfo[], depth: number): FilterColumn[] {
  const known = resource.columns.filter((column) => column.sent || column.name === resource.keyColumn)
  return known.map((column) => {
    const reference = resource.references.find((each) => each.column.name === column.name)
    const target = reference && resources.find((each) => each.id === reference.resourceId)
    if (reference === undefined || target === undefined || depth === 0)
      return { name: column.name, type: column.baseType }
    return {
      name: column.name,
      type: column.baseType,
      ref: {
        resource: target.name,
        table: { schema: target.tableSchema, name: target.tableName },
        keyColumn: target.keyColumn,
        targetColumn: reference.targetColumn,
        columns: filterColumnsOf(target, resources, depth - 1),
      },
    }
  })
}

/** A peer may filter only by what it may see: a filter on a hidden column would tell its values one question at a time (I10). */
export async function checkDisclosure(
  store: Store,
  peer: Peer,
  resource: ResourceInfo,
  granted: readonly string[] | null,
  text: string,
): Promise<void> {
  for (const { reference, name } of filterColumns(parseFilter(text))) {
    const own = reference === undefined ? name : ownColumn(resource, reference)
    const hidden = (): never => {
      throw new SynclineError(
        'SYNC_AUTH_FORBIDDEN',
        `peer "${peer.name}" may not filter "${resource.name}" by "${reference === undefined ? name : `${reference}.${name}`}": it may not see that column`,
      )
    }
    if (granted !== null && own !== 'id' && own !== resource.keyColumn && !granted.includes(own)) hidden()
    if (reference === undefined) continue
    const target = resource.references.find((each) => each.column.name === own)?.resource
    const grant = target === undefined ? null : await findGrant(store.db, peer.id, target, 'pull')
    if (grant === null || (grant.columns !== null && name !== 'id' && !grant.columns.includes(name))) hidden()
  }
}

function ownColumn(resource: ResourceInfo, reference: string): string {
  const names = resource.references.map((each) => each.column.name)
  return names.includes(reference) ? reference : `${reference}_id`
}

/** Marks checkpoints with what they were reached with: after a change of filter or columns everything is offered again. */
export function scopeMark(filter: string | null, columns: readonly string[] | null | undefined): string {
  if (filter === null && columns == null) return ''
  const text = JSON.stringify([filter === null ? null : formatFilter(parseFilter(filter)), columns ?? null])
  return `.${createHash('sha256').update(text).digest('base64url').slice(0, 10)}`
}

/**
 * Where to begin. A checkpoint that lies in our future proves that this database was put back to an earlier state behind our back:
 * a new log begins, so that no write from now on shares a dot with one of the lost future (I6). Errors: SYNC_CHECKPOINT_GONE.
 */
export async function startOf(
  store: Store,
  after: string | undefined,
  logId: string,
  scope: string,
): Promise<Position | null> {
  if (after === undefined || after === '') return null
  const checkpoint = parseCheckpoint(after)
  const [log, mark] = checkpoint.logId.split('.')
  if (log !== logId)
    throw new SynclineError(
      'SYNC_CHECKPOINT_GONE',
      `the checkpoint belongs to log ${log}; this site now writes log ${logId}`,
    )
  const { rows } = await sql<{
    future: boolean
  }>`select ${checkpoint.position.xact}::xid8 >= pg_snapshot_xmax(pg_current_snapshot()) as future`.execute(store.db)
  if (rows[0]?.future) {
    await beginNewLog(store, logId)
    throw new SynclineError(
      'SYNC_CHECKPOINT_GONE',
      `the checkpoint lies in the future of log ${log}: this database was put back to an earlier state`,
    )
  }
  return (mark === undefined ? '' : `.${mark}`) === scope ? checkpoint.position : null
}

/** A peer could invent checkpoints, and a new log moves every record: once an hour is enough for a true one. */
const NEW_LOG_PAUSE_MS = 3_600_000
const NEW_LOG_SETTING = 'log:begun-for-checkpoint'

async function beginNewLog(store: Store, logId: string): Promise<void> {
  const last = await getSetting(store.db, NEW_LOG_SETTING)
  if (typeof last === 'number' && Date.now() - last < NEW_LOG_PAUSE_MS) return
  await setSetting(store.db, NEW_LOG_SETTING, Date.now())
  await newLog(store.db, logId)
}
