import type { Change, Fields, Json, PutChange, Reference, Version } from '../record.ts'
import { makePut, readId, readVersion } from './change.ts'
import { parseJson } from './exact-json.ts'
import { renameOrigins } from './fields.ts'
import { fault, placed } from './format.ts'
import type { LineBatch } from './lines.ts'

/** A batch in the making. Deletes fit any columns, so a draft that begins with them takes those of its first put. */
type Draft = {
  columns: readonly string[] | undefined
  refs: Readonly<Record<string, string>>
  readonly origins: Map<string, number>
  readonly lines: string[]
}

/**
 * Changes of one resource as batches of lines, so that every format takes the same way into the database. A batch has
 * one set of columns and each id once; a record's own changes keep their order over the batches, and within a batch
 * changes stand as they came. Batches must be applied in order. `refColumns` are the resource's reference columns
 * here; a reference in another column travels with the resource it names, for the receiver to refuse.
 */
export function linesOfChanges(
  resource: string,
  changes: Iterable<Change>,
  refColumns: Readonly<Record<string, string>>,
): LineBatch[] {
  const drafts: Draft[] = []
  const open: number[] = []
  const byColumns = new Map<string, number[]>()
  const lastPlace = new Map<string, number>()
  for (const change of changes) {
    const after = lastPlace.get(change.id) ?? -1
    const place = change.kind === 'put' ? putPlace(change, after) : tombstonePlace(after)
    const draft = drafts[place] as Draft
    draft.lines.push(lineOf(change, draft))
    lastPlace.set(change.id, place)
  }
  return drafts.map(({ columns = [], refs, origins, lines }) => ({
    resource,
    columns,
    refs,
    origins: [...origins.keys()],
    text: lines.join('\n'),
    count: lines.length,
  }))

  function putPlace(change: PutChange, after: number): number {
    const columns = [...Object.keys(change.data), ...Object.keys(change.refs ?? {})].sort()
    const refs = referenceColumns(change.refs ?? {}, refColumns)
    const key = JSON.stringify([columns, refs])
    const places = byColumns.get(key) ?? []
    byColumns.set(key, places)
    const known = places[firstAbove(places, after)]
    if (known !== undefined) return known
    const [place = drafts.length] = open.splice(firstAbove(open, after), 1)
    drafts[place] = { ...(drafts[place] ?? emptyDraft()), columns, refs }
    places.push(place)
    return place
  }

  function tombstonePlace(after: number): number {
    const place = after + 1
    if (place === drafts.length) {
      drafts.push(emptyDraft())
      open.push(place)
    }
    return place
  }
}

/** Index of the first number above `limit` in an ascending list: a body may name one record many thousand times. */
function firstAbove(ascending: readonly number[], limit: number): number {
  let low = 0
  for (let high = ascending.length; low < high; ) {
    const middle = (low + high) >>> 1
    if ((ascending[middle] as number) > limit) high = middle
    else low = middle + 1
  }
  return low
}

/**
 * The changes in a batch of lines, exactly: large numbers keep their digits. Throws SYNC_FORMAT_INVALID with the line
 * of a payload that cannot be read.
 */
export function changesOfLines(batch: LineBatch): Change[] {
  if (batch.text === '') return []
  return batch.text.split('\n').map((line, index) => {
    try {
      return changeOf(line, batch)
    } catch (error) {
      throw placed(error, `record ${index + 1} (line ${index + 2})`)
    }
  })
}

function changeOf(line: string, batch: LineBatch): Change {
  const [id = '', clock = '', origin = '', seen = '', kind = '', payload = '', set = ''] = line.split('\t')
  const identity = {
    id: readId(JSON.parse(id)),
    ...(clock !== '' && {
      version: versionOf(batch.origins[Number(origin)] ?? '', Number(clock), seen, batch.origins),
    }),
  }
  if (kind === 'd') return { kind: 'delete', ...identity }
  if (kind === 'l') return { kind: 'left', ...identity }
  const values = parseJson(payload)
  const columns = set === '' ? batch.columns : [...batch.columns, ...(batch.sets?.[Number(set)] ?? [])]
  if (!Array.isArray(values) || values.length !== columns.length)
    return fault(`the payload must be a list of ${columns.length} values`)
  const cells = columns.map((column, index) => [column, values[index] as Json] as const)
  return makePut(identity.id, identity.version, Object.fromEntries(cells), {}, batch.refs)
}

/** A version whose fourth part names origins by their places in a list. */
export function versionOf(origin: string, clock: number, text: string, origins: readonly string[]): Version {
  if (text === '') return readVersion(origin, clock, undefined)
  const { fields, ...others } = parseJson(text) as { readonly fields?: Fields; readonly [index: string]: unknown }
  const name = (index: string) => origins[Number(index)] ?? ''
  const seen = Object.fromEntries(Object.entries(others).map(([index, at]) => [name(index), at]))
  const some = Object.keys(seen).length > 0
  return readVersion(origin, clock, some ? seen : undefined, fields && renameOrigins(fields, name))
}

function emptyDraft(): Draft {
  return { columns: undefined, refs: {}, origins: new Map(), lines: [] }
}

/**
 * Reference columns among a put's `refs`. A null in a column that is no reference here is a plain null: there is no
 * resource to name.
 */
function referenceColumns(
  refs: Readonly<Record<string, Reference | null>>,
  refColumns: Readonly<Record<string, string>>,
): Record<string, string> {
  const found = Object.entries(refs).map(([column, reference]) => [
    column,
    Object.hasOwn(refColumns, column) ? refColumns[column] : reference?.resource,
  ])
  return Object.fromEntries(found.filter(([, resource]) => resource !== undefined).sort())
}

function lineOf(change: Change, draft: Draft): string {
  const { version } = change
  let dot = '\t\t'
  if (version !== undefined) {
    const { origin, clock, fields } = version
    const seen = Object.entries(version.seen ?? {}).map(([other, at]) => [originIndex(draft, other), at])
    const all = {
      ...Object.fromEntries(seen),
      ...(fields && { fields: renameOrigins(fields, (other) => String(originIndex(draft, other))) }),
    }
    dot = `${clock}\t${originIndex(draft, origin)}\t${Object.keys(all).length === 0 ? '' : JSON.stringify(all)}`
  }
  const kind = change.kind === 'put' ? 'p' : change.kind === 'delete' ? 'd' : 'l'
  const payload =
    change.kind === 'put' ? JSON.stringify((draft.columns ?? []).map((column) => cellOf(change, column))) : ''
  return `${JSON.stringify(change.id)}\t${dot}\t${kind}\t${payload}`
}

function cellOf(change: PutChange, column: string): Json {
  if (Object.hasOwn(change.data, column)) return change.data[column] as Json
  return change.refs?.[column]?.id ?? null
}

function originIndex(draft: Draft, origin: string): number {
  const known = draft.origins.get(origin)
  if (known !== undefined) return known
  draft.origins.set(origin, draft.origins.size)
  return draft.origins.size - 1
}
