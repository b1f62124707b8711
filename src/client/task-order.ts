import type { Peer, Task } from '../store/index.ts'
import { SynclineError } from '../sync/index.ts'

/** The tasks of a run, parents before those that refer to them. Errors: SYNC_REQUEST_NOT_FOUND. */
export function inOrder(
  tasks: readonly Task[],
  order: readonly string[],
  peer: Peer,
  only: readonly string[] | undefined,
): readonly Task[] {
  const missing = only?.filter((name) => !tasks.some(({ resource }) => resource === name)) ?? []
  if (missing.length > 0 || tasks.length === 0) {
    const what = missing.length > 0 ? `no enabled task for ${missing.join(', ')}` : 'no enabled task'
    throw new SynclineError('SYNC_REQUEST_NOT_FOUND', `peer "${peer.name}" has ${what}`)
  }
  const wanted = only === undefined ? tasks : tasks.filter(({ resource }) => only.includes(resource))
  return [...wanted].sort((a, b) => order.indexOf(a.resource) - order.indexOf(b.resource))
}
