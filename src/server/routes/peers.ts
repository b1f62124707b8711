import { randomUUID } from 'node:crypto'
import { type Static, Type } from 'typebox'
import {
  createPeer,
  findPeer,
  listPeers,
  type Peer,
  pausePeer,
  removePeer,
  resumePeer,
  rotatePeer,
  updatePeer,
} from '../../store/index.ts'
import { SynclineError, VERDICTS } from '../../sync/index.ts'
import type { ServerDeps } from '../deps.ts'
import { matchedRevision, revisionTag } from '../etag.ts'
import type { Routes } from '../exchange.ts'
import {
  answer,
  closed,
  count,
  flag,
  ifMatch,
  nullable,
  pageOf,
  pageQuery,
  peerRef,
  resourceName,
  text,
  time,
  uuid,
  words,
} from '../schemas.ts'
import { preview } from './previews.ts'

export const peer = closed(
  {
    id: Type.Integer(),
    name: text('Here; may change.'),
    uuid: uuid('Of the site; never changes.'),
    kind: text('What the peer runs.'),
    url: nullable(Type.String(), { description: 'Where this site reaches it; null when it does all the connecting.' }),
    hasToken: flag('This site has something to show there.'),
    proxyUrl: nullable(Type.String()),
    hasProxyCredentials: Type.Boolean(),
    caPem: nullable(Type.String(), { description: 'Authorities trusted for this peer.' }),
    clientCertPem: nullable(Type.String(), { description: 'Certificate that this site shows there.' }),
    hasClientKey: Type.Boolean(),
    paused: flag('Nothing is exchanged until it is resumed.'),
    logId: nullable(Type.String(), { description: 'Log of that site when it was last heard.' }),
    clockOffsetMs: nullable(Type.Integer(), { description: 'Its clock minus ours.' }),
    lastSeenAt: nullable(time('When it was last heard.')),
    failures: count('Failed attempts in a row.'),
    retryAt: nullable(time('When it is tried again.')),
    revision: Type.Integer({ description: 'Goes up with every change of the settings; the ETag.' }),
    createdAt: time('When it was registered.'),
  },
  { title: 'Peer', description: 'Another site as registered here. Secrets are never shown.' },
)

const settings = {
  url: Type.Optional(nullable(Type.String({ maxLength: 2000 }), { description: 'http or https.' })),
  token: Type.Optional(
    nullable(Type.String({ maxLength: 500 }), { description: 'What this site shows there. Kept sealed.' }),
  ),
  proxyUrl: Type.Optional(
    nullable(Type.String({ maxLength: 2000 }), { description: 'Credentials in it are kept sealed.' }),
  ),
  proxyCredentials: Type.Optional(nullable(closed({ username: Type.String(), password: Type.String() }))),
  caPem: Type.Optional(nullable(Type.String())),
  clientCertPem: Type.Optional(nullable(Type.String())),
  clientKeyPem: Type.Optional(nullable(Type.String(), { description: 'Kept sealed.' })),
}
const name = Type.String({
  minLength: 1,
  maxLength: 63,
  description: 'Name of the peer here.',
  examples: ['field-laptop'],
})
const params = closed({ peer: peerRef })

/** /api/v1/peers: who this site exchanges with. */
export const peerRoutes =
  ({ store, key, actions, observe }: ServerDeps): Routes =>
  async (app) => {
    const list = {
      operationId: 'listPeers',
      tags: ['peers'],
      summary: 'List peers',
      querystring: closed({ ...pageQuery, paused: Type.Optional(Type.Boolean()), kind: Type.Optional(Type.String()) }),
      response: { 200: answer(pageOf(peer, 'PeerPage')) },
    }
    app.get('/peers', { schema: list, config: { access: 'viewer' } }, async (request) => {
      const { cursor, ...query } = request.query
      const { items, next } = await listPeers(store.db, { ...query, before: cursor })
      return { items: items.map(view), next }
    })

    const add = {
      operationId: 'addPeer',
      tags: ['peers'],
      summary: 'Register a peer by hand',
      description:
        'For peers without a pairing code, such as scripts that push by curl: these need no uuid, one is made for them. Issue a token for it with POST /tokens.',
      body: closed({ name, uuid: Type.Optional(uuid('Of the site; made when absent.')), ...settings }),
      response: { 201: answer(peer) },
    }
    app.post('/peers', { schema: add, config: { access: 'administrator' } }, async (request, reply) => {
      const made = await createPeer(store.db, key, { ...request.body, uuid: request.body.uuid ?? randomUUID() })
      observe.events.peerPaired({ peer: made.name, uuid: made.uuid, by: 'hand' })
      reply.code(201).headers({ etag: revisionTag(made), location: `/api/v1/peers/${made.name}` })
      return view(made)
    })

    const join = {
      operationId: 'joinPeer',
      tags: ['peers'],
      summary: 'Join a site by its pairing code',
      description: 'Redeems the code at the site that made it and registers both sites with each other.',
      body: closed({
        code: Type.String({
          minLength: 1,
          maxLength: 8192,
          description: 'One line, as `syncline peer invite` printed it.',
        }),
        name: Type.Optional(name),
      }),
      response: { 201: answer(peer) },
    }
    app.post('/peers/join', { schema: join, config: { access: 'administrator' } }, async (request, reply) => {
      const joined = await actions.joinPeer(request.body)
      reply.code(201).headers({ etag: revisionTag(joined), location: `/api/v1/peers/${joined.name}` })
      return view(joined)
    })

    const read = {
      operationId: 'readPeer',
      tags: ['peers'],
      summary: 'Read a peer',
      params,
      response: { 200: answer(peer) },
    }
    app.get('/peers/:peer', { schema: read, config: { access: 'viewer' } }, async (request, reply) => {
      const found = await findPeer(store.db, request.params.peer)
      reply.header('etag', revisionTag(found))
      return view(found)
    })

    const change = {
      operationId: 'changePeer',
      tags: ['peers'],
      summary: 'Change a peer',
      description: 'Absent settings stay as they are, null takes them away.',
      params,
      headers: ifMatch,
      body: closed({ name: Type.Optional(name), ...settings }),
      response: { 200: answer(peer) },
    }
    app.patch('/peers/:peer', { schema: change, config: { access: 'administrator' } }, async (request, reply) => {
      const { id } = await findPeer(store.db, request.params.peer)
      const changed = await updatePeer(store.db, key, id, request.body, matchedRevision(request.headers['if-match']))
      reply.header('etag', revisionTag(changed))
      return view(changed)
    })

    const remove = {
      operationId: 'removePeer',
      tags: ['peers'],
      summary: 'Remove a peer',
      description: 'With its tasks, grants, tokens and what waits in quarantine. Records that it gave stay.',
      params,
      headers: ifMatch,
      'x-answers': { 204: { description: 'Removed.' } },
    }
    app.delete('/peers/:peer', { schema: remove, config: { access: 'administrator' } }, async (request, reply) => {
      const { id } = await findPeer(store.db, request.params.peer)
      await removePeer(store.db, id, matchedRevision(request.headers['if-match']))
      actions.scheduleChanged()
      return reply.code(204).send()
    })

    const pause = {
      operationId: 'pausePeer',
      tags: ['peers'],
      summary: 'Pause a peer',
      description: 'Stops all exchange with it, in both directions.',
      params,
      response: { 200: answer(peer) },
    }
    app.post('/peers/:peer/pause', { schema: pause, config: { access: 'operator' } }, async (request, reply) => {
      const { id } = await findPeer(store.db, request.params.peer)
      const paused = await pausePeer(store.db, id)
      actions.scheduleChanged()
      reply.header('etag', revisionTag(paused))
      return view(paused)
    })

    const resume = {
      operationId: 'resumePeer',
      tags: ['peers'],
      summary: 'Resume a peer',
      description: 'Ends a pause; earlier failures no longer hold it back.',
      params,
      response: { 200: answer(peer) },
    }
    app.post('/peers/:peer/resume', { schema: resume, config: { access: 'operator' } }, async (request, reply) => {
      const { id } = await findPeer(store.db, request.params.peer)
      const resumed = await resumePeer(store.db, id)
      actions.scheduleChanged()
      reply.header('etag', revisionTag(resumed))
      return view(resumed)
    })

    const rotate = {
      operationId: 'rotatePeerToken',
      tags: ['peers'],
      summary: 'Give a peer a new token',
      description:
        'The earlier ones stay valid for a while, so that the peer is not shut out. The new one is shown once.',
      params,
      body: closed({
        graceSeconds: Type.Optional(
          Type.Integer({
            minimum: 0,
            maximum: 2_592_000,
            default: 0,
            description: 'How long earlier tokens stay valid.',
          }),
        ),
      }),
      response: {
        200: answer(
          closed(
            { id: Type.Integer(), token: text('Shown once.') },
            { title: 'IssuedToken', description: 'A token as it is shown, once.' },
          ),
        ),
      },
    }
    app.post('/peers/:peer/rotate', { schema: rotate, config: { access: 'administrator' } }, async (request) => {
      const { id } = await findPeer(store.db, request.params.peer)
      return rotatePeer(store.db, id, request.body.graceSeconds)
    })

    const verify = {
      operationId: 'verifyPeer',
      tags: ['peers'],
      summary: 'Compare with a peer',
      description:
        'Proves that both sites hold the same, or names what differs. What is on its way makes a difference too: compare after a run.',
      params,
      body: closed({
        resources: Type.Optional(
          Type.Array(resourceName, { minItems: 1, description: 'Absent for every resource with a task.' }),
        ),
        deep: Type.Optional(
          Type.Boolean({
            default: false,
            description: 'Compares the values of the rows too, and finds what was changed behind the triggers.',
          }),
        ),
        repair: Type.Optional(
          Type.Boolean({
            default: false,
            description:
              'Exchanges what differs anew, and nothing else, as a run that can be taken back. The brakes weigh all of it before anything is written.',
          }),
        ),
        preview: Type.Optional(
          Type.Boolean({ default: false, description: 'With `repair`: only tells what it would do.' }),
        ),
      }),
      response: { 200: answer(verified) },
    }
    app.post(
      '/peers/:peer/verify',
      { schema: verify, config: { access: 'operator', endless: true } },
      async (request) => {
        const { name } = await findPeer(store.db, request.params.peer)
        const { resources, deep = false, repair = false, preview: previewed = false } = request.body
        if (previewed && !repair)
          throw new SynclineError('SYNC_REQUEST_INVALID', 'a comparison writes nothing; preview goes with repair')
        const report = await actions.verifyPeer({ peer: name, resources, deep, repair, preview: previewed })
        const found = report.resources.map(({ detail, differences, complete: _, ...each }) => ({
          ...each,
          differences: differences.map(({ id, what }) => ({ id, what })),
          ...(detail !== undefined && { detail }),
        }))
        return { peer: report.peer, resources: found, repair: report.repair }
      },
    )
  }

const verified = closed(
  {
    peer: text('Name.'),
    resources: Type.Array(
      closed(
        {
          resource: resourceName,
          equal: flag('Every digest agreed.'),
          verdict: words(VERDICTS, { description: 'waiting: what differs is known to wait.' }),
          checked: count('Living records that were compared, of the side that has more.'),
          differing: Type.Array(Type.String(), {
            description: 'Ids of records that differ without a known reason, as far as they were looked for.',
          }),
          differences: Type.Array(
            closed(
              {
                id: Type.String(),
                what: text('missing, another version, other values or a row behind the triggers; and where.'),
              },
              { title: 'RecordDifference', description: 'A record that differs.' },
            ),
          ),
          detail: Type.Optional(text('What else there is to say.')),
        },
        { title: 'VerifiedResource', description: 'What the comparison of a resource found.' },
      ),
    ),
    repair: nullable(
      closed(
        {
          runId: nullable(Type.String(), { description: 'Run that can be taken back; null where nothing differed.' }),
          adopted: count('Records that were changed behind the triggers of a side, and are its changes now.'),
          applied: count('Records that were exchanged and applied.'),
          preview: nullable(preview, { description: 'What it would do, where only that was asked for.' }),
        },
        { title: 'Repair', description: 'What was exchanged anew.' },
      ),
    ),
  },
  { title: 'Verification', description: 'A comparison with a peer.' },
)

/** The site's own number for the peer's origin is of no use to anybody else. */
function view({ siteId: _, ...rest }: Peer): Static<typeof peer> {
  return rest
}

export { view as peerView }
