import type { Command } from 'commander'
import type { Task } from '../store/index.ts'
import { SynclineError } from '../sync/index.ts'
import { type Api, path } from './api.ts'
import { list, noun, type Register, seconds, verb } from './command.ts'
import { EXIT, type ExitCode } from './exit.ts'
import type { Output } from './output.ts'
import { pairsOf, several, writtenValue } from './pairs.ts'
import { type Preview, previewText, previewWaits } from './preview-text.ts'
import { cell, duration, plain } from './text.ts'

type Answer = Task & { readonly warnings?: readonly string[] }

type Settings = {
  readonly mode?: string
  readonly filter?: string | false
  readonly columns?: readonly string[] | false
  readonly onConflict?: string
  readonly master?: string
  readonly field?: readonly string[]
  readonly force?: boolean
  readonly onLeft?: string
  readonly maxDeletes?: string
  readonly maxChanges?: string
  readonly emptyGuard?: string
  readonly canary?: string | false
  readonly map?: readonly string[]
  readonly constant?: readonly string[]
  readonly omit?: readonly string[]
  readonly mapping?: boolean
  readonly schedule?: string | false
  readonly every?: number
  readonly live?: boolean
}

/** `task …`: what is synced with whom, how and when. */
export const task: Register = (program, session) => {
  const task = noun(program, 'task', 'What is synced with whom, how and when')

  verb<Settings & { readonly mode: string }, [string, string]>(task, session, {
    use: 'add <peer> <resource>',
    does: 'Syncs a resource with a peer from now on',
    examples: [
      'syncline task add hub city --mode both --every 5m',
      `syncline task add hub city --mode pull --filter "country = 'AT'" --schedule "0 3 * * *"`,
      'syncline task add hub city --mode push --columns name,population --live',
      'syncline task add hub item --mode both --on-conflict merge --field stock=sum --field price=greatest',
    ],
    options: (command) =>
      settingOptions(command.requiredOption('--mode <mode>', 'pull, push or both, as seen from this site')),
    run: async ({ site, out }, options, peer, resource) => {
      const body = { peer, resource, ...settingsOf(options), force: options.force }
      const made = await (await site()).send<Answer>('POST', '/tasks', { body })
      await out.result(made, () => `Task ${made.id}: ${sentence(made)}.${warned(made)}`)
    },
  })

  verb<{ readonly peer?: string; readonly resource?: string }>(task, session, {
    use: 'list',
    does: 'Lists the tasks',
    examples: ['syncline task list', 'syncline task list --peer hub'],
    options: (command) =>
      command
        .option('--peer <peer>', 'only those with this peer')
        .option('--resource <resource>', 'only those of this resource'),
    run: async ({ site, out }, { peer, resource }) => {
      const items = await (await site()).all<Task>('/tasks', { peer, resource })
      await out.result({ items }, () =>
        out.table(
          ['ID', 'PEER', 'RESOURCE', 'MODE', 'WHEN', 'ON CONFLICT', 'COLUMNS', 'FILTER'],
          items.map((each) => [
            String(each.id),
            cell(each.peer),
            each.resource,
            each.mode,
            each.enabled ? when(each.schedule) : 'disabled',
            policyText(each),
            each.columns === null ? 'all' : cell(each.columns.join(',')),
            cell(each.filter),
          ]),
        ),
      )
    },
  })

  verb<
    Settings & { readonly enable?: boolean; readonly disable?: boolean; readonly preview?: boolean },
    [string, string | undefined]
  >(task, session, {
    use: 'set <task> [resource]',
    does: 'Changes a task, named by its id or by peer and resource; what is not given stays',
    examples: [
      'syncline task set 3 --every 15m',
      'syncline task set hub city --on-conflict ask --no-filter',
      'syncline task set hub city --map population=inhabitants --constant country=AT --omit notes',
      'syncline task set 3 --disable',
      'syncline task set hub city --max-deletes 100,5% --canary AT',
      `syncline task set hub city --filter "country = 'AT'" --preview`,
    ],
    options: (command) =>
      settingOptions(command.option('--mode <mode>', 'pull, push or both'))
        .option('--no-filter', 'all records')
        .option('--no-columns', 'all columns')
        .option('--no-mapping', 'every column by its own name')
        .option('--no-schedule', 'only by hand')
        .option('--no-canary', 'no canary')
        .option(
          '--preview',
          'tell what the task would do with these settings, here and at the peer, and keep the old ones',
        )
        .option('--enable', 'run it again')
        .option('--disable', 'do not run it until it is enabled'),
    run: async ({ site, out }, options, ref, resource) => {
      const { enable, disable, preview } = options
      if (enable === true && disable === true) throw contradiction('--enable', '--disable')
      const api = await site()
      const id = await idOf(api, ref, resource)
      if (preview === true) return showPreview(api, out, id, settingsOf(options))
      const enabled = enable === true ? true : disable === true ? false : undefined
      const body = { ...settingsOf(options), enabled, force: options.force }
      const changed = await api.send<Answer>('PATCH', path`/tasks/${id}`, { body })
      await out.result(changed, () => `Task ${changed.id}: ${sentence(changed)}.${warned(changed)}`)
    },
  })

  verb<object, [string, string | undefined]>(task, session, {
    use: 'remove <task> [resource]',
    does: 'Ends a task, named by its id or by peer and resource; records stay on both sites',
    examples: ['syncline task remove 3', 'syncline task remove hub city'],
    run: async ({ site, out }, _options, ref, resource) => {
      const api = await site()
      const id = await idOf(api, ref, resource)
      await api.send('DELETE', path`/tasks/${id}`)
      await out.result({ removed: id }, () => `Task ${id} is removed.`)
    },
  })
}

function settingOptions(command: Command): Command {
  return command
    .option('--filter <filter>', `only records that match, such as "population > 1000 and country = 'AT'"`)
    .option('--columns <columns>', 'only these columns, separated by commas', list)
    .option(
      '--on-conflict <policy>',
      'what wins when both sites changed a record: newer, mine, theirs, master, merge, ask; or in the words of Sahana Eden: NEWER, THIS, OTHER, MASTER',
    )
    .option(
      '--field <name=rule>',
      'with merge: what becomes of a field that both changed: newer, mine, theirs, greatest, least, sum, union, site, ask; may be repeated',
      several,
    )
    .option(
      '--master <uuid>',
      'the site whose word counts, with --on-conflict master, or for fields with the rule site',
    )
    .option('--force', 'also with a policy that contradicts the one of the peer')
    .option('--on-left <what>', 'what becomes of a record here that leaves the filter of the peer: keep or remove')
    .option(
      '--max-deletes <limit>',
      'most records one run deletes without a person: 100, 5%, 100,5% (whichever is more), none, usual',
    )
    .option('--max-changes <limit>', 'most records that one run gives other values without a person')
    .option('--empty-guard <on|off>', 'stop when the peer has nothing any more of what many are here of', onOff)
    .option('--canary <id>', 'a record that must live at the peer, or the run stops')
    .option(
      '--map <theirs=ours>',
      'a column of the peer that has another name here; may be repeated, and replaces those of before',
      several,
    )
    .option(
      '--constant <column=value>',
      'a column with a fixed value, here when records come in, at the peer when they go out; may be repeated',
      several,
    )
    .option('--omit <column>', 'a column that neither comes in nor goes out; may be repeated', several)
    .option('--schedule <cron>', 'when to run: five or six cron fields in UTC, such as "*/10 * * * *"')
    .option('--every <duration>', 'run at this interval, such as 90s, 5m or 1h', seconds)
    .option('--live', 'run whenever something changed, here or there')
}

/** Absent keeps what is there, null takes it away. */
function settingsOf(options: Settings): Record<string, unknown> {
  const { mode, filter, columns, onConflict, master, field, onLeft, schedule, every, live } = options
  const { maxDeletes, maxChanges, emptyGuard, canary, map, constant, omit, mapping } = options
  if (typeof filter === 'string' && filter.trim() === '')
    throw new SynclineError('SYNC_REQUEST_INVALID', '--filter is empty; --no-filter takes the filter of a task away')
  const constants = pairsOf('--constant', constant)
  const mapped = {
    rename: pairsOf('--map', map),
    constant:
      constants && Object.fromEntries(Object.entries(constants).map(([name, text]) => [name, writtenValue(text)])),
    omit,
  }
  const given = [schedule !== undefined && '--schedule', every !== undefined && '--every', live === true && '--live']
  const [first, second] = given.filter((flag) => flag !== false)
  if (first !== undefined && second !== undefined) throw contradiction(first, second)
  const timing =
    schedule === false
      ? null
      : schedule !== undefined
        ? `cron:${schedule.trim().replace(/\s+/g, ' ')}`
        : every !== undefined
          ? `every:${every}`
          : live === true
            ? 'live'
            : undefined
  return {
    mode,
    filter: filter === false ? null : filter,
    columns: columns === false ? null : columns,
    onConflict,
    master,
    fields: pairsOf('--field', field),
    onLeft,
    maxDeletes: usual(maxDeletes),
    maxChanges: usual(maxChanges),
    emptyGuard: emptyGuard === undefined ? undefined : emptyGuard === 'on',
    canary: canary === false ? null : canary,
    mapping: mapping === false ? null : (map ?? constant ?? omit) ? mapped : undefined,
    schedule: timing,
  }
}

/** `usual` takes a limit of its own away. */
function usual(limit: string | undefined): string | null | undefined {
  return limit === 'usual' ? null : limit
}

function onOff(text: string): string {
  if (text === 'on' || text === 'off') return text
  throw new SynclineError('SYNC_REQUEST_INVALID', `"${text}" is neither on nor off`)
}

/** What can be tried before it is kept; the rest, such as a schedule, changes no record. */
const TRIED = ['mode', 'filter', 'columns', 'onConflict', 'master', 'fields', 'onLeft'] as const

async function showPreview(api: Api, out: Output, id: string, settings: Record<string, unknown>): Promise<ExitCode> {
  const body = Object.fromEntries(TRIED.map((name) => [name, settings[name]]))
  const preview = await api.send<Preview>('POST', path`/tasks/${id}/preview`, { body, patient: true })
  await out.result(preview, () => previewText(out, preview))
  return previewWaits(preview) ? EXIT.waiting : EXIT.done
}

function contradiction(one: string, other: string): SynclineError {
  return new SynclineError('SYNC_REQUEST_INVALID', `${one} and ${other} say different things; give one of them`)
}

/** Id of a task that a person named by its id, or by peer and resource. */
async function idOf(api: Api, ref: string, resource: string | undefined): Promise<string> {
  if (resource === undefined && /^\d+$/.test(ref)) return ref
  if (resource === undefined)
    throw new SynclineError('SYNC_REQUEST_INVALID', `"${ref}" is no id of a task; give an id, or a peer and a resource`)
  const [found] = await api.all<Task>('/tasks', { peer: ref, resource })
  if (found !== undefined) return String(found.id)
  throw new SynclineError('SYNC_REQUEST_NOT_FOUND', `there is no task with peer "${ref}" for resource "${resource}"`)
}

/** The policy with the rules of its fields. */
function policyText({ onConflict, fields }: Task): string {
  const rules = Object.entries(fields).map(([field, rule]) => `${field}=${rule}`)
  return cell([onConflict, ...rules].join(' '))
}

/** What is doubtful about the policy beside that of the peer. */
function warned({ warnings = [] }: { readonly warnings?: readonly string[] }): string {
  return warnings.map((warning) => `\n  note: ${plain(warning)}`).join('')
}

function sentence(task: Task): string {
  const what = { pull: 'pulls', push: 'pushes', both: 'pulls and pushes' }[task.mode]
  return `${what} ${cell(task.resource)} ${task.mode === 'pull' ? 'from' : 'with'} ${cell(task.peer)}, ${task.enabled ? when(task.schedule) : 'disabled'}`
}

/** A schedule in words. */
export function when(schedule: string | null): string {
  if (schedule === null) return 'by hand'
  const every = /^every:(\d+)$/.exec(schedule)?.[1]
  return every === undefined ? cell(schedule.replace(/^cron:/, '')) : `every ${duration(Number(every) * 1000)}`
}
