import type { ColumnType, Generated } from 'kysely'
import type { EdenElement, EdenTrail } from '../sync/index.ts'
import type { DefaultTimestamp, Int8 } from './schema.ts'

/** Row types of what is kept to answer Sahana Eden sites that call. */
export type EdenServedTables = {
  'syncline.eden_registration': {
    peer_id: number
    repository: string
    name: string
    apitype: string
    at: DefaultTimestamp
  }
  'syncline.eden_trail': {
    peer_id: number
    resource_id: number
    trail: ColumnType<EdenTrail, string, string>
    at: DefaultTimestamp
  }
  'syncline.eden_stranger': {
    peer_id: number
    table_name: string
    uuid: string
    resource_id: number | null
    record_id: string | null
    element: ColumnType<EdenElement, string, string>
    at: DefaultTimestamp
  }
  'syncline.eden_dataset': {
    id: Generated<number>
    uuid: Generated<string>
    code: string
    name: string
    comments: string | null
    created_at: DefaultTimestamp
    modified_at: DefaultTimestamp
    removed_at: ColumnType<string | null, string | null | undefined, string | null>
  }
  'syncline.eden_dataset_table': {
    id: Generated<number>
    uuid: Generated<string>
    filter_uuid: Generated<string>
    dataset_id: number
    resource_id: number
    filter: string | null
  }
  'syncline.eden_archive': {
    id: Generated<number>
    dataset_id: number
    name: string
    made_at: DefaultTimestamp
    records: Int8
    bytes: Int8
    complete: Generated<boolean>
  }
  'syncline.eden_archive_piece': { archive_id: number; n: number; bytes: Buffer }
}
