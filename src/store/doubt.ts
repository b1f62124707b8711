import { type Kysely, sql } from 'kysely'
import { narrowedColumns, type SchemaColumn } from '../sync/index.ts'
import type { Database } from './schema.ts'

/** Longer than any list of columns that a person would read. */
const WORDS_MAX = 1_000
/** How a doubt begins, by the side that it is about. */
export const LOST = {
  here: 'values may have lost something here',
  there: 'values may have lost something at the peer',
} as const

/**
 * A table that was altered may have lost something of what it held, here (`peerId` null) or at a peer: nobody is known to agree with it until the
 * values were compared (I9).
 */
export async function doubtNarrowed(
  db: Kysely<Database>,
  { resource, peerId }: { readonly resource: string; readonly peerId: number | null },
  before: readonly SchemaColumn[],
  now: readonly SchemaColumn[],
): Promise<void> {
  const narrowed = narrowedColumns(before, now)
  if (narrowed.length === 0) return
  const reason =
    `${LOST[peerId === null ? 'here' : 'there']}: ${narrowed.join('; ')}; verify --deep compares them`.slice(
      0,
      WORDS_MAX,
    )
  await sql`
    update syncline.agreement set doubt = case when doubt is null or doubt = ${reason} then ${reason} else left(doubt || '; ' || ${reason}, ${2 * WORDS_MAX}) end, verdict = case when verdict = 'equal' then 'different' else verdict end,
           reason = case when verdict = 'equal' then ${reason} else reason end
     where resource_id = (select id from syncline.resource where name = ${resource}) and (${peerId}::int4 is null or peer_id = ${peerId})`.execute(
    db,
  )
}
