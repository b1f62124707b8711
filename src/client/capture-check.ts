import { appendLog, type BrokenCapture } from '../store/index.ts'
import type { Failure, ResultName } from '../sync/index.ts'
import type { RunSession } from './run-session.ts'

/**
 * Changes that no trigger sees are never sent, and nothing else would ever say so: a run whose tables have lost a trigger is not green,
 * however well the exchange went. What peers send is applied all the same.
 */
export async function reportBroken(session: RunSession, broken: readonly BrokenCapture[]): Promise<Failure | null> {
  const concerned = broken.filter(({ resource }) => session.tasks.has(resource))
  if (concerned.length === 0) return null
  const detail = `changes of ${concerned.map(({ resource }) => resource).join(', ')} are not captured: a trigger is missing or disabled; to mend: ${concerned.map(({ mend }) => mend).join('; ')}`
  for (const { resource } of concerned) {
    session.events.captureBroken({ resource, problem: 'a trigger is missing or disabled' })
    await appendLog(session.store.db, {
      peer: session.link.peer,
      runId: session.runId,
      resource,
      mode: 'push',
      direction: 'none',
      action: 'check',
      result: 'error',
      message: detail,
    })
  }
  return { code: 'SYNC_RESOURCE_OUTDATED', retryable: false, detail }
}

/** The result of a run whose capture is broken: an error, unless something worse happened. */
export function notGreen(result: ResultName): ResultName {
  return result === 'fatal' ? 'fatal' : 'error'
}
