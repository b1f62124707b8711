import type { Brake } from '../store/index.ts'
import { type Page, path } from './api.ts'
import { noun, type Register, verb } from './command.ts'
import { EXIT } from './exit.ts'
import type { StatusRow } from './status-lights.ts'
import { ago, cell, fields, plural, time } from './text.ts'

/** Brakes shown at once: more than a person lets pile up. */
const BRAKES_MAX = 200

/** `brake …`: what was stopped before it wrote, and letting it go on. */
export const brake: Register = (program, session) => {
  const brake = noun(program, 'brake', 'Runs that were stopped before they wrote')

  verb<{ readonly peer?: string; readonly all?: boolean }>(brake, session, {
    use: 'list',
    does: 'Lists what is stopped and waits for a person',
    examples: ['syncline brake list', 'syncline brake list --peer hub --all'],
    options: (command) =>
      command.option('--peer <peer>', 'only with this peer').option('--all', 'also what was released or is over'),
    run: async ({ site, out }, { peer, all }) => {
      const query = { peer, open: all === true ? undefined : true, limit: BRAKES_MAX }
      const { items } = await (await site()).get<Page<Brake>>('/brakes', query)
      await out.result({ items }, () =>
        items.length === 0
          ? 'Nothing is stopped.'
          : out.table(
              ['TOKEN', 'PEER', 'RESOURCE', 'WHAT', 'SINCE', 'STATE', 'WHY'],
              items.map((each) => [
                each.token,
                cell(each.peer),
                cell(each.resource),
                each.direction,
                ago(each.openedAt, Date.now()),
                stateOf(each),
                cell(each.reason),
              ]),
            ),
      )
      return items.some((each) => stateOf(each) === 'stopped') ? EXIT.waiting : EXIT.done
    },
  })

  verb<object, [string]>(brake, session, {
    use: 'show <token>',
    does: 'Shows why something was stopped, with the numbers and some of the records',
    examples: ['syncline brake show 7k2m9qxd'],
    run: async ({ site, out }, _options, token) => {
      const found = await (await site()).get<Brake>(path`/brakes/${token}`)
      await out.result(found, () => brakeText(found))
    },
  })

  verb<{ readonly comment?: string }, [string]>(brake, session, {
    use: 'release <token>',
    does: 'Lets what was stopped go on, once; `sync --release` also runs it',
    examples: ['syncline brake release 7k2m9qxd --comment "the old sites were closed"'],
    options: (command) => command.option('--comment <text>', 'why, for the log'),
    run: async ({ site, out }, { comment }, token) => {
      const released = await (await site()).send<Brake>('POST', path`/brakes/${token}/release`, { body: { comment } })
      await out.result(released, () => `Released: ${cell(released.peer)} ${cell(released.resource)} may go on, once.`)
    },
  })
}

/** The lights with what is stopped: nothing that waits for a person's word is anything but red, and says how to give it. */
export function withBrakes(rows: readonly StatusRow[], brakes: readonly Brake[]): readonly StatusRow[] {
  return rows.map((row) => {
    const about = brakes.filter(
      ({ peer, resource }) =>
        peer === row.peer && (resource === null || row.resource === null || resource === row.resource),
    )
    if (about.length === 0) return row
    const why = about.map((each) => `stopped: ${cell(each.reason)}; if it is meant: ${releaseCommand(each)}`)
    return { ...row, light: 'red', why: [...why, ...(row.light === 'green' ? [] : row.why)] }
  })
}

/** What lets it go on, and runs it. */
function releaseCommand({ direction, peer, token }: Brake): string {
  return direction === 'repair'
    ? `syncline verify ${cell(peer)} --release ${token}`
    : `syncline sync --release ${token}`
}

export function brakeText(brake: Brake): string {
  const { facts } = brake
  return fields([
    ['token', brake.token],
    ['peer', brake.peer],
    ['resource', brake.resource ?? undefined],
    ['what', brake.direction],
    ['why', brake.reason],
    ['deletes', brake.resource === null ? undefined : facts.deletes],
    ['changes', brake.resource === null ? undefined : facts.changes],
    ['at the peer', facts.pushed && `${facts.pushed.deletes} of the deletes, ${facts.pushed.changes} of the changes`],
    ['living', brake.resource === null ? undefined : facts.living],
    ['among them', facts.samples.length === 0 ? undefined : facts.samples.join(', ')],
    ['stopped', `${time(brake.seenAt)}, ${plural(brake.times, 'time')}`],
    ['state', stateOf(brake)],
    ['released', brake.releasedAt === null ? undefined : `${time(brake.releasedAt)} by ${brake.releasedBy}`],
    ['comment', brake.comment ?? undefined],
  ])
}

function stateOf({ endedAt, ending, releasedAt }: Brake): string {
  if (endedAt !== null) return ending ?? 'over'
  return releasedAt === null ? 'stopped' : 'released'
}
