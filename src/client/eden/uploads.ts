import type { Change, EdenRecord, EdenShape, Json } from '../../sync/index.ts'
import type { EdenRequests } from './requests.ts'

/** Files fetched for one batch at a time. */
const AT_ONCE = 4

/** A file that did not come, and why. */
export type MissingUpload = { readonly id: string; readonly column: string; readonly reason: string }

/** Columns of a table of Eden that hold uploaded files themselves. */
export function uploadColumns({ columns }: EdenShape): readonly string[] {
  return columns.flatMap(({ kind, column }) => (kind === 'upload' ? [column] : []))
}

/**
 * Changes with the files that Eden has for them, fetched from its own address alone and no larger than an answer may be. A file that does not
 * come is left out of its change, so that what is here stays, and named.
 */
export async function withUploads(
  requests: Pick<EdenRequests, 'download'>,
  changes: readonly Change[],
  records: ReadonlyMap<string, EdenRecord>,
  columns: readonly string[],
  signal: AbortSignal | undefined,
): Promise<{ readonly changes: readonly Change[]; readonly missing: readonly MissingUpload[] }> {
  const missing: MissingUpload[] = []
  const one = async (change: Change): Promise<Change> => {
    if (change.kind !== 'put') return change
    const data: Record<string, Json> = { ...change.data }
    for (const { column, url } of records.get(change.id)?.uploads ?? []) {
      try {
        data[column] = `\\x${(await requests.download(url, signal)).toString('hex')}`
      } catch (error) {
        if (signal?.aborted) throw signal.reason
        delete data[column]
        missing.push({ id: change.id, column, reason: (error as Error).message })
      }
    }
    return { ...change, data }
  }
  if (columns.length === 0) return { changes, missing }
  const done: Change[] = []
  for (let at = 0; at < changes.length; at += AT_ONCE)
    done.push(...(await Promise.all(changes.slice(at, at + AT_ONCE).map(one))))
  return { changes: done, missing }
}

/** A change without its files: only looked at, or on its way to Eden, which takes no files from a push. */
export function withoutUploads(change: Change, columns: readonly string[]): Change {
  if (change.kind !== 'put' || columns.length === 0) return change
  return {
    ...change,
    data: Object.fromEntries(Object.entries(change.data).filter(([name]) => !columns.includes(name))),
  }
}
