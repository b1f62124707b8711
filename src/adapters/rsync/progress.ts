/** One thing that rsync reports, with the options that REPORT asks for. */
export type Report =
  | {
      readonly kind: 'progress'
      readonly bytes: number
      readonly percent: number
      /** Bytes in a second. */
      readonly rate: number
      readonly seconds: number
      /** Files that were copied, and files that are still to be looked at, of those found so far. */
      readonly files: number | null
      readonly left: number | null
      readonly found: number | null
    }
  | { readonly kind: 'item'; readonly change: string; readonly bytes: number; readonly name: string }
  | { readonly kind: 'deleted'; readonly name: string }
  | { readonly kind: 'total'; readonly name: keyof Totals; readonly value: number }
  | { readonly kind: 'text'; readonly text: string }

/** What rsync counted when it had ended. */
export type Totals = {
  readonly files: number
  readonly regular: number
  readonly created: number
  readonly deleted: number
  readonly transferred: number
  /** Bytes of all files, of those that were copied, and of what really went over the line as new content. */
  readonly size: number
  readonly copied: number
  readonly literal: number
  readonly sent: number
  readonly received: number
  readonly speedup: number
}

/** For live progress and the totals at the end. */
export const REPORT_PROGRESS = ['--info=progress2,stats2', '--no-human-readable', '--outbuf=L']
/** For every file by name. */
export const REPORT_ITEMS = ['--info=stats2', '--no-human-readable', '--outbuf=L', '--out-format=@@ %i %l %n']

const LINE_MAX = 16_384
const PROGRESS =
  /^\s*([\d,]+)\s+(\d+)%\s+([\d.,]+)([kMGT]?)B\/s\s+(\d+):(\d\d):(\d\d)(?:\s+\(xfr#(\d+), (?:ir|to)-chk=(\d+)\/(\d+)\))?\s*$/
const ITEM = /^@@ (\S{11}|\*\S+ *) (\d+) (.*)$/s
const UNITS = { '': 1, k: 1024, M: 1024 ** 2, G: 1024 ** 3, T: 1024 ** 4 } as const

const TOTALS: readonly (readonly [keyof Totals, RegExp])[] = [
  ['files', /^Number of files: ([\d,]+)/],
  ['regular', /^Number of files: .*\breg: ([\d,]+)/],
  ['created', /^Number of created files: ([\d,]+)/],
  ['deleted', /^Number of deleted files: ([\d,]+)/],
  ['transferred', /^Number of regular files transferred: ([\d,]+)/],
  ['size', /^Total file size: ([\d,]+)/],
  ['copied', /^Total transferred file size: ([\d,]+)/],
  ['literal', /^Literal data: ([\d,]+)/],
  ['sent', /^Total bytes sent: ([\d,]+)/],
  ['received', /^Total bytes received: ([\d,]+)/],
  ['speedup', /^total size is [\d,]+\s+speedup is ([\d.,]+)/],
]
const STATS = /^(?:Number of |Total |Literal data|Matched data|File list |sent [\d,]+ bytes|total size is )/

/**
 * Reads what rsync writes, in pieces as they come: lines end with a newline, and progress overwrites itself with a carriage return. A piece may
 * end anywhere. Of progress that has been overwritten in the same piece nothing is told: rsync writes it for each of many small files. `end` gives
 * what is left without an end of line.
 */
export function createReader(report: (report: Report) => void): {
  readonly write: (text: string) => void
  readonly end: () => void
} {
  let rest = ''
  const tell = (line: string) => {
    for (const each of readLine(line.slice(0, LINE_MAX))) report(each)
  }
  return {
    write: (text) => {
      const lines = (rest + text).split(/[\r\n]/)
      rest = (lines.pop() ?? '').slice(0, LINE_MAX)
      const latest = lines.findLastIndex(isProgress)
      for (const [index, line] of lines.entries())
        if (line !== '' && (index === latest || !isProgress(line))) tell(line)
    },
    end: () => {
      if (rest !== '') tell(rest)
      rest = ''
    },
  }
}

/** Cheaper than reading it. */
function isProgress(line: string): boolean {
  return line.startsWith(' ') && line.includes('B/s ')
}

function readLine(text: string): readonly Report[] {
  const progress = PROGRESS.exec(text)
  if (progress !== null) return [progressOf(progress)]
  const item = ITEM.exec(text)
  if (item !== null) {
    const [, change = '', bytes = '0', name = ''] = item
    if (change.startsWith('*deleting')) return [{ kind: 'deleted', name: unescapeName(name) }]
    return [{ kind: 'item', change, bytes: Number(bytes), name: unescapeName(name) }]
  }
  if (!STATS.test(text)) return [{ kind: 'text', text }]
  return TOTALS.flatMap(([name, pattern]): Report[] => {
    const found = pattern.exec(text)
    return found === null ? [] : [{ kind: 'total', name, value: plain(found[1]) }]
  })
}

function progressOf(found: RegExpExecArray): Report {
  const [, bytes, percent, rate, unit = '', hours, minutes, seconds, files, left, all] = found
  const optional = (text: string | undefined) => (text === undefined ? null : Number(text))
  return {
    kind: 'progress',
    bytes: plain(bytes),
    percent: Number(percent),
    rate: Math.round(plain(rate) * UNITS[unit as keyof typeof UNITS]),
    seconds: Number(hours) * 3600 + Number(minutes) * 60 + Number(seconds),
    files: optional(files),
    left: optional(left),
    found: optional(all),
  }
}

/** rsync writes what is no printable character, and a backslash before such, as `\#` and three octal digits. */
export function unescapeName(name: string): string {
  if (!name.includes('\\#')) return name
  const bytes: number[] = []
  const parts = name.split(/(\\#[0-7]{3})/)
  for (const part of parts) {
    if (/^\\#[0-7]{3}$/.test(part)) bytes.push(Number.parseInt(part.slice(2), 8))
    else bytes.push(...Buffer.from(part))
  }
  return Buffer.from(bytes).toString()
}

function plain(text = '0'): number {
  return Number(text.replaceAll(',', ''))
}
