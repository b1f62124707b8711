import { createReadStream, createWriteStream } from 'node:fs'
import { readFile } from 'node:fs/promises'
import type { Readable } from 'node:stream'
import { text } from 'node:stream/consumers'
import { pipeline } from 'node:stream/promises'
import { type Command, Option } from 'commander'
import { type BatchReport, type Json, type Reference, SynclineError, type Version } from '../sync/index.ts'
import { type Api, type Page, path } from './api.ts'
import { list, noun, type Register, verb } from './command.ts'
import { EXIT, type ExitCode } from './exit.ts'
import type { Output } from './output.ts'
import { csvOf, FORMAT_NAMES, FORMATS, type FormatName, formatOf, type Part, partsOf } from './record-format.ts'
import type { Resource } from './resource.ts'
import { cell, count, fields, time, valueText } from './text.ts'

/** A record as the API shows it. */
type Shown = {
  readonly id: string
  readonly version: Version
  readonly data?: Readonly<Record<string, Json>>
  readonly refs?: Readonly<Record<string, Reference | null>>
  readonly deleted?: boolean
}

/** What a record was before, or would have been. */
type HistoryEntry = {
  readonly at: string
  readonly reason: string
  readonly runId: string | null
  readonly version: Version
  readonly deleted: boolean
  readonly data: Json
}

const HISTORY_SHOWN = 20

/** `record …`: records by hand, one or many. */
export const record: Register = (program, session) => {
  const record = noun(program, 'record', 'Records by hand')

  verb<{ readonly history?: boolean }, [string, string]>(record, session, {
    use: 'get <resource> <id>',
    does: 'Shows a record with its version',
    examples: [
      'syncline record get city 0198c0de-0000-7000-8000-00000000000a',
      'syncline record get country AT --history --json',
    ],
    options: (command) =>
      command.option('--history', 'and what it was before: values that were replaced or lost a conflict'),
    run: async ({ site, out }, { history }, resource, id) => {
      const api = await site()
      const found = await api.get<Shown>(path`/records/${resource}/${id}`)
      if (history !== true) {
        await out.result(found, () => describe(found))
        return
      }
      const past = await api.get<Page<HistoryEntry>>(path`/records/${resource}/${id}/history`, { limit: HISTORY_SHOWN })
      await out.result({ ...found, history: past.items }, async () =>
        [describe(found), '', await historyText(out, past.items)].join('\n'),
      )
    },
  })

  verb<{ readonly set: readonly string[]; readonly ref: readonly string[]; readonly data?: string }, [string, string]>(
    record,
    session,
    {
      use: 'put <resource> <id>',
      does: 'Writes a record; columns that are not given stay as they are',
      examples: [
        'syncline record put city graz --set name=Graz --set population=300000 --ref country=AT',
        `syncline record put city graz --data '{"name":"Graz","mayor":null}'`,
        'syncline record put city graz --data - < graz.json',
      ],
      options: (command) =>
        command
          .option('--set <column=value>', 'value of one column, as text; may be repeated', collect, [])
          .option('--ref <column=id>', 'record that a reference column refers to; may be repeated', collect, [])
          .option('--data <json>', 'values of columns as a JSON object; @FILE reads a file, - standard input'),
      run: async ({ site, out, streams }, options, resource, id) => {
        const api = await site()
        const data = { ...(await readData(options.data, streams.stdin)), ...Object.fromEntries(options.set.map(pair)) }
        const refs = options.ref.length === 0 ? undefined : await readRefs(api, resource, options.ref)
        const written = await api.send<Shown>('PUT', path`/records/${resource}/${id}`, { body: { data, refs } })
        await out.result(written, () => describe(written))
      },
    },
  )

  verb<object, [string, string]>(record, session, {
    use: 'delete <resource> <id>',
    does: 'Deletes a record, here and wherever tasks carry that',
    examples: ['syncline record delete city graz'],
    run: async ({ site, out }, _options, resource, id) => {
      await (await site()).send('DELETE', path`/records/${resource}/${id}`)
      await out.result({ deleted: id }, () => `Record ${cell(id)} of ${cell(resource)} is deleted.`)
    },
  })

  verb<{ readonly format?: FormatName }, [string, string | undefined]>(record, session, {
    use: 'import <resource> [file]',
    does: 'Writes many records from a file or standard input',
    more: 'Without --format the ending of the file says what it is; standard input is NDJSON. NDJSON and CSV go in parts of some thousand records: when one cannot be read, those before it are written. Records come before those that refer to them.',
    examples: ['syncline record import city cities.csv', 'syncline record import city --format json < cities.json'],
    options: formatOption,
    run: async ({ site, out, streams }, { format }, resource, file) => {
      const source: Readable = file === undefined || file === '-' ? streams.stdin : createReadStream(file)
      const report = await importRecords(await site(), out, resource, formatOf(format, file), source)
      await out.result(report, () => reportText(report))
      return exitOfReport(report)
    },
  })

  verb<
    { readonly format?: FormatName; readonly filter?: string; readonly columns?: readonly string[] },
    [string, string | undefined]
  >(record, session, {
    use: 'export <resource> [file]',
    does: 'Writes all records, or those that match, to a file or standard output',
    examples: [
      'syncline record export city cities.csv',
      `syncline record export city --filter "population > 100000" --columns name,population`,
    ],
    options: (command) =>
      formatOption(command)
        .option('--filter <filter>', 'only records that match')
        .option('--columns <columns>', 'only these columns, separated by commas', list),
    run: async ({ site, out }, { format, filter, columns }, resource, file) => {
      const records = await exportRecords(await site(), resource, formatOf(format, file), filter, columns)
      if (file === undefined || file === '-') await out.stream(records)
      else await pipeline(records, createWriteStream(file))
    },
  })
}

function formatOption(command: Command): Command {
  return command.addOption(new Option('--format <format>', 'format of the records').choices(FORMAT_NAMES))
}

function collect(value: string, before: readonly string[]): readonly string[] {
  return [...before, value]
}

/** `name=value`; only the first `=` separates. */
function pair(text: string): readonly [string, string] {
  const at = text.indexOf('=')
  if (at < 1) throw new SynclineError('SYNC_REQUEST_INVALID', `"${text}" is not of the form column=value`)
  return [text.slice(0, at), text.slice(at + 1)]
}

async function readData(given: string | undefined, stdin: Readable): Promise<Record<string, unknown>> {
  if (given === undefined) return {}
  const source =
    given === '-' ? await text(stdin) : given.startsWith('@') ? await readFile(given.slice(1), 'utf8') : given
  try {
    const value: unknown = JSON.parse(source)
    if (typeof value === 'object' && value !== null && !Array.isArray(value)) return value as Record<string, unknown>
  } catch (cause) {
    throw new SynclineError('SYNC_REQUEST_INVALID', `--data is not JSON: ${(cause as Error).message}`, { cause })
  }
  throw new SynclineError('SYNC_REQUEST_INVALID', '--data is not a JSON object of values by column')
}

/** A person names the record; which resource it is in, the resource knows. */
async function readRefs(api: Api, resource: string, given: readonly string[]): Promise<Record<string, Reference>> {
  const { columns } = await api.get<Resource>(path`/resources/${resource}`)
  return Object.fromEntries(
    given.map(pair).map(([column, id]) => {
      const target = columns.find(({ name }) => name === column)?.refersTo ?? null
      if (target !== null) return [column, { resource: target, id }]
      const references = columns.filter(({ refersTo }) => refersTo !== null)
      const known = references.map(({ name }) => name).join(', ') || 'none'
      throw new SynclineError('SYNC_REQUEST_INVALID', `"${column}" is no reference of ${resource}; there is ${known}`)
    }),
  )
}

/** Sends the parts one after the other and adds up what became of the records. */
async function importRecords(api: Api, out: Output, resource: string, format: FormatName, source: Readable) {
  const progress = await out.progress(`import ${resource}`)
  let report: BatchReport | undefined
  let sent = 0
  try {
    for await (const part of partsOf(format, source)) {
      progress.update({ step: 'writing', detail: `${count(sent)} records` })
      report = add(report, await importPart(api, resource, format, part))
      sent += part.records
    }
  } finally {
    progress.end()
  }
  return report ?? (await importPart(api, resource, format, { body: '', line: 1, records: 0 }))
}

async function importPart(api: Api, resource: string, format: FormatName, part: Part): Promise<BatchReport> {
  try {
    const { type } = FORMATS[format]
    return await api.send<BatchReport>('POST', path`/records/${resource}`, { text: part.body, type })
  } catch (error) {
    if (!(error instanceof SynclineError) || part.line <= 2) throw error
    const detail = `in the part that begins at line ${part.line}, after what was written before: ${error.message}`
    throw new SynclineError(error.code, detail, { cause: error })
  }
}

const REJECTIONS_MAX = 1000

function add(a: BatchReport | undefined, b: BatchReport): BatchReport {
  if (a === undefined) return b
  const names = Object.keys(b.counts) as (keyof BatchReport['counts'])[]
  const rejections = [...a.rejections, ...b.rejections]
  return {
    counts: Object.fromEntries(names.map((name) => [name, a.counts[name] + b.counts[name]])) as BatchReport['counts'],
    rejections: rejections.slice(0, REJECTIONS_MAX),
    truncated: a.truncated || b.truncated || rejections.length > REJECTIONS_MAX,
  }
}

async function exportRecords(
  api: Api,
  resource: string,
  format: FormatName,
  filter: string | undefined,
  columns: readonly string[] | undefined,
): Promise<AsyncIterable<Uint8Array>> {
  const query = { all: true, filter, columns: columns?.join(',') }
  const accept = FORMATS[format === 'csv' ? 'ndjson' : format].type
  const where = path`/records/${resource}`
  const names = format === 'csv' ? (columns ?? (await csvColumns(api, resource))) : []
  const { body } = await api.open('GET', where, { query, accept, patient: true })
  if (body === null) throw new SynclineError('SYNC_BATCH_INCOMPLETE', 'the site sent no records and no end')
  return format === 'csv' ? csvOf(body, names) : body
}

/** What travels except the identity, which is the column `id`. */
async function csvColumns(api: Api, resource: string): Promise<readonly string[]> {
  const found = await api.get<Resource>(path`/resources/${resource}`)
  return found.columns.filter(({ sent, name }) => sent && name !== found.key).map(({ name }) => name)
}

function exitOfReport({ counts }: BatchReport): ExitCode {
  if (counts.refused > 0) return EXIT.failed
  return counts.conflict + counts.quarantined > 0 ? EXIT.waiting : EXIT.done
}

const REJECTIONS_SHOWN = 20

function reportText({ counts, rejections }: BatchReport): string {
  const words = Object.entries(counts)
    .filter(([, n]) => n > 0)
    .map(([outcome, n]) => `${count(n)} ${outcome}`)
  const shown = rejections.slice(0, REJECTIONS_SHOWN).map(({ id, outcome, code, reason }) => {
    return `  ${cell(id)}: ${outcome}, ${cell(reason)}${code === undefined ? '' : ` (${code})`}`
  })
  const rest =
    rejections.length > shown.length ? [`  and ${count(rejections.length - shown.length)} more; see --json`] : []
  return [words.join(', ') || 'no records', ...shown, ...rest].join('\n')
}

function describe(found: Shown): string {
  const { origin, clock } = found.version
  return fields([
    ['id', found.id],
    ['written', `${time(new Date(clock / 1000).toISOString())} by ${origin}`],
    ...(found.deleted === true ? [['deleted', true] as const] : []),
    ...Object.entries(found.data ?? {}).map(([name, value]) => [cell(name), valueText(value)] as const),
    ...Object.entries(found.refs ?? {}).map(([name, target]) => {
      return [cell(name), target === null ? 'null' : `${target.resource} ${target.id}`] as const
    }),
  ])
}

async function historyText(out: Output, entries: readonly HistoryEntry[]): Promise<string> {
  if (entries.length === 0) return 'No earlier values are kept.'
  return out.table(
    ['UNTIL', 'WHY', 'RUN', 'VALUES'],
    entries.map((each) => [
      time(each.at),
      cell(each.reason),
      cell(each.runId),
      each.deleted ? '(deleted)' : cell(each.data),
    ]),
  )
}
