import type { ColumnType, Generated } from 'kysely'
import type { FileState, FolderSettings } from '../sync/index.ts'
import type { DefaultTimestamp } from './schema.ts'

/** Row types of peers that are folders. */
export type FolderTables = {
  'syncline.folder': FolderTable
  'syncline.folder_file': FolderFileTable
  'syncline.folder_output': FolderOutputTable
}

type Parsed<T> = ColumnType<T, string | undefined, string>
type Time = ColumnType<string | null, string | null | undefined, string | null>

type FolderTable = { peer_id: number; settings: Parsed<FolderSettings> }

type FolderFileTable = {
  id: Generated<string>
  peer_id: number
  name: string
  bytes: ColumnType<string, number, number>
  modified: string
  sha256: string | null
  place: ColumnType<string | null, number | null | undefined, number | null>
  resources: Parsed<Record<string, number>>
  left_over: Parsed<Record<string, number>>
  state: 'new' | 'waiting' | 'taken' | 'refused' | 'changed'
  gone: Generated<boolean>
  reason: string | null
  seen_at: DefaultTimestamp
  taken_at: Time
}

type FolderOutputTable = {
  peer_id: number
  spool: string
  bytes: ColumnType<string, number, number>
  file_state: Parsed<FileState>
  records: Parsed<Record<string, number>>
  name: string | null
  begun_at: DefaultTimestamp
}
