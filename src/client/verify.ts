import {
  appendLog,
  columnFacts,
  comparedColumns,
  compileFilter,
  type DigestScope,
  findTaskFor,
  fullDigest,
  joinFilters,
  listDiscards,
  listElsewhere,
  listExplained,
  loadResources,
  lossOf,
  noteComparison,
  type Peer,
  type ResourceInfo,
  type Store,
  type Task,
  waitingFor,
} from '../store/index.ts'
import { SynclineError, sameTotal, type Verdict } from '../sync/index.ts'
import { tellTotal } from './compare.ts'
import type { Connections } from './connections.ts'
import { type Asking, askRanges } from './digest-client.ts'
import { mappedLink } from './mapped.ts'
import type { PeerClient } from './peer-client.ts'
import { type Difference, isFull, type Walk, type What, walkValues, walkVersions } from './walk.ts'

export type VerifyDeps = { readonly store: Store; readonly connections: Connections }

export type VerifyOptions = {
  /** Only these resources; every one with a task when absent. */
  readonly resources?: readonly string[] | undefined
  /** Compares the values of the rows as well, and finds what was changed behind the triggers. */
  readonly deep: boolean
  /** How many records that differ are named. */
  readonly namedMax?: number | undefined
  readonly signal?: AbortSignal | undefined
}

/** What a comparison found. */
export type Verified = {
  readonly resource: string
  readonly equal: boolean
  readonly verdict: Verdict
  /** Living records that were compared, of the side that has more. */
  readonly checked: number
  /** Ids of records that differ without anybody knowing why, in key order, as far as they were looked for. */
  readonly differing: readonly string[]
  /** The same with what is different. */
  readonly differences: readonly Difference[]
  /** False when the search ended before all of them were found. */
  readonly complete: boolean
  readonly detail?: string
}

const NAMED_MAX = 100
const NAMED_MAX_DEEP = 10_000

/**
 * Compares resources with a peer by digests, and walks down to the records that differ. What is on its way makes a difference too: compare after a run.
 * Errors: SYNC_REQUEST_NOT_FOUND for a resource without a task, those of the peer's answers.
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
  const [tasks, resources] = [wanted.map(({ task }) => task), wanted.map(({ resource }) => resource)]
  const mapped = await mappedLink(deps.store, peer.id, client, tasks, resources)
  for (const [n, { resource, task }] of wanted.entries()) {
    const each = { resource, task: mapped.tasks[n] ?? task }
    found.push(await verifyResource(deps.store, peer, mapped.client, each, options))
  }
  return found
}

type Link = { readonly resource: ResourceInfo; readonly task: Task }

async function verifyResource(
  store: Store,
  peer: Peer,
  client: PeerClient,
  { resource, task }: Link,
  options: VerifyOptions,
): Promise<Verified> {
  const began = performance.now()
  const to: Asking = { client, resource: resource.name, filter: task.filter, signal: options.signal }
  const { scope, granted } = await scopeOf(store, peer, resource, task, to)
  const whole = { from: null, to: null }
  const [{ ranges }, here] = await Promise.all([askRanges(to, whole, 1), fullDigest(store, scope)])
  const there = { records: ranges[0]?.count ?? 0, sum: ranges[0]?.sum ?? '0' }
  const namedMax = options.namedMax ?? (options.deep ? NAMED_MAX_DEEP : NAMED_MAX)
  const walk: Walk = { store, scope, to, namedMax, counts: (each) => covered(task, each), found: [] }
  const notes: string[] = []
  let depth: 'whole' | 'part' | null = options.deep ? 'whole' : null
  if (options.deep) {
    const ours = comparedColumns(resource, [task.columns])
    const columnsOf = (names: readonly string[]) => ours.filter(({ name }) => names.includes(name))
    const { left } = await walkValues(walk, columnFacts(resource, ours), columnsOf)
    if (left.length > 0) depth = 'part'
    if (left.length > 0) notes.push(`not compared, as the peer has them not or with another type: ${left.join(', ')}`)
  } else if (!sameTotal(here, there)) await walkVersions(walk, whole)
  const outcome = await withLoss(
    store,
    peer,
    { resource, task },
    await conclude(store, peer, { resource, task }, walk, notes),
  )
  const tookMs = performance.now() - began
  const { verdict, differences, reason } = outcome
  const differing = new Set(differences.map(({ id }) => id)).size
  await noteComparison(store.db, peer.id, resource.id, {
    ...{ verdict, reason, records: here.records, head: here.head, scope: granted ?? '', tookMs },
    differing: verdict === 'equal' ? null : differing,
    depth,
  })
  // The status over there is to know it as well. It was proved here in any case.
  if (verdict === 'equal' && sameTotal(here, there))
    await tellTotal({ client, resource, task, signal: options.signal }, here, depth === 'whole').catch(() => {})
  await appendLog(store.db, {
    ...{ peer, resource: resource.name, mode: task.mode, direction: 'none', action: 'verify' },
    result: verdict === 'equal' ? 'success' : 'warning',
    message: `${here.records} records compared${options.deep ? ' with their values' : ''}: ${reason ?? 'equal'}`.slice(
      0,
      2_000,
    ),
    changes: here.records,
    durationMs: tookMs,
  })
  return {
    ...{ resource: resource.name, equal: verdict === 'equal', verdict, differences, complete: !isFull(walk) },
    checked: Math.max(here.records, there.records),
    differing: [...new Set(differences.map(({ id }) => id))],
    ...(reason !== null && { detail: reason }),
  }
}

/** What both sides compare by: the filter of the task and that of the peer's grant. */
async function scopeOf(
  store: Store,
  peer: Peer,
  resource: ResourceInfo,
  task: Task,
  to: Asking,
): Promise<{ readonly scope: DigestScope; readonly granted: string | null }> {
  const { filter: granted, hidden } = await askRanges(to, { from: null, to: '' }, 1)
  if (hidden) {
    const detail = `peer "${peer.name}" grants "${resource.name}" by a filter that this site may not see, so that it cannot compare`
    throw new SynclineError('SYNC_AUTH_FORBIDDEN', detail)
  }
  const text = joinFilters([task.filter, granted])
  const filter = text === null ? undefined : await compileFilter(store, resource, text)
  return { scope: { resource, filter, keptFrom: peer.id }, granted }
}

/** What the other side has more of is none of a link in one direction's business. */
function covered({ mode }: Task, { what }: Difference): boolean {
  if (mode === 'pull') return what !== 'missing there' && what !== 'row unknown here'
  if (mode === 'push') return what !== 'missing here' && what !== 'row unknown there'
  return true
}

type Conclusion = {
  readonly verdict: Verdict
  readonly reason: string | null
  /** Without those that are known to wait. */
  readonly differences: readonly Difference[]
}

async function conclude(
  store: Store,
  peer: Peer,
  { resource, task }: Link,
  walk: Walk,
  notes: readonly string[],
): Promise<Conclusion> {
  const ids = [...new Set(walk.found.map(({ id }) => id))]
  const explained = await listExplained(store.db, peer.id, resource.id, ids)
  const differences = walk.found.filter(({ id }) => !explained.has(id))
  const open =
    ids.length === 0 ? null : await waitingFor(store.db, peer, resource, task.mode === 'pull' ? null : 'push')
  const parts = [
    ...kinds(differences),
    ...(await givenUp(store, peer, resource, ids)),
    explained.size > 0
      ? `${explained.size} differ because they wait in quarantine, were discarded or wait for a decision`
      : '',
    open !== null && open.changes > 0 ? `${open.changes} changes here were not sent yet` : '',
    isFull(walk) ? `the search ended after ${walk.namedMax} records` : '',
    ...notes,
  ].filter((part) => part !== '')
  const reason = parts.length > 0 ? parts.join('; ') : null
  if (ids.length === 0) return { verdict: 'equal', reason, differences }
  return { verdict: differences.length === 0 && !isFull(walk) ? 'waiting' : 'different', reason, differences }
}

/** Values that differ because a column is or was narrower are those of the side that has them whole; where nobody can say, a repair leaves them. */
async function withLoss(store: Store, peer: Peer, { resource, task }: Link, found: Conclusion): Promise<Conclusion> {
  const rounded = found.differences.filter(({ what }) => what === 'content').length
  const loss = rounded === 0 ? null : await lossOf(store.db, peer, resource, task)
  if (loss === null) return found
  const { whole, why } = loss
  const side =
    whole === null ? { left: true as const } : { touched: { here: whole === 'here', there: whole === 'there' } }
  const mend =
    whole === null
      ? 'a repair leaves them: alter the columns alike, then write these records anew where they are right'
      : `a repair takes them from ${whole === 'here' ? 'this site' : peer.name}`
  return {
    ...found,
    differences: found.differences.map((each) => (each.what === 'content' ? { ...each, ...side } : each)),
    reason: `${found.reason ?? ''}; the values may have been rounded (${why}): ${mend}`,
  }
}

/** Decisions told by name, at most. */
const GIVEN_UP_MAX = 10

/** Of the records that differ, those that a person on either side gave up: who, and why. */
async function givenUp(
  store: Store,
  peer: Peer,
  resource: ResourceInfo,
  ids: readonly string[],
): Promise<readonly string[]> {
  if (ids.length === 0) return []
  const which = { recordIds: ids, limit: ids.length }
  const [here, there] = await Promise.all([
    listDiscards(store.db, { ...which, peerId: peer.id, resource: resource.name }),
    listElsewhere(store.db, { ...which, peer: peer.name, resource: resource.name }),
  ])
  const words = (id: string, where: string, by: string, because: string | null) =>
    `${id} was discarded ${where} by ${by}${because === null ? '' : ` because ${because}`}`
  const all = [
    ...here.map((each) => words(each.recordId, 'here', each.by, each.because)),
    ...there.flatMap(({ recordId, decidedBy, because }) =>
      decidedBy === null ? [] : [words(recordId, `at ${peer.name}`, decidedBy, because)],
    ),
  ]
  const more = all.length - GIVEN_UP_MAX
  return more > 0 ? [...all.slice(0, GIVEN_UP_MAX), `${more} more were discarded`] : all
}

const WORDS: Readonly<Record<What, string>> = {
  'missing here': 'only at the peer',
  'missing there': 'only here',
  version: 'in another version',
  content: 'with other values in the same version',
  'row gone here': 'whose row is gone here, behind the triggers',
  'row gone there': 'whose row is gone at the peer, behind the triggers',
  'row unknown here': 'with a row here that came behind the triggers',
  'row unknown there': 'with a row at the peer that came behind the triggers',
}

function kinds(differences: readonly Difference[]): readonly string[] {
  return (Object.keys(WORDS) as What[]).flatMap((what) => {
    const count = differences.filter((each) => each.what === what).length
    return count === 0 ? [] : [`${count} ${WORDS[what]}`]
  })
}
