import { type LinkPolicy, type Mode, quarrelsOf, SynclineError } from '../sync/index.ts'
import type { PeerPolicy, ServerActions } from './deps.ts'

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
    const detail = `the policies of this site and of "${name}" for "${resource}" would never agree: ${impossible.join('; ')}. ${mendOf(name, resource, policy, theirs)}`
    throw new SynclineError('SYNC_REQUEST_CONTRADICTORY', detail)
  }
  return quarrels.map(({ text }) => text)
}

/** The command that makes the peer go with a policy here, and where it is to be given: nobody changes the rules of another site from here. */
function mendOf(
  peer: string,
  resource: string,
  { onConflict, master, fields }: LinkPolicy,
  theirs: PeerPolicy,
): string {
  const word = onConflict === 'mine' ? 'theirs' : onConflict === 'theirs' ? 'mine' : onConflict
  const rules = Object.entries(fields).map(([field, rule]) => ` --field ${field}=${rule}`)
  const policy = `--on-conflict ${word}${master === null ? '' : ` --master ${master}`}${rules.join('')}`
  const you = theirs.you ?? 'THIS-SITE'
  const command =
    theirs.of === 'task'
      ? `syncline task set ${you} ${resource} ${policy}`
      : `syncline peer grant ${you} ${resource} --push ${policy}`
  const whole =
    theirs.of === 'task' ? '' : ' (with the filter, columns and limits that the grant has: it is replaced as a whole)'
  return `To mend it, first at "${peer}": \`${command}\`${whole}, then repeat this here; or choose a policy here that goes with that of "${peer}"`
}
