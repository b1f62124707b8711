/** One measured figure beside what it must reach. `ratio` is against a limit measured in the same run, where there is one. */
export type Figure = {
  readonly what: string
  readonly value: number
  readonly unit: string
  readonly ratio?: number
  readonly must: string
  readonly reached: boolean
}

export function median(values: readonly number[]): number {
  const sorted = [...values].sort((a, b) => a - b)
  return sorted[Math.floor(sorted.length / 2)] ?? Number.NaN
}

export function say(text: string): void {
  process.stderr.write(`${text}\n`)
}

/** A table for people on standard output, or one JSON document with `--json`. */
export function print(figures: readonly Figure[], json: boolean): void {
  if (json) {
    process.stdout.write(`${JSON.stringify({ figures }, null, 2)}\n`)
    return
  }
  const rows = figures.map((figure) => [
    figure.reached ? 'ok  ' : 'MISS',
    figure.what,
    `${round(figure.value)} ${figure.unit}`,
    figure.ratio === undefined ? '' : `ratio ${figure.ratio.toFixed(2)}`,
    figure.must,
  ])
  const widths = [0, 1, 2, 3].map((column) => Math.max(...rows.map((row) => row[column]?.length ?? 0)))
  for (const row of rows) {
    process.stdout.write(`${row.map((cell, column) => cell.padEnd(widths[column] ?? 0)).join('  ')}\n`)
  }
}

function round(value: number): string {
  return value >= 100 ? Math.round(value).toLocaleString('en-US') : value.toFixed(1)
}
