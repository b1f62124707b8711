import { Type } from 'typebox'
import {
  ASKED_MAX,
  findGrant,
  findResource,
  loadResources,
  type ReceivedRun,
  type ResourceInfo,
  receiveChanges,
  receivedRun,
  redrive,
  serveChanges,
  serveChosen,
  serveRows,
} from '../../store/index.ts'
import {
  asksForRows,
  type BatchReport,
  changesOfLines,
  codecForAccept,
  codecForContentType,
  LINES_MEDIA_TYPE,
  type LineBatch,
  linesBody,
  ROWS_MEDIA_TYPE,
  type RowText,
  rowsBody,
  SynclineError,
} from '../../sync/index.ts'
import { peerOf } from '../access.ts'
import { contentDigest, ENCODINGS, pack, readBody } from '../body.ts'
import {
  type ExchangeDeps,
  hangup,
  linkOf,
  logExchange,
  loggingFailure,
  needsPerson,
  notGranted,
  type Routes,
  sentenceOf,
} from '../exchange.ts'
import { recordsIn } from '../records-in.ts'
import { answer, closed, columnList, columnsOf, filterText, resourceName } from '../schemas.ts'
import {
  announcedDeletes,
  previewPush,
  pushPreviewQuery,
  pushReport,
  WEIGHT_HEADERS,
  weighQuery,
  weightHeaders,
} from '../weighing.ts'
import { pulledAs, pushedAs } from '../wire.ts'

/** Longest time that a pull may wait for something to come, in seconds. */
const WAIT_SECONDS_MAX = 60
/** Lines about single records: enough to look into it, not one for each of many thousands. */
const ANNOUNCED_MAX = 20

const pullQuery = closed({
  resource: resourceName,
  after: Type.Optional(
    Type.String({ maxLength: 1024, description: 'Checkpoint of the batch before; absent for everything.' }),
  ),
  limit: Type.Optional(Type.Integer({ minimum: 1, maximum: 50_000, description: 'Most records in the batch.' })),
  filter: Type.Optional(filterText),
  columns: Type.Optional(columnList),
  ids: Type.Optional(
    Type.String({
      maxLength: 16_000,
      description: `JSON list of at most ${ASKED_MAX} record ids: only these, as they are now, without a checkpoint. For records that others wait for.`,
      examples: ['["AT","SI"]'],
    }),
  ),
  deleted: Type.Optional(
    Type.Boolean({ description: 'With `ids`: those that are deleted too, for a peer that repairs a difference.' }),
  ),
  purged: Type.Optional(
    Type.Boolean({
      description:
        'Instead of changes: the deletions whose tombstones were purged behind `after`, each named by a hash of its record id. Only in lines.',
    }),
  ),
  ...weighQuery,
  wait: Type.Optional(
    Type.Integer({
      minimum: 0,
      maximum: WAIT_SECONDS_MAX,
      description: 'Seconds to wait for something to come when there is nothing.',
    }),
  ),
})

const pullSchema = {
  operationId: 'pullChanges',
  tags: ['sync'],
  summary: 'Pull one batch of changes',
  description:
    'The next changes of a resource in the order of this site, as far as the peer is granted. The last part carries the checkpoint of the next batch; a body without it is incomplete.',
  querystring: pullQuery,
  'x-answers': {
    200: {
      description: 'One bounded batch.',
      content: pulledAs,
      headers: {
        'Syncline-Checkpoint': 'Where the next batch begins; acknowledge it when the batch is applied.',
        'Syncline-More': '`true` when more follows at once.',
        'Content-Digest': 'SHA-256 of the bytes sent (RFC 9530).',
        ...WEIGHT_HEADERS,
      },
    },
  },
}

const pushQuery = closed({ resource: resourceName, preview: pushPreviewQuery })

const pushSchema = {
  operationId: 'pushChanges',
  tags: ['sync'],
  summary: 'Push a batch of changes',
  description:
    'Applies changes as far as the peer is granted, all in one transaction, each record with its own outcome. A body that cannot be read counts for nothing. Without versions it is the peer’s own write at the time of arrival. May be repeated.',
  querystring: pushQuery,
  'x-body': pushedAs,
  response: { 200: answer(pushReport) },
}

/** Errors: SYNC_REQUEST_INVALID for what is no list of ids. */
function idsOf(text: string): readonly string[] {
  try {
    const ids: unknown = JSON.parse(text)
    if (Array.isArray(ids) && ids.length > 0 && ids.every((id) => typeof id === 'string' && !id.includes('\0')))
      return ids
  } catch {
    // Told below, as whatever else is no list.
  }
  throw new SynclineError('SYNC_REQUEST_INVALID', 'ids is no JSON list of record ids, such as ["AT","SI"]')
}

/** The body of a batch in the format that was agreed on. Rows go as they are. */
function written(batch: LineBatch | RowText, format: ReturnType<typeof codecForAccept>) {
  if ('types' in batch) return { mediaType: ROWS_MEDIA_TYPE, plain: rowsBody(batch) }
  const { mediaType } = format
  if (format.name === 'lines') return { mediaType, plain: linesBody(batch) }
  return { mediaType, plain: Buffer.from([...format.encode({ ...batch, changes: changesOfLines(batch) })].join('')) }
}

/** What a pusher calls its run. Errors: SYNC_REQUEST_INVALID. */
function runKeyIn(header: string | string[] | undefined): string | null {
  if (header === undefined) return null
  if (typeof header === 'string' && /^[\x21-\x7e]{1,100}$/.test(header)) return header
  throw new SynclineError('SYNC_REQUEST_INVALID', 'Syncline-Run is a name of up to 100 visible ASCII characters')
}

/** /sync/v1/changes: pull and push. Reads and writes only what the peer is granted; the peer acknowledges by PUT /sync/v1/checkpoints. */
export const changesRoutes =
  (deps: ExchangeDeps): Routes =>
  async (app) => {
    const { store, limits, watch, seats, closing, observe } = deps

    app.get('/changes', { schema: pullSchema, config: { access: 'peer' } }, async (request, reply) => {
      const began = performance.now()
      const { resource, wait = 0, columns, ids, weigh = false, canary, preview: quiet, ...rest } = request.query
      const format = codecForAccept(request.headers.accept)
      if (rest.purged === true && format.name !== 'lines')
        throw new SynclineError('SYNC_FORMAT_UNSUPPORTED', `purged deletions are served as ${LINES_MEDIA_TYPE} only`)
      // Nothing of a pull is written under this site's name, so what is known of it will do.
      const link = { self: await deps.self(), peer: peerOf(request) }
      const exchanged = { resource, mode: 'pull', action: 'send' } as const
      const hidden = (error: unknown) => {
        // Whether a resource that was not granted is there is nobody's business.
        if (error instanceof SynclineError && error.code === 'SYNC_REQUEST_NOT_FOUND')
          throw notGranted(link.peer.name, 'pull', resource)
        throw error
      }
      const serve = (after: string | undefined) =>
        serveChanges(store, link, { ...rest, quiet, resource, after, columns: columnsOf(columns) }, limits).catch(
          hidden,
        )
      const chosen = () => {
        const { filter, deleted } = rest
        return serveChosen(
          store,
          link,
          { resource, ids: idsOf(ids ?? ''), filter, deleted, columns: columnsOf(columns) },
          limits,
        ).catch(hidden)
      }
      const asRows = asksForRows(request.headers.accept) && format.name === 'lines' && wait === 0
      const plainly = ids === undefined && !rest.purged && !rest.heads && !quiet
      const serving: Promise<LineBatch | RowText> = loggingFailure(deps, request, exchanged, async () => {
        if (ids !== undefined) return chosen()
        if (asRows && plainly) {
          const scope = { ...rest, resource, columns: columnsOf(columns) }
          const rows = await serveRows(store, link, scope, limits).catch(hidden)
          if (rows !== null) return rows
        }
        return pullWaiting(serve, {
          resource,
          after: rest.after,
          waitMs: wait * 1000,
          signal: hangup(reply, closing),
          peerId: link.peer.id,
        })
      })
      const scale = () =>
        weightHeaders(
          store,
          link,
          { ...rest, resource, columns, canary },
          serving.then(({ next }) => next?.more ?? false),
        )
      // Beside the batch, unless that waits for something to come. A failure of the batch says more.
      const weighing = weigh && wait === 0 ? scale() : null
      weighing?.catch(() => {})
      const batch = await serving
      const { mediaType, plain } = written(batch, format)
      const { body, encoding } = await pack(plain, request.headers['accept-encoding'])
      const { checkpoint, more = false } = batch.next ?? {}
      const durationMs = Math.round(performance.now() - began)
      if (batch.count > 0 && quiet !== true && rest.heads !== true) {
        const message = `${batch.count} ${batch.count === 1 ? 'change' : 'changes'} sent`
        const facts = { changes: batch.count, bytes: body.length, durationMs }
        await logExchange(deps, request, exchanged, { result: 'success', message, ...facts })
        observe.events.pullServed({ peer: link.peer.name, resource, more, ...facts })
      }
      const weight = weigh ? await (weighing ?? scale()) : {}
      reply.headers({
        ...weight,
        ...(checkpoint !== undefined && { 'syncline-checkpoint': checkpoint, 'syncline-more': String(more) }),
        'content-digest': contentDigest(body),
        vary: 'Accept, Accept-Encoding',
        ...(encoding !== undefined && { 'content-encoding': encoding }),
      })
      return reply.type(mediaType).send(body)
    })

    /** Serves at once what there is; when there is nothing, again each time that something moved, until the time is over. */
    async function pullWaiting(
      serve: (after: string | undefined) => Promise<LineBatch>,
      wait: { resource: string; after: string | undefined; waitMs: number; signal: AbortSignal; peerId: number },
    ): Promise<LineBatch> {
      if (wait.waitMs === 0) return serve(wait.after)
      const until = Date.now() + wait.waitMs
      let heads = await watch.heads(await watchedBy(wait.resource))
      let batch = await serve(wait.after)
      const leave = seats.take(wait.peerId)
      try {
        while (leave !== null && batch.count === 0 && batch.next?.more !== true) {
          const moved = await watch.moved(heads, Math.max(0, until - Date.now()), wait.signal)
          if (moved === null) break
          heads = moved
          batch = await serve(batch.next?.checkpoint)
        }
        return batch
      } finally {
        leave?.()
      }
    }

    /** A filter across a reference can begin to match because the other record changed. */
    async function watchedBy(name: string): Promise<readonly string[]> {
      const resource = (await loadResources(store.db)).find((each) => each.name === name)
      return [...new Set([name, ...(resource?.references ?? []).map((reference) => reference.resource)])]
    }

    const push: Routes = async (raw) => {
      raw.removeAllContentTypeParsers()
      raw.addContentTypeParser('*', { parseAs: 'buffer', bodyLimit: limits.bodyBytesMax }, (_request, body, done) =>
        done(null, body),
      )

      raw.post(
        '/changes',
        {
          schema: pushSchema,
          config: { access: 'peer' },
          bodyLimit: limits.bodyBytesMax,
          // Before the body is read: who may not push need not be listened to.
          preParsing: async (request, reply) => {
            const { resource } = request.query as { resource?: unknown }
            codecForContentType(request.headers['content-type'])
            reply.header('accept-encoding', ENCODINGS)
            const peer = peerOf(request)
            // Whatever else it is, such as a list of names, is refused when the query is checked.
            if (typeof resource !== 'string' || resource === '') return
            if ((await findGrant(store.db, peer.id, resource, 'push')) === null)
              throw notGranted(peer.name, 'push', resource)
          },
        },
        async (request) => {
          const { resource: name, preview } = request.query
          return loggingFailure(deps, request, { resource: name, mode: 'push', action: 'apply' }, async () => {
            const resource = await findResource(store.db, name)
            const bytes = await readBody(request, limits.bodyBytesMax)
            const { batches, byHand, count } = recordsIn(bytes, request.headers['content-type'], resource, limits)
            const announced = announcedDeletes(request.headers['syncline-due'])
            if (preview !== undefined) {
              const push = { resource: name, batches, byHand, announced }
              return previewPush(store, await linkOf(deps, request), push, preview, limits)
            }
            const run = await receivedRun(store.db, peerOf(request), runKeyIn(request.headers['syncline-run']))
            return receive(request, resource, batches, byHand, { count, announced, run })
          })
        },
      )
    }
    app.register(push)

    async function receive(
      request: Parameters<typeof peerOf>[0],
      resource: ResourceInfo,
      batches: readonly LineBatch[],
      byHand: boolean,
      {
        count: changes,
        announced,
        run,
      }: { readonly count: number; readonly announced: number; readonly run: ReceivedRun },
    ): Promise<BatchReport> {
      const began = performance.now()
      const link = await linkOf(deps, request)
      const report = await receiveChanges(
        store,
        link,
        { resource: resource.name, batches, byHand, runId: run.id, note: run.note, announced },
        limits,
      )
      const { applied, merged, conflict: conflicts, quarantined, refused } = report.counts
      const durationMs = Math.round(performance.now() - began)
      const bytes = Buffer.isBuffer(request.body) ? request.body.length : 0
      if (changes > 0) {
        await logExchange(
          deps,
          request,
          { resource: resource.name, mode: 'push', action: 'apply' },
          {
            result: needsPerson(report) ? 'warning' : 'success',
            runId: applied + merged + conflicts + quarantined + refused > 0 ? run.id : null,
            message: sentenceOf(changes, report),
            ...{ changes, applied: applied + merged, conflicts, quarantined, refused, bytes, durationMs },
          },
        )
        const { counts } = report
        observe.events.pushServed({ peer: link.peer.name, resource: resource.name, counts, bytes, durationMs })
        await announce(link.peer.id, link.peer.name, resource.name, report)
      }
      // What waited for one of these records, whichever peer it came from, can go on now.
      if (applied > 0) await redrive(store, link.self, run.id, limits)
      return report
    }

    async function announce(peerId: number, peer: string, resource: string, report: BatchReport): Promise<void> {
      const waiting = report.rejections.filter(({ outcome }) => outcome === 'quarantined' || outcome === 'conflict')
      if (waiting.length === 0) return
      const policy = (await findGrant(store.db, peerId, resource, 'push'))?.onConflict ?? 'newer'
      for (const { id: recordId, outcome, code = '', reason } of waiting.slice(0, ANNOUNCED_MAX)) {
        if (outcome === 'quarantined') observe.events.recordQuarantined({ peer, resource, recordId, code, reason })
        else observe.events.conflictDecided({ peer, resource, recordId, policy, decision: 'open' })
      }
    }
  }
