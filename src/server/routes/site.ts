import { createHash } from 'node:crypto'
import { setTimeout as sleep } from 'node:timers/promises'
import { Type } from 'typebox'
import {
  countTold,
  findTaskFor,
  type Grant,
  horizon,
  keyFingerprint,
  listGrants,
  loadResources,
  measureStore,
  peerSchemas,
  readSelf,
  refreshAltered,
  renameSite,
  serverVersion,
} from '../../store/index.ts'
import { peerOf } from '../access.ts'
import { ENCODINGS } from '../body.ts'
import type { ServerDeps } from '../deps.ts'
import { checkMatch, contentTag } from '../etag.ts'
import type { ExchangeDeps, Routes } from '../exchange.ts'
import {
  answer,
  closed,
  count,
  flag,
  ifMatch,
  linkPolicy,
  nullable,
  resourceName,
  text,
  time,
  uuid,
  words,
} from '../schemas.ts'

/** A table that is large, or in use, goes on being registered while the peer is answered with what was known of it. */
const REFRESH_MS = 5_000

/** Forms of the exchange that this program speaks. */
const PROTOCOLS = [1]

const identity = {
  uuid: uuid('Never changes.'),
  name: text('Of the site.'),
  logId: text('Log that this site writes now; a new one begins when its database was restored or copied.'),
  time: time('Clock of this site.'),
  version: text('Of the program.'),
  publicKey: text('Ed25519, 32 bytes in base64url.'),
}

const seenByPeer = closed(
  {
    ...identity,
    mark: text('Made anew at every start and never shown again: who meets a former one has met a copy of the site.'),
    you: text('Name that the peer has here.'),
    protocols: Type.Array(Type.Integer(), { description: 'Forms of the exchange.' }),
    limits: closed({
      bodyBytesMax: count('Bytes of one body.'),
      recordBytesMax: count('Bytes of one record.'),
      batchRowsMax: count('Records in one batch.'),
    }),
    resources: Type.Array(
      closed(
        {
          name: resourceName,
          fingerprint: text('Changes with any column that travels.'),
          yours: nullable(Type.String(), {
            description: 'Fingerprint of the peer’s own resource, as it last told its columns; null when it never did.',
          }),
          pull: flag('The peer may pull it.'),
          push: flag('The peer may push it.'),
          terms: text(
            'Changes with what the peer may push, and with the columns: what was refused may be offered again.',
          ),
          policy: nullable(linkPolicy, {
            description: 'How this site settles what it gets from the peer; null when it takes nothing.',
          }),
          policyOf: nullable(words(['task', 'grant']), { description: 'Where that policy is set.' }),
        },
        { title: 'OfferedResource', description: 'A resource that the peer may pull or push.' },
      ),
    ),
    waiting: closed(
      {
        quarantined: count('Records of the peer that wait here.'),
        discarded: count('Those that a person here gave up.'),
      },
      { title: 'ToldCounts', description: 'Of all, also of those that are not listed.' },
    ),
    heldMs: Type.Number({
      minimum: 0,
      description: 'How long an open transaction has held back what this site sends; 0 when none does.',
    }),
  },
  { title: 'PeerView', description: 'A site as a peer sees it.' },
)

/** GET /sync/v1/site: who this is, and what the peer may do here. */
export const peerSiteRoutes =
  ({ store, version, limits }: ExchangeDeps): Routes =>
  async (app) => {
    const schema = {
      operationId: 'greetSite',
      tags: ['sync'],
      summary: 'Ask who this is',
      description: 'The first request of every run: identity, clock, and what the peer may pull or push.',
      response: { 200: answer(seenByPeer) },
    }
    app.get('/site', { schema, config: { access: 'peer' } }, async (request, reply) => {
      const { id: peerId, name: you } = peerOf(request)
      const look = () =>
        Promise.all([
          readSelf(store.db),
          listGrants(store.db, peerId),
          peerSchemas(store.db, peerId),
          loadResources(store.db),
          countTold(store.db, peerId),
          horizon(store.db),
        ])
      // What a peer compares with, or takes for missing here, is the table as it is now.
      const refreshing = Promise.race([refreshAltered(store), sleep(REFRESH_MS, undefined, { ref: false })])
      const [seen, altered] = await Promise.all([look(), refreshing])
      const fresh = altered === undefined || altered.length === 0 ? seen : await look()
      const [{ uuid, name, logId, mark, publicKey }, grants, told, attached, waiting, { ageSeconds }] = fresh
      const may = (resource: string, direction: string) =>
        grants.some((grant) => grant.resource === resource && grant.direction === direction)
      const resources = attached
        .map((resource) => ({
          name: resource.name,
          fingerprint: resource.fingerprint,
          yours: told.get(resource.name)?.fingerprint ?? null,
          pull: may(resource.name, 'pull'),
          push: may(resource.name, 'push'),
          terms: termsOf(
            resource.fingerprint,
            grants.filter((grant) => grant.resource === resource.name),
          ),
        }))
        .filter(({ pull, push }) => pull || push)
      const settled = await Promise.all(
        resources.map(async (each) => ({
          ...each,
          ...(await policyWith(store, peerId, each.name, grants)),
        })),
      )
      // Codings that a push may come in (RFC 9110, 12.5.3).
      reply.header('accept-encoding', ENCODINGS)
      return {
        ...{ uuid, name, logId, mark, time: new Date().toISOString(), version, publicKey, you, protocols: PROTOCOLS },
        limits: {
          bodyBytesMax: limits.bodyBytesMax,
          recordBytesMax: limits.recordBytesMax,
          batchRowsMax: limits.batchRowsMax,
        },
        resources: settled,
        waiting,
        heldMs: ageSeconds * 1000,
      }
    })
  }

/** The policy of our own task with the peer comes before that of its grant. */
async function policyWith(store: ExchangeDeps['store'], peerId: number, resource: string, grants: readonly Grant[]) {
  const task = await findTaskFor(store.db, peerId, resource)
  const grant = grants.find((each) => each.resource === resource && each.direction === 'push')
  const [link, policyOf] = task !== null && task.mode !== 'push' ? [task, 'task' as const] : [grant, 'grant' as const]
  if (link === undefined) return { policy: null, policyOf: null }
  return { policy: { onConflict: link.onConflict, master: link.master, fields: link.fields }, policyOf }
}

/** A mark of what decides whether a pushed record is taken, without telling what it is. */
function termsOf(fingerprint: string, grants: readonly Grant[]): string {
  const push = grants.find(({ direction }) => direction === 'push')
  const text = JSON.stringify([fingerprint, push === undefined ? null : [push.filter, push.columns]])
  return createHash('sha256').update(text).digest('base64url').slice(0, 22)
}

const site = closed(
  {
    ...identity,
    origin: text('Under which this site writes: its UUID, after a restore with a slash and its log.'),
    fingerprint: text('SHA-256 of the public key in base64url; pairing codes carry it.'),
    url: text('Where peers reach this site.'),
    createdAt: time('First start.'),
    database: closed({ kind: words(['postgresql', 'embedded']), version: text('Of the database server.') }),
    horizon: closed(
      {
        ageMs: Type.Number({
          minimum: 0,
          description: 'How long the oldest writing transaction has been open: it holds all changes back.',
        }),
        holder: nullable(Type.String(), { description: 'Who holds it open.' }),
      },
      { title: 'Horizon', description: 'What changes wait for before they can be sent.' },
    ),
    waiting: closed({ conflicts: count('For a person.'), quarantine: count('Records that could not be applied.') }),
  },
  { title: 'Site', description: 'This site.' },
)

/** /api/v1/site: this site and how it is. */
export const siteRoutes =
  (deps: ServerDeps): Routes =>
  async (app) => {
    const { store, version, publicUrl } = deps
    const get = { operationId: 'readSite', tags: ['site'], summary: 'Read the site', response: { 200: answer(site) } }
    app.get('/site', { schema: get, config: { access: 'viewer' } }, async (_request, reply) => {
      const { name } = await readSelf(store.db)
      return reply.header('etag', contentTag(name)).send(await view())
    })

    const patch = {
      operationId: 'renameSite',
      tags: ['site'],
      summary: 'Rename the site',
      description: 'The name stays when the site is started with another one.',
      headers: ifMatch,
      body: closed({ name: Type.String({ minLength: 1, maxLength: 100, description: 'New name.' }) }),
      response: { 200: answer(site) },
    }
    app.patch('/site', { schema: patch, config: { access: 'administrator' } }, async (request, reply) => {
      const before = await readSelf(store.db)
      checkMatch(request.headers['if-match'], contentTag(before.name), 'the site')
      const { name } = await renameSite(store.db, request.body.name)
      return reply.header('etag', contentTag(name)).send(await view())
    })

    async function view() {
      const { uuid, name, logId, origin, publicKey, createdAt } = await readSelf(store.db)
      const { quarantine, conflictsOpen } = await measureStore(store.db)
      const { ageSeconds, holder } = await horizon(store.db)
      return {
        ...{ uuid, name, logId, origin, publicKey, version, createdAt },
        fingerprint: keyFingerprint(publicKey),
        url: publicUrl(),
        time: new Date().toISOString(),
        database: { kind: store.server ? 'postgresql' : 'embedded', version: await serverVersion(store.db) },
        horizon: { ageMs: ageSeconds * 1000, holder },
        waiting: { conflicts: conflictsOpen, quarantine: quarantine.reduce((sum, each) => sum + each.count, 0) },
      } as const
    }
  }
