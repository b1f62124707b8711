import { Readable } from 'node:stream'
import { Type } from 'typebox'
import { findResource, listGrants, readCheckpoint, readSelf } from '../../store/index.ts'
import { parseCheckpoint, SynclineError } from '../../sync/index.ts'
import { peerOf } from '../access.ts'
import { type ExchangeDeps, hangup, type Routes } from '../exchange.ts'
import { RetryLater } from '../problem.ts'
import type { Heads } from '../watch.ts'

/** A line at least this often keeps proxies and the other side from giving up. */
const BEAT_MS = 15_000
/** How often the grants of a listening peer are read again. */
const GRANTS_MS = 60_000

/** GET /sync/v1/events: tells a peer that there is something to pull, so that it need not ask again and again. */
export const eventRoutes =
  (deps: ExchangeDeps): Routes =>
  async (app) => {
    const { store, watch, seats, closing } = deps
    const schema = {
      operationId: 'listenForChanges',
      tags: ['sync'],
      summary: 'Listen for changes',
      description:
        'Server-sent events. `changes` names a resource that has something to pull; it may turn out to be nothing new for this peer. A comment line comes every 15 seconds.',
      'x-answers': {
        200: {
          description: 'A stream without end: `event: changes` with `data: {"resource":"city"}`.',
          content: { 'text/event-stream': Type.String() },
        },
      },
    }
    app.get('/events', { schema, config: { access: 'peer', endless: true } }, async (request, reply) => {
      const { id, name } = peerOf(request)
      const leave = seats.take(id)
      if (leave === null)
        throw new RetryLater('SYNC_REQUEST_TOO_MANY', `peer "${name}" listens often enough already`, 30)
      const signal = hangup(reply, closing)
      const stream = Readable.from(announcements(id, signal), { objectMode: false, highWaterMark: 1024 })
      stream.once('close', leave)
      reply.headers({ 'content-type': 'text/event-stream', 'x-accel-buffering': 'no' })
      return reply.send(stream)
    })

    async function* announcements(peerId: number, signal: AbortSignal): AsyncIterable<string> {
      let heads = await watch.heads(await pullable(peerId))
      let grantsAt = Date.now()
      yield ': here\n\n'
      for (const name of await behind(peerId, heads)) yield announcement(name)
      while (!signal.aborted) {
        const moved = await watch.moved(heads, BEAT_MS, signal)
        if (signal.aborted) return
        if (moved === null) yield ':\n\n'
        for (const [name, head] of moved ?? []) if (heads.get(name) !== head) yield announcement(name)
        heads = moved ?? heads
        if (Date.now() - grantsAt < GRANTS_MS) continue
        grantsAt = Date.now()
        const now = await watch.heads(await pullable(peerId))
        // What was known keeps the place where it was told; what is new is told from here on.
        heads = new Map([...now].map(([name, head]) => [name, heads.get(name) ?? head]))
      }
    }

    async function pullable(peerId: number): Promise<readonly string[]> {
      const grants = await listGrants(store.db, peerId)
      return grants.filter(({ direction }) => direction === 'pull').map(({ resource }) => resource)
    }

    /** Resources that moved since the peer last said how far it has come. */
    async function behind(peerId: number, heads: Heads): Promise<readonly string[]> {
      const { logId } = await readSelf(store.db)
      const found: string[] = []
      for (const [name, head] of heads) {
        const { id } = await findResource(store.db, name)
        const held = await readCheckpoint(store.db, peerId, id, 'ack')
        if (head !== '0' && (held === null || !isAt(held, logId, head))) found.push(name)
      }
      return found
    }
  }

function announcement(resource: string): string {
  return `event: changes\ndata: ${JSON.stringify({ resource })}\n\n`
}

function isAt(held: string, logId: string, head: string): boolean {
  try {
    const checkpoint = parseCheckpoint(held)
    return checkpoint.logId.split('.')[0] === logId && checkpoint.position.xact === head
  } catch (error) {
    if (error instanceof SynclineError) return false
    throw error
  }
}
