import type { FastifyRequest } from 'fastify'
import type { ResourceInfo, Store } from '../../store/index.ts'
import { findGrant, loadResources, recordsBelow } from '../../store/index.ts'
import {
  type Change,
  type EdenFilters,
  type EdenShape,
  type EdenShapes,
  type EdenVariable,
  edenFilters,
  edenShapes,
  readEdenTime,
  SynclineError,
  siteOfRepository,
  typeofWishes,
} from '../../sync/index.ts'
import { notGranted } from '../exchange.ts'
import type { EdenSource } from './source.ts'

/** How a table was asked for: by the synchronization (which takes no paging), by the table's own address, or as a plain export. */
export type EdenWay = 'sync' | 'direct' | 'plain'

/** What a request of Eden asks for. */
export type EdenAsked = {
  readonly table: string
  readonly way: EdenWay
  readonly repository: string | null
  /** As it stood; null where there is none that Eden would read. */
  readonly msince: string | null
  readonly includeDeleted: boolean
  readonly start: number
  readonly limit: number | null
  readonly filters: readonly EdenVariable[]
}

/** The tables of this site, as Eden sees them. */
export type EdenTables = {
  readonly shapes: EdenShapes
  readonly resources: ReadonlyMap<string, ResourceInfo>
}

/** Variables with a meaning of their own. What Eden itself reads past here is read past. */
const PLAIN = ['resource', 'repository', 'msince', 'include_deleted', 'start', 'limit']
const READ_PAST = [
  ...['strategy', 'update_policy', 'conflict_policy', 'components', 'mcomponents', 'ignore_errors', 'maxdepth'],
  ...['maxbounds', 'references', 'fields', 'show_ids', 'format', 'transform'],
]
/** What Eden reads as a time of its own; anything else it silently takes for none, and tells everything. */
const EXACT_TIME = /^\d{4}-\d{2}-\d{2}T\d{2}:\d{2}:\d{2}$/

/** Reads the address of a request. Errors: SYNC_REQUEST_INVALID for variables that would have to be left out. */
export function readAsked(request: FastifyRequest, table: string, way: EdenWay): EdenAsked {
  const variables = [...new URLSearchParams(request.url.split('?').slice(1).join('?'))]
  const value = (name: string) => variables.findLast(([key]) => key === name)?.[1]
  const filters = variables.filter(([key]) => isFilter(key, way))
  const strange = variables.find(
    ([key]) => !PLAIN.includes(key) && !READ_PAST.includes(key) && !filters.some(([known]) => known === key),
  )
  if (strange !== undefined)
    throw new SynclineError(
      'SYNC_REQUEST_INVALID',
      `"${strange[0].slice(0, 80)}" is no variable that this site knows here; a filter looks like [~]~.name__like=A*`,
    )
  const msince = value('msince') ?? ''
  const paged = way !== 'sync'
  return {
    table,
    way,
    repository: value('repository') ?? null,
    msince: EXACT_TIME.test(msince) && readEdenTime(msince) !== undefined ? msince : null,
    includeDeleted: way === 'sync' || value('include_deleted') !== undefined,
    start: paged ? (wholeNumber(value('start')) ?? 0) : 0,
    limit: paged ? wholeNumber(value('limit')) : null,
    filters,
  }
}

/** Every attached resource under its name at Eden. */
export async function edenTables(store: Store): Promise<EdenTables> {
  const resources = await loadResources(store.db)
  // A column of bytes holds a file: it goes where this site calls, which can fetch and check it.
  const files = resources.map((resource) => {
    const bytes = resource.columns.filter(({ baseType }) => baseType === 'bytea').map(({ name }) => name)
    return [resource.name, { uploads: bytes }] as const
  })
  return {
    shapes: edenShapes(resources, Object.fromEntries(files)),
    resources: new Map(resources.map((resource) => [resource.name, resource])),
  }
}

/** The resource that a table is here. Errors: SYNC_AUTH_FORBIDDEN where the peer may not have it, whether it is there or not. */
export async function grantedTable(
  store: Store,
  tables: EdenTables,
  peer: { readonly id: number; readonly name: string },
  table: string,
  direction: 'pull' | 'push',
): Promise<{ readonly shape: EdenShape; readonly resource: ResourceInfo }> {
  const shape = tables.shapes.get(table)
  const resource = shape && tables.resources.get(shape.resource)
  if (shape === undefined || resource === undefined) throw new UnknownTable(table)
  if ((await findGrant(store.db, peer.id, resource.name, direction)) === null)
    throw notGranted(peer.name, direction, resource.name)
  return { shape, resource }
}

/** A table that is not here. Eden answers it without a word, so nobody learns more than that. */
export class UnknownTable extends SynclineError {
  constructor(table: string) {
    super('SYNC_REQUEST_INVALID', `there is no table "${table.slice(0, 80)}" here`)
  }
}

/**
 * Whether the peer of the account is the one that the request names. Null: it names none, or a peer that never registered names itself. Errors:
 * SYNC_AUTH_FORBIDDEN for another peer's name.
 */
export function ownRepository(
  asked: Pick<EdenAsked, 'repository'>,
  peer: { readonly name: string; readonly uuid: string },
  registered: boolean,
): boolean {
  if (asked.repository === null) return false
  if (siteOfRepository(asked.repository) === peer.uuid) return true
  if (!registered) return false
  throw new SynclineError(
    'SYNC_AUTH_FORBIDDEN',
    `this is the account of peer "${peer.name}", which has another repository UUID than ${asked.repository.slice(0, 80)}`,
  )
}

/** A change without files: their addresses are no content, and their bytes do not travel in documents. */
export function withoutFiles(change: Change, { columns }: EdenShape): Change {
  const files = columns.filter(({ kind }) => kind === 'upload').map(({ column }) => column)
  if (change.kind !== 'put' || files.length === 0) return change
  return { ...change, data: Object.fromEntries(Object.entries(change.data).filter(([name]) => !files.includes(name))) }
}

/** The filters of a request. Errors: SYNC_FILTER_INVALID by name. */
export async function filtersOf(
  store: Store,
  source: Pick<EdenSource, 'isWhole'>,
  asked: EdenAsked,
  shape: EdenShape,
  { shapes, resources }: EdenTables,
): Promise<EdenFilters> {
  const below = new Map<string, readonly string[]>()
  for (const { resource: name, column, id } of typeofWishes(asked.filters, shape, shapes)) {
    const resource = resources.get(name)
    // What stands below what is told by the records themselves.
    if (resource === undefined || !(await source.isWhole(name)))
      throw new SynclineError(
        'SYNC_FILTER_INVALID',
        `a filter with typeof looks at "${name}", which this peer may not pull`,
      )
    below.set(`${name} ${id}`, await recordsBelow(store.db, resource, column, id))
  }
  return edenFilters(asked.filters, shape, shapes, (resource, _column, id) => below.get(`${resource} ${id}`) ?? [])
}

function isFilter(key: string, way: EdenWay): boolean {
  if (key.startsWith('[')) return true
  return way !== 'sync' && /^(?:~|\w+|\(.*)\.|__\w+!?$/.test(key)
}

function wholeNumber(text: string | undefined): number | null {
  return text !== undefined && /^\d{1,9}$/.test(text) ? Number(text) : null
}
