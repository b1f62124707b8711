import type { ColumnType, Generated } from 'kysely'
import type { Json } from '../sync/index.ts'
import type { DefaultTimestamp, Int8 } from './schema.ts'

/** Row types of what is known of Sahana Eden sites. */

export type EdenTables = {
  'syncline.eden_record': EdenRecordTable
  'syncline.eden_table': EdenTableTable
}

type Parsed<T> = ColumnType<T | null, string | null | undefined, string | null>

type EdenRecordTable = {
  peer_id: number
  resource_id: number
  record_id: string
  uuid: string | null
  origin: string | null
  clock: ColumnType<string | null, string | number | null | undefined, string | number | null>
  seen: Parsed<Record<string, number>>
  modified_on: ColumnType<string | null, string | number | null | undefined, string | number | null>
  deleted: boolean | null
  prints: Parsed<Record<string, string>>
  emptied: ColumnType<string[], string | undefined, string>
  shown_at: ColumnType<string | null, string | number | null | undefined, string | number | null>
  sent: Parsed<Json>
  told: Parsed<Json>
  mci: Generated<number>
  attributes: ColumnType<Record<string, string>, string | undefined, string>
  gone: Generated<boolean>
  replaced_by: string | null
  within: ColumnType<string | null, string | null | undefined, string | null>
  round: Int8
  refused: string | null
  attempts: Generated<number>
  retry_at: ColumnType<string | null, string | null | undefined, string | null>
  at: DefaultTimestamp
}

type EdenTableTable = {
  peer_id: number
  resource_id: number
  round: Int8
  compared_at: ColumnType<string | null, string | null | undefined, string | null>
  took_ms: ColumnType<number | null, number | null | undefined, number | null>
  dataset: ColumnType<string | null, string | null | undefined, string | null>
  dataset_task: ColumnType<string | null, string | null | undefined, string | null>
  dataset_filter: ColumnType<[key: string, value: string][], string | undefined, string>
  archive_origin: ColumnType<string | null, string | null | undefined, string | null>
  archived_at: ColumnType<string | null, string | null | undefined, string | null>
}
