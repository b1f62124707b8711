import {
  type EdenAttributes,
  type EdenField,
  fault,
  isJsonObject,
  numberText,
  parseJson,
  quoted,
} from '../codec/index.ts'
import { canonicalDecimal } from '../filter-decimal.ts'
import type { Json } from '../record.ts'
import { print } from './print.ts'
import type { EdenColumn } from './shape.ts'
import { readEdenTime, writeEdenTime } from './time.ts'

const FRACTION = /:\d{2}(\.\d{1,6})\d*/
/** Where an Eden gives out what was uploaded to it. */
const DOWNLOAD = /^https?:\/\/\S+\/default\/download\/[^\s/]+$/
const DATE = /^\d{4}-\d{2}-\d{2}/
const TIME = /^\d{2}:\d{2}(?::\d{2}(?:\.\d{1,6})?)?$/

/** The value of a field for a column here; undefined where Eden means nothing by it, such as an empty element of a number. */
export function readEdenValue(field: EdenField, column: EdenColumn): Json | undefined {
  const { value, url, filename } = field.attributes
  if (isNull(field)) return null
  // A file has an address; a column of text keeps that.
  if (column.kind === 'upload' || (column.kind === 'text' && (url ?? filename) !== undefined)) return url ?? filename
  if (column.kind === 'text') return value === undefined ? field.text : textOf(value)
  const text = value ?? field.text
  if (text === '') return undefined
  try {
    return typedValue(text, column)
  } catch (error) {
    return fault(`field ${quoted(field.field)}: ${quoted(text)} is no ${column.kind}`, { cause: error })
  }
}

/** The value of a field that this site has no column for. */
export function readUnknownValue(field: EdenField): Json {
  const { value, url, filename } = field.attributes
  if (isNull(field)) return null
  if (url !== undefined || filename !== undefined)
    return { ...(url !== undefined && { '@url': url }), ...(filename !== undefined && { '@filename': filename }) }
  if (value === undefined) return field.text
  try {
    return parseJson(value)
  } catch {
    return value
  }
}

function fileAt(url: string): EdenAttributes {
  return { url, filename: url.split('/').at(-1) ?? '' }
}

/** How a value goes out: always in the attribute, as Eden reads the text of an element through its entities twice. */
export function writeEdenValue(value: Json, column: EdenColumn | undefined): EdenAttributes {
  if (value === null) return { null: 'true' }
  if (column === undefined) return { value: jsonText(value) }
  switch (column.kind) {
    case 'date':
    case 'time':
      return { value: String(value) }
    case 'datetime':
      return { value: dateTimeOut(String(value)) }
    case 'number':
      return { value: numberText(value) ?? String(value) }
    case 'upload':
      return fileAt(String(value))
    case 'text':
      return DOWNLOAD.test(String(value)) ? fileAt(String(value)) : { value: jsonText(value) }
    default:
      return { value: jsonText(value) }
  }
}

/**
 * What a value is compared by; undefined for what Eden cannot tell from nothing. Spellings of one value have one print: a number, a time of the
 * same second, whatever was rounded to it on the way.
 */
export function printOf(value: Json | undefined, column: EdenColumn | undefined): string | undefined {
  if (value === undefined || value === null || value === '') return undefined
  if (column?.kind === 'number') {
    const text = numberText(value) ?? String(value)
    return print(canonicalDecimal(text) ?? text)
  }
  if (column?.kind === 'datetime') {
    const seconds = readEdenTime(String(value))
    return print(seconds === undefined ? String(value) : String(seconds))
  }
  return print(typeof value === 'string' ? value : jsonText(value))
}

/** JSON with the members of objects in order: two spellings of one value are one text. */
export function jsonText(value: Json): string {
  return JSON.stringify(value, (_key, part: Json) =>
    isJsonObject(part) ? Object.fromEntries(Object.entries(part).sort(([a], [b]) => (a < b ? -1 : 1))) : part,
  )
}

function typedValue(text: string, { kind, zoned }: EdenColumn): Json {
  switch (kind) {
    case 'date':
      return readEdenTime(bare(text)) === undefined ? wrong() : (DATE.exec(bare(text)) ?? wrong())[0]
    case 'datetime': {
      const seconds = readEdenTime(bare(text)) ?? wrong()
      return `${writeEdenTime(seconds)}${FRACTION.exec(text)?.[1] ?? ''}${zoned ? 'Z' : ''}`
    }
    case 'time':
      return TIME.test(bare(text)) ? bare(text) : wrong()
    case 'number': {
      const number = numberText(parseJson(bare(text))) ?? wrong()
      return Number.isSafeInteger(Number(number)) && String(Number(number)) === number ? Number(number) : number
    }
    case 'boolean': {
      const word = bare(text).toLowerCase()
      return word === 'true' || word === '1' ? true : word === 'false' || word === '0' ? false : wrong()
    }
    case 'list': {
      const list = parseJson(text)
      return Array.isArray(list) ? list : [list]
    }
    default:
      return parseJson(text)
  }
}

/** A value that was put between the quotes of JSON where Eden has it bare. */
function bare(text: string): string {
  const trimmed = text.trim()
  if (!trimmed.startsWith('"')) return trimmed
  const inner = parseJson(trimmed)
  return typeof inner === 'string' ? inner.trim() : wrong()
}

/** Eden decodes what is JSON, and takes anything else to the letter. A number in a column of text is its digits. */
function textOf(value: string): string {
  if (!value.trimStart().startsWith('"')) return value
  try {
    const decoded = parseJson(value)
    return typeof decoded === 'string' ? decoded : value
  } catch {
    return value
  }
}

function dateTimeOut(value: string): string {
  const seconds = readEdenTime(value)
  return seconds === undefined
    ? value
    : `${writeEdenTime(seconds)}${FRACTION.exec(value)?.[1]?.replace(/\.0+$/, '') ?? ''}`
}

function isNull({ attributes }: EdenField): boolean {
  return attributes.null?.toLowerCase() === 'true'
}

function wrong(): never {
  throw new SyntaxError('it cannot be read')
}
