import { readFile } from 'node:fs/promises'
import { createInterface } from 'node:readline/promises'
import { Readable } from 'node:stream'
import { text } from 'node:stream/consumers'
import type { ResourceCheck } from '../store/index.ts'
import { ERRORS, type ErrorCode, SynclineError } from '../sync/index.ts'
import { type Api, path } from './api.ts'
import { noun, type Register, verb } from './command.ts'
import { EXIT } from './exit.ts'
import type { Output } from './output.ts'
import { cell, fields, plural, time } from './text.ts'

/** A resource as the API shows it. */
export type Resource = {
  readonly id: number
  readonly name: string
  /** With its schema. */
  readonly table: string
  readonly key: string
  readonly columns: readonly {
    readonly name: string
    readonly type: string
    readonly notNull: boolean
    readonly sent: boolean
    /** Resource that the column refers to. */
    readonly refersTo: string | null
  }[]
  readonly fingerprint: string
  readonly managed: boolean
  readonly addedUuid: boolean
  readonly ready: boolean
  readonly attachedAt: string
}

type MadeFromEden = { readonly made: readonly { readonly resource: Resource; readonly without: readonly string[] }[] }
type Attached = { readonly resources: readonly Resource[] }

/** A line of the answer to an attach: a step, or its end. */
type AttachLine =
  | { readonly resource: string; readonly doing: string; readonly done: number; readonly total: number }
  | Attached
  | { readonly problem: { readonly code: ErrorCode; readonly detail?: string; readonly title: string } }

/** `resource …`: tables that are synced as records. */
export const resource: Register = (program, session) => {
  const resource = noun(program, 'resource', 'Tables that are synced as records')

  verb<{ readonly name?: string; readonly key?: string; readonly addUuid?: boolean }, [readonly string[]]>(
    resource,
    session,
    {
      use: 'attach <tables...>',
      does: 'Begins capture on existing tables and registers their rows',
      more: 'Tables that refer to each other are attached together. Repeating an attach completes one that was interrupted, and renews triggers and columns.',
      examples: [
        'syncline resource attach public.city',
        'syncline resource attach public.country public.city',
        'syncline resource attach public.hospital --name clinic --key code',
        'syncline resource attach public.reading --add-uuid',
      ],
      options: (command) =>
        command
          .option('--name <name>', 'name of the resource; default the name of the table')
          .option('--key <column>', 'column that identifies a record on every site; default chosen')
          .option('--add-uuid', 'add a unique uuid column where the table has no such column'),
      run: async ({ site, out }, { name, key, addUuid }, tables) => {
        if (tables.length > 1 && (name !== undefined || key !== undefined))
          throw new SynclineError('SYNC_REQUEST_INVALID', '--name and --key are about one table; several were given')
        const body = { tables: tables.map((table) => ({ table, name, key, addUuid })) }
        const attached = await attach(await site(), out, body)
        await out.result(attached, () => attached.resources.map(sentence).join('\n'))
      },
    },
  )

  verb<{ readonly schema?: string; readonly fromEden?: string }, [readonly string[]]>(resource, session, {
    use: 'create <names...>',
    does: 'Makes a table for records from a JSON Schema or as a Sahana Eden site describes it, where no application has one',
    more: 'With --from-eden several tables are made together, those before that others refer to.',
    examples: [
      'syncline resource create city --schema city.schema.json',
      'syncline resource create city --schema - < city.json',
      'syncline resource create --from-eden relief org_sector org_organisation',
    ],
    options: (command) =>
      command
        .option('--schema <file>', 'file with the JSON Schema of a record; - for standard input')
        .option('--from-eden <peer>', 'Sahana Eden site that has tables of these names'),
    run: async ({ site, out, streams }, { schema, fromEden }, names) => {
      if (fromEden !== undefined) {
        const body = { peer: fromEden, tables: names }
        const { made } = await (await site()).send<MadeFromEden>('POST', '/resources/eden', { body })
        await out.result({ made }, () => made.map(sentenceOfEden).join('\n'))
        return
      }
      const [name = '', ...others] = names
      if (schema === undefined || others.length > 0)
        throw new SynclineError(
          'SYNC_REQUEST_INVALID',
          'a resource is made from --schema FILE; several at once only with --from-eden PEER',
        )
      const source = schema === '-' ? await text(streams.stdin) : await readFile(schema, 'utf8')
      const body = { name, schema: parseSchema(source, schema) }
      const made = await (await site()).send<Resource>('POST', '/resources/managed', { body })
      await out.result(made, () => sentence(made))
    },
  })

  verb(resource, session, {
    use: 'list',
    does: 'Lists the resources',
    examples: ['syncline resource list'],
    run: async ({ site, out }) => {
      const items = await (await site()).all<Resource>('/resources')
      await out.result({ items }, () =>
        out.table(
          ['NAME', 'TABLE', 'KEY', 'COLUMNS', 'STATE', 'ATTACHED'],
          items.map((each) => [
            each.name,
            each.table,
            each.key,
            String(each.columns.filter((column) => column.sent).length),
            each.ready ? 'ready' : 'not all rows registered',
            time(each.attachedAt),
          ]),
        ),
      )
    },
  })

  verb<object, [string]>(resource, session, {
    use: 'show <resource>',
    does: 'Shows a resource with its columns',
    examples: ['syncline resource show city'],
    run: async ({ site, out }, _options, name) => {
      const found = await (await site()).get<Resource>(path`/resources/${name}`)
      await out.result(found, async () => [describe(found), '', await columnTable(out, found)].join('\n'))
    },
  })

  verb<object, [string | undefined]>(resource, session, {
    use: 'check [resource]',
    does: 'Finds triggers that are missing, disabled or outdated, and columns that changed',
    examples: ['syncline resource check', 'syncline resource check city'],
    run: async ({ site, out }, _options, name) => {
      const api = await site()
      const { items } =
        name === undefined
          ? await api.get<{ readonly items: readonly ResourceCheck[] }>('/checks')
          : { items: [await api.get<ResourceCheck>(path`/resources/${name}/check`)] }
      await out.result({ items }, () =>
        items.length === 0 ? 'No resources.' : items.map((check) => checkText(out, check)).join('\n'),
      )
      return items.every(({ faults }) => faults.length === 0) ? EXIT.done : EXIT.failed
    },
  })

  verb<object, [string]>(resource, session, {
    use: 'detach <resource>',
    does: 'Ends capture and leaves the table as it was before it was attached',
    examples: ['syncline resource detach city'],
    run: async ({ site, out }, _options, name) => {
      await (await site()).send('DELETE', path`/resources/${name}`, { patient: true })
      await out.result({ detached: name }, () => `Resource ${cell(name)} is detached; its table is as it was.`)
    },
  })
}

/** Attaches and shows how far it is: rows are registered in steps, which takes a while on a large table. */
async function attach(api: Api, out: Output, body: unknown): Promise<Attached> {
  const answer = await api.open('POST', '/resources', { body, accept: 'application/x-ndjson', patient: true })
  if (answer.body === null) throw new SynclineError('SYNC_BATCH_INCOMPLETE', 'the site gave no answer to the attach')
  const progress = await out.progress('attach')
  try {
    for await (const line of createInterface({ input: Readable.fromWeb(answer.body) })) {
      const step = JSON.parse(line) as AttachLine
      if ('resources' in step) return step
      if ('problem' in step) {
        const { code, detail, title } = step.problem
        throw new SynclineError(Object.hasOwn(ERRORS, code) ? code : 'SYNC_INTERNAL', detail ?? title)
      }
      progress.update({ step: `${step.resource}: ${step.doing}`, done: step.done, total: step.total })
    }
  } finally {
    progress.end()
  }
  throw new SynclineError(
    'SYNC_BATCH_INCOMPLETE',
    'the answer to the attach ended early; repeat it to go on where it stopped',
  )
}

function parseSchema(source: string, file: string): unknown {
  try {
    return JSON.parse(source)
  } catch (cause) {
    throw new SynclineError('SYNC_REQUEST_INVALID', `${file} is not JSON: ${(cause as Error).message}`, { cause })
  }
}

function sentenceOfEden({ resource, without }: MadeFromEden['made'][number]): string {
  const rest = without.length === 0 ? '' : ` Without a column, and kept beside the record: ${without.join(', ')}.`
  return `${sentence(resource)}${rest}`
}

function sentence(resource: Resource): string {
  const sent = resource.columns.filter((column) => column.sent).length
  const local = resource.columns.filter((column) => !column.sent && column.name !== resource.key).length
  const parts = [
    `${resource.name}: table ${resource.table}, records identified by ${resource.key}`,
    resource.addedUuid ? ' (a column added for it)' : '',
    `, ${plural(sent, 'column travels', 'columns travel')}`,
    local > 0 ? `, ${local} ${local === 1 ? 'stays' : 'stay'} here` : '',
  ]
  return `${parts.join('')}.`
}

function describe(resource: Resource): string {
  return fields([
    ['resource', resource.name],
    ['table', resource.table],
    ['key', `${resource.key}${resource.addedUuid ? ' (added by attach)' : ''}`],
    ['managed', resource.managed ? 'made by Syncline' : undefined],
    ['fingerprint', resource.fingerprint],
    ['state', resource.ready ? 'ready' : 'not all rows are registered: attach the table again'],
    ['attached', time(resource.attachedAt)],
  ])
}

function columnTable(out: Output, resource: Resource): Promise<string> {
  return out.table(
    ['COLUMN', 'TYPE', 'NULL', 'TRAVELS', 'REFERS TO'],
    resource.columns.map((column) => [
      cell(column.name),
      cell(column.type),
      column.notNull ? 'no' : 'yes',
      column.name === resource.key ? 'as the id' : column.sent ? 'yes' : 'no',
      cell(column.refersTo),
    ]),
  )
}

function checkText(out: Output, { resource, faults, mends = [], warnings = [] }: ResourceCheck): string {
  const warned = warnings.map((warning) => `${out.paint('yellow', 'warn ')} ${resource}: ${cell(warning)}`)
  if (faults.length === 0) return [`${out.paint('green', 'ok   ')} ${resource}`, ...warned].join('\n')
  return [
    ...warned,
    ...faults.map((fault) => `${out.paint('red', 'fault')} ${resource}: ${cell(fault)}`),
    ...mends.map((mend) => `      to mend: ${cell(mend)}`),
  ].join('\n')
}
