import type { Change, Json, PutChange, Reference, Version } from '../record.ts'
import { readClock, readOrigin } from './dot.ts'
import { isJsonObject, numberText } from './exact-json.ts'
import { readFields } from './fields.ts'
import { fault, quoted, refuseUnknown } from './format.ts'

export { readClock, readOrigin } from './dot.ts'

/** UTF-16 units of a record id that are taken at most. */
const ID_LENGTH_MAX = 512

type Members = { readonly [key: string]: Json }
type References = Readonly<Record<string, Reference | null>>

/** A record id: a text, or a whole number in formats whose writers have keys in mind. */
export function readId(value: unknown, what = 'id'): string {
  const number = numberText(value)
  const id = number !== undefined && /^-?\d+$/.test(number) ? number : value
  if (typeof id !== 'string' || id === '')
    return fault(`${what} must be a text that is not empty, not ${quoted(value)}`)
  if (id.length > ID_LENGTH_MAX) fault(`${what} is longer than ${ID_LENGTH_MAX} characters: ${quoted(id)}`)
  if (id.includes('\0') || !id.isWellFormed())
    fault(`${what} holds a character that no database text can hold: ${quoted(id)}`)
  return id
}

/** A version from its parts. `seen` may repeat the version's own dot, which says nothing new and is left out. */
export function readVersion(origin: unknown, clock: unknown, seen: unknown, fields?: unknown): Version {
  const version = readSeen(origin, clock, seen)
  return fields === undefined ? version : { ...version, fields: readFields(fields, version) }
}

function readSeen(origin: unknown, clock: unknown, seen: unknown): Version {
  const version = { origin: readOrigin(origin, 'version.origin'), clock: readClock(clock, 'version.clock') }
  if (seen === undefined) return version
  if (!isJsonObject(seen)) return fault(`version.seen must be an object of origins and clocks, not ${quoted(seen)}`)
  const others = Object.entries(seen).filter(([other, at]) => {
    readOrigin(other, 'an origin in version.seen')
    readClock(at, `version.seen[${quoted(other)}]`)
    if (other === version.origin && at !== version.clock) fault('version.seen gives its own origin another clock')
    return other !== version.origin
  })
  return others.length === 0 ? version : { ...version, seen: Object.fromEntries(others) as Record<string, number> }
}

/** A change of the public wire from a parsed JSON value. `refColumns` are the resource's reference columns here. */
export function readChange(value: unknown, refColumns: Readonly<Record<string, string>>): Change {
  if (!isJsonObject(value)) return fault(`a change is an object, not ${quoted(value)}`)
  refuseUnknown(value, ['id', 'version', 'data', 'refs', 'deleted', 'left'], 'a change')
  const id = readId(value.id)
  const version = value.version === undefined ? undefined : readVersionObject(value.version)
  const deleted = readFlag(value, 'deleted')
  const left = readFlag(value, 'left')
  if (deleted || left) {
    if (deleted && left) fault('a change is either deleted or left')
    if (value.data !== undefined || value.refs !== undefined)
      fault(`a change that is ${deleted ? 'deleted' : 'left'} has no data and no refs`)
    return { kind: deleted ? 'delete' : 'left', id, ...(version && { version }) }
  }
  if (value.data === undefined && value.refs === undefined)
    fault('a change has data, refs, "deleted": true or "left": true')
  if (value.data !== undefined && !isJsonObject(value.data))
    fault(`data must be an object of columns and values, not ${quoted(value.data)}`)
  if (value.refs !== undefined && !isJsonObject(value.refs))
    fault(`refs must be an object of columns and references, not ${quoted(value.refs)}`)
  const refs = Object.entries((value.refs ?? {}) as Members).map(
    ([column, ref]) => [column, readReference(ref, column)] as const,
  )
  return makePut(id, version, (value.data ?? {}) as Members, Object.fromEntries(refs), refColumns)
}

/** A change of the public wire as JSON text, members in the order of the contract. */
export function writeChange(change: Change): string {
  const { id, version } = change
  if (change.kind === 'delete') return JSON.stringify({ id, version, deleted: true })
  if (change.kind === 'left') return JSON.stringify({ id, version, left: true })
  return JSON.stringify({ id, version, data: change.data, refs: change.refs })
}

/**
 * A put whose references all stand in `refs`: a value of a reference column in `data` is taken as the id it refers to.
 * Refuses a column that is given twice and a reference to another resource than the column's own.
 */
export function makePut(
  id: string,
  version: Version | undefined,
  data: Members,
  refs: References,
  refColumns: Readonly<Record<string, string>>,
): PutChange {
  for (const [column, reference] of Object.entries(refs)) {
    if (Object.hasOwn(data, column)) fault(`column ${quoted(column)} is given twice`)
    const resource = Object.hasOwn(refColumns, column) ? refColumns[column] : reference?.resource
    if (reference !== null && reference.resource !== resource) {
      fault(`column ${quoted(column)} refers to ${quoted(resource)} here, not to ${quoted(reference.resource)}`)
    }
  }
  const short = Object.entries(data).filter(([column]) => Object.hasOwn(refColumns, column))
  const rest =
    short.length === 0
      ? data
      : Object.fromEntries(Object.entries(data).filter(([column]) => !Object.hasOwn(refColumns, column)))
  const named = short.map(([column, value]) => {
    if (value === null) return [column, null] as const
    return [
      column,
      { resource: refColumns[column] as string, id: readId(value, `the reference in column ${quoted(column)}`) },
    ] as const
  })
  const all = named.length === 0 ? refs : Object.fromEntries([...Object.entries(refs), ...named])
  const some = Object.keys(all).length > 0
  return { kind: 'put', id, ...(version && { version }), data: rest, ...(some && { refs: all }) }
}

function readVersionObject(value: Json): Version {
  if (!isJsonObject(value)) return fault(`version must be an object, not ${quoted(value)}`)
  refuseUnknown(value, ['origin', 'clock', 'seen', 'fields'], 'a version')
  return readVersion(value.origin, value.clock, value.seen, value.fields)
}

function readReference(value: Json, column: string): Reference | null {
  if (value === null) return null
  if (!isJsonObject(value))
    return fault(`refs[${quoted(column)}] must be null or an object with resource and id, not ${quoted(value)}`)
  refuseUnknown(value, ['resource', 'id'], 'a reference')
  return {
    resource: readResource(value.resource, `refs[${quoted(column)}].resource`),
    id: readId(value.id, `refs[${quoted(column)}].id`),
  }
}

/** Name of a resource as another site writes it. */
export function readResource(value: unknown, what = 'resource'): string {
  if (typeof value !== 'string' || value === '')
    return fault(`${what} must be the name of a resource, not ${quoted(value)}`)
  return value
}

function readFlag(value: Members, member: 'deleted' | 'left'): boolean {
  const flag = Object.hasOwn(value, member) ? value[member] : false
  if (typeof flag !== 'boolean') return fault(`${member} must be true, not ${quoted(flag)}`)
  return flag
}
