import type { LogEntry, RunEntry } from '../store/index.ts'
import { EXIT, type ExitCode, exitOf } from './exit.ts'
import type { Color, Output } from './output.ts'
import { bytes, cell, count, duration, fields, time } from './text.ts'

/** How a run ended, as an exit code: a warning is something that waits for a person. */
export function exitOfRun(run: RunEntry): ExitCode {
  if (run.result === 'success' || run.result === null) return EXIT.done
  if (run.result === 'warning') return EXIT.waiting
  const code = run.code === null ? EXIT.failed : exitOf(run.code)
  return code === EXIT.wrongUse ? EXIT.failed : code
}

/** The counts of src/client in words; those of a push are the answers of the peer. */
const COUNT_WORDS: Readonly<Record<string, string>> = {
  pulled: 'pulled',
  applied: 'applied',
  merged: 'merged',
  known: 'known already',
  conflicts: 'in conflict',
  quarantined: 'in quarantine',
  refused: 'refused',
  pushed: 'pushed',
  pushConflicts: 'in conflict there',
  pushQuarantined: 'in quarantine there',
  pushRefused: 'refused there',
  removed: 'removed',
  restored: 'restored',
  replaced: 'back to their previous values',
  since: 'changed since and left',
  blocked: 'blocked',
}

/** Counts of a run that are not zero: 120 pulled, 118 applied, 2 in quarantine. Empty when all are. */
export function countsText(counts: Readonly<Record<string, number>>): string {
  const shown = Object.entries(COUNT_WORDS).flatMap(([name, words]) => {
    const n = counts[name] ?? 0
    return n === 0 ? [] : [`${count(n)} ${words}`]
  })
  return shown.join(', ')
}

const COLORS: Readonly<Record<string, Color>> = { success: 'green', warning: 'yellow', error: 'red', fatal: 'red' }

export function resultText(out: Output, result: string | null, state?: string): string {
  if (result === null) return cell(state)
  return out.paint(COLORS[result] ?? 'dim', result)
}

export function runTable(out: Output, runs: readonly RunEntry[]): Promise<string> {
  return out.table(
    ['ID', 'STARTED', 'PEER', 'CAUSE', 'TOOK', 'RESULT', 'WHAT'],
    runs.map((run) => [
      run.id,
      time(run.startedAt),
      cell(run.peer),
      cell(run.cause),
      took(run),
      resultText(out, run.result, run.state),
      [countsText(run.counts), run.message === null ? '' : cell(run.message)]
        .filter((each) => each !== '')
        .join('; ') || 'nothing to do',
    ]),
  )
}

export function runText(run: RunEntry): string {
  return fields([
    ['run', run.id],
    ['peer', run.peer],
    ['cause', run.cause],
    ['state', run.state],
    ['started', time(run.startedAt)],
    ['finished', run.finishedAt === null ? undefined : `${time(run.finishedAt)}, after ${took(run)}`],
    ['result', run.result ?? undefined],
    ['code', run.code ?? undefined],
    ['message', run.message ?? undefined],
    ['counts', countsText(run.counts) || 'nothing to do'],
  ])
}

function took(run: RunEntry): string {
  if (run.finishedAt === null) return '-'
  return duration(Date.parse(run.finishedAt) - Date.parse(run.startedAt))
}

/** One entry of the log in one line. */
export function logLine(out: Output, entry: LogEntry): string {
  const where = [entry.peer, entry.resource].filter((each) => each !== null).map(cell)
  const numbers = [
    entry.changes > 0 ? `${count(entry.changes)} changes` : '',
    entry.applied > 0 ? `${count(entry.applied)} applied` : '',
    entry.conflicts > 0 ? `${count(entry.conflicts)} conflicts` : '',
    entry.quarantined > 0 ? `${count(entry.quarantined)} quarantined` : '',
    entry.refused > 0 ? `${count(entry.refused)} refused` : '',
    entry.bytes > 0 ? bytes(entry.bytes) : '',
    duration(entry.durationMs),
  ].filter((each) => each !== '')
  const direction = { incoming: '<-', outgoing: '->', none: '' }[entry.direction]
  return [
    time(entry.at),
    resultText(out, entry.result).padEnd(7),
    [direction, ...where].filter((each) => each !== '').join(' '),
    cell(entry.action),
    cell(entry.message),
    out.paint('dim', `(${numbers.join(', ')})`),
  ]
    .filter((each) => each !== '' && each !== '-')
    .join('  ')
}
