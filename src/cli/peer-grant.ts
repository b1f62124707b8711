import type { Command } from 'commander'
import type { Grant } from '../store/index.ts'
import { SynclineError } from '../sync/index.ts'
import { path } from './api.ts'
import { list, type Session, verb } from './command.ts'
import { EXIT } from './exit.ts'
import { pairsOf, several } from './pairs.ts'
import { cell } from './text.ts'

type Options = {
  readonly pull?: boolean
  readonly push?: boolean
  readonly filter?: string
  readonly columns?: readonly string[]
  readonly onConflict?: string
  readonly master?: string
  readonly field?: readonly string[]
  readonly maxDeletes?: string
  readonly maxChanges?: string
  readonly revoke?: boolean
}

/** `peer grant`: what a peer may pull from this site and push to it. */
export function registerGrant(peer: Command, session: Session): void {
  verb<Options, [string, string]>(peer, session, {
    use: 'grant <peer> <resource>',
    does: 'Permits a peer to pull a resource from here or push it to here, or takes that back',
    more: 'Each direction is a grant of its own, and replaced as a whole: what is not given is as in a new one. A direction that is not named stays as it is; --revoke takes one back.',
    examples: [
      'syncline peer grant field city --pull --push',
      `syncline peer grant field city --push --filter "country = 'AT'" --columns name,population --on-conflict mine`,
      'syncline peer grant field city --push --revoke',
    ],
    options: (command) =>
      command
        .option('--pull', 'the peer may pull it')
        .option('--push', 'the peer may push it')
        .option('--filter <filter>', 'only records that match')
        .option('--columns <columns>', 'only these columns, separated by commas', list)
        .option(
          '--on-conflict <policy>',
          'what wins when both sites changed a record: newer, mine, theirs, master, merge, ask; or in the words of Sahana Eden: NEWER, THIS, OTHER, MASTER',
        )
        .option(
          '--master <uuid>',
          'the site whose word counts, with --on-conflict master, or for fields with the rule site',
        )
        .option(
          '--field <name=rule>',
          'with merge: what becomes of a field that both changed: newer, mine, theirs, greatest, least, sum, union, site, ask; may be repeated',
          several,
        )
        .option(
          '--max-deletes <limit>',
          'most records that the peer deletes here in an hour without a person: 100, 5%, 100,5%, none',
        )
        .option('--max-changes <limit>', 'most records that the peer gives other values here in an hour')
        .option('--revoke', 'take the permission back'),
    run: async ({ site, out }, { pull, push, revoke, ...rules }, ref, resource) => {
      const directions = [...(pull === true ? ['pull'] : []), ...(push === true ? ['push'] : [])]
      if (directions.length === 0) {
        throw new SynclineError('SYNC_REQUEST_INVALID', 'give --pull, --push or both: the direction of the grant')
      }
      if (rules.filter?.trim() === '')
        throw new SynclineError('SYNC_REQUEST_INVALID', '--filter is empty; a grant without it covers every record')
      const api = await site()
      const { filter, columns, onConflict, master, maxDeletes, maxChanges } = rules
      const fields = pairsOf('--field', rules.field)
      const grants: Grant[] = []
      const body = { filter, columns, onConflict, master, fields, maxDeletes, maxChanges }
      for (const direction of directions) {
        const where = path`/peers/${ref}/grants/${direction}/${resource}`
        if (revoke === true) await api.send('DELETE', where)
        else grants.push(await api.send<Grant>('PUT', where, { body }))
      }
      const words = directions.join(' and ')
      const [other] = directions.length === 1 ? (directions[0] === 'pull' ? ['push'] : ['pull']) : []
      const kept = other === undefined ? [] : [`A grant to ${other} it, where there is one, stays as it was.`]
      await out.result(revoke === true ? { revoked: directions } : { items: grants }, () =>
        revoke === true
          ? [`${cell(ref)} may no longer ${words} ${cell(resource)}.`, ...kept].join(' ')
          : [`${cell(ref)} may ${words} ${cell(resource)}.`, ...kept].join(' '),
      )
      return EXIT.done
    },
  })
}
