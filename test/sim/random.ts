/** Chance that is the same each time for a seed. Streams of different names do not disturb each other. */
export type Random = {
  /** A whole number from 0 to below `bound`. */
  readonly below: (bound: number) => number
  /** True in `share` of all cases. */
  readonly chance: (share: number) => boolean
  readonly pick: <T>(list: readonly T[]) => T
  /** A name with its weight, by weight. */
  readonly weighted: <T extends string>(weights: Readonly<Record<T, number>>) => T
}

export function randomOf(...names: readonly (string | number)[]): Random {
  let state = hash(names.join('/'))
  const next = () => {
    state = (state + 0x6d2b79f5) >>> 0
    let mixed = Math.imul(state ^ (state >>> 15), state | 1)
    mixed ^= mixed + Math.imul(mixed ^ (mixed >>> 7), mixed | 61)
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32
  }
  const below = (bound: number) => Math.floor(next() * bound)
  return {
    below,
    chance: (share) => next() < share,
    pick: (list) => {
      const found = list[below(list.length)]
      if (found === undefined) throw new Error('nothing to pick from')
      return found
    },
    weighted: (weights) => {
      const entries = Object.entries(weights) as [never, number][]
      let at = next() * entries.reduce((sum, [, weight]) => sum + weight, 0)
      for (const [name, weight] of entries) {
        at -= weight
        if (at < 0) return name
      }
      throw new Error('no weight')
    },
  }
}

function hash(text: string): number {
  let value = 0x811c9dc5
  for (let at = 0; at < text.length; at++) value = Math.imul(value ^ text.charCodeAt(at), 0x01000193)
  return value >>> 0
}
