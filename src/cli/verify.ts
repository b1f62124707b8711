import type { VerifyReport } from '../server/index.ts'
import { path } from './api.ts'
import { type Register, verb } from './command.ts'
import { EXIT } from './exit.ts'
import type { Color } from './output.ts'
import { cell, count } from './text.ts'

const COLORS: Readonly<Record<VerifyReport['resources'][number]['verdict'], Color>> = {
  equal: 'green',
  waiting: 'yellow',
  different: 'red',
  unknown: 'yellow',
}
/** Records named in the table. */
const SHOWN_MAX = 20

/** `verify`: compares this site with a peer by digests. */
export const verify: Register = (program, session) => {
  verb<{ readonly deep?: boolean; readonly repair?: boolean }, [string, readonly string[]]>(program, session, {
    use: 'verify <peer> [resources...]',
    does: 'Proves this site and a peer equal, or names the records that differ',
    more: 'What is on its way makes a difference too: compare after a run.',
    examples: [
      'syncline verify hub',
      'syncline verify hub city country --json',
      'syncline verify hub city --deep --repair',
    ],
    options: (command) =>
      command
        .option('--deep', 'compare the values of the rows too, and find what was changed behind the triggers')
        .option('--repair', 'exchange exactly the records that differ, and compare once more'),
    run: async ({ site, out }, { deep, repair }, peer, resources) => {
      const body = { deep, repair, resources: resources.length === 0 ? undefined : resources }
      const report = await (await site()).send<VerifyReport>('POST', path`/peers/${peer}/verify`, {
        body,
        patient: true,
      })
      await out.result(report, () =>
        out.table(
          ['RESOURCE', 'RECORDS', 'RESULT', 'DIFFERING'],
          report.resources.map(({ resource, verdict, checked, differences, differing, detail }) => [
            resource,
            count(checked),
            out.paint(COLORS[verdict], verdict === 'different' ? 'DIFFERENT' : verdict),
            [named(differences, differing.length), detail === undefined ? '' : cell(detail)]
              .filter((each) => each !== '')
              .join('; '),
          ]),
        ),
      )
      if (report.resources.every(({ equal }) => equal)) return EXIT.done
      return report.resources.every(({ verdict }) => verdict === 'equal' || verdict === 'waiting')
        ? EXIT.waiting
        : EXIT.failed
    },
  })
}

type Differences = VerifyReport['resources'][number]['differences']

/** The first records that differ with what is different; all of them are in --json. */
function named(differences: Differences, total: number): string {
  const shown = differences.slice(0, SHOWN_MAX).map(({ id, what }) => `${cell(id)} (${cell(what)})`)
  const more = total - new Set(differences.slice(0, SHOWN_MAX).map(({ id }) => id)).size
  return [...shown, ...(more > 0 ? [`and ${count(more)} more`] : [])].join(', ')
}
