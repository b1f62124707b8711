import { type Static, Type } from 'typebox'
import { type Brake, findBrake, listBrakes, releaseBrake } from '../../store/index.ts'
import { callerOf } from '../access.ts'
import type { ServerDeps } from '../deps.ts'
import type { Routes } from '../exchange.ts'
import { answer, closed, count, nullable, pageOf, pageQuery, peerRef, text, time, words } from '../schemas.ts'

const brake = closed(
  {
    id: Type.String(),
    token: text('What a person names to let it go on.'),
    peer: text('Name of the peer.'),
    resource: nullable(Type.String(), { description: 'Null where the peer as a whole is stopped.' }),
    direction: words(['pull', 'push', 'receive', 'peer', 'repair'], {
      description:
        'What was stopped: pulling, pushing, taking what the peer pushes, every exchange with the peer (two sites of one UUID), or a repair.',
    }),
    rules: Type.Array(words(['deletes', 'changes', 'empty', 'canary', 'clone']), { description: 'What stopped it.' }),
    reason: text('In words for a person, with the numbers.'),
    facts: closed(
      {
        deletes: count('Records that would have been deleted.'),
        changes: count('Records that would have got other values.'),
        living: count('Records that live where it would have been written.'),
        pushed: Type.Optional(
          closed(
            { deletes: count('Records that would have been deleted.'), changes: count('Records with other values.') },
            { title: 'BrakeFactsPushed', description: 'What of a repair would have been done at the peer.' },
          ),
        ),
        deep: Type.Optional(Type.Boolean({ description: 'The repair compared the values too.' })),
        announced: Type.Optional(count('Deletions that a pushing peer said to have still to send.')),
        samples: Type.Array(Type.String(), { description: 'Ids of some of them.' }),
      },
      { title: 'BrakeFacts', description: 'What was counted before anything was written.' },
    ),
    runId: nullable(Type.String(), { description: 'Run that was stopped last.' }),
    openedAt: time('When it was stopped first.'),
    seenAt: time('When it was stopped last.'),
    times: count('How often it was stopped with these numbers.'),
    releasedAt: nullable(time('When a person let it go on.')),
    releasedBy: nullable(Type.String(), { description: 'Who did.' }),
    comment: nullable(Type.String(), { description: 'And why.' }),
    usedAt: nullable(time('When the release was used.')),
    endedAt: nullable(time('When it was over.')),
    ending: nullable(words(['used', 'changed', 'cleared', 'expired']), {
      description:
        'used: a released run went on; changed: stopped again with other numbers; cleared: nothing stops it any more; expired: released, but not used in time.',
    }),
  },
  { title: 'Brake', description: 'Something that was stopped before it wrote, and what became of it.' },
)
const params = closed({ brake: Type.String({ minLength: 1, maxLength: 40, description: 'Token of the brake.' }) })

/** /api/v1/brakes: what was stopped before it wrote, and letting it go on. */
export const brakeRoutes =
  ({ store }: ServerDeps): Routes =>
  async (app) => {
    const list = {
      operationId: 'listBrakes',
      tags: ['runs'],
      summary: 'List brakes',
      querystring: closed({
        ...pageQuery,
        peer: Type.Optional(peerRef),
        open: Type.Optional(Type.Boolean({ description: 'True for those that wait for a person.' })),
      }),
      response: { 200: answer(pageOf(brake, 'BrakePage')) },
    }
    app.get('/brakes', { schema: list, config: { access: 'viewer' } }, async (request) => {
      const { cursor, ...query } = request.query
      const { items, next } = await listBrakes(store.db, { ...query, before: cursor })
      return { items: items.map(view), next }
    })

    const read = {
      operationId: 'readBrake',
      tags: ['runs'],
      summary: 'Read a brake',
      params,
      response: { 200: answer(brake) },
    }
    app.get('/brakes/:brake', { schema: read, config: { access: 'viewer' } }, async (request) =>
      view(await findBrake(store.db, request.params.brake)),
    )

    const release = {
      operationId: 'releaseBrake',
      tags: ['runs'],
      summary: 'Release a brake',
      description:
        'Lets what was stopped go on, once, under the name of the caller: the next run with the peer, or for an hour what the peer pushes. It covers the numbers that the brake shows and what is allowed anyway.',
      params,
      body: closed({ comment: Type.Optional(Type.String({ minLength: 1, maxLength: 2000, description: 'Why.' })) }),
      response: { 200: answer(brake) },
    }
    app.post('/brakes/:brake/release', { schema: release, config: { access: 'operator' } }, async (request) => {
      const { comment } = request.body
      const { token } = await findBrake(store.db, request.params.brake)
      return view(await releaseBrake(store.db, { token, by: callerOf(request).name, comment }))
    })
  }

function view({ peerId: _, facts, rules, ...rest }: Brake): Static<typeof brake> {
  return { ...rest, rules: [...rules], facts: { ...facts, samples: [...facts.samples] } }
}
