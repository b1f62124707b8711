import {
  type EdenAttributes,
  type EdenElement,
  type EdenField,
  fault,
  parseJson,
  quoted,
  readId,
} from '../codec/index.ts'
import { type ErrorCode, SynclineError } from '../errors.ts'
import type { Change, Json, Reference } from '../record.ts'
import { idOfEdenUuid } from './identity.ts'
import { uuidOf } from './print.ts'
import { columnsOfShape, type EdenColumn, type EdenShape, type EdenShapes, shapeOfResource } from './shape.ts'
import { readEdenTime } from './time.ts'
import { printOf, readEdenValue, readUnknownValue } from './value.ts'

/** A print for each field that has a value. What is missing later was emptied. */
export type EdenPrints = Readonly<Record<string, string>>

/** One record of an element of Eden, under the name of a resource here. Its version is not told by the element alone: see readArrival. */
export type EdenRecord = {
  readonly shape: EdenShape
  readonly change: Change
  /** Its name at Eden; absent where the document gave it none and the id was made from its content. */
  readonly uuid?: string
  /** Seconds since 1970; absent where the element does not say. */
  readonly modifiedOn?: number
  /** Everything that stood in the element itself, to the letter. */
  readonly attributes: EdenAttributes
  readonly prints: EdenPrints
  /** The record that this deleted one was merged into. */
  readonly replacedBy?: string
  /** Files that Eden has for columns here. */
  readonly uploads: readonly { readonly column: string; readonly url: string; readonly filename?: string }[]
  /** The record around it. */
  readonly within?: Reference
}

/** A record of a table that this site has not: it is kept as it stood, beside the record it stood in. */
export type EdenStranger = { readonly element: EdenElement; readonly within?: Reference }

/** A record that cannot be taken, and why. The others of its element can. */
export type EdenFault = {
  readonly table: string
  readonly uuid: string | undefined
  readonly code: ErrorCode
  readonly reason: string
  readonly element: EdenElement
}

export type EdenTaken = {
  readonly records: readonly EdenRecord[]
  readonly strangers: readonly EdenStranger[]
  readonly faults: readonly EdenFault[]
}

/** Ids of records that a document names by a tuid, which means nothing outside of it: `table tuid` → id here. */
export type EdenTuids = ReadonlyMap<string, string>

type Taking = {
  readonly shapes: EdenShapes
  readonly tuids: EdenTuids
  readonly records: EdenRecord[]
  readonly strangers: EdenStranger[]
  readonly faults: EdenFault[]
}

/**
 * The records of a top-level element: those inside its references first, then itself, then its components. A component that repeats
 * another one as the super-entity that both are (no time, no mci, the same uuid) is left out, as at Eden.
 */
export function edenRecords(element: EdenElement, shapes: EdenShapes, tuids: EdenTuids = new Map()): EdenTaken {
  const taking: Taking = { shapes, tuids, records: [], strangers: [], faults: [] }
  take(element, undefined, taking)
  return { records: taking.records, strangers: taking.strangers, faults: taking.faults }
}

/** The tuids of a document, gathered before its records are read: a reference may come before what it names. */
export function tuidsOf(elements: Iterable<EdenElement>, shapes: EdenShapes): EdenTuids {
  const found = new Map<string, string>()
  const look = (element: EdenElement) => {
    const { tuid, uuid } = element.attributes
    if (tuid !== undefined) {
      const id = uuid === undefined ? madeId(element, '', shapes) : idHere(uuid, shapes.get(element.table))
      found.set(`${element.table} ${tuid}`, id)
    }
    for (const field of element.fields) if (field.inline !== undefined) look(field.inline)
    for (const component of element.components) look(component)
  }
  for (const element of elements) look(element)
  return found
}

/** Takes an element and what stands in it. Recursion is bounded by the depth that the document was read with. */
function take(element: EdenElement, within: Reference | undefined, taking: Taking): string | undefined {
  const shape = taking.shapes.get(element.table)
  if (shape === undefined) {
    taking.strangers.push({ element, ...(within && { within }) })
    return undefined
  }
  let record: EdenRecord
  try {
    record = recordOf(element, shape, within, taking)
  } catch (error) {
    if (!(error instanceof SynclineError)) throw error
    const { uuid } = element.attributes
    taking.faults.push({ table: element.table, uuid, code: error.code, reason: error.message, element })
    return undefined
  }
  taking.records.push(record)
  const self = { resource: shape.resource, id: record.change.id }
  for (const component of element.components) {
    if (!isSuperEntity(component, element.components)) take(component, self, taking)
  }
  return record.change.id
}

function recordOf(element: EdenElement, shape: EdenShape, within: Reference | undefined, taking: Taking): EdenRecord {
  const { attributes } = element
  if (attributes.error !== undefined) fault(`it is marked with the error ${quoted(attributes.error)}`)
  const id = readId(idOf(element, shape, within, taking), 'uuid')
  const modifiedOn = timeOf(attributes, 'modified_on')
  const named = {
    shape,
    attributes,
    ...(attributes.uuid !== undefined && { uuid: attributes.uuid }),
    ...(modifiedOn !== undefined && { modifiedOn }),
    ...(within !== undefined && { within }),
  }
  if (attributes.deleted?.toLowerCase() === 'true') {
    const { replaced_by: winner } = attributes
    const replacedBy = winner === undefined ? {} : { replacedBy: idHere(winner, shape) }
    return { ...named, ...replacedBy, change: { kind: 'delete', id }, prints: {}, uploads: [] }
  }
  const { data, refs, prints, uploads } = contentOf(element, shape, within, taking)
  const some = Object.keys(refs).length > 0
  return { ...named, change: { kind: 'put', id, data, ...(some && { refs }) }, prints, uploads }
}

type Content = {
  readonly data: Record<string, Json>
  readonly refs: Record<string, Reference | null>
  readonly prints: Record<string, string>
  readonly uploads: { column: string; url: string; filename?: string }[]
}

function contentOf(element: EdenElement, shape: EdenShape, within: Reference | undefined, taking: Taking): Content {
  const content: Content = { data: {}, refs: {}, prints: {}, uploads: [] }
  const given = new Set<string>()
  const columns = columnsOfShape(shape).byField
  for (const field of element.fields) {
    if (field.field === '__proto__') fault('no field has the name "__proto__"')
    if (given.has(field.field)) fault(`field ${quoted(field.field)} is given twice`)
    given.add(field.field)
    if (field.attributes.error !== undefined)
      fault(`field ${quoted(field.field)} is marked with the error ${quoted(field.attributes.error)}`)
    const column = columns.get(field.field)
    if (field.kind === 'reference') takeReference(field, column, content, taking)
    else takeData(field, column, content)
  }
  for (const column of shape.columns) {
    const told = column.attribute === undefined ? undefined : element.attributes[column.field]
    const value =
      told === undefined
        ? undefined
        : readEdenValue({ kind: 'data', field: column.field, attributes: {}, text: told }, column)
    if (value !== undefined) content.data[column.column] = value
  }
  if (within !== undefined) attach(element, shape, within, content, taking.shapes)
  return content
}

function takeData(field: EdenField, column: EdenColumn | undefined, { data, prints, uploads }: Content): void {
  const name = column?.column ?? field.field
  const { url, filename } = field.attributes
  if (column?.kind === 'upload' && url !== undefined)
    uploads.push({ column: name, url, ...(filename !== undefined && { filename }) })
  if (column?.kind === 'reference') fault(`field ${quoted(field.field)} refers to a record here, and is given a value`)
  const value = column === undefined ? readUnknownValue(field) : readEdenValue(field, column)
  if (value === undefined) return
  data[name] = value
  const mark = printOf(value, column)
  if (mark !== undefined) prints[field.field] = mark
}

function takeReference(
  field: EdenField,
  column: EdenColumn | undefined,
  { data, refs, prints }: Content,
  taking: Taking,
): void {
  const ids = referredIds(field, column, taking)
  const name = column?.column ?? field.field
  if (column?.kind === 'reference' && column.resource !== undefined) {
    if (ids === undefined) return
    if (Array.isArray(ids)) fault(`the reference ${quoted(name)} is a list; the column here refers to one record`)
    refs[name] = ids === null ? null : { resource: column.resource, id: readId(ids, `the reference ${quoted(name)}`) }
  } else if (column?.kind === 'references' || column?.kind === 'list') {
    if (ids === undefined) return
    data[name] = ids === null ? null : Array.isArray(ids) ? ids : [ids]
  } else if (column !== undefined) {
    if (ids === undefined) return
    data[name] = Array.isArray(ids) ? ids.join(',') : ids
  } else data[`$k_${field.field}`] = { ...prefixed(field.attributes), ...(field.text !== '' && { $: field.text }) }
  const mark = printOf(ids as Json | undefined, undefined)
  if (mark !== undefined) prints[field.field] = mark
}

/** The ids that a reference names; null where it says that there is none, undefined where it names nothing. */
function referredIds(
  field: EdenField,
  column: EdenColumn | undefined,
  taking: Taking,
): string | readonly string[] | null | undefined {
  const { uuid, tuid, resource: table } = field.attributes
  if (field.attributes.null?.toLowerCase() === 'true') return null
  const own = column?.resource === undefined ? undefined : shapeOfResource(taking.shapes, column.resource)
  if (own !== undefined && table !== undefined && table !== own.table && field.inline === undefined)
    fault(`the reference ${quoted(field.field)} names a record of ${quoted(table)}; here it refers to ${own.table}`)
  const target = own ?? (table === undefined ? undefined : taking.shapes.get(table))
  if (field.inline !== undefined) return take(field.inline, undefined, taking)
  const name = uuid ?? tuid
  if (name === undefined || name === '') return undefined
  const found = (each: string) =>
    uuid === undefined
      ? (taking.tuids.get(`${table ?? target?.table} ${each}`) ??
        fault(`the reference ${quoted(field.field)} names the tuid ${quoted(each)}, which the document has not`))
      : idHere(each, target)
  const list = listOf(name)
  return list === undefined ? found(name) : list.map(found)
}

/** A component says by its place which record it belongs to. */
function attach(
  element: EdenElement,
  shape: EdenShape,
  within: Reference,
  { refs, prints }: Content,
  shapes: EdenShapes,
): void {
  const known = shapeOfResource(shapes, within.resource)?.components.find(({ table }) => table === element.table)
  const refers = shape.columns.filter(({ kind, resource }) => kind === 'reference' && resource === within.resource)
  const column = known?.column ?? (refers.length === 1 ? refers[0]?.column : undefined)
  if (column === undefined)
    fault(
      `it stands inside a record of ${quoted(within.resource)}, and ${refers.length === 0 ? 'no column refers' : 'more than one column refers'} to that resource`,
    )
  if (column === undefined || Object.hasOwn(refs, column)) return
  refs[column] = within
  const mark = printOf(within.id, undefined)
  if (mark !== undefined) prints[shape.columns.find((each) => each.column === column)?.field ?? column] = mark
}

function idOf(element: EdenElement, shape: EdenShape, within: Reference | undefined, taking: Taking): string {
  const { uuid, tuid } = element.attributes
  if (uuid !== undefined) return idHere(uuid, shape)
  const known = tuid === undefined ? undefined : taking.tuids.get(`${element.table} ${tuid}`)
  return known ?? madeId(element, within === undefined ? '' : within.id, taking.shapes)
}

/** The id of a record that has no name: it follows from its content, so that the same document twice is the same record. */
function madeId(element: EdenElement, within: string, shapes: EdenShapes): string {
  const said = (each: EdenElement): Json => [
    each.table,
    each.fields.map(({ field, attributes, text, inline }) => [
      field,
      attributes.value ?? attributes.uuid ?? attributes.tuid ?? text,
      inline === undefined ? null : said(inline),
    ]),
  ]
  const uuid = uuidOf(JSON.stringify([said(element), within]))
  return shapes.get(element.table)?.uuidKey === true ? uuid : `urn:uuid:${uuid}`
}

function idHere(uuid: string, shape: EdenShape | undefined): string {
  return idOfEdenUuid(uuid, shape?.uuidKey === true)
}

/** Eden writes several targets of one field as a JSON list in the place of the uuid. */
function listOf(uuid: string): readonly string[] | undefined {
  if (!uuid.trimStart().startsWith('[')) return undefined
  try {
    const list = parseJson(uuid)
    return Array.isArray(list) && list.every((each) => typeof each === 'string') ? (list as string[]) : undefined
  } catch {
    return undefined
  }
}

function isSuperEntity({ attributes }: EdenElement, siblings: readonly EdenElement[]): boolean {
  const { uuid, mci, modified_on: modifiedOn, deleted } = attributes
  if (uuid === undefined || mci !== undefined || modifiedOn !== undefined || deleted !== undefined) return false
  return siblings.some((each) => each.attributes.uuid === uuid && each.attributes.modified_on !== undefined)
}

function timeOf(attributes: EdenAttributes, name: string): number | undefined {
  const text = attributes[name]
  if (text === undefined) return undefined
  const seconds = readEdenTime(text)
  return seconds === undefined || seconds <= 0 ? fault(`${name} is ${quoted(text)}, which is no time`) : seconds
}

function prefixed(attributes: EdenAttributes): Record<string, string> {
  return Object.fromEntries(Object.entries(attributes).map(([name, value]) => [`@${name}`, value]))
}
