import { type Kysely, sql } from 'kysely'
import { type Mapping, nameHere, narrowedColumns, type SchemaColumn } from '../sync/index.ts'
import { LOST } from './doubt.ts'
import { peerSchemas, toldSchema } from './peer-schema.ts'
import type { ResourceInfo } from './resources.ts'
import type { Database } from './schema.ts'

/**
 * Why values that differ under one version may have lost something where a column is or was narrower. `whole` is the side that has them as they were;
 * null where nobody can say, or where the other side could not hold them.
 */
export type Loss = { readonly whole: 'here' | 'there' | null; readonly why: string }

/** Null where no column that both sites compare is, or is known to have been, narrower on one side. */
export async function lossOf(
  db: Kysely<Database>,
  peer: { readonly id: number; readonly name: string },
  resource: ResourceInfo,
  { columns, mapping }: { readonly columns: readonly string[] | null; readonly mapping: Mapping },
): Promise<Loss | null> {
  const told = (await peerSchemas(db, peer.id)).get(resource.name)?.columns ?? []
  const ours = toldSchema(resource, columns)
  // Columns of different kinds are not compared at all.
  const theirs = told
    .map((column) => ({ ...column, name: nameHere(mapping, column.name) }))
    .filter((column) => kindOf(column) === kindOf(ours.find(({ name }) => name === column.name)))
  const narrower = ours.filter((column) => {
    const other = theirs.filter(({ name }) => name === column.name)
    return narrowedColumns(other, [column]).length + narrowedColumns([column], other).length > 0
  })
  if (narrower.length > 0) {
    const words = narrower.map(({ name, type }) => {
      const there = theirs.find((other) => other.name === name)?.type
      return `column ${name} is ${type} here and ${there} at ${peer.name}`
    })
    return { whole: null, why: words.join('; ') }
  }
  const doubt = await doubtOf(db, peer.id, resource.id)
  const [here, there] = [doubt.includes(LOST.here), doubt.includes(LOST.there)]
  if (!here && !there) return null
  return {
    whole: here === there ? null : here ? 'there' : 'here',
    why: doubt.replaceAll('; verify --deep compares them', ''),
  }
}

/** True while values of a resource may have lost something here, so that a peer must not be given them as an edit of ours. */
export async function mayBeRounded(db: Kysely<Database>, peerId: number, resourceId: number): Promise<boolean> {
  return (await doubtOf(db, peerId, resourceId)).includes(LOST.here)
}

async function doubtOf(db: Kysely<Database>, peerId: number, resourceId: number): Promise<string> {
  const { rows } = await sql<{ doubt: string | null }>`
    select doubt from syncline.agreement where peer_id = ${peerId} and resource_id = ${resourceId}`.execute(db)
  return rows[0]?.doubt ?? ''
}

function kindOf(column: SchemaColumn | undefined): string | undefined {
  return column?.type.replace(/\([^)]*\)/, '')
}
