import { Type } from 'typebox'
import { forgetHost, listHostKeys } from '../../store/index.ts'
import { callerOf } from '../access.ts'
import type { ServerDeps } from '../deps.ts'
import type { Routes } from '../exchange.ts'
import { answer, closed, flag, nullable, text, time } from '../schemas.ts'

const PORT = { minimum: 1, maximum: 65_535 }
const hostMembers = {
  host: Type.String({ minLength: 1, maxLength: 255, description: 'Name or address.', examples: ['backup01'] }),
  port: Type.Optional(Type.Integer({ ...PORT, description: 'Port of its SSH server; default 22.' })),
  user: Type.Optional(Type.String({ minLength: 1, maxLength: 64, description: 'User to log in as.' })),
  key: Type.Optional(
    Type.String({ minLength: 1, maxLength: 4096, description: 'Path of the private key on the machine of the site.' }),
  ),
}
const host = closed({
  ...hostMembers,
  jump: Type.Optional(
    closed(hostMembers, { description: 'Host over which it is reached; it must be trusted already.' }),
  ),
})
const keyMembers = {
  host: text('Name or address.'),
  port: Type.Integer({ ...PORT, description: 'Port of its SSH server.' }),
  type: text('Kind of the key.', { examples: ['ssh-ed25519'] }),
  fingerprint: text('As `ssh-keygen -l` shows it on that host.', { examples: ['SHA256:kFy…'] }),
}
const shown = closed(
  {
    items: Type.Array(
      closed({ ...keyMembers, trusted: flag('Whether the site believes a host that shows this key.') }),
    ),
  },
  { title: 'ShownHostKeys', description: 'The keys that a host shows.' },
)
const trusted = closed(
  {
    items: Type.Array(
      closed({
        ...keyMembers,
        trustedAt: time('Since when.'),
        trustedBy: nullable(Type.String(), { description: 'Name of the token that said so.' }),
      }),
    ),
  },
  { title: 'TrustedHostKeys', description: 'The keys that somebody has confirmed.' },
)

/** /api/v1/transfers/hosts: which hosts are believed, and with which keys. */
export const transferRoutes =
  ({ store, actions }: ServerDeps): Routes =>
  async (app) => {
    const list = {
      operationId: 'listTrustedHosts',
      tags: ['transfers'],
      summary: 'List trusted hosts',
      description: 'A transfer connects only to a host that shows a key of this list.',
      response: { 200: answer(trusted) },
    }
    app.get('/transfers/hosts', { schema: list, config: { access: 'viewer' } }, async () => {
      const keys = await listHostKeys(store.db)
      return { items: keys.map(({ key: _, ...each }) => each) }
    })

    const scan = {
      operationId: 'scanHost',
      tags: ['transfers'],
      summary: 'Ask a host for its keys',
      description: 'Nothing is trusted by it: compare a fingerprint with what the host itself shows.',
      body: host,
      response: { 200: answer(shown) },
    }
    app.post('/transfers/hosts/scan', { schema: scan, config: { access: 'administrator' } }, async (request) => {
      const keys = await actions.scanHost(request.body)
      return { items: keys.map(({ key: _, ...each }) => each) }
    })

    const trust = {
      operationId: 'trustHost',
      tags: ['transfers'],
      summary: 'Trust a host',
      description: 'The host must show the keys with these fingerprints now. Other keys of it are trusted no more.',
      body: closed({
        host,
        fingerprints: Type.Array(
          Type.String({ pattern: '^SHA256:[A-Za-z0-9+/]{43}$', description: 'Fingerprint of a key.' }),
          { minItems: 1, maxItems: 20, description: 'Fingerprints that a person has compared.' },
        ),
      }),
      response: { 200: answer(shown) },
    }
    app.post('/transfers/hosts', { schema: trust, config: { access: 'administrator' } }, async (request) => {
      const { host, fingerprints } = request.body
      const keys = await actions.trustHost(host, fingerprints, callerOf(request).name)
      return { items: keys.map(({ key: _, ...each }) => each) }
    })

    const forget = {
      operationId: 'forgetHost',
      tags: ['transfers'],
      summary: 'Trust a host no more',
      description: 'Transfers with it fail from now on.',
      params: closed({ host: Type.String({ minLength: 1, maxLength: 255, description: 'Name or address.' }) }),
      querystring: closed({ port: Type.Integer({ ...PORT, default: 22, description: 'Port of its SSH server.' }) }),
      'x-answers': { 204: { description: 'Forgotten.' } },
    }
    app.delete(
      '/transfers/hosts/:host',
      { schema: forget, config: { access: 'administrator' } },
      async (request, reply) => {
        await forgetHost(store.db, request.params.host, request.query.port)
        return reply.code(204).send()
      },
    )
  }
