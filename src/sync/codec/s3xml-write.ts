import { XMLBuilder } from 'fast-xml-parser'
import type { Batch, Change, Json, PutChange } from '../record.ts'
import { fault, glue, quoted } from './format.ts'
import { xmlText } from './xml-text.ts'

/** Dates and times travel bare, as Eden reads them; none of these texts is JSON, so they come back as the same text. */
const ISO_TIME =
  /^(?:\d{4,}-\d\d-\d\d(?:[T ]\d\d:\d\d(?::\d\d(?:\.\d+)?)?)?|\d\d:\d\d(?::\d\d(?:\.\d+)?)?)(?:Z|[+-]\d\d(?::?\d\d)?)?$/

const builder = new XMLBuilder({
  ignoreAttributes: false,
  attributeNamePrefix: '@',
  suppressEmptyNode: true,
  // By default `deleted="true"` would lose its value and the document its well-formedness.
  suppressBooleanAttributes: false,
  // The builder's own replacement leaves TAB and newline raw, which a reader must turn into spaces.
  processEntities: false,
  attributeValueProcessor: (name: string, value: unknown) => xmlText(String(value), `attribute ${name}`),
})

const CLOSING = '</s3xml>'

/**
 * A batch as an S3XML document. Throws SYNC_FORMAT_INVALID for an id or name that XML cannot carry; values travel as
 * JSON and always can.
 */
export function* writeS3xml(batch: Batch): Iterable<string> {
  yield* glue(pieces(batch))
}

function* pieces(batch: Batch): Iterable<string> {
  const count = batch.changes.length
  const root = {
    '@success': count > 0,
    '@results': count,
    '@count': count,
    '@checkpoint': batch.next?.checkpoint,
    '@more': batch.next?.more,
  }
  yield `<?xml version="1.0" encoding="UTF-8"?>\n${builder.build({ s3xml: root }).replace(/\/>$/, '>')}\n`
  for (const change of batch.changes) yield `${builder.build({ resource: resourceNode(batch.resource, change) })}\n`
  yield `${CLOSING}\n`
}

function resourceNode(resource: string, change: Change): object {
  const { id, version } = change
  return {
    '@name': resource,
    '@uuid': id,
    ...(version && {
      '@modified_on': new Date(version.clock / 1000).toISOString().slice(0, 19),
      '@origin': version.origin,
      '@clock': version.clock,
      '@seen': version.seen && JSON.stringify(version.seen),
      '@fields': version.fields && jsonText(version.fields),
    }),
    ...(change.kind === 'put'
      ? fieldNodes(change)
      : change.kind === 'delete'
        ? { '@deleted': 'True' }
        : { '@left': 'true' }),
  }
}

function fieldNodes(change: PutChange): object {
  return {
    data: Object.entries(change.data).map(([field, value]) => ({ '@field': field, ...valueAttribute(value) })),
    reference: Object.entries(change.refs ?? {}).map(([field, reference]) => {
      if (reference === null) return { '@field': field, '@null': 'true' }
      if (isListReference(reference.id))
        fault(`record ${quoted(change.id)} refers to ${quoted(reference.id)}, which S3XML would read as a list`)
      return { '@field': field, '@resource': reference.resource, '@uuid': reference.id }
    }),
  }
}

function valueAttribute(value: Json): object {
  if (value === null) return { '@null': 'true' }
  if (typeof value === 'string' && ISO_TIME.test(value)) return { '@value': value }
  return { '@value': jsonText(value) }
}

/** JSON escapes all other characters that XML lacks. */
function jsonText(value: unknown): string {
  return JSON.stringify(value).replace(/[\ufffe\uffff]/g, (character) => `\\u${character.charCodeAt(0).toString(16)}`)
}

/** Eden writes several targets of one field as a JSON list in the place of the uuid. */
export function isListReference(uuid: string): boolean {
  if (!uuid.trimStart().startsWith('[')) return false
  try {
    return Array.isArray(JSON.parse(uuid))
  } catch {
    return false
  }
}
