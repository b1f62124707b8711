import type { BulkOutcome, Conflict } from '../store/index.ts'
import { type Json, SynclineError } from '../sync/index.ts'
import { type Api, type Page, path } from './api.ts'
import { noun, type PageOptions, pageOptions, type Register, verb } from './command.ts'
import { EXIT } from './exit.ts'
import type { Output } from './output.ts'
import { pairsOf, several, writtenValue } from './pairs.ts'
import { ago, cell, fields, plain, plural, time, valueText } from './text.ts'

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
    does: 'Shows a record as both sides had it and as each has it now, field by field, with who wrote it when',
    examples: ['syncline conflict show 12'],
    run: async ({ site, out }, _options, id) => {
      const found = await (await site()).get<Conflict>(path`/conflicts/${id}`)
      await out.result(found, async () => [describe(found), '', await comparison(out, found)].join('\n'))
    },
  })

  verb<ResolveOptions, [string | undefined, string | undefined]>(conflict, session, {
    use: 'resolve [id] [side]',
    does: 'Decides for ours or theirs, for the record or by field, or for other values',
    more:
      'The decision is a new version that wins everywhere; the losing values stay in history. Without a side, fields that are not named are ours. ' +
      'With --all it decides every conflict that matches, after showing how many these are.',
    examples: [
      'syncline conflict resolve 12 theirs',
      'syncline conflict resolve 12 ours --comment "counted again on site"',
      'syncline conflict resolve 12 --field name=theirs --field beds=ours --set note=checked',
      'syncline conflict resolve 12 --field price=theirs --rule',
      `syncline conflict resolve theirs --all --peer hub --resource city --filter "country = 'AT'" --yes`,
    ],
    options: (command) =>
      command
        .option('--field <name=side>', 'the side that wins for one field: ours or theirs; may be repeated', several)
        .option('--set <name=value>', 'a value of neither side: text, null, or JSON; may be repeated', several)
        .option('--comment <text>', 'why, for those who look later')
        .option('--rule', 'decide like this from now on: makes it the policy of the task or grant')
        .option('--all', 'all conflicts that wait and match')
        .option('--peer <peer>', 'with --all: only those with this peer')
        .option('--resource <resource>', 'with --all: only those of this resource')
        .option('--filter <filter>', 'with --all: only records that match, as they are here')
        .option('--yes', 'with --all: decide, and not only count'),
    run: async ({ site, out }, options, first, second) => {
      if (options.all === true) {
        if (second !== undefined) throw invalid('with --all no single conflict is named')
        return resolveAll(await site(), out, options, first)
      }
      if (first === undefined) throw invalid('name a conflict by its id, or give --all')
      for (const flag of ['peer', 'resource', 'filter', 'yes'] as const)
        if (options[flag] !== undefined) throw invalid(`--${flag} has a meaning only with --all`)
      const body = choiceOf(options, second)
      const settled = await (await site()).send<Conflict>('POST', path`/conflicts/${first}/resolve`, { body })
      await out.result(
        settled,
        () => `Conflict ${first}: ${cell(settled.recordId)} of ${settled.resource} keeps ${keeps(settled)}.`,
      )
      return EXIT.done
    },
  })
}

type ResolveOptions = {
  readonly field?: readonly string[]
  readonly set?: readonly string[]
  readonly comment?: string
  readonly rule?: boolean
  readonly all?: boolean
  readonly peer?: string
  readonly resource?: string
  readonly filter?: string
  readonly yes?: boolean
}

function choiceOf({ field, set, comment, rule }: ResolveOptions, side: string | undefined) {
  const texts = pairsOf('--set', set)
  const values = texts && Object.fromEntries(Object.entries(texts).map(([name, text]) => [name, writtenValue(text)]))
  return { take: side, fields: pairsOf('--field', field), values, comment, rule }
}

/** Counts first; without --yes that is all. A site settles some hundred at once, so it is asked until none is left. */
async function resolveAll(api: Api, out: Output, options: ResolveOptions, side: string | undefined) {
  const { peer, resource, filter, yes } = options
  const body = { ...choiceOf(options, side), peer, resource, filter }
  const ask = (preview: boolean) => api.send<BulkOutcome>('POST', '/conflicts/resolve', { body: { ...body, preview } })
  const found = await ask(true)
  if (yes !== true || found.matched === 0) {
    await out.result({ ...found, preview: true }, () =>
      found.matched === 0
        ? 'No conflict matches.'
        : `${plural(found.matched, 'conflict')} would be decided. Give --yes to do it.`,
    )
    return EXIT.done
  }
  let resolved = 0
  let last = found
  do {
    last = await ask(false)
    resolved += last.resolved
  } while (last.resolved > 0 && last.matched > last.resolved + last.failed.length)
  const { failed } = last
  await out.result({ matched: found.matched, resolved, failed }, () =>
    [
      `${plural(resolved, 'conflict')} decided.`,
      ...failed.map((each) => `Conflict ${each.id} (${cell(each.recordId)}) stays open: ${plain(each.reason)}`),
    ].join('\n'),
  )
  return failed.length === 0 ? EXIT.done : EXIT.waiting
}

function keeps({ resolution, ours }: Conflict): string {
  if (resolution === 'merged') return 'what was chosen'
  return ours.data === null && resolution === 'ours' ? 'deleted' : String(resolution)
}

function invalid(detail: string): SynclineError {
  return new SynclineError('SYNC_REQUEST_INVALID', detail)
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
  const settled = found.resolvedAt === null ? undefined : `${time(found.resolvedAt)}${by(found)}: ${found.resolution}`
  return fields([
    ['conflict', found.id],
    ['resource', found.resource],
    ['record', found.recordId],
    ['peer', found.peer],
    ['opened', time(found.openedAt)],
    ['updated', found.updatedAt === found.openedAt ? undefined : time(found.updatedAt)],
    ['run', found.runId ?? undefined],
    ['needs', found.fields?.join(', ')],
    ['settled', settled],
    ['comment', found.comment ?? undefined],
  ])
}

const by = ({ resolvedBy }: Conflict) => (resolvedBy === null ? '' : ` by ${resolvedBy}`)

/** Fields that differ are marked, without relying on colour. */
function comparison(out: Output, found: Conflict): Promise<string> {
  const { base, ours, theirs } = found
  const different = new Set(differing(found))
  const value = (data: Values | null, name: string) => (data === null ? '(deleted)' : valueText(data[name]))
  const three = (name: string) => (base === null ? [] : [value(base.data, name)])
  const rows = columnsOf(ours.data, theirs.data).map((name) => {
    const marked = different.has(name) || different.has('deleted')
    return [marked ? '*' : '', cell(name), ...three(name), value(ours.data, name), value(theirs.data, name)].map(
      (text) => (marked ? out.paint('yellow', text) : text),
    )
  })
  const sides = [...(base === null ? [] : [base]), ours, theirs]
  return out.table(
    ['', 'FIELD', ...(base === null ? [] : ['BASE']), 'OURS', 'THEIRS'],
    [['', 'written', ...sides.map(({ at }) => time(at))], ['', 'by', ...sides.map(author)], ...rows],
  )
}

function author({ site, version }: Conflict['ours']): string {
  return cell(site ?? version.origin)
}
