import type { Readable } from 'node:stream'
import { pipeline } from 'node:stream/promises'
import { stripVTControlCharacters, styleText } from 'node:util'
import type { MultiBar } from 'cli-progress'
import { count, plain, plainLines } from './text.ts'

/** Where a command reads and writes: the streams of the process, or those of a test. */
export type Streams = { readonly stdin: Readable; readonly stdout: Sink; readonly stderr: Sink }

export type Sink = NodeJS.WritableStream & {
  readonly isTTY?: boolean
  readonly columns?: number
  readonly hasColors?: () => boolean
}

export type Color = 'green' | 'yellow' | 'red' | 'dim' | 'bold'

/** How far something is that takes a while. Absent `total` means that nobody knows it. */
export type ProgressStep = {
  readonly step: string
  readonly detail?: string
  readonly done?: number
  readonly total?: number
}

export type Progress = { readonly update: (step: ProgressStep) => void; readonly end: () => void }

/** The only way to standard output and standard error. */
export type Output = {
  readonly json: boolean
  /** Columns of the terminal; undefined where standard output is none. */
  readonly width: number | undefined
  /** The result of the command: with --json one JSON document, else the text for people. */
  readonly result: (value: unknown, text: () => string | Promise<string>) => Promise<void>
  /** One item of a result without an end: a line of NDJSON, or of text. */
  readonly item: (value: unknown, text: () => string) => Promise<void>
  /** Bytes as they come, to standard output. */
  readonly stream: (source: AsyncIterable<Uint8Array>) => Promise<void>
  /** A word to the person on the way, on standard error; nothing with --json. */
  readonly note: (text: string) => void
  /** A bar on a terminal, otherwise one line a step; nothing with --json. */
  readonly progress: (title: string) => Promise<Progress>
  readonly table: (head: readonly string[], rows: readonly (readonly string[])[]) => Promise<string>
  readonly paint: (color: Color, text: string) => string
}

/** What a failure looks like to a person and to a machine. */
export type FailureText = {
  readonly code: string
  readonly title: string
  readonly detail: string
  readonly mend: string
}

export function createOutput(streams: Streams, json: boolean): Output {
  const { stdout, stderr } = streams
  const width = stdout.isTTY === true ? stdout.columns : undefined
  const colored = stdout.hasColors?.() === true
  return {
    json,
    width,
    result: async (value, text) => write(stdout, `${json ? JSON.stringify(value, null, 2) : await text()}\n`),
    item: (value, text) => write(stdout, `${json ? JSON.stringify(value) : text()}\n`),
    stream: (source) => pipeline(source, stdout, { end: false }),
    note: (text) => {
      if (!json) stderr.write(`${plainLines(text)}\n`)
    },
    progress: progressOn(stderr, json),
    table: (head, rows) => drawTable(head, rows, width),
    paint: (color, text) => (colored ? styleText(color, text, { validateStream: false }) : text),
  }
}

/** A failure on standard error: what, where and why, the mend, the code. */
export function writeFailure(stderr: Sink, json: boolean, failure: FailureText): void {
  if (json) {
    stderr.write(`${JSON.stringify({ error: failure })}\n`)
    return
  }
  const detail = plainLines(failure.detail).replace(/^/gm, '  ')
  stderr.write(`syncline: ${plain(failure.title)} (${failure.code})\n${detail}\n  ${plain(failure.mend)}\n`)
}

/** Text that commander made: help and version. */
export function writeText(sink: Sink, text: string): void {
  sink.write(text)
}

/** A reader that goes away early (`| head`) is no failure: the process ends as quietly as the pipe did. */
export function endWithReader(sink: Sink): void {
  sink.on('error', (error: NodeJS.ErrnoException) => {
    if (error.code !== 'EPIPE') throw error
    process.exit()
  })
}

function write(sink: Sink, text: string): Promise<void> {
  return new Promise((resolve, reject) => {
    sink.write(text, (error) => (error == null ? resolve() : reject(error)))
  })
}

/** Plain and narrow: no lines, two spaces between columns, and on a terminal the last column wraps at its edge. */
async function drawTable(
  head: readonly string[],
  rows: readonly (readonly string[])[],
  width: number | undefined,
): Promise<string> {
  const { default: Table } = await import('cli-table3')
  const widths = head.map((title, n) => Math.max(title.length, ...rows.map((row) => visibleLength(row[n] ?? ''))))
  const before = widths.slice(0, -1).reduce((sum, each) => sum + each + 2, 0)
  const room = width === undefined ? undefined : Math.max(width - before, 20)
  const wraps = room !== undefined && (widths.at(-1) ?? 0) > room
  const none = Object.fromEntries(BORDERS.map((name) => [name, '']))
  const table = new Table({
    head: [...head],
    chars: { ...none, middle: '  ' },
    style: { head: [], border: [], 'padding-left': 0, 'padding-right': 0 },
    ...(wraps && { colWidths: [...widths.slice(0, -1), room], wordWrap: true, wrapOnWordBoundary: true }),
  })
  table.push(...rows.map((row) => [...row]))
  return table.toString().replace(/ +$/gm, '')
}

function visibleLength(text: string): number {
  return stripVTControlCharacters(text).length
}

const BORDERS = [
  ...['top', 'top-mid', 'top-left', 'top-right', 'bottom', 'bottom-mid', 'bottom-left', 'bottom-right'],
  ...['left', 'left-mid', 'mid', 'mid-mid', 'right', 'right-mid'],
]

/** Bars of commands that do several things at once stand below each other. */
function progressOn(stderr: Sink, quiet: boolean): Output['progress'] {
  if (quiet) return async () => ({ update: () => {}, end: () => {} })
  if (stderr.isTTY !== true) return async (title) => stepLines(stderr, title)
  let open = 0
  let bars: MultiBar | undefined
  return async (title) => {
    const { MultiBar } = await import('cli-progress')
    // Its way to leave gracefully would keep Ctrl-C from ending the command.
    bars ??= new MultiBar({ stream: stderr, format: barText, gracefulExit: false, clearOnComplete: true, fps: 8 })
    const bar = bars.create(1, 0, { title, step: '', detail: '', done: 0, total: 0 })
    open++
    return {
      update: ({ step, detail = '', done = 0, total = 0 }) => {
        bar.setTotal(Math.max(total, 1))
        bar.update(Math.min(done, Math.max(total, 1)), { title, step, detail, done, total })
      },
      end: () => {
        if (--open > 0) return
        bars?.stop()
        bars = undefined
      },
    }
  }
}

function barText(
  _options: object,
  _params: object,
  payload: { readonly title: string } & Required<ProgressStep>,
): string {
  const { title, step, detail, done, total } = payload
  const size = 24
  const filled = total > 0 ? Math.round(Math.min(done / total, 1) * size) : 0
  const drawn = total > 0 ? `[${'#'.repeat(filled)}${'.'.repeat(size - filled)}] ${count(done)} of ${count(total)}` : ''
  return [title, drawn, step, detail]
    .filter((part) => part !== '')
    .map(plain)
    .join('  ')
}

/** Without a terminal each step is said once, when it begins. */
function stepLines(stderr: Sink, title: string): Progress {
  let last = ''
  return {
    update: ({ step }) => {
      if (step !== last) stderr.write(`${plain(`${title}: ${step}`)}\n`)
      last = step
    },
    end: () => {},
  }
}
