import type { Api } from './api.ts'
import { EXIT, type ExitCode } from './exit.ts'
import { type Fault, readJobFile, refuseFaults } from './job-file.ts'
import type { Output } from './output.ts'
import { cell } from './text.ts'

export type AppliedJobs = {
  readonly faults: readonly Fault[]
  readonly changes: readonly { readonly name: string; readonly does: 'add' | 'change' | 'remove' | 'keep' }[]
}

const SIGNS = { add: '+', change: '~', remove: '-', keep: ' ' } as const
const WORDS = { add: 'made', change: 'changed', remove: 'removed', keep: 'as it was' } as const

/** Tells what a file would change, and changes nothing. Errors: SYNC_REQUEST_INVALID with every fault and its line. */
export async function planFile(
  api: Api,
  out: Output,
  stdin: AsyncIterable<Uint8Array | string>,
  file: string,
  prune: boolean,
): Promise<ExitCode> {
  const { changes } = await compared(api, stdin, file, prune)
  await out.result({ changes }, () => changesText(out, changes, 'Nothing would change.'))
  return EXIT.done
}

/** Makes jobs what a file says. Errors: SYNC_REQUEST_INVALID with every fault and its line. */
export async function applyFile(
  api: Api,
  out: Output,
  stdin: AsyncIterable<Uint8Array | string>,
  file: string,
  prune: boolean,
): Promise<ExitCode> {
  const { jobs } = await compared(api, stdin, file, prune)
  const changes = await applyJobs(api, jobs, prune)
  await out.result({ changes }, () =>
    changes.length === 0
      ? 'There is nothing in it.'
      : changes.map(({ name, does }) => `${cell(name)}: ${WORDS[does]}`).join('\n'),
  )
  return EXIT.done
}

async function compared(api: Api, stdin: AsyncIterable<Uint8Array | string>, file: string, prune: boolean) {
  const read = await readJobFile(file, stdin)
  const found = await compareJobs(api, read.jobs, prune)
  refuseFaults(file, read, found.faults)
  return { ...found, jobs: read.jobs }
}

/** What applying some jobs would do; with faults nothing. */
export async function compareJobs(api: Api, jobs: readonly unknown[], prune: boolean): Promise<AppliedJobs> {
  return api.send<AppliedJobs>('POST', '/jobs/compare', { body: { jobs, prune } })
}

export async function applyJobs(api: Api, jobs: readonly unknown[], prune: boolean): Promise<AppliedJobs['changes']> {
  return (await api.send<AppliedJobs>('POST', '/jobs/apply', { body: { jobs, prune } })).changes
}

function changesText(out: Output, changes: AppliedJobs['changes'], nothing: string): string {
  if (changes.every(({ does }) => does === 'keep')) return nothing
  const color = { add: 'green', change: 'yellow', remove: 'red', keep: 'dim' } as const
  return changes.map(({ name, does }) => out.paint(color[does], `${SIGNS[does]} job ${cell(name)}`)).join('\n')
}
