import {
  appendLog,
  compileFilter,
  type Digest,
  type DigestScope,
  digestOf,
  digestRecords,
  dropCheckpoint,
  findTaskFor,
  type KeyRange,
  loadResources,
  offerAgain,
  type Peer,
  quarantinedIds,
  type RecordDigest,
  type ResourceInfo,
  type Store,
  type Task,
} from '../store/index.ts'
import { isJsonObject, SynclineError } from '../sync/index.ts'
import type { Connections } from './connections.ts'
import type { PeerClient } from './peer-client.ts'
import { PeerError } from './peer-error.ts'

export type VerifyDeps = { readonly store: Store; readonly connections: Connections }

export type VerifyOptions = {
  /** Only these resources; every one with a task when absent. */
  readonly resources?: readonly string[] | undefined
  /** Names up to ten thousand records that differ instead of a hundred. */
  readonly deep: boolean
  readonly signal?: AbortSignal | undefined
}

/** What a comparison found. Records in quarantine are left out: everybody knows that they differ. */
export type Verified = {
  readonly resource: string
  readonly equal: boolean
  /** Records of the peer that were compared. */
  readonly checked: number
  /** Ids of records that differ, in key order, as far as they were looked for. */
  readonly differing: readonly string[]
  readonly detail?: string
}

/** Pieces that a range is divided into at each step down. */
const BUCKETS = 64
/** A range of so few records is compared one by one; a peer lists no more. */
const SMALL = 1_000
const NAMED_MAX = 100
const NAMED_MAX_DEEP = 10_000

/**
 * Compares resources with a peer by digests of their versions, and walks down to the records that differ. What is on its way makes a
 * difference too: compare after a run. Errors: SYNC_REQUEST_NOT_FOUND for a resource without a task, those of the peer's answers.
 */
export async function verifyPeer(deps: VerifyDeps, peer: Peer, options: VerifyOptions): Promise<readonly Verified[]> {
  const { db } = deps.store
  const { client } = await deps.connections.of(peer)
  const wanted: { resource: ResourceInfo; task: Task }[] = []
  for (const resource of await loadResources(db)) {
    if (options.resources !== undefined && !options.resources.includes(resource.name)) continue
    const task = await findTaskFor(db, peer.id, resource.name)
    if (task !== null) wanted.push({ resource, task })
  }
  const missing = (options.resources ?? []).filter((name) => !wanted.some(({ resource }) => resource.name === name))
  if (missing.length > 0) {
    throw new SynclineError('SYNC_REQUEST_NOT_FOUND', `peer "${peer.name}" has no task for ${missing.join(', ')}`)
  }
  const found: Verified[] = []
  for (const each of wanted) found.push(await verifyResource(deps, peer, client, each, options))
  return found
}

/** Lets both sides offer each other again what differs: the next run brings it. Records that are equal are recognised and cost little. */
export async function repairDifferences(store: Store, peer: Peer, verified: readonly Verified[]): Promise<void> {
  const resources = await loadResources(store.db)
  for (const { resource: name, differing, equal } of verified) {
    const resource = resources.find((each) => each.name === name)
    if (equal || resource === undefined) continue
    await store.db.transaction().execute(async (trx) => {
      await offerAgain(trx, resource.id, differing)
      await dropCheckpoint(trx, peer.id, resource.id, 'pull')
    })
  }
}

type Walk = {
  readonly store: Store
  readonly client: PeerClient
  readonly scope: DigestScope
  readonly filter: string | null
  readonly namedMax: number
  readonly differing: string[]
  checked: number
  readonly signal: AbortSignal | undefined
}

async function verifyResource(
  { store }: VerifyDeps,
  peer: Peer,
  client: PeerClient,
  { resource, task }: { readonly resource: ResourceInfo; readonly task: Task },
  { deep, signal }: VerifyOptions,
): Promise<Verified> {
  const began = performance.now()
  const filter = await effectiveFilter(client, resource.name, task.filter, signal)
  const compiled = filter === null ? undefined : await compileFilter(store, resource, filter)
  const namedMax = deep ? NAMED_MAX_DEEP : NAMED_MAX
  const scope = { resource, filter: compiled }
  const walk: Walk = { store, client, scope, filter: task.filter, namedMax, differing: [], checked: 0, signal }
  await compareRange(walk, { from: null, to: null })
  const waiting = new Set(await quarantinedIds(store.db, peer.id, resource.id, walk.differing))
  const differing = walk.differing.filter((id) => !waiting.has(id))
  const more = walk.differing.length >= namedMax
  const parts = [
    waiting.size > 0 ? `${waiting.size} differ because they wait in quarantine` : '',
    more ? `the search ended after ${namedMax} records` : '',
  ].filter((part) => part !== '')
  const equal = differing.length === 0 && !more
  const detail = parts.length > 0 ? { detail: parts.join('; ') } : {}
  const verdict = equal ? 'equal' : `${more ? 'at least ' : ''}${differing.length} differ`
  await appendLog(store.db, {
    peer,
    resource: resource.name,
    mode: task.mode,
    direction: 'none',
    action: 'verify',
    result: equal ? 'success' : 'warning',
    message: [`${walk.checked} records compared: ${verdict}`, ...parts].join('; '),
    changes: walk.checked,
    durationMs: performance.now() - began,
  })
  return { resource: resource.name, equal, checked: walk.checked, differing, ...detail }
}

/** What the peer compares by: our filter, and with it that of its grant. */
async function effectiveFilter(
  client: PeerClient,
  resource: string,
  filter: string | null,
  signal: AbortSignal | undefined,
): Promise<string | null> {
  const answer = await client.digests(resource, { filter: filter ?? undefined }, signal)
  return typeof answer.filter === 'string' ? answer.filter : filter
}

/**
 * Adds the records that differ in a range. A range that agrees is left alone, another one divided until it is small, by the side that has more
 * in it: so every step leads to less. `theirs` is the peer's digest of the range where it is known already.
 */
async function compareRange(walk: Walk, range: KeyRange, theirs?: Digest): Promise<void> {
  const { db } = walk.store
  const [there] = theirs === undefined ? await askRanges(walk, range, 1) : [theirs]
  const [here] = await digestOf(db, walk.scope, range)
  if (there === undefined || here === undefined) throw unreadable(walk)
  if (range.from === null && range.to === null) walk.checked = there.count
  if (there.count === here.count && BigInt(there.sum) === BigInt(here.sum)) return
  if (Math.max(there.count, here.count) <= SMALL) return compareRecords(walk, range)
  const byThem = there.count >= here.count
  const pieces = byThem ? await askRanges(walk, range, BUCKETS) : await digestOf(db, walk.scope, range, BUCKETS)
  for (const piece of pieces) {
    if (walk.differing.length >= walk.namedMax) return
    await compareRange(walk, { from: piece.from, to: piece.to }, byThem ? piece : undefined)
  }
}

async function compareRecords(walk: Walk, range: KeyRange): Promise<void> {
  const theirs = new Map((await askRecords(walk, range)).map(({ id, hash }) => [id, hash]))
  const ours = new Map((await digestRecords(walk.store.db, walk.scope, range, SMALL)).map(({ id, hash }) => [id, hash]))
  const ids = [...new Set([...theirs.keys(), ...ours.keys()])].sort((a, b) =>
    Buffer.compare(Buffer.from(a), Buffer.from(b)),
  )
  const differing = ids.filter((id) => theirs.get(id) !== ours.get(id))
  walk.differing.push(...differing.slice(0, walk.namedMax - walk.differing.length))
}

async function askRanges(walk: Walk, range: KeyRange, buckets: number): Promise<readonly Digest[]> {
  const { ranges } = await ask(walk, { ...bounds(range), buckets: String(buckets) })
  return list(walk, ranges, (each): Digest => {
    const { from, to, count, sum } = each
    if (!isText(from) || !isText(to) || !Number.isSafeInteger(count) || !isNumber(sum)) throw unreadable(walk)
    return { from, to, count: count as number, sum }
  })
}

async function askRecords(walk: Walk, range: KeyRange): Promise<readonly RecordDigest[]> {
  const { records } = await ask(walk, { ...bounds(range), records: 'true' })
  return list(walk, records, ({ id, hash }): RecordDigest => {
    if (typeof id !== 'string' || !isNumber(hash)) throw unreadable(walk)
    return { id, hash }
  })
}

function ask(walk: Walk, query: Readonly<Record<string, string | undefined>>): Promise<Record<string, unknown>> {
  const filter = walk.filter ?? undefined
  return walk.client.digests(walk.scope.resource.name, { ...query, filter }, walk.signal)
}

/** Open ends are left out. */
function bounds({ from, to }: KeyRange): { from: string | undefined; to: string | undefined } {
  return { from: from ?? undefined, to: to ?? undefined }
}

function list<T>(walk: Walk, value: unknown, read: (each: Readonly<Record<string, unknown>>) => T): readonly T[] {
  if (!Array.isArray(value)) throw unreadable(walk)
  return value.map((each: unknown) => {
    if (!isJsonObject(each)) throw unreadable(walk)
    return read(each)
  })
}

function isText(value: unknown): value is string | null {
  return value === null || typeof value === 'string'
}

function isNumber(value: unknown): value is string {
  return typeof value === 'string' && /^-?\d{1,60}$/.test(value)
}

function unreadable({ client, scope }: Walk): PeerError {
  const what = `GET /digests/${scope.resource.name} at ${client.host}`
  return new PeerError('SYNC_PEER_REFUSED', `${what}: the answer is no digest`, { status: 200, retryable: false })
}
