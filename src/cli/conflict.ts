import type { Conflict } from '../store/index.ts'
import type { Json } from '../sync/index.ts'
import { type Page, path } from './api.ts'
import { noun, type PageOptions, pageOptions, type Register, verb } from './command.ts'
import type { Output } from './output.ts'
import { ago, cell, fields, time } from './text.ts'

/** `conflict …`: two sites changed one record, and a person is to decide. */
export const conflict: Register = (program, session) => {
  const conflict = noun(program, 'conflict', 'Conflicts that wait for a decision')

  verb<PageOptions & { readonly peer?: string; readonly resource?: string; readonly settled?: boolean }>(
    conflict,
    session,
    {
      use: 'list',
      does: 'Lists the conflicts that wait, newest first',
      examples: ['syncline conflict list', 'syncline conflict list --resource city --settled'],
      options: (command) =>
        pageOptions(command)
          .option('--peer <peer>', 'only those with this peer')
          .option('--resource <resource>', 'only those of this resource')
          .option('--settled', 'those that were decided instead'),
      run: async ({ site, out }, { peer, resource, settled, limit, cursor }) => {
        const query = { peer, resource, open: settled !== true, limit, cursor }
        const page = await (await site()).get<Page<Conflict>>('/conflicts', query)
        await out.result(page, () =>
          page.items.length === 0
            ? 'No conflicts.'
            : out.table(
                ['ID', 'OPENED', 'PEER', 'RESOURCE', 'RECORD', 'DIFFERS IN'],
                page.items.map((each) => [
                  each.id,
                  ago(each.openedAt, Date.now()),
                  cell(each.peer),
                  each.resource,
                  cell(each.recordId),
                  differing(each).map(cell).join(', '),
                ]),
              ),
        )
      },
    },
  )

  verb<object, [string]>(conflict, session, {
    use: 'show <id>',
    does: 'Shows both versions of a record, field by field',
    examples: ['syncline conflict show 12'],
    run: async ({ site, out }, _options, id) => {
      const found = await (await site()).get<Conflict>(path`/conflicts/${id}`)
      await out.result(found, async () => [describe(found), '', await comparison(out, found)].join('\n'))
    },
  })

  verb<{ readonly comment?: string }, [string, string]>(conflict, session, {
    use: 'resolve <id> <side>',
    does: 'Decides for ours or theirs; the decision is a new version that wins everywhere, the losing values stay in history',
    examples: [
      'syncline conflict resolve 12 theirs',
      'syncline conflict resolve 12 ours --comment "counted again on site"',
    ],
    options: (command) => command.option('--comment <text>', 'why, for those who look later'),
    run: async ({ site, out }, { comment }, id, side) => {
      const body = { take: side, comment }
      const settled = await (await site()).send<Conflict>('POST', path`/conflicts/${id}/resolve`, { body })
      await out.result(settled, () => `Conflict ${id}: ${cell(settled.recordId)} of ${settled.resource} keeps ${side}.`)
    },
  })
}

/** Columns in which the two sides differ; `deleted` where only one of them has a record. */
function differing({ ours, theirs }: Conflict): readonly string[] {
  if (ours.data === null || theirs.data === null) return ours.data === theirs.data ? [] : ['deleted']
  return columnsOf(ours.data, theirs.data).filter(
    (name) => JSON.stringify(ours.data?.[name]) !== JSON.stringify(theirs.data?.[name]),
  )
}

type Values = Readonly<Record<string, Json>>

function columnsOf(ours: Values | null, theirs: Values | null): readonly string[] {
  return [...new Set([...Object.keys(ours ?? {}), ...Object.keys(theirs ?? {})])]
}

function describe(found: Conflict): string {
  return fields([
    ['conflict', found.id],
    ['resource', found.resource],
    ['record', found.recordId],
    ['peer', found.peer],
    ['opened', time(found.openedAt)],
    [
      'settled',
      found.resolvedAt === null ? undefined : `${time(found.resolvedAt)} by ${found.resolvedBy}: ${found.resolution}`,
    ],
    ['comment', found.comment ?? undefined],
  ])
}

/** Fields that differ are marked, without relying on colour. */
function comparison(out: Output, found: Conflict): Promise<string> {
  const { ours, theirs } = found
  const different = new Set(differing(found))
  const value = (data: Values | null, name: string) => (data === null ? '(deleted)' : cell(data[name]))
  const rows = columnsOf(ours.data, theirs.data).map((name) => {
    const marked = different.has(name) || different.has('deleted')
    return [marked ? '*' : '', cell(name), value(ours.data, name), value(theirs.data, name)].map((text) =>
      marked ? out.paint('yellow', text) : text,
    )
  })
  return out.table(['', 'FIELD', 'OURS', 'THEIRS'], [['', 'written', clock(ours), clock(theirs)], ...rows])
}

function clock({ version }: Conflict['ours']): string {
  return time(new Date(version.clock / 1000).toISOString())
}
