import {
  createHash,
  createPrivateKey,
  createPublicKey,
  generateKeyPairSync,
  randomBytes,
  randomUUID,
  sign,
  verify,
} from 'node:crypto'
import { type Kysely, sql, type Transaction } from 'kysely'
import { KEPT_PLAN } from '../connection.ts'
import type { Database } from '../schema.ts'
import { type SecretPlace, seal, unseal } from './secrets.ts'
import { getSetting, setSetting } from './settings.ts'
import { siteIds } from './sites.ts'
import { inTransaction, sqlState } from './transaction.ts'
import { checkText, isoTime } from './values.ts'

/** This site as the database knows it. */
export type SelfEntry = {
  readonly uuid: string
  /** The small integer of `origin`: own changes are written under it. */
  readonly siteId: number
  /** The UUID, or `UUID/logId` once the database has been restored or copied. */
  readonly origin: string
  readonly name: string
  readonly logId: string
  /** Made anew at every start and with every log, and never shown again: a peer that meets a former one has met a copy of this site. */
  readonly mark: string
  /** Ed25519, the 32 raw bytes in base64url. */
  readonly publicKey: string
  readonly createdAt: string
}

export type Self = SelfEntry & {
  /** What this start found: a first start, the log it left, or a database that was restored or copied and so got a new log. */
  readonly log: 'created' | 'continued' | 'renewed'
  /** Ed25519 signature of `data` in base64url; `verifySignature` checks it. */
  readonly sign: (data: string | Uint8Array) => string
}

/** What tells one life of a database from another; null where the role may not look. */
type LogSeen = {
  readonly systemIdentifier: string | null
  readonly databaseOid: string | null
  readonly recordTableOid: string | null
  readonly timeline: string | null
}

const LOG_ID_ALPHABET = 'abcdefghijklmnopqrstuvwxyz234567'
const LOG_ID_CHARACTERS = 10

/**
 * Makes this site on the first start; on every other start finds out whether the database is still the one that its log was written in.
 * A restored or copied database gets a new logId and a new origin, because its lost future may live on at peers and must share no dot with what
 * is written from now on. Any number of processes may start at once: they wait for each other, and one of them does the work.
 * `key` is the data key. Errors: SYNC_CONFIG_DATA_KEY_WRONG.
 */
export async function ensureSelf(
  db: Kysely<Database>,
  options: { readonly name: string; readonly key: Buffer },
): Promise<Self> {
  return inTransaction(db, async (trx) => {
    await lockSelf(trx)
    const now = await look(trx)
    const row = await trx.selectFrom('syncline.self').selectAll().executeTakeFirst()
    let log: Self['log'] = 'continued'
    if (row === undefined) {
      await create(trx, options, now)
      log = 'created'
    } else {
      const seen = row.log_seen as LogSeen
      // A part that this start may not look at keeps what an earlier one saw.
      const merged: LogSeen = merge(seen, now)
      if (differ(seen, now)) {
        await mintLog(trx, row.uuid, merged)
        log = 'renewed'
      }
      await trx
        .updateTable('syncline.self')
        .set({ name: await chosenName(trx, options.name), log_seen: JSON.stringify(merged), mark: newMark() })
        .execute()
    }
    const privateKey = await openPrivateKey(trx, options.key)
    return {
      ...(await readSelf(trx)),
      log,
      sign: (data) => sign(null, bytesOf(data), privateKey).toString('base64url'),
    }
  })
}

/**
 * This site, without its private key. `ensureSelf` must have run on this database. A database that was put back from a dump while this process
 * ran is noticed here: it begins a new log, as it would at a start.
 */
export async function readSelf(db: Kysely<Database>): Promise<SelfEntry> {
  const row = await readRow(db)
  const { seenDatabase, database, seenTable, table } = row
  const same = (seen: string | null, now: string | null) => seen === null || now === null || seen === now
  return entryOf(same(seenDatabase, database) && same(seenTable, table) ? row : await noticeRestore(db))
}

type SelfRow = Awaited<ReturnType<typeof readRow>>

async function readRow(db: Kysely<Database>) {
  const row = await db
    .selectFrom('syncline.self as self')
    .innerJoin('syncline.site as site', 'site.id', 'self.site_id')
    .modifyFront(KEPT_PLAN)
    .select([
      'self.uuid',
      'self.site_id',
      'self.name',
      'self.log_id',
      'self.mark',
      'self.public_key',
      'self.created_at',
      'site.origin',
      sql<string | null>`self.log_seen ->> 'databaseOid'`.as('seenDatabase'),
      sql<string | null>`self.log_seen ->> 'recordTableOid'`.as('seenTable'),
      sql<string | null>`(select oid::text from pg_database where datname = current_database())`.as('database'),
      sql<string | null>`to_regclass('syncline.record')::oid::text`.as('table'),
    ])
    .executeTakeFirst()
  if (row === undefined) throw new Error('this database has no site yet: ensureSelf comes first')
  return row
}

function entryOf(row: SelfRow): SelfEntry {
  return {
    uuid: row.uuid,
    siteId: row.site_id,
    origin: row.origin,
    name: row.name,
    logId: row.log_id,
    mark: row.mark,
    publicKey: row.public_key,
    createdAt: isoTime(row.created_at),
  }
}

/** Of several that notice it at once, the first begins the new log. */
async function noticeRestore(db: Kysely<Database>): Promise<SelfRow> {
  return inTransaction(db, async (trx) => {
    await lockSelf(trx)
    const { uuid, log_seen: seen } = await trx.selectFrom('syncline.self').selectAll().executeTakeFirstOrThrow()
    const now = await look(trx)
    if (differ(seen as LogSeen, now)) await mintLog(trx, uuid, merge(seen as LogSeen, now))
    return readRow(trx)
  })
}

/** Gives the site another name, which from then on goes before the one it is started with. Errors: SYNC_REQUEST_INVALID. */
export async function renameSite(db: Kysely<Database>, name: string): Promise<SelfEntry> {
  checkText('the name of a site', name, 100)
  return inTransaction(db, async (trx) => {
    await setSetting(trx, NAME_SETTING, name)
    await trx.updateTable('syncline.self').set({ name }).execute()
    return readSelf(trx)
  })
}

/**
 * Begins a new log without a start, for what no start can notice, such as a copy of a whole machine that was put back. Same effect as a restore.
 * With `replaces` only when that is still the current log: of several that notice the same thing at once, one acts. Gives the site as it is then.
 */
export async function newLog(db: Kysely<Database>, replaces?: string): Promise<SelfEntry> {
  return inTransaction(db, async (trx) => {
    await lockSelf(trx)
    const self = await readSelf(trx)
    if (replaces !== undefined && replaces !== self.logId) return self
    await mintLog(trx, self.uuid, await look(trx))
    return readSelf(trx)
  })
}

/**
 * Moves every record to the current transaction: transaction ids of another cluster mean nothing here. The places that peers hold in the old
 * order are forgotten; places that this site holds in the orders of its peers stay right.
 */
export async function restamp(db: Kysely<Database>): Promise<void> {
  await inTransaction(db, async (trx) => {
    await lockRecords(trx)
    await sql`update syncline.record set xact = pg_current_xact_id(), born = null`.execute(trx)
    await sql`update syncline.history set xact = null where xact is not null`.execute(trx)
    await sql`update syncline.run_batch set xact = null where xact is not null`.execute(trx)
    // The places behind which records are counted anew were in the old order too; the sums themselves stay right.
    await sql`update syncline.digest set folded = '0', folded_id = '', whole = '{}'`.execute(trx)
    await trx.deleteFrom('syncline.checkpoint').where('direction', 'in', ['push', 'ack']).execute()
  })
}

/**
 * Lets no other transaction write records until this one ends. An update of many rows locks them in another order than the application does;
 * taking the table first makes each wait for the other instead of one being cancelled as a deadlock.
 */
export async function lockRecords(trx: Transaction<Database>): Promise<void> {
  await sql`lock table syncline.record in share row exclusive mode`.execute(trx)
}

/** True when `signature` is this key's over `data`. All three come from outside: anything malformed is simply false. */
export function verifySignature(publicKey: string, data: string | Uint8Array, signature: string): boolean {
  try {
    const key = createPublicKey({ key: { kty: 'OKP', crv: 'Ed25519', x: publicKey }, format: 'jwk' })
    return verify(null, bytesOf(data), key, Buffer.from(signature, 'base64url'))
  } catch {
    return false
  }
}

/** Short form of a public key that people and pairing codes compare: its SHA-256 in base64url. */
export function keyFingerprint(publicKey: string): string {
  return createHash('sha256').update(Buffer.from(publicKey, 'base64url')).digest('base64url')
}

function bytesOf(data: string | Uint8Array): Uint8Array {
  return typeof data === 'string' ? Buffer.from(data) : data
}

/** With a colon, like everything that the site remembers for itself: it is no setting that people see. */
const NAME_SETTING = 'site:name'

async function chosenName(trx: Transaction<Database>, started: string): Promise<string> {
  const chosen = await getSetting(trx, NAME_SETTING)
  return typeof chosen === 'string' ? chosen : started
}

/** Starters wait here; triggers, which only read the row, do not. */
async function lockSelf(trx: Transaction<Database>): Promise<void> {
  await sql`lock table syncline.self in share row exclusive mode`.execute(trx)
}

async function create(trx: Transaction<Database>, options: { name: string; key: Buffer }, now: LogSeen): Promise<void> {
  const uuid = randomUUID()
  const [siteId] = await siteIds(trx, [uuid])
  if (siteId === undefined) throw new Error('the site row of this site is missing')
  const { publicKey, privateKey } = generateKeyPairSync('ed25519')
  const { x } = publicKey.export({ format: 'jwk' })
  if (x === undefined) throw new Error('the public key has no point')
  await trx
    .insertInto('syncline.self')
    .values({
      uuid,
      site_id: siteId,
      name: options.name,
      log_id: randomLogId(),
      log_seen: JSON.stringify(now),
      mark: newMark(),
      public_key: x,
      private_key: seal(options.key, privateKeyOf(uuid), privateKey.export({ format: 'der', type: 'pkcs8' })),
    })
    .execute()
}

async function openPrivateKey(trx: Transaction<Database>, key: Buffer) {
  const row = await trx.selectFrom('syncline.self').select(['uuid', 'private_key']).executeTakeFirstOrThrow()
  return createPrivateKey({ key: unseal(key, privateKeyOf(row.uuid), row.private_key), format: 'der', type: 'pkcs8' })
}

function privateKeyOf(uuid: string): SecretPlace {
  return { table: 'self', column: 'private_key', row: uuid }
}

async function mintLog(trx: Transaction<Database>, uuid: string, seen: LogSeen): Promise<void> {
  const logId = randomLogId()
  const [siteId] = await siteIds(trx, [`${uuid}/${logId}`])
  if (siteId === undefined) throw new Error('the site row of the new origin is missing')
  await trx
    .updateTable('syncline.self')
    .set({ log_id: logId, site_id: siteId, log_seen: JSON.stringify(seen), mark: newMark() })
    .execute()
  await restamp(trx)
  // A restored table is another table to PostgreSQL: its number changed with the rest.
  await sql`
    update syncline.resource r set table_oid = c.oid
      from pg_class c join pg_namespace n on n.oid = c.relnamespace
     where n.nspname = r.table_schema and c.relname = r.table_name and c.relkind in ('r', 'p') and r.table_oid <> c.oid`.execute(
    trx,
  )
}

/** As long and of the same letters as a log's id, and as unlikely to be met twice. */
function newMark(): string {
  return randomLogId()
}

function randomLogId(): string {
  return Array.from(randomBytes(LOG_ID_CHARACTERS), (byte) => LOG_ID_ALPHABET[byte & 31]).join('')
}

const PARTS = [
  'systemIdentifier',
  'databaseOid',
  'recordTableOid',
  'timeline',
] as const satisfies readonly (keyof LogSeen)[]

function differ(seen: LogSeen, now: LogSeen): boolean {
  return PARTS.some((part) => seen[part] !== null && now[part] !== null && seen[part] !== now[part])
}

function merge(seen: LogSeen, now: LogSeen): LogSeen {
  return Object.fromEntries(PARTS.map((part) => [part, now[part] ?? seen[part]])) as LogSeen
}

async function look(trx: Transaction<Database>): Promise<LogSeen> {
  return {
    systemIdentifier: await lookAt(trx, 'select system_identifier::text as part from pg_control_system()'),
    databaseOid: await lookAt(trx, 'select oid::text as part from pg_database where datname = current_database()'),
    recordTableOid: await lookAt(trx, `select 'syncline.record'::regclass::oid::text as part`),
    // Not pg_control_checkpoint(): after a promotion it names the old timeline until the next checkpoint is over.
    timeline: await lookAt(trx, 'select left(pg_walfile_name(pg_current_wal_lsn()), 8) as part'),
  }
}

/** One part, or null when the role may not look or the server has no such thing. */
async function lookAt(trx: Transaction<Database>, query: string): Promise<string | null> {
  await sql`savepoint look`.execute(trx)
  try {
    const { rows } = await sql.raw<{ part: string | null }>(query).execute(trx)
    await sql`release savepoint look`.execute(trx)
    return rows[0]?.part ?? null
  } catch (error) {
    if (sqlState(error) === null) throw error
    await sql`rollback to savepoint look`.execute(trx)
    return null
  }
}
