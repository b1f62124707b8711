import type { LeaseEntry } from '../store/index.ts'
import { path } from './api.ts'
import { noun, type Register, verb } from './command.ts'
import { cell, time } from './text.ts'

/** `lease …`: what runs of jobs hold. */
export const lease: Register = (program, session) => {
  const lease = noun(program, 'lease', 'What runs of jobs hold, so that no other may begin')

  verb(lease, session, {
    use: 'list',
    does: 'Lists the leases that are held in the database',
    examples: ['syncline lease list'],
    run: async ({ site, out }) => {
      const { items } = await (await site()).get<{ readonly items: readonly LeaseEntry[] }>('/leases')
      await out.result({ items }, () =>
        items.length === 0
          ? 'Nothing is held.'
          : out.table(
              ['LEASE', 'HELD BY', 'RUN', 'HOST', 'PID', 'SINCE', 'UNTIL'],
              items.map((each) => [
                cell(each.name),
                cell(each.owner),
                cell(each.runId),
                cell(each.host),
                String(each.pid),
                time(each.takenAt),
                time(each.expiresAt),
              ]),
            ),
      )
    },
  })

  verb<object, [string]>(lease, session, {
    use: 'release <lease>',
    does: 'Takes a lease away from its holder',
    more: 'The run that holds it is ended, so that two do not work on the same thing. A lease of a process that died ends by itself within a minute.',
    examples: ['syncline lease release backups'],
    run: async ({ site, out }, _options, name) => {
      await (await site()).send('DELETE', path`/leases/${name}`)
      await out.result({ released: name }, () => `${cell(name)} is free.`)
    },
  })
}
