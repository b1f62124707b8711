import type { EdenAttributes, EdenElement, EdenField, EdenWriter } from './eden-element.ts'
import { fault, quoted } from './format.ts'

/** What XML 1.0 cannot carry, not even as a numeric reference. */
// biome-ignore lint/suspicious/noControlCharactersInRegex: control characters are what it looks for
const NOT_XML = /[\0-\x08\x0b\x0c\x0e-\x1f\ufffe\uffff]/
const SPECIAL = /[&<>"'\t\n\r]/
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

/** Writes S3XML as Eden reads it. Throws SYNC_FORMAT_INVALID for a text that XML cannot carry. */
export function s3xmlWriter(): EdenWriter {
  return {
    mediaType: 'text/xml',
    open: (root) => `<?xml version='1.0' encoding='utf-8'?>\n<s3xml${attributesText(root)}>`,
    element: elementText,
    close: () => '</s3xml>',
  }
}

/** A document without records, as Eden writes it. */
export function emptyS3xml(root: EdenAttributes): string {
  return `<?xml version='1.0' encoding='utf-8'?>\n<s3xml${attributesText(root)}/>`
}

function elementText({ table, attributes, fields, components }: EdenElement): string {
  let text = `<resource name="${escaped(table)}"${attributesText(attributes)}`
  if (fields.length === 0 && components.length === 0) return `${text}/>`
  text += '>'
  for (const field of fields) text += fieldText(field)
  for (const component of components) text += elementText(component)
  return `${text}</resource>`
}

function fieldText({ kind, field, attributes, text, inline }: EdenField): string {
  const start = `<${kind} field="${escaped(field)}"${attributesText(attributes)}`
  if (text === '' && inline === undefined) return `${start}/>`
  return `${start}>${escaped(text)}${inline === undefined ? '' : elementText(inline)}</${kind}>`
}

function attributesText(attributes: EdenAttributes): string {
  let text = ''
  for (const name in attributes) {
    const value = attributes[name]
    if (value === undefined || !Object.hasOwn(attributes, name)) continue
    if (!/^[A-Za-z_][\w.-]*$/.test(name)) fault(`${quoted(name)} is no name of an attribute`)
    text += ` ${name}="${escaped(value)}"`
  }
  return text
}

function escaped(text: string): string {
  if (NOT_XML.test(text) || !text.isWellFormed()) fault(`XML has no character for all of ${quoted(text)}`)
  return SPECIAL.test(text) ? text.replace(/[&<>"'\t\n\r]/g, (character) => ESCAPES[character] as string) : text
}
