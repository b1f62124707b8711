import { type Command, InvalidArgumentError, Option } from 'commander'
import type { FolderFile } from '../store/index.ts'
import { FOLDER_AFTER, FOLDER_FORMATS, FOLDER_LAYOUTS, type FolderSettings } from '../sync/index.ts'
import { path } from './api.ts'
import { noun, type Register, seconds, verb } from './command.ts'
import { ago, cell, fields } from './text.ts'

/** What a folder is set up with, as options of a command. */
export type FolderOptions = {
  readonly path?: string
  readonly format?: string
  readonly readFormat?: string | false
  readonly read?: string | false
  readonly write?: string | false
  readonly layout?: string
  readonly readable?: boolean
  readonly after?: string
  readonly done?: string
  readonly quarantine?: string
  readonly settle?: number
}

/** The options of `peer add --type folder` and `folder set`. */
export function folderOptions(command: Command): Command {
  const group = (option: Option) => command.addOption(option.helpGroup('A folder:'))
  group(new Option('--path <folder>', 'the folder, absolute; the setting folderRoots must allow it'))
  group(new Option('--format <format>', 'of its files').choices(FOLDER_FORMATS))
  group(new Option('--read-format <format>', 'where files are read in another format').choices(FOLDER_FORMATS))
  group(new Option('--read <pattern>', `files that are read, such as "in/*.xml" or "in/\${resource}-*.csv"`))
  group(
    new Option('--write <template>', `names of files that are written, such as "out/\${resource}-\${timestamp}.xml"`),
  )
  group(
    new Option('--layout <layout>', 'one file for each resource, for all of them, or for each record').choices(
      FOLDER_LAYOUTS,
    ),
  )
  group(new Option('--readable', 'written with line breaks and indents'))
  group(new Option('--after <what>', 'what becomes of files that were taken').choices(FOLDER_AFTER))
  group(new Option('--done <folder>', 'where taken files are moved to, below the folder'))
  group(new Option('--quarantine <folder>', 'where files go that cannot be read, below the folder'))
  group(
    new Option(
      '--settle <duration>',
      'how long a file must not have changed before it is read; 0 for not at all',
    ).argParser(settle),
  )
  return command
}

/** Settings of a folder in a request; absent ones are left out, and null takes one away. */
export function folderBody(options: FolderOptions): Record<string, unknown> {
  const { path: folder, format, readFormat, read, write, layout, readable, after, done, quarantine } = options
  const taken = (value: string | false | undefined) => (value === false ? null : value)
  return {
    ...{ path: folder, format, layout, readable, after, done, quarantine, settleSeconds: options.settle },
    ...{ readFormat: taken(readFormat), read: taken(read), write: taken(write) },
  }
}

function settle(text: string): number {
  if (text === '0') return 0
  const found = seconds(text)
  if (found > 3600) throw new InvalidArgumentError('It must be an hour at most.')
  return found
}

/** `folder …`: peers that are folders. */
export const folder: Register = (program, session) => {
  const folder = noun(program, 'folder', 'Peers that are folders: files instead of a site')

  verb<object, [string]>(folder, session, {
    use: 'show <peer>',
    does: 'Shows how a folder is read and written',
    examples: ['syncline folder show ngo'],
    run: async ({ site, out }, _options, ref) => {
      const found = await (await site()).get<FolderSettings>(path`/peers/${ref}/folder`)
      await out.result(found, () => describe(found))
    },
  })

  verb<FolderOptions, [string]>(folder, session, {
    use: 'set <peer>',
    does: 'Changes how a folder is read and written; what is not given stays',
    examples: ['syncline folder set ngo --after move', 'syncline folder set ngo --no-write --no-readable'],
    options: (command) =>
      folderOptions(command)
        .option('--no-read', 'nothing is read any more')
        .option('--no-write', 'nothing is written any more')
        .option('--no-read-format', 'files are read in the format that they are written in')
        .option('--no-readable', 'written without line breaks'),
    run: async ({ site, out }, options, ref) => {
      const changed = await (await site()).send<FolderSettings>('PATCH', path`/peers/${ref}/folder`, {
        body: folderBody(options),
      })
      await out.result(changed, () => describe(changed))
    },
  })

  verb<{ readonly state?: string; readonly limit: string }, [string]>(folder, session, {
    use: 'files <peer>',
    does: 'Lists files that were seen in a folder: what waits, what was taken, what cannot be read',
    examples: ['syncline folder files ngo', 'syncline folder files ngo --state refused --json'],
    options: (command) =>
      command
        .addOption(
          new Option('--state <state>', 'only these').choices(['new', 'waiting', 'taken', 'refused', 'changed']),
        )
        .option('--limit <n>', 'at most this many', '50'),
    run: async ({ site, out }, { state, limit }, ref) => {
      const query = new URLSearchParams({ limit, ...(state !== undefined && { state }) })
      const found = await (await site()).get<{ readonly items: readonly FolderFile[] }>(
        `${path`/peers/${ref}/folder/files`}?${query}`,
      )
      const now = Date.now()
      await out.result(found, () =>
        out.table(
          ['FILE', 'STATE', 'RECORDS', 'SEEN', 'REASON'],
          found.items.map((each) => [
            cell(each.name),
            stateOf(each),
            recordsOf(each),
            ago(each.seenAt, now),
            cell(each.reason),
          ]),
        ),
      )
    },
  })

  verb<object, [string, string[]]>(folder, session, {
    use: 'dump <peer> [resource...]',
    does: 'Writes everything that is pushed to a folder into new files',
    more: 'A run writes only what changed since the last one; this is for the beginning, or after files were lost.',
    examples: ['syncline folder dump ngo', 'syncline folder dump ngo org_office'],
    run: async ({ site, out }, _options, ref, resources) => {
      const body = resources.length === 0 ? {} : { resources }
      const done = await (await site()).send<{ readonly files: number; readonly records: number }>(
        'POST',
        path`/peers/${ref}/folder/dump`,
        { body },
      )
      await out.result(done, () => `${done.records} records are in ${done.files} files.`)
    },
  })
}

function describe(found: FolderSettings): string {
  const { read, write, readFormat, format, after, done } = found
  return fields([
    ['folder', found.path],
    ['reads', read === null ? 'nothing' : `${readFormat ?? format} from ${read}`],
    [
      'then',
      read === null ? undefined : after === 'move' ? `moved to ${done}` : after === 'delete' ? 'deleted' : 'kept',
    ],
    ['unreadable', read === null ? undefined : `moved to ${found.quarantine}`],
    ['settles', read === null ? undefined : `${found.settleSeconds} s`],
    ['writes', write === null ? 'nothing' : `${format}${found.readable ? ', readable,' : ''} to ${write}`],
    [
      'one file for',
      write === null
        ? undefined
        : { resource: 'each resource', all: 'all resources', record: 'each record' }[found.layout],
    ],
  ])
}

function stateOf({ state, gone }: FolderFile): string {
  return gone && state !== 'taken' ? `${state}, no longer there` : state
}

function recordsOf({ resources }: FolderFile): string {
  return cell(
    Object.entries(resources)
      .map(([name, count]) => `${count} ${name}`)
      .join(', '),
  )
}
