import assert from 'node:assert/strict'
import { SynclineError } from './errors.ts'

/** A place in one site's change order. xact is a 64-bit transaction id in decimal digits, so never a `number`. */
export type Position = { readonly xact: string; readonly recordId: string }

/** The position up to which a peer has everything, with the log that it is a place in: in another it means nothing. */
export type Checkpoint = { readonly logId: string; readonly position: Position }

/** Limit of a checkpoint's text in characters; ASCII, so bytes too. */
export const CHECKPOINT_LENGTH_MAX = 1024

/** Limit of a record id in bytes of UTF-8: one that is longer would not fit into a checkpoint. */
export const RECORD_ID_BYTES_MAX = 640

const XACT_MAX = 2n ** 64n - 1n
/** The version mark comes first, to tell later forms apart; the record id last, as it may contain the separator. */
const PLAIN = /^1 ([\w.-]{1,64}) (0|[1-9]\d{0,19}) ([^\0]*)$/

/** The checkpoint as opaque text for a URL: base64url of version mark, log, xact and record id. */
export function formatCheckpoint(checkpoint: Checkpoint): string {
  const { logId, position } = checkpoint
  const plain = `1 ${logId} ${position.xact} ${position.recordId}`
  const text = Buffer.from(plain).toString('base64url')
  assert(
    isPlain(plain) && text.length <= CHECKPOINT_LENGTH_MAX,
    `no checkpoint can be made of ${JSON.stringify(checkpoint)}`,
  )
  return text
}

/** Reads what formatCheckpoint wrote, and nothing else. Throws SYNC_CHECKPOINT_INVALID. */
export function parseCheckpoint(text: string): Checkpoint {
  if (text.length > CHECKPOINT_LENGTH_MAX) {
    throw new SynclineError(
      'SYNC_CHECKPOINT_INVALID',
      `it has ${text.length} characters, at most ${CHECKPOINT_LENGTH_MAX} are allowed`,
    )
  }
  const plain = Buffer.from(text, 'base64url').toString()
  const [, logId, xact, recordId] = PLAIN.exec(plain) ?? []
  // Decoding is lenient with strange characters, spare bits and broken UTF-8; encoding again tells.
  const exact = Buffer.from(plain).toString('base64url') === text
  if (!exact || !isPlain(plain) || logId === undefined || xact === undefined || recordId === undefined) {
    throw new SynclineError(
      'SYNC_CHECKPOINT_INVALID',
      `${JSON.stringify(text.slice(0, 40))} is not a checkpoint that a site gave out`,
    )
  }
  return { logId, position: { xact, recordId } }
}

function isPlain(plain: string): boolean {
  const xact = PLAIN.exec(plain)?.[2]
  return xact !== undefined && BigInt(xact) <= XACT_MAX && plain.isWellFormed()
}

/** Order of two positions of one log, as in the database: by number, then by the bytes of the record id ("C"). */
export function comparePositions(a: Position, b: Position): number {
  const [left, right] = [BigInt(a.xact), BigInt(b.xact)]
  if (left !== right) return left < right ? -1 : 1
  // Not `<` on strings: that compares UTF-16, which puts U+E000 to U+FFFF behind the supplementary planes.
  return Buffer.compare(Buffer.from(a.recordId), Buffer.from(b.recordId))
}
