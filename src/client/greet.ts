import { appendLog, meetMark, notePeerSeen, offerRefused, peerLogChanged } from '../store/index.ts'
import { type RunEvent, SynclineError } from '../sync/index.ts'
import { wasStale } from './peer-error.ts'
import type { RunSession } from './run-session.ts'
import { exchangeSchemas } from './schemas.ts'

/** Asks who the peer is, and takes note of it. Errors: SYNC_PEER_CLONED. */
export async function greet(run: RunSession): Promise<RunEvent> {
  run.doing = 'greet'
  const { client } = run.peer
  const site = await client.greet(run.signal).catch((error: unknown) => {
    if (wasStale(error) && !run.signal.aborted) return client.greet(run.signal)
    throw error
  })
  const { peer, self } = run.link
  if (site.uuid === self.uuid) {
    const detail = `the site at the address of "${peer.name}" calls itself ${site.uuid}, as this one does: it is a copy of this site, or this site itself`
    throw new SynclineError('SYNC_PEER_CLONED', detail)
  }
  if (site.uuid === peer.uuid) {
    if (site.mark !== null) await meetMark(run.store.db, peer, site.mark, run.runId)
    run.greeted = site
    const { logId, clockOffsetMs } = site
    await Promise.all([
      offerRefused(run.store.db, peer.id, termsOf(run)),
      notePeerSeen(run.store.db, peer.id, { logId, clockOffsetMs }),
    ])
    const offset = { peer: peer.name, offsetMs: Math.round(clockOffsetMs) }
    const limitMs = run.limits.clockAheadMaxMs
    if (Math.abs(clockOffsetMs) > limitMs) run.events.clockFar({ ...offset, limitMs })
    else run.events.clockCompared(offset)
    const rows = Math.min(run.limits.batchRowsMax, site.limits.batchRowsMax ?? run.limits.batchRowsMax)
    for (const resource of run.tasks.keys()) run.rows.set(`push ${resource}`, rows)
    const { store, runId, resources, signal } = run
    const tasks = new Map(run.allTasks.map((task) => [task.resource, task]))
    run.skews = await exchangeSchemas({ store, client, peer, runId, tasks, resources, signal }, site.resources)
  }
  return { type: 'greeted', uuid: site.uuid, logId: site.logId }
}

/** Follows a peer whose database was restored or copied: what is known of its state is forgotten. */
export async function followLog(run: RunSession, logId: string): Promise<RunEvent> {
  const { peer } = run.link
  await peerLogChanged(run.store.db, peer.id, logId)
  const message = `the database of "${peer.name}" was restored or copied: it writes log ${logId} now, after ${peer.logId}. Both sides offer each other everything again`
  const entry = { mode: 'both', direction: 'outgoing', action: 'follow', result: 'warning', remote: true } as const
  await appendLog(run.store.db, { ...entry, peer, runId: run.runId, message })
  run.pushes.clear()
  run.peer.told.clear()
  return { type: 'logFollowed' }
}

/** Marks of what the peer lets us write, by resource. */
export function termsOf(run: RunSession): ReadonlyMap<string, string> {
  const offered = run.greeted?.resources ?? []
  return new Map(offered.flatMap(({ name, terms }) => (terms === null ? [] : [[name, terms] as const])))
}
