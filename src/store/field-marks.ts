import { type Kysely, sql } from 'kysely'
import { checkFieldKinds, type FieldKind, type FieldRules, type MergeRules, ruleOf } from '../sync/index.ts'
import { captureFunctionSql } from './capture-function.ts'
import { findResource, type ResourceInfo, sentColumns } from './resources.ts'
import type { Database } from './schema.ts'

/** Types whose values are counted and ordered as numbers. */
const NUMBERS = new Set(['int2', 'int4', 'int8', 'numeric', 'float4', 'float8'])
/** Types whose texts have an order that every site sees alike. */
const ORDERED = new Set(['text', 'varchar', 'bpchar', 'citext', 'date', 'time', 'timestamp', 'timestamptz', 'uuid'])

/** What the fields of a resource are to the rules of a merge. */
export function fieldKinds(resource: ResourceInfo): ReadonlyMap<string, FieldKind> {
  const referring = new Set(resource.references.map((reference) => reference.column.name))
  return new Map(
    sentColumns(resource).map(({ name, baseType, form }): [string, FieldKind] => {
      if (referring.has(name)) return [name, 'other']
      if (form === 'json' || form === 'array') return [name, 'set']
      return [name, NUMBERS.has(baseType) ? 'number' : ORDERED.has(baseType) ? 'text' : 'other']
    }),
  )
}

/** Refuses rules that the columns of a resource cannot follow. Errors: SYNC_REQUEST_INVALID. */
export function checkFieldsOf(resource: ResourceInfo, rules: FieldRules): void {
  checkFieldKinds(rules, fieldKinds(resource), resource.name)
}

/** The rules of a link for one resource. */
export function mergeRulesOf(resource: ResourceInfo, rules: FieldRules): MergeRules {
  const numbers = [...fieldKinds(resource)].flatMap(([name, kind]) => (kind === 'number' ? [name] : []))
  return { rules, numbers: new Set(numbers) }
}

/**
 * Lets the trigger of a resource keep what is needed of single fields from now on, or no longer: as long as a task or a grant
 * merges or asks a person. Only
 * the function is replaced, which waits for nobody. Belongs into the transaction that changes a task or a grant.
 */
export async function renewMarks(db: Kysely<Database>, name: string): Promise<void> {
  const resource = await findResource(db, name)
  const { rows } = await sql<{ fields: FieldRules }>`
    select fields from syncline.task where resource_id = ${resource.id} and on_conflict in ('merge', 'ask')
    union all select fields from syncline.peer_grant where resource_id = ${resource.id} and on_conflict in ('merge', 'ask')`.execute(
    db,
  )
  const kinds = fieldKinds(resource)
  const counted = [...kinds.keys()].filter(
    (column) => kinds.get(column) === 'number' && rows.some(({ fields }) => ruleOf(fields, column).name === 'sum'),
  )
  const marks = rows.length === 0 ? null : { counted }
  if (JSON.stringify(marks) === JSON.stringify(resource.marks)) return
  await db
    .updateTable('syncline.resource')
    .set({ marks: marks === null ? null : JSON.stringify(marks) })
    .where('id', '=', resource.id)
    .execute()
  await sql.raw(captureFunctionSql({ ...resource, marks })).execute(db)
}
