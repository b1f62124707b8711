import type { FastifyRequest } from 'fastify'
import { Type } from 'typebox'
import {
  findConflict,
  findPeer,
  listConflicts,
  RESOLUTIONS,
  type Resolution,
  readSelf,
  redrive,
  resolveConflict,
  resolveMatching,
} from '../../store/index.ts'
import { type Json, SynclineError } from '../../sync/index.ts'
import { callerOf } from '../access.ts'
import type { ServerDeps } from '../deps.ts'
import type { Routes } from '../exchange.ts'
import {
  answer,
  anyJson,
  closed,
  count,
  filterText,
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
    site: nullable(Type.String(), { description: 'Name of the site that wrote it, where it is known here.' }),
    at: time('When it was written, by the clock of that site.'),
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
    runId: nullable(Type.String(), { description: 'The run that met it.' }),
    base: nullable(side, { description: 'The last version that both had, where history still has it.' }),
    ours: side,
    theirs: side,
    fields: nullable(Type.Array(Type.String()), {
      description: 'Fields that need a decision, where the others merge by themselves; null for all that differ.',
    }),
    openedAt: time('When it was met.'),
    updatedAt: time('When either side last changed.'),
    resolvedAt: nullable(time('When it was settled.')),
    resolvedBy: nullable(Type.String(), { description: 'Token of who did.' }),
    resolution: nullable(Type.String(), {
      description:
        'ours, theirs or merged; elsewhere when another site settled it, superseded when a later conflict has both.',
    }),
    comment: nullable(Type.String()),
  },
  { title: 'Conflict', description: 'A record that was changed on both sides and waits for a person.' },
)
const winner = words(RESOLUTIONS, { description: 'The side that wins.' })
const choice = {
  take: Type.Optional(winner),
  fields: Type.Optional(
    Type.Record(Type.String(), words(RESOLUTIONS), { description: 'The side that wins for single fields.' }),
  ),
  values: Type.Optional(
    Type.Record(Type.String(), anyJson('Value'), {
      description: 'Values of neither side, by column; references as record ids.',
    }),
  ),
  comment: Type.Optional(nullable(Type.String({ maxLength: 2000 }), { description: 'Why.' })),
  rule: Type.Optional(
    Type.Boolean({
      description:
        'Makes the choice the policy of the task, or of the grant, that the conflict came by. Needs an administrator.',
    }),
  ),
}
const bulk = closed(
  {
    matched: count('Open conflicts that were named.'),
    resolved: count('Of these, settled now; ask again while there are any.'),
    failed: Type.Array(
      closed(
        {
          id: Type.String(),
          recordId,
          code: Type.String({ description: 'Code of the reason.' }),
          reason: Type.String({ description: 'In words for a person.' }),
        },
        { title: 'UnresolvedConflict' },
      ),
      { description: 'Those that stay open, up to a hundred.' },
    ),
  },
  { title: 'BulkResolution', description: 'What became of many conflicts at once.' },
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
        'Writes the chosen side, a choice by field, or values of neither side as a new version that has seen both, so that it wins at every site. ' +
        'What is not named is as in `take`, which is ours where it is absent. What loses is kept in the history.',
      params,
      body: closed(choice),
      response: { 200: answer(conflict) },
    }
    app.post('/conflicts/:conflict/resolve', { schema: resolve, config: { access: 'operator' } }, async (request) => {
      const { take, ...rest } = request.body
      const { name: by } = permitRule(request, rest.rule)
      const settled = await resolveConflict(
        store,
        await self(),
        { id: request.params.conflict, choice: take, by, ...decided(rest) },
        limits,
      )
      await redrive(store, await readSelf(store.db), null, limits)
      return settled
    })

    const resolveMany = {
      operationId: 'resolveConflicts',
      tags: ['conflicts'],
      summary: 'Settle many conflicts',
      description:
        'All open ones that match, the oldest first, up to 500 in one request. With `preview` they are only counted.',
      body: closed({
        peer: Type.Optional(peerRef),
        resource: Type.Optional(resourceName),
        filter: Type.Optional(filterText),
        preview: Type.Optional(Type.Boolean({ description: 'Only counts them.' })),
        ...choice,
      }),
      response: { 200: answer(bulk) },
    }
    app.post('/conflicts/resolve', { schema: resolveMany, config: { access: 'operator' } }, async (request) => {
      const { take, peer, resource, filter, preview = false, ...rest } = request.body
      const { name: by } = permitRule(request, rest.rule)
      const from = peer === undefined ? undefined : (await findPeer(store.db, peer)).name
      const outcome = await resolveMatching(
        store,
        await self(),
        { peer: from, resource, filter, preview, choice: take, by, ...decided(rest) },
        limits,
      )
      if (outcome.resolved > 0) await redrive(store, await readSelf(store.db), null, limits)
      return outcome
    })
  }

type Decided = {
  readonly fields?: Record<string, Resolution>
  readonly values?: Record<string, unknown>
  readonly comment?: string | null
  readonly rule?: boolean
}

function decided({ fields, values, comment, rule }: Decided) {
  return { fields, values: values as Record<string, Json> | undefined, comment, rule }
}

/** Who decides a conflict need not be who may change tasks. */
function permitRule(request: FastifyRequest, rule: boolean | undefined) {
  const caller = callerOf(request)
  if (rule === true && caller.role !== 'administrator')
    throw new SynclineError(
      'SYNC_AUTH_FORBIDDEN',
      'to make a choice the rule changes a task, which needs an administrator',
    )
  return caller
}
