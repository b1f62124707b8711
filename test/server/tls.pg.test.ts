import { randomUUID } from 'node:crypto'
import { request } from 'node:https'
import t from 'tap'
import { makeCertificates, type Pair } from '../support/certificates.ts'
import { siteFactory } from '../support/sites.ts'
import { addPeer, serve } from './served.ts'

const certificates = makeCertificates(t)
const sites = await siteFactory(t)
const site = await sites.make('hub', 'create table city (id text primary key)', ['city'])

/** Status of a request over TLS. */
function get(
  port: number,
  path: string,
  token: string,
  client?: Pair,
): Promise<{ status: number; strict: string | undefined; text: string }> {
  return new Promise((resolve, reject) => {
    const pair = client === undefined ? {} : { cert: client.cert, key: client.key }
    const options = {
      host: '127.0.0.1',
      port,
      path,
      ca: certificates.ca,
      headers: { authorization: `Bearer ${token}` },
      agent: false,
      ...pair,
    }
    const sent = request(options, (response) => {
      let text = ''
      response.on('data', (chunk) => {
        text += chunk
      })
      response.on('end', () =>
        resolve({ status: response.statusCode ?? 0, strict: response.headers['strict-transport-security'], text }),
      )
    })
    sent.on('error', reject)
    sent.end()
  })
}

t.test('a site speaks TLS itself', async (t) => {
  const hub = await serve(t, site, { tls: certificates.server })
  await hub.app.listen({ port: 0, host: '127.0.0.1' })
  const { port } = hub.app.server.address() as { port: number }
  const answer = await get(port, '/api/v1/site', hub.tokens.viewer)
  t.equal(answer.status, 200)
  t.match(answer.strict, /max-age/)
  const plain = await serve(t, site)
  t.equal((await plain.ask(t, 'GET /')).headers['strict-transport-security'], undefined)
})

t.test(
  'a site with mutual TLS takes peers only with a certificate of its authority, besides the token; people need none',
  async (t) => {
    const hub = await serve(t, site, { tls: { ...certificates.server, clientCa: certificates.ca } })
    const field = await addPeer(hub, { name: 'field', uuid: randomUUID() }, ['city'])
    await hub.app.listen({ port: 0, host: '127.0.0.1' })
    const { port } = hub.app.server.address() as { port: number }
    const foreign = makeCertificates(t).client
    t.equal((await get(port, '/sync/v1/site', field.token, certificates.client)).status, 200)
    const without = await get(port, '/sync/v1/site', field.token)
    t.match(JSON.parse(without.text), { status: 401, code: 'SYNC_AUTH_MISSING', detail: /client certificate/ })
    t.equal((await get(port, '/sync/v1/site', field.token, foreign)).status, 401)
    t.equal((await get(port, '/sync/v1/site', 'guess', certificates.client)).status, 401, 'a certificate is no token')
    t.equal((await get(port, '/api/v1/site', hub.tokens.viewer)).status, 200)
  },
)
