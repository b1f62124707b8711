import { SynclineError } from '../sync/index.ts'

/** Formats of record files, by the names that --format takes. */
export const FORMATS = {
  ndjson: { type: 'application/x-ndjson', endings: ['.ndjson', '.jsonl'] },
  json: { type: 'application/json', endings: ['.json'] },
  csv: { type: 'text/csv', endings: ['.csv'] },
  s3xml: { type: 'application/xml', endings: ['.xml', '.s3xml'] },
} as const

export type FormatName = keyof typeof FORMATS
export const FORMAT_NAMES = Object.keys(FORMATS) as FormatName[]

/** The format that was asked for, else the one that the ending of the file says, else NDJSON. */
export function formatOf(asked: FormatName | undefined, file: string | undefined): FormatName {
  if (asked !== undefined) return asked
  const name = file?.toLowerCase() ?? ''
  return FORMAT_NAMES.find((each) => FORMATS[each].endings.some((ending) => name.endsWith(ending))) ?? 'ndjson'
}

/** A part of an import that is a whole body by itself. `line` is where it begins in the source; `records` is 0 where nobody counted. */
export type Part = { readonly body: string; readonly line: number; readonly records: number }

/** What one request carries at most: far below every default limit of a site, and soon answered. */
export const PART_BOUNDS = { records: 5000, characters: 2_000_000 } as const
export type PartBounds = { readonly records: number; readonly characters: number }

/**
 * Splits a source into bodies of bounded size. NDJSON and CSV are cut between records; JSON and S3XML are one document and stay whole.
 * Errors: SYNC_BATCH_INCOMPLETE when the trailer of NDJSON counts other records than there are.
 */
export function partsOf(
  format: FormatName,
  source: AsyncIterable<Uint8Array>,
  bounds: PartBounds = PART_BOUNDS,
): AsyncIterable<Part> {
  if (format === 'ndjson') return ndjsonParts(source, bounds)
  return format === 'csv' ? csvParts(source, bounds) : wholePart(source)
}

async function* wholePart(source: AsyncIterable<Uint8Array>): AsyncIterable<Part> {
  let body = ''
  for await (const text of decoded(source)) body += text
  yield { body, line: 1, records: 0 }
}

/**
 * A trailer counts the records of the source as a whole, so it is checked here and not sent: the body it would stand in is only a part.
 * A source that ends without one is taken as it is, as curl sends it.
 */
async function* ndjsonParts(source: AsyncIterable<Uint8Array>, bounds: PartBounds): AsyncIterable<Part> {
  let part: string[] = []
  let size = 0
  let first = 1
  let line = 0
  let total = 0
  let trailer: number | undefined
  for await (const text of linesOf(decoded(source))) {
    line++
    if (text.trim() === '') continue
    if (trailer !== undefined) throw incomplete(`line ${line} follows the trailer, which must be the last line`)
    trailer = trailerCount(text)
    if (trailer !== undefined) continue
    if (part.length >= bounds.records || (part.length > 0 && size + text.length > bounds.characters)) {
      yield { body: part.join('\n'), line: first, records: part.length }
      part = []
      size = 0
    }
    if (part.length === 0) first = line
    part.push(text)
    size += text.length
    total++
  }
  if (trailer !== undefined && trailer !== total)
    throw incomplete(`the trailer counts ${trailer} records, there are ${total}`)
  if (part.length > 0) yield { body: part.join('\n'), line: first, records: part.length }
}

/** The count of a line that is a trailer. Only a line that may be one is parsed. */
function trailerCount(line: string): number | undefined {
  if (line.length > 2000 || !line.includes('"count"')) return undefined
  try {
    const value = JSON.parse(line) as { readonly id?: unknown; readonly count?: unknown }
    return value.id === undefined && typeof value.count === 'number' ? value.count : undefined
  } catch {
    return undefined
  }
}

/** Each part begins with the header line of the source. A line end within quotes is not the end of a record. */
async function* csvParts(source: AsyncIterable<Uint8Array>, bounds: PartBounds): AsyncIterable<Part> {
  let header: string | undefined
  let part: string[] = []
  let size = 0
  let first = 2
  let line = 0
  let open: string | undefined
  let began = 1
  for await (const text of linesOf(decoded(source))) {
    line++
    if (open === undefined) began = line
    const record = open === undefined ? text : `${open}\n${text}`
    // Quotes come in pairs unless a cell is still open.
    open = (record.split('"').length - 1) % 2 === 1 ? record : undefined
    if (open !== undefined || record.trim() === '') continue
    if (header === undefined) {
      header = record
      continue
    }
    if (part.length >= bounds.records || (part.length > 0 && size + record.length > bounds.characters)) {
      yield { body: [header, ...part].join('\n'), line: first, records: part.length }
      part = []
      size = 0
    }
    if (part.length === 0) first = began
    part.push(record)
    size += record.length
  }
  // A cell that never closes goes to the site as it is, which says what is wrong with it.
  if (open !== undefined) part.push(open)
  if (part.length > 0) yield { body: [header ?? '', ...part].join('\n'), line: first, records: part.length }
  else if (header !== undefined) yield { body: header, line: 1, records: 0 }
}

async function* decoded(source: AsyncIterable<Uint8Array>): AsyncIterable<string> {
  const decoder = new TextDecoder('utf-8', { fatal: true })
  try {
    for await (const bytes of source) yield decoder.decode(bytes, { stream: true })
    yield decoder.decode()
  } catch (cause) {
    if (!(cause instanceof TypeError)) throw cause
    throw new SynclineError('SYNC_FORMAT_INVALID', 'the source is not UTF-8 text', { cause })
  }
}

async function* linesOf(source: AsyncIterable<string>): AsyncIterable<string> {
  let rest = ''
  for await (const text of source) {
    const lines = (rest + text).split('\n')
    rest = lines.pop() ?? ''
    yield* lines
  }
  if (rest !== '') yield rest
}

function incomplete(detail: string): SynclineError {
  return new SynclineError('SYNC_BATCH_INCOMPLETE', detail)
}

type ChangeLine = {
  readonly id?: string
  readonly data?: Readonly<Record<string, unknown>>
  readonly refs?: Readonly<Record<string, { readonly id: string } | null>>
  readonly deleted?: boolean
}

/** NDJSON of the wire as CSV: an `id` column, then the given columns; references as record ids. Deleted records are left out. */
export async function* csvOf(source: AsyncIterable<Uint8Array>, columns: readonly string[]): AsyncIterable<Uint8Array> {
  const encoder = new TextEncoder()
  yield encoder.encode(`${['id', ...columns].map(csvCell).join(',')}\n`)
  let records = 0
  let trailer: number | undefined
  for await (const line of linesOf(decoded(source))) {
    if (line === '') continue
    trailer = trailerCount(line)
    if (trailer !== undefined) continue
    records++
    const { id, data = {}, refs = {}, deleted } = JSON.parse(line) as ChangeLine
    if (id === undefined || deleted === true) continue
    const cells = columns.map((name) => csvCell(Object.hasOwn(refs, name) ? refs[name]?.id : data[name]))
    yield encoder.encode(`${[csvCell(id), ...cells].join(',')}\n`)
  }
  if (trailer !== records) throw incomplete(`the answer ended after ${records} records and before its end`)
}

/** An empty cell is null; the empty text is quoted. */
function csvCell(value: unknown): string {
  if (value === null || value === undefined) return ''
  const text = typeof value === 'string' ? value : JSON.stringify(value)
  return text === '' || /[",\r\n]|^\s|\s$/.test(text) ? `"${text.replaceAll('"', '""')}"` : text
}
