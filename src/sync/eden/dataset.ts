import { type EdenAttributes, type EdenElement, type EdenField, parseJson } from '../codec/index.ts'
import { SynclineError } from '../errors.ts'
import type { EdenVariable } from './filter.ts'
import { readEdenTime } from './time.ts'

/** Tables of Eden that describe data sets. */
export const DATASET_TABLES = {
  dataset: 'sync_dataset',
  task: 'sync_task',
  resource_filter: 'sync_resource_filter',
} as const
export type DatasetNoun = keyof typeof DATASET_TABLES

/** What tells of a data set: the set itself, a table in it, or a filter on that. */
export type DatasetEntry = {
  readonly noun: DatasetNoun
  readonly uuid: string
  readonly createdOn: string
  readonly modifiedOn: string
  readonly deleted: boolean
  readonly fields: Readonly<Record<string, string | number | boolean | null>>
  /** By field. */
  readonly references: Readonly<Record<string, { readonly noun: DatasetNoun; readonly uuid: string }>>
  /** What filters may look at, beside the fields, such as `dataset_id$code`. */
  readonly seen: Readonly<Record<string, string>>
}

const SELECTOR = /^(?:\[(?:~|\w*)\])?(?:~\.|\w+\.)?([\w$]+?)(?:__(eq|belongs))?$/
const READ_PAST = ['mcomponents', 'components', 'maxdepth', 'references', 'fields', 'format']

/** The entries that an address asks for. Throws SYNC_FILTER_INVALID by name for what it cannot look at. */
export function chosenEntries(
  entries: readonly DatasetEntry[],
  variables: readonly EdenVariable[],
): readonly DatasetEntry[] {
  const value = (name: string) => variables.findLast(([key]) => key === name)?.[1]
  const since = readEdenTime(value('msince') ?? '') ?? 0
  const withDeleted = value('include_deleted') !== undefined
  let chosen = entries.filter(
    (entry) => (withDeleted || !entry.deleted) && (readEdenTime(entry.modifiedOn) ?? 0) >= since,
  )
  for (const [key, text] of variables) {
    if (['msince', 'include_deleted', ...READ_PAST].includes(key)) continue
    const [, path = ''] = SELECTOR.exec(key) ?? []
    if (!entries.every((entry) => textAt(entry, path) !== undefined) || path === '')
      throw new SynclineError('SYNC_FILTER_INVALID', `filter "${key.slice(0, 120)}": data sets are not chosen by that`)
    const wanted = text.split(',')
    chosen = chosen.filter((entry) => wanted.includes(textAt(entry, path) ?? ''))
  }
  return chosen
}

function textAt(entry: DatasetEntry, path: string): string | undefined {
  if (path === 'uuid') return entry.uuid
  const field = Object.hasOwn(entry.fields, path) ? String(entry.fields[path] ?? 'NONE') : undefined
  return field ?? (Object.hasOwn(entry.seen, path) ? entry.seen[path] : undefined)
}

/** An entry as Eden writes it. */
export function datasetElement(entry: DatasetEntry): EdenElement {
  const { uuid, createdOn, modifiedOn, fields, references } = entry
  const table = DATASET_TABLES[entry.noun]
  if (entry.deleted)
    return { table, attributes: { uuid, deleted: 'True', modified_on: modifiedOn }, fields: [], components: [] }
  const data = Object.entries(fields).flatMap(([field, value]): EdenField[] =>
    value === null ? [] : [{ kind: 'data', field, attributes: { value: JSON.stringify(value) }, text: '' }],
  )
  const refers = Object.entries(references).map(([field, to]): EdenField => {
    const attributes = { resource: DATASET_TABLES[to.noun], uuid: to.uuid }
    return { kind: 'reference', field, attributes, text: '' }
  })
  const attributes: EdenAttributes = { uuid, mci: '1', created_on: createdOn, modified_on: modifiedOn }
  return { table, attributes, fields: [...data, ...refers], components: [] }
}

/** What an Eden tells of a data set. */
export type FollowedDataset = {
  readonly code: string
  readonly name: string
  /** Null where there is no archive that should be used. */
  readonly archiveUrl: string | null
  readonly tasks: readonly {
    readonly uuid: string
    readonly table: string
    /** Pulled: one that is only pushed, or rests, brings nothing. */
    readonly pulls: boolean
    /** Variables of an address. */
    readonly filters: readonly EdenVariable[]
  }[]
}

/** A data set by its code, from the documents of the three nouns; undefined where there is none. */
export function readDataset(
  code: string,
  documents: Readonly<Record<DatasetNoun, readonly EdenElement[]>>,
): FollowedDataset | undefined {
  const living = (noun: DatasetNoun) =>
    documents[noun].filter(
      ({ table, attributes }) => table === DATASET_TABLES[noun] && attributes.deleted?.toLowerCase() !== 'true',
    )
  const found = living('dataset').find((element) => fieldOf(element, 'code') === code)
  if (found === undefined) return undefined
  const url = fieldOf(found, 'archive_url')
  const filters = living('resource_filter')
  return {
    code,
    name: fieldOf(found, 'name') ?? code,
    archiveUrl: url !== undefined && url !== '' && fieldOf(found, 'use_archive') === 'true' ? url : null,
    tasks: living('task').flatMap((element) => {
      const { uuid } = element.attributes
      const table = fieldOf(element, 'resource_name')
      const mode = fieldOf(element, 'mode') ?? '3'
      const of = referenceOf(element, 'dataset_id')
      if (uuid === undefined || table === undefined || (of !== undefined && of !== found.attributes.uuid)) return []
      return [
        {
          uuid,
          table,
          pulls: mode === '1' || mode === '3',
          filters: filters
            .filter((each) => referenceOf(each, 'task_id') === uuid)
            .flatMap((each) =>
              filterVariables(fieldOf(each, 'filter_string') ?? '', fieldOf(each, 'tablename') ?? table),
            ),
        },
      ]
    }),
  }
}

/** The variables of a filter of Eden such as `~.name__like=A*&organisation.acronym=X`, for an address: each names its table. */
export function filterVariables(text: string, table: string): readonly EdenVariable[] {
  return [...new URLSearchParams(text)].map(([key, value]) => [key.startsWith('[') ? key : `[${table}]${key}`, value])
}

function fieldOf({ fields }: EdenElement, name: string): string | undefined {
  const field = fields.find((each) => each.field === name && each.kind === 'data')
  if (field === undefined) return undefined
  const { value } = field.attributes
  if (value === undefined) return field.text
  try {
    const decoded = parseJson(value)
    return typeof decoded === 'object' ? value : String(decoded)
  } catch {
    return value
  }
}

function referenceOf({ fields }: EdenElement, name: string): string | undefined {
  return fields.find((each) => each.field === name && each.kind === 'reference')?.attributes.uuid
}
