import { createHash } from 'node:crypto'
import type { TLSSocket } from 'node:tls'
import type { FastifyInstance, FastifyReply, FastifyRequest } from 'fastify'
import type { RefusalReason } from '../observe/index.ts'
import { type Caller, findPeer, findToken, meetMark, notePeerSeen, type Peer, peerLogChanged } from '../store/index.ts'
import { SynclineError } from '../sync/index.ts'
import type { ServerDeps } from './deps.ts'
import type { Access } from './fastify.ts'
import { RetryLater } from './problem.ts'

const RANK = { viewer: 1, operator: 2, administrator: 3 } as const
const REALM = 'realm="syncline", charset="UTF-8"'
/** How often a peer that calls all the time is written down as seen. */
const SEEN_EVERY_MS = 60_000
const LOG_ID = /^[a-z0-9]{1,32}$/

/** Asks every request who sends it, before anything of its body is read. A route without a rule of access cannot be registered. */
export function guardAccess(app: FastifyInstance, deps: ServerDeps): void {
  const countRefusal = app.createRateLimit({
    max: deps.limits.refusalsPerMinuteMax ?? 60,
    timeWindow: 60_000,
    keyGenerator: (request) => `refused ${request.ip}`,
  })
  const sightings = createSightings(deps)
  const marks = createMarks(deps)

  app.decorateRequest('caller', null)
  app.decorateRequest('peer', null)
  app.decorateRequest('failure', null)
  app.addHook('onRoute', (route) => {
    // The pages of the documentation come from a plugin that knows nothing of access.
    if (/^\/docs(?:\/|$)/.test(route.url)) route.config = { ...route.config, access: 'public' }
    if (route.config?.access === undefined) throw new Error(`route ${route.method} ${route.url} has no rule of access`)
  })

  app.addHook('onRequest', async (request, reply) => {
    const access = request.routeOptions.config.access
    if (request.is404 || access === undefined || access === 'public') return
    if (access === 'local' && isLocal(request)) return
    try {
      if (access === 'peer') await admitPeer(request)
      else await admitRole(request, access === 'local' ? 'viewer' : access)
    } catch (error) {
      if (!(error instanceof Refusal)) throw error
      await refuse(request, reply, error, access)
    }
  })

  async function admitRole(request: FastifyRequest, least: keyof typeof RANK): Promise<void> {
    const { token, scheme } = credentials(request)
    if (scheme === 'basic') throw new Refusal('missing', 'show the token as Bearer')
    const caller = await known(token)
    if (caller.role === 'peer') throw new Refusal('forbidden', "a peer's token is good for /sync/v1 only")
    if (RANK[caller.role] < RANK[least]) {
      throw new Refusal(
        'forbidden',
        `this takes the role ${least}; the token "${caller.name}" has the role ${caller.role}`,
      )
    }
    request.caller = caller
  }

  async function admitPeer(request: FastifyRequest): Promise<void> {
    checkCertificate(request)
    const { token, scheme, name } = credentials(request)
    const caller = await known(token)
    if (caller.role !== 'peer' || caller.peerId === null) {
      throw new Refusal('forbidden', 'this takes the token of a peer; that of a person or program is good for /api/v1')
    }
    const peer = await findPeer(deps.store.db, caller.peerId)
    // Told like an unknown token: whether a name belongs to a token is nobody else's business.
    if (scheme === 'basic' && name !== peer.name) throw unknown()
    if (peer.paused) {
      throw new SynclineError('SYNC_PEER_PAUSED', `this site has paused the exchange with peer "${peer.name}"`)
    }
    await checkIdentity(peer, request)
    request.caller = caller
    request.peer = await sightings.note(peer, request)
  }

  /** Two sites must not live under one UUID: not this one's, and not the peer's. */
  async function checkIdentity(peer: Peer, request: FastifyRequest): Promise<void> {
    const uuid = single(request.headers['syncline-site'])?.toLowerCase()
    const mark = single(request.headers['syncline-mark'])
    if (uuid !== undefined && uuid !== peer.uuid) {
      if (uuid === (await deps.self()).uuid)
        throw new SynclineError('SYNC_PEER_CLONED', `the caller is a copy of this site: it calls itself ${uuid} too`)
      throw new SynclineError('SYNC_PEER_MISMATCH', `this is the token of site ${peer.uuid}, and ${uuid} shows it`)
    }
    if (mark !== undefined) await marks.meet(peer, mark)
  }

  async function known(token: string): Promise<Caller> {
    const caller = await findToken(deps.store.db, token)
    if (caller === null) throw unknown()
    return caller
  }

  function checkCertificate(request: FastifyRequest): void {
    if (deps.tls?.clientCa === undefined) return
    const socket = request.raw.socket as TLSSocket
    if (socket.authorized === true) return
    throw new Refusal('missing', 'this site takes peers only with a client certificate of an authority it knows')
  }

  async function refuse(
    request: FastifyRequest,
    reply: FastifyReply,
    refusal: Refusal,
    access: Access,
  ): Promise<never> {
    deps.observe.events.authRefused({
      requestId: request.id,
      method: request.method,
      route: request.routeOptions.url ?? '',
      reason: refusal.reason,
      address: request.ip,
      detail: refusal.message,
    })
    if (refusal.reason === 'forbidden') throw new SynclineError('SYNC_AUTH_FORBIDDEN', refusal.message)
    await countFailure(request)
    reply.header('www-authenticate', access === 'peer' ? `Bearer ${REALM}, Basic ${REALM}` : `Bearer ${REALM}`)
    throw new SynclineError('SYNC_AUTH_MISSING', refusal.message)
  }

  async function countFailure(request: FastifyRequest): Promise<void> {
    const limit = await countRefusal(request)
    if (!limit.isAllowed && limit.isExceeded) {
      throw new RetryLater(
        'SYNC_REQUEST_TOO_MANY',
        'too many refused credentials from this address',
        limit.ttlInSeconds,
      )
    }
  }

  app.decorate('countFailure', countFailure)
}

/** Why a request is not let in. */
class Refusal extends Error {
  readonly reason: RefusalReason

  constructor(reason: RefusalReason, message: string) {
    super(message)
    this.reason = reason
  }
}

function unknown(): Refusal {
  return new Refusal('unknown', 'the token is not valid here: it is unknown, revoked or expired')
}

type Credentials = { readonly scheme: 'bearer' | 'basic'; readonly token: string; readonly name?: string }

function credentials(request: FastifyRequest): Credentials {
  const [, scheme = '', value = ''] = /^(\w+) +(\S+) *$/.exec(request.headers.authorization ?? '') ?? []
  if (scheme.toLowerCase() === 'bearer') return { scheme: 'bearer', token: value }
  if (scheme.toLowerCase() !== 'basic') throw new Refusal('missing', 'the request shows no token')
  const [, name, token] = /^([^:]*):(.+)$/s.exec(Buffer.from(value, 'base64').toString()) ?? []
  if (name === undefined || token === undefined) throw new Refusal('missing', 'the request shows no token')
  return { scheme: 'basic', name, token }
}

/** Requests are told apart by token where there is one, else by address. The token itself is not kept. */
export function callerKey(request: FastifyRequest): string {
  const header = request.headers.authorization
  return header === undefined ? `address ${request.ip}` : createHash('sha256').update(header).digest('base64')
}

/** True for a caller on this machine, and not for one whose request a proxy on this machine passed on. */
function isLocal(request: FastifyRequest): boolean {
  const passedOn = ['x-forwarded-for', 'forwarded', 'x-real-ip', 'via'].some((header) => header in request.headers)
  const address = request.raw.socket.remoteAddress ?? ''
  return !passedOn && /^(?:::ffff:)?127\.|^::1$/.test(address)
}

/** The peer of a request that only peers may send. */
export function peerOf(request: FastifyRequest): Peer {
  if (request.peer === null) throw new Error('a route of peers was reached without one')
  return request.peer
}

/** The caller of a request that takes a token. */
export function callerOf(request: FastifyRequest): Caller {
  if (request.caller === null) throw new Error('a route that takes a token was reached without one')
  return request.caller
}

/** A mark that was right is not looked up again for so long. */
const MARK_FRESH_MS = 2_000

/** Looks at the marks that peers show, each one not with every request. Errors: SYNC_PEER_CLONED. */
function createMarks({ store }: ServerDeps) {
  const met = new Map<number, { readonly mark: string; readonly at: number }>()
  return {
    async meet(peer: Peer, mark: string): Promise<void> {
      const last = met.get(peer.id)
      if (last?.mark === mark && Date.now() - last.at < MARK_FRESH_MS) return
      met.delete(peer.id)
      await meetMark(store.db, peer, mark)
      met.set(peer.id, { mark, at: Date.now() })
    },
  }
}

/** Remembers when each peer was heard, at most once a minute, and follows one that was restored into its new log. */
function createSightings({ store, observe, limits }: ServerDeps) {
  const seen = new Map<number, number>()
  return {
    async note(peer: Peer, request: FastifyRequest): Promise<Peer> {
      const logId = single(request.headers['syncline-log'])
      const time = Date.parse(single(request.headers['syncline-time']) ?? '')
      const clockOffsetMs = Number.isNaN(time) ? undefined : time - Date.now()
      const newLog = logId !== undefined && LOG_ID.test(logId) && logId !== peer.logId
      const last = seen.get(peer.id)
      if (!newLog && last !== undefined && Date.now() - last < SEEN_EVERY_MS) return peer
      seen.set(peer.id, Date.now())
      const { logChanged } = await notePeerSeen(store.db, peer.id, { logId: newLog ? logId : undefined, clockOffsetMs })
      if (clockOffsetMs !== undefined) noteClock(peer, clockOffsetMs)
      if (!logChanged || logId === undefined) return peer
      // It lost what it had since its backup: it is owed everything again, also what once came from it.
      await peerLogChanged(store.db, peer.id, logId)
      return { ...peer, logId }
    },
  }

  function noteClock(peer: Peer, offsetMs: number): void {
    const limitMs = limits.clockAheadMaxMs
    if (Math.abs(offsetMs) > limitMs) observe.events.clockFar({ peer: peer.name, offsetMs, limitMs })
    else observe.events.clockCompared({ peer: peer.name, offsetMs })
  }
}

function single(header: string | string[] | undefined): string | undefined {
  return Array.isArray(header) ? header[0] : header
}
