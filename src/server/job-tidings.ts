import { changedJobRuns, type Store } from '../store/index.ts'

/** Changes commit in another order than they are stamped: what is newer than this is looked at again. */
const OVERLAP_MS = 5_000

/** Tells runs of jobs one listener: first all that are not over, then each whenever something of it changed, once. */
export function createJobTidings(store: Store): () => Promise<readonly string[]> {
  let after: string | null = null
  const told = new Map<string, string>()
  return async () => {
    const { runs, at } = await changedJobRuns(store.db, after)
    const fresh = runs.filter((run) => told.get(run.id) !== run.changedAt)
    for (const run of fresh) told.set(run.id, run.changedAt)
    const from = Date.parse(at) - OVERLAP_MS
    for (const [id, changedAt] of told) if (Date.parse(changedAt) < from) told.delete(id)
    after = new Date(from).toISOString()
    return fresh.map((run) => `event: job.run\nid: ${run.id}.${run.changedAt}\ndata: ${JSON.stringify(run)}\n\n`)
  }
}
