import type { IssuedToken, Token } from '../store/index.ts'
import { path } from './api.ts'
import { noun, type Register, seconds, verb } from './command.ts'
import { ago, cell, time, until } from './text.ts'

/** `token …`: who may administer this site. A token is shown once; only its hash is kept. */
export const token: Register = (program, session) => {
  const token = noun(program, 'token', 'Tokens of people and programs')

  verb(token, session, {
    use: 'list',
    does: 'Lists the tokens, never their secret',
    examples: ['syncline token list'],
    run: async ({ site, out }) => {
      const items = await (await site()).all<Token>('/tokens')
      await out.result({ items }, () =>
        out.table(
          ['ID', 'NAME', 'ROLE', 'PEER', 'LAST USED', 'EXPIRES'],
          items.map((each) => [
            String(each.id),
            cell(each.name),
            each.role,
            cell(each.peer),
            ago(each.lastUsedAt, Date.now()),
            each.expiresAt === null ? 'never' : until(each.expiresAt, Date.now()),
          ]),
        ),
      )
    },
  })

  verb<{ readonly role: string; readonly ttl?: number; readonly peer?: string }, [string]>(token, session, {
    use: 'issue <name>',
    does: 'Makes a token and prints it, this once',
    examples: ['syncline token issue dashboard --role viewer', 'syncline token issue ci --role operator --ttl 30d'],
    options: (command) =>
      command
        .requiredOption('--role <role>', 'administrator, operator, viewer or peer')
        .option('--peer <peer>', 'whose token it is, with --role peer')
        .option('--ttl <duration>', 'how long it is good, such as 12h or 30d; default for ever', seconds),
    run: async ({ site, out }, { role, ttl, peer }, name) => {
      const expiresAt = ttl === undefined ? undefined : new Date(Date.now() + ttl * 1000).toISOString()
      const issued = await (await site()).send<IssuedToken>('POST', '/tokens', {
        body: { name, role, peer, expiresAt },
      })
      out.note(
        `Token ${issued.id} for ${name}, ${role}${expiresAt === undefined ? '' : `, until ${time(expiresAt)}`}. It is shown only now:`,
      )
      await out.result(issued, () => issued.token)
    },
  })

  verb<object, [string]>(token, session, {
    use: 'revoke <id>',
    does: 'Makes a token worthless at once',
    examples: ['syncline token revoke 7'],
    run: async ({ site, out }, _options, id) => {
      await (await site()).send('DELETE', path`/tokens/${id}`)
      await out.result({ revoked: id }, () => `Token ${id} is revoked.`)
    },
  })
}
