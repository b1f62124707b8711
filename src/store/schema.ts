import type { ColumnType, Generated } from 'kysely'
import type { Json, Mapping, TaskRun } from '../sync/index.ts'
import type { EdenTables } from './schema-eden.ts'
import type { EdenServedTables } from './schema-eden-served.ts'
import type { JobTables } from './schema-jobs.ts'
import type { TransferTables } from './schema-transfer.ts'
import type { WaitingTables } from './schema-waiting.ts'

/** Row types of schema `syncline`, as migrations/ makes it. int8, xid8 and timestamps arrive as text, never as a lossy number or Date. */
export type Database = TransferTables &
  WaitingTables &
  JobTables &
  EdenServedTables &
  EdenTables & {
    'syncline.site': SiteTable
    'syncline.self': SelfTable
    'syncline.setting': SettingTable
    'syncline.resource': ResourceTable
    'syncline.peer': PeerTable
    'syncline.peer_grant': PeerGrantTable
    'syncline.task': TaskTable
    'syncline.token': TokenTable
    'syncline.invitation': InvitationTable
    'syncline.record': RecordTable
    'syncline.digest': DigestTable
    'syncline.agreement': AgreementTable
    'syncline.kept': KeptTable
    'syncline.history': HistoryTable
    'syncline.quarantine': QuarantineTable
    'syncline.conflict': ConflictTable
    'syncline.pending_ref': PendingRefTable
    'syncline.parked': ParkedTable
    'syncline.parked_field': ParkedFieldTable
    'syncline.purged': PurgedTable
    'syncline.purge': PurgeTable
    'syncline.peer_schema': PeerSchemaTable
    'syncline.shared': SharedTable
    'syncline.checkpoint': CheckpointTable
    'syncline.run': RunTable
    'syncline.log': LogTable
    'syncline.brake': BrakeTable
    'syncline.brake_meter': BrakeMeterTable
    'syncline.peer_mark': PeerMarkTable
    'syncline.run_batch': RunBatchTable
  }

export type Int8 = ColumnType<string, string | number | bigint, string | number | bigint>
export type GeneratedInt8 = ColumnType<string, never, never>
/** Text in ISO 8601 with microseconds. */
type Timestamp = ColumnType<string, string, string>
export type DefaultTimestamp = ColumnType<string, string | undefined, string>
/** Read as a parsed value, written as JSON text. */
type JsonColumn<T = Json> = ColumnType<T, string, string>
type NullableJson<T = Json> = ColumnType<T | null, string | null | undefined, string | null>

type SiteTable = { id: Generated<number>; origin: string; uuid: string }

type SelfTable = {
  one: Generated<boolean>
  uuid: string
  site_id: number
  name: string
  log_id: string
  log_seen: JsonColumn
  public_key: string
  private_key: Buffer
  mark: Generated<string>
  created_at: DefaultTimestamp
}

type SettingTable = { name: string; value: JsonColumn; changed_at: DefaultTimestamp }

type ResourceTable = {
  id: Generated<number>
  name: string
  table_schema: string
  table_name: string
  table_oid: ColumnType<number, string | number, string | number>
  key_column: string
  columns: JsonColumn
  fingerprint: string
  capture_version: number
  managed: Generated<boolean>
  added_uuid: Generated<boolean>
  registered_after: string | null
  ready: Generated<boolean>
  marks: NullableJson<{ readonly counted: readonly string[] }>
  attached_at: DefaultTimestamp
}

type PeerTable = {
  id: Generated<number>
  name: string
  kind: Generated<string>
  uuid: string
  site_id: number
  url: string | null
  token: Buffer | null
  proxy_url: string | null
  proxy_secret: Buffer | null
  ca_pem: string | null
  client_cert_pem: string | null
  client_key: Buffer | null
  paused: Generated<boolean>
  paused_at: ColumnType<string | null, string | null | undefined, string | null>
  log_id: string | null
  clock_offset_ms: number | null
  last_seen_at: ColumnType<string | null, string | null | undefined, string | null>
  failures: Generated<number>
  retry_at: ColumnType<string | null, string | null | undefined, string | null>
  revision: Generated<number>
  created_at: DefaultTimestamp
}

type PeerGrantTable = {
  peer_id: number
  resource_id: number
  direction: 'pull' | 'push'
  filter: string | null
  columns: string[] | null
  on_conflict: Generated<string>
  master: string | null
  fields: ColumnType<Readonly<Record<string, string>>, string | undefined, string>
  max_deletes: ColumnType<string | null, string | null | undefined, string | null>
  max_changes: ColumnType<string | null, string | null | undefined, string | null>
}

type TaskTable = {
  id: Generated<number>
  peer_id: number
  resource_id: number
  mode: 'pull' | 'push' | 'both'
  filter: string | null
  columns: string[] | null
  on_conflict: Generated<string>
  master: string | null
  fields: ColumnType<Readonly<Record<string, string>>, string | undefined, string>
  on_left: Generated<'keep' | 'remove'>
  schedule: string | null
  max_deletes: ColumnType<string | null, string | null | undefined, string | null>
  max_changes: ColumnType<string | null, string | null | undefined, string | null>
  empty_guard: Generated<boolean>
  canary: ColumnType<string | null, string | null | undefined, string | null>
  mapping: ColumnType<Partial<Mapping>, string | undefined, string>
  enabled: Generated<boolean>
  last_run: NullableJson<TaskRun>
  revision: Generated<number>
  created_at: DefaultTimestamp
}

type TokenTable = {
  id: Generated<number>
  name: string
  role: 'administrator' | 'operator' | 'viewer' | 'peer'
  peer_id: number | null
  hash: Buffer
  created_at: DefaultTimestamp
  expires_at: ColumnType<string | null, string | null | undefined, string | null>
  last_used_at: ColumnType<string | null, string | null | undefined, string | null>
}

type InvitationTable = {
  id: Generated<number>
  name: string
  hash: Buffer
  pull: JsonColumn
  push: JsonColumn
  created_at: DefaultTimestamp
  expires_at: Timestamp
  redeemed_at: ColumnType<string | null, string | null | undefined, string | null>
  redeemed_by: string | null
}

type RecordTable = {
  xact: ColumnType<string, string, string>
  clock: Int8
  /** The transaction that first brought the record here. */
  born: ColumnType<string | null, string | null | undefined, string | null>
  resource_id: number
  origin: number
  source: number | null
  deleted: Generated<boolean>
  record_id: string
  seen: NullableJson<Record<string, number>>
  fields: NullableJson
  counted: ColumnType<string | null, string | null | undefined, string | null>
}

type DigestTable = {
  resource_id: number
  living: ColumnType<string, never, never>
  sum: ColumnType<string, never, never>
  folded: ColumnType<string, never, string>
  folded_id: Generated<string>
  whole: ColumnType<string[], never, never>
}

type AgreementTable = {
  peer_id: number
  resource_id: number
  verdict: 'equal' | 'waiting' | 'different' | 'unknown'
  reason: string | null
  compared_at: DefaultTimestamp
  records: ColumnType<string | null, string | number | null, string | number | null>
  differing: number | null
  deep_differing: number | null
  doubt: string | null
  agreed_at: ColumnType<string | null, string | null | undefined, string | null>
  agreed_records: ColumnType<string | null, string | number | null, string | number | null>
  head: string | null
  scope: Generated<string>
  took_ms: Generated<number>
}

type KeptTable = { peer_id: number; resource_id: number; record_id: string; origin: number; clock: Int8 }

type HistoryTable = {
  id: GeneratedInt8
  resource_id: number
  record_id: string
  run_id: ColumnType<string | null, string | null | undefined, string | null>
  at: DefaultTimestamp
  reason: string
  origin: number
  clock: Int8
  seen: NullableJson<Record<string, number>>
  deleted: boolean
  data: NullableJson
  refs: NullableJson<Record<string, string | null>>
  xact: ColumnType<string | null, string | null | undefined, string | null>
  source: number | null
  by_origin: number | null
  by_clock: ColumnType<string | null, string | number | null | undefined, string | number | null>
  rule: string | null
}

type RunBatchTable = {
  run_id: Int8
  xact: ColumnType<string | null, string | null | undefined, string | null>
  at: DefaultTimestamp
  resource_id: number
  source: number | null
  inserted: number
  changed: number
}

type QuarantineTable = {
  id: GeneratedInt8
  peer_id: number
  resource_id: number
  record_id: string
  /** Whether we pulled it or the peer pushed it: a push is tried again only within what the peer is granted then. */
  via: 'pull' | 'push'
  origin: number
  clock: Int8
  run_id: ColumnType<string | null, string | null | undefined, string | null>
  line: string
  header: JsonColumn
  code: string
  reason: string
  waits_resource_id: number | null
  waits_record_id: string | null
  attempts: Generated<number>
  first_at: DefaultTimestamp
  last_at: DefaultTimestamp
  retry_at: ColumnType<string | null, string | null | undefined, string | null>
  asked_at: ColumnType<string | null, string | null | undefined, string | null>
}

type ConflictTable = {
  id: GeneratedInt8
  peer_id: number | null
  resource_id: number
  record_id: string
  run_id: ColumnType<string | null, string | null | undefined, string | null>
  base: NullableJson
  base_version: NullableJson
  ours: NullableJson
  ours_version: JsonColumn
  theirs: NullableJson
  theirs_version: JsonColumn
  fields: string[] | null
  header: JsonColumn
  line: string
  opened_at: DefaultTimestamp
  updated_at: DefaultTimestamp
  resolved_at: ColumnType<string | null, string | null | undefined, string | null>
  resolved_by: string | null
  resolution: string | null
  comment: string | null
}

type PendingRefTable = {
  resource_id: number
  record_id: string
  column_name: string
  target_resource_id: number
  target_record_id: string
}

type ParkedTable = { resource_id: number; record_id: string; fields: JsonColumn }

type ParkedFieldTable = { resource_id: number; name: string }

type PurgedTable = {
  id_hash: Int8
  clock: Int8
  xact: ColumnType<string, string, string>
  resource_id: number
  origin: number
  seen: NullableJson<Record<string, number>>
}

type PurgeTable = { resource_id: number; steps: Int8; xact: string; record_id: string }

type PeerSchemaTable = {
  peer_id: number
  resource: string
  fingerprint: string
  columns: JsonColumn
  at: DefaultTimestamp
}

type SharedTable = { peer_id: number; resource_id: number; record_id: string; gone: Generated<boolean> }

type CheckpointTable = {
  peer_id: number
  resource_id: number
  direction: 'pull' | 'push' | 'ack'
  value: string
  at: DefaultTimestamp
}

type RunTable = {
  id: GeneratedInt8
  peer_id: number | null
  peer_name: string | null
  cause: string
  state: string
  started_at: DefaultTimestamp
  alive_at: DefaultTimestamp
  finished_at: ColumnType<string | null, string | null | undefined, string | null>
  result: 'success' | 'warning' | 'error' | 'fatal' | null
  code: string | null
  message: string | null
  counts: ColumnType<Readonly<Record<string, number>>, string | undefined, string>
  received: ColumnType<string | null, string | null | undefined, string | null>
}

type LogTable = {
  id: GeneratedInt8
  at: DefaultTimestamp
  run_id: ColumnType<string | null, string | null | undefined, string | null>
  peer_id: number | null
  peer_name: string | null
  resource: string | null
  mode: string
  direction: 'incoming' | 'outgoing' | 'none'
  action: string
  result: 'success' | 'warning' | 'error' | 'fatal'
  remote: Generated<boolean>
  message: string
  changes: Generated<number>
  applied: Generated<number>
  conflicts: Generated<number>
  quarantined: Generated<number>
  refused: Generated<number>
  bytes: ColumnType<string, string | number | undefined, string | number>
  duration_ms: Generated<number>
}

type BrakeTable = {
  id: GeneratedInt8
  token: string
  peer_id: number
  resource_id: number | null
  direction: 'pull' | 'push' | 'receive' | 'peer' | 'repair'
  rules: string[]
  reason: string
  facts: JsonColumn
  run_id: ColumnType<string | null, string | null | undefined, string | null>
  opened_at: DefaultTimestamp
  seen_at: DefaultTimestamp
  times: Generated<number>
  released_at: ColumnType<string | null, string | null | undefined, string | null>
  released_by: string | null
  comment: string | null
  used_at: ColumnType<string | null, string | null | undefined, string | null>
  ended_at: ColumnType<string | null, string | null | undefined, string | null>
  ending: 'used' | 'changed' | 'cleared' | 'expired' | null
}

type BrakeMeterTable = { peer_id: number; resource_id: number; since: DefaultTimestamp; deletes: Int8; changes: Int8 }

type PeerMarkTable = {
  peer_id: number
  mark: string
  first_at: DefaultTimestamp
  superseded_at: ColumnType<string | null, string | null | undefined, string | null>
}
