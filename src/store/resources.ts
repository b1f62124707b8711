import { createHash } from 'node:crypto'
import { type Kysely, sql } from 'kysely'
import { SynclineError } from '../sync/index.ts'
import { KEPT_PLAN } from './connection.ts'
import { quoteIdent } from './quote.ts'
import type { Database } from './schema.ts'

/** How a value crosses between a column and JSON: as JSON itself, as PostgreSQL text, as embedded JSON, or as a JSON array. */
export type ColumnForm = 'native' | 'text' | 'json' | 'array'

export type Column = {
  readonly name: string
  /** Name in pg_type without schema, such as int4, uuid, _text. */
  readonly typeName: string
  /** The same under all domains. */
  readonly baseType: string
  /** Quoted and qualified, without length: casting to it never cuts a value, the assignment then refuses what is too long. */
  readonly type: string
  readonly form: ColumnForm
  readonly notNull: boolean
  /** As PostgreSQL writes it, with its length or precision. Absent where it was attached by an earlier program. */
  readonly declared?: string | undefined
  /** The database fills it in where nothing is sent. */
  readonly hasDefault?: boolean | undefined
  /** False for local keys and generated columns: they stay on their site. */
  readonly sent: boolean
  readonly reference?: ColumnReference | undefined
}

/** A single-column foreign key to an attached table. */
export type ColumnReference = {
  readonly tableSchema: string
  readonly tableName: string
  readonly targetColumn: string
}

/** A reference with what is known of its target now. */
export type ResolvedReference = ColumnReference & {
  readonly column: Column
  readonly resource: string
  readonly resourceId: number
  readonly targetKey: string
  readonly targetKeyType: string
  /** True when the foreign key holds the identity itself, so that no translation is needed. */
  readonly direct: boolean
  /** Part of a cycle of resources (or to the same resource): a nullable one is filled in when its target arrives. */
  readonly cyclic: boolean
}

export type ResourceInfo = {
  readonly id: number
  readonly name: string
  readonly tableSchema: string
  readonly tableName: string
  readonly tableOid: number
  readonly keyColumn: string
  /** To cast a record id to, with the collation of the column where it has one. */
  readonly keyType: string
  readonly columns: readonly Column[]
  readonly references: readonly ResolvedReference[]
  readonly fingerprint: string
  readonly captureVersion: number
  readonly managed: boolean
  readonly addedUuid: boolean
  readonly ready: boolean
  /** What the triggers keep of single fields: null where nothing merges, else the columns that are counted. */
  readonly marks: { readonly counted: readonly string[] } | null
  readonly attachedAt: string
}

/** Record ids are compared by bytes; without the collation of the key, its index would be of no use for looking one up. */
const keyCollation = sql<string | null>`(
  select a.attcollation::regcollation::text from pg_attribute a
   where a.attrelid = table_oid and a.attname = key_column and a.attcollation <> 0)`

/** Every attached resource, parents before those that refer to them; members of a cycle in name order. */
export async function loadResources(db: Kysely<Database>): Promise<readonly ResourceInfo[]> {
  const rows = await db
    .selectFrom('syncline.resource')
    .modifyFront(KEPT_PLAN)
    .select([
      'id',
      'name',
      'table_schema',
      'table_name',
      'table_oid',
      'key_column',
      'columns',
      'fingerprint',
      'capture_version',
      'managed',
      'added_uuid',
      'ready',
      'marks',
      'attached_at',
    ])
    .select(keyCollation.as('key_collation'))
    .orderBy('name')
    .execute()
  const bare = rows.map((row) => {
    const columns = row.columns as unknown as readonly Column[]
    return {
      id: row.id,
      name: row.name,
      tableSchema: row.table_schema,
      tableName: row.table_name,
      tableOid: Number(row.table_oid),
      keyColumn: row.key_column,
      keyType: `${columns.find((column) => column.name === row.key_column)?.type ?? 'text'}${row.key_collation === null ? '' : ` collate ${row.key_collation}`}`,
      columns,
      references: [],
      fingerprint: row.fingerprint,
      captureVersion: row.capture_version,
      managed: row.managed,
      addedUuid: row.added_uuid,
      ready: row.ready,
      marks: row.marks,
      attachedAt: row.attached_at,
    } satisfies ResourceInfo
  })
  return inDependencyOrder(bare)
}

export async function findResource(db: Kysely<Database>, name: string): Promise<ResourceInfo> {
  const all = await loadResources(db)
  const found = all.find((resource) => resource.name === name)
  if (found === undefined) {
    const known = all.map((resource) => resource.name).join(', ') || 'none'
    throw new SynclineError('SYNC_REQUEST_NOT_FOUND', `resource "${name}" is not attached here; attached: ${known}`)
  }
  return found
}

/** The live table, quoted, for building statements. */
export function liveTable(resource: ResourceInfo): string {
  return `${quoteIdent(resource.tableSchema)}.${quoteIdent(resource.tableName)}`
}

/** What travels, in the order it is announced in. */
export function sentColumns(resource: ResourceInfo, only?: readonly string[] | null): readonly Column[] {
  return resource.columns.filter((column) => column.sent && (only == null || only.includes(column.name)))
}

/** Changes with any change of what travels; sites compare it to notice that their tables differ. */
export function fingerprintOf(columns: readonly Column[]): string {
  const text = JSON.stringify(columns.filter((c) => c.sent).map((c) => [c.name, c.declared ?? c.typeName, c.notNull]))
  return createHash('sha256').update(text).digest('hex').slice(0, 16)
}

function inDependencyOrder(bare: readonly ResourceInfo[]): readonly ResourceInfo[] {
  const byTable = new Map(bare.map((resource) => [`${resource.tableSchema}.${resource.tableName}`, resource]))
  const targetsOf = new Map(
    bare.map((resource) => [
      resource.name,
      resource.columns.flatMap((column) => {
        const target = column.reference && byTable.get(`${column.reference.tableSchema}.${column.reference.tableName}`)
        return target === undefined ? [] : [target.name]
      }),
    ]),
  )
  const resolve = (resource: ResourceInfo): ResourceInfo => ({
    ...resource,
    references: resource.columns.flatMap((column): ResolvedReference[] => {
      const reference = column.reference
      const target = reference && byTable.get(`${reference.tableSchema}.${reference.tableName}`)
      if (reference === undefined || target === undefined) return []
      return [
        {
          ...reference,
          column,
          resource: target.name,
          resourceId: target.id,
          targetKey: target.keyColumn,
          targetKeyType: target.keyType,
          direct: reference.targetColumn === target.keyColumn,
          cyclic: reaches(targetsOf, target.name, resource.name),
        },
      ]
    }),
  })
  const ordered: ResourceInfo[] = []
  const visiting = new Set<string>()
  const visit = (resource: ResourceInfo) => {
    if (visiting.has(resource.name)) return
    visiting.add(resource.name)
    for (const name of targetsOf.get(resource.name) ?? []) {
      const target = bare.find((other) => other.name === name)
      if (target !== undefined) visit(target)
    }
    ordered.push(resolve(resource))
  }
  for (const resource of bare) visit(resource)
  return ordered
}

function reaches(edges: ReadonlyMap<string, readonly string[]>, from: string, to: string): boolean {
  const seen = new Set<string>()
  const open = [from]
  for (let name = open.pop(); name !== undefined; name = open.pop()) {
    if (name === to) return true
    if (seen.has(name)) continue
    seen.add(name)
    open.push(...(edges.get(name) ?? []))
  }
  return false
}

/** Types that name something of one database or one server: their values mean nothing elsewhere. */
const LOCAL_TYPES = new Set([
  'oid',
  'regproc',
  'regprocedure',
  'regoper',
  'regoperator',
  'regclass',
  'regcollation',
  'regtype',
  'regrole',
  'regnamespace',
  'regconfig',
  'regdictionary',
  'xid',
  'xid8',
  'cid',
  'tid',
  'pg_lsn',
  'pg_snapshot',
  'txid_snapshot',
  'refcursor',
  'money',
  'aclitem',
])
const NATIVE_TYPES = new Set([
  'bool',
  'int2',
  'int4',
  'float4',
  'float8',
  'date',
  'time',
  'timetz',
  'timestamp',
  'timestamptz',
])

export type TableFacts = {
  readonly oid: number
  readonly kind: string
  readonly isPartition: boolean
  readonly hasChildren: boolean
  /** Inherits from a table that is not partitioned. */
  readonly hasParents: boolean
  /** Row security applies to this role: it may not see every row. */
  readonly rowsHidden: boolean
  readonly schema: string
  readonly name: string
  readonly columns: readonly ColumnFacts[]
  /** Single-column unique keys that cannot be null: candidates for the identity. */
  readonly keys: readonly { readonly column: string; readonly primary: boolean }[]
  readonly foreignKeys: readonly (ColumnReference & { readonly column: string })[]
}

export type ColumnFacts = {
  readonly name: string
  readonly typeName: string
  readonly type: string
  readonly baseType: string
  readonly declared: string
  readonly notNull: boolean
  readonly generated: boolean
  readonly identity: string
  readonly hasDefault: boolean
  /** The database itself gives out its numbers: serial or identity. */
  readonly numbered: boolean
}

/** Reads what the catalogue says of a table; null when there is none of that name. */
export async function readTableFacts(db: Kysely<Database>, table: string): Promise<TableFacts | null> {
  const { rows } = await sql<{
    oid: number
    relkind: string
    relispartition: boolean
    children: boolean
    parents: boolean
    hidden: boolean
    schema: string
    name: string
  }>`
    select c.oid, c.relkind::text, c.relispartition, n.nspname as schema, c.relname as name,
           c.relkind = 'r' and exists (select from pg_inherits i where i.inhparent = c.oid) as children,
           not c.relispartition and exists (select from pg_inherits i where i.inhrelid = c.oid) as parents,
           row_security_active(c.oid) as hidden
      from pg_class c join pg_namespace n on n.oid = c.relnamespace
     where (n.nspname || '.' || c.relname = ${table} or c.relname = ${table} and pg_table_is_visible(c.oid))
       and c.relkind in ('r', 'p', 'v', 'm', 'f')
     order by n.nspname || '.' || c.relname = ${table} desc limit 1`.execute(db)
  const found = rows[0]
  if (found === undefined) return null
  const columns = await sql<ColumnFacts>`
    with recursive base as (
      select a.attname, a.attnum, a.atttypid as typid from pg_attribute a
       where a.attrelid = ${found.oid}::oid and a.attnum > 0 and not a.attisdropped
      union all
      select b.attname, b.attnum, t.typbasetype from base b join pg_type t on t.oid = b.typid where t.typtype = 'd'
    )
    select a.attname as name, t.typname as "typeName", format_type(a.atttypid, a.atttypmod) as declared, format('%I.%I', n.nspname, t.typname) as type, bt.typname as "baseType",
           a.attnotnull or t.typnotnull as "notNull", a.attgenerated <> '' as generated, a.attidentity::text as identity,
           a.atthasdef as "hasDefault",
           a.attidentity <> '' or coalesce((select pg_get_expr(d.adbin, d.adrelid) like 'nextval(%' from pg_attrdef d
             where d.adrelid = a.attrelid and d.adnum = a.attnum), false) as numbered
      from pg_attribute a join pg_type t on t.oid = a.atttypid join pg_namespace n on n.oid = t.typnamespace
      join base b on b.attnum = a.attnum join pg_type bt on bt.oid = b.typid and bt.typtype <> 'd'
     where a.attrelid = ${found.oid}::oid and a.attnum > 0 and not a.attisdropped order by a.attnum`.execute(db)
  const keys = await sql<{ column: string; primary: boolean }>`
    select a.attname as column, i.indisprimary as primary
      from pg_index i join pg_attribute a on a.attrelid = i.indrelid and a.attnum = i.indkey[0]
     where i.indrelid = ${found.oid}::oid and i.indisunique and i.indnkeyatts = 1 and i.indpred is null and i.indexprs is null
       and i.indimmediate and i.indisvalid and a.attnotnull
     order by i.indisprimary desc, a.attnum`.execute(db)
  const foreignKeys = await sql<ColumnReference & { column: string }>`
    select a.attname as column, tn.nspname as "tableSchema", tc.relname as "tableName", ta.attname as "targetColumn"
      from pg_constraint f
      join pg_attribute a on a.attrelid = f.conrelid and a.attnum = f.conkey[1]
      join pg_class tc on tc.oid = f.confrelid join pg_namespace tn on tn.oid = tc.relnamespace
      join pg_attribute ta on ta.attrelid = f.confrelid and ta.attnum = f.confkey[1]
     where f.conrelid = ${found.oid}::oid and f.contype = 'f' and array_length(f.conkey, 1) = 1 and f.conparentid = 0
     order by f.conname`.execute(db)
  return {
    oid: Number(found.oid),
    kind: found.relkind,
    isPartition: found.relispartition,
    hasChildren: found.children,
    hasParents: found.parents,
    rowsHidden: found.hidden,
    schema: found.schema,
    name: found.name,
    columns: columns.rows,
    keys: keys.rows,
    foreignKeys: foreignKeys.rows,
  }
}

/** Why a column's values cannot travel, or null. */
export function unsuitableType(column: ColumnFacts): string | null {
  const base = column.baseType.startsWith('_') ? column.baseType.slice(1) : column.baseType
  return LOCAL_TYPES.has(base)
    ? `column "${column.name}" has type ${column.typeName}, whose values mean nothing at another site`
    : null
}

/** The form in which a type travels. Arrays of numbers that JSON would round travel as arrays of text. */
export function formOf(column: ColumnFacts): ColumnForm {
  if (column.baseType.startsWith('_')) return 'array'
  if (column.baseType === 'json' || column.baseType === 'jsonb') return 'json'
  return NATIVE_TYPES.has(column.baseType) ? 'native' : 'text'
}
