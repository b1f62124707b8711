import { setTimeout as sleep } from 'node:timers/promises'
import type { RunEntry } from '../store/index.ts'
import { type Api, path } from './api.ts'
import { type Register, verb } from './command.ts'
import { worst } from './exit.ts'
import type { Output } from './output.ts'
import { countsText, exitOfRun, runTable } from './run-text.ts'

type Started = { readonly runs: readonly { readonly peer: string; readonly runId: string }[] }

const POLL_MS = 250

/** `sync`: runs tasks now and waits for them to end. */
export const sync: Register = (program, session) => {
  verb<{ readonly wait: boolean }, [string | undefined, readonly string[]]>(program, session, {
    use: 'sync [peer] [resources...]',
    does: 'Syncs now: with one peer or all, every resource or some',
    examples: ['syncline sync', 'syncline sync hub', 'syncline sync hub city country', 'syncline sync --no-wait'],
    options: (command) => command.option('--no-wait', 'start the runs and do not wait for their end'),
    run: async ({ site, out }, { wait }, peer, resources) => {
      const api = await site()
      const body = { peer, resources: resources.length === 0 ? undefined : resources }
      const { runs } = await api.send<Started>('POST', '/sync', { body })
      if (!wait) {
        await out.result({ runs }, () => runs.map((run) => `Run ${run.runId} with ${run.peer} has begun.`).join('\n'))
        return
      }
      const ended = await Promise.all(runs.map((run) => ending(api, out, run)))
      await out.result({ runs: ended }, () =>
        ended.length === 0 ? 'No task to run: see `syncline task list`.' : runTable(out, ended),
      )
      return worst(ended.map(exitOfRun))
    },
  })
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
