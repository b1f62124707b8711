import { setTimeout as sleep } from 'node:timers/promises'
import type { JobRunEntry, JobStepEntry } from '../store/index.ts'
import { type Api, type Page, path } from './api.ts'
import { noun, type PageOptions, pageOptions, type Register, verb } from './command.ts'
import { EXIT, type ExitCode } from './exit.ts'
import { applyFile, planFile } from './job-apply.ts'
import type { JobView } from './job-lights.ts'
import { type Planned, planText, progressOf, runLine, runText } from './job-text.ts'
import type { Output } from './output.ts'
import { cell, time } from './text.ts'

type Requested = { readonly runId: string; readonly does: 'begin' | 'after' | 'coalesce' }

const POLL_MS = 300

/** `job …`: scheduled work. */
export const job: Register = (program, session) => {
  const job = noun(program, 'job', 'Scheduled work: transfers, commands, syncs')

  verb<{ readonly plan?: boolean; readonly prune?: boolean }, [string]>(job, session, {
    use: 'apply <file>',
    does: 'Makes jobs what a YAML file says; with - standard input',
    more: 'The file holds one job, a list of jobs, or jobs: with a list. All faults are told at once, each with its line; with faults nothing is changed.',
    examples: [
      'syncline job apply jobs.yaml',
      'syncline job apply jobs.yaml --plan',
      'syncline job apply all.yaml --prune',
    ],
    options: (command) =>
      command
        .option('--plan', 'tell what would change, and change nothing')
        .option('--prune', 'remove jobs that are not in the file'),
    run: async ({ site, out, streams }, { plan, prune }, file) =>
      plan === true
        ? planFile(await site(), out, streams.stdin, file, prune === true)
        : applyFile(await site(), out, streams.stdin, file, prune === true),
  })

  verb(job, session, {
    use: 'list',
    does: 'Lists the jobs, with what they do now and when they are due',
    examples: ['syncline job list', 'syncline job list --json'],
    run: async ({ site, out }) => {
      const items = (await (await site()).all<JobView>('/jobs')).toSorted((a, b) => (a.name < b.name ? -1 : 1))
      await out.result({ items }, () =>
        items.length === 0
          ? 'There are no jobs: see `syncline job apply --help`.'
          : out.table(
              ['JOB', 'NOW', 'NEXT', 'LAST', 'LAST SUCCESS', 'WAITS FOR'],
              items.map((each) => [
                cell(each.name),
                each.underWay > 0 ? `${each.underWay} under way` : each.enabled ? 'idle' : 'disabled',
                time(each.nextDue),
                cell(each.lastResult),
                time(each.lastSuccessAt),
                cell(each.waitsFor),
              ]),
            ),
      )
    },
  })

  verb<
    { readonly plan?: boolean; readonly execute?: boolean; readonly dryRun?: boolean; readonly wait: boolean },
    [string]
  >(job, session, {
    use: 'run <job>',
    does: 'Runs a job now and waits for its end',
    more: 'While a run is under way, one run follows it, however often it is asked for. Ends with 1 when the run failed, was stopped or was left out.',
    examples: [
      'syncline job run nightly-copy',
      'syncline job run nightly-copy --plan',
      'syncline job run nightly-copy --execute --no-wait',
    ],
    options: (command) =>
      command
        .option('--plan', 'tell what it would do: gates, leases, exact arguments, files and bytes; nothing is written')
        .option('--dry-run', 'let the run itself only tell what it would do, and keep that in the history')
        .option('--execute', 'do it, also where the job only tells by default')
        .option('--no-wait', 'do not wait for its end'),
    run: async ({ site, out }, { plan, execute, dryRun, wait }, name) => {
      const api = await site()
      if (plan === true) {
        const planned = await api.send<Planned>('GET', path`/jobs/${name}/plan`, { patient: true })
        await out.result(planned, () => planText(planned))
        return planned.steps.some(({ failure }) => failure !== null) ? EXIT.failed : EXIT.done
      }
      const body = execute === true ? { dryRun: false } : dryRun === true ? { dryRun: true } : {}
      const requested = await api.send<Requested>('POST', path`/jobs/${name}/runs`, { body })
      out.note(wishText(name, requested))
      if (!wait) return out.result(requested, () => `Run ${requested.runId} of ${cell(name)}.`).then(() => EXIT.done)
      const ended = await ending(api, out, name, requested.runId)
      const steps = await stepsOf(api, ended.id)
      await out.result({ ...ended, steps }, () => runText(ended, steps))
      return exitOf(ended)
    },
  })

  verb<{ readonly run?: string }, [string]>(job, session, {
    use: 'stop <job>',
    does: 'Stops what a job does, with every process that it started',
    more: 'The steps that are always done still follow; asked again, those end too. What waits to begin does not begin.',
    examples: ['syncline job stop nightly-copy', 'syncline job stop nightly-copy --run 42'],
    options: (command) => command.option('--run <id>', 'only this run'),
    run: async ({ site, out }, { run }, name) => {
      const stopped = await (await site()).send<{ readonly runs: readonly string[] }>(
        'POST',
        path`/jobs/${name}/stop`,
        { body: { run } },
      )
      await out.result(stopped, () =>
        stopped.runs.length === 0
          ? `Nothing of ${cell(name)} is under way.`
          : `Asked to stop: run ${stopped.runs.join(', ')}.`,
      )
    },
  })

  verb<object, [string]>(job, session, {
    use: 'dismiss <run>',
    does: 'Says that somebody has seen to a run that failed for good',
    more: 'It waits for a person no more and stays in the history. A later run of the job that succeeds does the same.',
    examples: ['syncline job dismiss 42'],
    run: async ({ site, out }, _options, id) => {
      const found = await (await site()).send<JobRunEntry>('POST', path`/job-runs/${id}/dismiss`)
      await out.result(found, () => runLine(found))
    },
  })

  verb<PageOptions & { readonly run?: string; readonly definition?: boolean }, [string]>(job, session, {
    use: 'show <job>',
    does: 'Shows a job and its runs, or one run with the output of its steps',
    examples: [
      'syncline job show nightly-copy',
      'syncline job show nightly-copy --run 42',
      'syncline job show nightly-copy --definition',
    ],
    options: (command) =>
      pageOptions(command)
        .option('--run <id>', 'this run, with every try of every step')
        .option('--definition', 'what it is, as YAML that `job apply` takes'),
    run: async ({ site, out }, { run, definition, limit, cursor }, name) => {
      const api = await site()
      if (run !== undefined) return showRun(api, out, run)
      const found = await api.get<JobView>(path`/jobs/${name}`)
      if (definition === true) {
        const { stringify } = await import('yaml')
        return out.result(found.definition, () => stringify(found.definition).trimEnd()).then(() => EXIT.done)
      }
      const page = await api.get<Page<JobRunEntry>>('/job-runs', { job: name, limit, cursor })
      await out.result({ ...found, runs: page.items, next: page.next }, () =>
        [
          `${cell(found.name)}: ${found.enabled ? `next due ${time(found.nextDue)}` : 'disabled'}${found.waitsFor === null ? '' : `, waits: ${cell(found.waitsFor)}`}`,
          '',
          ...page.items.map(runLine),
        ].join('\n'),
      )
      return EXIT.done
    },
  })
}

async function showRun(api: Api, out: Output, id: string): Promise<ExitCode> {
  const found = await api.get<JobRunEntry>(path`/job-runs/${id}`)
  const steps = await stepsOf(api, id)
  await out.result({ ...found, steps }, () => runText(found, steps))
  return EXIT.done
}

async function stepsOf(api: Api, id: string): Promise<readonly JobStepEntry[]> {
  return (await api.get<{ readonly items: readonly JobStepEntry[] }>(path`/job-runs/${id}/steps`)).items
}

function wishText(name: string, { runId, does }: Requested): string {
  if (does === 'after') return `A run of ${name} is under way; run ${runId} follows it.`
  return does === 'coalesce'
    ? `Run ${runId} of ${name} waits to begin already, and stands for this wish too.`
    : `Run ${runId} of ${name}.`
}

async function ending(api: Api, out: Output, name: string, id: string): Promise<JobRunEntry> {
  const progress = await out.progress(name)
  try {
    for (;;) {
      const run = await api.get<JobRunEntry>(path`/job-runs/${id}`)
      progress.update(progressOf(run))
      if (run.phase === 'over') return run
      await sleep(POLL_MS)
    }
  } finally {
    progress.end()
  }
}

function exitOf({ result }: JobRunEntry): ExitCode {
  return result === 'success' || result === 'warning' ? EXIT.done : EXIT.failed
}
