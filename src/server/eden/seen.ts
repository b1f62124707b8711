import type { Reference } from '../../sync/index.ts'

const FIRST_PLACES = 4_096

/**
 * Records that were told already in one document, each by a number of 53 bits: two that share one end a document early, and no more. A number
 * takes some sixteen bytes, whatever the record is.
 */
export class Seen {
  #places = new Float64Array(FIRST_PLACES)
  #size = 0

  /** False when it was there before. */
  add(reference: Reference): boolean {
    const number = numberOf(reference)
    const at = this.#placeOf(number)
    if (this.#places[at] !== 0) return false
    this.#places[at] = number
    this.#size++
    if (this.#size * 3 > this.#places.length * 2) this.#grow()
    return true
  }

  has(reference: Reference): boolean {
    return this.#places[this.#placeOf(numberOf(reference))] !== 0
  }

  /** Where a number is, or would be; one place is always free. */
  #placeOf(number: number): number {
    const last = this.#places.length - 1
    let at = (number % 0x1_0000_0000) & last
    while (this.#places[at] !== 0 && this.#places[at] !== number) at = (at + 1) & last
    return at
  }

  #grow(): void {
    const before = this.#places
    this.#places = new Float64Array(before.length * 2)
    for (const number of before) if (number !== 0) this.#places[this.#placeOf(number)] = number
  }
}

/** Never 0, which stands for nothing. */
function numberOf({ resource, id }: Reference): number {
  let [a, b] = [0x811c9dc5, 0x01000193]
  for (const text of [resource, ' ', id]) {
    for (let at = 0; at < text.length; at++) {
      a = Math.imul(a ^ text.charCodeAt(at), 0x01000193)
      b = Math.imul(b + text.charCodeAt(at), 0x85ebca6b) ^ (b >>> 13)
    }
  }
  return (a >>> 0) * 0x200000 + (b >>> 11) || 1
}
