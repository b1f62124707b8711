import { sql } from 'kysely'
import { isJsonObject, type Json, SynclineError } from '../sync/index.ts'
import { attach } from './attach.ts'
import type { Store } from './database.ts'
import { quoteIdent, quoteLiteral } from './quote.ts'
import { loadResources, type ResourceInfo } from './resources.ts'

/** Tables that Syncline makes begin with this, in its own schema. */
export const MANAGED_PREFIX = 'data_'

export type ManagedTable = {
  readonly name: string
  /** JSON Schema of one record: an object whose properties become columns. */
  readonly schema: Json
}

/**
 * Makes a table for a resource of a site that has no application database, and attaches it. `id` is the identity: a uuid (made by itself when
 * absent) or a text. A property with `x-ref` refers to records of the resource that it names. Words of JSON Schema that have no meaning here are
 * refused by name. Errors: SYNC_REQUEST_INVALID with every fault, SYNC_REQUEST_EXISTS.
 */
export async function createManaged(store: Store, { name, schema }: ManagedTable): Promise<ResourceInfo> {
  const resources = await loadResources(store.db)
  const statements = managedSql(name, schema, resources)
  if (resources.some((resource) => resource.name === name)) {
    throw new SynclineError('SYNC_REQUEST_EXISTS', `resource "${name}" exists`)
  }
  const table = `syncline.${MANAGED_PREFIX}${name}`
  const quoted = `syncline.${quoteIdent(`${MANAGED_PREFIX}${name}`)}`
  await store.db
    .transaction()
    .execute(async (trx) => {
      for (const statement of statements) await sql.raw(statement).execute(trx)
    })
    .catch((cause: unknown) => {
      const { code, message } = cause as { code?: string; message: string }
      if (code !== '42P07') throw cause
      const detail = `${message}: it was left by a resource that was detached; attach it again, or drop it`
      throw new SynclineError('SYNC_REQUEST_EXISTS', detail, { cause })
    })
  try {
    const [resource] = await attach(store, [{ table, name, key: 'id', managed: true }])
    if (resource === undefined) throw new Error('nothing was attached')
    return resource
  } catch (error) {
    // Nobody can have written into it yet.
    await sql.raw(`drop table if exists ${quoted}`).execute(store.db)
    throw error
  }
}

/** The statements that make the table, for review and tests. `resources` are those that `x-ref` may name. */
export function managedSql(name: string, schema: Json, resources: readonly ResourceInfo[]): readonly string[] {
  const faults: string[] = []
  if (!/^[A-Za-z_][A-Za-z0-9_]{0,57}$/.test(name)) {
    faults.push(
      `"${name.slice(0, 80)}" cannot be the name of a managed resource: letters, digits and underscores, at most 58`,
    )
  }
  const root = isJsonObject(schema) ? schema : {}
  if (root.type !== 'object') faults.push('the schema must describe an object')
  for (const word of Object.keys(root)) {
    if (!ROOT_WORDS.includes(word)) faults.push(`schema: "${word}" has no meaning here`)
  }
  const properties = isJsonObject(root.properties) ? root.properties : {}
  const required = Array.isArray(root.required) ? root.required : []
  for (const each of required) {
    if (typeof each !== 'string' || !Object.hasOwn(properties, each))
      faults.push(`required names ${JSON.stringify(each)}, which is no property`)
  }
  const quoted = `syncline.${quoteIdent(`${MANAGED_PREFIX}${name}`)}`
  const columns = [keyColumn(properties.id, faults)]
  const comments: string[] = []
  for (const [property, value] of Object.entries(properties)) {
    if (property !== 'id')
      columns.push(
        columnSql(
          property,
          value,
          required.includes(property),
          { name, quoted, resources, key: columns[0] ?? '' },
          faults,
        ),
      )
    const description = isJsonObject(value) ? value.description : undefined
    if (typeof description === 'string')
      comments.push(`comment on column ${quoted}.${quoteIdent(property)} is ${quoteLiteral(description)}`)
  }
  if (typeof root.description === 'string')
    comments.push(`comment on table ${quoted} is ${quoteLiteral(root.description)}`)
  if (columns.length === 1) faults.push('the schema has no property besides the identity')
  if (faults.length > 0) throw new SynclineError('SYNC_REQUEST_INVALID', faults.join('; '))
  return [`create table ${quoted} (\n  ${columns.join(',\n  ')}\n)`, ...comments]
}

const ROOT_WORDS = ['$schema', '$id', 'type', 'title', 'description', 'properties', 'required', 'additionalProperties']
const WORDS = ['type', 'format', 'enum', 'title', 'description', 'maxLength', 'minimum', 'maximum', 'x-ref', 'examples']
const FORMATS: Readonly<Record<string, string>> = {
  'date-time': 'timestamptz',
  date: 'date',
  time: 'time',
  uuid: 'uuid',
}
const TYPES: Readonly<Record<string, string>> = {
  string: 'text',
  integer: 'int8',
  number: 'float8',
  boolean: 'bool',
  object: 'jsonb',
  array: 'jsonb',
}
/** Columns that PostgreSQL gives every table. */
const SYSTEM_COLUMNS = ['ctid', 'xmin', 'xmax', 'cmin', 'cmax', 'tableoid']

function keyColumn(value: Json | undefined, faults: string[]): string {
  if (value === undefined) return 'id uuid primary key default gen_random_uuid()'
  const { type, format, ...rest } = isJsonObject(value) ? value : {}
  if (type !== 'string' || (format !== undefined && format !== 'uuid'))
    faults.push('"id" must be a string, or a string of the format uuid')
  for (const word of Object.keys(rest)) {
    if (!['title', 'description', 'examples'].includes(word)) faults.push(`"id": "${word}" has no meaning here`)
  }
  return format === 'uuid' ? 'id uuid primary key default gen_random_uuid()' : 'id text primary key'
}

type Making = {
  readonly name: string
  readonly quoted: string
  readonly resources: readonly ResourceInfo[]
  readonly key: string
}

function columnSql(name: string, value: Json, required: boolean, making: Making, faults: string[]): string {
  const property = isJsonObject(value) ? value : {}
  const fault = (why: string) => faults.push(`"${name.slice(0, 80)}": ${why}`)
  if (!isJsonObject(value)) fault('it must be described by an object')
  if (name === '' || Buffer.byteLength(name) > 63 || name.includes('\0')) fault('a name has 1 to 63 bytes')
  if (SYSTEM_COLUMNS.includes(name)) fault('PostgreSQL keeps that name for itself')
  for (const word of Object.keys(property)) if (!WORDS.includes(word)) fault(`"${word}" has no meaning here`)
  const types = Array.isArray(property.type) ? property.type.filter((type) => type !== 'null') : [property.type]
  const nullable = Array.isArray(property.type) && property.type.includes('null')
  const [type] = types
  const known = typeof type === 'string' ? TYPES[type] : undefined
  if (types.length !== 1 || known === undefined) {
    fault(`type must be one of ${Object.keys(TYPES).join(', ')}, perhaps in a list with null`)
    return ''
  }
  const quoted = quoteIdent(name)
  const end = required && !nullable ? ' not null' : ''
  if (property['x-ref'] !== undefined) return `${quoted} ${referenceSql(property, making, fault)}${end}`
  const formatted =
    property.format === undefined ? known : type === 'string' ? FORMATS[String(property.format)] : undefined
  if (formatted === undefined)
    fault(`format ${JSON.stringify(property.format)} is not one of ${Object.keys(FORMATS).join(', ')} for a string`)
  const checks = checksSql(quoted, property, type as string, fault)
  return [`${quoted} ${formatted}${end}`, ...checks.map((check) => `check (${check})`)].join(' ')
}

function referenceSql(
  property: { readonly [key: string]: Json },
  making: Making,
  fault: (why: string) => void,
): string {
  const target = property['x-ref']
  const odd = Object.keys(property).filter(
    (word) => !['type', 'format', 'x-ref', 'title', 'description'].includes(word),
  )
  if (
    (property.type !== 'string' && !(Array.isArray(property.type) && property.type.includes('string'))) ||
    odd.length > 0
  ) {
    fault(`a reference is a string without further conditions`)
  }
  if (target === making.name)
    return `${making.key.startsWith('id uuid') ? 'uuid' : 'text'} references ${making.quoted} (id)`
  const found = making.resources.find((resource) => resource.name === target)
  if (found === undefined) {
    fault(`x-ref names ${JSON.stringify(target)}, which is no resource of this site`)
    return 'text'
  }
  return `${found.keyType} references ${quoteIdent(found.tableSchema)}.${quoteIdent(found.tableName)} (${quoteIdent(found.keyColumn)})`
}

function checksSql(
  column: string,
  property: { readonly [key: string]: Json },
  type: string,
  fault: (why: string) => void,
): string[] {
  const checks: string[] = []
  const { enum: values, maxLength, minimum, maximum } = property
  if (values !== undefined) {
    const good =
      Array.isArray(values) &&
      values.length > 0 &&
      values.every((each) => typeof each === (type === 'string' ? 'string' : 'number'))
    if (!good || !['string', 'integer', 'number'].includes(type))
      fault('enum must be a list of values of the type string, integer or number')
    else
      checks.push(
        `${column} in (${values.map((each) => (typeof each === 'string' ? quoteLiteral(each) : String(each))).join(', ')})`,
      )
  }
  if (maxLength !== undefined) {
    if (
      type !== 'string' ||
      property.format !== undefined ||
      !Number.isSafeInteger(maxLength) ||
      (maxLength as number) < 0
    )
      fault('maxLength must be a whole number, for a plain string')
    else checks.push(`char_length(${column}) <= ${maxLength}`)
  }
  for (const [word, limit, operator] of [
    ['minimum', minimum, '>='],
    ['maximum', maximum, '<='],
  ] as const) {
    if (limit === undefined) continue
    if (!['integer', 'number'].includes(type) || typeof limit !== 'number')
      fault(`${word} must be a number, for a number`)
    else checks.push(`${column} ${operator} ${limit}`)
  }
  return checks
}
