import { type Kysely, sql } from 'kysely'
import { SynclineError } from '../sync/index.ts'
import { inTransaction } from './registry/transaction.ts'
import type { Database } from './schema.ts'

/** A key by which a host proves who it is. */
export type HostKeyRow = {
  readonly host: string
  readonly port: number
  /** Such as `ssh-ed25519`. */
  readonly type: string
  /** Base64 of the public key. */
  readonly key: string
  /** `SHA256:…`, as people compare it. */
  readonly fingerprint: string
}

export type TrustedHostKey = HostKeyRow & { readonly trustedAt: string; readonly trustedBy: string | null }

/** Far more than anybody copies files to. */
const KEYS_MAX = 10_000

/** Every key that somebody has confirmed. */
export async function listHostKeys(db: Kysely<Database>): Promise<readonly TrustedHostKey[]> {
  return db
    .selectFrom('syncline.host_key')
    .select(['host', 'port', 'type', 'key', 'fingerprint', 'trusted_at as trustedAt', 'trusted_by as trustedBy'])
    .orderBy('host')
    .orderBy('port')
    .orderBy('type')
    .limit(KEYS_MAX)
    .execute()
}

/** From now on a host is believed with these keys and no other: what was trusted of it before is replaced. */
export async function trustHostKeys(
  db: Kysely<Database>,
  keys: readonly HostKeyRow[],
  by: string | null,
): Promise<void> {
  await inTransaction(db, async (trx) => {
    // Also keeps two callers apart.
    await sql`select pg_advisory_xact_lock(hashtextextended('syncline.host_key', 0))`.execute(trx)
    for (const { host, port } of keys)
      await trx.deleteFrom('syncline.host_key').where('host', '=', host).where('port', '=', port).execute()
    for (const { host, port, type, key, fingerprint } of keys)
      await trx.insertInto('syncline.host_key').values({ host, port, type, key, fingerprint, trusted_by: by }).execute()
  })
}

/** Believes a host no more. Errors: SYNC_REQUEST_NOT_FOUND. */
export async function forgetHost(db: Kysely<Database>, host: string, port: number): Promise<void> {
  const query = db.deleteFrom('syncline.host_key').where('host', '=', host).where('port', '=', port)
  const { numDeletedRows } = await query.executeTakeFirst()
  if (numDeletedRows === 0n)
    throw new SynclineError('SYNC_REQUEST_NOT_FOUND', `no key of ${host}, port ${port}, is trusted`)
}
