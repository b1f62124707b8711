import { setTimeout as sleep } from 'node:timers/promises'
import type { Brake, RunEntry } from '../store/index.ts'
import { type Api, type Page, path } from './api.ts'
import { type Register, verb } from './command.ts'
import { EXIT, type ExitCode, worst } from './exit.ts'
import type { Output } from './output.ts'
import { type Preview, previewText, previewWaits } from './preview-text.ts'
import { countsText, exitOfRun, runTable } from './run-text.ts'
import { cell, count } from './text.ts'

type Started = { readonly runs: readonly { readonly peer: string; readonly runId: string }[] }

const POLL_MS = 250

type Options = {
  readonly wait: boolean
  readonly preview?: boolean
  readonly release?: string
  readonly comment?: string
}

/** `sync`: runs tasks now and waits for them to end, or tells what they would do. */
export const sync: Register = (program, session) => {
  verb<Options, [string | undefined, readonly string[]]>(program, session, {
    use: 'sync [peer] [resources...]',
    does: 'Syncs now: with one peer or all, every resource or some',
    more: 'Ends with 3 as long as anything with these peers waits for a person: a conflict, a record in quarantine, a brake.',
    examples: [
      'syncline sync',
      'syncline sync hub',
      'syncline sync hub city country',
      'syncline sync hub --preview',
      'syncline sync --release 7k2m9qxd --comment "the old sites were closed"',
      'syncline sync --no-wait',
    ],
    options: (command) =>
      command
        .option('--no-wait', 'start the runs and do not wait for their end')
        .option('--preview', 'tell what would happen, here and at the peer, and do nothing')
        .option('--release <token>', 'let what this brake stopped go on, once, and run it')
        .option('--comment <text>', 'why it is released, for the log'),
    run: async ({ site, out }, { wait, preview, release, comment }, peer, resources) => {
      const api = await site()
      const asked = { peer, resources: resources.length === 0 ? undefined : resources }
      if (preview === true) return showPreview(api, out, asked)
      const brake = release === undefined ? undefined : await released(api, out, release, comment)
      if (brake?.direction === 'receive') {
        await out.result(
          { released: brake },
          () => `Released: ${cell(brake.peer)} may push ${cell(brake.resource)} when it comes next.`,
        )
        return EXIT.done
      }
      if (brake?.direction === 'repair') {
        const deep = brake.facts.deep === true ? ' --deep' : ''
        const next = `syncline verify ${cell(brake.peer)} ${cell(brake.resource)}${deep} --repair`
        await out.result({ released: brake, next }, () => `Released. It stopped a repair, which goes on with: ${next}`)
        return EXIT.done
      }
      const body =
        brake === undefined
          ? asked
          : { peer: brake.peer, resources: brake.resource === null ? undefined : [brake.resource] }
      const { runs } = await api.send<Started>('POST', '/sync', { body })
      if (!wait) {
        await out.result({ runs }, () => runs.map((run) => `Run ${run.runId} with ${run.peer} has begun.`).join('\n'))
        return
      }
      const ended = await Promise.all(runs.map((run) => ending(api, out, run)))
      const all = await Promise.all([...new Set(runs.map((run) => run.peer))].map((name) => waits(api, name)))
      const waiting = all.filter((each) => waitingText(each) !== '')
      await out.result({ runs: ended, waiting }, async () =>
        ended.length === 0
          ? 'No task to run: see `syncline task list`.'
          : [await runTable(out, ended), ...waiting.map(waitingText)].join('\n'),
      )
      return worst([...ended.map(exitOfRun), waiting.length > 0 ? EXIT.waiting : EXIT.done])
    },
  })
}

async function released(api: Api, out: Output, token: string, comment: string | undefined): Promise<Brake> {
  const brake = await api.send<Brake>('POST', path`/brakes/${token}/release`, { body: { comment } })
  out.note(`Released: ${brake.reason}`)
  return brake
}

/** What waits for a person with one peer, whichever run brought it. `more`: at least one of the numbers is a lower bound. */
type Waits = {
  readonly peer: string
  readonly conflicts: number
  readonly quarantined: number
  readonly brakes: number
  readonly more: boolean
}

/** Of each kind so many are counted. */
const COUNTED_MAX = 100

async function waits(api: Api, peer: string): Promise<Waits> {
  const [conflicts, quarantine, brakes] = await Promise.all([
    api.get<Page<unknown>>('/conflicts', { peer, open: true, limit: COUNTED_MAX }),
    api.get<Page<unknown>>('/quarantine', { peer, limit: COUNTED_MAX }),
    api.get<Page<unknown>>('/brakes', { peer, open: true, limit: COUNTED_MAX }),
  ])
  const more = [conflicts, quarantine, brakes].some(({ next }) => next != null)
  return {
    ...{ peer, conflicts: conflicts.items.length, quarantined: quarantine.items.length },
    ...{ brakes: brakes.items.length, more },
  }
}

/** In one line with the commands that show it; empty when nothing waits. */
function waitingText({ peer, conflicts, quarantined, brakes, more }: Waits): string {
  const say = (n: number, one: string, many: string, noun: string) =>
    n === 0
      ? []
      : [
          `${count(n)}${more && n === COUNTED_MAX ? ' or more' : ''} ${n === 1 ? one : many} (syncline ${noun} list --peer ${cell(peer)})`,
        ]
  const parts = [
    ...say(conflicts, 'conflict', 'conflicts', 'conflict'),
    ...say(quarantined, 'record in quarantine', 'records in quarantine', 'quarantine'),
    ...say(brakes, 'brake', 'brakes', 'brake'),
  ]
  return parts.length === 0 ? '' : `Waiting for a person with ${cell(peer)}: ${parts.join(', ')}.`
}

async function showPreview(
  api: Api,
  out: Output,
  body: { readonly peer: string | undefined; readonly resources: readonly string[] | undefined },
): Promise<ExitCode> {
  const { items } = await api.send<{ readonly items: readonly Preview[] }>('POST', '/sync/preview', {
    body,
    patient: true,
  })
  await out.result({ items }, async () => (await Promise.all(items.map((each) => previewText(out, each)))).join('\n\n'))
  return items.some(previewWaits) ? EXIT.waiting : EXIT.done
}

/** Follows a run to its end. */
async function ending(api: Api, out: Output, { peer, runId }: Started['runs'][number]): Promise<RunEntry> {
  const progress = await out.progress(peer)
  try {
    for (;;) {
      const run = await api.get<RunEntry>(path`/runs/${runId}`)
      if (run.finishedAt !== null) return run
      progress.update({ step: run.state, detail: countsText(run.counts) })
      await sleep(POLL_MS)
    }
  } finally {
    progress.end()
  }
}
