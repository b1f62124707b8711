import { type Kysely, sql } from 'kysely'
import { countAlarms } from './alarms.ts'
import { horizon } from './collect.ts'
import { measureJobs } from './job-runs.ts'
import type { Database } from './schema.ts'

/** What waits, and how far things are behind, at this moment. For metrics. */
export type StoreMeasurement = {
  readonly quarantine: readonly { readonly peer: string; readonly resource: string; readonly count: number }[]
  readonly quarantineThere: StoreMeasurement['quarantine']
  readonly alarms: Awaited<ReturnType<typeof countAlarms>>
  readonly conflictsOpen: number
  readonly horizonAgeMs: number
  readonly checkpoints: readonly { readonly peer: string; readonly resource: string; readonly ageMs: number }[]
  readonly work: Awaited<ReturnType<typeof measureJobs>>
}

export async function measureStore(db: Kysely<Database>): Promise<StoreMeasurement> {
  const quarantine = await sql<StoreMeasurement['quarantine'][number]>`
    select p.name as peer, r.name as resource, count(*)::int from syncline.quarantine q
      join syncline.peer p on p.id = q.peer_id join syncline.resource r on r.id = q.resource_id
     group by 1, 2 order by 1, 2`.execute(db)
  const there = await sql<StoreMeasurement['quarantine'][number]>`
    select p.name as peer, r.name as resource, count(*)::int from syncline.elsewhere e
      join syncline.peer p on p.id = e.peer_id join syncline.resource r on r.id = e.resource_id
     where e.outcome = 'quarantined' group by 1, 2 order by 1, 2`.execute(db)
  const conflicts = await sql<{ count: number }>`
    select count(*)::int from syncline.conflict where resolved_at is null`.execute(db)
  const checkpoints = await sql<StoreMeasurement['checkpoints'][number]>`
    select p.name as peer, r.name as resource, (extract(epoch from clock_timestamp() - max(c.at)) * 1000)::float8 as "ageMs"
      from syncline.checkpoint c join syncline.peer p on p.id = c.peer_id join syncline.resource r on r.id = c.resource_id
     group by 1, 2 order by 1, 2`.execute(db)
  const { ageSeconds } = await horizon(db)
  return {
    quarantine: quarantine.rows,
    quarantineThere: there.rows,
    alarms: await countAlarms(db),
    conflictsOpen: conflicts.rows[0]?.count ?? 0,
    horizonAgeMs: ageSeconds * 1000,
    checkpoints: checkpoints.rows,
    work: await measureJobs(db),
  }
}

/** Version of the database server, such as `15.20`. */
export async function serverVersion(db: Kysely<Database>): Promise<string> {
  const { rows } = await sql<{ version: string }>`select current_setting('server_version') as version`.execute(db)
  return rows[0]?.version ?? ''
}
