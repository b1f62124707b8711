import type { NewLogEntry } from '../../store/index.ts'
import { type BatchReport, type Failure, needsAttention } from '../../sync/index.ts'

/** A sentence of ours, for a person who knows Eden's log. */
type Words = Pick<NewLogEntry, 'action' | 'message'>

/**
 * What Eden's log has for a batch that this site pulled from it or pushed to it, with our counts behind it. Mode and direction are Eden's as they
 * are: `pull/outgoing` there is mode pull, direction outgoing here.
 */
export function edenWords(mode: 'pull' | 'push', records: number, report: BatchReport, ours: string): Words {
  const many = `(${records} records)`
  const [action, done] = mode === 'pull' ? ['import', 'Data imported successfully'] : ['send', 'data sent successfully']
  const invalid = needsAttention(report) ? ' - invalid items ignored' : ''
  return { action, message: `${done} ${many}${invalid}: ${ours}` }
}

/** What Eden's log has for a pull or push that failed, with our words behind it. */
export function edenFailure(mode: string, { code }: Pick<Failure, 'code'>, ours: string): Words {
  const action = mode === 'push' ? 'send' : 'fetch'
  return code === 'SYNC_PEER_UNREACHABLE'
    ? { action, message: `Peer repository unavailable (${ours})` }
    : { action, message: ours }
}

/** The entry that Eden writes where it registers, as odd as it is: a push. */
export function registrationEntry(peer: { readonly id: number; readonly name: string }, message: string): NewLogEntry {
  const words = { mode: 'push', direction: 'outgoing', action: 'request registration' } as const
  return { peer, ...words, result: 'success', message: message === '' ? 'Registration successful' : message }
}

/** What Eden's log has for a pull that brought nothing. */
export const UP_TO_DATE: Words = { action: 'import', message: 'No data to import (already up-to-date)' }
