// biome-ignore-all lint/style/useConsistentTypeDefinitions: only an interface can be added to
import type { TSchema } from 'typebox'
import type { Caller, Peer } from '../store/index.ts'
import type { ErrorCode } from '../sync/index.ts'

/**
 * Who may call a route. `public` anybody; `local` this machine, or whoever may view; `peer` the token of a peer; the rest is the least role
 * that a token must have.
 */
export type Access = 'public' | 'local' | 'peer' | 'viewer' | 'operator' | 'administrator'

/** One answer of an operation, for the document. Without `content` it has no body. */
export type Answer = {
  readonly description: string
  readonly content?: Readonly<Record<string, TSchema>>
  readonly headers?: Readonly<Record<string, string>>
}

/** What the server adds to Fastify's routes and requests. */
declare module 'fastify' {
  interface FastifyContextConfig {
    access?: Access
    /** The answer has no end of its own: it is not cut when it takes long. */
    endless?: boolean
  }
  interface FastifySchema {
    /** Body in formats that no validator reads: schema by media type. */
    'x-body'?: Readonly<Record<string, TSchema>>
    /** Answers that are not JSON, and answers without a body. */
    'x-answers'?: Readonly<Record<string, Answer>>
  }
  interface FastifyRequest {
    caller: Caller | null
    peer: Peer | null
    /** What the request failed with, for its line in the log. */
    failure: { readonly code: ErrorCode; readonly err?: unknown } | null
  }
  interface FastifyInstance {
    /** Counts a refused secret against its sender. Errors: SYNC_REQUEST_TOO_MANY when there were too many. */
    countFailure: (request: FastifyRequest) => Promise<void>
  }
}
