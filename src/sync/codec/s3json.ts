import { SynclineError } from '../errors.ts'
import type { Json } from '../record.ts'
import type { EdenAttributes, EdenElement, EdenField, EdenLimits, EdenReader, EdenWriter } from './eden-element.ts'
import { isJsonObject, parseJson } from './exact-json.ts'
import { fault, placed, quoted } from './format.ts'

/** A date or time: bare in an attribute of S3XML, a text in S3JSON. */
const ISO_TIME =
  /^(?:\d{4,}-\d\d-\d\d(?:[T ]\d\d:\d\d(?::\d\d(?:\.\d+)?)?)?|\d\d:\d\d(?::\d\d(?:\.\d+)?)?)(?:Z|[+-]\d\d(?::?\d\d)?)?$/
const TABLE = '$_'
const REFERENCE = '$k_'

const MARKS = /["{}[\]]/g

/**
 * Reads S3JSON as it comes: `{"$_table": [record, …], "@attribute": …}`. The outside of the records is kept and read at the end, with a mark in
 * the place of each; so memory is bounded by one record. Throws SYNC_FORMAT_INVALID, SYNC_RECORD_TOO_LARGE or SYNC_REQUEST_TOO_LARGE.
 */
export function s3jsonReader(limits: EdenLimits): EdenReader {
  const decoder = new TextDecoder('utf-8', { fatal: true })
  /** Everything outside of records, with a 0 for each of them. */
  let frame = ''
  /** What was not cut yet; `at` is where to look on, `start` where the record in the making begins, -1 outside of one. */
  let rest = ''
  let [at, start, textStart] = [0, -1, 0]
  let [depth, depthAround, count, bytesRead] = [0, 0, 0, 0]
  let inText = false
  let name = ''
  let root: EdenAttributes = {}
  return { write, end, root: () => root }

  function write(bytes: Uint8Array): readonly EdenElement[] {
    bytesRead += bytes.length
    if (bytesRead > limits.bytesMax)
      throw new SynclineError('SYNC_REQUEST_TOO_LARGE', `the document has more than ${limits.bytesMax} bytes`)
    return scan(decoded(() => decoder.decode(bytes, { stream: true })))
  }

  function end(): readonly EdenElement[] {
    const found = scan(decoded(() => decoder.decode()))
    if (start !== -1 || inText || depth !== 0) fault(`the document ends in record ${count + 1}`)
    const outside = outsideOf(frame + rest, limits.depthMax)
    root = attributesOf(outside)
    return found
  }

  function decoded(next: () => string): string {
    try {
      return next()
    } catch (error) {
      throw placed(
        new SyntaxError('it is not UTF-8; send the document in UTF-8', { cause: error }),
        `record ${count + 1}`,
      )
    }
  }

  function scan(text: string): readonly EdenElement[] {
    const found: EdenElement[] = []
    rest += text
    for (;;) {
      if (inText) {
        const quote = closingQuote(rest, at)
        if (quote === -1) break
        if (start === -1 && depth === 1) name = rest.slice(textStart, quote + 1)
        at = quote + 1
        inText = false
        continue
      }
      MARKS.lastIndex = at
      const mark = MARKS.exec(rest)
      if (mark === null) break
      at = mark.index + 1
      if (mark[0] === '"') {
        inText = true
        textStart = mark.index
      } else if (mark[0] === '{' || mark[0] === '[') {
        if (mark[0] === '{' && start === -1 && depth > 0) {
          start = mark.index
          depthAround = depth
        }
        depth++
        if (depth > limits.depthMax) fault(`record ${count + 1} is nested deeper than ${limits.depthMax} levels`)
      } else {
        depth--
        if (depth < 0) fault(`a bracket is closed behind record ${count} that was not opened`)
        if (start !== -1 && depth === depthAround) found.push(cut(at))
      }
    }
    forget()
    return found
  }

  /** Takes out the record that ends here. */
  function cut(stop: number): EdenElement {
    const text = rest.slice(start, stop)
    checkSize(text.length)
    count++
    if (count > limits.elementsMax)
      throw new SynclineError('SYNC_REQUEST_TOO_LARGE', `the document has more than ${limits.elementsMax} records`)
    frame += `${rest.slice(0, start)}0`
    rest = rest.slice(stop)
    at = 0
    start = -1
    try {
      const key = String(JSON.parse(name || '""'))
      if (!key.startsWith(TABLE)) fault(`it stands under ${quoted(key)}, which names no table`)
      return elementOf(key.slice(TABLE.length), parseJson(text, limits.depthMax))
    } catch (error) {
      throw placed(error, `record ${count}`)
    }
  }

  /** Lets go of what needs no second look. */
  function forget(): void {
    const keep = start !== -1 ? start : inText ? textStart : rest.length
    // A text is looked at from its beginning again: its end is told by the backslashes before it.
    at = inText ? textStart + 1 - keep : rest.length - keep
    frame += rest.slice(0, keep)
    rest = rest.slice(keep)
    textStart -= keep
    if (start !== -1) start = 0
    checkSize(rest.length)
    if (frame.length > limits.recordBytesMax + 2 * limits.elementsMax) checkSize(frame.length)
  }

  function checkSize(size: number): void {
    if (size <= limits.recordBytesMax) return
    throw new SynclineError(
      'SYNC_RECORD_TOO_LARGE',
      `record ${count + 1} has ${size} characters; at most ${limits.recordBytesMax} are taken here`,
    )
  }
}

/** What stands around the records: tables with a mark for each, and attributes. */
function outsideOf(text: string, depthMax: number): { readonly [name: string]: Json } {
  let outside: Json
  try {
    outside = parseJson(text, depthMax)
  } catch (error) {
    throw placed(error, 'what stands around the records')
  }
  if (!isJsonObject(outside)) return fault('the document is no object of tables')
  for (const [name, value] of Object.entries(outside)) {
    if (name.startsWith('@')) continue
    if (!name.startsWith(TABLE)) fault(`unknown member ${quoted(name)} beside the tables`)
    const list = Array.isArray(value) ? value : [value]
    if (list.some((each) => each !== 0)) fault(`under ${quoted(name)} stands something that is no record`)
  }
  return outside
}

/** A record of S3JSON as the element that it is. Recursion is bounded by the depth that the text was parsed with. */
function elementOf(table: string, value: Json): EdenElement {
  if (!isJsonObject(value)) return fault(`under ${quoted(TABLE + table)} stands something that is no record`)
  const fields: EdenField[] = []
  const components: EdenElement[] = []
  for (const [name, part] of Object.entries(value)) {
    if (name.startsWith('@')) continue
    if (name.startsWith(TABLE))
      for (const each of listOf(part)) components.push(elementOf(name.slice(TABLE.length), each))
    else if (name.startsWith(REFERENCE))
      for (const each of listOf(part)) fields.push(referenceOf(name.slice(REFERENCE.length), each))
    else if (isFieldList(part)) for (const each of part) fields.push(dataOf(name, each))
    else fields.push(dataOf(name, part))
  }
  return { table, attributes: attributesOf(value), fields, components }
}

function dataOf(field: string, value: Json): EdenField {
  const data = (attributes: EdenAttributes, text: string): EdenField => ({ kind: 'data', field, attributes, text })
  if (value === null) return data({ null: 'true' }, '')
  if (typeof value === 'string') return data({}, value)
  if (!isJsonObject(value)) return data({ value: valueText(value) }, '')
  if (!Object.keys(value).every((name) => name.startsWith('@') || name === '$'))
    return data({ value: valueText(value) }, '')
  const { '@value': decoded, ...others } = value
  const attributes = attributesOf(others)
  return data(decoded === undefined ? attributes : { value: valueText(decoded), ...attributes }, textOf(value.$))
}

function referenceOf(field: string, value: Json): EdenField {
  if (value === null) return { kind: 'reference', field, attributes: { null: 'true' }, text: '' }
  if (!isJsonObject(value)) return fault(`the reference ${quoted(field)} is no object`)
  const inside = Object.keys(value).filter((name) => name.startsWith(TABLE))
  const inline = inside.flatMap((name) =>
    listOf(value[name] ?? null).map((each) => elementOf(name.slice(TABLE.length), each)),
  )
  if (inline.length > 1) fault(`the reference ${quoted(field)} has more than one record in it`)
  const [one] = inline
  return {
    kind: 'reference',
    field,
    attributes: attributesOf(value),
    text: textOf(value.$),
    ...(one !== undefined && { inline: one }),
  }
}

function attributesOf(value: { readonly [name: string]: Json }): EdenAttributes {
  const found = Object.entries(value).filter(([name, each]) => name.startsWith('@') && each !== null)
  return Object.fromEntries(
    found.map(([name, each]) => [name.slice(1), typeof each === 'string' ? each : JSON.stringify(each)]),
  )
}

/** The attribute of S3XML: JSON, and a date bare. */
function valueText(value: Json): string {
  return typeof value === 'string' && ISO_TIME.test(value) ? value : JSON.stringify(value)
}

function textOf(value: Json | undefined): string {
  if (value === undefined || value === null) return ''
  return typeof value === 'string' ? value : JSON.stringify(value)
}

function listOf(value: Json): readonly Json[] {
  return Array.isArray(value) ? value : [value]
}

/** One field several times, not one value that is a list. */
function isFieldList(value: Json): value is readonly Json[] {
  const marked = (each: Json) => isJsonObject(each) && Object.keys(each).some((name) => /^[@$]/.test(name))
  return Array.isArray(value) && value.length > 0 && value.every(marked)
}

/** Writes S3JSON. The records of a table must come together: the document is one object, and a name stands in it once. */
export function s3jsonWriter(): EdenWriter {
  let table: string | undefined
  const written = new Set<string>()
  let attributes: EdenAttributes = {}
  return {
    mediaType: 'application/json',
    open: (root) => {
      attributes = root
      return '{'
    },
    element: (element) => {
      const text = JSON.stringify(jsonOf(element))
      if (element.table === table) return `,${text}`
      if (written.has(element.table)) throw new Error(`records of ${element.table} come in two pieces`)
      const before = table === undefined ? '' : '],'
      table = element.table
      written.add(table)
      return `${before}${JSON.stringify(TABLE + table)}:[${text}`
    },
    close: () => {
      const members = Object.entries(attributes).map(
        ([name, value]) => `${JSON.stringify(`@${name}`)}:${JSON.stringify(value)}`,
      )
      const before = table === undefined ? '' : `]${members.length > 0 ? ',' : ''}`
      return `${before}${members.join(',')}}`
    },
  }
}

function jsonOf({ fields, components, attributes }: EdenElement): Json {
  const members = new Map<string, Json[]>()
  const add = (name: string, value: Json) => members.set(name, [...(members.get(name) ?? []), value])
  for (const field of fields) add(field.kind === 'data' ? field.field : REFERENCE + field.field, fieldJson(field))
  for (const component of components) add(TABLE + component.table, jsonOf(component))
  const plain = [...members].map(([name, values]) => [
    name,
    values.length === 1 && !name.startsWith(TABLE) ? (values[0] as Json) : values,
  ])
  return Object.fromEntries([...plain, ...marked(attributes)])
}

function fieldJson({ kind, attributes, text, inline }: EdenField): Json {
  if (kind === 'data' && Object.keys(attributes).length === 0) return text
  const { value, ...others } = attributes
  const decoded = kind === 'data' && value !== undefined ? { '@value': decodedValue(value) } : {}
  const raw = kind === 'reference' && value !== undefined ? { '@value': value } : {}
  return {
    ...decoded,
    ...raw,
    ...Object.fromEntries(marked(others)),
    ...(inline && { [TABLE + inline.table]: [jsonOf(inline)] }),
    ...(text !== '' && { $: text }),
  }
}

function decodedValue(value: string): Json {
  try {
    return parseJson(value)
  } catch {
    return value
  }
}

function marked(attributes: EdenAttributes): [string, Json][] {
  return Object.entries(attributes).map(([name, value]) => [`@${name}`, value])
}

function closingQuote(text: string, from: number): number {
  for (let at = text.indexOf('"', from); at !== -1; at = text.indexOf('"', at + 1)) {
    let backslashes = 0
    while (text.charCodeAt(at - 1 - backslashes) === 0x5c) backslashes++
    if (backslashes % 2 === 0) return at
  }
  return -1
}
