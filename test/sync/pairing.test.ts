import { createHash, randomBytes, randomUUID } from 'node:crypto'
import fc from 'fast-check'
import t from 'tap'
import { decodePairingCode, encodePairingCode, type PairingCode, pairingProof } from '../../src/sync/index.ts'

const secret = fc.uint8Array({ minLength: 32, maxLength: 32 }).map((bytes) => Buffer.from(bytes).toString('base64url'))
const code: fc.Arbitrary<PairingCode> = fc.record({
  url: fc.webUrl({ validSchemes: ['http', 'https'] }).map((url) => url.replace(/\/+$/, '')),
  uuid: fc.uuid(),
  name: fc.string({ minLength: 1, maxLength: 200, unit: 'grapheme-ascii' }),
  key: secret,
  secret,
  expires: fc
    .date({ min: new Date(0), max: new Date('2100-01-01'), noInvalidDate: true })
    .map((date) => date.toISOString()),
})
const some = {
  url: 'https://hub.example.org/syncline',
  uuid: '0a8f0c1e-0d43-4f0a-9c5b-3c2b7f6f1d11',
  name: 'Hub Vienna',
  key: randomBytes(32).toString('base64url'),
  secret: randomBytes(32).toString('base64url'),
  expires: '2030-01-31T12:00:00.000Z',
}

t.test('a pairing code is one line of plain characters and reads back as it was', async (t) => {
  fc.assert(
    fc.property(code, (code) => {
      const text = encodePairingCode(code)
      if (!/^syncline1\.[A-Za-z0-9_-]+$/.test(text)) throw new Error(text)
      t.same(decodePairingCode(text), code)
    }),
  )
})

t.test('a pairing code survives what mail does to long lines', async (t) => {
  const text = encodePairingCode(some)
  const wrapped = `  ${text.replace(/.{60}/g, '$&\r\n ')}\n`
  t.same(decodePairingCode(wrapped), some)
})

t.test('a pairing code carries nothing but its members', async (t) => {
  const text = encodePairingCode({ ...some, token: 'not for the code' } as PairingCode)
  t.same(decodePairingCode(text), some)
})

t.test(
  'a pairing code that is cut, altered, foreign or of a later form is refused, and so is one with a member missing',
  async (t) => {
    const text = encodePairingCode(some)
    const refused = (text: string, pattern: RegExp) =>
      t.throws(
        () => decodePairingCode(text),
        { code: 'SYNC_AUTH_PAIRING_INVALID', message: pattern },
        text.slice(0, 40),
      )
    refused('', /begins with/)
    refused('hello', /begins with/)
    refused(text.replace('syncline1.', 'syncline2.'), /version/)
    refused(text.slice(0, -10), /missing or altered/)
    refused(`${text}!`, /missing or altered/)
    refused('x'.repeat(10_000), /too long/)
    refused(`syncline1.${Buffer.from('[]').toString('base64url')}`, /missing or altered/)
    for (const name of Object.keys(some))
      refused(encodePairingCode({ ...some, [name]: undefined }), new RegExp(`its ${name}`))
    refused(encodePairingCode({ ...some, url: 'file:///etc/passwd' }), /its url/)
    refused(encodePairingCode({ ...some, url: 'https://hub.example.org/?a=b' }), /its url/)
    refused(encodePairingCode({ ...some, secret: 'short' }), /its secret/)
  },
)

t.test('the proof of a pairing differs with each of its parts', async (t) => {
  const pairing = {
    nonce: randomBytes(16).toString('base64url'),
    inviter: randomUUID(),
    joiner: randomUUID(),
    tokenHash: createHash('sha256').update('token').digest('base64url'),
  }
  const proofs = [
    pairingProof(pairing),
    ...Object.keys(pairing).map((part) => pairingProof({ ...pairing, [part]: 'other' })),
    pairingProof({ ...pairing, inviter: pairing.joiner, joiner: pairing.inviter }),
  ]
  t.equal(new Set(proofs).size, 6)
})
