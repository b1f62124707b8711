import { createServer, type IncomingMessage, type RequestListener } from 'node:http'
import { createServer as createTlsServer } from 'node:https'
import type { AddressInfo } from 'node:net'
import { Readable, Writable } from 'node:stream'
import { text } from 'node:stream/consumers'
import { run } from '../../src/cli/program.ts'
import type { Owner } from '../support/postgres.ts'

// The program refuses SYNCLINE_ variables that it does not know, such as those of the tests themselves.
for (const name of Object.keys(process.env)) if (name.startsWith('SYNCLINE_')) delete process.env[name]

export type Ending = { readonly code: number; readonly stdout: string; readonly stderr: string }

/** What standard output and standard error are: a terminal of some width, or a pipe. */
export type Kind = { readonly columns?: number; readonly colors?: boolean }

/** Performs one command line in this process. */
export async function syncline(argv: readonly string[], input = '', kind: Kind = {}): Promise<Ending> {
  const [stdout, stderr] = [sink(kind), sink(kind)]
  const code = await run(argv, { stdin: Readable.from([Buffer.from(input)]), stdout, stderr })
  return { code, stdout: stdout.text(), stderr: stderr.text() }
}

export function sink({ columns, colors = false }: Kind) {
  const chunks: Buffer[] = []
  const stream = new Writable({
    write: (chunk: Buffer, _encoding, done) => {
      chunks.push(Buffer.from(chunk))
      done()
    },
  })
  const terminal = columns === undefined ? {} : { isTTY: true, columns, cursorTo: () => true, moveCursor: () => true }
  return Object.assign(stream, terminal, {
    hasColors: () => colors,
    text: () => Buffer.concat(chunks).toString(),
  })
}

export type Asked = {
  readonly method: string
  readonly path: string
  readonly query: Readonly<Record<string, string>>
  readonly headers: IncomingMessage['headers']
  readonly body: string
}

export type Answer = { readonly status?: number; readonly type?: string; readonly body?: unknown }

/** A site that answers what the test says; `routes` by `METHOD /path` below /api/v1. */
export async function fakeSite(
  t: Owner,
  routes: Readonly<Record<string, Answer | ((asked: Asked) => Answer)>>,
  tls?: { readonly cert: string; readonly key: string },
): Promise<{ readonly url: string; readonly flags: readonly string[]; readonly asked: Asked[] }> {
  const asked: Asked[] = []
  const answer: RequestListener = async (request, response) => {
    const url = new URL(request.url ?? '', 'http://site')
    const { method = '', headers } = request
    const path = url.pathname.replace('/api/v1', '')
    const one = { method, path, query: Object.fromEntries(url.searchParams), headers, body: await text(request) }
    asked.push(one)
    const route = routes[`${method} ${path}`]
    const {
      status = 200,
      type = 'application/json',
      body,
    } = route === undefined ? missing : typeof route === 'function' ? route(one) : route
    response.writeHead(status, { 'content-type': status >= 400 ? 'application/problem+json' : type })
    response.end(body === undefined ? undefined : typeof body === 'string' ? body : JSON.stringify(body))
  }
  const server = tls === undefined ? createServer(answer) : createTlsServer(tls, answer)
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
  t.teardown(async () => {
    server.closeAllConnections()
    await new Promise((resolve) => server.close(resolve))
  })
  const url = `${tls === undefined ? 'http' : 'https'}://127.0.0.1:${(server.address() as AddressInfo).port}`
  return { url, flags: ['--url', url, '--token', 'secret'], asked }
}

const missing: Answer = {
  status: 404,
  body: { code: 'SYNC_REQUEST_NOT_FOUND', detail: 'the test gives no such route' },
}

export function problem(code: string, detail: string, status = 400): Answer {
  return { status, body: { type: `urn:syncline:problem:${code}`, title: code, status, detail, code } }
}
