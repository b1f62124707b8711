import { type Kysely, sql } from 'kysely'
import { SynclineError } from '../../sync/index.ts'
import { renewMarks } from '../field-marks.ts'
import type { Database } from '../schema.ts'
import { notFound } from './peers.ts'
import { inTransaction } from './transaction.ts'
import {
  type BrakeLimitSettings,
  type BrakeLimits,
  checkBrakes,
  checkLink,
  checkWord,
  type LinkRuleSettings,
  type LinkRules,
} from './values.ts'

export const DIRECTIONS = ['pull', 'push'] as const
/** What the peer does: it pulls from this site, or pushes to it. */
export type Direction = (typeof DIRECTIONS)[number]

/** What a peer may ask of this site for one resource. Without a grant it may nothing. */
export type Grant = LinkRules &
  BrakeLimits & { readonly peerId: number; readonly resource: string; readonly direction: Direction }

export type NewGrant = LinkRuleSettings &
  BrakeLimitSettings & {
    readonly peerId: number
    readonly resource: string
    readonly direction: string
  }

/**
 * Makes or replaces a grant as a whole. Filter and columns are kept as given: whoever calls has checked them against the resource.
 * Errors: SYNC_REQUEST_INVALID, SYNC_REQUEST_NOT_FOUND.
 */
export async function setGrant(db: Kysely<Database>, grant: NewGrant): Promise<Grant> {
  const link = checkLink(grant)
  const brakes = checkBrakes(grant)
  const direction = checkWord('direction', grant.direction, DIRECTIONS)
  return inTransaction(db, async (trx) => {
    const resourceId = await resourceIdOf(trx, grant.resource)
    const peer = await trx.selectFrom('syncline.peer').select('id').where('id', '=', grant.peerId).executeTakeFirst()
    if (peer === undefined) throw notFound(grant.peerId)
    const columns = link.columns === null ? null : [...link.columns]
    const values = {
      filter: link.filter,
      columns,
      on_conflict: link.onConflict,
      master: link.master,
      fields: JSON.stringify(link.fields),
      max_deletes: brakes.maxDeletes,
      max_changes: brakes.maxChanges,
    }
    await trx
      .insertInto('syncline.peer_grant')
      .values({ peer_id: grant.peerId, resource_id: resourceId, direction, ...values })
      .onConflict((conflict) => conflict.columns(['peer_id', 'resource_id', 'direction']).doUpdateSet(values))
      .execute()
    // What waits of the peer may be permitted now.
    await trx
      .updateTable('syncline.quarantine')
      .set({ retry_at: sql<string>`now()` })
      .where('peer_id', '=', grant.peerId)
      .where('resource_id', '=', resourceId)
      .execute()
    await renewMarks(trx, grant.resource)
    return { ...link, ...brakes, peerId: grant.peerId, resource: grant.resource, direction }
  })
}

/** Every grant of a peer, by resource and direction. */
export async function listGrants(db: Kysely<Database>, peerId: number): Promise<readonly Grant[]> {
  const rows = await selectGrants(db)
    .where('grant.peer_id', '=', peerId)
    .orderBy('resource.name')
    .orderBy('grant.direction')
    .execute()
  return rows.map(toGrant)
}

/** The grant for one request, or null: then the request is not permitted. */
export async function findGrant(
  db: Kysely<Database>,
  peerId: number,
  resource: string,
  direction: Direction,
): Promise<Grant | null> {
  const row = await selectGrants(db)
    .where('grant.peer_id', '=', peerId)
    .where('resource.name', '=', resource)
    .where('grant.direction', '=', direction)
    .executeTakeFirst()
  return row === undefined ? null : toGrant(row)
}

/** Takes a grant back. Whether the peer had pulled up to somewhere is forgotten with it. Errors: SYNC_REQUEST_NOT_FOUND. */
export async function removeGrant(
  db: Kysely<Database>,
  peerId: number,
  resource: string,
  direction: Direction,
): Promise<void> {
  await inTransaction(db, async (trx) => {
    const resourceId = await resourceIdOf(trx, resource)
    const row = await trx
      .deleteFrom('syncline.peer_grant')
      .where('peer_id', '=', peerId)
      .where('resource_id', '=', resourceId)
      .where('direction', '=', direction)
      .returning('direction')
      .executeTakeFirst()
    if (row === undefined) {
      throw new SynclineError('SYNC_REQUEST_NOT_FOUND', `the peer has no grant to ${direction} resource "${resource}"`)
    }
    // A place that nobody will ever move on must not hold tombstones back.
    if (direction === 'pull') await forgetCheckpoints(trx, peerId, resourceId, ['ack'])
    await renewMarks(trx, resource)
  })
}

/** The id of an attached resource. Errors: SYNC_REQUEST_NOT_FOUND. */
export async function resourceIdOf(db: Kysely<Database>, name: string): Promise<number> {
  const row = await db.selectFrom('syncline.resource').select('id').where('name', '=', name).executeTakeFirst()
  if (row === undefined)
    throw new SynclineError('SYNC_REQUEST_NOT_FOUND', `no resource "${name.slice(0, 80)}" is attached here`)
  return row.id
}

/** Forgets how far a link had come; the next exchange over it begins at zero, and versions tell what is already there. */
export async function forgetCheckpoints(
  db: Kysely<Database>,
  peerId: number,
  resourceId: number,
  directions: readonly ('pull' | 'push' | 'ack')[],
): Promise<void> {
  await db
    .deleteFrom('syncline.checkpoint')
    .where('peer_id', '=', peerId)
    .where('resource_id', '=', resourceId)
    .where(sql<boolean>`direction = any(${[...directions]}::text[])`)
    .execute()
}

function selectGrants(db: Kysely<Database>) {
  return db
    .selectFrom('syncline.peer_grant as grant')
    .innerJoin('syncline.resource as resource', 'resource.id', 'grant.resource_id')
    .select([
      'grant.peer_id',
      'resource.name as resource',
      'grant.direction',
      'grant.filter',
      'grant.columns',
      'grant.on_conflict',
      'grant.master',
      'grant.fields',
      'grant.max_deletes',
      'grant.max_changes',
    ])
}

type GrantRow = Awaited<ReturnType<ReturnType<typeof selectGrants>['execute']>>[number]

function toGrant(row: GrantRow): Grant {
  const link = checkLink({
    filter: row.filter,
    columns: row.columns,
    onConflict: row.on_conflict,
    master: row.master,
    fields: row.fields,
  })
  const brakes = { maxDeletes: row.max_deletes, maxChanges: row.max_changes }
  return { ...link, ...brakes, peerId: row.peer_id, resource: row.resource, direction: row.direction }
}
