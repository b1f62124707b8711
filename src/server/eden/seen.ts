import type { Reference } from '../../sync/index.ts'

/** Records that were told already in this document, each by a number of 53 bits: two that share one end a document early, and no more. */
export class Seen {
  readonly #known = new Set<number>()

  /** False when it was there before. */
  add(reference: Reference): boolean {
    const size = this.#known.size
    return this.#known.add(numberOf(reference)).size > size
  }

  has(reference: Reference): boolean {
    return this.#known.has(numberOf(reference))
  }
}

function numberOf({ resource, id }: Reference): number {
  let [a, b] = [0x811c9dc5, 0x01000193]
  for (const text of [resource, ' ', id]) {
    for (let at = 0; at < text.length; at++) {
      a = Math.imul(a ^ text.charCodeAt(at), 0x01000193)
      b = Math.imul(b + text.charCodeAt(at), 0x85ebca6b) ^ (b >>> 13)
    }
  }
  return (a >>> 0) * 0x200000 + (b >>> 11)
}
