import type { ColumnType } from 'kysely'
import type { EdenElement, EdenTrail } from '../sync/index.ts'
import type { DefaultTimestamp } from './schema.ts'

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
}
