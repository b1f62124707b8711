import { pathToFileURL } from 'node:url'
import { type Kysely, type Selectable, sql } from 'kysely'
import { type FileState, type FolderSettings, SynclineError } from '../sync/index.ts'
import { createPeer, findPeer, inTransaction, isoTime, type Peer } from './registry/index.ts'
import type { Database } from './schema.ts'

/** A file that was seen in a folder. */
export type FolderFile = {
  readonly id: string
  /** Below the folder. */
  readonly name: string
  readonly bytes: number
  /** Nanoseconds since 1970, as text. */
  readonly modified: string
  readonly sha256: string | null
  /** In the order of reading; null before it is ready. */
  readonly place: number | null
  /** Records by resource. */
  readonly resources: Readonly<Record<string, number>>
  /** What of it is not taken, by what it is. */
  readonly leftOver: Readonly<Record<string, number>>
  readonly state: 'new' | 'waiting' | 'taken' | 'refused' | 'changed'
  readonly gone: boolean
  readonly reason: string | null
  readonly seenAt: string
  readonly takenAt: string | null
}

/** A file in the making. */
export type FolderOutput = {
  readonly spool: string
  readonly bytes: number
  readonly state: FileState
  readonly records: Readonly<Record<string, number>>
  readonly name: string | null
}

const FILES_MAX = 1_000
/** What is gone, and was dealt with, is kept so long for people to look at. */
const GONE_DAYS = 90

/** Registers a folder as a peer. Errors: those of createPeer. */
export async function createFolderPeer(
  db: Kysely<Database>,
  key: Buffer,
  peer: { readonly name: string; readonly uuid: string; readonly settings: FolderSettings },
): Promise<Peer> {
  const { name, uuid, settings } = peer
  return inTransaction(db, async (trx) => {
    const made = await createPeer(trx, key, { name, uuid, kind: 'folder', url: addressOf(settings) })
    const row = { peer_id: made.id, settings: JSON.stringify(settings) }
    await trx.insertInto('syncline.folder').values(row).execute()
    return made
  })
}

/** How a folder is read and written. Errors: SYNC_REQUEST_INVALID for a peer that is none. */
export async function readFolder(db: Kysely<Database>, peer: Pick<Peer, 'id' | 'name'>): Promise<FolderSettings> {
  const row = await db
    .selectFrom('syncline.folder')
    .select('settings')
    .where('peer_id', '=', peer.id)
    .executeTakeFirst()
  if (row === undefined) throw new SynclineError('SYNC_REQUEST_INVALID', `peer "${peer.name}" is no folder`)
  return row.settings
}

/** Changes how a folder is read and written. `ifMatch` is the revision that the caller read. Errors: SYNC_REQUEST_CHANGED, SYNC_REQUEST_INVALID. */
export async function changeFolder(
  db: Kysely<Database>,
  peer: Peer,
  settings: FolderSettings,
  ifMatch?: number,
): Promise<Peer> {
  return inTransaction(db, async (trx) => {
    const before = await readFolder(trx, peer)
    let update = trx
      .updateTable('syncline.peer')
      .set({ url: addressOf(settings), revision: sql`revision + 1` })
      .where('id', '=', peer.id)
    if (ifMatch !== undefined) update = update.where('revision', '=', ifMatch)
    const { numUpdatedRows } = await update.executeTakeFirst()
    if (numUpdatedRows === 0n)
      throw new SynclineError(
        'SYNC_REQUEST_CHANGED',
        `peer "${peer.name}" was changed since revision ${ifMatch} was read`,
      )
    await trx
      .updateTable('syncline.folder')
      .set({ settings: JSON.stringify(settings) })
      .where('peer_id', '=', peer.id)
      .execute()
    // Names are below the path: in another one there are other files.
    if (before.path !== settings.path)
      await trx
        .updateTable('syncline.folder_file')
        .set({ gone: true })
        .where('peer_id', '=', peer.id)
        .where('gone', '=', false)
        .execute()
    return findPeer(trx, peer.id)
  })
}

/** So that a folder has an address like every peer that this site reaches by itself. */
function addressOf({ path }: FolderSettings): string {
  return pathToFileURL(path).href
}

/** Files that are in a folder, as far as they were looked at, in the order of reading; of these states, where some are named. */
export async function filesInFolder(
  db: Kysely<Database>,
  peerId: number,
  states?: readonly FolderFile['state'][],
): Promise<readonly FolderFile[]> {
  let select = db.selectFrom('syncline.folder_file').selectAll().where('peer_id', '=', peerId).where('gone', '=', false)
  if (states !== undefined) select = select.where('state', 'in', [...states])
  return (await select.orderBy('place').orderBy('id').execute()).map(toFile)
}

/** The next files with records of a resource behind a place, at most so many. */
export async function nextFolderFiles(
  db: Kysely<Database>,
  peerId: number,
  resource: string,
  after: number,
  limit: number,
): Promise<readonly FolderFile[]> {
  const rows = await db
    .selectFrom('syncline.folder_file')
    .selectAll()
    .where('peer_id', '=', peerId)
    .where('state', '=', 'waiting')
    .where('gone', '=', false)
    .where('place', '>', String(after))
    .where(sql<boolean>`resources ? ${resource}`)
    .orderBy('place')
    .limit(limit)
    .execute()
  return rows.map(toFile)
}

/** Files of a folder for people: the last that were seen first. */
export async function listFolderFiles(
  db: Kysely<Database>,
  peerId: number,
  query: { readonly state?: FolderFile['state'] | undefined; readonly limit?: number | undefined } = {},
): Promise<readonly FolderFile[]> {
  let select = db.selectFrom('syncline.folder_file').selectAll().where('peer_id', '=', peerId)
  if (query.state !== undefined) select = select.where('state', '=', query.state)
  const rows = await select
    .orderBy('id', 'desc')
    .limit(Math.min(query.limit ?? 100, FILES_MAX))
    .execute()
  return rows.map(toFile)
}

function toFile(row: Selectable<Database['syncline.folder_file']>): FolderFile {
  return {
    id: row.id,
    name: row.name,
    bytes: Number(row.bytes),
    modified: row.modified,
    sha256: row.sha256,
    place: row.place === null ? null : Number(row.place),
    resources: row.resources,
    leftOver: row.left_over,
    state: row.state,
    gone: row.gone,
    reason: row.reason,
    seenAt: isoTime(row.seen_at),
    takenAt: isoTime(row.taken_at),
  }
}

/** Notes a file that was not there before, or not with this content. The one that had its name is gone. */
export async function noteFolderFile(
  db: Kysely<Database>,
  peerId: number,
  file: Pick<FolderFile, 'name' | 'bytes' | 'modified'>,
): Promise<void> {
  const { name, bytes, modified } = file
  await inTransaction(db, async (trx) => {
    await trx
      .updateTable('syncline.folder_file')
      .set({ gone: true })
      .where('peer_id', '=', peerId)
      .where('name', '=', name)
      .where('gone', '=', false)
      .execute()
    await trx
      .insertInto('syncline.folder_file')
      .values({ peer_id: peerId, name, bytes, modified, sha256: null, state: 'new', reason: null })
      .execute()
  })
}

/** Says that a file is ready, and puts it behind all that are. */
export async function queueFolderFile(
  db: Kysely<Database>,
  { id }: Pick<FolderFile, 'id'>,
  facts: Pick<FolderFile, 'sha256' | 'resources' | 'leftOver'>,
): Promise<void> {
  await sql`
    update syncline.folder_file f set state = 'waiting', sha256 = ${facts.sha256}, resources = ${JSON.stringify(facts.resources)}::jsonb,
           left_over = ${JSON.stringify(facts.leftOver)}::jsonb,
           place = 1 + coalesce((select max(o.place) from syncline.folder_file o where o.peer_id = f.peer_id), 0)
     where f.id = ${id}::int8`.execute(db)
}

/** Notes what is found of a file. */
export async function updateFolderFile(
  db: Kysely<Database>,
  { id }: Pick<FolderFile, 'id'>,
  change: Partial<
    Pick<FolderFile, 'bytes' | 'modified' | 'sha256' | 'state' | 'gone' | 'reason' | 'resources' | 'leftOver'>
  > & { readonly taken?: true },
): Promise<void> {
  const { taken, resources, leftOver, ...rest } = change
  await db
    .updateTable('syncline.folder_file')
    .set({
      ...rest,
      ...(resources !== undefined && { resources: JSON.stringify(resources) }),
      ...(leftOver !== undefined && { left_over: JSON.stringify(leftOver) }),
      ...(taken && { taken_at: sql`clock_timestamp()` }),
      ...(change.bytes !== undefined && { seen_at: sql`clock_timestamp()` }),
    })
    .where('id', '=', id)
    .execute()
}

/** Forgets files that left the folder long ago. */
export async function pruneFolderFiles(db: Kysely<Database>, peerId: number): Promise<void> {
  await sql`
    delete from syncline.folder_file where peer_id = ${peerId} and gone
       and place is distinct from (select max(o.place) from syncline.folder_file o where o.peer_id = ${peerId})
       and seen_at < now() - make_interval(days => ${GONE_DAYS})`.execute(db)
}

/** Files in the making, the oldest first. */
export async function folderOutputs(db: Kysely<Database>, peerId: number): Promise<readonly FolderOutput[]> {
  const rows = await db
    .selectFrom('syncline.folder_output')
    .selectAll()
    .where('peer_id', '=', peerId)
    .orderBy('begun_at')
    .execute()
  return rows.map((row) => ({
    spool: row.spool,
    bytes: Number(row.bytes),
    state: row.file_state,
    records: row.records,
    name: row.name,
  }))
}

export async function writeFolderOutput(db: Kysely<Database>, peerId: number, output: FolderOutput): Promise<void> {
  const { spool, bytes, name } = output
  const row = { bytes, name, file_state: JSON.stringify(output.state), records: JSON.stringify(output.records) }
  await db
    .insertInto('syncline.folder_output')
    .values({ peer_id: peerId, spool, ...row })
    .onConflict((conflict) => conflict.columns(['peer_id', 'spool']).doUpdateSet(row))
    .execute()
}

export async function endFolderOutput(db: Kysely<Database>, peerId: number, spool: string): Promise<void> {
  await db.deleteFrom('syncline.folder_output').where('peer_id', '=', peerId).where('spool', '=', spool).execute()
}
