import { fault, quoted } from './format.ts'

/** What XML 1.0 cannot carry, not even as a numeric reference. */
// biome-ignore lint/suspicious/noControlCharactersInRegex: control characters are what it looks for
const NOT_XML = /[\0-\x08\x0b\x0c\x0e-\x1f\ufffe\uffff]/
const SPECIAL = /[&<>"'\t\n\r]/
const EVERY_SPECIAL = /[&<>"'\t\n\r]/g
const ESCAPES: Readonly<Record<string, string>> = {
  '&': '&amp;',
  '<': '&lt;',
  '>': '&gt;',
  '"': '&quot;',
  "'": '&apos;',
  '\t': '&#9;',
  '\n': '&#10;',
  '\r': '&#13;',
}

/** A text as XML carries it, in an attribute or between tags. Throws SYNC_FORMAT_INVALID for characters that XML lacks. */
export function xmlText(text: string, place?: string): string {
  if (NOT_XML.test(text) || !text.isWellFormed()) {
    if (place === undefined) fault(`XML has no character for all of ${quoted(text)}`)
    fault(`${place} cannot hold ${quoted(text)}: XML has no such character`)
  }
  return SPECIAL.test(text) ? text.replace(EVERY_SPECIAL, (character) => ESCAPES[character] as string) : text
}
