import { type Kysely, sql } from 'kysely'
import {
  compareSchemas,
  type Mapping,
  type Mode,
  type SchemaColumn,
  type Schemas,
  SynclineError,
  unknownInMapping,
} from '../sync/index.ts'
import { doubtNarrowed } from './doubt.ts'
import { findResource, type ResourceInfo, sentColumns } from './resources.ts'
import type { Database } from './schema.ts'

/** What a site tells a peer of a resource: the columns that travel and that the peer may see. */
export function toldSchema(resource: ResourceInfo, only: readonly string[] | null): readonly SchemaColumn[] {
  return sentColumns(resource, only).map((column) => ({
    name: column.name,
    type: column.declared ?? column.typeName,
    nullable: !column.notNull,
    hasDefault: column.hasDefault ?? false,
  }))
}

/** The columns of a resource at a peer, as it last told. */
export type PeerSchema = { readonly fingerprint: string; readonly columns: readonly SchemaColumn[] }

/** Schemas that a peer told, by name of the resource. */
export async function peerSchemas(db: Kysely<Database>, peerId: number): Promise<ReadonlyMap<string, PeerSchema>> {
  const rows = await db.selectFrom('syncline.peer_schema').selectAll().where('peer_id', '=', peerId).execute()
  return new Map(
    rows.map(({ resource, fingerprint, columns }) => [
      resource,
      { fingerprint, columns: columns as unknown as readonly SchemaColumn[] },
    ]),
  )
}

/** Remembers what a peer told of a resource. Where a column became narrower, what is in it is in doubt. */
export async function notePeerSchema(
  db: Kysely<Database>,
  peerId: number,
  resource: string,
  { fingerprint, columns }: PeerSchema,
): Promise<void> {
  const before = (await peerSchemas(db, peerId)).get(resource)
  if (before !== undefined) await doubtNarrowed(db, { resource, peerId }, before.columns, columns)
  const told = { fingerprint, columns: JSON.stringify(columns) }
  await db
    .insertInto('syncline.peer_schema')
    .values({ peer_id: peerId, resource, ...told })
    .onConflict((conflict) =>
      conflict.columns(['peer_id', 'resource']).doUpdateSet({ ...told, at: sql`clock_timestamp()` }),
    )
    .execute()
}

/** Errors: SYNC_REQUEST_INVALID for a mapping that names what neither side has. */
export async function checkMappingNames(
  db: Kysely<Database>,
  peerId: number,
  resourceName: string,
  mapping: Mapping,
): Promise<void> {
  const resource = await findResource(db, resourceName)
  const theirs = (await peerSchemas(db, peerId)).get(resourceName)?.columns ?? null
  const fault = unknownInMapping(mapping, toldSchema(resource, null), theirs)
  if (fault !== null) throw new SynclineError('SYNC_REQUEST_INVALID', `the mapping of "${resourceName}": ${fault}`)
}

/** How tables here and at a peer differ, in words, with how many records wait because of it. */
export type SkewNote = { readonly peer: string; readonly resource: string; readonly notes: readonly string[] }

/** For every task whose peer told its schema: where the two differ. */
export async function schemaSkews(
  db: Kysely<Database>,
  resources: readonly ResourceInfo[],
): Promise<readonly SkewNote[]> {
  const { rows } = await sql<{
    peer: string
    peer_id: number
    resource: string
    mode: Mode
    columns: readonly string[] | null
    mapping: Partial<Mapping>
    theirs: readonly SchemaColumn[]
    waiting: number
  }>`
    select p.name as peer, p.id as peer_id, r.name as resource, t.mode, t.columns, t.mapping, s.columns as theirs,
           (select count(*)::int from syncline.quarantine q where q.peer_id = p.id and q.resource_id = r.id
               and q.code in ('SYNC_RECORD_INVALID', 'SYNC_RECORD_CONSTRAINT', 'SYNC_RECORD_INEXACT')) as waiting
      from syncline.task t join syncline.peer p on p.id = t.peer_id join syncline.resource r on r.id = t.resource_id
      join syncline.peer_schema s on s.peer_id = t.peer_id and s.resource = r.name
     order by r.name, p.name`.execute(db)
  return rows.flatMap((row) => {
    const resource = resources.find(({ name }) => name === row.resource)
    if (resource === undefined) return []
    const mapping = { rename: {}, constant: {}, omit: [], ...row.mapping }
    const notes = skewText({ ...row, mapping, ours: toldSchema(resource, null) }, row.waiting)
    return notes.length === 0 ? [] : [{ peer: row.peer, resource: row.resource, notes }]
  })
}

/** A skew in words; behind a column of another type how many values did not fit. */
export function skewText(schemas: Schemas, waiting: number): readonly string[] {
  const { notes, narrowed, pull, push } = compareSchemas(schemas)
  const told =
    narrowed.length > 0 && waiting > 0
      ? ` (${waiting === 1 ? '1 record waits' : `${waiting} records wait`} in quarantine because values did not fit)`
      : ''
  return [
    ...notes.map((note) => (/, here it is (?!may|must)/.test(note) ? `${note}${told}` : note)),
    ...[pull, push].filter((reason) => reason !== null),
  ]
}
