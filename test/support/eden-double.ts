/**
 * A scripted Sahana Eden for tests of the client that calls it: HTTP as web2py on Python 3 speaks it, tables in memory, and the published faults.
 * It refuses what the real one refuses: bodies that its parser cannot take, pushes of somebody who is not registered, addresses without `.xml`.
 *
 *     const eden = await startEdenDouble(t)
 *     eden.put('org_sector', 'urn:uuid:…', { name: 'Shelter' })
 *     eden.requests                                               // what was asked, in order
 */
import { createServer, type IncomingMessage, type ServerResponse } from 'node:http'
import type { AddressInfo } from 'node:net'
import { type Element, parseDocument } from './eden-document.ts'
import { type EdenTable, ORGANISATIONS } from './eden-schema.ts'
import { createTables, type EdenRow, type Policy } from './eden-tables.ts'
import type { Owner } from './postgres.ts'

export type EdenRequest = {
  readonly method: string
  readonly path: string
  readonly query: URLSearchParams
  readonly headers: IncomingMessage['headers']
  readonly body: Buffer
}

export type EdenDouble = {
  /** With the name of the application. */
  readonly url: string
  readonly uuid: string
  readonly username: string
  readonly password: string
  /** What was asked, in order. */
  readonly requests: EdenRequest[]
  /** UUIDs of registered sites. */
  readonly registered: Set<string>
  /** Files under /default/download. */
  readonly files: Map<string, Buffer>
  /** Milliseconds by which its clock is ahead. */
  clockAheadMs: number
  /** Answers in place of Eden; false lets Eden answer. */
  misbehave: (request: EdenRequest, response: ServerResponse) => boolean | Promise<boolean>
  readonly policy: (update: Policy) => void
  readonly rows: (table: string) => Map<string, EdenRow>
  /** A write of a user there; `at` sets the time back or forth. Null takes a value away. */
  readonly put: (table: string, uuid: string, values: Record<string, unknown>, at?: string) => EdenRow
  readonly remove: (table: string, uuid: string, replacedBy?: string) => string | null
  readonly now: () => string
  readonly close: () => Promise<void>
}

export type EdenOptions = {
  readonly tables?: Readonly<Record<string, EdenTable>>
  /** Name of the server, which precedes ids that are no urn. */
  readonly domain?: string
  /** Repository UUID. */
  readonly uuid?: string
  readonly password?: string
}

const TIME = /^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d$/

export async function startEdenDouble(t: Owner, options: EdenOptions = {}): Promise<EdenDouble> {
  const { domain = 'vm', uuid = `urn:uuid:${crypto.randomUUID()}`, password = 'correct horse' } = options
  const username = 'sync@example.com'
  const tables = createTables(options.tables ?? ORGANISATIONS, domain, () => double.now())
  let base = ''

  const answer = async (incoming: IncomingMessage, response: ServerResponse): Promise<void> => {
    const url = new URL(incoming.url ?? '', 'http://here')
    const chunks: Buffer[] = []
    for await (const chunk of incoming) chunks.push(chunk as Buffer)
    const { method = '', headers } = incoming
    const request = { method, path: url.pathname, query: url.searchParams, headers, body: Buffer.concat(chunks) }
    double.requests.push(request)
    if (await double.misbehave(request, response)) return
    handle(request, response)
  }

  const handle = (request: EdenRequest, response: ServerResponse): ServerResponse => {
    response.setHeader('date', new Date(Date.now() + double.clockAheadMs).toUTCString())
    const wanted = `Basic ${Buffer.from(`${username}:${password}`).toString('base64')}`
    if (request.headers.authorization !== wanted) {
      response.setHeader('www-authenticate', 'Basic realm="eden"')
      return reply(response, 401, 'text/html', 'Authentication Required')
    }
    const [, application, prefix = '', name = '', last = ''] = request.path.split('/')
    if (application !== 'eden') return reply(response, 404, 'text/html', 'invalid application')
    if (prefix === 'default' && name === 'download') return download(last, response)
    if (prefix === 'sync' && name === 'repository' && last === 'register.json') return register(request, response)
    if (prefix === 'sync' && name === 'sync.xml') return forward(request, response)
    if (prefix === 'sync') return refuse(response, name === 'sync' ? 303 : 404)
    const table = `${prefix}_${name}`
    if (!tables.has(table)) return refuse(response, 404)
    if (last === 'fields.xml') return reply(response, 200, 'text/xml', tables.fieldsXml(table))
    if (last === 'sync.xml') return synchronise(request, table, request.query, response)
    return refuse(response, 404)
  }

  const register = ({ method, body }: EdenRequest, response: ServerResponse): ServerResponse => {
    if (method !== 'POST' && method !== 'PUT') return failed(response, 405, 'Method not allowed')
    let given: Record<string, unknown>
    try {
      given = JSON.parse(body.toString()) as Record<string, unknown>
    } catch {
      return failed(response, 400, 'Invalid JSON')
    }
    if (typeof given.uuid !== 'string')
      return json(response, 200, { status: 'failed', statuscode: '400', message: 'No repository identifier specified' })
    const again = double.registered.has(given.uuid)
    double.registered.add(given.uuid)
    return json(response, 200, {
      status: 'success',
      statuscode: '200',
      message: again ? 'Registration update successful' : 'Registration successful',
      sender: uuid,
    })
  }

  /** Everything in the query but these is lost on this way. */
  const forward = (request: EdenRequest, response: ServerResponse): ServerResponse => {
    const resource = request.query.get('resource')
    if (resource === null || resource === 'mixed')
      return reply(
        response,
        200,
        'text/html',
        JSON.stringify({
          status: 'failed',
          statuscode: '400',
          message: 'Mixed resource synchronization not supported',
        }),
      )
    if (!resource.includes('_')) return reply(response, 400, 'text/html', 'Invalid request')
    if (!tables.has(resource)) return json(response, 400, { status: 'failed', statuscode: '400' })
    const kept = new URLSearchParams(
      [...request.query].filter(([key]) => ['repository', 'msince'].includes(key) || key.startsWith('[')),
    )
    kept.set('include_deleted', 'True')
    return synchronise(request, resource, kept, response)
  }

  const synchronise = (
    request: EdenRequest,
    table: string,
    query: URLSearchParams,
    response: ServerResponse,
  ): ServerResponse => {
    if (request.method === 'GET') return pull(table, query, response)
    if (request.method === 'DELETE') {
      // Falls through to the delete method: every record of the table.
      for (const row of tables.rows(table).values()) tables.remove(table, row.uuid)
      return refuse(response, 404)
    }
    if (request.method !== 'POST' && request.method !== 'PUT') return refuse(response, 405)
    return push(request, table, query, response)
  }

  const pull = (table: string, query: URLSearchParams, response: ServerResponse): ServerResponse => {
    // Anything else than a plain time is ignored, and everything is sent.
    const msince = TIME.test(query.get('msince') ?? '') ? query.get('msince') : null
    let chosen = [...tables.rows(table).values()].filter(
      (row) => (msince === null || row.modified_on >= msince) && matches(row, table, query),
    )
    if (msince === null) chosen.sort((a, b) => a.id - b.id)
    else chosen.sort((a, b) => (a.modified_on < b.modified_on ? -1 : a.modified_on > b.modified_on ? 1 : a.id - b.id))
    if (!query.has('include_deleted')) chosen = chosen.filter(({ deleted }) => !deleted)
    const start = Number(query.get('start') ?? 0)
    const limit = query.has('limit') ? Number(query.get('limit')) : chosen.length
    return reply(
      response,
      200,
      'text/xml',
      tables.exported(table, chosen.slice(start, start + limit), base, query.has('include_deleted')),
    )
  }

  const push = (
    request: EdenRequest,
    table: string,
    query: URLSearchParams,
    response: ServerResponse,
  ): ServerResponse => {
    if (!double.registered.has(query.get('repository') ?? '')) return failed(response, 403, 'Registration required')
    const body = readable(request)
    if (body === null) {
      response.setHeader('web2py_error', 'ticket eden/127.0.0.1')
      return reply(
        response,
        500,
        'text/html; charset=UTF-8',
        '<html><body><h1>Internal error</h1>Ticket issued</body></html>',
      )
    }
    let document: Element
    try {
      document = parseDocument(body)
    } catch (error) {
      return failed(response, 400, `XML Parse error: ${(error as Error).message}`)
    }
    return reply(response, 200, 'text/html', JSON.stringify(tables.imported(table, document).answer))
  }

  const download = (name: string, response: ServerResponse): ServerResponse => {
    const file = double.files.get(name)
    if (file === undefined) return refuse(response, 404)
    return response.writeHead(200, { 'content-type': 'application/octet-stream' }).end(file)
  }

  const server = createServer((request, response) => {
    answer(request, response).catch((error: unknown) => response.writeHead(500).end(String(error)))
  })
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
  base = `http://127.0.0.1:${(server.address() as AddressInfo).port}/eden`
  const close = async () => {
    server.closeAllConnections()
    await new Promise((resolve) => server.close(resolve))
  }
  t.teardown(close)
  const double: EdenDouble = {
    url: base,
    uuid,
    username,
    password,
    requests: [],
    registered: new Set(),
    files: new Map(),
    clockAheadMs: 0,
    misbehave: () => false,
    policy: (update) => {
      tables.policies.update = update
    },
    rows: tables.rows,
    put: tables.put,
    remove: tables.remove,
    now: () => new Date(Date.now() + double.clockAheadMs).toISOString().slice(0, 19),
    close,
  }
  return double
}

/** `[table]selector__op=value`; `~` or nothing is the requested table. Filters of other tables do not matter here. */
function matches(row: EdenRow, table: string, query: URLSearchParams): boolean {
  return [...query].every(([key, value]) => {
    const [, of = '', selector = ''] = /^\[(\w*|~)\](.+)$/.exec(key) ?? []
    if (selector === '' || (of !== '' && of !== '~' && of !== table)) return true
    const [path = '', operator = value.includes(',') ? 'belongs' : 'eq'] = selector.split('__')
    const name = path.replace(/^~\./, '')
    const found = name === 'uuid' ? row.uuid : String(row.values[name] ?? 'NONE')
    const listed = listOf(value).includes(found)
    if (operator.startsWith('like')) {
      const like = new RegExp(`^${value.replace(/[.+?^${}()|[\]\\]/g, '\\$&').replaceAll('*', '.*')}$`, 'i').test(found)
      return operator.endsWith('!') ? !like : like
    }
    if (operator.startsWith('ne')) return !listed
    return listed
  })
}

/** The body as the framework hands it on; null where it dies of it: a body with a length and a type of its own that no header declares a file. */
function readable({ headers, body }: EdenRequest): Buffer | null {
  if (headers['content-length'] === undefined) return Buffer.alloc(0)
  const type = headers['content-type'] ?? ''
  if (type.startsWith('application/x-www-form-urlencoded')) return body
  const boundary = /^multipart\/form-data;.*boundary="?([^";]+)"?/.exec(type)?.[1]
  if (boundary !== undefined) {
    const part = body
      .toString('latin1')
      .split(`--${boundary}`)
      .find((each) => /name="[^"]+\.xml"/.test(each))
    const start = part?.indexOf('\r\n\r\n') ?? -1
    return part === undefined || start < 0
      ? Buffer.alloc(0)
      : Buffer.from(part.slice(start + 4).replace(/\r\n$/, ''), 'latin1')
  }
  return /^attachment;\s*filename=/.test(headers['content-disposition'] ?? '') ? body : null
}

function reply(response: ServerResponse, status: number, type: string, body: string): ServerResponse {
  return response.writeHead(status, { 'content-type': type, 'x-powered-by': 'web2py', connection: 'close' }).end(body)
}

function json(response: ServerResponse, status: number, value: object): ServerResponse {
  return reply(response, status, 'application/json', JSON.stringify(value))
}

function failed(response: ServerResponse, status: number, message: string): ServerResponse {
  response.setHeader('web2py_error', message.replaceAll(/[\r\n]/g, ' '))
  return json(response, status, { status: 'failed', statuscode: String(status), message })
}

function refuse(response: ServerResponse, status: number): ServerResponse {
  if (status === 303) response.setHeader('location', '/eden/default/index')
  return reply(response, status, 'text/html', status === 404 ? 'NOT FOUND' : '')
}

/** Values between commas; quotes keep a comma in. */
function listOf(text: string): readonly string[] {
  return (text.match(/"[^"]*"|[^,]+/g) ?? []).map((part) => part.replace(/^"(.*)"$/, '$1'))
}
