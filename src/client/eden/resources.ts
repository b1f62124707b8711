import {
  type EdenPlace,
  findResource,
  findTaskFor,
  loadResources,
  type Peer,
  type ResourceInfo,
  type Store,
} from '../../store/index.ts'
import {
  type EdenShape,
  type EdenShapes,
  edenShapes,
  NO_MAPPING,
  nameThere,
  shapeOfResource,
} from '../../sync/index.ts'

/** A resource as the table of an Eden site that it is. Columns have their names at Eden, as everywhere between the runs and a client. */
export type EdenResource = {
  readonly name: string
  readonly place: EdenPlace
  readonly info: ResourceInfo
  readonly shape: EdenShape
  readonly shapes: EdenShapes
  /** Reference column → resource. */
  readonly refs: Readonly<Record<string, string>>
}

/** A resource as a table of an Eden site, with the names that the task with it gives its columns. Errors: SYNC_REQUEST_NOT_FOUND. */
export async function edenResource(store: Store, peer: Peer, name: string): Promise<EdenResource> {
  const info = await findResource(store.db, name)
  const all = await loadResources(store.db)
  const mapping = (await findTaskFor(store.db, peer.id, name))?.mapping ?? NO_MAPPING
  const there = <T extends { readonly name: string }>(column: T): T => ({
    ...column,
    name: nameThere(mapping, column.name),
  })
  const sources = all.map((each) =>
    each.id !== info.id
      ? each
      : {
          ...each,
          columns: each.columns.map(there),
          references: each.references.map((reference) => ({ ...reference, column: there(reference.column) })),
        },
  )
  // A column of bytes holds the file itself; a text of any kind could not be told from a name.
  const uploads = Object.fromEntries(
    sources.map((each) => [
      each.name,
      { uploads: each.columns.filter(({ baseType }) => baseType === 'bytea').map((column) => column.name) },
    ]),
  )
  const shapes = edenShapes(sources, uploads)
  const shape = shapeOfResource(shapes, name)
  if (shape === undefined) throw new Error(`resource "${name}" has no shape`)
  const refs = Object.fromEntries(
    info.references.map((reference) => [nameThere(mapping, reference.column.name), reference.resource]),
  )
  return { name, place: { peerId: peer.id, resourceId: info.id }, info, shape, shapes, refs }
}
