import { randomBytes } from 'node:crypto'
import { type Kysely, sql } from 'kysely'
import { SynclineError } from '../sync/index.ts'
import { inTransaction, isoTime } from './registry/index.ts'
import { findResource } from './resources.ts'
import type { Database } from './schema.ts'

/** A table of a data set. `filter` is in the words of Eden. */
export type DatasetTable = {
  readonly uuid: string
  readonly filterUuid: string
  readonly resource: string
  readonly filter: string | null
}

/** All of a data set as it was, in one zip file. */
export type DatasetArchive = {
  readonly name: string
  readonly madeAt: string
  readonly records: number
  readonly bytes: number
}

/** Tables that this site publishes together: anybody may read them who can reach it. */
export type Dataset = {
  readonly id: number
  readonly uuid: string
  readonly code: string
  readonly name: string
  readonly comments: string | null
  readonly createdAt: string
  readonly modifiedAt: string
  /** Not null for one that is only remembered, so that those who follow it hear that it has gone. */
  readonly removedAt: string | null
  readonly tables: readonly DatasetTable[]
  readonly archive: DatasetArchive | null
}

export type NewDataset = {
  readonly code: string
  readonly name: string
  readonly comments?: string | null | undefined
  readonly tables: readonly { readonly resource: string; readonly filter?: string | null | undefined }[]
}

/** Data sets of one site, removed ones included. */
const DATASETS_MAX = 1_000
/** Bytes of a piece of an archive in the database, and of a whole one. */
const PIECE_BYTES = 262_144
const ARCHIVE_BYTES_MAX = 2_147_483_648

/** Publishes tables under a code. Errors: SYNC_REQUEST_EXISTS, SYNC_REQUEST_NOT_FOUND, SYNC_REQUEST_INVALID. */
export async function createDataset(db: Kysely<Database>, dataset: NewDataset): Promise<Dataset> {
  const { code, name, comments = null, tables } = dataset
  return inTransaction(db, async (trx) => {
    await sql`lock table syncline.eden_dataset in share row exclusive mode`.execute(trx)
    const known = await readDatasets(trx, { removed: true })
    if (known.some((each) => each.code === code && each.removedAt === null))
      throw new SynclineError('SYNC_REQUEST_EXISTS', `there is a data set "${code}" already`)
    if (known.length >= DATASETS_MAX)
      throw new SynclineError('SYNC_REQUEST_INVALID', `a site has at most ${DATASETS_MAX} data sets`)
    const row = await trx
      .insertInto('syncline.eden_dataset')
      .values({ code, name, comments })
      .returning('id')
      .executeTakeFirstOrThrow()
    for (const { resource, filter = null } of tables) {
      const { id } = await findResource(trx, resource)
      await trx
        .insertInto('syncline.eden_dataset_table')
        .values({ dataset_id: row.id, resource_id: id, filter })
        .execute()
    }
    return findDataset(trx, code)
  })
}

/** A data set by its code. Errors: SYNC_REQUEST_NOT_FOUND. */
export async function findDataset(db: Kysely<Database>, code: string): Promise<Dataset> {
  const [found] = (await readDatasets(db)).filter((each) => each.code === code)
  if (found === undefined)
    throw new SynclineError('SYNC_REQUEST_NOT_FOUND', `there is no data set "${code.slice(0, 64)}"`)
  return found
}

/** The data sets of this site by code; with `removed` also those that it had. */
export async function readDatasets(
  db: Kysely<Database>,
  { removed = false }: { readonly removed?: boolean } = {},
): Promise<readonly Dataset[]> {
  const { rows } = await sql<Row>`
    select d.id, d.uuid, d.code, d.name, d.comments, d.created_at, d.modified_at, d.removed_at,
           coalesce((select jsonb_agg(jsonb_build_object('uuid', t.uuid, 'filterUuid', t.filter_uuid, 'resource', r.name, 'filter', t.filter) order by t.id)
                       from syncline.eden_dataset_table t join syncline.resource r on r.id = t.resource_id where t.dataset_id = d.id), '[]') as tables,
           (select jsonb_build_object('name', a.name, 'madeAt', a.made_at::text, 'records', a.records, 'bytes', a.bytes)
              from syncline.eden_archive a where a.dataset_id = d.id and a.complete order by a.id desc limit 1) as archive
      from syncline.eden_dataset d where d.removed_at is null or ${removed} order by d.code, d.id limit ${DATASETS_MAX}`.execute(
    db,
  )
  return rows.map(({ created_at, modified_at, removed_at, archive, ...row }) => ({
    ...row,
    createdAt: isoTime(created_at),
    modifiedAt: isoTime(modified_at),
    removedAt: isoTime(removed_at),
    archive: archive && { ...archive, madeAt: isoTime(archive.madeAt) },
  }))
}

type Row = Pick<Dataset, 'id' | 'uuid' | 'code' | 'name' | 'comments' | 'tables' | 'archive'> & {
  readonly created_at: string
  readonly modified_at: string
  readonly removed_at: string | null
}

/** Publishes a data set no longer; its archives go. Errors: SYNC_REQUEST_NOT_FOUND. */
export async function removeDataset(db: Kysely<Database>, code: string): Promise<void> {
  const { id } = await findDataset(db, code)
  await inTransaction(db, async (trx) => {
    await trx
      .updateTable('syncline.eden_dataset')
      .set({ removed_at: sql`now()`, modified_at: sql`now()` })
      .where('id', '=', id)
      .execute()
    await trx.deleteFrom('syncline.eden_archive').where('dataset_id', '=', id).execute()
  })
}

/**
 * Keeps an archive of a data set, piece by piece, in the place of the one before. One that does not come to its end leaves nothing. Errors:
 * SYNC_REQUEST_TOO_LARGE beyond 2 GiB.
 */
export async function keepArchive(
  db: Kysely<Database>,
  { id: datasetId }: Pick<Dataset, 'id'>,
  content: AsyncIterable<Uint8Array>,
  records: () => number,
): Promise<void> {
  const name = `${randomBytes(12).toString('hex')}.zip`
  const { id } = await db
    .insertInto('syncline.eden_archive')
    .values({ dataset_id: datasetId, name, records: 0, bytes: 0 })
    .returning('id')
    .executeTakeFirstOrThrow()
  try {
    let [bytes, n] = [0, 0]
    for await (const piece of inPieces(content)) {
      bytes += piece.length
      if (bytes > ARCHIVE_BYTES_MAX)
        throw new SynclineError('SYNC_REQUEST_TOO_LARGE', `an archive has at most ${ARCHIVE_BYTES_MAX} bytes`)
      await db.insertInto('syncline.eden_archive_piece').values({ archive_id: id, n: n++, bytes: piece }).execute()
    }
    await inTransaction(db, async (trx) => {
      const values = { complete: true, bytes, records: records() }
      await trx.updateTable('syncline.eden_archive').set(values).where('id', '=', id).execute()
      await trx
        .updateTable('syncline.eden_dataset')
        .set({ modified_at: sql`now()` })
        .where('id', '=', datasetId)
        .execute()
      // Whoever reads the one before may do so for a while; what a killed process left goes with it.
      await sql`
        delete from syncline.eden_archive where dataset_id = ${datasetId} and id < ${id}
           and (id < (select max(id) from syncline.eden_archive where dataset_id = ${datasetId} and id < ${id} and complete) or not complete and made_at < now() - interval '1 day')`.execute(
        trx,
      )
    })
  } catch (error) {
    await db.deleteFrom('syncline.eden_archive').where('id', '=', id).execute()
    throw error
  }
}

async function* inPieces(content: AsyncIterable<Uint8Array>): AsyncIterable<Buffer> {
  let waiting: Uint8Array[] = []
  let bytes = 0
  for await (const piece of content) {
    waiting.push(piece)
    bytes += piece.length
    if (bytes < PIECE_BYTES) continue
    yield Buffer.concat(waiting)
    ;[waiting, bytes] = [[], 0]
  }
  if (bytes > 0) yield Buffer.concat(waiting)
}

/** An archive by its name, or null. */
export async function readArchive(
  db: Kysely<Database>,
  name: string,
): Promise<{ readonly bytes: number; readonly madeAt: string; readonly pieces: () => AsyncIterable<Buffer> } | null> {
  const row = await db
    .selectFrom('syncline.eden_archive as a')
    .innerJoin('syncline.eden_dataset as d', 'd.id', 'a.dataset_id')
    .select(['a.id', 'a.bytes', 'a.made_at'])
    .where('a.name', '=', name)
    .where('a.complete', '=', true)
    .where('d.removed_at', 'is', null)
    .executeTakeFirst()
  if (row === undefined) return null
  const pieces = async function* () {
    for (let n = 0; ; n++) {
      const piece = await db
        .selectFrom('syncline.eden_archive_piece')
        .select('bytes')
        .where('archive_id', '=', row.id)
        .where('n', '=', n)
        .executeTakeFirst()
      if (piece === undefined) return
      yield piece.bytes
    }
  }
  return { bytes: Number(row.bytes), madeAt: isoTime(row.made_at), pieces }
}
