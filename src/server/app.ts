import { randomUUID } from 'node:crypto'
import type { Socket } from 'node:net'
import helmet from '@fastify/helmet'
import rateLimit from '@fastify/rate-limit'
import swagger from '@fastify/swagger'
import swaggerUi from '@fastify/swagger-ui'
import underPressure from '@fastify/under-pressure'
import fastify, { type FastifyInstance, type FastifyServerOptions } from 'fastify'
import { parseJson, SynclineError } from '../sync/index.ts'
import { callerKey, guardAccess } from './access.ts'
import type { ServerDeps } from './deps.ts'
import { documentOptions } from './document.ts'
import { edenAddress, edenRoutes } from './eden/index.ts'
import { answerProblem, PROBLEM_TYPE, RetryLater } from './problem.ts'
import { administration, exchange, operation } from './routes/index.ts'
import { validateStrictly } from './validate.ts'

/** Body of a request of the administration that carries no records. */
const BODY_BYTES_MAX = 1_048_576
const HEADER_BYTES_MAX = 32_768
/** For so long after the start the delays of the start may still be among those that were measured. */
const START_MS = 3_000
/** A long poll lasts a minute in silence; a connection may idle a little longer than that. */
const IDLE_MS = 75_000

/**
 * The inbound half of a site, ready to listen. Everything that it needs of other rooms comes in `deps`; it opens nothing but what it is asked
 * to listen on, and closing it ends every answer that still waits.
 */
export async function buildApp(deps: ServerDeps): Promise<FastifyInstance> {
  const app = fastify(options(deps))
  app.server.maxConnections = deps.limits.connectionsMax ?? 2_000
  validateStrictly(app)
  readJsonExactly(app, deps)
  app.setErrorHandler((error, request, reply) => answerProblem(error, request, reply))
  app.setNotFoundHandler((request, reply) => {
    const where = `${request.method} ${request.url.split('?')[0]?.slice(0, 200)}`
    return answerProblem(new SynclineError('SYNC_REQUEST_NOT_FOUND', `there is no ${where}`), request, reply)
  })

  await app.register(swagger, documentOptions(deps.version))
  await app.register(helmet, {
    contentSecurityPolicy: {
      useDefaults: false,
      directives: { defaultSrc: ["'none'"], frameAncestors: ["'none'"], styleSrc: ["'unsafe-inline'"] },
    },
    // Only a site that speaks TLS itself may say that it always will.
    strictTransportSecurity: deps.tls === undefined ? false : { maxAge: 15_552_000 },
  })
  await app.register(rateLimit, {
    global: false,
    max: deps.limits.requestsPerMinuteMax ?? 12_000,
    timeWindow: 60_000,
    keyGenerator: callerKey,
    errorResponseBuilder: (_request, { ttl, max }) =>
      new RetryLater('SYNC_REQUEST_TOO_MANY', `more than ${max} requests in a minute`, Math.ceil(ttl / 1000)),
  })
  app.addHook('onRequest', app.rateLimit())
  let readyAt = Number.POSITIVE_INFINITY
  app.addHook('onReady', async () => {
    readyAt = performance.now()
  })
  await app.register(underPressure, {
    // The embedded database works on the same thread: a large statement is no overload.
    maxEventLoopDelay: deps.limits.eventLoopDelayMaxMs ?? (deps.store.server ? 5_000 : 30_000),
    sampleInterval: 1_000,
    pressureHandler: (request, _reply, _type, delayMs) => {
      // Between two looks nothing was measured: one statement of a second does that, and says nothing of the limit.
      if (delayMs === Number.POSITIVE_INFINITY) return
      // What a slow machine needs to start is measured too, and is no overload.
      if (performance.now() < readyAt + START_MS) return
      // Who asks how the site is gets an answer, above all now.
      if (request.url.startsWith('/health') || request.url.startsWith('/metrics')) return
      throw new RetryLater('SYNC_REQUEST_OVERLOADED', 'the site is busy', 10)
    },
  })
  guardAccess(app, deps)
  tellOfRequests(app, deps)
  endSlowAnswers(app, deps)

  await app.register(swaggerUi, {
    routePrefix: '/docs',
    staticCSP: true,
    // A site on plain HTTP would lose its own pages, and nobody outside is asked about the document.
    transformStaticCSP: (header) =>
      header.replace('upgrade-insecure-requests;', '').replace('validator.swagger.io', ''),
    uiConfig: { url: '/openapi.json', validatorUrl: null, docExpansion: 'none', persistAuthorization: false },
  })
  await app.register(operation(deps))
  await app.register(exchange(deps), { prefix: '/sync/v1' })
  await app.register(administration(deps), { prefix: '/api/v1' })
  await app.register(edenRoutes(deps), { prefix: '/eden' })
  return app
}

function options(deps: ServerDeps): FastifyServerOptions {
  const { limits, tls, trustProxy } = deps
  const headersMs = Math.min(limits.requestTimeoutMs, 20_000)
  const http = {
    maxHeaderSize: HEADER_BYTES_MAX,
    headersTimeout: headersMs,
    // How often Node looks for requests that take too long to arrive.
    connectionsCheckingInterval: Math.max(50, Math.min(5_000, Math.floor(limits.requestTimeoutMs / 4))),
  }
  return {
    ...(tls === undefined
      ? { http }
      : {
          https: {
            ...http,
            cert: tls.cert,
            key: tls.key,
            ...(tls.clientCa !== undefined && { ca: tls.clientCa, requestCert: true, rejectUnauthorized: false }),
          },
        }),
    logger: false,
    genReqId: () => randomUUID(),
    trustProxy: trustProxy.length > 0 ? [...trustProxy] : false,
    bodyLimit: BODY_BYTES_MAX,
    requestTimeout: limits.requestTimeoutMs,
    connectionTimeout: limits.requestTimeoutMs + IDLE_MS,
    keepAliveTimeout: IDLE_MS,
    forceCloseConnections: 'idle',
    exposeHeadRoutes: false,
    routerOptions: { maxParamLength: 4_096 },
    rewriteUrl: (request: { url?: string }) => edenAddress(request.url ?? '/'),
    frameworkErrors: (error, request, reply) => answerProblem(error, request, reply),
    clientErrorHandler: (error, socket) => answerBrokenRequest(error, socket),
  } as FastifyServerOptions
}

/** JSON of the administration: bounded in depth before a parser recurses into it. */
function readJsonExactly(app: FastifyInstance, { limits }: ServerDeps): void {
  app.removeAllContentTypeParsers()
  app.addContentTypeParser(
    ['application/json', 'application/merge-patch+json'],
    { parseAs: 'string' },
    (_request, body, done) => {
      try {
        // Numbers that a double cannot carry would become objects of another kind; settings and names have none.
        if (body === '') return done(null, undefined)
        done(null, JSON.parse(JSON.stringify(parseJson(String(body), limits.depthMax))))
      } catch (cause) {
        done(
          new SynclineError(
            'SYNC_FORMAT_INVALID',
            `the body is no JSON that is taken here: ${(cause as Error).message}`,
            { cause },
          ),
        )
      }
    },
  )
}

/** One line for each request, and its id for who asks about it. */
function tellOfRequests(app: FastifyInstance, { observe }: ServerDeps): void {
  app.addHook('onRequest', async (request, reply) => {
    reply.header('x-request-id', request.id)
    reply.header('cache-control', 'no-store')
  })
  app.addHook('onResponse', async (request, reply) => {
    const { failure, peer } = request
    observe.events.requestServed({
      requestId: request.id,
      method: request.method,
      route: request.routeOptions.url ?? 'unknown',
      status: reply.statusCode,
      durationMs: Math.round(reply.elapsedTime),
      ...(peer && { peer: peer.name }),
      ...(failure && { code: failure.code }),
      ...(failure?.err !== undefined && { err: failure.err }),
    })
  })
}

/** Who takes an answer too slowly loses the connection, however steadily the bytes trickle. */
function endSlowAnswers(app: FastifyInstance, { limits }: ServerDeps): void {
  app.addHook('onSend', async (request, reply, payload) => {
    if (request.routeOptions.config.endless !== true) {
      // A caller that is gone already closes nothing any more; the timer must not keep the process alive then.
      const timer = setTimeout(() => reply.raw.destroy(), limits.requestTimeoutMs).unref()
      reply.raw.once('close', () => clearTimeout(timer))
    }
    return payload
  })
}

/** What Node itself cannot read as HTTP, or gave up waiting for. */
function answerBrokenRequest(error: NodeJS.ErrnoException, socket: Socket): void {
  if (error.code === 'ECONNRESET' || !socket.writable) {
    socket.destroy()
    return
  }
  const status =
    error.code === 'ERR_HTTP_REQUEST_TIMEOUT'
      ? '408 Request Timeout'
      : error.code === 'HPE_HEADER_OVERFLOW'
        ? '431 Request Header Fields Too Large'
        : '400 Bad Request'
  const body = JSON.stringify({ type: 'about:blank', title: status.slice(4), status: Number(status.slice(0, 3)) })
  socket.end(
    `HTTP/1.1 ${status}\r\nContent-Type: ${PROBLEM_TYPE}\r\nContent-Length: ${Buffer.byteLength(body)}\r\nConnection: close\r\n\r\n${body}`,
  )
}
