import { createHash } from 'node:crypto'
import {
  type Change,
  type EdenElement,
  type EdenFault,
  type EdenRecord,
  idOfEdenUuid,
  type LineBatch,
  readEdenTime,
} from '../../sync/index.ts'
import { type ArrivalPlace, isOnlyNamed, recordOf } from './arrive.ts'

/** The records among some elements: those that can be read, and those of which only the name and the time can. */
export type ReadElements = {
  readonly records: readonly EdenRecord[]
  readonly faults: readonly EdenFault[]
  /** Records of `records` that cannot be read, with the reason. */
  readonly unreadable: ReadonlyMap<string, EdenFault>
}

/** Reads the elements of the table that was asked for. What only names a record tells nothing. */
export function readElements(elements: readonly EdenElement[], place: ArrivalPlace): ReadElements {
  const records: EdenRecord[] = []
  const faults: EdenFault[] = []
  const unreadable = new Map<string, EdenFault>()
  for (const element of elements) {
    if (element.table !== place.shape.table || isOnlyNamed(element)) continue
    const found = recordOf(element, place)
    if (found === undefined) continue
    if (!('reason' in found)) {
      records.push(found)
      continue
    }
    faults.push(found)
    const named = namedRecord(found, place)
    if (named === undefined) continue
    unreadable.set(named.change.id, found)
    records.push(named)
  }
  return { records, faults, unreadable }
}

/** A record of which nothing is known but its name, its time, and that it is this one. */
function namedRecord({ element, uuid }: EdenFault, { shape }: ArrivalPlace): EdenRecord | undefined {
  if (uuid === undefined || element.attributes.deleted?.toLowerCase() === 'true') return undefined
  const modifiedOn = readEdenTime(element.attributes.modified_on ?? '')
  const print = createHash('sha256').update(JSON.stringify(element.fields)).digest('base64url')
  return {
    ...{ shape, uuid, attributes: element.attributes, prints: { '': print }, uploads: [] },
    ...(modifiedOn !== undefined && { modifiedOn }),
    change: { kind: 'put', id: idOfEdenUuid(uuid, shape.uuidKey), data: {} },
  }
}

/**
 * Lines that no database takes: one value where two are announced. So a record that cannot be read waits in quarantine like any other that is
 * refused, with the reason as its value, until Eden shows it with other values.
 */
export function unreadableLines(
  resource: string,
  changes: readonly Change[],
  unreadable: ReadElements['unreadable'],
): LineBatch {
  const origins: string[] = []
  const place = (origin: string) => {
    if (!origins.includes(origin)) origins.push(origin)
    return origins.indexOf(origin)
  }
  const lines = changes.flatMap(({ id, version }) => {
    const fault = unreadable.get(id)
    if (version === undefined || fault === undefined) return []
    const seen = Object.entries(version.seen ?? {}).map(([origin, clock]) => [place(origin), clock])
    const behind = seen.length === 0 ? '' : JSON.stringify(Object.fromEntries(seen))
    const payload = JSON.stringify([`${fault.code}: ${fault.reason}`])
    return [[JSON.stringify(id), version.clock, place(version.origin), behind, 'p', payload].join('\t')]
  })
  return {
    resource,
    columns: ['cannot be read', 'because'],
    refs: {},
    origins,
    text: lines.join('\n'),
    count: lines.length,
  }
}
