import {
  appendLog,
  createManaged,
  createPeer,
  loadResources,
  type NewPeer,
  type Peer,
  peerConnection,
  type ResourceInfo,
  removePeer,
  type Self,
  type Store,
} from '../../store/index.ts'
import { type Json, SynclineError, siteOfRepository } from '../../sync/index.ts'
import type { ClientSettings } from '../peer-client.ts'
import { PeerError } from '../peer-error.ts'
import { createEdenRequests } from './requests.ts'
import { registrationEntry } from './words.ts'

/** What setting up an Eden site works on. */
export type EdenSetup = {
  readonly store: Store
  /** The data key. */
  readonly key: Buffer
  readonly self: Pick<Self, 'uuid' | 'name'>
  readonly settings: ClientSettings
}

/** How long an Eden may take to answer while a person waits. */
const ASK_MS = 20_000

/**
 * Registers this site at an Eden, and the Eden here under the UUID that it calls itself by. An Eden without an address does the connecting: then
 * nothing is asked. Errors: those of Eden's answers, SYNC_PEER_MISMATCH where another UUID was expected, SYNC_REQUEST_EXISTS, SYNC_REQUEST_INVALID.
 */
export async function addEdenPeer(
  { store, key, self, settings }: EdenSetup,
  request: Omit<NewPeer, 'kind' | 'uuid'> & { readonly uuid?: string | undefined },
): Promise<Peer> {
  const made = await createPeer(store.db, key, { ...request, uuid: request.uuid ?? crypto.randomUUID(), kind: 'eden' })
  if (made.url === null) return made
  let uuid: string
  let message: string
  try {
    ;({ uuid, message } = await introduce(self, await peerConnection(store.db, key, made.id), settings))
    if (request.uuid !== undefined && uuid !== made.uuid)
      throw new SynclineError('SYNC_PEER_MISMATCH', `site ${made.uuid} was expected at ${made.url}, ${uuid} answered`)
  } catch (error) {
    await removePeer(store.db, made.id)
    throw error
  }
  if (uuid !== made.uuid) await removePeer(store.db, made.id)
  const peer = uuid === made.uuid ? made : await createPeer(store.db, key, { ...request, uuid, kind: 'eden' })
  await appendLog(store.db, registrationEntry(peer, message))
  return peer
}

async function introduce(
  self: EdenSetup['self'],
  connection: Awaited<ReturnType<typeof peerConnection>>,
  settings: ClientSettings,
): Promise<{ readonly uuid: string; readonly message: string }> {
  const requests = createEdenRequests(connection, settings, self.uuid)
  try {
    const { sender, message } = await requests.register(self.name, AbortSignal.timeout(ASK_MS))
    const uuid = siteOfRepository(sender)
    if (uuid !== undefined) return { uuid, message }
    const detail = `the Eden at ${requests.host} calls itself "${sender.slice(0, 80)}", which holds no UUID`
    throw new PeerError('SYNC_PEER_REFUSED', detail, { status: 200, retryable: false })
  } finally {
    await requests.close()
  }
}

/**
 * A file of an Eden that this site can call, from the address of that Eden alone and no larger than an answer may be. Errors: SYNC_PEER_REFUSED for
 * any other place, those of Eden's answers, SYNC_REQUEST_INVALID for a peer without an address.
 */
export async function fetchEdenFile(
  { store, key, self, settings }: EdenSetup,
  peer: Pick<Peer, 'id'>,
  url: string,
): Promise<Buffer> {
  const requests = createEdenRequests(await peerConnection(store.db, key, peer.id), settings, self.uuid)
  try {
    return await requests.download(url, AbortSignal.timeout(ASK_MS))
  } finally {
    await requests.close()
  }
}

/** A table that was made from Eden's description, and the fields that have no column in it. */
export type MadeFromEden = { readonly resource: ResourceInfo; readonly without: readonly string[] }

/**
 * Makes tables for resources as an Eden describes them, those before that others refer to. A field that a column cannot stand for, and a reference
 * to a table that nobody has here, gets no column: its values are kept beside the record and given back. Errors: those of Eden's answers,
 * SYNC_REQUEST_EXISTS, SYNC_REQUEST_INVALID for a peer that is no Eden.
 */
export async function createFromEden(
  { store, key, self, settings }: EdenSetup,
  peer: Peer,
  tables: readonly string[],
): Promise<readonly MadeFromEden[]> {
  if (peer.kind !== 'eden') throw new SynclineError('SYNC_REQUEST_INVALID', `peer "${peer.name}" is no Eden site`)
  const requests = createEdenRequests(await peerConnection(store.db, key, peer.id), settings, self.uuid)
  try {
    const described = new Map<string, readonly EdenFieldType[]>()
    for (const table of new Set(tables)) described.set(table, await requests.fields(table, AbortSignal.timeout(ASK_MS)))
    const made: MadeFromEden[] = []
    for (const table of inOrder(described)) {
      const known = (await loadResources(store.db)).map(({ name }) => name)
      const { schema, without } = schemaOf(table, described.get(table) ?? [], [...known, table])
      made.push({ resource: await createManaged(store, { name: table, schema }), without })
    }
    return made
  } finally {
    await requests.close()
  }
}

type EdenFieldType = { readonly name: string; readonly type: string }

const TYPES: Readonly<Record<string, Json>> = {
  string: { type: ['string', 'null'] },
  text: { type: ['string', 'null'] },
  decimal: { type: ['string', 'null'] },
  integer: { type: ['integer', 'null'] },
  bigint: { type: ['integer', 'null'] },
  double: { type: ['number', 'null'] },
  float: { type: ['number', 'null'] },
  boolean: { type: ['boolean', 'null'] },
  date: { type: ['string', 'null'], format: 'date' },
  datetime: { type: ['string', 'null'], format: 'date-time' },
  time: { type: ['string', 'null'], format: 'time' },
  json: { type: ['object', 'null'] },
}
const REFERENCE = /^reference (\w+)$/

function targetOf({ type }: EdenFieldType): string | undefined {
  return REFERENCE.exec(type)?.[1]
}

function schemaOf(
  table: string,
  fields: readonly EdenFieldType[],
  known: readonly string[],
): { readonly schema: Json; readonly without: readonly string[] } {
  const properties: Record<string, Json> = { id: { type: 'string', description: 'Name of the record at Eden.' } }
  const without: string[] = []
  for (const field of fields) {
    const target = targetOf(field)
    const type = field.type.replace(/\(.*$/, '')
    const plain = Object.hasOwn(TYPES, type)
      ? TYPES[type]
      : /^list:(string|integer)$/.test(type)
        ? { type: ['array', 'null'] }
        : undefined
    const property =
      target === undefined ? plain : known.includes(target) ? { type: ['string', 'null'], 'x-ref': target } : undefined
    if (property === undefined || field.name === 'id') without.push(`${field.name} (${field.type})`)
    else properties[field.name] = property
  }
  return { schema: { type: 'object', description: `${table} of Sahana Eden`, properties }, without }
}

/** Tables that others refer to come first; in a circle, in the order that they were asked for in. */
function inOrder(described: ReadonlyMap<string, readonly EdenFieldType[]>): readonly string[] {
  const order: string[] = []
  const visit = (table: string, path: readonly string[]) => {
    if (order.includes(table) || path.includes(table)) return
    for (const field of described.get(table) ?? []) {
      const target = targetOf(field)
      if (target !== undefined && described.has(target)) visit(target, [...path, table])
    }
    order.push(table)
  }
  for (const table of described.keys()) visit(table, [])
  return order
}
