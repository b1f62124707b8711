import type { ResourceInfo } from '../store/index.ts'
import {
  type Change,
  codecForContentType,
  decodeLines,
  type LineBatch,
  linesOfChanges,
  SynclineError,
} from '../sync/index.ts'
import type { ServerLimits } from './deps.ts'

/** The records of a body, ready to be applied, in any format. */
export type RecordsIn = {
  readonly batches: readonly LineBatch[]
  readonly count: number
  /** True when nothing in it has a version: then a person or a script wrote it, and a field that is unknown here is a mistake. */
  readonly byHand: boolean
}

/** Records of one body: tiny ones cost far more memory here than in the body. */
const RECORDS_MAX = 200_000

/**
 * Steps that one body may take. Each time a record is named again, and each further set of columns, takes one, all of them in one
 * transaction: while it is open, nothing that is written after it can be sent to anybody.
 */
const STEPS_MAX = 500

/**
 * Reads a body of records of one resource. Errors: SYNC_FORMAT_UNSUPPORTED, SYNC_FORMAT_INVALID and SYNC_BATCH_INCOMPLETE with the place of the
 * fault, SYNC_RECORD_TOO_LARGE, SYNC_REQUEST_TOO_LARGE, SYNC_REQUEST_INVALID for records of another resource.
 */
export function recordsIn(
  bytes: Uint8Array,
  contentType: string | undefined,
  resource: ResourceInfo,
  limits: Pick<ServerLimits, 'recordBytesMax' | 'depthMax'>,
): RecordsIn {
  const format = codecForContentType(contentType)
  const bounds = { recordsMax: RECORDS_MAX, recordBytesMax: limits.recordBytesMax, depthMax: limits.depthMax }
  if (format.name === 'lines') {
    const batch = decodeLines(bytes, bounds)
    if (batch.resource !== resource.name) throw otherResources(resource.name, [batch.resource])
    return { batches: [batch], count: batch.count, byHand: false }
  }
  const refs = Object.fromEntries(resource.references.map(({ column, resource: target }) => [column.name, target]))
  const jsonColumns = resource.columns.filter(({ form }) => form === 'json' || form === 'array').map(({ name }) => name)
  const read = format.decode(bytes, {
    ...bounds,
    resource: resource.name,
    refs,
    trailer: 'optional',
    idColumn: resource.keyColumn,
    jsonColumns,
  })
  const others = read.filter((batch) => batch.resource !== resource.name && batch.changes.length > 0)
  if (others.length > 0)
    throw otherResources(
      resource.name,
      others.map((batch) => batch.resource),
    )
  const changes = read.flatMap((batch) => (batch.resource === resource.name ? batch.changes : []))
  const batches = linesOfChanges(resource.name, changes, refs)
  if (batches.length > STEPS_MAX) {
    throw new SynclineError(
      'SYNC_REQUEST_TOO_LARGE',
      `the records of the body have to be written in ${batches.length} steps, at most ${STEPS_MAX} are taken: a record stands in it many times, or the records have many different sets of columns`,
    )
  }
  return {
    batches,
    count: changes.length,
    byHand: changes.every((change) => change.version === undefined),
  }
}

/** The same records as this site's own writes of now: whatever version they had elsewhere does not count. */
export function withoutVersions(batches: readonly LineBatch[]): readonly LineBatch[] {
  return batches.map((batch) => ({
    ...batch,
    origins: [],
    text: batch.text.replace(/^([^\t]*)\t[^\t]*\t[^\t]*\t[^\t]*\t/gm, '$1\t\t\t\t'),
  }))
}

/** Batches of one change made here. */
export function batchesOf(resource: ResourceInfo, change: Change): readonly LineBatch[] {
  const refs = Object.fromEntries(resource.references.map(({ column, resource: target }) => [column.name, target]))
  return linesOfChanges(resource.name, [change], refs)
}

function otherResources(asked: string, found: readonly string[]): SynclineError {
  const names = found.map((name) => `"${name.slice(0, 80)}"`).join(', ')
  return new SynclineError(
    'SYNC_REQUEST_INVALID',
    `the request is for resource "${asked}", the body also has records of ${names}; send each resource by itself`,
  )
}
