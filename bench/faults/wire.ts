/** A bad line between two HTTP sites: it delivers writing requests twice, loses answers, and delivers old requests again. */
import { createServer, type IncomingHttpHeaders, request } from 'node:http'
import type { AddressInfo } from 'node:net'
import type { Owner } from '../../test/support/postgres.ts'
import type { System } from './contest.ts'

export type Wire = {
  /** Where the site on the other end is reached through this line. */
  readonly url: string
  readonly duplicate: (on: boolean) => void
  /** Delivers every writing request that ever passed once more, in the old order. Resolves with how many there were. */
  readonly replay: () => Promise<number>
}

type Kept = {
  readonly method: string
  readonly path: string
  readonly headers: IncomingHttpHeaders
  readonly body: Buffer
}
type Answer = { readonly status: number; readonly headers: IncomingHttpHeaders; readonly body: Buffer }

/** Every so many writing requests one answer is lost. */
const LOST_EVERY = 3

export async function startWire(owner: Owner, target: string): Promise<Wire> {
  const { hostname, port } = new URL(target)
  const kept: Kept[] = []
  let twice = false
  let writes = 0
  const deliver = ({ method, path, headers, body }: Kept): Promise<Answer> =>
    new Promise((resolve, reject) => {
      const sent = request({ hostname, port, method, path, headers }, (answer) => {
        const chunks: Buffer[] = []
        answer.on('data', (chunk: Buffer) => chunks.push(chunk))
        answer.on('error', reject)
        answer.on('end', () =>
          resolve({ status: answer.statusCode ?? 502, headers: answer.headers, body: Buffer.concat(chunks) }),
        )
      })
      sent.on('error', reject)
      sent.end(body)
    })
  const server = createServer((incoming, outgoing) => {
    const chunks: Buffer[] = []
    incoming.on('data', (chunk: Buffer) => chunks.push(chunk))
    incoming.on('error', () => {})
    incoming.on('end', () => {
      const asked = {
        method: incoming.method ?? 'GET',
        path: incoming.url ?? '/',
        headers: incoming.headers,
        body: Buffer.concat(chunks),
      }
      const writing = asked.method === 'POST' || asked.method === 'PUT'
      const answer = async () => {
        if (writing) kept.push(asked)
        const lose = writing && twice && ++writes % LOST_EVERY === 0
        const first = await deliver(asked)
        const last = writing && twice ? await deliver(asked) : first
        if (lose) return void outgoing.destroy()
        const { 'transfer-encoding': _, ...headers } = last.headers
        outgoing.writeHead(last.status, headers).end(last.body)
      }
      answer().catch(() => outgoing.destroy())
    })
  })
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
  owner.teardown(async () => {
    server.closeAllConnections()
    await new Promise((resolve) => server.close(resolve))
  })
  return {
    url: `http://127.0.0.1:${(server.address() as AddressInfo).port}`,
    duplicate: (on) => {
      twice = on
    },
    replay: async () => {
      for (const each of [...kept]) await deliver(each)
      return kept.length
    },
  }
}

/** A system that delivers requests twice, and sends again what went over its wires before. */
export function repeating(links: readonly { readonly wire: Wire }[]): Pick<System, 'duplicate' | 'replay'> {
  return {
    duplicate: async () => {
      for (const { wire } of links) wire.duplicate(true)
    },
    replay: async () => {
      for (const { wire } of links) {
        wire.duplicate(false)
        await wire.replay()
      }
    },
  }
}
