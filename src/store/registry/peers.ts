import { type Kysely, type Selectable, sql, type Transaction, type Updateable } from 'kysely'
import { SynclineError } from '../../sync/index.ts'
import { renewMarks } from '../field-marks.ts'
import type { Database } from '../schema.ts'
import { olderThan, type Page, type PageQuery, pageBounds, toPage } from './page.ts'
import { type Credentials, checkCertificates, checkClientPair, checkPeerUrl, readProxyUrl } from './peer-input.ts'
import { type SecretPlace, seal, unseal } from './secrets.ts'
import { lockRecords } from './self.ts'
import { siteIds } from './sites.ts'
import { inTransaction, isUniqueViolation } from './transaction.ts'
import { checkName, checkText, checkUuid, invalid, isoTime, isUuid } from './values.ts'

/** Another site as registered here. Its secrets never leave the database through this type. */
export type Peer = {
  readonly id: number
  readonly name: string
  readonly kind: string
  readonly uuid: string
  /** Site row of the peer's plain UUID: records that came from it carry this number as their source. */
  readonly siteId: number
  /** Null for a peer that this site cannot reach: it does the connecting. */
  readonly url: string | null
  readonly hasToken: boolean
  readonly proxyUrl: string | null
  readonly hasProxyCredentials: boolean
  readonly caPem: string | null
  readonly clientCertPem: string | null
  readonly hasClientKey: boolean
  readonly paused: boolean
  readonly logId: string | null
  readonly clockOffsetMs: number | null
  readonly lastSeenAt: string | null
  /** Failed attempts in a row. */
  readonly failures: number
  readonly retryAt: string | null
  /** Goes up with every change of the settings, not with what is observed; the ETag of the peer. */
  readonly revision: number
  readonly createdAt: string
}

/** What an administrator sets. Absent keeps what is there, null takes it away. */
export type PeerSettings = {
  readonly name?: string | undefined
  readonly url?: string | null | undefined
  /** What this site shows at the peer. */
  readonly token?: string | null | undefined
  /** Credentials in it are taken out and kept sealed. */
  readonly proxyUrl?: string | null | undefined
  readonly proxyCredentials?: Credentials | null | undefined
  readonly caPem?: string | null | undefined
  readonly clientCertPem?: string | null | undefined
  readonly clientKeyPem?: string | null | undefined
}

export type NewPeer = PeerSettings & {
  readonly name: string
  readonly uuid: string
  readonly kind?: string | undefined
  readonly logId?: string | null | undefined
}

/** All that a connection to the peer needs, opened. Never log it. */
export type PeerConnection = {
  readonly url: string
  readonly token: string | null
  readonly proxy: { readonly url: string; readonly credentials: Credentials | null } | null
  readonly caPem: string | null
  readonly clientCertPem: string | null
  readonly clientKeyPem: string | null
}

type PeerRow = Selectable<Database['syncline.peer']>
type PeerChange = Updateable<Database['syncline.peer']>

/** Registers a peer. Errors: SYNC_REQUEST_EXISTS for a name or UUID that is taken, SYNC_REQUEST_INVALID, also for this site's own UUID. */
export async function createPeer(db: Kysely<Database>, key: Buffer, peer: NewPeer): Promise<Peer> {
  const uuid = checkUuid('the UUID of a peer', peer.uuid)
  const change = readSettings(key, uuid, peer, null, peer.kind)
  return inTransaction(db, async (trx) => {
    const own = await trx.selectFrom('syncline.self').select('uuid').where('uuid', '=', uuid).executeTakeFirst()
    if (own !== undefined) throw invalid(`${uuid} is this site itself; a site cannot be its own peer`)
    const [siteId] = await siteIds(trx, [uuid])
    if (siteId === undefined) throw new Error('the site row of a peer is missing')
    const row = await trx
      .insertInto('syncline.peer')
      .values({
        ...(change as PeerChange & { name: string }),
        uuid,
        site_id: siteId,
        kind: peer.kind ?? 'syncline',
        log_id: peer.logId ?? null,
      })
      .onConflict((conflict) => conflict.doNothing())
      .returningAll()
      .executeTakeFirst()
    if (row === undefined) throw await taken(trx, peer.name, uuid)
    // A peer that was removed and comes back may have lost what it once gave us: from here on it is owed everything.
    if (await hasSource(trx, siteId)) await forgetSource(trx, siteId)
    return toPeer(row)
  })
}

/** Peers, newest first. */
export async function listPeers(
  db: Kysely<Database>,
  query: PageQuery & { readonly paused?: boolean | undefined; readonly kind?: string | undefined } = {},
): Promise<Page<Peer>> {
  const bounds = pageBounds(query)
  let select = db.selectFrom('syncline.peer').selectAll().where(olderThan('id', bounds))
  if (query.paused !== undefined) select = select.where('paused', '=', query.paused)
  if (query.kind !== undefined) select = select.where('kind', '=', query.kind)
  return toPage(await select.orderBy('id', 'desc').limit(bounds.take).execute(), bounds, toPeer)
}

/** A peer by name, UUID or id. Errors: SYNC_REQUEST_NOT_FOUND. */
export async function findPeer(db: Kysely<Database>, ref: string | number): Promise<Peer> {
  const peer = await lookupPeer(db, ref)
  if (peer === null) throw notFound(ref)
  return peer
}

/** Like `findPeer`, but null when there is no such peer. */
export async function lookupPeer(db: Kysely<Database>, ref: string | number): Promise<Peer | null> {
  const text = String(ref)
  const select = db.selectFrom('syncline.peer').selectAll()
  const row = await (isUuid(text)
    ? select.where('uuid', '=', text.toLowerCase())
    : /^\d{1,10}$/.test(text)
      ? select.where(sql<boolean>`id = ${text}::int8`)
      : select.where('name', '=', text)
  ).executeTakeFirst()
  return row === undefined ? null : toPeer(row)
}

/**
 * Changes settings of a peer. `ifMatch` is the revision that the caller read; absent means whatever is there.
 * Errors: SYNC_REQUEST_CHANGED, SYNC_REQUEST_NOT_FOUND, SYNC_REQUEST_EXISTS, SYNC_REQUEST_INVALID.
 */
export async function updatePeer(
  db: Kysely<Database>,
  key: Buffer,
  peerId: number,
  settings: PeerSettings,
  ifMatch?: number,
): Promise<Peer> {
  return changePeer(db, peerId, ifMatch, (row) => readSettings(key, row.uuid, settings, row, row.kind))
}

/** Stops all exchange with a peer until `resumePeer`. */
export async function pausePeer(db: Kysely<Database>, peerId: number, ifMatch?: number): Promise<Peer> {
  return changePeer(db, peerId, ifMatch, (row) => ({
    paused: true,
    paused_at: row.paused_at ?? new Date().toISOString(),
  }))
}

/** Ends a pause; earlier failures no longer hold the peer back. */
export async function resumePeer(db: Kysely<Database>, peerId: number, ifMatch?: number): Promise<Peer> {
  return changePeer(db, peerId, ifMatch, () => ({ paused: false, paused_at: null, failures: 0, retry_at: null }))
}

/** Forgets a peer with its tasks, grants, tokens, checkpoints and quarantined records. Records that it gave us stay. */
export async function removePeer(db: Kysely<Database>, peerId: number, ifMatch?: number): Promise<void> {
  await inTransaction(db, async (trx) => {
    await readForChange(trx, peerId, ifMatch)
    await trx.deleteFrom('syncline.peer').where('id', '=', peerId).execute()
    // Its tasks and grants went with it.
    const marked = await trx.selectFrom('syncline.resource').select('name').where('marks', 'is not', null).execute()
    for (const { name } of marked) await renewMarks(trx, name)
  })
}

/** Opens what a connection to the peer needs. Errors: SYNC_REQUEST_INVALID for a peer without an address, SYNC_CONFIG_DATA_KEY_WRONG. */
export async function peerConnection(db: Kysely<Database>, key: Buffer, peerId: number): Promise<PeerConnection> {
  const row = await db.selectFrom('syncline.peer').selectAll().where('id', '=', peerId).executeTakeFirst()
  if (row === undefined) throw notFound(peerId)
  if (row.url === null)
    throw invalid(`peer "${row.name}" has no address: it connects to this site, not the other way round`)
  const opened = (column: string, sealed: Buffer | null) =>
    sealed === null ? null : unseal(key, placeOf(row.uuid, column), sealed).toString()
  const credentials = opened('proxy_secret', row.proxy_secret)
  return {
    url: row.url,
    token: opened('token', row.token),
    proxy:
      row.proxy_url === null
        ? null
        : { url: row.proxy_url, credentials: credentials === null ? null : (JSON.parse(credentials) as Credentials) },
    caPem: row.ca_pem,
    clientCertPem: row.client_cert_pem,
    clientKeyPem: opened('client_key', row.client_key),
  }
}

/** Notes that records from a site are owed to it again, as nobody knows what it still has. Versions make what it has harmless. */
export async function forgetSource(trx: Transaction<Database>, siteId: number): Promise<void> {
  await lockRecords(trx)
  await sql`update syncline.record set source = null, xact = pg_current_xact_id() where source = ${siteId}`.execute(trx)
}

export function notFound(ref: string | number): SynclineError {
  return new SynclineError('SYNC_REQUEST_NOT_FOUND', `there is no peer "${String(ref).slice(0, 80)}"`)
}

async function hasSource(trx: Transaction<Database>, siteId: number): Promise<boolean> {
  const { rows } = await sql<{ found: boolean }>`
    select exists (select from syncline.record where source = ${siteId}) as found`.execute(trx)
  return rows[0]?.found ?? false
}

async function changePeer(
  db: Kysely<Database>,
  peerId: number,
  ifMatch: number | undefined,
  change: (row: PeerRow) => PeerChange,
): Promise<Peer> {
  return inTransaction(db, async (trx) => {
    const row = await readForChange(trx, peerId, ifMatch)
    const changed = await trx
      .updateTable('syncline.peer')
      .set({ ...change(row), revision: row.revision + 1 })
      .where('id', '=', peerId)
      .returningAll()
      .executeTakeFirstOrThrow()
    return toPeer(changed)
  }).catch((cause: unknown) => {
    if (isUniqueViolation(cause)) {
      throw new SynclineError('SYNC_REQUEST_EXISTS', 'another peer has that name', { cause })
    }
    throw cause
  })
}

/** Not `for update`: that would wait for every transaction that only refers to the peer, and make them wait. */
async function readForChange(
  trx: Transaction<Database>,
  peerId: number,
  ifMatch: number | undefined,
): Promise<PeerRow> {
  const row = await trx
    .selectFrom('syncline.peer')
    .selectAll()
    .where(sql<boolean>`id = ${peerId}::int8`)
    .forNoKeyUpdate()
    .executeTakeFirst()
  if (row === undefined) throw notFound(peerId)
  if (ifMatch !== undefined && ifMatch !== row.revision) {
    const detail = `peer "${row.name}" has revision ${row.revision}, the request was made for revision ${ifMatch}`
    throw new SynclineError('SYNC_REQUEST_CHANGED', detail)
  }
  return row
}

async function taken(trx: Transaction<Database>, name: string, uuid: string): Promise<SynclineError> {
  const other = await trx.selectFrom('syncline.peer').select('name').where('uuid', '=', uuid).executeTakeFirst()
  const detail =
    other === undefined ? `a peer named "${name}" exists` : `the site ${uuid} is registered as peer "${other.name}"`
  return new SynclineError('SYNC_REQUEST_EXISTS', detail)
}

/** Columns for what `settings` gives, checked together with what `row` holds. */
function readSettings(
  key: Buffer,
  uuid: string,
  settings: PeerSettings,
  row: PeerRow | null,
  kind: string | undefined,
): PeerChange {
  const { name: _, ...connection } = settings
  if (kind === 'folder' && row !== null && Object.values(connection).some((value) => value !== undefined))
    throw invalid(`peer "${row.name}" is a folder: how it is reached is changed with PUT /peers/{peer}/folder`)
  const sealed = (column: string, secret: string | null) =>
    secret === null ? null : seal(key, placeOf(uuid, column), secret)
  const change: PeerChange = {}
  if (settings.name !== undefined) change.name = checkName('a peer', settings.name)
  if (settings.url !== undefined)
    change.url = settings.url === null || kind === 'folder' ? settings.url : checkPeerUrl(settings.url)
  if (settings.token !== undefined) {
    change.token = sealed('token', settings.token === null ? null : checkText('the token', settings.token))
  }
  if (settings.proxyUrl !== undefined) {
    const proxy = settings.proxyUrl === null ? null : readProxyUrl(settings.proxyUrl)
    change.proxy_url = proxy?.url ?? null
    // Without a proxy its credentials have no use; another address alone keeps them.
    if (proxy === null) change.proxy_secret = null
    else if (proxy.credentials !== null) change.proxy_secret = sealed('proxy_secret', JSON.stringify(proxy.credentials))
  }
  if (settings.proxyCredentials !== undefined) {
    const proxyUrl = change.proxy_url === undefined ? row?.proxy_url : change.proxy_url
    if (settings.proxyCredentials !== null && proxyUrl == null)
      throw invalid('proxy credentials need the address of a proxy')
    change.proxy_secret = sealed('proxy_secret', settings.proxyCredentials && JSON.stringify(settings.proxyCredentials))
  }
  if (settings.caPem !== undefined) {
    change.ca_pem =
      settings.caPem === null ? null : checkCertificates('the file of certificate authorities', settings.caPem)
  }
  if (settings.clientCertPem !== undefined || settings.clientKeyPem !== undefined) {
    const kept = row?.client_key == null ? null : unseal(key, placeOf(uuid, 'client_key'), row.client_key).toString()
    const certPem = settings.clientCertPem === undefined ? (row?.client_cert_pem ?? null) : settings.clientCertPem
    const keyPem = settings.clientKeyPem === undefined ? kept : settings.clientKeyPem
    checkClientPair(certPem, keyPem)
    change.client_cert_pem = certPem
    change.client_key = sealed('client_key', keyPem)
  }
  return change
}

/** The UUID names the row, not the name: that one may change. */
function placeOf(uuid: string, column: string): SecretPlace {
  return { table: 'peer', column, row: uuid }
}

export function toPeer(row: PeerRow): Peer {
  return {
    id: row.id,
    name: row.name,
    kind: row.kind,
    uuid: row.uuid,
    siteId: row.site_id,
    url: row.url,
    hasToken: row.token !== null,
    proxyUrl: row.proxy_url,
    hasProxyCredentials: row.proxy_secret !== null,
    caPem: row.ca_pem,
    clientCertPem: row.client_cert_pem,
    hasClientKey: row.client_key !== null,
    paused: row.paused,
    logId: row.log_id,
    clockOffsetMs: row.clock_offset_ms,
    lastSeenAt: isoTime(row.last_seen_at),
    failures: row.failures,
    retryAt: isoTime(row.retry_at),
    revision: row.revision,
    createdAt: isoTime(row.created_at),
  }
}
