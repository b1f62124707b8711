/**
 * `npm run bench:faults [-- --systems syncline,pouchdb,bucardo,pglogical --only 'late commit,TRUNCATE' --json --write --with FILE --seed N]`
 *
 * Ten faults and fifteen situations, scripted once, run against Syncline and against rivals that can be had from npm or Debian. Each verdict
 * compares everything that every site holds with what was confirmed to the application.
 */
import { readFileSync } from 'node:fs'
import { parseArgs } from 'node:util'
import { say } from '../report.ts'
import type { Rival } from './contest.ts'
import { type Column, columnsOf, documentOf, failed, printTable, short, write } from './report.ts'
import { bucardo } from './rivals/bucardo.ts'
import { pglogical } from './rivals/pglogical.ts'
import { pouchdb } from './rivals/pouchdb.ts'
import { syncline } from './rivals/syncline.ts'
import { type Outcome, runScenario } from './run.ts'
import { SCENARIOS } from './scenarios/index.ts'

const { version } = JSON.parse(readFileSync(new URL('../../package.json', import.meta.url), 'utf8')) as {
  version: string
}
const RIVALS: Readonly<Record<string, () => Rival>> = { syncline: () => syncline(version), pouchdb, bucardo, pglogical }

const { values } = parseArgs({
  options: {
    systems: { type: 'string', default: Object.keys(RIVALS).join(',') },
    only: { type: 'string' },
    json: { type: 'boolean', default: false },
    write: { type: 'boolean', default: false },
    with: { type: 'string' },
    seed: { type: 'string' },
  },
})
const systems = values.systems.split(',').filter((name) => name !== '')
const only = values.only?.split(',')
const scenarios = SCENARIOS.filter(({ name }) => only === undefined || only.includes(name))
const unknown = [
  ...systems.filter((name) => !Object.hasOwn(RIVALS, name)),
  ...(only ?? []).filter((name) => !SCENARIOS.some((scenario) => scenario.name === name)),
]
if (unknown.length > 0) {
  say(
    `unknown: ${unknown.join(', ')}\nsystems: ${Object.keys(RIVALS).join(', ')}\nscenarios: ${SCENARIOS.map(({ name }) => name).join(', ')}`,
  )
  process.exit(2)
}

/** Systems that were measured before, from a file that `--json` wrote; a system that is measured now takes the place of its earlier self. */
const columns: Column[] = values.with === undefined ? [] : columnsOf(JSON.parse(readFileSync(values.with, 'utf8')))
for (const name of systems) {
  const rival = (RIVALS[name] as () => Rival)()
  const column = await contend(rival)
  const before = columns.findIndex(({ name }) => name === column.name)
  if (before < 0) columns.push(column)
  else columns[before] = column
}
columns.sort((a, b) => Number(b.name === 'Syncline') - Number(a.name === 'Syncline'))
if (values.json) process.stdout.write(`${JSON.stringify(documentOf(scenarios, columns), null, 2)}\n`)
else printTable(scenarios, columns)
if (values.write) await write(scenarios, columns)
process.exitCode = columns.some((column) => column.name === 'Syncline' && failed(column)) ? 1 : 0

async function contend(rival: Rival): Promise<Column> {
  const outcomes = new Map<string, Outcome>()
  const started = performance.now()
  const column = (version: string | undefined, missing?: string): Column => ({
    name: rival.name,
    version,
    missing,
    outcomes,
    seconds: (performance.now() - started) / 1000,
  })
  try {
    const { version } = await rival.install()
    for (const scenario of scenarios) {
      const outcome = await runScenario(rival, scenario, values.seed === undefined ? undefined : Number(values.seed))
      outcomes.set(scenario.name, outcome)
      say(`${rival.name}: ${scenario.name}: ${wordsOf(outcome)}`)
    }
    return column(version)
  } catch (error) {
    return column(undefined, error instanceof Error ? error.message : String(error))
  } finally {
    await rival.end()
  }
}

function wordsOf(outcome: Outcome): string {
  if (outcome.kind === 'none') return `n/a, ${outcome.reason}`
  const took = `(${outcome.seconds.toFixed(1)} s)`
  if (outcome.kind === 'broken') return `could not go on: ${outcome.reason} ${took}`
  const { lost, revived, diverged, stuck, notes } = outcome.verdict
  if (notes.length === 0) return `clean ${took}`
  return `lost ${lost}, revived ${revived}, diverged ${diverged}, stuck ${stuck} ${took}\n  ${notes.slice(0, 6).map(short).join('\n  ')}`
}
