import type { FastifyDynamicSwaggerOptions } from '@fastify/swagger'
import type { TSchema } from 'typebox'
import type { Access, Answer } from './fastify.ts'
import { PROBLEM_TYPE } from './problem.ts'
import { problem } from './schemas.ts'

type Node = { [key: string]: unknown }
type Operation = Node & {
  responses: Record<string, Node>
  security?: Node[]
  description?: string
  tags?: readonly string[]
  requestBody?: unknown
  'x-access'?: Access
  'x-body'?: Readonly<Record<string, TSchema>>
  'x-answers'?: Readonly<Record<string, Answer>>
}
type Document = Node & {
  paths: Record<string, Record<string, Operation>>
  components: Node & { schemas: Record<string, Node> }
}

const DESCRIPTION = `Syncline keeps records and files in step between sites that cannot share one database.

\`/sync/v1\` is for peers, and for curl; it takes the token of a peer. \`/api/v1\` is for people and programs that administer the site.
Failures are problem documents (RFC 9457) with a stable \`code\`. Lists come newest first, page by page. What has an ETag is changed with If-Match.`

const TAGS = {
  sync: 'Exchange between peers.',
  site: 'This site.',
  peers: 'Other sites as registered here, and what they may do.',
  invitations: 'Codes that register two sites with each other.',
  resources: 'Tables that are synced as records.',
  records: 'Records by hand.',
  tasks: 'What is synced with whom, how and when.',
  runs: 'What was done, and doing it now.',
  conflicts: 'Records that were changed on both sides and wait for a person.',
  quarantine: 'Records that could not be applied, each alone.',
  alarms: 'What the stall detector found.',
  eden: 'What Sahana Eden sites ask, with their own addresses and words.',
  datasets: 'Tables that Sahana Eden sites publish together.',
  jobs: 'Scheduled work, its runs, and what they hold.',
  transfers: 'Files between hosts, and which hosts are believed.',
  tokens: 'Who may use this interface.',
  settings: 'Settings that are changed while the site runs.',
  operations: 'Work that takes longer than a request.',
  health: 'For those who operate the site.',
} as const
export type Tag = keyof typeof TAGS

/** Settings of the plugin that reads the routes and makes the document. */
export function documentOptions(version: string): FastifyDynamicSwaggerOptions {
  return {
    openapi: {
      openapi: '3.1.0',
      info: {
        title: 'Syncline',
        version,
        description: DESCRIPTION,
        license: { name: 'Apache-2.0', identifier: 'Apache-2.0' } as { name: string },
      },
      servers: [{ url: '/', description: 'This site.' }],
      tags: Object.entries(TAGS).map(([name, description]) => ({ name, description })),
      components: {
        securitySchemes: {
          token: {
            type: 'http',
            scheme: 'bearer',
            description: 'Token of an administrator, operator or viewer (`/api/v1`) or of a peer (`/sync/v1`).',
          },
          peer: { type: 'http', scheme: 'basic', description: 'Name of the peer here, and its token.' },
        },
      },
    },
    hideUntagged: true,
    transform: ({ schema, url, route }) => ({
      schema: { ...schema, 'x-access': route.config?.access } as typeof schema,
      url,
    }),
    transformObject: (source) =>
      finishDocument(('openapiObject' in source ? source.openapiObject : {}) as Document) as never,
  }
}

const ROLE_WORDS: Readonly<Record<string, string>> = {
  public: 'Anybody may ask.',
  local: 'From this machine, or with a token of a viewer.',
  peer: "Takes a peer's token.",
  viewer: 'Takes the role viewer or above.',
  operator: 'Takes the role operator or above.',
  administrator: 'Takes the role administrator.',
}

/** Completes what the plugin read from the routes: rules of access, problems, formats that are not JSON, and schemas by name. */
function finishDocument(document: Document): Document {
  for (const path of Object.values(document.paths)) {
    for (const operation of Object.values(path)) finishOperation(operation)
  }
  const named: Record<string, Node> = { Problem: bare(problem) }
  const paths = Object.fromEntries(
    Object.entries(document.paths).map(([path, operations]) => [
      path,
      hoist(operations, named) as Record<string, Operation>,
    ]),
  )
  const schemas = Object.fromEntries(Object.entries(named).sort(([a], [b]) => (a < b ? -1 : 1)))
  return { ...document, paths, components: { ...document.components, schemas, responses: failures() } }
}

function finishOperation(operation: Operation): void {
  const { 'x-access': access = 'public', 'x-body': body, 'x-answers': answers = {} } = operation
  for (const key of ['x-access', 'x-body', 'x-answers'] as const) delete operation[key]
  operation.description = [operation.description, ROLE_WORDS[access]].filter((part) => part !== undefined).join(' ')
  operation.security =
    access === 'public'
      ? []
      : access === 'peer'
        ? [{ token: [] }, { peer: [] }]
        : access === 'local'
          ? [{}, { token: [] }]
          : [{ token: [] }]
  if (body !== undefined) operation.requestBody = { required: true, content: media(body) }
  for (const [status, answer] of Object.entries(answers)) operation.responses[status] = answerNode(answer)
  if (Object.keys(answers).length > 0 && operation.responses['200']?.description === 'Default Response') {
    delete operation.responses['200']
  }
  // Eden's words are not ours.
  if (operation.tags?.[0] === 'eden') return
  if (access !== 'public') {
    operation.responses['401'] = { $ref: '#/components/responses/NoToken' }
    operation.responses['403'] = { $ref: '#/components/responses/NotPermitted' }
  }
  operation.responses['4XX'] = { $ref: '#/components/responses/Refused' }
  operation.responses['5XX'] = { $ref: '#/components/responses/Failed' }
}

const FAILURES = {
  NoToken: 'The request shows no valid token.',
  NotPermitted: 'The token does not permit this.',
  Refused: 'The request cannot be fulfilled; the problem says why.',
  Failed: 'The site cannot answer now, or failed.',
}

function failures(): Node {
  const content = { [PROBLEM_TYPE]: { schema: { $ref: '#/components/schemas/Problem' } } }
  return Object.fromEntries(Object.entries(FAILURES).map(([name, description]) => [name, { description, content }]))
}

function answerNode({ description, content, headers }: Answer): Node {
  return {
    description,
    ...(headers && {
      headers: Object.fromEntries(
        Object.entries(headers).map(([name, words]) => [name, { description: words, schema: { type: 'string' } }]),
      ),
    }),
    ...(content && { content: media(content) }),
  }
}

function media(content: Readonly<Record<string, TSchema>>): Node {
  return Object.fromEntries(Object.entries(content).map(([type, schema]) => [type, { schema: bare(schema) }]))
}

/** A schema without what its builder keeps beside it. */
function bare(schema: TSchema): Node {
  return JSON.parse(JSON.stringify(schema)) as Node
}

/** Moves every schema that has a title to the components, and leaves a reference in its place. */
function hoist(node: unknown, named: Record<string, Node>): unknown {
  if (Array.isArray(node)) return node.map((item) => hoist(item, named))
  if (typeof node !== 'object' || node === null) return node
  const members = Object.fromEntries(Object.entries(node).map(([key, value]) => [key, hoist(value, named)]))
  const { title } = members
  if (typeof title !== 'string' || !/^[A-Z][A-Za-z]+$/.test(title) || !('type' in members || 'anyOf' in members))
    return members
  named[title] ??= members
  return { $ref: `#/components/schemas/${title}` }
}
