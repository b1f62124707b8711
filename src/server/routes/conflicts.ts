import { Type } from 'typebox'
import {
  findConflict,
  findPeer,
  listConflicts,
  RESOLUTIONS,
  readSelf,
  redrive,
  resolveConflict,
} from '../../store/index.ts'
import { callerOf } from '../access.ts'
import type { ServerDeps } from '../deps.ts'
import type { Routes } from '../exchange.ts'
import {
  answer,
  anyJson,
  closed,
  nullable,
  pageOf,
  pageQuery,
  peerRef,
  recordId,
  resourceName,
  rowId,
  time,
  version,
  words,
} from '../schemas.ts'

const side = closed(
  {
    data: nullable(Type.Record(Type.String(), anyJson('Value')), {
      description: 'Values by column, references as record ids; null for a deletion.',
    }),
    version,
  },
  { title: 'ConflictSide', description: 'One of two versions.' },
)
const conflict = closed(
  {
    id: Type.String(),
    peer: nullable(Type.String(), {
      description: 'Where the other version came from; null when that peer was removed.',
    }),
    resource: resourceName,
    recordId,
    runId: nullable(Type.String()),
    ours: side,
    theirs: side,
    openedAt: time('When it was met.'),
    updatedAt: time('When a newer version of the other side came.'),
    resolvedAt: nullable(time('When it was settled.')),
    resolvedBy: nullable(Type.String(), { description: 'Token of who did.' }),
    resolution: nullable(Type.String(), { description: 'ours, theirs, or elsewhere when another site settled it.' }),
    comment: nullable(Type.String()),
  },
  { title: 'Conflict', description: 'A record that was changed on both sides and waits for a person.' },
)
const params = closed({ conflict: rowId('Id of the conflict.') })

/** /api/v1/conflicts: the conflict desk. It never holds up the exchange of anything else. */
export const conflictRoutes =
  ({ store, limits, self }: ServerDeps): Routes =>
  async (app) => {
    const list = {
      operationId: 'listConflicts',
      tags: ['conflicts'],
      summary: 'List conflicts',
      querystring: closed({
        ...pageQuery,
        peer: Type.Optional(peerRef),
        resource: Type.Optional(resourceName),
        open: Type.Optional(Type.Boolean({ description: 'Only those that wait, or only those that are settled.' })),
      }),
      response: { 200: answer(pageOf(conflict, 'ConflictPage')) },
    }
    app.get('/conflicts', { schema: list, config: { access: 'viewer' } }, async (request) => {
      const { cursor, peer, ...query } = request.query
      const name = peer === undefined ? undefined : (await findPeer(store.db, peer)).name
      return listConflicts(store.db, { ...query, peer: name, before: cursor })
    })

    const read = {
      operationId: 'readConflict',
      tags: ['conflicts'],
      summary: 'Read a conflict',
      params,
      response: { 200: answer(conflict) },
    }
    app.get('/conflicts/:conflict', { schema: read, config: { access: 'viewer' } }, async (request) =>
      findConflict(store.db, request.params.conflict),
    )

    const resolve = {
      operationId: 'resolveConflict',
      tags: ['conflicts'],
      summary: 'Settle a conflict',
      description:
        'Writes the chosen side as a new version that has seen both, so that it wins at every site. What loses is kept in the history.',
      params,
      body: closed({
        take: words(RESOLUTIONS, { description: 'The side that wins.' }),
        comment: Type.Optional(nullable(Type.String({ maxLength: 2000 }), { description: 'Why.' })),
      }),
      response: { 200: answer(conflict) },
    }
    app.post('/conflicts/:conflict/resolve', { schema: resolve, config: { access: 'operator' } }, async (request) => {
      const { take: choice, comment } = request.body
      const by = callerOf(request).name
      const settled = await resolveConflict(
        store,
        await self(),
        { id: request.params.conflict, choice, by, comment },
        limits,
      )
      await redrive(store, await readSelf(store.db), null, limits)
      return settled
    })
  }
