import { SETTING_NAMES, type SettingName, settingOf } from './schema.ts'

/** `dataDir` → `SYNCLINE_DATA_DIR`. */
export function variableName(key: string): string {
  return `SYNCLINE_${key.replace(/[A-Z]/g, (letter) => `_${letter}`).toUpperCase()}`
}

/** `dataDir` → `--data-dir`. */
export function flagName(key: string): string {
  return `--${key.replace(/[A-Z]/g, (letter) => `-${letter.toLowerCase()}`)}`
}

/** What a key of a source stands for: a setting, or for a secret the path of the file that holds it. */
export type Meaning = { readonly name: SettingName; readonly viaFile: boolean }

/** Every key a source may have, as written in a file. */
export const KEYS: ReadonlyMap<string, Meaning> = new Map(
  SETTING_NAMES.flatMap((name): [string, Meaning][] => [
    [name, { name, viaFile: false }],
    ...(settingOf(name).secret ? [[`${name}File`, { name, viaFile: true }] as [string, Meaning]] : []),
  ]),
)

/** The same by environment variable; `SYNCLINE_CONFIG` names the file itself. */
export const VARIABLES: ReadonlyMap<string, string> = new Map([...KEYS.keys()].map((key) => [variableName(key), key]))
export const CONFIG_VARIABLE = 'SYNCLINE_CONFIG'

/** The known name that `wrong` most likely was meant to be, or undefined when none is near. */
export function nearest(wrong: string, known: Iterable<string>): string | undefined {
  let best: string | undefined
  let bestDistance = Math.max(2, Math.floor(wrong.replace(/^SYNCLINE_/i, '').length / 3)) + 1
  for (const name of known) {
    const distance = editDistance(wrong.toLowerCase(), name.toLowerCase(), bestDistance)
    if (distance < bestDistance) [best, bestDistance] = [name, distance]
  }
  return best
}

/** Insertions, deletions, replacements and swaps of neighbours between two words; any number ≥ `limit` means "too far". */
function editDistance(a: string, b: string, limit: number): number {
  if (Math.abs(a.length - b.length) >= limit) return limit
  let before: number[] = []
  let previous = Array.from({ length: b.length + 1 }, (_, j) => j)
  for (let i = 1; i <= a.length; i++) {
    const row = [i]
    for (let j = 1; j <= b.length; j++) {
      const swapped = i > 1 && j > 1 && a[i - 1] === b[j - 2] && a[i - 2] === b[j - 1]
      row[j] = Math.min(
        at(previous, j) + 1,
        at(row, j - 1) + 1,
        at(previous, j - 1) + (a[i - 1] === b[j - 1] ? 0 : 1),
        swapped ? at(before, j - 2) + 1 : limit,
      )
    }
    ;[before, previous] = [previous, row]
  }
  return at(previous, b.length)
}

function at(row: readonly number[], index: number): number {
  return row[index] ?? Number.POSITIVE_INFINITY
}
