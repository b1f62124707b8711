import type { Command } from 'commander'
import type { UndoReport, UndoSample } from '../store/index.ts'
import { path } from './api.ts'
import { type Session, verb } from './command.ts'
import { EXIT } from './exit.ts'
import type { Output } from './output.ts'
import { bytes, cell, count, duration, plural, time, valueText } from './text.ts'

type UndoOptions = {
  readonly preview?: boolean
  readonly force?: readonly string[]
  readonly partial?: boolean
}

/** `run undo`: what a run changed here, taken back as a new change. */
export function addUndo(run: Command, session: Session): void {
  verb<UndoOptions, [string]>(run, session, {
    use: 'undo <id>',
    does: 'Takes back what a run changed here and nobody changed since, as a new change that syncs on',
    more: 'It is a run of its own: undoing that one puts everything back. What somebody changed since is listed and left, unless it is named with --force.',
    examples: [
      'syncline run undo 42 --preview',
      'syncline run undo 42',
      'syncline run undo 42 --force city/AT --force city/DE',
      'syncline run undo 42 --partial',
    ],
    options: (command) =>
      command
        .option('--preview', 'say what it would do, and write nothing')
        .option(
          '--force <resource/id>',
          'take this record back although somebody changed it since; repeatable',
          collect,
          [],
        )
        .option('--partial', 'take back the rest when values of the run are no longer kept'),
    run: async ({ site, out }, { preview = false, force = [], partial = false }, id) => {
      const body = { preview, force, partial }
      const api = await site()
      const report = await api.send<UndoReport>('POST', path`/runs/${id}/undo`, { body, patient: true })
      await out.result(report, () => describe(out, report))
      const { since, blocked, missing } = report.counts
      return !preview && since + blocked + missing > 0 ? EXIT.waiting : EXIT.done
    },
  })
}

function collect(value: string, before: readonly string[]): readonly string[] {
  return [...before, value]
}

/** Records of a list that a person is shown; --json has up to a thousand. */
const SHOWN = 20

async function describe(out: Output, report: UndoReport): Promise<string> {
  const { counts, since, blocked, missing } = report
  const parts = [head(report)]
  if (report.preview && report.samples.length > 0) parts.push(await samples(out, report.samples))
  if (since.length > 0) {
    const rows = since
      .slice(0, SHOWN)
      .map((each) => [`${each.resource}/${cell(each.id)}`, each.did, who(each), time(each.at)])
    parts.push(
      `${plural(counts.since, 'record')} left as ${counts.since === 1 ? 'it is' : 'they are'}: changed since (--force takes one back all the same)`,
      await out.table(['RECORD', 'THE RUN HAD', 'CHANGED SINCE BY', 'AT'], rows),
    )
  }
  if (blocked.length > 0) {
    const rows = blocked.slice(0, SHOWN).map((each) => [`${each.resource}/${cell(each.id)}`, cell(each.reason)])
    parts.push(`${plural(counts.blocked, 'record')} could not be taken back:`, await out.table(['RECORD', 'WHY'], rows))
  }
  for (const each of missing) {
    const what = each.deed === 'changed' ? 'changed' : 'brought new'
    parts.push(
      `${plural(each.count, 'record')} of ${cell(each.resource)} that the run ${what} cannot be put back: ${cell(each.reason)}`,
    )
  }
  return parts.join('\n\n')
}

function head({ runId, undoRunId, before, preview, counts, bytes: size, durationMs }: UndoReport): string {
  const done = [
    counts.removed > 0 ? `${count(counts.removed)} removed` : '',
    counts.restored > 0 ? `${count(counts.restored)} restored` : '',
    counts.replaced > 0 ? `${count(counts.replaced)} back to their previous values` : '',
    counts.same > 0 ? `${count(counts.same)} as before already` : '',
  ].filter((part) => part !== '')
  const what = done.join(', ') || 'nothing to take back'
  if (counts.removed + counts.restored + counts.replaced === 0) {
    const why =
      before === null
        ? `run ${runId} changed nothing here that could be put back; what it pushed is taken back at the site that applied it`
        : `run ${runId} was taken back by run ${before.runId} at ${time(before.at)}; \`syncline run undo ${before.runId}\` takes that back`
    return `Nothing to take back: ${why}.`
  }
  return preview
    ? `Undo of run ${runId} would be: ${what} (${bytes(size)}, about ${duration(durationMs)}). Nothing was written.`
    : `Run ${runId} is taken back by run ${undoRunId}: ${what}.`
}

function who({ site, via, runId, deleted }: UndoReport['since'][number]): string {
  const path = via === null ? '' : via === site ? '' : ` via ${cell(via)}`
  return `${cell(site)}${path}${runId === null ? '' : ` in run ${runId}`}${deleted ? ', deleted' : ''}`
}

function samples(out: Output, list: readonly UndoSample[]): Promise<string> {
  const rows = list.flatMap(({ resource, id, does, fields }) => {
    const name = `${resource}/${cell(id)}`
    const changed = does === 'replaced' ? Object.entries(fields) : []
    if (changed.length === 0) return [[name, does, '', '', '']]
    return changed.map(([field, { now, next }], n) => [
      n === 0 ? name : '',
      n === 0 ? does : '',
      cell(field),
      valueText(now),
      valueText(next),
    ])
  })
  return out.table(['RECORD', 'WOULD BE', 'FIELD', 'NOW', 'THEN'], rows)
}
