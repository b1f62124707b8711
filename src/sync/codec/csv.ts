import { CsvError, parse } from 'csv-parse/sync'
import { SynclineError } from '../errors.ts'
import type { Batch, Change, Json } from '../record.ts'
import { makePut, readId } from './change.ts'
import { parseJson } from './exact-json.ts'
import {
  type Codec,
  checkColumns,
  checkCount,
  checkSize,
  type DecodeContext,
  decodeText,
  fault,
  placed,
  quoted,
} from './format.ts'

/** A cell: null where nothing stood between two commas, '' where a quoted empty text stood. */
type Cell = string | null
type Header = { readonly names: readonly string[]; readonly id: number; readonly deleted: number }

const DELETED = '_deleted'
const TRUE = ['true', 't', 'yes', 'y', '1']
const FALSE = ['false', 'f', 'no', 'n', '0', '']

/**
 * CSV (RFC 4180: comma, double quotes, CRLF or LF), for pushes only. The first line names the columns; `id`, or the
 * identity column, is compulsory; `_deleted` marks tombstones. An empty cell is null, a quoted empty one is the empty
 * text. Values are texts, which the database reads by column type; CSV cannot tell a whole body from the first half of
 * one, so only the length that HTTP announces guards against a cut.
 */
export const csv: Codec = { name: 'csv', mediaType: 'text/csv', aliases: [], decode: decodeCsv }

function decodeCsv(bytes: Uint8Array, context: DecodeContext): Batch[] {
  const rows = readRows(decodeText(bytes), context)
  const [first, ...rest] = rows
  if (first === undefined) return fault('line 1: there is no header line with the names of the columns')
  const header = readHeader(first.cells, context)
  checkCount(rest.length, context.recordsMax)
  const changes = rest.map((row, index) => {
    try {
      return readRow(row.cells, header, context)
    } catch (error) {
      throw placed(error, `record ${index + 1} (line ${row.line})`)
    }
  })
  return [{ resource: context.resource, changes }]
}

type Row = { readonly cells: readonly Cell[]; readonly line: number }

/** Rows with the line each begins in. Blank lines are no rows. */
function readRows(text: string, context: DecodeContext): Row[] {
  const nul = text.indexOf('\0')
  if (nul !== -1) fault(`line ${lineAt(text, nul)} holds a NUL character`)
  let line = 1
  return parseRows(text, context.recordBytesMax)
    .map((cells) => {
      const row = { cells, line }
      line += 1 + cells.reduce((sum, cell) => sum + (cell === null ? 0 : newlines(cell)), 0)
      return row
    })
    .filter(({ cells }) => cells.length > 1 || cells[0] !== null)
}

function parseRows(text: string, recordBytesMax: number): Cell[][] {
  try {
    return parse(text, {
      record_delimiter: ['\r\n', '\n', '\r'],
      // Ragged rows are refused here, with the header at hand.
      relax_column_count: true,
      max_record_size: recordBytesMax,
      cast: (value, { quoting }) => (value === '' && !quoting ? null : value),
    })
  } catch (error) {
    if (!(error instanceof CsvError)) throw error
    if (error.code === 'CSV_MAX_RECORD_SIZE') {
      throw new SynclineError(
        'SYNC_RECORD_TOO_LARGE',
        `${error.message}: more than ${recordBytesMax} bytes are not taken here`,
        { cause: error },
      )
    }
    return fault(error.message, { cause: error })
  }
}

function readHeader(cells: readonly Cell[], { idColumn }: DecodeContext): Header {
  const names = cells.map((cell, index) => cell || fault(`line 1: column ${index + 1} has no name`))
  checkColumns(names.length)
  const known = new Set<string>()
  for (const name of names) {
    if (known.has(name)) fault(`line 1: column ${quoted(name)} is named twice`)
    known.add(name)
  }
  const id = names.includes('id') || idColumn === undefined ? names.indexOf('id') : names.indexOf(idColumn)
  const wanted = idColumn === undefined || idColumn === 'id' ? '"id"' : `"id" or ${quoted(idColumn)}`
  if (id === -1)
    fault(
      `line 1: there is no column ${wanted} among ${names.map(quoted).join(', ').slice(0, 200)}; columns are separated by commas`,
    )
  return { names, id, deleted: names.indexOf(DELETED) }
}

function readRow(cells: readonly Cell[], header: Header, context: DecodeContext): Change {
  const { names } = header
  if (cells.length !== names.length) fault(`it has ${cells.length} cells, the header names ${names.length} columns`)
  checkSize(cells.join(','), context.recordBytesMax)
  const id = readId(cells[header.id])
  // A tombstone has no content: what stands beside the mark is the record as it was.
  if (header.deleted !== -1 && isTrue(cells[header.deleted] ?? '')) return { kind: 'delete', id }
  const data = names.flatMap((name, column): [string, Json][] => {
    if (column === header.id || column === header.deleted) return []
    return [[name, readCell(cells[column] ?? null, name, context)]]
  })
  return makePut(id, undefined, Object.fromEntries(data), {}, context.refs)
}

function readCell(cell: Cell, name: string, context: DecodeContext): Json {
  if (cell === null || !context.jsonColumns?.includes(name)) return cell
  try {
    return parseJson(cell, context.depthMax)
  } catch (error) {
    throw placed(error, `column ${quoted(name)} takes JSON`)
  }
}

function isTrue(cell: string): boolean {
  const word = cell.toLowerCase()
  if (!TRUE.includes(word) && !FALSE.includes(word)) fault(`${DELETED} is true or false, not ${quoted(cell)}`)
  return TRUE.includes(word)
}

function newlines(text: string): number {
  return text.match(/\r\n|\n|\r/g)?.length ?? 0
}

function lineAt(text: string, position: number): number {
  return 1 + newlines(text.slice(0, position))
}
