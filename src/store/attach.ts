import { type Kysely, sql, type Transaction } from 'kysely'
import { SynclineError } from '../sync/index.ts'
import { adoptMissed } from './adopt.ts'
import { CAPTURE_VERSION, installCapture, removeCapture } from './capture.ts'
import type { Store } from './database.ts'
import { beginDigest } from './digest-sum.ts'
import { doubtNarrowed } from './doubt.ts'
import { announceNew, unpark } from './new-columns.ts'
import { toldSchema } from './peer-schema.ts'
import { retryResource } from './quarantine.ts'
import { quoteIdent } from './quote.ts'
import { type AttachProgress, addedUuidColumn, addUuidColumn, registerRows } from './register.ts'
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
import { alteringTables } from './table-lock.ts'

export type { AttachProgress } from './register.ts'

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

export const TEXT_TYPES = new Set(['text', 'varchar', 'bpchar', 'citext'])
const IDENTITY_TYPES = new Set(['uuid', ...TEXT_TYPES])
const INTEGER_TYPES = new Set(['int2', 'int4', 'int8', 'numeric'])

/** Types whose text is the same in every session, so that it can be a record id. */
const KEY_TYPES = new Set([...IDENTITY_TYPES, 'int2', 'int4', 'int8'])

/**
 * Begins capture on existing tables: reads each table, chooses the identity, makes the triggers and registers the rows that are there
 * in bounded steps. Tables that refer to each other are attached together. An attach that was interrupted is completed by attaching again;
 * attaching a table again also takes up what was inserted and deleted while its triggers were missing or disabled.
 * Errors: SYNC_RESOURCE_UNSUITABLE with every reason, SYNC_REQUEST_EXISTS for a name in use, SYNC_STORE_BUSY when the lock was not to be had.
 */
export async function attach(
  store: Store,
  tables: readonly AttachOptions[],
  progress: AttachProgress = () => {},
): Promise<readonly ResourceInfo[]> {
  // Nothing is altered for a table that would be refused afterwards.
  for (const options of tables) {
    const { facts, name, key } = await plan(store.db, options, tables)
    if (key === null) await addUuidColumn(store.db, facts, name, progress)
  }
  const names = await alteringTables(store.db, async (trx) => {
    const plans = []
    for (const options of tables) {
      const { key, ...rest } = await plan(trx, options, tables)
      if (key === null) throw new SynclineError('SYNC_STORE_BUSY', `${options.table} was altered while it was attached`)
      plans.push({ ...rest, key, columns: columnsOf(rest.facts, key) })
    }
    const before = await loadResources(trx)
    for (const each of plans) {
      await insertResource(trx, each)
      await beginDigest(trx, each.name)
    }
    const all = await loadResources(trx)
    for (const each of plans) {
      const resource = all.find((other) => other.name === each.name)
      if (resource === undefined) continue
      await installCapture(trx, resource)
      const earlier = before.find((other) => other.id === resource.id)
      if (earlier !== undefined) {
        await announceNew(trx, resource, earlier)
        const [was, is] = [toldSchema(earlier, null), toldSchema(resource, null)]
        await doubtNarrowed(trx, { resource: resource.name, peerId: null }, was, is)
      }
      await unpark(trx, resource)
      // What waits may fit the table as it is now.
      await retryResource(trx, resource.id)
    }
    return plans.map((each) => each.name)
  })
  const attached: ResourceInfo[] = []
  for (const name of names) {
    const resource = await findResource(store.db, name)
    if (resource.ready) {
      const told = (step: { readonly doing: string; readonly done: number }) =>
        progress({ resource: name, ...step, total: step.done })
      await adoptMissed(store, resource, told)
    }
    await registerRows(store.db, resource, progress)
    attached.push(await findResource(store.db, name))
  }
  return attached
}

/** Ends capture and forgets the resource. The table is left as it was; a uuid column that we added is dropped again. */
export async function detach(store: Store, name: string): Promise<void> {
  await alteringTables(store.db, async (trx) => {
    const resource = await findResource(trx, name)
    const tasks = await trx.selectFrom('syncline.task').select('id').where('resource_id', '=', resource.id).execute()
    if (tasks.length > 0) {
      throw new SynclineError(
        'SYNC_REQUEST_INVALID',
        `resource "${name}" is still in ${tasks.length} task(s); remove those first`,
      )
    }
    await removeCapture(trx, resource)
    if (resource.addedUuid && (await addedUuidColumn(trx, resource.tableOid)) === resource.keyColumn) {
      await sql.raw(`alter table ${liveTable(resource)} drop column ${quoteIdent(resource.keyColumn)}`).execute(trx)
    }
    for (const table of ['record', 'history'] as const) {
      await trx.deleteFrom(`syncline.${table}`).where('resource_id', '=', resource.id).execute()
    }
    await trx.deleteFrom('syncline.resource').where('id', '=', resource.id).execute()
  })
}

type Plan = {
  readonly name: string
  readonly facts: TableFacts
  /** Null: a uuid column is to be added first. */
  readonly key: string | null
  readonly options: AttachOptions
}

async function plan(trx: Kysely<Database>, options: AttachOptions, together: readonly AttachOptions[]): Promise<Plan> {
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
  if (facts.hasParents)
    throw refuse('it inherits from another table, and statements on that one would change its rows unseen')
  if (facts.rowsHidden)
    throw refuse('row security hides rows from the role of Syncline; let that role own the table or bypass it')
  const unsuitable = facts.columns.map(unsuitableType).filter((reason) => reason !== null)
  if (unsuitable.length > 0) throw refuse(unsuitable.join('; '))
  const key = identityOf(facts, options)
  if (key === null) {
    if (!options.addUuid || options.key !== undefined) throw refuse(noIdentity(facts, options))
    if (facts.kind === 'p') throw refuse('PostgreSQL allows no unique uuid column on a partitioned table')
  } else refuseKey(facts, key, refuse)
  const attachedTables = new Set(all.map((resource) => `${resource.tableSchema}.${resource.tableName}`))
  for (const other of together) {
    const found = await readTableFacts(trx, other.table)
    if (found !== null) attachedTables.add(`${found.schema}.${found.name}`)
  }
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
  return { name, facts, key, options }
}

function refuseKey(facts: TableFacts, key: string, refuse: (why: string) => SynclineError): void {
  const column = facts.columns.find((other) => other.name === key)
  if (column === undefined || !KEY_TYPES.has(column.baseType)) {
    throw refuse(`column "${key}" has type ${column?.typeName}; an identity is a uuid, a text or an integer`)
  }
  if (column.generated || column.identity === 'a') {
    throw refuse(
      `column "${key}" is always filled in by the database, so that no record of another site could keep its identity`,
    )
  }
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
      declared: column.declared,
      hasDefault: column.hasDefault,
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

/** Numbers that the database gives out itself would collide at another site; those of an application mean the same everywhere. */
function staysLocal(facts: TableFacts, column: ColumnFacts): boolean {
  if (column.generated || column.identity === 'a') return true
  const key = facts.keys.find((other) => other.column === column.name)
  if (key === undefined || !INTEGER_TYPES.has(column.baseType)) return false
  return column.numbered || (key.primary && column.hasDefault)
}

async function partitionRoot(db: Kysely<Database>, oid: number): Promise<string> {
  const { rows } = await sql<{ root: string }>`select pg_partition_root(${oid}::oid::regclass)::text as root`.execute(
    db,
  )
  return rows[0]?.root ?? 'another table'
}

async function insertResource(
  trx: Transaction<Database>,
  each: Plan & { readonly key: string; readonly columns: readonly Column[] },
): Promise<void> {
  const addedUuid = each.key === (await addedUuidColumn(trx, each.facts.oid))
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
