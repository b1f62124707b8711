import { text } from 'node:stream/consumers'
import type { Command } from 'commander'
import type { Peer } from '../store/index.ts'
import { list, type Session, seconds, verb } from './command.ts'
import { cell, time } from './text.ts'

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
