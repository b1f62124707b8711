import { SynclineError } from '../errors.ts'
import type { Batch, Json } from '../record.ts'
import { readClock, readId } from './change.ts'
import { assertDepth } from './exact-json.ts'
import { readFields } from './fields.ts'
import {
  type BodyLimits,
  checkColumns,
  checkCount,
  checkSize,
  decodeText,
  fault,
  incomplete,
  placed,
  quoted,
  trailerOf,
} from './format.ts'
import { enclosed, readHeader, readNames, type Shape } from './shape.ts'

/** The fast wire between two sites that both know it; the public formats stand beside it. */
export const LINES_MEDIA_TYPE = 'application/vnd.syncline.lines'

/** Form 1: the first. */
const FORM = {
  mediaType: LINES_MEDIA_TYPE,
  version: 1,
  members: ['resource', 'columns', 'refs', 'origins', 'sets', 'purged'],
}

/** Sets of further fields that one body may name: each is a step of its own when it is applied. */
const SETS_MAX = 500

/**
 * A batch as PostgreSQL makes and takes it: one line a record, never parsed on its way through Node. A line is `id TAB
 * clock TAB origin TAB seen TAB kind TAB payload`: id is a JSON string; clock is microseconds; origin an index into
 * `origins`; seen empty or `{"<origin index>": clock}`, with a member `fields` for the writes behind single fields; kind p (put), d (delete) or l (left); payload a JSON array in
 * column order for p, else empty. A change without a version has clock, origin and seen empty. JSON holds no raw
 * control characters, so TAB and newline separate safely. A put that carries fields beside the columns ends with
 * `TAB set`, an index into `sets`; their values follow those of the columns.
 */
export type LineBatch = {
  readonly resource: string
  /** Order of the payload array, reference columns included. */
  readonly columns: readonly string[]
  /** Reference column → resource it refers to; its payload value is a record id or null. */
  readonly refs: Readonly<Record<string, string>>
  readonly origins: readonly string[]
  /** Lines joined by newline, without one at the end; empty when there is none. */
  readonly text: string
  readonly count: number
  readonly next?: NonNullable<Batch['next']>
  /** Fields that the sender keeps for others without having columns for them: the sets of names that lines refer to. */
  readonly sets?: readonly (readonly string[])[]
  /** The lines are deletions whose tombstones were purged: each id is the hash of a record id, in decimal digits. */
  readonly purged?: true
  /**
   * Tombstones behind the place that was asked from were purged: this many times until now. Whoever comes from there
   * asks for them before it goes on.
   */
  readonly purges?: number
}

/** The first line of a body, without its newline. */
export function linesHeader(batch: LineBatch): string {
  const { resource, columns, refs, origins, sets, purged } = batch
  return JSON.stringify({ syncline: FORM.version, resource, columns, refs, origins, sets, purged })
}

/** The last line of a body: a body without it, or with another count, is incomplete. */
export function linesTrailer(batch: LineBatch): string {
  return JSON.stringify({ count: batch.count, ...batch.next, purges: batch.purges })
}

/** The body of a batch. */
export function linesBody(batch: LineBatch): Buffer {
  return enclosed(linesHeader(batch), batch.text, linesTrailer(batch))
}

/**
 * The batch in a body. Checks header, trailer, count and every line's envelope, and that ids are unique; payloads are
 * only looked at for separators and depth: the database reads them. Throws SYNC_BATCH_INCOMPLETE, SYNC_FORMAT_INVALID,
 * SYNC_RECORD_TOO_LARGE or SYNC_REQUEST_TOO_LARGE.
 */
export function decodeLines(body: Uint8Array | string, limits: BodyLimits): LineBatch {
  if (typeof body === 'string' && !body.isWellFormed()) fault('the body holds half a character')
  const bytes = typeof body === 'string' ? Buffer.from(body) : body
  const trailer = trailerOf(bytes, limits.depthMax)
  if (trailer === undefined) throw incomplete('the body ends before its trailer line')
  const text = typeof body === 'string' ? body : decodeText(body)
  let end = text.length
  while (text[end - 1] === '\n') end--
  const headerEnd = text.indexOf('\n')
  if (headerEnd === -1 || headerEnd >= end) throw incomplete('the body has no header line')
  const header = readHeader(text.slice(0, headerEnd), limits.depthMax, FORM, readMore)
  const lines = text.slice(headerEnd + 1, Math.max(headerEnd + 1, text.lastIndexOf('\n', end - 1)))
  checkCount(trailer.count, limits.recordsMax)
  const count = checkLines(lines, header.origins.length, header.sets?.length ?? 0, limits)
  if (count !== trailer.count) throw incomplete(`the trailer counts ${trailer.count} records, the body has ${count}`)
  const { next, purges } = trailer
  return { ...header, text: lines, count, ...(next && { next }), ...(purges !== undefined && { purges }) }
}

/**
 * A batch without `sets`, as one batch for each set of fields that its lines carry: from there on such a field is a
 * column like any other. Records keep their order within a batch; only the last one has `next`.
 */
export function splitSets(batch: LineBatch): readonly LineBatch[] {
  const { sets, next, ...rest } = batch
  if (sets === undefined) return [batch]
  const plain: string[] = []
  const bySet = new Map<number, string[]>()
  for (const line of batch.text === '' ? [] : batch.text.split('\n')) {
    const parts = line.split('\t')
    if (parts.length <= TABS + 1) plain.push(line)
    else {
      const at = Number(parts.pop())
      const lines = bySet.get(at) ?? []
      bySet.set(at, lines)
      lines.push(parts.join('\t'))
    }
  }
  const groups = [{ columns: batch.columns, lines: plain }]
  for (const [at, lines] of bySet) groups.push({ columns: [...batch.columns, ...(sets[at] ?? [])], lines })
  return groups.map(({ columns, lines }, n) => ({
    ...rest,
    columns,
    text: lines.join('\n'),
    count: lines.length,
    ...(n === groups.length - 1 && next && { next }),
  }))
}

function readMore({ sets: named, purged }: { readonly [member: string]: unknown }, { columns }: Shape) {
  const sets = readSets(named, columns)
  if (purged !== undefined && purged !== true) fault('purged is true or absent')
  return { ...(sets !== undefined && { sets }), ...(purged === true && { purged: true as const }) }
}

function readSets(value: unknown, columns: readonly string[]): LineBatch['sets'] {
  if (value === undefined) return undefined
  if (!Array.isArray(value)) return fault('sets must be a list of lists of names')
  if (value.length > SETS_MAX)
    throw new SynclineError(
      'SYNC_REQUEST_TOO_LARGE',
      `the header names ${value.length} sets, at most ${SETS_MAX} are taken`,
    )
  return value.map((set: unknown, n) => {
    const names = readNames(set, `sets[${n}]`)
    checkColumns(columns.length + names.length)
    const known = names.find((name) => columns.includes(name))
    if (known !== undefined) fault(`sets[${n}] names ${quoted(known)}, which is among the columns`)
    return names
  })
}

/**
 * Envelope of a line up to its payload: id, clock, origin, seen, kind. Linear: no two parts can match the same
 * character.
 */
const ENVELOPE =
  /("[^"\\\t\n]*(?:\\.[^"\\\t\n]*)*")\t(?:([1-9]\d{0,15})\t(0|[1-9]\d{0,8})\t(\{[^\t\n]*\}|)|\t\t)\t([pdl])\t/y
const TABS = 5
/** Control characters but TAB and newline. */
// biome-ignore lint/suspicious/noControlCharactersInRegex: control characters are what it looks for
const CONTROL = /[\0-\x08\x0b-\x1f]/

/**
 * Checks every line and returns their number. The cost is a few searches a line; the figures are in the bench of the
 * wire.
 */
function checkLines(lines: string, origins: number, sets: number, limits: BodyLimits): number {
  if (lines === '') return 0
  const control = CONTROL.exec(lines)
  const tabs = counter(lines, '\t')
  const squares = counter(lines, '[')
  const braces = counter(lines, '{')
  const ids = new Set<string>()
  let count = 0
  for (let start = 0; start <= lines.length; ) {
    const newline = lines.indexOf('\n', start)
    const end = newline === -1 ? lines.length : newline
    try {
      checkCount(count + 1, limits.recordsMax)
      if ((end - start) * 3 > limits.recordBytesMax) checkSize(lines.slice(start, end), limits.recordBytesMax)
      if (control !== null && control.index < end) fault('a control character stands outside an escape')
      ENVELOPE.lastIndex = start
      const envelope = ENVELOPE.exec(lines)
      const parts = tabs(end)
      if (envelope === null || (parts !== TABS && (parts !== TABS + 1 || sets === 0))) {
        return fault('a line is id, clock, origin, seen, kind and payload with a TAB between')
      }
      const payload = ENVELOPE.lastIndex
      const stop = parts === TABS ? end : checkSet(lines, end, sets)
      if (envelope[5] === 'p') {
        if (lines[payload] !== '[' || lines[stop - 1] !== ']') fault('the payload of a put is a list')
      } else if (payload !== end) fault('only a put has a payload')
      if (squares(end) + braces(end) > limits.depthMax) assertDepth(lines.slice(start, end), limits.depthMax)
      checkVersion(envelope[2], envelope[3], envelope[4], origins)
      const size = ids.size
      if (ids.add(uniqueId(envelope[1] as string)).size === size)
        fault(`the record ${envelope[1]} stands in the batch twice`)
    } catch (error) {
      throw placed(error, `record ${count + 1} (line ${count + 2})`)
    }
    count++
    start = end + 1
  }
  return count
}

/** The end of the payload of a line that names a set of further fields. */
function checkSet(lines: string, end: number, sets: number): number {
  const tab = lines.lastIndexOf('\t', end - 1)
  const set = lines.slice(tab + 1, end)
  if (!/^(?:0|[1-9]\d{0,8})$/.test(set) || Number(set) >= sets)
    fault(`set ${quoted(set)} is not among the ${sets} sets of the header`)
  return tab
}

/** What an id is known by. Ids come from PostgreSQL in one spelling unless they hold an escape. */
function uniqueId(token: string): string {
  const id = token.includes('\\') ? (JSON.parse(token) as string) : token.slice(1, -1)
  return readId(id)
}

function checkVersion(
  clock: string | undefined,
  origin: string | undefined,
  seen: string | undefined,
  origins: number,
): void {
  if (clock === undefined) return
  readClock(Number(clock))
  if (Number(origin) >= origins) fault(`origin ${origin} is not among the ${origins} origins of the header`)
  if (seen === '' || seen === undefined) return
  const { fields: _, ...others } = JSON.parse(seen) as Record<string, unknown>
  for (const [index, at] of Object.entries(others)) {
    if (!/^(?:0|[1-9]\d{0,8})$/.test(index) || Number(index) >= origins)
      fault(`seen names ${quoted(index)}, which is not among the ${origins} origins of the header`)
    readClock(at, `the clock in seen of origin ${index}`)
  }
}

/**
 * Lines whose writes behind single fields are impossible, with the reason: these records alone are set aside (I8), since one fault of another program
 * must not stop everything that comes behind it. Places are counted from 1. Costs a search for one word where no line has any.
 */
export function unsoundLines({
  text,
}: Pick<LineBatch, 'text'>): readonly { readonly n: number; readonly reason: string }[] {
  if (!text.includes('"fields"')) return []
  return text.split('\n').flatMap((line, at) => {
    const [, clock, origin = '', seen = ''] = line.split('\t', 4)
    if (!seen.includes('"fields"')) return []
    const { fields, ...others } = JSON.parse(seen) as Record<string, Json>
    try {
      readFields(fields ?? null, { origin, clock: Number(clock), seen: others as Record<string, number> })
      return []
    } catch (error) {
      return [{ n: at + 1, reason: (error as Error).message }]
    }
  })
}

/**
 * Counts one character in windows that follow each other, finding every occurrence once: searching anew for each line
 * would be quadratic.
 */
function counter(text: string, character: string): (end: number) => number {
  let at = text.indexOf(character)
  return (end) => {
    let count = 0
    for (; at !== -1 && at < end; count++) at = text.indexOf(character, at + 1)
    return count
  }
}
