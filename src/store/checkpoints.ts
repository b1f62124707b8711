import { type Kysely, sql } from 'kysely'
import type { Database } from './schema.ts'

/** pull: our place in the order of the peer · push: up to where the peer took our changes · ack: up to where the peer pulled ours. */
export type CheckpointDirection = 'pull' | 'push' | 'ack'

export async function readCheckpoint(
  db: Kysely<Database>,
  peerId: number,
  resourceId: number,
  direction: CheckpointDirection,
): Promise<string | null> {
  const row = await db
    .selectFrom('syncline.checkpoint')
    .select('value')
    .where('peer_id', '=', peerId)
    .where('resource_id', '=', resourceId)
    .where('direction', '=', direction)
    .executeTakeFirst()
  return row?.value ?? null
}

/** Every checkpoint of a peer, by name of the resource and direction. */
export async function checkpointsOf(
  db: Kysely<Database>,
  peerId: number,
): Promise<ReadonlyMap<string, Readonly<Partial<Record<CheckpointDirection, string>>>>> {
  const rows = await db
    .selectFrom('syncline.checkpoint as c')
    .innerJoin('syncline.resource as r', 'r.id', 'c.resource_id')
    .select(['r.name', 'c.direction', 'c.value'])
    .where('c.peer_id', '=', peerId)
    .execute()
  const found = new Map<string, Partial<Record<CheckpointDirection, string>>>()
  for (const { name, direction, value } of rows) found.set(name, { ...found.get(name), [direction]: value })
  return found
}

/** Moves a checkpoint. For a pull it belongs into the transaction that applied the batch (I5). */
export async function writeCheckpoint(
  db: Kysely<Database>,
  peerId: number,
  resourceId: number,
  direction: CheckpointDirection,
  value: string,
): Promise<void> {
  await db
    .insertInto('syncline.checkpoint')
    .values({ peer_id: peerId, resource_id: resourceId, direction, value })
    .onConflict((conflict) =>
      conflict.columns(['peer_id', 'resource_id', 'direction']).doUpdateSet({ value, at: sql`now()` }),
    )
    .execute()
}

/** Forgets a checkpoint: the next run starts from the beginning, and versions tell what is already there. */
export async function dropCheckpoint(
  db: Kysely<Database>,
  peerId: number,
  resourceId: number,
  direction: CheckpointDirection,
): Promise<void> {
  await db
    .deleteFrom('syncline.checkpoint')
    .where('peer_id', '=', peerId)
    .where('resource_id', '=', resourceId)
    .where('direction', '=', direction)
    .execute()
}
