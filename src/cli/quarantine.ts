import type { QuarantineEntry } from '../store/index.ts'
import { type Page, path } from './api.ts'
import { noun, type PageOptions, pageOptions, type Register, verb } from './command.ts'
import { EXIT } from './exit.ts'
import { ago, cell, fields, time, until } from './text.ts'

type Retried = { readonly applied: boolean; readonly entry: QuarantineEntry | null }

/** `quarantine …`: records that could not be applied and wait, each with its reason. */
export const quarantine: Register = (program, session) => {
  const quarantine = noun(program, 'quarantine', 'Records that could not be applied')

  verb<PageOptions & { readonly peer?: string; readonly resource?: string }>(quarantine, session, {
    use: 'list',
    does: 'Lists the records that wait, newest first',
    examples: ['syncline quarantine list', 'syncline quarantine list --peer hub --resource city'],
    options: (command) =>
      pageOptions(command)
        .option('--peer <peer>', 'only those from this peer')
        .option('--resource <resource>', 'only those of this resource'),
    run: async ({ site, out }, { peer, resource, limit, cursor }) => {
      const page = await (await site()).get<Page<QuarantineEntry>>('/quarantine', { peer, resource, limit, cursor })
      const now = Date.now()
      await out.result(page, () =>
        page.items.length === 0
          ? 'Nothing in quarantine.'
          : out.table(
              ['ID', 'SINCE', 'PEER', 'RESOURCE', 'RECORD', 'AGAIN', 'WHY'],
              page.items.map((each) => [
                each.id,
                ago(each.firstAt, now),
                cell(each.peer),
                each.resource,
                cell(each.recordId),
                until(each.retryAt, now),
                cell(each.reason),
              ]),
            ),
      )
    },
  })

  verb<object, [string]>(quarantine, session, {
    use: 'show <id>',
    does: 'Shows a record that waits, why, and what it waits for',
    examples: ['syncline quarantine show 5'],
    run: async ({ site, out }, _options, id) => {
      const found = await (await site()).get<QuarantineEntry>(path`/quarantine/${id}`)
      await out.result(found, () => describe(found))
    },
  })

  verb<object, [string]>(quarantine, session, {
    use: 'retry <id>',
    does: 'Tries a record again now',
    examples: ['syncline quarantine retry 5'],
    run: async ({ site, out }, _options, id) => {
      const answer = await (await site()).send<Retried>('POST', path`/quarantine/${id}/retry`)
      await out.result(answer, () =>
        answer.applied ? `Record ${id} is applied.` : `Record ${id} waits on: ${cell(answer.entry?.reason)}`,
      )
      return answer.applied ? EXIT.done : EXIT.waiting
    },
  })

  verb<object, [string]>(quarantine, session, {
    use: 'discard <id>',
    does: 'Gives up a record that waits; its values stay in history',
    examples: ['syncline quarantine discard 5'],
    run: async ({ site, out }, _options, id) => {
      await (await site()).send('DELETE', path`/quarantine/${id}`)
      await out.result({ discarded: id }, () => `Record ${id} is discarded.`)
    },
  })
}

function describe(found: QuarantineEntry): string {
  const { waitsFor } = found
  return fields([
    ['id', found.id],
    ['peer', found.peer],
    ['resource', found.resource],
    ['record', found.recordId],
    ['why', found.reason],
    ['code', found.code],
    ['waits for', waitsFor === null ? undefined : `${waitsFor.resource} ${waitsFor.id ?? ''}`.trimEnd()],
    ['first', time(found.firstAt)],
    ['last', `${time(found.lastAt)}, attempt ${found.attempts}`],
    ['again', until(found.retryAt, Date.now())],
  ])
}
