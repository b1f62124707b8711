import type { ColumnType, Generated } from 'kysely'
import type { Json } from '../sync/index.ts'
import type { DefaultTimestamp, GeneratedInt8 } from './schema.ts'

/** Row types of jobs, their runs, the tries of their steps, and leases. */
export type JobTables = {
  'syncline.job_definition': JobTable
  'syncline.job_run': JobRunTable
  'syncline.job_step': JobStepTable
  'syncline.lease': LeaseTable
}

type NullableTime = ColumnType<string | null, string | null | undefined, string | null>
type JsonText<T> = ColumnType<T, string, string>
type DefaultJson<T> = ColumnType<T, string | undefined, string>
type NullableJson<T> = ColumnType<T | null, string | null | undefined, string | null>

type JobTable = {
  id: Generated<number>
  name: string
  definition: JsonText<Json>
  revision: Generated<number>
  enabled: boolean
  events: Generated<string[]>
  considered_at: DefaultTimestamp
  next_due: NullableTime
  created_at: DefaultTimestamp
  changed_at: DefaultTimestamp
  last_result: string | null
  last_finished_at: NullableTime
  last_success_at: NullableTime
}

export const JOB_PHASES = ['queued', 'waiting', 'running', 'over'] as const
export type JobPhase = (typeof JOB_PHASES)[number]
export const JOB_RESULTS = ['success', 'warning', 'error', 'skipped', 'stopped'] as const
export type JobResult = (typeof JOB_RESULTS)[number]

type JobRunTable = {
  id: GeneratedInt8
  job_id: number | null
  job_name: string
  cause: string
  caller: string | null
  due_at: NullableTime
  phase: Generated<JobPhase>
  next_at: DefaultTimestamp
  definition: JsonText<Json>
  state: NullableJson<Json>
  dry_run: Generated<boolean>
  priority: Generated<number>
  peers: Generated<string[]>
  coalesced: Generated<number>
  reason: string | null
  waiting_since: NullableTime
  blocked_ms: ColumnType<string, string | number | undefined, string | number>
  token: Generated<string>
  worker: string | null
  host: string | null
  pid: number | null
  alive_until: NullableTime
  stop_asked_at: NullableTime
  stop_asked_by: string | null
  queued_at: DefaultTimestamp
  started_at: NullableTime
  finished_at: NullableTime
  result: JobResult | null
  code: string | null
  message: string | null
  counts: DefaultJson<Readonly<Record<string, number>>>
  progress: NullableJson<Json>
  dead: Generated<boolean>
  changed_at: DefaultTimestamp
}

type JobStepTable = {
  id: GeneratedInt8
  run_id: ColumnType<string, string, string>
  stage: 'steps' | 'always'
  place: number
  name: string
  kind: string
  attempt: number
  host: string
  started_at: DefaultTimestamp
  finished_at: NullableTime
  result: 'success' | 'warning' | 'error' | null
  code: string | null
  message: string | null
  counts: DefaultJson<Readonly<Record<string, number>>>
  output: Generated<string>
}

type LeaseTable = {
  name: string
  token: string
  owner: string
  run_id: string | null
  site: string
  host: string
  pid: number
  peer_id: number | null
  taken_at: DefaultTimestamp
  renewed_at: DefaultTimestamp
  expires_at: DefaultTimestamp
}
