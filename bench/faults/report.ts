/** The result as a table for people, as JSON, and as the page of the documentation. */
import { readFile, writeFile } from 'node:fs/promises'
import { cpus, totalmem } from 'node:os'
import type { Scenario } from './contest.ts'
import { isClean } from './judge.ts'
import type { Outcome } from './run.ts'

export type Column = {
  readonly name: string
  readonly version: string | undefined
  /** Why it could not take part. */
  readonly missing?: string | undefined
  readonly outcomes: ReadonlyMap<string, Outcome>
  readonly seconds: number
}

export function failed({ outcomes, missing }: Column): boolean {
  return missing !== undefined || [...outcomes.values()].some((outcome) => !fine(outcome))
}

function fine(outcome: Outcome): boolean {
  return outcome.kind === 'none' || (outcome.kind === 'verdict' && isClean(outcome.verdict))
}

/** lost / revived / diverged / stuck. */
export function cell(outcome: Outcome | undefined): string {
  if (outcome === undefined) return ''
  if (outcome.kind === 'none') return 'n/a'
  if (outcome.kind === 'broken') return 'stopped'
  const { lost, revived, diverged, stuck } = outcome.verdict
  if (isClean(outcome.verdict)) return 'clean'
  return Object.entries({ lost, revived, diverged, stuck })
    .filter(([, count]) => count > 0)
    .map(([word, count]) => `${word} ${count}`)
    .join(', ')
}

/** One line for a cell that is not clean. */
export function noteOf(outcome: Outcome): string | undefined {
  if (outcome.kind === 'none') return outcome.reason
  if (outcome.kind === 'broken') return outcome.reason.split('\n')[0]
  const [first, ...more] = outcome.verdict.notes
  if (first === undefined) return undefined
  return `${short(first)}${more.length > 0 ? ` (and ${more.length} more)` : ''}`
}

/** Record ids of the scenarios without the part that is the same in all of them. */
export function short(note: string): string {
  return note.replace(/00000000-0000-4000-8000-0*(\d)/g, '$1')
}

/** Sums of a system over the whole contest. */
export function totals({ outcomes }: Column) {
  const sum = { clean: 0, lost: 0, revived: 0, diverged: 0, stuck: 0, stopped: 0, none: 0 }
  for (const outcome of outcomes.values()) {
    if (outcome.kind === 'none') sum.none += 1
    if (outcome.kind === 'broken') sum.stopped += 1
    if (outcome.kind !== 'verdict') continue
    if (isClean(outcome.verdict)) sum.clean += 1
    for (const trouble of ['lost', 'revived', 'diverged', 'stuck'] as const) sum[trouble] += outcome.verdict[trouble]
  }
  return sum
}

export function printTable(scenarios: readonly Scenario[], columns: readonly Column[]): void {
  const rows = tableOf(scenarios, columns)
  const widths = rows[0]?.map((_, index) => Math.max(...rows.map((row) => row[index]?.length ?? 0))) ?? []
  for (const row of rows)
    process.stdout.write(
      `${row
        .map((text, index) => text.padEnd(widths[index] ?? 0))
        .join('  ')
        .trimEnd()}\n`,
    )
  process.stdout.write('\n')
  for (const column of columns)
    for (const [title, note] of notesOf(column)) process.stdout.write(`${column.name}: ${title}: ${note}\n`)
}

/** A title and a line for every cell that is not clean; cells that do not apply for one reason share a line. */
function notesOf({ outcomes, missing }: Column): [string, string][] {
  const reasons = Map.groupBy(
    [...outcomes].filter(([, outcome]) => outcome.kind === 'none'),
    ([, outcome]) => noteOf(outcome) ?? '',
  )
  const troubles = [...outcomes].flatMap(([name, outcome]): [string, string][] => {
    const note = outcome.kind === 'none' ? undefined : noteOf(outcome)
    return note === undefined ? [] : [[name, note]]
  })
  const notApplicable = [...reasons].map(([reason, cells]): [string, string] => [
    'n/a',
    `${reason} (${cells.map(([name]) => name).join(', ')})`,
  ])
  return [...(missing === undefined ? [] : [['not here', missing] as [string, string]]), ...troubles, ...notApplicable]
}

function tableOf(scenarios: readonly Scenario[], columns: readonly Column[]): string[][] {
  const sums = columns.map(totals)
  return [
    ['', ...columns.map(({ name, version }) => `${name} ${version ?? ''}`.trim())],
    ...scenarios.map(({ name }) => [
      name,
      ...columns.map(({ outcomes, missing }) => (missing === undefined ? cell(outcomes.get(name)) : 'not here')),
    ]),
    ...(['clean', 'lost', 'revived', 'diverged', 'stuck', 'stopped'] as const).map((word) => [
      `all together: ${word}`,
      ...sums.map((sum, index) => (columns[index]?.missing === undefined ? String(sum[word]) : '')),
    ]),
    ['seconds', ...columns.map(({ seconds }) => seconds.toFixed(0))],
  ]
}

export function documentOf(scenarios: readonly Scenario[], columns: readonly Column[]) {
  return {
    machine: machine(),
    systems: columns.map((column) => ({
      name: column.name,
      version: column.version,
      missing: column.missing,
      seconds: column.seconds,
      totals: totals(column),
      outcomes: scenarios.map(({ name, group }) => ({ scenario: name, group, ...column.outcomes.get(name) })),
    })),
  }
}

/** The columns of a document. */
export function columnsOf({ systems }: ReturnType<typeof documentOf>): Column[] {
  return systems.map(({ name, version, missing, seconds, outcomes }) => ({
    name,
    version,
    missing,
    seconds,
    outcomes: new Map(
      outcomes.flatMap(({ scenario, group: _, ...outcome }) =>
        'kind' in outcome ? [[scenario, outcome as Outcome]] : [],
      ),
    ),
  }))
}

function machine(): string {
  return `${cpus().length} cores, ${Math.round(totalmem() / 2 ** 30)} GB of memory, Node ${process.versions.node}`
}

const BEGIN = '<!-- table: written by npm run bench:faults -- --write -->'
const END = '<!-- end of table -->'

/** Puts the table and its notes between the marks of docs/faults.md. */
export async function write(scenarios: readonly Scenario[], columns: readonly Column[]): Promise<void> {
  const file = new URL('../../docs/faults.md', import.meta.url)
  const text = await readFile(file, 'utf8')
  const [begin, end] = [text.indexOf(BEGIN), text.indexOf(END)]
  if (begin < 0 || end < begin) throw new Error('docs/faults.md has no marks for the table')
  await writeFile(file, `${text.slice(0, begin + BEGIN.length)}\n${markdown(scenarios, columns)}\n${text.slice(end)}`)
}

function markdown(scenarios: readonly Scenario[], columns: readonly Column[]): string {
  const [head = [], ...rows] = tableOf(scenarios, columns)
  const line = (cells: readonly string[]) => `| ${cells.map(escaped).join(' | ')} |`
  const notes = columns.flatMap((column) => {
    const lines = notesOf(column).map(([title, note]) => `- *${title}*: ${escaped(note)}`)
    return lines.length === 0 ? [] : ['', `### ${column.name}`, '', ...lines]
  })
  return [
    '',
    `Measured on ${machine()}.`,
    '',
    line(head),
    line(head.map(() => '---')),
    ...rows.map(line),
    ...notes,
    '',
  ].join('\n')
}

function escaped(text: string): string {
  return text.replace(/[\\|<>*_`]/g, (sign) => `\\${sign}`)
}
