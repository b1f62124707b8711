import { Type } from 'typebox'
import {
  discardQuarantined,
  findPeer,
  findQuarantined,
  isoTime,
  isRowId,
  listQuarantine,
  pageBounds,
  type QuarantineEntry,
  readSelf,
  redrive,
  retryNow,
  toPage,
} from '../../store/index.ts'
import { changesOfLines, SynclineError } from '../../sync/index.ts'
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

const entry = closed(
  {
    id: Type.String(),
    peer: text('Name.'),
    resource: resourceName,
    recordId,
    via: words(['pull', 'push'], { description: 'This site pulled it, or the peer pushed it.' }),
    code: text('Code of the reason.'),
    reason: text('In words, mostly those of the database.'),
    waitsFor: nullable(
      closed(
        { resource: Type.String(), id: nullable(Type.String()) },
        { title: 'AwaitedRecord', description: 'The record that must come first.' },
      ),
    ),
    attempts: count('So far.'),
    firstAt: time('First attempt.'),
    lastAt: time('Last attempt.'),
    retryAt: nullable(time('Next attempt.')),
    change: nullable(change, { description: 'The record; null when it cannot be read.' }),
  },
  { title: 'QuarantineEntry', description: 'A record that could not be applied, alone, with the reason.' },
)
const params = closed({ entry: rowId('Id of the entry.') })

/** /api/v1/quarantine: records that wait, each alone. */
export const quarantineRoutes =
  ({ store, limits }: ServerDeps): Routes =>
  async (app) => {
    const list = {
      operationId: 'listQuarantine',
      tags: ['quarantine'],
      summary: 'List what waits in quarantine',
      querystring: closed({ ...pageQuery, peer: Type.Optional(peerRef), resource: Type.Optional(resourceName) }),
      response: { 200: answer(pageOf(entry, 'QuarantinePage')) },
    }
    app.get('/quarantine', { schema: list, config: { access: 'viewer' } }, async (request) => {
      const { cursor, limit, peer, resource } = request.query
      const bounds = pageBounds({ before: cursor, limit })
      const name = peer === undefined ? undefined : (await findPeer(store.db, peer)).name
      const rows = await listQuarantine(store.db, { peer: name, resource, before: cursor, limit: bounds.take })
      return toPage(rows, bounds, view)
    })

    const read = {
      operationId: 'readQuarantineEntry',
      tags: ['quarantine'],
      summary: 'Read an entry',
      params,
      response: { 200: answer(entry) },
    }
    app.get('/quarantine/:entry', { schema: read, config: { access: 'viewer' } }, async (request) =>
      view(await found(request.params.entry)),
    )

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
      await retryNow(store.db, id)
      await redrive(store, await readSelf(store.db), null, limits)
      const left = await findQuarantined(store.db, id)
      return { applied: left === null, entry: left === null ? null : view(left) }
    })

    const discard = {
      operationId: 'discardQuarantineEntry',
      tags: ['quarantine'],
      summary: 'Give an entry up',
      description: 'Its values stay in the history. It comes again when it changes at its site.',
      params,
      'x-answers': { 204: { description: 'Given up.' } },
    }
    app.delete('/quarantine/:entry', { schema: discard, config: { access: 'operator' } }, async (request, reply) => {
      const { id } = await found(request.params.entry)
      await discardQuarantined(store.db, id)
      return reply.code(204).send()
    })

    async function found(id: string): Promise<QuarantineEntry> {
      const entry = isRowId(id) ? await findQuarantined(store.db, id) : null
      if (entry === null) throw new SynclineError('SYNC_REQUEST_NOT_FOUND', `nothing waits in quarantine under ${id}`)
      return entry
    }
  }

function view({ line, header, ...rest }: QuarantineEntry) {
  return {
    ...rest,
    firstAt: isoTime(rest.firstAt),
    lastAt: isoTime(rest.lastAt),
    retryAt: isoTime(rest.retryAt),
    change: changeOf(header, line),
  }
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
