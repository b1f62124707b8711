import { setTimeout as sleep } from 'node:timers/promises'
import type { LogEntry } from '../store/index.ts'
import type { Api, Page, Query } from './api.ts'
import { type PageOptions, pageOptions, type Register, verb } from './command.ts'
import type { Output } from './output.ts'
import { logLine } from './run-text.ts'

const POLL_MS = 1000
const PAGE = 200

/** `log`: what happened, newest last as in a file. */
export const log: Register = (program, session) => {
  verb<
    PageOptions & Record<'peer' | 'resource' | 'result' | 'run', string | undefined> & { readonly follow?: boolean }
  >(program, session, {
    use: 'log',
    does: 'Shows what happened, the newest last',
    examples: [
      'syncline log',
      'syncline log --peer hub --resource city --follow',
      'syncline log --result error --json',
    ],
    options: (command) =>
      pageOptions(command)
        .option('--peer <peer>', 'only what concerns this peer')
        .option('--resource <resource>', 'only what concerns this resource')
        .option('--result <result>', 'only what ended so: success, warning, error, fatal')
        .option('--run <id>', 'only what this run did')
        .option('-f, --follow', 'go on with what happens from now; end with Ctrl-C'),
    run: async ({ site, out }, { peer, resource, result, run, limit, cursor, follow }) => {
      const api = await site()
      const query = { peer, resource, result, run }
      const page = await api.get<Page<LogEntry>>('/log', { ...query, limit, cursor })
      if (follow === true) await followLog(api, out, query, page.items)
      else await out.result(page, () => pageText(out, page.items))
    },
  })
}

function pageText(out: Output, items: readonly LogEntry[]): string {
  if (items.length === 0) return 'Nothing happened yet.'
  return items
    .toReversed()
    .map((entry) => logLine(out, entry))
    .join('\n')
}

/**
 * Ids are given out before commit, so an entry may appear behind newer ones: what was shown is remembered by id instead of only the newest.
 * Ends with the process.
 */
async function followLog(api: Api, out: Output, query: Query, first: readonly LogEntry[]): Promise<never> {
  let shown = new Set<string>()
  let items = first
  for (;;) {
    for (const entry of items.toReversed()) if (!shown.has(entry.id)) await out.item(entry, () => logLine(out, entry))
    shown = new Set([...shown, ...items.map((entry) => entry.id)].slice(-10 * PAGE))
    await sleep(POLL_MS)
    items = await freshEntries(api, query, shown)
  }
}

/** The newest entries back to a page that was wholly shown, so that a burst of more than a page is not cut. */
async function freshEntries(api: Api, query: Query, shown: ReadonlySet<string>): Promise<readonly LogEntry[]> {
  const items: LogEntry[] = []
  let cursor: string | undefined
  for (let pages = 0; pages < 10; pages++) {
    const page = await api.get<Page<LogEntry>>('/log', { ...query, limit: PAGE, cursor })
    items.push(...page.items)
    if (page.next === null || page.items.every((entry) => shown.has(entry.id))) break
    cursor = page.next
  }
  return items
}
