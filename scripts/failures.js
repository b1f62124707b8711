import { existsSync, readdirSync, readFileSync } from 'node:fs'
import { join } from 'node:path'

/** Lines of explanation that are shown of one failure, and failures that are shown of one run. */
const LINES_MAX = 40
const FAILURES_MAX = 50

/**
 * What failed in a run of tap, from the results that it keeps, in the order of their files: each failure with the tests it stands in and what tap says of
 * it. In the log of a whole run it is far above the end.
 */
export function failuresIn(folder) {
  if (!existsSync(folder)) return []
  const files = readdirSync(folder, { recursive: true, encoding: 'utf8' }).filter((name) => name.endsWith('.tap'))
  return files
    .sort()
    .flatMap((name) => failuresOf(name.slice(0, -'.tap'.length), readFileSync(join(folder, name), 'utf8')))
}

/** A test that failed because of what stands in it is not shown again. */
function failuresOf(file, text) {
  const lines = text.split('\n')
  const shown = []
  const around = []
  const within = []
  for (const [at, line] of lines.entries()) {
    const depth = line.search(/\S/) / 4
    const begun = /^ *# Subtest: (.*)$/.exec(line)
    if (begun) around[depth] = begun[1]
    const failed = /^ *not ok \d+ - (.*?)(?: # time=.*)?$/.exec(line)
    if (!failed) continue
    if (within[depth + 1]) within[depth + 1] = false
    else
      shown.push(
        [[file, ...around.slice(0, depth), failed[1]].join(' > '), ...explanation(lines.slice(at + 1))].join('\n'),
      )
    within[depth] = true
  }
  return shown
}

function explanation(lines) {
  if (lines[0]?.trim() !== '---') return []
  const end = lines.findIndex((line) => line.trim() === '...')
  return lines.slice(1, end === -1 ? LINES_MAX : Math.min(end, LINES_MAX))
}

/** The failures as they are shown under a run. */
export function tellFailures(folder) {
  const failures = failuresIn(folder)
  const more = failures.length > FAILURES_MAX ? [`… and ${failures.length - FAILURES_MAX} more`] : []
  return [`${failures.length} failed:`, ...failures.slice(0, FAILURES_MAX), ...more].join('\n\n')
}
