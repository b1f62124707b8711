import type { Told as Waiting } from '../store/index.ts'
import {
  type BatchReport,
  type BodyLimits,
  LINES_MEDIA_TYPE,
  type LineBatch,
  linesBody,
  ROWS_MEDIA_TYPE,
  type RowBatch,
  SynclineError,
} from '../sync/index.ts'
import {
  type OfferedResource,
  type PeerLimits,
  type PushPreview,
  readJson,
  readLimits,
  readPreview,
  readReport,
  readResources,
  type Told,
  text,
  toldIn,
  unreadable,
} from './answers.ts'
import { readBatches, readRows } from './batches.ts'
import { compress, contentDigest } from './body.ts'
import { type Connection, createTransport, type TransportSettings } from './transport.ts'
import { readCounts, readWaiting } from './waiting-answer.ts'

export type ClientSettings = TransportSettings & {
  readonly depthMax: number
  readonly batchRowsMax: number
}

/** Who answered. `clockOffsetMs` is the peer's clock minus ours, taken in the middle of the exchange. */
export type Greeting = {
  readonly uuid: string
  readonly name: string
  readonly logId: string
  /** Made anew at every start of the peer; null where it does not tell. */
  readonly mark: string | null
  readonly clockOffsetMs: number
  /** Name that this site has there. */
  readonly you?: string
  readonly resources: readonly OfferedResource[]
  /** How many records of this site wait there or were given up; null where it does not tell. */
  readonly waiting: { readonly quarantined: number; readonly discarded: number } | null
  /** How long an open transaction has held back what it sends. */
  readonly heldMs: number
  /** What the peer takes in one push. */
  readonly limits: PeerLimits
}

export type PullQuery = {
  readonly resource: string
  readonly after: string | null
  readonly limit?: number | undefined
  readonly filter?: string | null | undefined
  readonly columns?: readonly string[] | null | undefined
  /** Versions without values. */
  readonly heads?: boolean | undefined
  /** The peer takes note of nothing. */
  readonly preview?: boolean | undefined
  /** The peer also tells what is due in all. */
  readonly weigh?: boolean | undefined
  /** Id of a record that the peer tells the state of; with `weigh`. */
  readonly canary?: string | null | undefined
  /** Seconds that the peer may wait for something to come. */
  readonly waitSeconds?: number | undefined
  /** Asks for the deletions whose tombstones were purged since, instead of changes. */
  readonly purged?: boolean | undefined
  /** The answer may be in rows. */
  readonly rows?: boolean | undefined
  /** Reference columns of the resource here; only for peers that do not speak in lines. */
  readonly refs?: Readonly<Record<string, string>> | undefined
  /** Run of this site that asks, where it is one. */
  readonly runId?: string | undefined
  readonly signal?: AbortSignal | undefined
}

export type ChosenQuery = {
  readonly resource: string
  readonly ids: readonly string[]
  readonly filter?: string | null | undefined
  readonly columns?: readonly string[] | null | undefined
  readonly signal?: AbortSignal | undefined
}

type WaitingToTell = Waiting & { readonly complete: boolean }

/** One answer to a pull: mostly one batch; several when a public format mixed sets of columns. Only the last one has `next`. */
export type Pulled = {
  readonly batches: readonly LineBatch[]
  /** In place of lines, where these were allowed. */
  readonly rows?: RowBatch | undefined
  readonly count: number
  readonly checkpoint: string
  readonly more: boolean
  readonly bytes: number
  readonly told: Told | null
  /** Tombstones were purged that this site has not heard of: see LineBatch. */
  readonly purges?: number | undefined
}

export type Pushed = {
  readonly report: BatchReport
  readonly bytes: number
  /** Only where the push was to be tried. */
  readonly preview?: PushPreview | undefined
}

export type PushOptions = {
  /** Only tells what would happen: with the values, or by versions alone. */
  readonly preview?: 'values' | 'heads' | undefined
  /** Deletions that are still to be sent, these included. */
  readonly announced?: number | undefined
  /** Run of this site that sends it: the peer keeps what came with one run together. */
  readonly runId?: string | null | undefined
}

/** The verbs of /sync/v1 as this site asks a peer for them. Each makes one attempt: repeating is for the caller to decide. */
export type PeerClient = ReturnType<typeof createPeerClient>

/** Number of the wire that this site speaks (docs/protocol.md). 1: first form; every site of it reads zstd and lines. */
const PROTOCOL = 1
const JSON_TYPE = 'application/json'
/** Coding a smaller body costs more than it saves. */
const COMPRESS_FROM_BYTES = 4_096
const ACCEPT_LINES = `${LINES_MEDIA_TYPE}, application/x-ndjson;q=0.5`
const ACCEPT_ROWS = `${ROWS_MEDIA_TYPE}, ${ACCEPT_LINES}`

/** A client for one peer. Errors of every verb: PeerError, SYNC_BATCH_INCOMPLETE, SYNC_FORMAT_INVALID, SYNC_REQUEST_TOO_LARGE. */
export function createPeerClient(connection: Connection, settings: ClientSettings) {
  const transport = createTransport(connection, settings)
  const limits = (recordsMax: number): BodyLimits => ({
    recordsMax,
    // A record that is too large for this site is set aside alone when it is applied (I8); here it must not stop its batch.
    recordBytesMax: settings.bodyBytesMax,
    depthMax: settings.depthMax,
  })

  async function json(request: Parameters<typeof transport.exchange>[0]): Promise<Record<string, unknown>> {
    const headers = { accept: JSON_TYPE, ...request.headers }
    const answer = await transport.exchange({ ...request, headers })
    return readJson(answer, `${request.method} ${request.path} at ${transport.host}`)
  }

  return {
    host: transport.host,

    /** Asks who the peer is. */
    async greet(signal?: AbortSignal): Promise<Greeting> {
      const asked = Date.now()
      const answer = await transport.exchange({ method: 'GET', path: '/site', headers: { accept: JSON_TYPE }, signal })
      const answered = Date.now()
      const what = `GET /site at ${transport.host}`
      const site = readJson(answer, what)
      if (!Array.isArray(site.protocols) || !site.protocols.includes(PROTOCOL)) {
        throw unreadable(what, `it speaks protocol ${JSON.stringify(site.protocols)}, this site ${PROTOCOL}`)
      }
      const time = Date.parse(text(site, 'time', what))
      if (Number.isNaN(time)) throw unreadable(what, 'time is no time')
      return {
        uuid: text(site, 'uuid', what).toLowerCase(),
        name: text(site, 'name', what),
        logId: text(site, 'logId', what),
        mark: typeof site.mark === 'string' ? site.mark : null,
        clockOffsetMs: time - (asked + answered) / 2,
        ...(typeof site.you === 'string' && { you: site.you }),
        resources: readResources(site.resources, what),
        waiting: readCounts(site.waiting),
        heldMs: typeof site.heldMs === 'number' ? site.heldMs : 0,
        limits: readLimits(site.limits),
      }
    },

    /** One batch of the peer's changes after a checkpoint. */
    async pull(query: PullQuery): Promise<Pulled> {
      const { resource, after, limit = settings.batchRowsMax, filter, columns, waitSeconds, signal } = query
      const answer = await transport.exchange({
        method: 'GET',
        path: '/changes',
        query: {
          resource,
          after: after ?? undefined,
          limit: String(limit),
          filter: filter ?? undefined,
          columns: columns?.join(','),
          purged: query.purged ? 'true' : undefined,
          heads: query.heads === true ? 'true' : undefined,
          preview: query.preview === true ? 'true' : undefined,
          weigh: query.weigh === true ? 'true' : undefined,
          canary: query.weigh === true ? (query.canary ?? undefined) : undefined,
          wait: waitSeconds === undefined ? undefined : String(waitSeconds),
        },
        headers: { accept: query.rows === true ? ACCEPT_ROWS : ACCEPT_LINES },
        waitMs: (waitSeconds ?? 0) * 1000,
        signal,
      })
      const rows = query.rows === true ? readRows(answer, limits(limit)) : undefined
      const batches = rows === undefined ? readBatches(answer, resource, query.refs ?? {}, limits(limit)) : []
      const all = rows === undefined ? batches : [rows]
      const next = all.at(-1)?.next
      if (all.some((batch) => batch.resource !== resource) || next === undefined) {
        throw new SynclineError(
          'SYNC_BATCH_INCOMPLETE',
          `the answer of ${transport.host} is not a batch of "${resource}" with its checkpoint`,
        )
      }
      const count = all.reduce((sum, batch) => sum + batch.count, 0)
      const purges = all.at(-1)?.purges
      return {
        batches,
        rows,
        count,
        checkpoint: next.checkpoint,
        more: next.more,
        bytes: answer.body.travelled,
        purges,
        told: toldIn(answer.headers),
      }
    },

    /** Sends a batch of our changes; the answer tells of every record that was not simply applied. */
    async push(batch: LineBatch, signal?: AbortSignal, options: PushOptions = {}): Promise<Pushed> {
      const { next: _, purges: _purges, ...sent } = batch
      const plain = linesBody(sent)
      const coded = !transport.local && plain.length >= COMPRESS_FROM_BYTES
      const body = coded ? await compress(plain) : plain
      const answer = await json({
        method: 'POST',
        path: '/changes',
        query: { resource: batch.resource, preview: options.preview },
        headers: {
          'content-type': LINES_MEDIA_TYPE,
          ...(options.announced && { 'syncline-due': `deletes=${options.announced}` }),
          ...(options.runId != null && { 'syncline-run': options.runId }),
          'content-digest': contentDigest(body),
          ...(coded && { 'content-encoding': 'zstd' }),
        },
        body,
        signal,
      })
      const what = `POST /changes at ${transport.host}`
      const preview = options.preview === undefined ? undefined : readPreview(answer.preview, what)
      return { report: readReport(answer, what), bytes: body.length, preview }
    },

    /** Records by id, as they are now; those that the peer has not, or does not grant, are left out. */
    async pullChosen(query: ChosenQuery): Promise<{ readonly batches: readonly LineBatch[]; readonly bytes: number }> {
      const { resource, ids, filter, columns, signal } = query
      const answer = await transport.exchange({
        method: 'GET',
        path: '/changes',
        query: { resource, ids: JSON.stringify(ids), filter: filter ?? undefined, columns: columns?.join(',') },
        headers: { accept: LINES_MEDIA_TYPE },
        signal,
      })
      const batches = readBatches(answer, resource, {}, limits(ids.length))
      if (batches.some((batch) => batch.resource !== resource))
        throw unreadable(`GET /changes at ${transport.host}`, `it has other records than those of "${resource}"`)
      return { batches, bytes: answer.body.travelled }
    },

    /** Tells what waits here of the peer's records, and hears what waits there of ours. */
    async tellWaiting(waiting: WaitingToTell, signal?: AbortSignal): Promise<Waiting & { readonly revived: number }> {
      const body = Buffer.from(JSON.stringify(waiting))
      const headers = { 'content-type': JSON_TYPE }
      const answer = await json({ method: 'PUT', path: '/quarantine', headers, body, signal })
      return readWaiting(answer, `PUT /quarantine at ${transport.host}`)
    },

    /** The columns of a resource as the peer tells them; src/client/schemas.ts reads it. */
    async readSchema(resource: string, signal?: AbortSignal): Promise<Record<string, unknown>> {
      return json({ method: 'GET', path: `/schemas/${encodeURIComponent(resource)}`, signal })
    },

    /** Tells the peer our columns of a resource. */
    async tellSchema(resource: string, schema: Readonly<Record<string, unknown>>, signal?: AbortSignal): Promise<void> {
      await transport.exchange({
        method: 'PUT',
        path: `/schemas/${encodeURIComponent(resource)}`,
        headers: { 'content-type': JSON_TYPE, accept: JSON_TYPE },
        body: Buffer.from(JSON.stringify(schema)),
        signal,
      })
    },

    /** Tells the peer up to where this site has everything. */
    async ack(resource: string, checkpoint: string, signal?: AbortSignal): Promise<void> {
      const body = Buffer.from(JSON.stringify({ checkpoint }))
      await transport.exchange({
        method: 'PUT',
        path: `/checkpoints/${encodeURIComponent(resource)}`,
        headers: { 'content-type': JSON_TYPE, accept: JSON_TYPE },
        body,
        signal,
      })
    },

    /** What the peer answers about a range of records; src/client/verify.ts reads it. */
    async digests(
      resource: string,
      query: Readonly<Record<string, string | undefined>>,
      signal?: AbortSignal,
    ): Promise<Record<string, unknown>> {
      return json({ method: 'GET', path: `/digests/${encodeURIComponent(resource)}`, query, signal })
    },

    /** Tells the peer what this site counts of a resource; it answers with its own count and what follows. src/client/compare.ts reads it. */
    async compare(
      resource: string,
      body: Readonly<Record<string, unknown>>,
      signal?: AbortSignal,
    ): Promise<Record<string, unknown>> {
      return json({
        method: 'POST',
        path: `/digests/${encodeURIComponent(resource)}`,
        headers: { 'content-type': JSON_TYPE },
        body: Buffer.from(JSON.stringify(body)),
        signal,
      })
    },

    /** Lets the peer look at records of its own that differ: what was done to them behind its triggers becomes its change. */
    async adopt(
      resource: string,
      body: Readonly<Record<string, unknown>>,
      signal?: AbortSignal,
    ): Promise<Record<string, unknown>> {
      return json({
        method: 'POST',
        path: `/digests/${encodeURIComponent(resource)}/adopt`,
        headers: { 'content-type': JSON_TYPE },
        body: Buffer.from(JSON.stringify(body)),
        signal,
      })
    },

    /** Records by id as they are at the peer, deleted ones too, without a checkpoint. */
    async pullForRepair(query: {
      readonly resource: string
      readonly ids: readonly string[]
      readonly filter: string | null
      readonly columns: readonly string[] | null
      readonly signal?: AbortSignal | undefined
    }): Promise<readonly LineBatch[]> {
      const { resource, ids, filter, columns, signal } = query
      const asked = {
        resource,
        ids: JSON.stringify(ids),
        deleted: 'true',
        filter: filter ?? undefined,
        columns: columns?.join(','),
      }
      const headers = { accept: LINES_MEDIA_TYPE }
      const answer = await transport.exchange({ method: 'GET', path: '/changes', query: asked, headers, signal })
      return readBatches(answer, resource, {}, limits(ids.length))
    },

    /** Redeems a pairing code. */
    async pair(request: Readonly<Record<string, unknown>>, signal?: AbortSignal): Promise<Record<string, unknown>> {
      const body = Buffer.from(JSON.stringify(request))
      return json({ method: 'POST', path: '/pairings', headers: { 'content-type': JSON_TYPE }, body, signal })
    },

    /** Data of the peer's events as they come; ends with an error or with `signal`. */
    async *events(signal: AbortSignal): AsyncIterable<string> {
      for await (const line of transport.events(signal)) {
        if (line.startsWith('data:')) yield line.slice('data:'.length).trim()
        // A comment keeps the stream alive; an empty one announces that it is open.
        else if (line.startsWith(':')) yield ''
      }
    },

    /** Ends every connection at once. */
    close: () => transport.close(),
  }
}
