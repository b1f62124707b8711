import type { Generated } from 'kysely'

export type TransferTables = { 'syncline.host_key': HostKeyTable }

type HostKeyTable = {
  host: string
  port: number
  type: string
  key: string
  fingerprint: string
  trusted_at: Generated<string>
  trusted_by: string | null
}
