import { canonicalDecimal } from './filter-decimal.ts'

/** Exact sum of decimal numbers in canonical form; undefined when one of them is none (NaN, Infinity). */
export function addDecimals(numbers: readonly string[]): string | undefined {
  const parts: (readonly [string, string])[] = []
  for (const number of numbers) {
    const text = canonicalDecimal(number)
    if (text === undefined) return undefined
    const [whole = '', fraction = ''] = text.split('.')
    parts.push([whole, fraction])
  }
  const places = Math.max(0, ...parts.map(([, fraction]) => fraction.length))
  const sum = parts.reduce((total, [whole, fraction]) => total + BigInt(`${whole}${fraction.padEnd(places, '0')}`), 0n)
  const digits = (sum < 0n ? -sum : sum).toString().padStart(places + 1, '0')
  const text = `${sum < 0n ? '-' : ''}${digits.slice(0, digits.length - places)}.${digits.slice(digits.length - places)}`
  return canonicalDecimal(text)
}
