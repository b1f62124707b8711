import type { Batch, Change, Json, Reference, Version } from '../record.ts'
import { makePut, readId, readResource, readVersion } from './change.ts'
import { parseJson } from './exact-json.ts'
import { type DecodeContext, fault, incomplete, placed, quoted, readNext, type WritingCodec } from './format.ts'
import { readS3xmlDocument, type S3xmlDocument, type S3xmlField, type S3xmlResource } from './s3xml-document.ts'
import { isListReference, writeS3xml } from './s3xml-write.ts'

/**
 * The records of one resource in an S3XML document. A record may stand inside another one, which says that it belongs
 * to it without naming the column: `within` gives, for each change, the record around it or null, so that a receiver
 * who knows the foreign keys can complete it.
 */
export type S3xmlBatch = Batch & { readonly within: readonly (Reference | null)[] }

type S3xmlCodec = Omit<WritingCodec, 'decode'> & {
  readonly decode: (bytes: Uint8Array, context: DecodeContext) => S3xmlBatch[]
}

/**
 * S3XML, the format of Sahana Eden, with attributes of our own that Eden reads past: on `<resource>` origin, clock,
 * seen, fields and left, on `<data>` and `<reference>` null, on the root checkpoint, more and count. Decoding gives the batch
 * of the asked resource first, even when it is empty, then one for every other resource in the document, nested or
 * not: whether those are taken is the receiver's decision.
 */
export const s3xml: S3xmlCodec = {
  name: 's3xml',
  mediaType: 'application/xml',
  aliases: ['text/xml'],
  decode: decodeS3xml,
  encode: writeS3xml,
}

/**
 * Attributes with a meaning here, and those by which Eden describes a record without its being content; any other is
 * refused by name.
 */
const ATTRIBUTES = {
  root: [
    'checkpoint',
    'more',
    'count',
    'success',
    'results',
    'start',
    'limit',
    'domain',
    'url',
    'latmin',
    'latmax',
    'lonmin',
    'lonmax',
    'map',
  ],
  resource: [
    ...[
      'name',
      'uuid',
      'deleted',
      'left',
      'origin',
      'clock',
      'seen',
      'fields',
      'tuid',
      'approved',
      'error',
      'alias',
      'mci',
      'created_on',
      'modified_on',
    ],
    ...['created_by', 'modified_by', 'owned_by_user', 'owned_by_group', 'replaced_by', 'url', 'llrepr'],
  ],
  data: ['field', 'value', 'null', 'url', 'filename', 'error'],
  reference: ['field', 'resource', 'uuid', 'null', 'tuid', 'error', 'id', 'value', 'lat', 'lon'],
} as const

type Attributes = Readonly<Record<string, string>>
type Grown = { readonly resource: string; readonly changes: Change[]; readonly within: (Reference | null)[] }

function decodeS3xml(bytes: Uint8Array, context: DecodeContext): S3xmlBatch[] {
  const document = readS3xmlDocument(bytes, context)
  const next = readRoot(document)
  const asked: Grown = { resource: context.resource, changes: [], within: [] }
  const batches = new Map([[context.resource, asked]])
  for (const resource of document.resources) collect(resource, null, context, batches)
  return [...batches.values()].map((batch) => (batch === asked && next !== undefined ? { ...batch, next } : batch))
}

function readRoot({ attributes, count }: S3xmlDocument): Batch['next'] {
  try {
    checkAttributes(attributes, 'root')
    const counted = attributes.count
    if (counted !== undefined && counted !== String(count))
      throw incomplete(`count is ${quoted(counted)}, the document has ${count} records`)
    return readNext({ ...attributes, ...(attributes.more !== undefined && { more: isTrue(attributes, 'more') }) })
  } catch (error) {
    throw placed(error, '<s3xml>')
  }
}

/** Reads a resource and those inside it. Recursion is bounded by the depth that the document was read with. */
function collect(
  node: S3xmlResource,
  parent: Reference | null,
  context: DecodeContext,
  batches: Map<string, Grown>,
): void {
  try {
    checkAttributes(node.attributes, 'resource')
    const resource = readResource(node.attributes.name, 'attribute name')
    const batch = batches.get(resource) ?? { resource, changes: [], within: [] }
    batches.set(resource, batch)
    const own = resource === context.resource
    const change = readResourceChange(node, own ? context : undefined)
    batch.changes.push(own && parent !== null ? attachedTo(parent, change, context.refs) : change)
    batch.within.push(parent)
  } catch (error) {
    throw placed(error, `record ${node.number} (line ${node.line})`)
  }
  const self = { resource: node.attributes.name ?? '', id: node.attributes.uuid ?? '' }
  for (const component of node.components) collect(component, self, context, batches)
}

/** `context` is given for records of the asked resource only: of others, columns and references are not known here. */
function readResourceChange(node: S3xmlResource, context: DecodeContext | undefined): Change {
  const { attributes, fields } = node
  if (attributes.error !== undefined) fault(`it is marked with the error ${quoted(attributes.error)}`)
  if (attributes.uuid === undefined)
    fault(
      attributes.tuid === undefined
        ? 'it needs a uuid'
        : `it needs a uuid; the tuid ${quoted(attributes.tuid)} means nothing outside the document`,
    )
  const id = readId(attributes.uuid, 'uuid')
  const version = readAttributesVersion(attributes)
  const deleted = isTrue(attributes, 'deleted')
  const left = isTrue(attributes, 'left')
  if (deleted || left) {
    if (deleted && left) fault('a record is either deleted or left')
    if (fields.length > 0) fault('a record that is deleted or left has no fields')
    return { kind: deleted ? 'delete' : 'left', id, ...(version && { version }) }
  }
  if (attributes.approved?.toLowerCase() === 'false')
    fault('it is not approved at its site, and there is no column to keep that in')
  const data = new Map<string, Json>()
  const refs = new Map<string, Reference | null>()
  for (const field of fields) {
    try {
      readField(field, context, data, refs)
    } catch (error) {
      throw placed(error, `<${field.tag}> in line ${field.line}`)
    }
  }
  return makePut(id, version, Object.fromEntries(data), Object.fromEntries(refs), context?.refs ?? {})
}

function readField(
  field: S3xmlField,
  context: DecodeContext | undefined,
  data: Map<string, Json>,
  refs: Map<string, Reference | null>,
): void {
  const { tag, attributes } = field
  checkAttributes(attributes, tag)
  const name = attributes.field || fault('attribute field is missing')
  if (data.has(name) || refs.has(name)) fault(`field ${quoted(name)} is given twice`)
  if (attributes.error !== undefined)
    fault(`field ${quoted(name)} is marked with the error ${quoted(attributes.error)}`)
  if (tag === 'data') data.set(name, readData(field, name, context))
  else refs.set(name, isTrue(attributes, 'null') ? null : readReference(attributes, name, context))
}

/**
 * `value` holds JSON; what is no JSON (a date, a bare word) is the text itself. Without `value` the text counts, to
 * the letter.
 */
function readData({ attributes, text }: S3xmlField, name: string, context: DecodeContext | undefined): Json {
  const { value, url, filename } = attributes
  if (url !== undefined || filename !== undefined)
    fault(`field ${quoted(name)} is an uploaded file; files do not travel in S3XML`)
  if (isTrue(attributes, 'null')) return null
  if (value === undefined && !context?.jsonColumns?.includes(name)) return text
  try {
    return parseJson(value ?? text, context?.depthMax)
  } catch (error) {
    // A date or a bare word never begins like a JSON list, object or text; what does is JSON gone wrong.
    if (value === undefined || /^\s*[[{"]/.test(value)) throw placed(error, `field ${quoted(name)}`)
    return value
  }
}

function readReference(attributes: Attributes, name: string, context: DecodeContext | undefined): Reference {
  const { uuid, tuid } = attributes
  const known = context !== undefined && Object.hasOwn(context.refs, name) ? context.refs[name] : undefined
  const resource = readResource(attributes.resource ?? known, `attribute resource of field ${quoted(name)}`)
  if (uuid === undefined) {
    return fault(
      tuid === undefined
        ? `the reference ${quoted(name)} needs a uuid`
        : `the reference ${quoted(name)} needs a uuid; the tuid ${quoted(tuid)} means nothing outside the document`,
    )
  }
  if (isListReference(uuid)) fault(`the reference ${quoted(name)} is a list; a column here refers to one record`)
  return { resource, id: readId(uuid, `uuid of the reference ${quoted(name)}`) }
}

/**
 * A record of the asked resource that stands inside another: the column that says so must be plain, or it would be
 * lost without a word.
 */
function attachedTo(parent: Reference, change: Change, refColumns: Readonly<Record<string, string>>): Change {
  if (change.kind !== 'put') return change
  const columns = Object.keys(refColumns).filter((column) => refColumns[column] === parent.resource)
  const [column] = columns
  if (column === undefined || columns.length > 1) {
    return fault(
      `it stands inside a record of ${quoted(parent.resource)}, and ${columns.length === 0 ? 'no column refers' : 'more than one column refers'} to that resource`,
    )
  }
  if (change.refs !== undefined && Object.hasOwn(change.refs, column)) return change
  return { ...change, refs: Object.fromEntries([...Object.entries(change.refs ?? {}), [column, parent]]) }
}

function readAttributesVersion(attributes: Attributes): Version | undefined {
  const { origin, clock, seen, fields } = attributes
  if (origin === undefined && clock === undefined && seen === undefined && fields === undefined) return undefined
  if (clock === undefined || !/^[1-9]\d{0,15}$/.test(clock))
    fault(`clock must be a whole number of microseconds, not ${quoted(clock)}`)
  const parsed = (text: string | undefined) => (text === undefined ? undefined : parseJson(text))
  return readVersion(origin, Number(clock), parsed(seen), parsed(fields))
}

function checkAttributes(attributes: Attributes, element: keyof typeof ATTRIBUTES): void {
  const known: readonly string[] = ATTRIBUTES[element]
  for (const name of Object.keys(attributes)) if (!known.includes(name)) fault(`unknown attribute ${quoted(name)}`)
}

function isTrue(attributes: Attributes, name: string): boolean {
  const word = attributes[name]?.toLowerCase() ?? 'false'
  if (word !== 'true' && word !== 'false') fault(`attribute ${name} is true or false, not ${quoted(attributes[name])}`)
  return word === 'true'
}
