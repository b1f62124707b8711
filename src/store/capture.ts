import { type Kysely, sql } from 'kysely'
import { captureFunction, captureFunctionSql } from './capture-function.ts'
import { type AttachedAs, attachCommand } from './mends.ts'
import { quoteIdent } from './quote.ts'
import type { ResourceInfo } from './resources.ts'
import type { Database } from './schema.ts'

/** Raised when the text of the capture functions changes: `resource check` then reports older triggers as outdated. */
export const CAPTURE_VERSION = 3

const EVENTS = ['insert', 'update', 'delete', 'truncate'] as const
type CaptureEvent = (typeof EVENTS)[number]

/** Updates come row by row, except of a partitioned table. */
function transitions(event: CaptureEvent, sets: boolean): string {
  switch (event) {
    case 'insert':
      return 'referencing new table as new_rows for each statement'
    case 'update':
      return sets ? 'referencing old table as old_rows new table as new_rows for each statement' : 'for each row'
    case 'delete':
      return 'referencing old table as old_rows for each statement'
    case 'truncate':
      return 'for each statement'
  }
}

/** Trigger names sort last, so that other AFTER triggers of the statement have run before. */
export function triggerName(event: CaptureEvent): string {
  return `zz_syncline_${event}`
}

function qualified(resource: { tableSchema: string; tableName: string }): string {
  return `${quoteIdent(resource.tableSchema)}.${quoteIdent(resource.tableName)}`
}

/**
 * Makes or renews the function, and the triggers that are missing or not ours. A trigger that has to be made takes a lock on the table that
 * waits for running writers; the caller bounds the wait.
 */
export async function installCapture(db: Kysely<Database>, resource: ResourceInfo): Promise<void> {
  await sql.raw(captureFunctionSql(resource)).execute(db)
  await sql.raw(`revoke all on function ${captureFunction(resource.id)}() from public`).execute(db)
  for (const table of await tablesOf(db, resource.tableOid)) {
    const found = await triggersOf(db, table, resource)
    // Only an owner may do this; elsewhere a session with session_replication_role = replica goes unseen, which `check` reports.
    const mine = await ownsTable(db, table.oid)
    for (const event of EVENTS) {
      const trigger = found.get(triggerName(event))
      if (trigger !== undefined && !trigger.ours)
        await sql.raw(`drop trigger ${triggerName(event)} on ${table.name}`).execute(db)
      if (!trigger?.ours) {
        await sql
          .raw(
            `create trigger ${triggerName(event)} after ${event} on ${table.name} ${transitions(event, table.partitioned)}
             execute function ${captureFunction(resource.id)}()`,
          )
          .execute(db)
      }
      if (mine && !(trigger?.ours && trigger.state === 'A'))
        await sql.raw(`alter table ${table.name} enable always trigger ${triggerName(event)}`).execute(db)
    }
  }
}

type Trigger = { readonly state: string; readonly ours: boolean }

/** Triggers of one table by name; ours are those that call the capture function of the resource as they should. */
async function triggersOf(
  db: Kysely<Database>,
  { oid, partitioned }: CapturedTable,
  resource: ResourceInfo,
): Promise<ReadonlyMap<string, Trigger>> {
  const { rows } = await sql<Trigger & { name: string }>`
    select tgname as name, tgenabled::text as state, coalesce(tgfoid = to_regproc(${captureFunction(resource.id)})::oid, false)
             and (tgtype & 1 = 1) = (tgname = ${triggerName('update')} and not ${partitioned}) as ours
      from pg_trigger where tgrelid = ${oid}::oid and not tgisinternal`.execute(db)
  return new Map(rows.map(({ name, ...trigger }) => [name, trigger]))
}

/** Leaves the table as it was before it was attached. */
export async function removeCapture(db: Kysely<Database>, resource: ResourceInfo): Promise<void> {
  for (const table of await tablesOf(db, resource.tableOid)) {
    for (const event of EVENTS) {
      await sql.raw(`drop trigger if exists ${triggerName(event)} on ${table.name}`).execute(db)
    }
  }
  await sql.raw(`drop function if exists ${captureFunction(resource.id)}()`).execute(db)
}

/** `mend`: a command, or a statement that only the owner of the table may run. */
export type CaptureFault = { readonly table: string; readonly fault: string; readonly mend: string }

/** What is wrong with the triggers of a resource: missing, disabled or made by an older program. Empty when all is well. */
export async function captureFaults(db: Kysely<Database>, resource: ResourceInfo): Promise<readonly CaptureFault[]> {
  const faults: CaptureFault[] = []
  const again = attachCommand(resource)
  const tables = await tablesOf(db, resource.tableOid)
  if (tables.length === 0) {
    const mend = `make the table again, then: ${again}; or let go of it: syncline resource detach ${resource.name}`
    return [{ table: qualified(resource), fault: 'the table no longer exists', mend }]
  }
  for (const table of tables) {
    const found = await triggersOf(db, table, resource)
    const mine = await ownsTable(db, table.oid)
    for (const event of EVENTS) {
      const trigger = found.get(triggerName(event))
      const name = triggerName(event)
      const fault = faultOf(trigger, mine)
      if (fault === null) continue
      // Attaching makes what is missing; what is there may be changed by the owner of the table alone.
      const change = trigger?.ours
        ? `alter table ${table.name} enable always trigger ${name}`
        : `drop trigger ${name} on ${table.name}`
      const mend = trigger === undefined || mine ? again : `the owner of the table runs: ${change}; then: ${again}`
      faults.push({ table: table.name, fault: `trigger ${name} ${fault}`, mend })
    }
  }
  const { rows } = await sql<{ body: string }>`
    select prosrc as body from pg_proc where oid = to_regproc(${captureFunction(resource.id)})`.execute(db)
  const body = captureFunctionSql(resource).split('$capture$')[1]
  if (resource.captureVersion !== CAPTURE_VERSION || rows[0]?.body !== body) {
    faults.push({
      table: qualified(resource),
      fault: 'the triggers were made by another version of the program',
      mend: again,
    })
  }
  return faults
}

/**
 * What an owner could still improve: where this role is none, triggers do not see sessions in the role of a replica until the owner says so. Everything
 * else is captured meanwhile.
 */
export async function captureWarnings(db: Kysely<Database>, resource: ResourceInfo): Promise<readonly string[]> {
  const warnings: string[] = []
  for (const table of await tablesOf(db, resource.tableOid)) {
    if (await ownsTable(db, table.oid)) continue
    const found = await triggersOf(db, table, resource)
    const plain = EVENTS.filter((event) => found.get(triggerName(event))?.state === 'O')
    const statements = plain.map((event) => `alter table ${table.name} enable always trigger ${triggerName(event)};`)
    if (plain.length > 0)
      warnings.push(
        `${table.name}: sessions in the role of a replica go unseen until the owner of the table says: ${statements.join(' ')}`,
      )
  }
  return warnings
}

/** A resource whose table lacks a working trigger, and the command that mends it. */
export type BrokenCapture = { readonly resource: string; readonly mend: string }

/** The resources whose table lacks a working trigger: one query, for every run. `captureFaults` says what is wrong in full. */
export async function brokenCaptures(db: Kysely<Database>): Promise<readonly BrokenCapture[]> {
  const { rows } = await sql<AttachedAs>`
    select r.name, r.table_schema as "tableSchema", r.table_name as "tableName", r.key_column as "keyColumn" from syncline.resource r
     where (select count(*) from pg_trigger t where t.tgrelid = r.table_oid and t.tgenabled in ('O', 'A')
               and t.tgname = any(${EVENTS.map(triggerName)}::text[])) < ${EVENTS.length}
     order by r.name`.execute(db)
  return rows.map((row) => ({ resource: row.name, mend: attachCommand(row) }))
}

function faultOf(trigger: Trigger | undefined, mine: boolean): string | null {
  if (trigger === undefined) return 'is missing'
  if (!trigger.ours) return 'calls another function'
  if (trigger.state === 'D' || trigger.state === 'R') return 'is disabled'
  // Made by us it would be ALWAYS: somebody disabled it, and writes went unseen until it was enabled again.
  if (trigger.state === 'O' && mine)
    return 'does not see sessions in the role of a replica: it was changed, perhaps disabled for a while'
  return null
}

type CapturedTable = { readonly oid: number; readonly name: string; readonly partitioned: boolean }

/** The table itself and, for a partitioned table, every partition: a statement that names a partition fires only its own triggers. */
async function tablesOf(db: Kysely<Database>, tableOid: number): Promise<readonly CapturedTable[]> {
  const { rows } = await sql<CapturedTable>`
    with recursive tree as (
      select c.oid from pg_class c where c.oid = ${tableOid}::oid
      union all
      select i.inhrelid from pg_inherits i join tree on i.inhparent = tree.oid
    )
    select c.oid, format('%I.%I', n.nspname, c.relname) as name, c.relispartition or c.relkind = 'p' as partitioned
      from tree join pg_class c on c.oid = tree.oid join pg_namespace n on n.oid = c.relnamespace order by c.oid`.execute(
    db,
  )
  return rows
}

async function ownsTable(db: Kysely<Database>, oid: number): Promise<boolean> {
  const { rows } = await sql<{ mine: boolean }>`
    select pg_has_role(relowner, 'USAGE') as mine from pg_class where oid = ${oid}::oid`.execute(db)
  return rows[0]?.mine ?? false
}
