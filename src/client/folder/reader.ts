import type { FileHandle } from 'node:fs/promises'
import type { ResourceInfo } from '../../store/index.ts'
import {
  type BodyLimits,
  type Change,
  codecForContentType,
  type EdenElement,
  type EdenFault,
  type EdenPrints,
  type EdenRecord,
  type EdenShape,
  type EdenShapes,
  type EdenStranger,
  edenRecords,
  type FolderFormat,
  printsOf,
  readJsonFile,
  SynclineError,
  s3jsonReader,
  s3xml,
  s3xmlReader,
  shapeOfResource,
  tuidsOf,
  usesTuid,
} from '../../sync/index.ts'

/** What a file is read with. */
export type FileContext = {
  readonly format: FolderFormat
  readonly bytesMax: number
  readonly recordBytesMax: number
  readonly depthMax: number
  readonly shapes: EdenShapes
  readonly resources: ReadonlyMap<string, ResourceInfo>
  /** Columns that refer, as they are called in the file, and the resources that they refer to. */
  readonly refsOf: (resource: string) => Readonly<Record<string, string>>
  /** The resource that the name of the file tells. */
  readonly named: string | undefined
}

/** A record of a file: with a version of its own, or told without one. */
export type FoundRecord = {
  readonly resource: string
  readonly change: Change
  readonly told?: EdenRecord
  /** False where a field that is not named is not sent; an export of Eden leaves out what is empty. */
  readonly whole: boolean
}

/** Some records of a file, in its order, and what of it is not taken. */
export type Portion = {
  readonly records: readonly FoundRecord[]
  readonly strangers: readonly EdenStranger[]
  readonly faults: readonly EdenFault[]
}

/** Top-level elements that are looked at together. */
const PORTION = 500
/** Elements that wait for the end of the document, as a tuid in them is only known there. */
const WAITING_MAX = 20_000
const RECORDS_MAX = 1_000_000
const HEAD_BYTES = 4_096
/** Only our own writer of S3XML counts the records; its values are exact, and have versions. */
const OURS = /<s3xml\b[^>]*\scount="/

/**
 * The records of a file, in its order and the same each time. Throws SYNC_FORMAT_INVALID and the like where the file cannot be read; what came
 * before stands.
 */
export async function* readFile(handle: FileHandle, context: FileContext): AsyncGenerator<Portion> {
  const { size } = await handle.stat()
  if (size > context.bytesMax)
    throw new SynclineError('SYNC_REQUEST_TOO_LARGE', `it has ${size} bytes; at most ${context.bytesMax} are read here`)
  switch (context.format) {
    case 'csv':
      yield* csvPortions(handle, context)
      return
    case 'json':
      yield jsonPortion(await whole(handle, size), context)
      return
    case 's3json':
      yield* elementPortions(handle, context, s3jsonReader)
      return
    case 's3xml': {
      const head = Buffer.alloc(Math.min(size, HEAD_BYTES))
      await handle.read(head, 0, head.length, 0)
      if (OURS.test(head.toString('latin1'))) yield ownPortion(await whole(handle, size), context)
      else yield* elementPortions(handle, context, s3xmlReader)
      return
    }
    default:
      context.format satisfies never
  }
}

async function whole(handle: FileHandle, size: number): Promise<Buffer> {
  const bytes = Buffer.alloc(size)
  let length = 0
  while (length < size) {
    const { bytesRead } = await handle.read(bytes, length, size - length, length)
    if (bytesRead === 0) break
    length += bytesRead
  }
  return bytes.subarray(0, length)
}

/** CSV is read piece by piece: a large table needs no more memory than a small one. */
async function* csvPortions(handle: FileHandle, context: FileContext): AsyncGenerator<Portion> {
  const { named, resources } = context
  const info = named === undefined ? undefined : resources.get(named)
  if (named === undefined || info === undefined)
    throw new SynclineError(
      'SYNC_FORMAT_INVALID',
      `nothing says which resource it is of: put \${resource} into the pattern of the files that are read`,
    )
  const before = { rows: 0, lines: 0 }
  for await (const { head, rows, lines } of csvPieces(handle)) {
    try {
      const [batch] = decode('text/csv', Buffer.concat([head, rows]), context, named, { idColumn: info.keyColumn })
      yield portionOf(named, batch?.changes ?? [], context)
      before.rows += batch?.changes.length ?? 0
      before.lines += lines
    } catch (error) {
      throw placedBehind(error, before)
    }
  }
}

type CsvPiece = {
  /** The line with the names of the columns, and the line break behind it; empty for the first piece, which begins with it. */
  readonly head: Buffer
  readonly rows: Buffer
  /** Lines of the rows. */
  readonly lines: number
}

/** Whole rows of a file, about so many bytes at a time. A line break in quotes ends no row. */
async function* csvPieces(handle: FileHandle): AsyncGenerator<CsvPiece> {
  let [head, rest] = [Buffer.alloc(0), Buffer.alloc(0)]
  let [quoted, first] = [false, true]
  let [at, end, headStart, headEnd, lines, sure] = [0, 0, 0, 0, 0, 0]
  for await (const chunk of handle.createReadStream({
    start: 0,
    autoClose: false,
    highWaterMark: CSV_BYTES,
  }) as AsyncIterable<Buffer>) {
    rest = Buffer.concat([rest, chunk])
    for (; at < rest.length; at++) {
      const byte = rest[at]
      if (byte === QUOTE) quoted = !quoted
      else if (byte === LINE_FEED) {
        lines++
        if (quoted) continue
        // Blank lines before the names of the columns are none.
        if (first && headEnd === 0) {
          if (isBlank(rest.subarray(end, at + 1))) headStart = at + 1
          else headEnd = at + 1
        }
        end = at + 1
        sure = lines
      }
    }
    if (end < CSV_BYTES || (first && headEnd === 0)) continue
    yield { head: first ? NOTHING : head, rows: rest.subarray(0, end), lines: sure }
    // A copy: what was cut off is let go of.
    if (first) head = Buffer.from(rest.subarray(headStart, headEnd))
    rest = Buffer.from(rest.subarray(end))
    ;[first, at, end, lines, sure] = [false, rest.length, 0, lines - sure, 0]
  }
  if (rest.length > 0 || first) yield { head: first ? NOTHING : head, rows: rest, lines }
}

function isBlank(line: Buffer): boolean {
  const text = line.subarray(line.subarray(0, 3).equals(BYTE_ORDER_MARK) ? 3 : 0)
  return text.every((byte) => byte === LINE_FEED || byte === RETURN)
}

const CSV_BYTES = 1 << 20
const QUOTE = 0x22
const LINE_FEED = 0x0a
const RETURN = 0x0d
const NOTHING = Buffer.alloc(0)

/** The place in the whole file of what is wrong in a piece of it. */
function placedBehind(error: unknown, before: { readonly rows: number; readonly lines: number }): unknown {
  if (!(error instanceof SynclineError) || before.rows === 0) return error
  const message = error.message
    .replace(/^record (\d+)/, (_, number: string) => `record ${Number(number) + before.rows}`)
    .replace(/\bline (\d+)/, (_, number: string) => `line ${Number(number) + before.lines - 1}`)
  return new SynclineError(error.code, message, { cause: error })
}

function ownPortion(bytes: Buffer, context: FileContext): Portion {
  // Of the resource that is asked for the columns are known; so each is asked for that the document has.
  const names = [...context.resources.keys()]
  const first = names.find((name) => bytes.includes(`name="${name}"`)) ?? names[0] ?? ''
  const found = decode('application/xml', bytes, context, first).map(({ resource }) => resource)
  const known = found.filter((name) => context.resources.has(name))
  const strangers = found.length - known.length
  if (strangers > 0) {
    const unknown = found.filter((name) => !context.resources.has(name))
    throw new SynclineError('SYNC_FORMAT_INVALID', `there is no resource ${unknown.join(', ')} here`)
  }
  const parts = known.map((name) => {
    const batch = decode('application/xml', bytes, context, name).find(({ resource }) => resource === name)
    return portionOf(name, batch?.changes ?? [], context)
  })
  return { records: parts.flatMap(({ records }) => records), strangers: [], faults: [] }
}

/** Columns that hold JSON or a list, as they are called in files. */
export function jsonColumnsOf({ columns }: EdenShape): readonly string[] {
  return columns
    .filter(({ kind }) => kind === 'json' || kind === 'list' || kind === 'references')
    .map(({ column }) => column)
}

function decode(
  mediaType: 'text/csv' | 'application/xml',
  bytes: Buffer,
  context: FileContext,
  resource: string,
  more: { readonly idColumn?: string } = {},
) {
  const { recordBytesMax, depthMax, refsOf, shapes } = context
  const shape = shapeOfResource(shapes, resource)
  const jsonColumns = shape === undefined ? [] : jsonColumnsOf(shape)
  const limits: BodyLimits = { recordsMax: RECORDS_MAX, recordBytesMax, depthMax }
  const codec = mediaType === 'application/xml' ? s3xml : codecForContentType(mediaType)
  if (codec.name === 'lines') throw new Error('a file is not in lines')
  return codec.decode(bytes, { ...limits, resource, refs: refsOf(resource), trailer: 'optional', jsonColumns, ...more })
}

function jsonPortion(bytes: Buffer, context: FileContext): Portion {
  const { depthMax, named, refsOf, resources } = context
  let text: string
  try {
    text = new TextDecoder('utf-8', { fatal: true }).decode(bytes)
  } catch (error) {
    throw new SynclineError('SYNC_FORMAT_INVALID', 'it is not UTF-8', { cause: error })
  }
  const records: FoundRecord[] = []
  for (const { resource, changes } of readJsonFile(text, { depthMax, named, refsOf })) {
    if (!resources.has(resource))
      throw new SynclineError('SYNC_FORMAT_INVALID', `there is no resource "${resource.slice(0, 63)}" here`)
    records.push(...portionOf(resource, changes, context).records)
  }
  return { records, strangers: [], faults: [] }
}

/**
 * Prints of a record in a format without elements. A field that is no column here has another name in them: when it becomes one, the same file says
 * something new.
 */
export function printsInFile(change: Change, shape: EdenShape): EdenPrints {
  const known = new Set(shape.columns.map(({ field }) => field))
  return Object.fromEntries(
    Object.entries(printsOf(change, shape)).map(([name, mark]) => [known.has(name) ? name : unknownField(name), mark]),
  )
}

export function unknownField(name: string): string {
  return `?${name}`
}

function portionOf(resource: string, changes: readonly Change[], { shapes }: FileContext): Portion {
  const shape = shapeOfResource(shapes, resource)
  const records = changes.map((change): FoundRecord => {
    if (change.version !== undefined || shape === undefined || change.kind === 'left')
      return { resource, change, whole: false }
    return {
      resource,
      change,
      whole: false,
      told: { shape, change, attributes: {}, prints: printsInFile(change, shape), uploads: [] },
    }
  })
  return { records, strangers: [], faults: [] }
}

async function* elementPortions(
  handle: FileHandle,
  context: FileContext,
  make: typeof s3xmlReader,
): AsyncGenerator<Portion> {
  const { recordBytesMax, depthMax, bytesMax, shapes } = context
  const reader = make({ recordBytesMax, depthMax, bytesMax, elementsMax: RECORDS_MAX })
  const waiting: EdenElement[] = []
  let some: EdenElement[] = []
  const take = (elements: readonly EdenElement[]) => {
    for (const element of elements) (usesTuid(element) ? waiting : some).push(element)
    if (waiting.length > WAITING_MAX)
      throw new SynclineError('SYNC_REQUEST_TOO_LARGE', `more than ${WAITING_MAX} records of the document use a tuid`)
  }
  let begun = false
  for await (const chunk of handle.createReadStream({ start: 0, autoClose: false }) as AsyncIterable<Buffer>) {
    // A byte order mark is no part of the document.
    take(reader.write(begun || !chunk.subarray(0, 3).equals(BYTE_ORDER_MARK) ? chunk : chunk.subarray(3)))
    begun = true
    if (some.length < PORTION) continue
    yield elementPortion(some, shapes)
    some = []
  }
  take(reader.end())
  yield elementPortion([...some, ...waiting], shapes)
}

const BYTE_ORDER_MARK = Buffer.from([0xef, 0xbb, 0xbf])

function elementPortion(elements: readonly EdenElement[], shapes: EdenShapes): Portion {
  const tuids = tuidsOf(elements, shapes)
  const taken = elements.map((element) => edenRecords(element, shapes, tuids))
  return {
    records: taken.flatMap(({ records }) => records.filter((record) => !isOnlyName(record)).map(foundRecord)),
    strangers: taken.flatMap(({ strangers }) => strangers),
    faults: taken.flatMap(({ faults }) => faults),
  }
}

function foundRecord(told: EdenRecord): FoundRecord {
  const whole = ['created_on', 'modified_on', 'mci'].every((name) => told.attributes[name] !== undefined)
  return { resource: told.shape.resource, change: told.change, told, whole }
}

/** Eden ends a chain of references with such elements: they name a record and say nothing of it. */
function isOnlyName({ change, attributes }: EdenRecord): boolean {
  if (change.kind !== 'put' || attributes.modified_on !== undefined) return false
  return Object.keys(change.data).length + Object.keys(change.refs ?? {}).length === 0
}
