import type { PreviewedRecord, PreviewedWrites } from '../store/index.ts'
import type { BatchReport, Mode } from '../sync/index.ts'
import type { Output } from './output.ts'
import { bytes, cell, count, duration, plural, valueText } from './text.ts'

/** What the site answers to a preview. */
export type Preview = {
  readonly peer: string
  readonly tasks: readonly {
    readonly resource: string
    readonly mode: Mode
    readonly parts: readonly Part[]
    readonly leaving?: { readonly here: number; readonly there: number | null }
  }[]
  readonly newLog: boolean
  readonly durationMs: number
}

type Part = {
  readonly direction: 'pull' | 'push'
  readonly changes: number
  readonly bytes: number
  readonly batches: number
  readonly complete: boolean
  readonly counts: BatchReport['counts']
  readonly writes: PreviewedWrites
  readonly samples: readonly PreviewedRecord[]
  readonly rejections: BatchReport['rejections']
  readonly braked: readonly string[]
  readonly estimateMs: number | null
  readonly failure: { readonly code: string; readonly detail: string } | null
}

/** Records and rejections that people are shown of each part; --json has more. */
const SHOWN = 8

/** True when a person would have something to look at: a brake, a conflict, a record set aside, or something that failed. */
export function previewWaits({ tasks }: Preview): boolean {
  return tasks.some(({ parts }) =>
    parts.some(({ braked, failure, counts }) => {
      const { conflict, quarantined, refused } = counts
      return braked.length > 0 || failure !== null || conflict + quarantined + refused > 0
    }),
  )
}

/** `what` would do it: a run, a repair. */
export async function previewText(out: Output, preview: Preview, what = 'a run'): Promise<string> {
  const { peer, tasks, newLog, durationMs } = preview
  const rows = tasks.flatMap(({ resource, parts }) => parts.map((part) => row(resource, part)))
  const details = tasks.flatMap(({ resource, parts }) => parts.flatMap((part) => partText(out, peer, resource, part)))
  return [
    `With ${cell(peer)}, ${what} would do this; nothing of it was done (${duration(durationMs)}).`,
    ...(newLog ? [`${cell(peer)} was restored or copied: everything would be offered and asked for again.`] : []),
    '',
    await out.table(
      ['RESOURCE', 'DIRECTION', 'CHANGES', 'NEW', 'OTHER VALUES', 'DELETED', 'CONFLICTS', 'SET ASIDE', 'SIZE', 'TIME'],
      rows,
    ),
    ...details,
    ...tasks.flatMap(({ leaving }) => (leaving === undefined ? [] : ['', leavingText(peer, leaving)])),
  ].join('\n')
}

/** What a person would else find out when records are no longer the same. */
function leavingText(peer: string, { here, there }: { readonly here: number; readonly there: number | null }): string {
  const at = there === null ? `, and at ${cell(peer)} nobody may count` : ` and ${count(there)} at ${cell(peer)}`
  return `${plural(here, 'record')} here${at} would no longer be synced by this task; they stay as they are.${
    here > 0 ? ' Those that were sent under a filter before count as leaving it: see --on-left.' : ''
  }`
}

function row(resource: string, part: Part): readonly string[] {
  const { direction, changes, complete, writes, counts, estimateMs, failure } = part
  if (failure !== null) return [cell(resource), direction, '-', '-', '-', '-', '-', '-', '-', failure.code]
  return [
    cell(resource),
    direction,
    `${count(changes)}${complete ? '' : ' first'}`,
    count(writes.inserts),
    count(writes.updates),
    count(writes.deletes),
    count(counts.conflict + counts.merged),
    count(counts.quarantined + counts.refused),
    bytes(part.bytes),
    estimateMs === null ? '-' : `about ${duration(estimateMs)}`,
  ]
}

function partText(out: Output, peer: string, resource: string, part: Part): readonly string[] {
  const where = part.direction === 'pull' ? 'here' : `at ${cell(peer)}`
  const title = `${cell(resource)}, ${part.direction === 'pull' ? `pulled from ${cell(peer)}` : `pushed to ${cell(peer)}`}:`
  const lines = [
    ...(part.failure === null ? [] : [out.paint('red', `could not be looked at: ${cell(part.failure.detail)}`)]),
    ...part.braked.map((reason) => out.paint('red', `would be stopped: ${cell(reason)}`)),
    ...(part.complete || part.failure !== null
      ? []
      : [`only the first ${plural(part.batches, 'batch', 'batches')} were looked at`]),
    ...part.samples.slice(0, SHOWN).map((record) => sampleText(record, where)),
    ...(part.samples.length > SHOWN ? [`… and ${part.samples.length - SHOWN} more with --json`] : []),
    ...part.rejections.slice(0, SHOWN).map(({ id, outcome, reason }) => `${outcome} ${cell(id)}: ${cell(reason)}`),
  ]
  return lines.length === 0 ? [] : ['', title, ...lines.map((line) => `  ${line}`)]
}

const VERBS = { insert: 'new', update: 'other values', delete: 'deleted', keep: 'stays' } as const
const DECISIONS = {
  ours: 'changed on both sides, the values here would stay',
  theirs: 'changed on both sides, those of the peer would be taken',
  merged: 'changed on both sides, merged by field',
  open: 'changed on both sides, would wait for a person',
} as const

function sampleText({ id, kind, decision, fields }: PreviewedRecord, where: string): string {
  const values = fields.map(({ field, before, after, theirs }) => {
    const change = kind === 'insert' ? valueText(after) : `${valueText(before)} -> ${valueText(after)}`
    return `${cell(field)} ${kind === 'delete' ? valueText(before) : change}${decision === undefined || theirs === undefined ? '' : ` (theirs ${valueText(theirs)})`}`
  })
  const what = decision === undefined ? `${VERBS[kind]} ${where}` : DECISIONS[decision]
  return `${cell(id)}: ${what}${values.length === 0 ? '' : `: ${values.join(', ')}`}`
}
