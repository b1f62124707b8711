import { writeFile } from 'node:fs/promises'
import { Option } from 'commander'
import type { QuarantineEntry as Kept } from '../store/index.ts'
import { type Json, SynclineError } from '../sync/index.ts'
import { type Api, type Page, path } from './api.ts'
import { noun, type PageOptions, pageOptions, type Register, verb } from './command.ts'
import { EXIT } from './exit.ts'
import { ago, cell, fields, plural, time, until } from './text.ts'

/** An entry as the API shows it, from either side. */
export type QuarantineEntry = Omit<Kept, 'via' | 'line' | 'header'> & {
  readonly side: Side
  readonly outcome: 'quarantined' | 'refused' | 'discarded'
  readonly via: 'pull' | 'push' | null
  readonly discarded: { readonly by: string; readonly because: string | null } | null
  readonly change: Readonly<Record<string, Json>> | null
}

type Side = 'here' | 'there'
type Retried = { readonly applied: boolean; readonly entry: QuarantineEntry | null }
type Which = { readonly peer?: string | undefined; readonly resource?: string | undefined }

const sideOption = () =>
  new Option('--side <side>', 'what waits here, or at peers of what was sent').choices(['here', 'there'])

/** `quarantine …`: records that could not be applied and wait, each with its reason, on both sides. */
export const quarantine: Register = (program, session) => {
  const quarantine = noun(program, 'quarantine', 'Records that could not be applied')

  verb<PageOptions & Which & { readonly side?: Side }>(quarantine, session, {
    use: 'list',
    does: 'Lists the records that wait here and, of what was sent, at peers; newest first',
    examples: [
      'syncline quarantine list',
      'syncline quarantine list --peer hub --resource city',
      'syncline quarantine list --side there',
    ],
    options: (command) =>
      pageOptions(command)
        .addOption(sideOption())
        .option('--peer <peer>', 'only those from this peer, or at it')
        .option('--resource <resource>', 'only those of this resource'),
    run: async ({ site, out }, { side, peer, resource, limit, cursor }) => {
      const api = await site()
      // A place in one list means nothing in the other.
      const sides: readonly Side[] = side !== undefined ? [side] : cursor === undefined ? ['here', 'there'] : ['here']
      const pages = await Promise.all(
        sides.map((each) =>
          api.get<Page<QuarantineEntry>>('/quarantine', { peer, resource, limit, cursor, side: each }),
        ),
      )
      const [first] = pages
      const items = pages.flatMap((page) => page.items)
      const now = Date.now()
      await out.result({ items, next: first?.next ?? null }, () =>
        items.length === 0
          ? 'Nothing in quarantine.'
          : out.table(
              ['ID', 'SIDE', 'SINCE', 'PEER', 'RESOURCE', 'RECORD', 'WAIT ON IT', 'AGAIN', 'WHY'],
              items.map((each) => [
                each.id,
                each.side,
                ago(each.firstAt, now),
                cell(each.peer),
                each.resource,
                cell(each.recordId),
                each.dependants === 0 ? '-' : String(each.dependants),
                each.outcome === 'quarantined' ? until(each.retryAt, now) : each.outcome,
                cell(whyOf(each)),
              ]),
            ),
      )
    },
  })

  verb<{ readonly side?: Side }, [string]>(quarantine, session, {
    use: 'show <id>',
    does: 'Shows a record that waits, why, and what it waits for',
    examples: ['syncline quarantine show 5', 'syncline quarantine show 7 --side there'],
    options: (command) => command.addOption(sideOption()),
    run: async ({ site, out }, { side }, id) => {
      const found = await (await site()).get<QuarantineEntry>(path`/quarantine/${id}`, { side })
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

  verb<{ readonly because?: string }, [string]>(quarantine, session, {
    use: 'discard <id>',
    does: 'Gives up a record that waits; its values stay in history, and its site is told',
    examples: ['syncline quarantine discard 5 --because "entered twice"'],
    options: (command) => command.option('--because <reason>', 'why, for the log and for the site it came from'),
    run: async ({ site, out }, { because }, id) => {
      await (await site()).send('DELETE', path`/quarantine/${id}`, { query: { because } })
      await out.result({ discarded: id }, () => `Record ${id} is discarded.`)
    },
  })

  verb<Which & { readonly full?: boolean }, [string, string | undefined]>(quarantine, session, {
    use: 'export <resource> [file]',
    does: 'Writes the records that wait here as NDJSON, as they came',
    more: '`syncline record import` takes them when they are mended. With --full each line has the whole entry: reason, attempts and version too.',
    examples: ['syncline quarantine export city waiting.ndjson', 'syncline quarantine export city --peer hub --full'],
    options: (command) =>
      command
        .option('--peer <peer>', 'only those from this peer')
        .option('--full', 'the whole entry, not only the record'),
    run: async ({ site, out }, { peer, full }, resource, file) => {
      const { lines, unreadable } = await exported(await site(), { resource, peer }, full === true)
      const text = lines.map((line) => `${JSON.stringify(line)}\n`).join('')
      if (file === undefined || file === '-') await out.stream(oneChunk(text))
      else await writeFile(file, text)
      if (unreadable > 0)
        out.note(`${plural(unreadable, 'record')} cannot be read and left out; --full has the reason.`)
      if (file !== undefined && file !== '-') out.note(`${plural(lines.length, 'record')} written to ${file}.`)
    },
  })
}

/** A record without its version: who imports it makes it a write of that site. */
async function exported(api: Api, which: Which, full: boolean) {
  const entries = await api.all<QuarantineEntry>('/quarantine', { ...which, side: 'here' })
  if (entries.length === 0)
    throw new SynclineError('SYNC_REQUEST_NOT_FOUND', `no record of "${which.resource}" waits in quarantine`)
  if (full) return { lines: entries, unreadable: 0 }
  const changes = entries.flatMap(({ change }) => (change === null ? [] : [change]))
  return { lines: changes.map(({ version: _, ...change }) => change), unreadable: entries.length - changes.length }
}

async function* oneChunk(text: string): AsyncIterable<Uint8Array> {
  yield Buffer.from(text)
}

function whyOf({ discarded, peer, reason }: QuarantineEntry): string {
  if (discarded === null) return reason
  const because = discarded.because === null ? '' : ` because ${discarded.because}`
  return `discarded at ${peer} by ${discarded.by}${because}; it waited: ${reason}`
}

function describe(found: QuarantineEntry): string {
  const { waitsFor, discarded } = found
  return fields([
    ['id', found.id],
    ['side', found.side === 'here' ? 'here' : `at ${found.peer}`],
    ['peer', found.peer],
    ['resource', found.resource],
    ['record', found.recordId],
    ['why', found.reason],
    ['code', found.code],
    ['waits for', waitsFor === null ? undefined : `${waitsFor.resource} ${waitsFor.id ?? ''}`.trimEnd()],
    ['wait on it', found.dependants === 0 ? undefined : plural(found.dependants, 'record')],
    ['discarded', discarded === null ? undefined : whyOf(found)],
    ['first', time(found.firstAt)],
    ['last', `${time(found.lastAt)}, attempt ${found.attempts}`],
    ['again', found.outcome === 'quarantined' ? until(found.retryAt, Date.now()) : undefined],
  ])
}
