import { type Kysely, sql, type Transaction } from 'kysely'
import type { LineBatch } from '../sync/index.ts'
import type { ResourceInfo } from './resources.ts'
import type { Database } from './schema.ts'

/** Sets of fields in one batch: each is a step of its own for the receiver. Rows of which each could have another set are a small batch. */
export const SETS_MAX = 200

/**
 * A batch with what is parked for its records: fields of other sites that have no column here go on to third sites, and back, with the record's
 * version (I11). Each line names the set of fields that it carries, so that a field which is not there is not sent, and never null. Null when the
 * batch would have more than SETS_MAX sets. Where nothing is parked the batch is as it was: one look-up.
 */
export async function relayParked(
  db: Kysely<Database>,
  resource: ResourceInfo,
  only: readonly string[] | null | undefined,
  batch: LineBatch,
): Promise<LineBatch | null> {
  if (batch.count === 0) return batch
  const here = new Set(resource.columns.filter(({ sent }) => sent).map(({ name }) => name))
  const names = (await parkedNames(db, resource.id)).filter(
    (name) => !here.has(name) && name !== resource.keyColumn && (only == null || only.includes(name)),
  )
  if (names.length === 0) return batch
  const lines = batch.text.split('\n')
  const ids = lines.map((line) => JSON.parse(line.slice(0, line.indexOf('\t'))) as string)
  const { rows } = await sql<{ id: string; names: readonly string[]; values: string }>`
    select k.record_id as id, array_agg(f.key order by f.key collate "C") as names, string_agg(f.value::text, ',' order by f.key collate "C") as values
      from syncline.parked k, jsonb_each(k.fields) f
     where k.resource_id = ${resource.id} and k.record_id = any(${ids}::text[]) and f.key = any(${names}::text[]) group by 1`.execute(
    db,
  )
  const parked = new Map(rows.map((row) => [row.id, row]))
  const sets = new Map<string, number>()
  const text = lines.map((line, n) => {
    const found = parked.get(ids[n] ?? '')
    if (found === undefined || !line.endsWith(']')) return line
    const key = JSON.stringify(found.names)
    const set = sets.get(key) ?? sets.size
    sets.set(key, set)
    return `${line.slice(0, -1)}${line.endsWith('\t[]') ? '' : ','}${found.values}]\t${set}`
  })
  if (sets.size === 0) return batch
  if (sets.size > SETS_MAX) return null
  return { ...batch, text: text.join('\n'), sets: [...sets.keys()].map((key) => JSON.parse(key) as string[]) }
}

async function parkedNames(db: Kysely<Database>, resourceId: number): Promise<readonly string[]> {
  const { rows } = await sql<{ name: string }>`
    select name from syncline.parked_field where resource_id = ${resourceId} order by name`.execute(db)
  return rows.map(({ name }) => name)
}

/** Remembers that fields of these names are parked. */
export async function noteParked(
  trx: Transaction<Database>,
  resourceId: number,
  names: readonly string[],
): Promise<void> {
  await sql`
    insert into syncline.parked_field (resource_id, name) select ${resourceId}, unnest(${[...names]}::text[]) on conflict do nothing`.execute(
    trx,
  )
}

/** Forgets names of fields of which nothing is parked any more. */
export async function forgetParked(trx: Transaction<Database>, resourceId: number): Promise<void> {
  await sql`
    delete from syncline.parked_field f where f.resource_id = ${resourceId}
       and not exists (select from syncline.parked k where k.resource_id = f.resource_id and k.fields ? f.name)`.execute(
    trx,
  )
}
