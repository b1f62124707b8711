import {
  appendLog,
  comingFromEden,
  dueAtEden,
  edenDigest,
  edenDigestRecords,
  edenTotal,
  followMerges,
  lastEdenComparison,
  listTasks,
  offerAgain,
  type Peer,
  readEdenMemory,
  type Self,
  type Store,
  type Task,
} from '../../store/index.ts'
import { type Change, edenUuid, linesOfChanges, SynclineError, siteOfRepository } from '../../sync/index.ts'
import type { ClientSettings, PeerClient, Pulled, PullQuery } from '../peer-client.ts'
import { PeerError } from '../peer-error.ts'
import type { Connection } from '../transport.ts'
import { arrive } from './arrive.ts'
import { edenRecordsByName } from './by-name.ts'
import { createEdenPuller } from './pull.ts'
import { previewPush, pushToEden } from './push.ts'
import { createEdenRequests, type EdenRequests } from './requests.ts'
import { type EdenResource, edenResource } from './resources.ts'
import { registrationEntry } from './words.ts'

/** What a client of an Eden site needs besides its connection. */
export type EdenClientDeps = {
  readonly store: Store
  readonly self: Pick<Self, 'uuid' | 'name'>
  readonly peer: Peer
  /** How long a full comparison holds, at least; ten minutes by default. */
  readonly compareEveryMs?: number | undefined
}

const COMPARE_EVERY_MS = 600_000
/** Records that one run offers again because Eden did not take them. */
const AGAIN_MAX = 1_000
/** Records that a comparison is told one by one. */
const RECORDS_MAX = 10_000
/** Eden has one order of changes; it is not told when its database was put back. */
const LOG_ID = 'eden'

/** A client that also knows what only Eden can be asked. */
export type EdenClient = PeerClient & Pick<EdenRequests, 'fields'>

/**
 * A Sahana Eden site as a peer: the verbs that runs use, answered by what Eden's protocol can do. Eden knows no versions, so this site keeps what
 * Eden was found to have, and what it was sent, beside each record (src/store/eden.ts), and stands for Eden's side of the exchange by that.
 */
export function createEdenClient(deps: EdenClientDeps, connection: Connection, settings: ClientSettings): EdenClient {
  const { store, peer, self } = deps
  const requests = createEdenRequests(connection, settings, self.uuid)
  const resourceOf = (name: string) => edenResource(store, peer, name)
  const compareEveryMs = deps.compareEveryMs ?? COMPARE_EVERY_MS
  const puller = createEdenPuller({
    store,
    peer,
    requests,
    resourceOf,
    compareEveryMs,
    recordsMax: settings.batchRowsMax,
    settings,
  })
  let greetedAt = 0

  async function register(signal: AbortSignal | undefined): Promise<void> {
    const { sender, message } = await requests.register(self.name, signal)
    const uuid = siteOfRepository(sender)
    if (uuid === peer.uuid) {
      await appendLog(store.db, registrationEntry(peer, message))
      return
    }
    const detail = `the Eden at ${requests.host} calls itself ${sender}; peer "${peer.name}" was ${peer.uuid}`
    throw new PeerError('SYNC_PEER_MISMATCH', detail, { status: 200, retryable: false })
  }

  const tasks = async (): Promise<readonly Task[]> =>
    (await listTasks(store.db, { peerId: peer.id, enabled: true, limit: 100 })).items

  /** What Eden did not take is sent again after a while. */
  async function offerRefused(all: readonly Task[]): Promise<void> {
    for (const task of all.filter(({ mode }) => mode !== 'pull')) {
      const { place } = await resourceOf(task.resource)
      const due = await dueAtEden(store.db, place, AGAIN_MAX)
      if (due.length > 0) await store.db.transaction().execute((trx) => offerAgain(trx, place.resourceId, due))
    }
  }

  return {
    host: requests.host,
    fields: requests.fields,

    async greet(signal) {
      const all = await tasks()
      const asked = Date.now()
      // From the future nothing comes: it tells that Eden is there, lets this site in, and what its clock says.
      const document = await requests.pull(
        { table: all[0]?.resource ?? 'org_organisation', since: FAR_SECONDS },
        signal,
      )
      // Read to its end, so that the connection is kept.
      for (let left = 1; left > 0; ) left = (await document.next(100)).length
      const clockOffsetMs =
        Math.abs(document.serverTime * 1_000 - asked) < 2_000 ? 0 : document.serverTime * 1_000 - asked
      greetedAt = asked
      await offerRefused(all)
      return {
        uuid: peer.uuid,
        name: peer.name,
        logId: peer.logId ?? LOG_ID,
        mark: null,
        clockOffsetMs,
        resources: all.map(({ resource: name, mode }) => {
          return { name, pull: mode !== 'push', push: mode !== 'pull', fingerprint: null, terms: null, policy: null }
        }),
        waiting: null,
        heldMs: 0,
        limits: { bodyBytesMax: null, batchRowsMax: null },
      }
    },

    pull: async (query): Promise<Pulled> => {
      refuseFilter(query)
      if (query.purged) return nothing(query)
      return puller.pull(query)
    },

    push: async (batch, signal, options = {}) => {
      const resource = await resourceOf(batch.resource)
      if (options.preview !== undefined) {
        const { records } = await edenTotal(store.db, resource.place)
        const preview = await previewPush(store, resource, batch, records)
        return { report: emptyCounts(), bytes: 0, preview }
      }
      const task = (await tasks()).find((each) => each.resource === batch.resource)
      const whole = task === undefined || task.columns === null
      const pushing = { store, origin: peer.uuid, requests, register, whole, pulls: task?.mode !== 'push' }
      return pushToEden(pushing, resource, batch, signal)
    },

    async pullChosen(query) {
      refuseFilter(query)
      return { batches: await byId(await resourceOf(query.resource), query.ids, query.signal), bytes: 0 }
    },
    pullForRepair: async (query) => byId(await resourceOf(query.resource), query.ids, query.signal),

    /** Everything that was pulled is applied: what Eden merged lets go of the records that were merged away. */
    async ack(name) {
      const { place, info } = await resourceOf(name)
      await followMerges(store, place, info)
    },

    /**
     * What Eden was found to have, counted as a site counts its own. It is a proof only after a full comparison in the same run: Eden's cursor passes
     * over changes, and Eden has no digests.
     */
    async compare(name) {
      const { place } = await resourceOf(name)
      const [total, last] = await Promise.all([edenTotal(store.db, place), lastEdenComparison(store.db, place)])
      if (last.comparedAt === null || Date.parse(last.comparedAt) < greetedAt) {
        const when =
          last.comparedAt === null ? 'never yet' : `last on ${last.comparedAt.slice(0, 19).replace('T', ' ')} UTC`
        throw unproved(
          `Eden gives no proof of what it holds, and its cursor can pass over changes: everything was compared ${when}`,
        )
      }
      const waiting = { changes: await comingFromEden(store.db, place), quarantine: total.refused, conflicts: 0 }
      return { records: total.records, sum: total.sum, filter: null, hidden: false, waiting }
    },

    /** Digests of what Eden shows now: all of it is looked at once, when a comparison begins. */
    async digests(name, query, signal) {
      if (query.deep !== undefined || query.strays !== undefined)
        throw unproved('with an Eden site values are compared without --deep: what Eden shows is looked at as a whole')
      const { place } = await resourceOf(name)
      const range = { from: query.from ?? null, to: query.to ?? null }
      if (range.from === null && range.to === '') await puller.scan(name, signal)
      if (query.records === 'true') return { records: await edenDigestRecords(store.db, place, range, RECORDS_MAX) }
      return {
        ranges: await edenDigest(store.db, place, range, Number(query.buckets ?? 1)),
        filter: null,
        hidden: false,
      }
    },
    adopt: async () => {
      throw unproved('Eden cannot look behind its own application')
    },
    readSchema: async () => ({}),
    tellSchema: async () => {},
    tellWaiting: async () => {
      throw unproved('Eden is not told what waits here')
    },
    pair: async () => {
      throw new SynclineError(
        'SYNC_REQUEST_INVALID',
        'an Eden site is not paired by a code: syncline peer add --type eden',
      )
    },
    events: () => ({
      [Symbol.asyncIterator]: () => ({
        next: () => Promise.reject(unproved('Eden announces nothing: give the task a schedule instead of --live')),
      }),
    }),
    close: async () => {
      puller.close()
      await requests.close()
    },
  }

  async function byId(resource: EdenResource, ids: readonly string[], signal: AbortSignal | undefined) {
    const names = ids.map((id) => edenUuid(id, resource.shape.uuidKey))
    const known = await readEdenMemory(store.db, resource.place, ids)
    const changes: Change[] = []
    for await (const { record, at } of edenRecordsByName({ requests, origin: peer.uuid }, resource, names, signal)) {
      const { change } = arrive(record, known.get(record.change.id), at)
      if (change !== null) changes.push(change)
    }
    return linesOfChanges(resource.name, changes, resource.refs)
  }

  function unproved(detail: string): PeerError {
    return new PeerError('SYNC_PEER_REFUSED', detail, { retryable: false })
  }

  /** Eden's filters are not ours, and what it shows is the only proof of what it has. */
  function refuseFilter({ filter }: Pick<PullQuery, 'filter'>): void {
    if (filter != null && filter.trim() !== '')
      throw new SynclineError(
        'SYNC_FILTER_INVALID',
        `a task with an Eden site that pulls has no filter; "${filter.slice(0, 80)}" was given`,
      )
  }
}

/** The year 2200. */
const FAR_SECONDS = 7_258_118_400

function nothing({ resource, after }: PullQuery): Pulled {
  const next = { checkpoint: after ?? 'eden:-', more: false }
  const batch = { resource, columns: [], refs: {}, origins: [], text: '', count: 0, next, purged: true as const }
  return { batches: [batch], count: 0, ...next, bytes: 0, told: null }
}

function emptyCounts() {
  const counts = { applied: 0, known: 0, skipped: 0, merged: 0, conflict: 0, quarantined: 0, refused: 0 }
  return { counts, rejections: [], truncated: false }
}
