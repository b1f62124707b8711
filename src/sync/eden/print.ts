/** What tells two values apart without keeping them: 53 bits, good for noticing an edit, not for security. */
export function print(text: string): string {
  let a = 0xdeadbeef
  let b = 0x41c6ce57
  for (let at = 0; at < text.length; at++) {
    const code = text.charCodeAt(at)
    a = Math.imul(a ^ code, 2654435761)
    b = Math.imul(b ^ code, 1597334677)
  }
  a = Math.imul(a ^ (a >>> 16), 2246822507) ^ Math.imul(b ^ (b >>> 13), 3266489909)
  b = Math.imul(b ^ (b >>> 16), 2246822507) ^ Math.imul(a ^ (a >>> 13), 3266489909)
  return (4294967296 * (2097151 & b) + (a >>> 0)).toString(36)
}

/** A UUID that follows from a text, for what a document names only by its content: the same content is the same record. */
export function uuidOf(text: string): string {
  const hex = [0, 1, 2]
    .map((n) =>
      Number.parseInt(print(`${n} ${text}`), 36)
        .toString(16)
        .padStart(14, '0'),
    )
    .join('')
  return `${hex.slice(1, 9)}-${hex.slice(9, 13)}-8${hex.slice(15, 18)}-8${hex.slice(18, 21)}-${hex.slice(22, 28)}${hex.slice(30, 36)}`
}
