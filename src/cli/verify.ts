import type { VerifyReport } from '../server/index.ts'
import { path } from './api.ts'
import { type Register, verb } from './command.ts'
import { EXIT } from './exit.ts'
import { cell, count } from './text.ts'

/** `verify`: compares this site with a peer by digests. */
export const verify: Register = (program, session) => {
  verb<{ readonly deep?: boolean; readonly repair?: boolean }, [string, readonly string[]]>(program, session, {
    use: 'verify <peer> [resources...]',
    does: 'Proves this site and a peer equal, or names the records that differ',
    more: 'What is on its way makes a difference too: compare after a run.',
    examples: ['syncline verify hub', 'syncline verify hub city country --json', 'syncline verify hub city --repair'],
    options: (command) =>
      command
        .option('--deep', 'name up to ten thousand records that differ instead of a hundred')
        .option('--repair', 'offer again on both sides what differs, run, and compare once more'),
    run: async ({ site, out }, { deep, repair }, peer, resources) => {
      const body = { deep, repair, resources: resources.length === 0 ? undefined : resources }
      const report = await (await site()).send<VerifyReport>('POST', path`/peers/${peer}/verify`, {
        body,
        patient: true,
      })
      await out.result(report, () =>
        out.table(
          ['RESOURCE', 'RECORDS', 'RESULT', 'DIFFERING'],
          report.resources.map(({ resource, equal, checked, differing, detail }) => [
            resource,
            count(checked),
            equal ? out.paint('green', 'equal') : out.paint('red', 'DIFFERENT'),
            [differing.map(cell).join(', '), detail === undefined ? '' : cell(detail)]
              .filter((each) => each !== '')
              .join('; '),
          ]),
        ),
      )
      return report.resources.every(({ equal }) => equal) ? EXIT.done : EXIT.failed
    },
  })
}
