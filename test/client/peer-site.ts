/**
 * The other side of an exchange for tests of the client: a real store behind a small HTTP server that can be told to misbehave. What the
 * server of a site does with the same requests has its own tests.
 */
import { createServer, type IncomingMessage, type ServerResponse } from 'node:http'
import type { AddressInfo } from 'node:net'
import type { Test } from 'tap'
import {
  answerComparison,
  findResource,
  type Peer,
  receiveChanges,
  redrive,
  type Self,
  type Store,
  serveChanges,
  serveRows,
  writeCheckpoint,
} from '../../src/store/index.ts'
import { asksForRows, decodeLines, linesBody, rowsBody, SynclineError } from '../../src/sync/index.ts'

export const LIMITS = {
  batchRowsMax: 1000,
  batchBytesMax: 1_000_000,
  recordBytesMax: 100_000,
  clockAheadMaxMs: 300_000,
  bodyBytesMax: 10_000_000,
  depthMax: 64,
  requestTimeoutMs: 5_000,
}

/** Answers in place of the site; false lets the site answer. */
export type Misbehave = (request: IncomingMessage, response: ServerResponse) => boolean | Promise<boolean>

export type PeerSite = {
  readonly url: string
  /** Requests as `GET /changes`, in order, and after one that is answered in rows `rows 5`, by their number. */
  readonly seen: string[]
  misbehave: Misbehave
  readonly close: () => Promise<void>
}

export async function servePeer(t: Test, store: Store, self: () => Self, caller: () => Peer): Promise<PeerSite> {
  const link = () => ({ self: self(), peer: caller() })
  const seen: string[] = []
  const answer = async (request: IncomingMessage, response: ServerResponse) => {
    const url = new URL(request.url ?? '', 'http://here')
    const [, , , noun = '', name = ''] = url.pathname.split('/')
    seen.push(`${request.method} /${noun}`)
    if (await site.misbehave(request, response)) return
    const chunks: Buffer[] = []
    for await (const chunk of request) chunks.push(chunk as Buffer)
    const body = Buffer.concat(chunks)
    const query = Object.fromEntries(url.searchParams)
    const json = (value: unknown) => response.setHeader('content-type', 'application/json').end(JSON.stringify(value))
    if (noun === 'site') {
      const { uuid, name, logId } = self()
      return json({ uuid, name, logId, time: new Date().toISOString(), protocols: [1], limits: LIMITS, resources: [] })
    }
    if (noun === 'changes' && request.method === 'GET') {
      const { resource = '', after, limit, filter, columns } = query
      const asked = { resource, after, limit: Number(limit), filter, columns: columns?.split(',') }
      const rows = asksForRows(request.headers.accept) ? await serveRows(store, link(), asked, LIMITS) : null
      if (rows !== null) {
        seen.push(`rows ${rows.count}`)
        return response.setHeader('content-type', 'application/vnd.syncline.rows').end(rowsBody(rows))
      }
      const batch = await serveChanges(store, link(), asked, LIMITS)
      response.setHeader('content-type', 'application/vnd.syncline.lines')
      return response.end(linesBody(batch).toString())
    }
    if (noun === 'changes') {
      const batch = decodeLines(body, { ...LIMITS, recordsMax: LIMITS.batchRowsMax })
      const push = { resource: query.resource ?? '', batches: [batch], byHand: false, runId: null }
      const report = await receiveChanges(store, link(), push, LIMITS)
      if (report.counts.applied > 0) await redrive(store, self(), null, LIMITS)
      return json(report)
    }
    if (noun === 'digests')
      return json(await answerComparison(store, caller(), { resource: name, ...JSON.parse(body.toString()) }))
    const { id } = await findResource(store.db, name)
    await writeCheckpoint(
      store.db,
      caller().id,
      id,
      'ack',
      (JSON.parse(body.toString()) as { checkpoint: string }).checkpoint,
    )
    return response.writeHead(204).end()
  }
  const server = createServer((request, response) => {
    answer(request, response).catch((error: unknown) => {
      if (response.headersSent) return response.destroy()
      const [status, code] = error instanceof SynclineError ? [409, error.code] : [500, 'SYNC_INTERNAL']
      const problem = { title: 'Refused', detail: (error as Error).message, code, status }
      return response.writeHead(status, { 'content-type': 'application/problem+json' }).end(JSON.stringify(problem))
    })
  })
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
  const close = async () => {
    server.closeAllConnections()
    await new Promise((resolve) => server.close(resolve))
  }
  t.teardown(close)
  const site: PeerSite = {
    url: `http://127.0.0.1:${(server.address() as AddressInfo).port}`,
    seen,
    misbehave: () => false,
    close,
  }
  return site
}
