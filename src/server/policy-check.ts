import { type LinkPolicy, type Mode, quarrelsOf, SynclineError } from '../sync/index.ts'
import type { ServerActions } from './deps.ts'

type Planned = {
  readonly name: string
  readonly url: string | null
  readonly resource: string
  readonly mode: Mode
  readonly force: boolean | undefined
}

/**
 * What is doubtful about a task beside the policy by which the peer settles what it gets from here. Asks the peer, where it can be asked.
 * Errors: SYNC_REQUEST_CONTRADICTORY where the two would never agree, unless it is forced.
 */
export async function warningsOf(
  actions: ServerActions,
  { name, url, resource, mode, force = false }: Planned,
  policy: LinkPolicy,
): Promise<string[]> {
  // Over a link of one direction only one site settles anything.
  if (mode !== 'both') return []
  const theirs = await actions.peerPolicy({ peer: name, resource })
  if (theirs === 'unknown')
    return url === null ? [] : [`"${name}" could not be asked whether its policy goes together with this one`]
  if (theirs === null) return []
  const quarrels = quarrelsOf(policy, theirs)
  const impossible = quarrels.filter(({ kind }) => kind === 'impossible').map(({ text }) => text)
  if (impossible.length > 0 && !force) {
    const detail = `the policies of this site and of "${name}" for "${resource}" would never agree: ${impossible.join('; ')}`
    throw new SynclineError('SYNC_REQUEST_CONTRADICTORY', detail)
  }
  return quarrels.map(({ text }) => text)
}
