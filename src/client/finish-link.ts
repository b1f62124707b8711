import { appendLog } from '../store/index.ts'
import type { Failure } from '../sync/index.ts'
import { failureOf } from './failure.ts'
import type { RunSession } from './run-session.ts'

/** Lets a peer that is no site end what it does with a run. What fails there is told with the run; null when nothing does, or there is nothing to end. */
export async function finishLink({ peer, link, runId, store, events }: RunSession): Promise<Failure | null> {
  try {
    await peer.finish?.(runId)
    return null
  } catch (error) {
    const failure = failureOf(error, (err) => events.internalError({ where: 'run', err, runId }))
    await appendLog(store.db, {
      ...{ peer: link.peer, runId, mode: 'both', direction: 'outgoing', action: 'run', result: 'error' },
      message: `${failure.code}: ${failure.detail}`,
    })
    return failure
  }
}
