import { appendLog, keepStrangers, type NewLogEntry, offerAgain, type Peer, type Store } from '../../store/index.ts'
import type { EdenElement, EdenFault } from '../../sync/index.ts'
import type { Arrived } from './arrive.ts'
import type { EdenResource } from './resources.ts'
import { strangersOf } from './strangers.ts'
import type { MissingUpload } from './uploads.ts'

/** What is said in the log of a pull beside its batches. */
export type EdenNotes = ReturnType<typeof createNotes>

export function createNotes({ store, peer }: { readonly store: Store; readonly peer: Peer }) {
  /** Eden shows an older state than before: it was put back, or a refused push did it. What is here is offered to it again. */
  async function offerOlder(resource: EdenResource, arrived: readonly Arrived[]): Promise<void> {
    const older = arrived.filter(({ change }) => change === null).map(({ record }) => record.change.id)
    if (older.length === 0) return
    await store.db.transaction().execute((trx) => offerAgain(trx, resource.place.resourceId, older))
    await log(
      resource,
      'compare',
      'warning',
      `${peer.name} shows ${older.length} records as they were before, such as ${older[0]}: they are offered to it again`,
    )
  }

  /** Records of tables that nobody has here are kept as they came, and their tables named, once: nothing is left out without a word. */
  const told = new Set<string>()
  async function noteStrangers(elements: readonly EdenElement[], resource: EdenResource): Promise<void> {
    const strangers = strangersOf(elements, resource)
    if (strangers.length === 0) return
    await keepStrangers(store.db, peer.id, strangers)
    const names = [...new Set(strangers.map(({ element }) => element.table))].sort()
    const fresh = names.filter((name) => !told.has(`${resource.name} ${name}`))
    if (fresh.length === 0) return
    for (const name of fresh) told.add(`${resource.name} ${name}`)
    await log(
      resource,
      'pull',
      'success',
      `${peer.name} sends ${fresh.join(', ')} along with ${resource.shape.table}: there is no resource of that name here; the records are kept as they came, and not synchronized`,
    )
  }

  async function noteFaults(resource: EdenResource, faults: readonly EdenFault[]): Promise<void> {
    const [first] = faults
    if (first === undefined) return
    await log(
      resource,
      'pull',
      'error',
      `${faults.length} records cannot be read; first: ${first.uuid ?? 'one without a name'}: ${first.code}: ${first.reason}`,
    )
  }

  async function noteMissing(resource: EdenResource, missing: readonly MissingUpload[]): Promise<void> {
    const [first] = missing
    if (first === undefined) return
    await log(
      resource,
      'pull',
      'warning',
      `${missing.length} files did not come; first: ${first.column} of ${first.id}: ${first.reason}`,
    )
  }

  async function log(
    resource: EdenResource,
    action: string,
    result: 'success' | 'warning' | 'error',
    message: string,
    more: Partial<NewLogEntry> = {},
  ): Promise<void> {
    const entry = {
      mode: 'pull',
      direction: 'outgoing',
      action,
      result,
      remote: result !== 'success',
      message,
    } as const
    await appendLog(store.db, { ...entry, ...more, peer: peer, resource: resource.name })
  }

  return { log, offerOlder, noteStrangers, noteFaults, noteMissing }
}
