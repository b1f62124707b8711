/** A small real HTTP proxy that wants a user and a password: CONNECT for https, absolute requests for http (RFC 9110 sections 7.2, 9.3.6). */
import { createServer, type IncomingMessage, request } from 'node:http'
import { type AddressInfo, connect } from 'node:net'
import type { Owner } from './postgres.ts'

export type Proxy = {
  readonly port: number
  /** What went through, such as `GET http://127.0.0.1:1234/x` or `CONNECT 127.0.0.1:1234`. Refused requests are not in it. */
  readonly seen: readonly string[]
}

export async function startProxy(t: Owner, user: string, password: string): Promise<Proxy> {
  const seen: string[] = []
  const wanted = `Basic ${Buffer.from(`${user}:${password}`).toString('base64')}`
  const allowed = (incoming: IncomingMessage) => incoming.headers['proxy-authorization'] === wanted
  const server = createServer((incoming, outgoing) => {
    if (!allowed(incoming)) return outgoing.writeHead(407, { 'proxy-authenticate': 'Basic realm="test"' }).end()
    seen.push(`${incoming.method} ${incoming.url}`)
    const { 'proxy-authorization': _, ...headers } = incoming.headers
    const target = request(incoming.url ?? '', { method: incoming.method ?? 'GET', headers }, (answer) => {
      outgoing.writeHead(answer.statusCode ?? 502, answer.headers)
      answer.pipe(outgoing)
    })
    target.on('error', () => outgoing.writeHead(502).end())
    incoming.pipe(target)
  })
  server.on('connect', (incoming, socket, head) => {
    if (!allowed(incoming)) return socket.end('HTTP/1.1 407 Proxy Authentication Required\r\ncontent-length: 0\r\n\r\n')
    seen.push(`CONNECT ${incoming.url}`)
    const [host = '', port] = (incoming.url ?? '').split(':')
    const target = connect(Number(port), host, () => {
      socket.write('HTTP/1.1 200 Connection established\r\n\r\n')
      target.write(head)
      target.pipe(socket).pipe(target)
    })
    target.on('error', () => socket.destroy())
    socket.on('error', () => target.destroy())
  })
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
  t.teardown(async () => {
    server.closeAllConnections()
    await new Promise((resolve) => server.close(resolve))
  })
  return { port: (server.address() as AddressInfo).port, seen }
}
