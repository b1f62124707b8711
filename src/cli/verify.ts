import type { VerifyReport } from '../server/index.ts'
import type { Brake } from '../store/index.ts'
import { SynclineError } from '../sync/index.ts'
import { type Api, path } from './api.ts'
import { type Register, verb } from './command.ts'
import { EXIT } from './exit.ts'
import type { Color, Output } from './output.ts'
import { previewText } from './preview-text.ts'
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
  type Options = {
    readonly deep?: boolean
    readonly repair?: boolean
    readonly preview?: boolean
    readonly release?: string
    readonly comment?: string
  }
  verb<Options, [string, readonly string[]]>(program, session, {
    use: 'verify <peer> [resources...]',
    does: 'Proves this site and a peer equal, or names the records that differ',
    more: 'What is on its way makes a difference too: compare after a run.',
    examples: [
      'syncline verify hub',
      'syncline verify hub city country --json',
      'syncline verify hub city --deep --repair --preview',
      'syncline verify hub city --deep --repair',
      'syncline verify hub --release 7k2m9qxd --comment "the old sites were closed"',
    ],
    options: (command) =>
      command
        .option('--deep', 'compare the values of the rows too, and find what was changed behind the triggers')
        .option(
          '--repair',
          'exchange exactly the records that differ, as a run that can be taken back, and compare once more',
        )
        .option('--preview', 'with --repair: tell what it would do, here and at the peer, and do nothing')
        .option('--release <token>', 'let the repair that this brake stopped go on, once, and do it')
        .option('--comment <text>', 'why it is released, for the log'),
    run: async ({ site, out }, { deep, repair, preview, release, comment }, peer, resources) => {
      const api = await site()
      const body =
        release === undefined
          ? { deep, repair, preview, resources: resources.length === 0 ? undefined : resources }
          : await released(api, peer, release, comment)
      const report = await api.send<VerifyReport>('POST', path`/peers/${peer}/verify`, {
        body,
        patient: true,
      })
      await out.result(report, async () => {
        const table = await out.table(
          ['RESOURCE', 'RECORDS', 'RESULT', 'DIFFERING'],
          report.resources.map(({ resource, verdict, checked, differences, differing, detail }) => [
            resource,
            count(checked),
            out.paint(COLORS[verdict], verdict === 'different' ? 'DIFFERENT' : verdict),
            [named(differences, differing.length), detail === undefined ? '' : cell(detail)]
              .filter((each) => each !== '')
              .join('; '),
          ]),
        )
        return [table, ...(await repairText(out, report.repair))].join('\n')
      })
      if (report.resources.every(({ equal }) => equal)) return EXIT.done
      return report.resources.every(({ verdict }) => verdict === 'equal' || verdict === 'waiting')
        ? EXIT.waiting
        : EXIT.failed
    },
  })
}

/** The repair that a brake stopped and that is let go now. */
async function released(api: Api, peer: string, token: string, comment: string | undefined) {
  const { direction, peer: stopped } = await api.get<Brake>(path`/brakes/${token}`)
  if (direction !== 'repair')
    throw new SynclineError(
      'SYNC_REQUEST_INVALID',
      `brake ${token} stopped no repair but a run: syncline sync --release ${token}`,
    )
  if (stopped !== peer)
    throw new SynclineError(
      'SYNC_REQUEST_INVALID',
      `brake ${token} stopped a repair with ${stopped}: syncline verify ${stopped} --release ${token}`,
    )
  const { resource, facts } = await api.send<Brake>('POST', path`/brakes/${token}/release`, { body: { comment } })
  return { deep: facts.deep, repair: true, resources: resource === null ? undefined : [resource] }
}

async function repairText(out: Output, repair: VerifyReport['repair']): Promise<readonly string[]> {
  if (repair?.preview != null) {
    if (repair.preview.tasks.length === 0) return ['Nothing would be exchanged.']
    return ['', await previewText(out, repair.preview, 'a repair')]
  }
  if (repair?.runId == null) return []
  return [
    `Run ${repair.runId} applied ${count(repair.applied)} records; ${count(repair.adopted)} were taken up from behind the triggers. To take it back: syncline run undo ${repair.runId}`,
  ]
}

type Differences = VerifyReport['resources'][number]['differences']

/** The first records that differ with what is different; all of them are in --json. */
function named(differences: Differences, total: number): string {
  const shown = differences.slice(0, SHOWN_MAX).map(({ id, what }) => `${cell(id)} (${cell(what)})`)
  const more = total - new Set(differences.slice(0, SHOWN_MAX).map(({ id }) => id)).size
  return [...shown, ...(more > 0 ? [`and ${count(more)} more`] : [])].join(', ')
}
