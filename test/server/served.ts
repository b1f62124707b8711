import { randomUUID } from 'node:crypto'
import type { FastifyInstance } from 'fastify'
import type { Test } from 'tap'
import { createObserve } from '../../src/observe/index.ts'
import { buildApp, type ServerActions, type ServerDeps } from '../../src/server/index.ts'
import {
  changeFolder,
  createFolderPeer,
  createManaged,
  createPeer,
  issueToken,
  type NewPeer,
  type Peer,
  type Role,
  readFolder,
  setGrant,
  trustHostKeys,
} from '../../src/store/index.ts'
import { folderSettings, SynclineError } from '../../src/sync/index.ts'
import type { Site } from '../support/sites.ts'
import { type Contract, contractOf } from './contract.ts'

export const PUBLIC_URL = 'https://hub.example.org'

export type Question = {
  readonly token?: string
  readonly body?: unknown
  readonly headers?: Readonly<Record<string, string>>
}
export type Reply = {
  readonly status: number
  readonly headers: Readonly<Record<string, unknown>>
  readonly text: string
  readonly bytes: Buffer
  /** The body as JSON; what a test reads of it, it asserts. */
  // biome-ignore lint/suspicious/noExplicitAny: tests look into answers of every shape
  readonly json: any
}

/** A site with its server, as a test talks to it. */
export type Served = {
  readonly site: Site
  readonly app: FastifyInstance
  readonly contract: Contract
  readonly tokens: Readonly<Record<Exclude<Role, 'peer'>, string>>
  /** What other rooms were asked to do. */
  readonly asked: string[]
  /** Lines of the log, parsed. */
  readonly lines: Record<string, unknown>[]
  /** Asks and holds the answer against the document. A body that is no text or buffer is sent as JSON. */
  readonly ask: (t: Test, question: string, more?: Question) => Promise<Reply>
}

export type ServedPeer = { readonly peer: Peer; readonly token: string }

export const LIMITS: ServerDeps['limits'] = {
  bodyBytesMax: 8_388_608,
  recordBytesMax: 1_048_576,
  depthMax: 32,
  batchRowsMax: 1_000,
  batchBytesMax: 1_048_576,
  requestTimeoutMs: 20_000,
  clockAheadMaxMs: 300_000,
  refusalsPerMinuteMax: 10_000,
}

export async function serve(t: Test, site: Site, overrides: Partial<ServerDeps> = {}): Promise<Served> {
  const asked: string[] = []
  const lines: Record<string, unknown>[] = []
  const observe = createObserve({
    level: 'debug',
    pretty: false,
    destination: { write: (line) => void lines.push(JSON.parse(line) as Record<string, unknown>) },
  })
  const app = await buildApp({
    store: site.store,
    key: site.key,
    self: async () => site.self,
    observe,
    limits: LIMITS,
    publicUrl: () => PUBLIC_URL,
    version: '1.2.3',
    trustProxy: [],
    actions: actionsOf(site, asked),
    ...overrides,
  })
  t.teardown(() => app.close())
  await app.ready()
  const tokens = { administrator: '', operator: '', viewer: '' }
  for (const role of ['administrator', 'operator', 'viewer'] as const) {
    tokens[role] = (await issueToken(site.store.db, { name: `the ${role}`, role })).token
  }
  const contract = contractOf(app.swagger())
  const ask: Served['ask'] = async (t, question, { token, body, headers = {} } = {}) => {
    const [method = '', url = ''] = question.split(' ', 2)
    const bare = body === undefined || typeof body === 'string' || Buffer.isBuffer(body)
    const response = await app.inject({
      method: method as 'GET',
      url,
      headers: {
        ...(token !== undefined && { authorization: `Bearer ${token}` }),
        ...(!bare && { 'content-type': 'application/json' }),
        ...headers,
      },
      ...(body !== undefined && { payload: bare ? (body as string | Buffer) : JSON.stringify(body) }),
    })
    const type = String(response.headers['content-type'] ?? '')
    const status = response.statusCode
    const coded = response.headers['content-encoding'] !== undefined
    contract.check(t, method, url, { status, type, body: coded ? '' : response.body })
    const text = response.body
    const json = !coded && /json/.test(type) && !/ndjson/.test(type) ? JSON.parse(text) : undefined
    return { status, headers: response.headers, text, bytes: response.rawPayload, json }
  }
  return { site, app, contract, tokens, asked, lines, ask }
}

/** A peer with a token, which may pull and push what is named. */
export async function addPeer(
  { site }: Served,
  settings: NewPeer,
  resources: readonly string[] = [],
): Promise<ServedPeer> {
  const { db } = site.store
  const peer = await createPeer(db, site.key, settings)
  const { token } = await issueToken(db, { name: peer.name, role: 'peer', peerId: peer.id })
  for (const resource of resources) {
    for (const direction of ['pull', 'push']) await setGrant(db, { peerId: peer.id, resource, direction })
  }
  return { peer, token }
}

export function basic(name: string, token: string): string {
  return `Basic ${Buffer.from(`${name}:${token}`).toString('base64')}`
}

const SHOWN = { port: 22, type: 'ssh-ed25519', key: 'AAAA', fingerprint: `SHA256:${'x'.repeat(43)}` }

function folderActionsOf(site: Site, note: (name: string, request?: unknown) => void): ServerActions['folders'] {
  const { db } = site.store
  return {
    add: async ({ name, uuid = randomUUID(), settings }) => {
      note('addFolderPeer', name)
      return createFolderPeer(db, site.key, { name, uuid, settings: folderSettings(settings) })
    },
    change: async ({ peer, settings, revision }) => {
      note('changeFolder', { peer: peer.name, settings })
      return changeFolder(db, peer, folderSettings({ ...(await readFolder(db, peer)), ...settings }), revision)
    },
    dump: async ({ peer, resources }) => {
      note('dumpFolder', { peer: peer.name, resources })
      return { files: 2, records: 30 }
    },
  }
}

function actionsOf(site: Site, asked: string[]): ServerActions {
  const note = (name: string, request?: unknown) =>
    void asked.push(request === undefined ? name : `${name} ${JSON.stringify(request)}`)
  return {
    jobs: async () => ({
      schema: () => ({ title: 'Job' }),
      compare: async (jobs, prune) => {
        note('compareJobs', { jobs, prune })
        return { faults: [{ path: '/0', message: 'is wrong' }], changes: [] }
      },
      apply: async (jobs, prune) => {
        note('applyJobs', { jobs, prune })
        const faults = jobs.length === 0 ? [{ path: '', message: 'is empty' }] : []
        return { faults, changes: [{ name: 'nightly', does: 'keep' }] }
      },
      run: async (name, wish) => {
        note('runJob', { name, ...wish })
        return { runId: '1', does: 'begin' }
      },
      stop: async (name, run, caller) => {
        note('stopJob', { name, run, caller })
        return ['1']
      },
      plan: async (name) => {
        note('planJob', name)
        const step = {
          name: 'copy',
          kind: 'command',
          stage: 'steps',
          plan: { summary: 'would run' },
          failure: null,
        } as const
        return { job: name, dryRun: false, gates: [], leases: [], steps: [step] }
      },
    }),
    syncNow: async (request) => {
      note('syncNow', request)
      return { runs: [{ peer: request.peer ?? 'every', runId: '1' }] }
    },
    joinPeer: async (request) => {
      note('joinPeer', request)
      const uuid = '11111111-2222-4333-8444-555555555555'
      return createPeer(site.store.db, site.key, {
        name: request.name ?? 'joined',
        uuid,
        url: 'http://joined.example.org',
      })
    },
    folders: folderActionsOf(site, note),
    testPeer: async (peer) => {
      note('testPeer', peer.name)
      const folder =
        peer.kind === 'folder' ? { files: 1, some: ['in/a.xml'], reads: 's3xml from in/*.xml', writes: null } : null
      return { clockOffsetMs: 3, resources: [{ name: 'place', pull: true, push: false }], folder }
    },
    addEdenPeer: async (request) => {
      note('addEdenPeer', request)
      const uuid = request.uuid ?? '11111111-2222-4333-8444-777777777777'
      return createPeer(site.store.db, site.key, { ...request, uuid, kind: 'eden' })
    },
    fetchEdenFile: async ({ peer, url }) => {
      note('fetchEdenFile', { peer: peer.name, url })
      if (url.includes('missing')) throw new SynclineError('SYNC_PEER_REFUSED', 'it answered 404')
      return Buffer.from(`at ${url}`)
    },
    followDataset: async ({ peer, ...wish }) => {
      note('followDataset', { peer: peer.name, ...wish })
      return { code: wish.code, name: 'Relief', archive: null, made: ['city'], kept: [], without: ['org_sector'] }
    },
    createFromEden: async ({ peer, tables }) => {
      note('createFromEden', { peer: peer.name, tables })
      const schema = { type: 'object', properties: { id: { type: 'string' }, name: { type: 'string' } } }
      const made = []
      for (const name of tables)
        made.push({
          resource: await createManaged(site.store, { name, schema }),
          without: ['location_id (reference gis_location)'],
        })
      return made
    },
    scanHost: async (host) => {
      note('scanHost', host)
      return [{ ...SHOWN, host: host.host, trusted: false }]
    },
    trustHost: async (host, fingerprints, by) => {
      note('trustHost', { host, fingerprints, by })
      const keys = [{ ...SHOWN, host: host.host }]
      await trustHostKeys(site.store.db, keys, by)
      return keys.map((key) => ({ ...key, trusted: true }))
    },
    peerPolicy: async ({ peer }) =>
      peer === 'stubborn' ? { onConflict: 'mine', master: null, fields: {} } : peer === 'away' ? 'unknown' : null,
    askRecord: async ({ peer, resource, id }) => {
      note('askRecord', { peer: peer.name, resource: resource.name, id })
      return { answered: true, offers: { pull: true, push: true }, holds: 'none' }
    },
    previewSync: async (request) => {
      note('previewSync', request)
      return [{ peer: request.peer ?? 'every', tasks: [], newLog: false, durationMs: 1 }]
    },
    scheduleChanged: () => note('scheduleChanged'),
    nextRuns: () => [{ taskId: 1, at: '2030-01-01T00:00:00.000Z' }],
    checkSchedule: (text) => {
      if (text === 'never') throw new SynclineError('SYNC_REQUEST_INVALID', 'never is no schedule')
      return text.replace('5m', '300')
    },
    verifyPeer: async (request) => {
      note('verifyPeer', request)
      return {
        peer: request.peer,
        resources: [
          {
            ...{ resource: 'city', equal: true, verdict: 'equal', checked: 3 },
            ...{ differing: [], differences: [], complete: true, detail: undefined },
          },
        ],
        repair: request.repair ? { runId: '1', adopted: 0, applied: 2, preview: null } : null,
      }
    },
  }
}
