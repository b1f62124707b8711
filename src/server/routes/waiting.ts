import { Type } from 'typebox'
import { noteTold, redrive, reviveBlocked, TOLD_MAX, toldTo } from '../../store/index.ts'
import { peerOf } from '../access.ts'
import { type ExchangeDeps, linkOf, type Routes } from '../exchange.ts'
import { answer, closed, count, flag, nullable, recordId, resourceName, text, time } from '../schemas.ts'

const dot = closed(
  { origin: Type.String({ maxLength: 100 }), clock: Type.Integer({ minimum: 1 }) },
  { title: 'Dot', description: 'What names a version.' },
)
const why = {
  resource: resourceName,
  id: recordId,
  code: Type.String({ maxLength: 63, description: 'Code of the reason.' }),
  reason: text('In words, mostly those of the database.', { maxLength: 10_000 }),
}
const told = {
  counts: closed(
    { quarantined: count('That wait.'), discarded: count('That a person gave up.') },
    { title: 'ToldCounts', description: 'Of all, also of those that are not listed.' },
  ),
  quarantined: Type.Array(
    closed(
      {
        ...why,
        version: nullable(dot),
        waitsFor: nullable(
          closed(
            { resource: Type.String({ maxLength: 63 }), id: nullable(Type.String({ maxLength: 640 })) },
            { title: 'AwaitedRecord', description: 'The record that must come first.' },
          ),
        ),
        dependants: count('Records that wait for this one.'),
        attempts: count('So far.'),
        firstAt: time('First attempt.'),
        lastAt: time('Last attempt.'),
        retryAt: nullable(time('Next attempt.')),
      },
      { title: 'WaitingRecord', description: 'A record of the other side that waits here.' },
    ),
    { maxItems: TOLD_MAX },
  ),
  discarded: Type.Array(
    closed(
      {
        ...why,
        version: dot,
        by: text('Who gave it up.', { maxLength: 200 }),
        because: nullable(Type.String({ maxLength: 10_000 }), { description: 'Why, in that person’s words.' }),
        at: time('When.'),
      },
      { title: 'DiscardedRecord', description: 'A record of the other side that a person here gave up.' },
    ),
    { maxItems: TOLD_MAX },
  ),
}

/** PUT /sync/v1/quarantine: at the end of a run both sides tell each other what waits of the other's records, and what was given up. */
export const waitingRoutes =
  (deps: ExchangeDeps): Routes =>
  async (app) => {
    const { store, limits } = deps
    const schema = {
      operationId: 'tellWaiting',
      tags: ['sync'],
      summary: 'Tell what waits, and hear it',
      description:
        'At the end of a run: what waits at the peer of the records of this site, in the place of what it told before. The answer is the same the other way round. After a complete run deletions of the peer that can never go through here, as rows it did not know of refer to the record, lose: the record lives on as a new version.',
      body: closed({
        ...told,
        complete: flag('The run did all that the peer has to do with this site, and nothing of it failed.'),
      }),
      response: {
        200: answer(
          closed(
            { ...told, revived: count('Records whose deletion lost just now: there is something to pull.') },
            { title: 'Told', description: 'What waits at one side of the records of the other.' },
          ),
        ),
      },
    }
    // A thousand reasons in the words of a database are more than other bodies may have.
    const bodyLimit = limits.bodyBytesMax
    app.put('/quarantine', { schema, config: { access: 'peer' }, bodyLimit }, async (request) => {
      const { complete, ...theirs } = request.body
      const link = await linkOf(deps, request)
      await noteTold(store.db, peerOf(request).id, theirs)
      // What may have become possible since: the table or the grant changed, a transaction let go of a row.
      await redrive(store, link.self, null, limits)
      const revived = complete ? await reviveBlocked(store, link, 'push', null, limits) : []
      if (revived.length > 0) await redrive(store, link.self, null, limits)
      return { ...(await toldTo(store.db, link.peer.id)), revived: revived.length }
    })
  }
