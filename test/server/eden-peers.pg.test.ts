import t from 'tap'
import { siteFactory } from '../support/sites.ts'
import { serve } from './served.ts'

const sites = await siteFactory(t)
const hub = await serve(t, await sites.make('hub', ''))

t.test('a Sahana Eden site is added with an account, and resources are made as it describes them', async (t) => {
  const admin = (question: string, body?: unknown) =>
    hub.ask(t, question, { token: hub.tokens.administrator, ...(body !== undefined && { body }) })
  const body = { name: 'relief', url: 'http://relief.example.org/eden', username: 'sync@example.org', password: 'a:b' }
  const made = await admin('POST /api/v1/peers/eden', body)
  t.match(made, {
    status: 201,
    json: { name: 'relief', kind: 'eden', hasToken: true },
    headers: { location: '/api/v1/peers/relief' },
  })
  t.match(hub.asked.at(-1), /"token":"sync@example.org:a:b"/, 'the account is what this site shows there')
  t.notMatch(JSON.stringify(made.json), /a:b/, 'and shows to nobody')
  for (const wrong of [{ username: 'with:colon' }, { password: '' }, { more: 1 }])
    t.match(await admin('POST /api/v1/peers/eden', { ...body, name: 'other', ...wrong }), {
      status: 400,
      json: { code: 'SYNC_REQUEST_INVALID' },
    })
  const passive = await admin('POST /api/v1/peers/eden', {
    name: 'caller',
    uuid: '11111111-2222-4333-8444-888888888888',
  })
  t.match(passive, { status: 201, json: { url: null, hasToken: false } })

  const created = await admin('POST /api/v1/resources/eden', { peer: 'relief', tables: ['org_sector'] })
  t.match(created, {
    status: 201,
    json: { made: [{ resource: { name: 'org_sector', managed: true }, without: [String] }] },
  })
  t.match(await admin('POST /api/v1/resources/eden', { peer: 'nobody', tables: ['org_sector'] }), { status: 404 })
  t.match(await admin('POST /api/v1/resources/eden', { peer: 'relief', tables: [] }), { status: 400 })
})
