import type { EdenAttributes, EdenElement, EdenField, EdenWriter } from './eden-element.ts'
import { fault, quoted } from './format.ts'
import { xmlText } from './xml-text.ts'

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

/** One flat text: pieces that are joined one by one would be kept apart for as long as it lives. */
function elementText(element: EdenElement): string {
  const parts: string[] = []
  putElement(parts, element)
  return parts.join('')
}

function putElement(parts: string[], { table, attributes, fields, components }: EdenElement): void {
  parts.push('<resource name="', xmlText(table), '"')
  putAttributes(parts, attributes)
  if (fields.length === 0 && components.length === 0) {
    parts.push('/>')
    return
  }
  parts.push('>')
  for (const field of fields) putField(parts, field)
  for (const component of components) putElement(parts, component)
  parts.push('</resource>')
}

function putField(parts: string[], { kind, field, attributes, text, inline }: EdenField): void {
  parts.push('<', kind, ' field="', xmlText(field), '"')
  putAttributes(parts, attributes)
  if (text === '' && inline === undefined) {
    parts.push('/>')
    return
  }
  parts.push('>', xmlText(text))
  if (inline !== undefined) putElement(parts, inline)
  parts.push('</', kind, '>')
}

function attributesText(attributes: EdenAttributes): string {
  const parts: string[] = []
  putAttributes(parts, attributes)
  return parts.join('')
}

function putAttributes(parts: string[], attributes: EdenAttributes): void {
  for (const name in attributes) {
    const value = attributes[name]
    if (value === undefined || !Object.hasOwn(attributes, name)) continue
    if (!/^[A-Za-z_][\w.-]*$/.test(name)) fault(`${quoted(name)} is no name of an attribute`)
    parts.push(' ', name, '="', xmlText(value), '"')
  }
}
