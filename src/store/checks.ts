import { type Kysely, sql } from 'kysely'
import { columnsOf, TEXT_TYPES } from './attach.ts'
import { captureFaults, captureWarnings } from './capture.ts'
import { SENT_ID_BYTES_MAX } from './collect.ts'
import { attachCommand } from './mends.ts'
import { schemaSkews } from './peer-schema.ts'
import { tombstoneState } from './purge.ts'
import { type Column, loadResources, type ResourceInfo, readTableFacts } from './resources.ts'
import { rowTriggerWarnings } from './row-triggers.ts'
import type { Database } from './schema.ts'

export type ResourceCheck = {
  readonly resource: string
  readonly faults: readonly string[]
  /** The commands that mend them; absent when there is nothing to mend. */
  readonly mends?: readonly string[]
  /** What works, and an owner of the table could still improve; absent when there is nothing. */
  readonly warnings?: readonly string[]
}

/** Compares every resource with its table as it is now: triggers, columns, registration. */
export async function checkResources(db: Kysely<Database>, name?: string): Promise<readonly ResourceCheck[]> {
  const all = await loadResources(db)
  const checks: ResourceCheck[] = []
  for (const resource of all.filter((each) => name === undefined || each.name === name)) {
    const broken = await captureFaults(db, resource)
    const faults = broken.map((fault) => `${fault.table}: ${fault.fault}`)
    const mends = new Set(broken.map(({ mend }) => mend))
    const fault = (what: readonly string[], mend: string) => {
      faults.push(...what)
      if (what.length > 0) mends.add(mend)
    }
    const [table, again] = [`${resource.tableSchema}.${resource.tableName}`, attachCommand(resource)]
    const facts = await readTableFacts(db, table)
    if (facts?.oid === resource.tableOid) {
      fault(columnFaults(resource, columnsOf(facts, resource.keyColumn)), again)
      if (facts.rowsHidden)
        fault(
          ['row security hides rows of the table from the role of Syncline'],
          `the owner of the table gives the role of Syncline a policy that shows it every row of ${table}`,
        )
    } else {
      const moved = await nameNow(db, resource)
      const what = moved === null ? '' : `; the table that was attached is ${moved.tableSchema}.${moved.tableName} now`
      if (moved !== null || facts !== null)
        fault(
          [`${table} is ${facts === null ? 'no table any more' : 'another table now'}${what}`],
          attachCommand({ ...resource, ...moved }),
        )
    }
    const unfit = await unfitIds(db, resource)
    if (unfit > 0)
      fault(
        [`${unfit} record(s) cannot travel: their identity is empty or longer than ${SENT_ID_BYTES_MAX} bytes`],
        `give these records another ${resource.keyColumn}`,
      )
    if (!resource.ready) fault(['existing rows are not all registered'], again)
    const skews = (await schemaSkews(db, [resource])).flatMap(({ notes }) => notes)
    const altering = await rowTriggerWarnings(db, resource)
    const warnings = [
      ...(await captureWarnings(db, resource)),
      ...skews,
      ...(await heldTombstones(db, resource)),
      ...altering,
    ]
    const told = { ...(mends.size > 0 && { mends: [...mends] }), ...(warnings.length > 0 && { warnings }) }
    checks.push({ resource: resource.name, faults, ...told })
  }
  return checks
}

/** Deletions that wait for peers, in words. */
async function heldTombstones(db: Kysely<Database>, resource: ResourceInfo): Promise<readonly string[]> {
  const self = await db.selectFrom('syncline.self').select('log_id').executeTakeFirst()
  if (self === undefined) return []
  const { heldBy } = await tombstoneState(db, resource.id, self.log_id)
  return heldBy.map(
    ({ peer, tombstones, since }) =>
      `${tombstones} deletion(s) are kept for ${peer}, which ${since === null ? 'never said how far it is' : `was last here at ${since.slice(0, 16)}`}`,
  )
}

function columnFaults(resource: ResourceInfo, now: readonly Column[]): string[] {
  const faults: string[] = []
  for (const column of resource.columns) {
    const current = now.find((other) => other.name === column.name)
    if (current === undefined) faults.push(`column "${column.name}" is gone`)
    else if (current.typeName !== column.typeName)
      faults.push(`column "${column.name}" was ${column.typeName} and is ${current.typeName}`)
    else if (column.declared !== undefined && current.declared !== column.declared)
      faults.push(`column "${column.name}" was ${column.declared} and is ${current.declared}`)
    else if (current.notNull !== column.notNull || current.sent !== column.sent)
      faults.push(`column "${column.name}" changed its rules`)
  }
  for (const column of now) {
    if (!resource.columns.some((other) => other.name === column.name))
      faults.push(`column "${column.name}" is new and not synced yet`)
  }
  return faults
}

/** Records that the wire has no room for. */
async function unfitIds(db: Kysely<Database>, resource: ResourceInfo): Promise<number> {
  if (!TEXT_TYPES.has(resource.columns.find((column) => column.name === resource.keyColumn)?.baseType ?? '')) return 0
  const { rows } = await sql<{ count: number }>`
    select count(*)::int as count from syncline.record
     where resource_id = ${resource.id} and not deleted and octet_length(record_id) not between 1 and ${SENT_ID_BYTES_MAX}`.execute(
    db,
  )
  return rows[0]?.count ?? 0
}

/** Where the table that was attached is now, by its number; null when it is gone. */
async function nameNow(
  db: Kysely<Database>,
  resource: ResourceInfo,
): Promise<Pick<ResourceInfo, 'tableSchema' | 'tableName'> | null> {
  const { rows } = await sql<{ tableSchema: string; tableName: string }>`
    select n.nspname as "tableSchema", c.relname as "tableName" from pg_class c join pg_namespace n on n.oid = c.relnamespace
     where c.oid = ${resource.tableOid}::oid`.execute(db)
  return rows[0] ?? null
}
