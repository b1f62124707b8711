import type { ColumnType, Generated } from 'kysely'
import type { DefaultTimestamp, GeneratedInt8, Int8 } from './schema.ts'

/** What waits, at either side, and what is told about it. */
export type WaitingTables = {
  'syncline.elsewhere': ElsewhereTable
  'syncline.discard': DiscardTable
  'syncline.alarm': AlarmTable
  'syncline.alarm_notice': AlarmNoticeTable
}

/** Row types of what waits at peers, of what was given up here, and of alarms. */

type ElsewhereTable = {
  id: GeneratedInt8
  peer_id: number
  resource_id: number
  record_id: string
  outcome: 'quarantined' | 'refused' | 'discarded'
  origin: string | null
  clock: ColumnType<string | null, string | number | null | undefined, string | number | null>
  code: string
  reason: string
  waits_resource: string | null
  waits_id: string | null
  dependants: Generated<number>
  attempts: Generated<number>
  first_at: DefaultTimestamp
  last_at: DefaultTimestamp
  retry_at: ColumnType<string | null, string | null | undefined, string | null>
  decided_by: string | null
  because: string | null
  terms: string | null
}

type DiscardTable = {
  id: GeneratedInt8
  peer_id: number
  resource_id: number
  record_id: string
  origin: number
  clock: Int8
  code: string
  reason: string
  decided_by: string
  because: string | null
  at: DefaultTimestamp
}

type AlarmTable = {
  id: GeneratedInt8
  code: string
  level: 'info' | 'warning' | 'critical'
  peer: Generated<string>
  resource: Generated<string>
  text: string
  mend: string
  since: DefaultTimestamp
  last: DefaultTimestamp
  ended: ColumnType<string | null, string | null | undefined, string | null>
}

type AlarmNoticeTable = {
  id: GeneratedInt8
  alarm_id: Int8
  moment: 'begin' | 'end'
  channel: 'mail' | 'webhook'
  attempts: Generated<number>
  next_at: DefaultTimestamp
  sent_at: ColumnType<string | null, string | null | undefined, string | null>
  given_up: Generated<boolean>
  error: ColumnType<string | null, string | null | undefined, string | null>
}
