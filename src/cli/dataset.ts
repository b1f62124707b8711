import { SynclineError } from '../sync/index.ts'
import { path } from './api.ts'
import { type Context, noun, type Register, seconds, verb } from './command.ts'
import { several } from './pairs.ts'
import { ago, cell } from './text.ts'

type Dataset = {
  readonly code: string
  readonly name: string
  readonly tables: readonly { readonly resource: string; readonly filter: string | null }[]
  readonly archive: {
    readonly url: string
    readonly madeAt: string
    readonly records: number
    readonly bytes: number
  } | null
}

type Followed = {
  readonly code: string
  readonly name: string
  readonly archive: string | null
  readonly made: readonly string[]
  readonly kept: readonly string[]
  readonly without: readonly string[]
}

/** `dataset …`: tables that Sahana Eden sites publish together. */
export const dataset: Register = (program, session) => {
  const dataset = noun(program, 'dataset', 'Tables that are published together for Sahana Eden sites')

  verb<{ readonly name?: string; readonly comments?: string; readonly table?: readonly string[] }, [string]>(
    dataset,
    session,
    {
      use: 'add <code>',
      does: 'Publishes tables under a code: anybody who can reach this site may read them from its archive',
      more: 'A filter is in Eden’s words. What stands beside records, such as who made them, is not published.',
      examples: [
        'syncline dataset add RELIEF-2026 --name "Relief 2026" --table org_organisation --table org_office',
        'syncline dataset add HARBOURS --table "gis_location=~.name__like=*harbour*"',
      ],
      options: (command) =>
        command
          .option('--table <resource[=filter]>', 'a table of it; may be repeated', several)
          .option('--name <name>', 'for people; default the code')
          .option('--comments <text>', 'what else is to be said'),
      run: async ({ site, out }, { name, comments, table = [] }, code) => {
        const tables = table.map((each) => {
          const [, resource = each, filter] = /^([^=]+)=(.+)$/s.exec(each) ?? []
          return { resource, filter }
        })
        const body = { code, name: name ?? code, comments, tables }
        const made = await (await site()).send<Dataset>('POST', '/datasets', { body })
        await out.result(
          made,
          () => `Data set ${cell(code)} is published. Its archive: syncline dataset archive ${code}`,
        )
      },
    },
  )

  verb(dataset, session, {
    use: 'list',
    does: 'Lists the data sets of this site',
    examples: ['syncline dataset list', 'syncline dataset list --json'],
    run: async ({ site, out }) => {
      const { items } = await (await site()).get<{ readonly items: readonly Dataset[] }>('/datasets')
      const now = Date.now()
      await out.result({ items }, () =>
        out.table(
          ['CODE', 'NAME', 'TABLES', 'ARCHIVE', 'RECORDS'],
          items.map(({ code, name, tables, archive }) => [
            ...[cell(code), cell(name), cell(tables.map(tableText).join(', '))],
            ...(archive === null ? ['none', ''] : [ago(archive.madeAt, now), String(archive.records)]),
          ]),
        ),
      )
    },
  })

  verb<object, [string]>(dataset, session, {
    use: 'archive <code>',
    does: 'Makes the archive of a data set anew',
    more: 'To have it made every night, let a job run this command.',
    examples: ['syncline dataset archive RELIEF-2026'],
    run: async ({ site, out }, _options, code) => {
      const made = await (await site()).send<Dataset>('POST', path`/datasets/${code}/archive`, { patient: true })
      await out.result(
        made,
        () => `${made.archive?.records} records, ${made.archive?.bytes} bytes: ${made.archive?.url}`,
      )
    },
  })

  verb<object, [string]>(dataset, session, {
    use: 'remove <code>',
    does: 'Publishes a data set no longer; its tables stay',
    examples: ['syncline dataset remove RELIEF-2026'],
    run: async ({ site, out }, _options, code) => {
      await (await site()).send('DELETE', path`/datasets/${code}`)
      await out.result({ code }, () => `Data set ${cell(code)} is no longer published.`)
    },
  })

  verb<{ readonly schedule?: string; readonly every?: number }, [string, string]>(dataset, session, {
    use: 'follow <peer> <code>',
    does: 'Pulls the tables of a data set that a Sahana Eden site publishes',
    more: 'Makes a task for each of its tables that is here, with the filters of the data set. The first time records come from its archive, where there is one: look at the address that is printed, as an archive elsewhere is fetched from there, and from nowhere else. To be repeated when the data set has changed.',
    examples: ['syncline dataset follow relief RELIEF-2026', 'syncline dataset follow relief RELIEF-2026 --every 1h'],
    options: (command) =>
      command
        .option('--schedule <cron>', 'when to run: five or six cron fields in UTC')
        .option('--every <duration>', 'run at this interval, such as 5m or 1h', seconds),
    run: async (context, options, peer, code) => {
      const done = await follow(context, options, peer, code)
      await context.out.result(done, () => followedText(done))
    },
  })
}

async function follow(
  { site }: Context,
  { schedule, every }: { readonly schedule?: string; readonly every?: number },
  peer: string,
  code: string,
): Promise<Followed> {
  if (schedule !== undefined && every !== undefined)
    throw new SynclineError('SYNC_REQUEST_INVALID', '--schedule and --every say different things; give one of them')
  const timing =
    schedule === undefined
      ? every === undefined
        ? null
        : `every:${every}`
      : `cron:${schedule.trim().replace(/\s+/g, ' ')}`
  return (await site()).send<Followed>('POST', path`/peers/${peer}/datasets`, { body: { code, schedule: timing } })
}

function followedText({ name, archive, made, kept, without }: Followed): string {
  const lines = [
    ...(made.length > 0 ? [`Pulled from now on: ${cell(made.join(', '))}.`] : []),
    ...(kept.length > 0 ? [`Pulled before: ${cell(kept.join(', '))}.`] : []),
    ...(without.length > 0
      ? [`Not here: ${cell(without.join(', '))}. To make them: syncline resource create --from-eden`]
      : []),
    archive === null ? 'It has no archive: the first run pulls everything.' : `Its archive: ${cell(archive)}`,
  ]
  return [`Data set ${cell(name)}.`, ...lines].join('\n')
}

function tableText({ resource, filter }: Dataset['tables'][number]): string {
  return filter === null ? resource : `${resource} (${filter})`
}
