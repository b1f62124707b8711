import type { LogEntry, RunEntry } from '../store/index.ts'
import { type Page, path } from './api.ts'
import { noun, type PageOptions, pageOptions, type Register, verb } from './command.ts'
import { logLine, runTable, runText } from './run-text.ts'
import { addUndo } from './run-undo.ts'

/** Entries of one run that `run show` prints; the rest is in `log --run`. */
const ENTRIES_SHOWN = 200

/** `run …`: single runs. */
export const run: Register = (program, session) => {
  const run = noun(program, 'run', 'Single runs')

  verb<PageOptions & { readonly peer?: string; readonly result?: string }>(run, session, {
    use: 'list',
    does: 'Lists runs, newest first',
    examples: ['syncline run list', 'syncline run list --peer hub --result error --limit 10'],
    options: (command) =>
      pageOptions(command)
        .option('--peer <peer>', 'only those with this peer')
        .option('--result <result>', 'only those that ended so: success, warning, error, fatal'),
    run: async ({ site, out }, { peer, result, limit, cursor }) => {
      const page = await (await site()).get<Page<RunEntry>>('/runs', { peer, result, limit, cursor })
      await out.result(page, () => runTable(out, page.items))
    },
  })

  verb<object, [string]>(run, session, {
    use: 'show <id>',
    does: 'Shows a run and what it did, step by step',
    examples: ['syncline run show 42'],
    run: async ({ site, out }, _options, id) => {
      const api = await site()
      const found = await api.get<RunEntry>(path`/runs/${id}`)
      const { items } = await api.get<Page<LogEntry>>('/log', { run: id, limit: ENTRIES_SHOWN })
      await out.result({ ...found, log: items }, () =>
        [runText(found), '', ...items.toReversed().map((entry) => logLine(out, entry))].join('\n'),
      )
    },
  })

  addUndo(run, session)
}
