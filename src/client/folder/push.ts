import { livingCount, noteEdenSent, readEdenMemory, readEdenTold, type Store } from '../../store/index.ts'
import {
  type Change,
  changesOfLines,
  type EdenState,
  edenElement,
  type FileRecord,
  type LineBatch,
  printsOf,
  sentTime,
  splitSets,
} from '../../sync/index.ts'
import type { PushPreview } from '../answers.ts'
import type { EdenResource } from '../eden/resources.ts'
import { uploadColumns, withoutUploads } from '../eden/uploads.ts'
import { jsonColumnsOf, printsInFile } from './reader.ts'
import { EARLIER_MAX } from './take.ts'

/**
 * The records of a batch as they stand in a file. Formats without versions tell what was told last of a record beside its values, and it is
 * remembered what was written: so it is known again when somebody gives it back.
 */
export async function recordsForFile(
  store: Store,
  resource: EdenResource,
  batch: LineBatch,
  how: { readonly elements: boolean; readonly remembered: boolean },
): Promise<readonly FileRecord[]> {
  const { place, shape, shapes } = resource
  const files = how.elements ? uploadColumns(shape) : []
  const changes = splitSets(batch)
    .flatMap(changesOfLines)
    .map((change) => withoutUploads(change, files))
  const told =
    how.elements || how.remembered
      ? await readEdenTold(
          store.db,
          place,
          changes.map(({ id }) => id),
        )
      : new Map()
  const jsonColumns = jsonColumnsOf(shape)
  const sent = new Map<string, EdenState>()
  const records = changes.map((change): FileRecord => {
    const { version } = change
    if (version === undefined) return { change, jsonColumns }
    const known = told.get(change.id)
    const notBefore = known?.notBefore
    if (change.kind !== 'left')
      sent.set(change.id, {
        modifiedOn: sentTime({ version, notBefore }),
        deleted: change.kind === 'delete',
        prints: how.elements ? printsOf(change, shape) : printsInFile(change, shape),
        version,
      })
    if (!how.elements || change.kind === 'left') return { change, jsonColumns }
    const outgoing = { change, version, kept: known?.kept, notBefore, filled: known?.filled ?? NOTHING }
    return { change, element: edenElement(outgoing, shape, shapes) }
  })
  if (how.remembered) await noteEdenSent(store.db, place, sent, EARLIER_MAX)
  return inOrder(records)
}

const NOTHING: ReadonlySet<string> = new Set()

/** Records with the same columns come together, as CSV wants them; otherwise as they came. */
function inOrder(records: readonly FileRecord[]): readonly FileRecord[] {
  const columns = ({ change }: FileRecord) =>
    change.kind === 'put' ? [...Object.keys(change.data), ...Object.keys(change.refs ?? {})].sort().join('\n') : null
  const [deletes, puts] = [
    records.filter((record) => columns(record) === null),
    records.filter((record) => columns(record) !== null),
  ]
  return [...[...Map.groupBy(puts, columns).values()].flat(), ...deletes]
}

/**
 * What a push would write. What the other side has of it nobody knows: what was written before, as far as that is remembered, is changed, and what is
 * here is taken for what is there.
 */
export async function previewOfFile(store: Store, resource: EdenResource, batch: LineBatch): Promise<PushPreview> {
  const changes: readonly Change[] = batch.purged === true ? [] : splitSets(batch).flatMap(changesOfLines)
  const [deletes, puts] = [
    changes.filter(({ kind }) => kind === 'delete'),
    changes.filter(({ kind }) => kind === 'put'),
  ]
  const known = await readEdenMemory(
    store.db,
    resource.place,
    puts.map(({ id }) => id),
  )
  const updates = puts.filter(({ id }) => known.get(id)?.sent !== undefined || known.get(id)?.have !== undefined).length
  return {
    ...{ inserts: puts.length - updates, updates, deletes: deletes.length, braked: null },
    ...{ living: (await livingCount(store.db, resource.info)) + deletes.length },
    samples: deletes.slice(0, 10).map(({ id }) => id),
  }
}
