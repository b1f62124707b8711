import { isJsonObject, parseJson } from './codec/index.ts'
import { SynclineError } from './errors.ts'

/** What a pairing code tells the joining site. It is a secret until it is redeemed or expires. */
export type PairingCode = {
  /** Where the inviting site answers; http or https, without a slash at its end. */
  readonly url: string
  readonly uuid: string
  /** Name that the inviting site goes by. */
  readonly name: string
  /** Fingerprint of its Ed25519 key: SHA-256 in base64url. Who answers must prove that it holds the key. */
  readonly key: string
  /** Good for one redemption. */
  readonly secret: string
  /** ISO 8601 in UTC. */
  readonly expires: string
}

const PREFIX = 'syncline1.'
/** Far more than the longest URL and name need. */
const LENGTH_MAX = 8192
const BASE64URL = /^[A-Za-z0-9_-]+$/
const MEMBERS = {
  url: /^https?:\/\/[^\s/?#]+[^\s?#]*$/,
  uuid: /^[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}$/,
  name: /^.{1,200}$/su,
  key: /^[A-Za-z0-9_-]{43}$/,
  secret: /^[A-Za-z0-9_-]{43}$/,
  expires: /^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(?:\.\d+)?Z$/,
} as const satisfies Record<keyof PairingCode, RegExp>
const NAMES = Object.keys(MEMBERS) as (keyof PairingCode)[]

/** A pairing code as one line that survives mail and chat: the mark of its form, then base64url. */
export function encodePairingCode(code: PairingCode): string {
  const members = Object.fromEntries(NAMES.map((name) => [name, code[name]]))
  return PREFIX + Buffer.from(JSON.stringify(members)).toString('base64url')
}

/**
 * Reads a pairing code. White space, which mail programs put into long lines, does not count. Whether it has expired is for the caller,
 * who knows the time. Throws SYNC_AUTH_PAIRING_INVALID.
 */
export function decodePairingCode(text: string): PairingCode {
  if (text.length > LENGTH_MAX) throw invalid('it is far too long')
  const bare = text.replace(/\s/g, '')
  if (!bare.startsWith('syncline')) throw invalid(`a pairing code begins with ${PREFIX}`)
  if (!bare.startsWith(PREFIX)) throw invalid('it was made by a version of Syncline that this one does not understand')
  const body = bare.slice(PREFIX.length)
  const value = BASE64URL.test(body) ? parsed(Buffer.from(body, 'base64url').toString()) : undefined
  if (!isJsonObject(value)) throw invalid('a part of it is missing or altered')
  const members = NAMES.map((name) => {
    const member = value[name]
    if (typeof member !== 'string' || !MEMBERS[name].test(member)) throw invalid(`its ${name} is missing or altered`)
    return [name, member] as const
  })
  return Object.fromEntries(members) as PairingCode
}

/** Both ends of a pairing, and what is new in it. */
export type Pairing = {
  /** Chance from the joining site, so that no earlier answer can be played back to it. */
  readonly nonce: string
  /** UUIDs. */
  readonly inviter: string
  readonly joiner: string
  /** SHA-256 of the token that the inviting site gives, in base64url: the token itself is not signed. */
  readonly tokenHash: string
}

/** The text that the inviting site signs to prove, to who holds its fingerprint, that the answer is its own and whole. */
export function pairingProof(pairing: Pairing): string {
  const { nonce, inviter, joiner, tokenHash } = pairing
  return ['syncline pairing 1', nonce, inviter, joiner, tokenHash].join('\n')
}

function parsed(text: string): unknown {
  try {
    return parseJson(text, 2)
  } catch {
    return undefined
  }
}

function invalid(why: string): SynclineError {
  return new SynclineError('SYNC_AUTH_PAIRING_INVALID', `the pairing code cannot be read: ${why}`)
}
