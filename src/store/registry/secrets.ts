import { createCipheriv, createDecipheriv, createHash, randomBytes } from 'node:crypto'
import { SynclineError } from '../../sync/index.ts'

/** Length of the data key that seals what this site must keep secret, in bytes. */
export const DATA_KEY_BYTES = 32
const FORMAT = 1
const NONCE_BYTES = 12
const TAG_BYTES = 16

/**
 * Where a secret lives: table, column and the unchangeable name of its row. It is authenticated with the secret, so that a sealed value that is
 * copied to another row or column does not open there.
 */
export type SecretPlace = { readonly table: string; readonly column: string; readonly row: string }

/** Seals with AES-256-GCM under a fresh random nonce: one byte for the format, then nonce, tag, ciphertext. */
export function seal(key: Buffer, place: SecretPlace, secret: string | Buffer): Buffer {
  checkKey(key)
  const nonce = randomBytes(NONCE_BYTES)
  const cipher = createCipheriv('aes-256-gcm', key, nonce).setAAD(nameOf(place))
  const text = Buffer.concat([cipher.update(secret), cipher.final()])
  return Buffer.concat([Buffer.of(FORMAT), nonce, cipher.getAuthTag(), text])
}

/** Opens what `seal` made for the same place. Errors: SYNC_CONFIG_DATA_KEY_WRONG. */
export function unseal(key: Buffer, place: SecretPlace, sealed: Buffer): Buffer {
  checkKey(key)
  const text = sealed.subarray(1 + NONCE_BYTES + TAG_BYTES)
  try {
    if (sealed[0] !== FORMAT) throw new Error(`unknown format ${sealed[0]}`)
    const decipher = createDecipheriv('aes-256-gcm', key, sealed.subarray(1, 1 + NONCE_BYTES), {
      authTagLength: TAG_BYTES,
    })
      .setAAD(nameOf(place))
      .setAuthTag(sealed.subarray(1 + NONCE_BYTES, 1 + NONCE_BYTES + TAG_BYTES))
    return Buffer.concat([decipher.update(text), decipher.final()])
  } catch (cause) {
    const detail = `syncline.${place.table}.${place.column} of ${place.row} was not sealed with the key of this data folder`
    throw new SynclineError('SYNC_CONFIG_DATA_KEY_WRONG', detail, { cause })
  }
}

/** 256 random bits as 43 base64url characters. */
export function randomSecret(): string {
  return randomBytes(32).toString('base64url')
}

/** What is kept of a random secret. No salt and no slow hash: 256 random bits cannot be guessed. */
export function secretHash(secret: string): Buffer {
  return createHash('sha256').update(secret).digest()
}

function nameOf(place: SecretPlace): Buffer {
  return Buffer.from(JSON.stringify([place.table, place.column, place.row]))
}

function checkKey(key: Buffer): void {
  if (key.length !== DATA_KEY_BYTES)
    throw new Error(`the data key has ${key.length} bytes instead of ${DATA_KEY_BYTES}`)
}
