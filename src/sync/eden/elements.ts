import type { EdenAttributes, EdenElement, EdenField } from '../codec/index.ts'
import type { Change, Json, PutChange, Reference, Version } from '../record.ts'
import { edenUuid } from './identity.ts'
import type { EdenPrints } from './records.ts'
import { columnsOfShape, type EdenColumn, type EdenShape, type EdenShapes, shapeOfResource } from './shape.ts'
import { edenTimeOf, writeEdenTime } from './time.ts'
import { printOf, writeEdenValue } from './value.ts'

/** What was kept of a record beside its values. */
export type EdenKept = {
  /** Attributes as Eden last told them. */
  readonly attributes: EdenAttributes
  /** How many hops from where it was made; 0 for what was made here. */
  readonly mci: number
}

/** Table of Eden whose records are places. */
export const PLACES_TABLE = 'gis_location'

/** Where a place is, in degrees. */
export type EdenPlaceHint = { readonly lat: number; readonly lon: number }

/** A record on its way out. */
export type EdenOutgoing = {
  readonly change: Change
  readonly version: Version
  readonly kept?: EdenKept | undefined
  /** The second that the peer has shown for it: what is told it is never older. */
  readonly notBefore?: number | undefined
  /**
   * Fields that the peer may have a value for: these it is told to be empty. Eden makes an empty text of what it is told so, so that the others are left
   * out. Absent: every empty field is told.
   */
  readonly filled?: ReadonlySet<string> | undefined
  /** Where places are that it refers to, in degrees, by record id: a hint for Eden, beside their names. */
  readonly places?: ReadonlyMap<string, EdenPlaceHint> | undefined
  /** What stands inside it. */
  readonly components?: readonly EdenElement[]
  /** The record that it was merged into. */
  readonly replacedBy?: string | undefined
}

/** Attributes that go out as they came. What tells of one site only (url), of a document (tuid) or is said anew does not. */
const PASSED_ON = ['created_on', 'created_by', 'modified_by', 'owned_by_user', 'owned_by_group', 'approved']
const SAID_ANEW = ['uuid', 'tuid', 'mci', 'modified_on', 'deleted', 'replaced_by', 'url', 'error', 'alias', 'llrepr']

/** Master copy index as Eden writes it: one more than at the site that sends. */
function mciOut(kept: EdenKept | undefined): number {
  return (kept?.mci ?? 0) + 1
}

/** Master copy index as it is kept: what came. Eden takes two for what says nothing. */
export function mciIn(attributes: EdenAttributes): number {
  const mci = attributes.mci
  return mci !== undefined && /^\d{1,9}$/.test(mci) ? Number(mci) : 2
}

/** The element that Eden is sent for a record. A record that left the filter is not told: Eden has no word for it. */
export function edenElement(outgoing: EdenOutgoing, shape: EdenShape, shapes: EdenShapes): EdenElement {
  const { change, kept, components = [], replacedBy } = outgoing
  const uuid = edenUuid(change.id, shape.uuidKey)
  const modified = writeEdenTime(sentTime(outgoing))
  if (change.kind !== 'put') {
    const winner = replacedBy === undefined ? {} : { replaced_by: edenUuid(replacedBy, shape.uuidKey) }
    return {
      table: shape.table,
      attributes: { uuid, deleted: 'True', modified_on: modified, ...winner },
      fields: [],
      components: [],
    }
  }
  const passed = Object.entries({ ...passedOn(kept), ...columnsAsAttributes(change, shape) })
  const attributes = {
    uuid,
    mci: String(mciOut(kept)),
    ...Object.fromEntries(passed.filter(([name]) => name === 'created_on')),
    modified_on: modified,
    ...Object.fromEntries(passed.filter(([name]) => name !== 'created_on')),
  }
  return { table: shape.table, attributes, fields: fieldsOf(change, shape, shapes, outgoing), components }
}

/** The second that Eden is told for a record. */
export function sentTime({ version, notBefore = 0 }: Pick<EdenOutgoing, 'version' | 'notBefore'>): number {
  return Math.max(edenTimeOf(version), notBefore)
}

/** Prints of a record here, to compare with what Eden sends back. */
export function printsOf(change: Change, shape: EdenShape): EdenPrints {
  if (change.kind !== 'put') return {}
  const columns = columnsOfShape(shape).byColumn
  const prints: Record<string, string> = {}
  const note = (name: string, value: Json | undefined) => {
    const column = columns.get(name)
    if (column?.attribute === true) return
    const mark = printOf(value, column)
    if (mark !== undefined) prints[column?.field ?? name.replace(/^\$k_/, '')] = mark
  }
  for (const [name, value] of Object.entries(change.data)) {
    const reference = name.startsWith('$k_') ? verbatimReference(name, value) : undefined
    note(name, reference === undefined ? value : (reference.attributes.uuid ?? reference.attributes.tuid))
  }
  for (const [name, reference] of Object.entries(change.refs ?? {})) note(name, reference?.id)
  return prints
}

function fieldsOf(
  change: PutChange,
  shape: EdenShape,
  shapes: EdenShapes,
  { filled, places }: Pick<EdenOutgoing, 'filled' | 'places'>,
): EdenField[] {
  const columns = columnsOfShape(shape).byColumn
  const data: EdenField[] = []
  const references: EdenField[] = []
  for (const [name, value] of Object.entries(change.data)) {
    const column = columns.get(name)
    if (column?.attribute === true) continue
    if (value === null && filled?.has(column?.field ?? name) === false) continue
    const reference = column === undefined && name.startsWith('$k_') ? verbatimReference(name, value) : undefined
    if (reference !== undefined) references.push(reference)
    else if (column?.kind === 'references') references.push(listOut(column, value, shapes))
    else data.push({ kind: 'data', field: column?.field ?? name, attributes: attributesOf(value, column), text: '' })
  }
  for (const [name, reference] of Object.entries(change.refs ?? {})) {
    const field = columns.get(name)?.field ?? name
    if (reference !== null || filled?.has(field) !== false)
      references.push(referenceOut(field, reference, shapes, places))
  }
  return [...data, ...references]
}

function attributesOf(value: Json, column: EdenColumn | undefined): EdenAttributes {
  const upload = column === undefined && typeof value === 'object' && value !== null && !Array.isArray(value)
  const { '@url': url, '@filename': filename } = (upload ? value : {}) as Record<string, Json>
  if (typeof url === 'string') return { url, ...(typeof filename === 'string' && { filename }) }
  return writeEdenValue(value, column)
}

function referenceOut(
  field: string,
  reference: Reference | null,
  shapes: EdenShapes,
  places: EdenOutgoing['places'],
): EdenField {
  if (reference === null) return { kind: 'reference', field, attributes: { null: 'true' }, text: '' }
  const target = shapeOfResource(shapes, reference.resource)
  const attributes = {
    resource: target?.table ?? reference.resource,
    uuid: edenUuid(reference.id, target?.uuidKey === true),
  }
  const place = target?.table === PLACES_TABLE ? places?.get(reference.id) : undefined
  const hint = place === undefined ? {} : { lat: place.lat.toFixed(4), lon: place.lon.toFixed(4) }
  return { kind: 'reference', field, attributes: { ...attributes, ...hint }, text: '' }
}

function listOut(column: EdenColumn, value: Json, shapes: EdenShapes): EdenField {
  if (!Array.isArray(value)) return { kind: 'reference', field: column.field, attributes: { null: 'true' }, text: '' }
  const target = shapeOfResource(shapes, column.resource ?? '')
  const uuids = value.map((id: Json) => edenUuid(String(id), target?.uuidKey === true))
  const attributes = { resource: target?.table ?? column.resource ?? '', uuid: JSON.stringify(uuids) }
  return { kind: 'reference', field: column.field, attributes, text: '' }
}

/** A reference that this site had no column for, as it came. */
function verbatimReference(name: string, value: Json): EdenField | undefined {
  if (typeof value !== 'object' || value === null || Array.isArray(value)) return undefined
  const { $: text, ...attributes } = value as Record<string, Json>
  const plain = Object.entries(attributes).map(([key, each]) => [key.replace(/^@/, ''), String(each)])
  return {
    kind: 'reference',
    field: name.slice('$k_'.length),
    attributes: Object.fromEntries(plain) as EdenAttributes,
    text: typeof text === 'string' ? text : '',
  }
}

/** What Eden says of a record in attributes, where a table here has it in columns. */
function columnsAsAttributes(change: PutChange, shape: EdenShape): EdenAttributes {
  const told = shape.columns.filter(({ attribute, column }) => attribute === true && change.data[column] != null)
  return Object.fromEntries(
    told.map((column) => {
      const value = change.data[column.column] as Json
      return [column.field, column.kind === 'text' ? String(value) : (writeEdenValue(value, column).value ?? '')]
    }),
  )
}

function passedOn(kept: EdenKept | undefined): EdenAttributes {
  const known = Object.entries(kept?.attributes ?? {}).filter(([name]) => !SAID_ANEW.includes(name))
  const order = (name: string) => (PASSED_ON.includes(name) ? PASSED_ON.indexOf(name) : PASSED_ON.length)
  return Object.fromEntries(known.sort(([a], [b]) => order(a) - order(b)))
}
