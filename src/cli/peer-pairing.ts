import { text } from 'node:stream/consumers'
import type { Command } from 'commander'
import type { GrantOffer, Invitation, Peer } from '../store/index.ts'
import { path } from './api.ts'
import { list, type Session, seconds, verb } from './command.ts'
import { ago, cell, time, until } from './text.ts'

type Invited = { readonly name: string; readonly code: string; readonly expiresAt: string }

/** `peer invite` and `peer join`: one code registers both sites with each other. */
export function registerPairing(peer: Command, session: Session): void {
  verb<{ readonly pull?: readonly string[]; readonly push?: readonly string[]; readonly ttl: number }, [string]>(
    peer,
    session,
    {
      use: 'invite <name>',
      does: 'Prints a pairing code for another site, good for one use',
      more: 'Pass the code on as you would a password. Whoever joins with it may pull and push here what --pull and --push name.',
      examples: [
        'syncline peer invite field --pull city,country --push city',
        'syncline peer invite field --pull city --ttl 15m > code.txt',
      ],
      options: (command) =>
        command
          .option('--pull <resources>', 'resources that the peer may pull from here, separated by commas', list)
          .option('--push <resources>', 'resources that it may push to here', list)
          .option('--ttl <duration>', 'how long the code is good', seconds, 3600),
      run: async ({ site, out }, { pull = [], push = [], ttl }, name) => {
        const body = { name, pull, push, ttlSeconds: ttl }
        const invited = await (await site()).send<Invited>('POST', '/invitations', { body })
        out.note(
          `Pairing code for ${name}, good once until ${time(invited.expiresAt)}. At the other site: syncline peer join CODE`,
        )
        await out.result(invited, () => invited.code)
      },
    },
  )

  verb(peer, session, {
    use: 'invitations',
    does: 'Lists the pairing codes that were made, never the codes themselves',
    examples: ['syncline peer invitations'],
    run: async ({ site, out }) => {
      const items = await (await site()).all<Invitation>('/invitations')
      const now = Date.now()
      await out.result({ items }, () =>
        out.table(
          ['NAME', 'STATE', 'PULL', 'PUSH'],
          items.map((each) => [each.name, stateOf(each, now), offered(each.pull), offered(each.push)]),
        ),
      )
    },
  })

  verb<object, [string]>(peer, session, {
    use: 'withdraw <name>',
    does: 'Makes the pairing code for a name worthless; a peer that joined with it stays',
    examples: ['syncline peer withdraw field'],
    run: async ({ site, out }, _options, name) => {
      await (await site()).send('DELETE', path`/invitations/${name}`)
      await out.result({ withdrawn: name }, () => `The code for ${cell(name)} is withdrawn.`)
    },
  })

  verb<{ readonly name?: string }, [string]>(peer, session, {
    use: 'join <code>',
    does: 'Redeems a pairing code: registers this site there and that site here',
    examples: ['syncline peer join syncline1.eyJ1cmwiOi… --name hub', 'syncline peer join - < code.txt'],
    options: (command) => command.option('--name <name>', 'name of the other site here; default its own'),
    run: async ({ site, out, streams }, { name }, given) => {
      const code = given === '-' ? await text(streams.stdin) : given
      const joined = await (await site()).send<Peer>('POST', '/peers/join', { body: { code, name } })
      await out.result(
        joined,
        () =>
          `Joined ${cell(joined.name)} (${joined.uuid}) at ${cell(joined.url)}. Next: syncline task add ${cell(joined.name)} RESOURCE --mode both`,
      )
    },
  })
}

function stateOf(invitation: Invitation, now: number): string {
  const { redeemedAt, redeemedBy, expiresAt } = invitation
  if (redeemedAt !== null) return `used by ${redeemedBy} ${ago(redeemedAt, now)}`
  return Date.parse(expiresAt) <= now ? 'expired' : `ends ${until(expiresAt, now)}`
}

function offered(offers: readonly GrantOffer[]): string {
  return cell(offers.map(({ resource }) => resource).join(','))
}
