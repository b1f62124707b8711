/**
 * `npm run demo`: two real sites on this machine, each with its own process and its own embedded database, exchange a public data set in both
 * directions, meet a conflict, a deletion and a record that has to wait, and compare themselves. Exit code 0 only when both are equal.
 */
import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { parseArgs } from 'node:util'
import { CREDITS, PLACES_MAX } from './data.ts'
import { closingTable, releaseTerminal, say } from './screen.ts'
import { guardHome, type Site, startSite } from './site.ts'
import { play } from './story.ts'

const USAGE = `npm run demo [-- options]

  --rows N   how many of the ${PLACES_MAX.toLocaleString('en-US')} places to take; default all
  --keep     leave both sites running and print where they are
`

async function main(): Promise<number> {
  const { rows, keep, help } = readArguments()
  if (help) {
    process.stdout.write(USAGE)
    return 0
  }
  const home = await mkdtemp(join(tmpdir(), 'syncline-demo-'))
  const guard = guardHome(home)
  const starts: Promise<Site>[] = []
  const stopping = new AbortController()
  const cleanUp = async () => {
    stopping.abort()
    const sites = await Promise.allSettled(starts)
    await Promise.all(sites.map((start) => (start.status === 'fulfilled' ? start.value.stop() : undefined)))
    await rm(home, { recursive: true, force: true })
  }
  const interrupt = (signal: NodeJS.Signals) => {
    releaseTerminal()
    say(`\n${signal}: stopping both sites and removing their data`)
    void cleanUp().finally(() => process.exit(130))
  }
  for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const) process.once(signal, interrupt)
  try {
    say('Two sites on this machine, hub and field, each with its own process and its own embedded database.')
    for (const credit of CREDITS) say(credit)
    say()
    const start = (name: string) => {
      const site = startSite(home, name, stopping.signal)
      starts.push(site)
      return site
    }
    const equal = await play(start, rows)
    say()
    say(closingTable())
    say()
    say(equal ? 'Both sites are equal.' : 'The sites DIFFER.')
    if (keep) {
      const sites = await Promise.all(starts)
      guard.keep()
      for (const site of sites) site.release()
      tellWhere(home, sites)
    } else await cleanUp()
    return equal ? 0 : 1
  } catch (error) {
    // An interrupted demo fails because its sites are gone; the interruption ends the process by itself.
    if (stopping.signal.aborted) return new Promise(() => {})
    await cleanUp()
    throw error
  }
}

function readArguments() {
  const options = {
    rows: { type: 'string' },
    keep: { type: 'boolean' },
    help: { type: 'boolean', short: 'h' },
  } as const
  try {
    const { values } = parseArgs({ options })
    const rows = values.rows === undefined ? PLACES_MAX : Number(values.rows)
    if (!Number.isInteger(rows) || rows < 100) throw new TypeError('--rows takes a whole number from 100')
    return { rows, keep: values.keep === true, help: values.help === true }
  } catch (error) {
    process.stderr.write(`${(error as Error).message}\n\n${USAGE}`)
    process.exit(2)
  }
}

function tellWhere(home: string, sites: readonly Site[]): void {
  say('\nBoth sites go on running:')
  for (const { name, url, tokenFile, folder, logFile } of sites) {
    say(`  ${name}: ${url} (API at ${url}/docs)`)
    say(`    administrator token: ${tokenFile}`)
    say(`    log: ${logFile}`)
    say(`    command line: bin/syncline status --data-dir ${folder}`)
  }
  say(`To end them: kill ${sites.map(({ pid }) => pid).join(' ')}`)
  say(`Their data stays in ${home} until you remove it.`)
}

try {
  process.exitCode = await main()
} catch (error) {
  process.stderr.write(`\nThe demo failed: ${(error as Error).message}\n`)
  process.exitCode = 1
}
