import type { VerifyReport } from '../server/index.ts'
import { path } from './api.ts'
import { type Register, verb } from './command.ts'
import { EXIT } from './exit.ts'
import { cell, count } from './text.ts'

/** `verify`: compares this site with a peer by digests. */
export const verify: Register = (program, session) => {
  verb<object, [string, readonly string[]]>(program, session, {
    use: 'verify <peer> [resources...]',
    does: 'Proves this site and a peer equal, or names the records that differ',
    examples: ['syncline verify hub', 'syncline verify hub city country --json'],
    run: async ({ site, out }, _options, peer, resources) => {
      const body = { resources: resources.length === 0 ? undefined : resources }
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
