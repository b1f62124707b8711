import { SynclineError } from '../errors.ts'
import type { Json } from '../record.ts'
import { readOrigin, readResource } from './change.ts'
import { isJsonObject, parseJson } from './exact-json.ts'
import { checkColumns, fault, placed, quoted, refuseUnknown } from './format.ts'

/** What every record of a batch between two sites has in common: columns and what they refer to, and the sites that wrote. */
export type Shape = {
  readonly resource: string
  readonly columns: readonly string[]
  readonly refs: Readonly<Record<string, string>>
  readonly origins: readonly string[]
}

type Members = { readonly [member: string]: Json }

/** A form of such bodies: its media type, the number of the form, and the members of its header beside `syncline`. */
export type Form = { readonly mediaType: string; readonly version: number; readonly members: readonly string[] }

/**
 * The first line of a body: an object of the members that its form has, of which `read` makes what is its own. Throws SYNC_FORMAT_UNSUPPORTED for another
 * number of the form, SYNC_FORMAT_INVALID or SYNC_REQUEST_TOO_LARGE, each with its place.
 */
export function readHeader<T>(
  text: string,
  depthMax: number,
  form: Form,
  read: (header: Members, shape: Shape) => T,
): Shape & T {
  try {
    const header = parseJson(text, depthMax)
    if (!isJsonObject(header)) return fault('it must be an object')
    if (header.syncline !== form.version) {
      throw new SynclineError(
        'SYNC_FORMAT_UNSUPPORTED',
        `form ${quoted(header.syncline)} of ${form.mediaType}; this site reads form ${form.version}`,
      )
    }
    refuseUnknown(header, ['syncline', ...form.members], 'a header')
    const shape = readShape(header)
    return { ...shape, ...read(header, shape) }
  } catch (error) {
    throw placed(error, 'header (line 1)')
  }
}

function readShape(header: Members): Shape {
  const columns = readNames(header.columns, 'columns')
  checkColumns(columns.length)
  const origins = readNames(header.origins, 'origins')
  for (const origin of origins) readOrigin(origin, 'an origin')
  const refs = header.refs
  if (!isJsonObject(refs)) return fault('refs must be an object of columns and resources')
  for (const [column, resource] of Object.entries(refs)) {
    if (!columns.includes(column)) fault(`refs names ${quoted(column)}, which is not among the columns`)
    readResource(resource, `refs[${quoted(column)}]`)
  }
  return { resource: readResource(header.resource), columns, refs: refs as Record<string, string>, origins }
}

/** A list of names, each once. Throws SYNC_FORMAT_INVALID. */
export function readNames(value: unknown, what: string): readonly string[] {
  if (!Array.isArray(value) || !value.every((name) => typeof name === 'string' && name !== ''))
    return fault(`${what} must be a list of names`)
  if (new Set(value).size < value.length) fault(`${what} names something twice`)
  return value as string[]
}

/** Header line, records and trailer line as one body, made without gluing the records to a larger text first: they are most of what a site sends. */
export function enclosed(header: string, records: string, trailer: string): Buffer {
  const [first, last] = [Buffer.from(`${header}\n`), Buffer.from(trailer)]
  const bytes = records === '' ? 0 : Buffer.byteLength(records) + 1
  const body = Buffer.allocUnsafe(first.length + bytes + last.length)
  first.copy(body)
  if (bytes > 0) body.write(records, first.length)
  if (bytes > 0) body[first.length + bytes - 1] = 0x0a
  last.copy(body, first.length + bytes)
  return body
}
