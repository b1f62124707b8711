import { Type } from 'typebox'
import {
  discardQuarantined,
  type ElsewhereEntry,
  findPeer,
  findQuarantined,
  isoTime,
  isRowId,
  listElsewhere,
  listQuarantine,
  pageBounds,
  type QuarantineEntry,
  readSelf,
  redrive,
  refreshAltered,
  retryNow,
  toPage,
} from '../../store/index.ts'
import { changesOfLines, SynclineError } from '../../sync/index.ts'
import { callerOf } from '../access.ts'
import type { ServerDeps } from '../deps.ts'
import type { Routes } from '../exchange.ts'
import {
  answer,
  change,
  closed,
  count,
  flag,
  nullable,
  pageOf,
  pageQuery,
  peerRef,
  recordId,
  resourceName,
  rowId,
  text,
  time,
  words,
} from '../schemas.ts'

const SIDES = ['here', 'there'] as const

const entry = closed(
  {
    id: text('Of the entry, on its side.'),
    side: words(SIDES, { description: 'It waits here, or at the peer that this site sent it to.' }),
    outcome: words(['quarantined', 'refused', 'discarded'], {
      description: 'It waits; the peer refused it for good; somebody there gave it up.',
    }),
    peer: text('Name.'),
    resource: resourceName,
    recordId,
    via: nullable(words(['pull', 'push']), {
      description: 'This site pulled it, or the peer pushed it; null for the other side.',
    }),
    code: text('Code of the reason.'),
    reason: text('In words, mostly those of the database.'),
    waitsFor: nullable(
      closed(
        { resource: Type.String(), id: nullable(Type.String()) },
        { title: 'AwaitedRecord', description: 'The record that must come first.' },
      ),
    ),
    dependants: count('Records that wait for this one, in one step or several; counted up to 1000.'),
    attempts: count('So far.'),
    firstAt: time('First attempt.'),
    lastAt: time('Last attempt.'),
    retryAt: nullable(time('Next attempt.')),
    discarded: nullable(
      closed(
        {
          by: text('Name of the token.'),
          because: nullable(Type.String(), { description: 'In that person’s words.' }),
        },
        { title: 'Discarding', description: 'Who gave the record up, and why.' },
      ),
    ),
    change: nullable(change, { description: 'The record; null when it cannot be read, or waits at the peer.' }),
  },
  { title: 'QuarantineEntry', description: 'A record that could not be applied, alone, with the reason.' },
)
const params = closed({ entry: rowId('Id of the entry.') })
const side = Type.Optional(
  words(SIDES, { default: 'here', description: 'What waits here, or what waits at peers of what this site sent.' }),
)

/** /api/v1/quarantine: records that wait, each alone. */
export const quarantineRoutes =
  ({ store, limits }: ServerDeps): Routes =>
  async (app) => {
    const list = {
      operationId: 'listQuarantine',
      tags: ['quarantine'],
      summary: 'List what waits in quarantine',
      querystring: closed({ ...pageQuery, peer: Type.Optional(peerRef), resource: Type.Optional(resourceName), side }),
      response: { 200: answer(pageOf(entry, 'QuarantinePage')) },
    }
    app.get('/quarantine', { schema: list, config: { access: 'viewer' } }, async (request) => {
      const { cursor, limit, peer, resource, side: where } = request.query
      const bounds = pageBounds({ before: cursor, limit })
      const name = peer === undefined ? undefined : (await findPeer(store.db, peer)).name
      const query = { peer: name, resource, before: cursor, limit: bounds.take }
      return where === 'there'
        ? toPage(await listElsewhere(store.db, query), bounds, viewThere)
        : toPage(await listQuarantine(store.db, query), bounds, view)
    })

    const read = {
      operationId: 'readQuarantineEntry',
      tags: ['quarantine'],
      summary: 'Read an entry',
      params,
      querystring: closed({ side }),
      response: { 200: answer(entry) },
    }
    app.get('/quarantine/:entry', { schema: read, config: { access: 'viewer' } }, async (request) => {
      const { entry: id } = request.params
      if (request.query.side !== 'there') return view(await found(id))
      const [there] = isRowId(id) ? await listElsewhere(store.db, { id, limit: 1 }) : []
      if (there === undefined) throw new SynclineError('SYNC_REQUEST_NOT_FOUND', `nothing waits at a peer under ${id}`)
      return viewThere(there)
    })

    const retry = {
      operationId: 'retryQuarantineEntry',
      tags: ['quarantine'],
      summary: 'Try an entry again now',
      params,
      response: {
        200: answer(
          closed(
            {
              applied: flag('It is here now.'),
              entry: nullable(entry, { description: 'It waits on, with the reason of this attempt.' }),
            },
            { title: 'Retry', description: 'What came of another attempt.' },
          ),
        ),
      },
    }
    app.post('/quarantine/:entry/retry', { schema: retry, config: { access: 'operator' } }, async (request) => {
      const { id } = await found(request.params.entry)
      // What made it wait may be mended in the table, which is known here as it was.
      await refreshAltered(store)
      await retryNow(store.db, id)
      await redrive(store, await readSelf(store.db), null, limits)
      const left = await findQuarantined(store.db, id)
      return { applied: left === null, entry: left === null ? null : view(left) }
    })

    const discard = {
      operationId: 'discardQuarantineEntry',
      tags: ['quarantine'],
      summary: 'Give an entry up',
      description:
        'Its values stay in the history, the decision in the log, and the peer is told of it. A later version of the record comes like any other.',
      params,
      querystring: closed({
        because: Type.Optional(
          Type.String({ minLength: 1, maxLength: 1000, description: 'Why, for the log and for the peer.' }),
        ),
      }),
      'x-answers': { 204: { description: 'Given up.' } },
    }
    app.delete('/quarantine/:entry', { schema: discard, config: { access: 'operator' } }, async (request, reply) => {
      const { id } = await found(request.params.entry)
      await discardQuarantined(store.db, id, { by: callerOf(request).name, because: request.query.because })
      return reply.code(204).send()
    })

    async function found(id: string): Promise<QuarantineEntry> {
      const entry = isRowId(id) ? await findQuarantined(store.db, id) : null
      if (entry === null)
        throw new SynclineError(
          'SYNC_REQUEST_NOT_FOUND',
          `nothing waits in quarantine here under ${id}; what waits at peers has numbers of its own: \`syncline quarantine show ${id.slice(0, 20)} --side there\``,
        )
      return entry
    }
  }

function view({ line, header, ...rest }: QuarantineEntry) {
  return {
    ...rest,
    side: 'here',
    outcome: 'quarantined',
    firstAt: isoTime(rest.firstAt),
    lastAt: isoTime(rest.lastAt),
    retryAt: isoTime(rest.retryAt),
    discarded: null,
    change: changeOf(header, line),
  } as const
}

function viewThere({ decidedBy, because, ...rest }: ElsewhereEntry) {
  const discarded = decidedBy === null ? null : { by: decidedBy, because }
  return { ...rest, side: 'there', via: null, discarded, change: null } as const
}

/** What waits as a change; null for a line that nobody can read, which is why it waits. */
function changeOf(header: QuarantineEntry['header'], line: string) {
  try {
    const [found] = changesOfLines({ ...header, text: line, count: 1 })
    if (found === undefined) return null
    const { kind, ...change } = found
    return { ...change, ...(kind === 'delete' && { deleted: true }), ...(kind === 'left' && { left: true }) }
  } catch (error) {
    if (error instanceof SynclineError) return null
    throw error
  }
}
