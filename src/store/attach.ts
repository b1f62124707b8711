import { type Kysely, sql, type Transaction } from 'kysely'
import { SynclineError } from '../sync/index.ts'
import { CAPTURE_VERSION, captureFaults, installCapture, quoteIdent, removeCapture } from './capture.ts'
import type { Store } from './database.ts'
import {
  type Column,
  type ColumnFacts,
  findResource,
  fingerprintOf,
  formOf,
  liveTable,
  loadResources,
  type ResourceInfo,
  readTableFacts,
  type TableFacts,
  unsuitableType,
} from './resources.ts'
import type { Database } from './schema.ts'

export type AttachOptions = {
  /** `schema.table` or `table`. */
  readonly table: string
  /** Name of the resource; the table's name when absent. */
  readonly name?: string | undefined
  /** Identity column; chosen when absent. */
  readonly key?: string | undefined
  /** Adds a unique uuid column when the table has no usable identity. */
  readonly addUuid?: boolean | undefined
  readonly managed?: boolean | undefined
}

export type AttachProgress = (step: {
  readonly resource: string
  readonly doing: string
  readonly done: number
  readonly total: number
}) => void

/** Rows handled between two commits while an existing table is prepared: short enough that writers hardly notice. */
const STEP_ROWS = 5_000
const IDENTITY_TYPES = new Set(['uuid', 'text', 'varchar', 'bpchar', 'citext'])
const INTEGER_TYPES = new Set(['int2', 'int4', 'int8', 'numeric'])

/**
 * Begins capture on existing tables: reads each table, chooses the identity, makes the triggers and registers the rows that are there
 * in bounded steps. Tables that refer to each other are attached together. An attach that was interrupted is completed by attaching again.
 * Errors: SYNC_RESOURCE_UNSUITABLE with every reason, SYNC_REQUEST_EXISTS for a name in use, SYNC_STORE_BUSY when the lock was not to be had.
 */
export async function attach(
  store: Store,
  tables: readonly AttachOptions[],
  progress: AttachProgress = () => {},
): Promise<readonly ResourceInfo[]> {
  const added = new Set<AttachOptions>()
  for (const options of tables) {
    if (options.addUuid && (await addUuidColumn(store, options, progress))) added.add(options)
  }
  const names = await store.db
    .transaction()
    .execute(async (trx) => {
      // Waiting long for the table's lock would make every writer behind us wait too.
      await sql`set local lock_timeout = '5s'`.execute(trx)
      const plans = []
      for (const options of tables) plans.push(await plan(trx, options, tables))
      for (const each of plans) await insertResource(trx, each, added.has(each.options))
      const all = await loadResources(trx)
      for (const each of plans) {
        const resource = all.find((other) => other.name === each.name)
        if (resource !== undefined) await installCapture(trx, resource)
      }
      return plans.map((each) => each.name)
    })
    .catch(explainLock)
  const attached: ResourceInfo[] = []
  for (const name of names) {
    await registerRows(store.db, await findResource(store.db, name), progress)
    attached.push(await findResource(store.db, name))
  }
  return attached
}

/** Ends capture and forgets the resource. The table is left as it was; a uuid column that we added is dropped again. */
export async function detach(store: Store, name: string): Promise<void> {
  await store.db
    .transaction()
    .execute(async (trx) => {
      await sql`set local lock_timeout = '5s'`.execute(trx)
      const resource = await findResource(trx, name)
      const tasks = await trx.selectFrom('syncline.task').select('id').where('resource_id', '=', resource.id).execute()
      if (tasks.length > 0) {
        throw new SynclineError(
          'SYNC_REQUEST_INVALID',
          `resource "${name}" is still in ${tasks.length} task(s); remove those first`,
        )
      }
      await removeCapture(trx, resource)
      if (resource.addedUuid) {
        await sql.raw(`alter table ${liveTable(resource)} drop column ${quoteIdent(resource.keyColumn)}`).execute(trx)
      }
      for (const table of ['record', 'history'] as const) {
        await trx.deleteFrom(`syncline.${table}`).where('resource_id', '=', resource.id).execute()
      }
      await trx.deleteFrom('syncline.resource').where('id', '=', resource.id).execute()
    })
    .catch(explainLock)
}

export type ResourceCheck = { readonly resource: string; readonly faults: readonly string[] }

/** Compares every resource with its table as it is now: triggers, columns, registration. */
export async function checkResources(db: Kysely<Database>, name?: string): Promise<readonly ResourceCheck[]> {
  const all = await loadResources(db)
  const checks: ResourceCheck[] = []
  for (const resource of all.filter((each) => name === undefined || each.name === name)) {
    const faults = (await captureFaults(db, resource)).map((fault) => `${fault.table}: ${fault.fault}`)
    const facts = await readTableFacts(db, `${resource.tableSchema}.${resource.tableName}`)
    if (facts !== null) faults.push(...columnFaults(resource, columnsOf(facts, resource.keyColumn)))
    if (!resource.ready) faults.push('existing rows are not all registered; attach the table again to go on')
    checks.push({ resource: resource.name, faults })
  }
  return checks
}

function columnFaults(resource: ResourceInfo, now: readonly Column[]): string[] {
  const faults: string[] = []
  for (const column of resource.columns) {
    const current = now.find((other) => other.name === column.name)
    if (current === undefined) faults.push(`column "${column.name}" is gone`)
    else if (current.typeName !== column.typeName)
      faults.push(`column "${column.name}" was ${column.typeName} and is ${current.typeName}`)
    else if (current.notNull !== column.notNull || current.sent !== column.sent)
      faults.push(`column "${column.name}" changed its rules`)
  }
  for (const column of now) {
    if (!resource.columns.some((other) => other.name === column.name))
      faults.push(`column "${column.name}" is new and not synced yet`)
  }
  return faults
}

type Plan = {
  readonly name: string
  readonly facts: TableFacts
  readonly key: string
  readonly columns: readonly Column[]
  readonly options: AttachOptions
}

async function plan(
  trx: Transaction<Database>,
  options: AttachOptions,
  together: readonly AttachOptions[],
): Promise<Plan> {
  const facts = await readTableFacts(trx, options.table)
  if (facts === null)
    throw new SynclineError(
      'SYNC_RESOURCE_UNSUITABLE',
      `there is no table ${options.table}, or this role may not see it`,
    )
  const table = `${facts.schema}.${facts.name}`
  const refuse = (why: string) => new SynclineError('SYNC_RESOURCE_UNSUITABLE', `${table} cannot be attached: ${why}`)
  const managed = options.managed === true && facts.name.startsWith('data_')
  if (facts.schema === 'syncline' && !managed) throw refuse('it belongs to Syncline itself')
  if (facts.kind === 'v' || facts.kind === 'm') throw refuse('it is a view; attach the tables it reads')
  if (facts.kind === 'f') throw refuse('it is a foreign table; attach it where its rows live')
  if (facts.hasChildren) throw refuse('other tables inherit from it, and their rows would be counted twice')
  const all = await loadResources(trx)
  if (facts.isPartition) {
    const parent = await partitionRoot(trx, facts.oid)
    throw refuse(`it is a partition of ${parent}; attach ${parent}`)
  }
  const unsuitable = facts.columns.map(unsuitableType).filter((reason) => reason !== null)
  if (unsuitable.length > 0) throw refuse(unsuitable.join('; '))
  const key = identityOf(facts, options)
  if (key === null) throw refuse(noIdentity(facts, options))
  const attachedTables = new Set([
    table,
    ...all.map((resource) => `${resource.tableSchema}.${resource.tableName}`),
    ...together.flatMap((other) => [other.table, `public.${other.table}`]),
  ])
  const strays = facts.foreignKeys.filter((fk) => {
    const column = facts.columns.find((other) => other.name === fk.column)
    return (
      !attachedTables.has(`${fk.tableSchema}.${fk.tableName}`) &&
      column !== undefined &&
      INTEGER_TYPES.has(column.baseType)
    )
  })
  if (strays.length > 0) {
    const list = strays.map((fk) => `"${fk.column}" refers to ${fk.tableSchema}.${fk.tableName}`).join('; ')
    throw refuse(
      `${list}: numbers of a table that is not attached mean nothing at another site; attach the tables together`,
    )
  }
  const name = options.name ?? facts.name
  if (!/^[A-Za-z_][A-Za-z0-9_.-]{0,62}$/.test(name)) {
    throw new SynclineError('SYNC_REQUEST_INVALID', `"${name}" cannot be the name of a resource; give one with --name`)
  }
  const taken = all.find((resource) => resource.name === name && resource.tableOid !== facts.oid)
  if (taken !== undefined) {
    throw new SynclineError(
      'SYNC_REQUEST_EXISTS',
      `resource "${name}" is already ${taken.tableSchema}.${taken.tableName}; give another --name`,
    )
  }
  const same = all.find((resource) => resource.tableOid === facts.oid)
  if (same !== undefined && (same.name !== name || same.keyColumn !== key)) {
    throw refuse(`it is attached already as "${same.name}" with identity "${same.keyColumn}"; detach it first`)
  }
  return { name, facts, key, columns: columnsOf(facts, key), options }
}

function identityOf(facts: TableFacts, options: AttachOptions): string | null {
  const typeOf = (name: string) => facts.columns.find((column) => column.name === name)?.baseType ?? ''
  if (options.key !== undefined) return facts.keys.some((key) => key.column === options.key) ? options.key : null
  const primary = facts.keys.find((key) => key.primary && IDENTITY_TYPES.has(typeOf(key.column)))
  return primary?.column ?? facts.keys.find((key) => typeOf(key.column) === 'uuid')?.column ?? null
}

function noIdentity(facts: TableFacts, options: AttachOptions): string {
  if (options.key !== undefined) return `column "${options.key}" is not both unique on its own and not null`
  const uuids = facts.columns.filter((column) => column.baseType === 'uuid')
  const near = uuids.length === 0 ? '' : ` (column "${uuids[0]?.name}" would do if it were unique and not null)`
  return `it has no uuid or text primary key and no unique uuid column${near}; use --key, or --add-uuid to add one`
}

/** What each column is to synchronization. Local keys, generated and always-identity columns stay on their site. */
export function columnsOf(facts: TableFacts, key: string): readonly Column[] {
  return facts.columns.map((column) => {
    const foreignKey = facts.foreignKeys.find((fk) => fk.column === column.name)
    return {
      name: column.name,
      typeName: column.typeName,
      baseType: column.baseType,
      type: column.type,
      form: formOf(column),
      notNull: column.notNull,
      // The identity travels as the record id, once.
      sent: column.name !== key && !staysLocal(facts, column),
      ...(foreignKey === undefined
        ? {}
        : {
            reference: {
              tableSchema: foreignKey.tableSchema,
              tableName: foreignKey.tableName,
              targetColumn: foreignKey.targetColumn,
            },
          }),
    }
  })
}

function staysLocal(facts: TableFacts, column: ColumnFacts): boolean {
  const primary = facts.keys.some((other) => other.primary && other.column === column.name)
  return column.generated || column.identity === 'a' || (primary && INTEGER_TYPES.has(column.baseType))
}

async function partitionRoot(db: Kysely<Database>, oid: number): Promise<string> {
  const { rows } = await sql<{ root: string }>`select pg_partition_root(${oid}::oid::regclass)::text as root`.execute(
    db,
  )
  return rows[0]?.root ?? 'another table'
}

async function insertResource(trx: Transaction<Database>, each: Plan, addedUuid: boolean): Promise<void> {
  const values = {
    name: each.name,
    table_schema: each.facts.schema,
    table_name: each.facts.name,
    table_oid: each.facts.oid,
    key_column: each.key,
    columns: JSON.stringify(each.columns),
    fingerprint: fingerprintOf(each.columns),
    capture_version: CAPTURE_VERSION,
  }
  await trx
    .insertInto('syncline.resource')
    .values({ ...values, registered_after: null, managed: each.options.managed ?? false, added_uuid: addedUuid })
    .onConflict((conflict) => conflict.column('name').doUpdateSet(values))
    .execute()
}

/**
 * Gives every row that was there before the triggers a version of this site, a bounded number of rows for each commit.
 * A row that the triggers met first keeps what they wrote. Goes on where an interrupted attach stopped.
 */
async function registerRows(db: Kysely<Database>, resource: ResourceInfo, progress: AttachProgress): Promise<void> {
  const { rows } = await sql<{ estimate: string }>`
    select greatest(reltuples, 0)::int8 as estimate from pg_class where oid = ${resource.tableOid}::oid`.execute(db)
  const total = Number(rows[0]?.estimate ?? 0)
  const state = await db
    .selectFrom('syncline.resource')
    .select(['ready', 'registered_after'])
    .where('id', '=', resource.id)
    .executeTakeFirstOrThrow()
  if (state.ready) return
  const key = sql.id(resource.keyColumn)
  const table = sql.id(resource.tableSchema, resource.tableName)
  let after = state.registered_after
  let done = 0
  for (;;) {
    const step = await db.transaction().execute(async (trx) => {
      const from = after === null ? sql`` : sql`where t.${key} > ${after}::text::${sql.raw(resource.keyType)}`
      const { rows: last } = await sql<{ last: string | null; rows: number }>`
        with page as materialized (select t.${key} as key from ${table} t ${from} order by t.${key} limit ${STEP_ROWS}),
        made as (
          insert into syncline.record (resource_id, record_id, xact, origin, clock)
          select ${resource.id}, page.key::text collate "C", pg_current_xact_id(), (select site_id from syncline.self),
                 (extract(epoch from clock_timestamp()) * 1000000)::int8
            from page order by 2
          on conflict (resource_id, record_id) do nothing
        )
        select (select key::text from page order by page.key desc limit 1) as last, count(*)::int as rows from page`.execute(
        trx,
      )
      const page = last[0] ?? { last: null, rows: 0 }
      await trx
        .updateTable('syncline.resource')
        .set(page.rows < STEP_ROWS ? { ready: true, registered_after: null } : { registered_after: page.last })
        .where('id', '=', resource.id)
        .execute()
      return page
    })
    done += step.rows
    progress({ resource: resource.name, doing: 'registering rows', done, total: Math.max(total, done) })
    if (step.rows < STEP_ROWS) break
    after = step.last
  }
  // The first baseline follows soon; without statistics its plans would be guesses.
  await sql`analyze syncline.record`.execute(db)
}

/** Adds a unique uuid column without holding the table: nullable first, filled in steps, indexed concurrently, then made not null. */
async function addUuidColumn(store: Store, options: AttachOptions, progress: AttachProgress): Promise<boolean> {
  const facts = await readTableFacts(store.db, options.table)
  if (facts === null || !['r', 'p'].includes(facts.kind) || identityOf(facts, options) !== null) return false
  const table = `${quoteIdent(facts.schema)}.${quoteIdent(facts.name)}`
  const name = facts.columns.some((column) => column.name === 'uuid') ? 'syncline_uuid' : 'uuid'
  const column = quoteIdent(name)
  const run = (text: string) => sql.raw(text).execute(store.db)
  await run(`alter table ${table} add column if not exists ${column} uuid`)
  await run(`alter table ${table} alter column ${column} set default gen_random_uuid()`)
  let done = 0
  for (;;) {
    const { numAffectedRows } = await run(
      `update ${table} set ${column} = gen_random_uuid()
        where ctid = any (array(select ctid from ${table} where ${column} is null limit ${STEP_ROWS}))`,
    )
    done += Number(numAffectedRows ?? 0)
    progress({ resource: options.name ?? facts.name, doing: 'giving rows a uuid', done, total: done })
    if (Number(numAffectedRows ?? 0) === 0) break
  }
  const index = quoteIdent(`${facts.name.slice(0, 40)}_syncline_uuid`)
  await run(`drop index if exists ${quoteIdent(facts.schema)}.${index}`)
  // Partitioned tables know no concurrent build; there the lock is taken for the time of the build.
  const how = facts.kind === 'p' ? '' : 'concurrently'
  await run(`create unique index ${how} ${index} on ${table} (${column})`)
  const check = quoteIdent('syncline_uuid_given')
  await run(`alter table ${table} drop constraint if exists ${check}`)
  await run(`alter table ${table} add constraint ${check} check (${column} is not null) not valid`)
  await run(`alter table ${table} validate constraint ${check}`)
  await run(`alter table ${table} alter column ${column} set not null`)
  await run(`alter table ${table} drop constraint ${check}`)
  return true
}

function explainLock(error: unknown): never {
  if ((error as { code?: string }).code === '55P03') {
    throw new SynclineError(
      'SYNC_STORE_BUSY',
      'the table is in use by a long transaction; try again when it has ended',
      { cause: error },
    )
  }
  if ((error as { code?: string }).code === '42501') {
    throw new SynclineError(
      'SYNC_STORE_RIGHTS',
      `${(error as Error).message}: the role of Syncline needs TRIGGER, SELECT, INSERT, UPDATE and DELETE on the table`,
      { cause: error },
    )
  }
  throw error
}
