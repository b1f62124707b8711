import { type EdenElement, numberText, parseJson, s3jsonWriter, s3xmlWriter, writeChange } from '../codec/index.ts'
import type { Change, Json } from '../record.ts'
import type { FolderSettings } from './settings.ts'

/** One record of a file: as an element for S3XML and S3JSON, as a change for the others. */
export type FileRecord = {
  readonly change: Change
  readonly element?: EdenElement | undefined
  /** Columns that hold JSON: CSV has it as text, and a text in it in quotes. */
  readonly jsonColumns?: readonly string[] | undefined
}

/** How far a file is. Kept between two batches, so that another process can go on with it. */
export type FileState = {
  readonly records: number
  /** The resource that was written last. */
  readonly resource: string | null
  /** CSV: the columns of the file. */
  readonly columns: readonly string[] | null
}

export const NEW_FILE: FileState = { records: 0, resource: null, columns: null }

type How = Pick<FolderSettings, 'format' | 'layout' | 'readable'>

/** A piece of a file in the making, and how far the file is with it. */
export type FilePiece = { readonly text: string; readonly state: FileState }

const DELETED = '_deleted'

/** What a file begins with. */
export function fileHead({ format, layout }: How): string {
  switch (format) {
    case 's3xml':
      return s3xmlWriter().open({ success: 'true' })
    case 's3json':
      return '{'
    case 'json':
      return layout === 'all' ? '{"resources":[' : ''
    case 'csv':
      return ''
    default:
      return format satisfies never
  }
}

/** The next record of a file. Records of a resource come together; a file that is over for a record (see fitsFile) is not given it. */
export function filePiece(how: How, state: FileState, resource: string, record: FileRecord): FilePiece {
  const begins = state.resource !== resource
  const next: FileState = { ...state, records: state.records + 1, resource }
  switch (how.format) {
    case 's3xml':
      return { text: `\n${xmlText(record, how.readable)}`, state: next }
    case 's3json':
      return { text: s3jsonText(how, state, record, begins), state: next }
    case 'json':
      return { text: jsonText(how, state, resource, record, begins), state: next }
    case 'csv':
      return csvText(state, next, record)
    default:
      return how.format satisfies never
  }
}

/** What a file ends with. */
export function fileFoot({ format, layout, readable }: How, { resource }: FileState): string {
  const line = readable ? '\n' : ''
  switch (format) {
    case 's3xml':
      return `\n${s3xmlWriter().close()}\n`
    case 's3json':
      return `${resource === null ? '' : `${line}]`}${line}}\n`
    case 'json':
      return layout === 'all' ? `${resource === null ? '' : '\n]}'}\n]}\n` : '\n]}\n'
    case 'csv':
      return ''
    default:
      return format satisfies never
  }
}

/** False where a record needs a file of its own: all records of a CSV file have the same columns. */
export function fitsFile({ format }: How, { columns }: FileState, { change }: FileRecord): boolean {
  if (format !== 'csv' || columns === null || change.kind === 'delete') return true
  const own = columnsOf(change)
  return own.length === columns.length && own.every((name, at) => name === columns[at])
}

/** False for what a format has no word for: only our own tells that a record left a filter. */
export function isTold({ format }: How, { change }: FileRecord): boolean {
  return change.kind !== 'left' || format === 'json'
}

function xmlText({ element }: FileRecord, readable: boolean): string {
  const text = s3xmlWriter().element(elementOf(element))
  // A < in a value is escaped.
  return readable
    ? text
        .replace(/<(?=data |reference )/g, '\n    <')
        .replace(/<(?=\/resource)/g, '\n  <')
        .replace(/^/, '  ')
    : text
}

function s3jsonText(
  { readable }: How,
  { resource: before }: FileState,
  { element }: FileRecord,
  begins: boolean,
): string {
  const own = elementOf(element)
  const [key, indent] = [JSON.stringify(`$_${own.table}`), readable ? '\n' : '']
  // A writer of its own begins with the name of the table.
  const written = s3jsonWriter()
    .element(own)
    .slice(key.length + 2)
  const text = readable ? JSON.stringify(parseJson(written), null, 2) : written
  if (!begins) return `,${indent}${text}`
  return `${before === null ? '' : `${indent}],`}${indent}${key}:[${indent}${text}`
}

function jsonText(
  { layout, readable }: How,
  { resource: before }: FileState,
  resource: string,
  { change }: FileRecord,
  begins: boolean,
): string {
  const written = writeChange(change)
  const text = readable ? JSON.stringify(parseJson(written), null, 2) : written
  if (!begins) return `,\n${text}`
  const head = `{"resource":${JSON.stringify(resource)},"changes":[\n${text}`
  if (layout !== 'all') return head
  return before === null ? `\n${head}` : `\n]},\n${head}`
}

function csvText(state: FileState, next: FileState, { change, jsonColumns = [] }: FileRecord): FilePiece {
  const columns = state.columns ?? columnsOf(change)
  const head = state.records === 0 ? `${['id', ...columns, DELETED].map((name) => csvCell(name)).join(',')}\r\n` : ''
  const cells = columns.map((name) => {
    if (change.kind !== 'put') return ''
    const value = Object.hasOwn(change.data, name) ? (change.data[name] as Json) : (change.refs?.[name]?.id ?? null)
    return csvCell(value !== null && jsonColumns.includes(name) ? JSON.stringify(value) : value)
  })
  const row = [csvCell(change.id), ...cells, change.kind === 'delete' ? 'true' : '']
  return { text: `${head}${row.join(',')}\r\n`, state: { ...next, columns } }
}

/** A file that began with a deletion knows no columns. */
function columnsOf(change: Change): readonly string[] {
  return change.kind === 'put' ? [...Object.keys(change.data), ...Object.keys(change.refs ?? {})].sort() : []
}

/** Null is nothing between the commas, the empty text two quotes. */
function csvCell(value: Json): string {
  if (value === null) return ''
  if (value === '') return '""'
  const text = typeof value === 'string' ? value : (numberText(value) ?? JSON.stringify(value))
  return /[",\r\n]|^\s|\s$/.test(text) ? `"${text.replaceAll('"', '""')}"` : text
}

function elementOf(element: EdenElement | undefined): EdenElement {
  if (element === undefined) throw new Error('a file of this format is written from elements')
  return element
}
