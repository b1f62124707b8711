import type { FastifyInstance, FastifyReply, FastifyRequest } from 'fastify'
import { type TSchema, Type } from 'typebox'

/** Every method that Eden knows: one that a path has not is answered in Eden's words. */
const METHODS = ['GET', 'POST', 'PUT', 'DELETE'] as const

/** What the description of the API says of one method of a path. */
export type Described = {
  readonly operationId: string
  readonly summary: string
  readonly description: string
  /** What 200 holds, by media type. */
  readonly gives: readonly string[]
}

export type EdenRoute = {
  readonly url: string
  readonly access: 'peer' | 'public'
  /** Parts of the path, with what each is. */
  readonly params?: Readonly<Record<string, string>>
  readonly endless?: boolean
  readonly get?: Described
  readonly post?: Described
}

const DOCUMENTS: Readonly<Record<string, TSchema>> = {
  'text/xml': Type.String({ description: 'S3XML.' }),
  'application/json': Type.Unknown({ description: 'S3JSON, or what Eden says in JSON.' }),
  'text/html': Type.String({ description: 'What Eden says, under the type that it says it with.' }),
  'application/zip': Type.String({ description: 'An archive.' }),
  'application/octet-stream': Type.String({ description: 'A file, mostly under the type that it has.' }),
}
const WORDS = { 'application/json': DOCUMENTS['application/json'], 'text/html': DOCUMENTS['text/html'] }

/** Adds a path of Eden with every method that Eden knows. Its client sends PUT as it does POST; only what is described is in the description of the API. */
export function describedRoute<Params>(
  app: FastifyInstance,
  { url, access, params = {}, endless = false, get, post }: EdenRoute,
  handler: (request: FastifyRequest<{ Params: Params }>, reply: FastifyReply) => unknown,
): void {
  for (const method of METHODS) {
    const said = method === 'GET' ? get : method === 'POST' ? post : undefined
    const parts = Object.entries(params).map(([name, description]) => [name, Type.String({ description })])
    const schema = {
      ...(parts.length > 0 && { params: Type.Object(Object.fromEntries(parts)) }),
      ...(said === undefined ? { hide: true } : documented(said)),
    }
    app.route({ method, url, schema, config: { access, endless }, handler } as never)
  }
}

function documented({ gives, ...said }: Described): object {
  const content = Object.fromEntries(gives.map((type) => [type, DOCUMENTS[type]]))
  return {
    ...said,
    tags: ['eden'],
    'x-answers': {
      200: { description: 'As Eden answers.', content },
      '3XX': { description: 'Eden sends who asks without an extension to its pages.', content: WORDS },
      401: { description: 'No account, in the words of Eden.', content: WORDS },
      403: { description: 'Not permitted, in the words of Eden.', content: WORDS },
      '4XX': { description: 'What is wrong, in the words of Eden.', content: WORDS },
      '5XX': { description: 'A fault of this site, in the words of Eden.', content: WORDS },
    },
  }
}
