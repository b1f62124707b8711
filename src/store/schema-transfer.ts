import type { Generated } from 'kysely'
import type { FolderTables } from './schema-folder.ts'

/** Row types of what has to do with files. */
export type TransferTables = FolderTables & { 'syncline.host_key': HostKeyTable }

type HostKeyTable = {
  host: string
  port: number
  type: string
  key: string
  fingerprint: string
  trusted_at: Generated<string>
  trusted_by: string | null
}
