import { SingleBar } from 'cli-progress'
import Table from 'cli-table3'

const terminal = process.stdout.isTTY === true
const started = performance.now()

/** What the closing table says of one step. `bytes` are those of the batches as they travelled. */
export type StepFacts = {
  readonly records?: number | undefined
  readonly bytes?: number | undefined
  readonly result?: string | undefined
}
type Finished = StepFacts & { readonly title: string; readonly seconds: number }

/** Progress of one step: a bar at a terminal, nothing elsewhere. */
export type Progress = { readonly total: (total: number) => void; readonly at: (done: number) => void }

const steps: Finished[] = []

export function say(text = ''): void {
  process.stdout.write(`${text}\n`)
}

/** One thing that a person should see below the line of its step. */
export function tell(text: string): void {
  say(`   ${text}`)
}

/** Performs one step of the demo and says in one line what it was, how much and how long. */
export async function step<T>(
  title: string,
  work: (progress: Progress) => Promise<readonly [T, StepFacts]>,
): Promise<T> {
  const number = String(steps.length + 1).padStart(2)
  const bar = new SingleBar({
    format: `${number} ${title}  {bar} {percentage}% {value}`,
    barsize: 24,
    hideCursor: true,
    clearOnComplete: true,
    stream: process.stdout,
    gracefulExit: false,
  })
  let shown = false
  const show = (total: number) => {
    if (!terminal) return
    if (shown) bar.setTotal(total)
    else bar.start(total, 0)
    shown = true
  }
  const begun = performance.now()
  if (terminal) process.stdout.write(`${number} ${title} …\r`)
  try {
    const [result, facts] = await work({ total: show, at: (done) => shown && bar.update(done) })
    const seconds = (performance.now() - begun) / 1000
    steps.push({ title, seconds, ...facts })
    if (shown) bar.stop()
    if (terminal) process.stdout.write('\x1b[2K\r')
    say(`${number} ${title}: ${[...amount(facts, seconds), formatSeconds(seconds)].join(', ')}`)
    return result
  } catch (error) {
    if (shown) bar.stop()
    if (terminal) process.stdout.write('\x1b[2K\r')
    throw error
  }
}

function amount({ records, bytes, result }: StepFacts, seconds: number): string[] {
  return [
    ...(result === undefined ? [] : [result]),
    ...(records === undefined ? [] : [`${formatCount(records)} record${records === 1 ? '' : 's'}`]),
    ...(records !== undefined && records >= 1000 ? [`${formatCount(records / seconds)} records/s`] : []),
    ...(bytes === undefined ? [] : [formatBytes(bytes)]),
  ]
}

/** Gives back what a bar takes of a terminal while it is drawn: the cursor and the wrapping of long lines. */
export function releaseTerminal(): void {
  if (terminal) process.stdout.write('\x1b[?25h\x1b[?7h')
}

/** What happened, as a table. */
export function closingTable(): string {
  const table = new Table({
    head: ['', 'step', 'records', 'records/s', 'sent', 'seconds'],
    colAligns: ['right', 'left', 'right', 'right', 'right', 'right'],
    style: { head: [], border: [], compact: true },
  })
  for (const [n, { title, records, bytes, seconds }] of steps.entries()) {
    table.push([
      n + 1,
      title,
      records === undefined ? '' : formatCount(records),
      records === undefined || records < 1000 ? '' : formatCount(records / seconds),
      bytes === undefined ? '' : formatBytes(bytes),
      seconds.toFixed(1),
    ])
  }
  table.push(['', 'together', '', '', '', ((performance.now() - started) / 1000).toFixed(1)])
  return table.toString()
}

export function formatCount(count: number): string {
  return Math.round(count).toLocaleString('en-US')
}

export function formatBytes(bytes: number): string {
  if (bytes < 1000) return `${bytes} bytes`
  if (bytes < 1_000_000) return `${(bytes / 1000).toFixed(1)} kB`
  return `${(bytes / 1_000_000).toFixed(1)} MB`
}

function formatSeconds(seconds: number): string {
  return `${seconds.toFixed(1)} s`
}
