const DECIMAL = /^([+-]?)(?=\.?\d)(\d*)(?:\.(\d*))?(?:e([+-]?\d{1,7}))?$/i

/** Most digits that a number may have before or after the point; about what PostgreSQL's numeric takes. */
const DIGITS_MAX = 140_000

/**
 * A decimal number in its one canonical form: no exponent, no plus sign, no zeros that say nothing, no minus zero.
 * Undefined when the text is no decimal number, or one too long to be written out.
 */
export function canonicalDecimal(text: string): string | undefined {
  const parts = DECIMAL.exec(text)
  if (parts === null) return undefined
  const [, sign = '', whole = '', fraction = '', exponent = '0'] = parts
  const all = whole + fraction
  let first = 0
  while (all[first] === '0') first++
  let end = all.length
  while (end > first && all[end - 1] === '0') end--
  const digits = all.slice(first, end)
  if (digits === '') return '0'
  const point = whole.length - first + Number(exponent)
  if (Math.abs(point) > DIGITS_MAX) return undefined
  const minus = sign === '-' ? '-' : ''
  if (point <= 0) return `${minus}0.${'0'.repeat(-point)}${digits}`
  if (point >= digits.length) return minus + digits.padEnd(point, '0')
  return `${minus}${digits.slice(0, point)}.${digits.slice(point)}`
}

/** Order of two canonical decimals, exact at any length. */
export function orderDecimals(a: string, b: string): number {
  const negative = a.startsWith('-')
  if (negative !== b.startsWith('-')) return negative ? -1 : 1
  return negative ? orderMagnitudes(b.slice(1), a.slice(1)) : orderMagnitudes(a, b)
}

function orderMagnitudes(a: string, b: string): number {
  const difference = wholeDigits(a) - wholeDigits(b)
  if (difference !== 0) return difference
  return a < b ? -1 : a > b ? 1 : 0
}

function wholeDigits(magnitude: string): number {
  const point = magnitude.indexOf('.')
  return point === -1 ? magnitude.length : point
}
