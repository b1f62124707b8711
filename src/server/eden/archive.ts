import { type Dataset, keepArchive, readPublished } from '../../store/index.ts'
import {
  type EdenElement,
  edenFilters,
  emptyS3xml,
  filterVariables,
  SynclineError,
  s3xmlWriter,
  writeZip,
  type ZipSource,
} from '../../sync/index.ts'
import type { ServerDeps } from '../deps.ts'
import { type EdenTables, edenTables } from './asked.ts'
import { outgoing } from './outgoing.ts'
import { Seen } from './seen.ts'
import { type EdenSource, publishedSource } from './source.ts'

/** Records that are read at once. */
const ROWS = 1_000
const NOTHING: ReadonlyMap<string, string> = new Map()

/**
 * The filter of a published table, as this site runs it; undefined for none. Errors: SYNC_FILTER_INVALID for what Eden's words do not say here, or
 * say of another table.
 */
export function publishedFilter(
  { shapes }: EdenTables,
  resource: string,
  filter: string | null | undefined,
): string | undefined {
  const shape = [...shapes.values()].find((each) => each.resource === resource)
  if (shape === undefined) throw new SynclineError('SYNC_REQUEST_NOT_FOUND', `there is no resource "${resource}" here`)
  if (filter == null || filter.trim() === '') return undefined
  const { byTable, inside } = edenFilters(filterVariables(filter, shape.table), shape, shapes)
  if (inside.length > 0 || [...byTable.keys()].some((table) => table !== shape.table))
    throw new SynclineError(
      'SYNC_FILTER_INVALID',
      `filter "${filter.slice(0, 120)}": a table of a data set is chosen from by its own fields`,
    )
  return byTable.get(shape.table)
}

/**
 * Makes the archive of a data set anew: a zip file with one document of S3XML for each of its tables, named after the task that the table is at
 * Eden. Gives how many records are in it.
 */
export async function makeArchive(deps: ServerDeps, dataset: Dataset): Promise<number> {
  const tables = await edenTables(deps.store)
  const published = new Map(
    dataset.tables.map(({ resource, filter }) => [resource, publishedFilter(tables, resource, filter)]),
  )
  const source = publishedSource(deps, published)
  let records = 0
  const members = async function* (): AsyncIterable<ZipSource> {
    for (const { uuid, resource } of dataset.tables)
      yield { name: `urn:uuid:${uuid}.xml`, pieces: document(deps, tables, source, resource, published.get(resource)) }
  }
  async function* document(...given: Parameters<typeof elementsOf>): AsyncIterable<string> {
    const writer = s3xmlWriter()
    let opened = false
    for await (const element of elementsOf(...given)) {
      if (!opened) yield writer.open({ success: 'true' })
      opened = true
      records++
      yield writer.element(element)
    }
    yield opened ? writer.close() : emptyS3xml({ success: 'false', results: '0' })
  }
  await keepArchive(deps.store.db, dataset, writeZip(members()), () => records)
  return records
}

/** The records of a table and those that they refer to, as far as they are published together. */
async function* elementsOf(
  deps: ServerDeps,
  tables: EdenTables,
  source: EdenSource,
  name: string,
  filter: string | undefined,
): AsyncIterable<EdenElement> {
  const resource = tables.resources.get(name)
  const shape = [...tables.shapes.values()].find((each) => each.resource === name)
  if (resource === undefined || shape === undefined) return
  const context = { deps, source, tables, filters: NOTHING, includeDeleted: false, since: 0, remembered: false }
  const { tell, follow } = outgoing(context)
  const seen = new Seen()
  for (let after: string | undefined; ; ) {
    const batch = await readPublished(deps.store, { resource: name, after, filter, limit: ROWS }, deps.limits)
    const told = await tell(batch, resource, shape)
    // A record that changed meanwhile comes once more.
    yield* told.elements.filter((_, n) => seen.add({ resource: name, id: told.ids[n] ?? '' }))
    yield* await follow(told.references.flat(), (each) => each.resource === name || !seen.add(each))
    if (batch.next?.more !== true) return
    after = batch.next.checkpoint
  }
}
