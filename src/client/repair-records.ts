import type { ExchangeLimits, ExchangeLink, ResourceInfo, Store, Task } from '../store/index.ts'
import type { LineBatch } from '../sync/index.ts'
import type { PeerClient } from './peer-client.ts'
import type { Verified } from './verify.ts'
import type { Difference } from './walk.ts'

export type RepairLink = {
  readonly store: Store
  readonly link: ExchangeLink
  readonly client: PeerClient
  readonly limits: ExchangeLimits
  /** The run that it belongs to; what it replaces is kept under it. */
  readonly runId: string | null
  readonly signal?: AbortSignal | undefined
}

/** A resource whose comparison found something. */
export type Repairing = { readonly resource: ResourceInfo; readonly task: Task; readonly verified: Verified }

/** Records that were changed behind the triggers of a side. */
export type Behind = { readonly ids: readonly string[]; readonly edited: readonly string[] }

/** Which side has to take up what. Values that differ in one version are those of the side whose row was written last; where none tells, ours. */
export function behindTriggers(differences: readonly Difference[]): { readonly here: Behind; readonly there: Behind } {
  const ids = (kinds: readonly string[]) => differences.filter(({ what }) => kinds.includes(what)).map(({ id }) => id)
  const content = differences.filter(({ what, left }) => what === 'content' && left !== true)
  const theirs = content.filter(({ touched }) => touched?.there === true && !touched.here)
  return {
    here: {
      ids: ids(['row gone here', 'row unknown here']),
      edited: content.filter((each) => !theirs.includes(each)).map(({ id }) => id),
    },
    there: { ids: ids(['row gone there', 'row unknown there']), edited: theirs.map(({ id }) => id) },
  }
}

/** Answers come in key order, cut where they grow too large: what comes behind the last record is still due. Nothing more comes after an empty one. */
export function without(ids: readonly string[], batches: readonly LineBatch[]): readonly string[] {
  const got = new Set(
    batches.flatMap(({ text }) =>
      text === '' ? [] : text.split('\n').map((line) => JSON.parse(line.slice(0, line.indexOf('\t'))) as string),
    ),
  )
  if (got.size === 0) return []
  const last = [...got].reduce((a, b) => (Buffer.compare(Buffer.from(a), Buffer.from(b)) < 0 ? b : a))
  return ids.filter((id) => Buffer.compare(Buffer.from(id), Buffer.from(last)) > 0)
}
