import { writeFile } from 'node:fs/promises'
import { SynclineError } from '../sync/index.ts'
import type { Api } from './api.ts'
import { EXIT, type ExitCode } from './exit.ts'
import { type AppliedJobs, applyJobs, compareJobs } from './job-apply.ts'
import { refuseFaults } from './job-file.ts'
import type { Color, Output } from './output.ts'
import { readSetup, refuse, type SetupFile } from './setup-file.ts'
import { planSetup, type Step } from './setup-plan.ts'
import { readState, setupOf } from './setup-state.ts'
import { cell, plural } from './text.ts'

type Change = Pick<Step, 'name' | 'does' | 'changes'> & { readonly what: Step['what'] | 'job' }
type Stdin = AsyncIterable<Uint8Array | string>

const SIGNS = { add: '+', change: '~', remove: '-', keep: ' ', leave: '!' } as const
const COLORS: Readonly<Record<Step['does'], Color>> = {
  ...{ add: 'green', change: 'yellow', remove: 'red', keep: 'dim', leave: 'yellow' },
}
const WORDS = {
  add: 'made',
  change: 'changed',
  remove: 'removed',
  keep: 'as it was',
  leave: 'not in the file, and left',
} as const

/** The whole set-up of a site, as one file. */
export async function exportSetup(api: Api, out: Output, file: string | undefined): Promise<ExitCode> {
  const setup = setupOf(await readState(api))
  const { stringify } = await import('yaml')
  const text = `# The set-up of ${api.url}. Secrets are not in it: peers come by pairing, or with tokenFile.\n${stringify(setup)}`
  if (file === undefined || file === '-') await out.result(setup, () => text.trimEnd())
  else {
    await writeFile(file, text, { flag: 'wx' }).catch((cause: NodeJS.ErrnoException) => {
      const why = cause.code === 'EEXIST' ? 'is there already' : cause.message
      throw new SynclineError('SYNC_REQUEST_INVALID', `${file} ${why}`, { cause })
    })
    await out.result({ file, setup }, () => `The set-up is in ${file}.`)
  }
  return EXIT.done
}

/** Tells what a file would change, and changes nothing. Errors: SYNC_REQUEST_INVALID with every fault and its line. */
export async function planSetupFile(
  api: Api,
  out: Output,
  stdin: Stdin,
  file: string,
  prune: boolean,
): Promise<ExitCode> {
  const { steps, jobs } = await compared(api, stdin, file, prune)
  const changes = told(steps, jobs?.changes ?? [])
  await out.result({ changes }, () =>
    changes.every(({ does }) => does === 'keep')
      ? 'Nothing would change.'
      : changes.map((each) => out.paint(COLORS[each.does], lineOf(each))).join('\n'),
  )
  return EXIT.done
}

/**
 * Makes a site what a file says. Jobs are taken as a whole; of the rest each thing by itself, in an order in which it finds what it needs: where the site
 * refuses one, what was done before is told, and the same file goes on from there when it is mended.
 */
export async function applySetupFile(
  api: Api,
  out: Output,
  stdin: Stdin,
  file: string,
  prune: boolean,
): Promise<ExitCode> {
  const { steps, jobs } = await compared(api, stdin, file, prune)
  let done = 0
  for (const step of steps) {
    try {
      if (step.does !== 'keep' && step.does !== 'leave') await step.perform(api)
    } catch (error) {
      if (!(error instanceof SynclineError)) throw error
      const before = done === 0 ? 'nothing was changed' : `${plural(done, 'change')} before it stand`
      throw new SynclineError(error.code, `${step.what} ${step.name}: ${error.message}; ${before}`, { cause: error })
    }
    if (step.does !== 'keep' && step.does !== 'leave') {
      done += 1
      out.note(lineOf(step))
    }
  }
  const changes = told(steps, jobs === null ? [] : await applyJobs(api, jobs.jobs, true))
  await out.result({ changes }, () =>
    changes.length === 0
      ? 'There is nothing in it.'
      : changes
          .map((each) => `${each.what === 'job' ? '' : `${each.what} `}${cell(each.name)}: ${WORDS[each.does]}`)
          .join('\n'),
  )
  return EXIT.done
}

/** Everything that would change, or every fault: nothing is done while there is one. */
async function compared(api: Api, stdin: Stdin, file: string, prune: boolean) {
  const read: SetupFile = await readSetup(file, stdin)
  const others = read.setup.resources ?? read.setup.peers ?? read.setup.tasks
  const { steps, faults } =
    others === undefined ? { steps: [], faults: [] } : planSetup(read.setup, await readState(api), prune)
  const jobs = read.jobFile === null ? null : await compareJobs(api, read.jobFile.jobs, true)
  const inJobs = (jobs?.faults ?? []).map(({ path, message }) => ({ path: `/jobs${path}`, message }))
  if (others === undefined && read.jobFile !== null) refuseFaults(file, read.jobFile, jobs?.faults ?? [])
  refuse(file, read.lineOf, [...faults, ...inJobs])
  return { steps, jobs: jobs === null ? null : { ...jobs, jobs: read.jobFile?.jobs ?? [] } }
}

function told(steps: readonly Step[], jobs: AppliedJobs['changes']): readonly Change[] {
  const plain = steps.map(({ what, name, does, changes }) => ({ what, name, does, changes }))
  return [...plain, ...jobs.map(({ name, does }) => ({ what: 'job' as const, name, does, changes: [] }))]
}

function lineOf({ what, name, does, changes }: Change): string {
  const which = changes.length === 0 ? '' : ` (${changes.join(', ')})`
  return `${SIGNS[does]} ${what} ${cell(name)}${which}${does === 'leave' ? ' is not in the file: --prune removes it' : ''}`
}
