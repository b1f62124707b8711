import { SynclineError } from './errors.ts'
import {
  type FilterOperand,
  type FilterTerm,
  type FilterTree,
  filterTerms,
  formatLiteral,
  formatOperand,
} from './filter-tree.ts'
import { bindLiteral, elementKind, type ValueKind, valueKind } from './filter-value.ts'

/** Where a reference column leads: `targetColumn` is what the foreign key points to, `keyColumn` the identity of the referenced records. */
export type FilterReference = {
  readonly resource: string
  readonly table: { readonly schema: string; readonly name: string }
  readonly keyColumn: string
  readonly targetColumn: string
  readonly columns: readonly FilterColumn[]
}

/** A column that filters may use. `type` is a type's name in pg_type (int4, text, timestamptz); that of a domain is its base type. */
export type FilterColumn = { readonly name: string; readonly type: string; readonly ref?: FilterReference }

/** What an operand of a filter means here. */
export type ResolvedColumn = {
  /** The column whose values are compared, of the record or, with `via`, of the record referred to. With `ref` it stands for the id of its target. */
  readonly column: FilterColumn
  /** True when the value is the id of that record. */
  readonly identity: boolean
  /** Type and kind of the values that are compared. */
  readonly type: string
  readonly kind: ValueKind
  /** The reference column that leads to the record whose column it is. */
  readonly via?: FilterColumn & { readonly ref: FilterReference }
  /** True when that reference column is itself the identity: both records have the same id. */
  readonly viaIdentity?: boolean
}

/** The columns of one filter by the text of their operand, see formatOperand. */
export type ResolvedColumns = ReadonlyMap<string, ResolvedColumn>

/**
 * Finds the columns of a filter in a resource and checks that they can be compared with its constants.
 * `keyColumn` is the identity column of the resource: with it `id` means the record's id where no column has that name.
 * SYNC_FILTER_INVALID names every fault at once.
 */
export function resolveFilter(tree: FilterTree, columns: readonly FilterColumn[], keyColumn?: string): ResolvedColumns {
  const scope = { columns, keyColumn }
  const resolved = new Map<string, ResolvedColumn>()
  const faults = new Set<string>()
  for (const term of filterTerms(tree)) {
    const found = resolveOperand(scope, term.operand)
    if (typeof found === 'string') faults.add(found)
    else {
      resolved.set(formatOperand(term.operand), found)
      for (const fault of termFaults(term, found)) faults.add(fault)
    }
  }
  if (faults.size > 0) {
    throw new SynclineError('SYNC_FILTER_INVALID', [...faults].map((fault) => `${fault}.`).join(' '))
  }
  return resolved
}

type Scope = { readonly columns: readonly FilterColumn[]; readonly keyColumn: string | undefined }

function resolveOperand(scope: Scope, operand: FilterOperand): ResolvedColumn | string {
  const text = formatOperand(operand)
  if (operand.reference === undefined) {
    return resolveName(scope, operand.name) ?? `There is no column ${text}${near(operand.name, columnNames(scope))}`
  }
  const via = findReference(scope, operand.reference)
  if (via === undefined) {
    const prefix = formatOperand({ name: operand.reference })
    const exists = scope.columns.some(({ name }) => name === operand.reference)
    const fault = exists
      ? `Column ${prefix} of ${text} refers to no resource`
      : `There is no reference column ${prefix} for ${text}`
    return fault + near(operand.reference, referenceNames(scope))
  }
  const target = { columns: via.ref.columns, keyColumn: via.ref.keyColumn }
  const found = resolveName(target, operand.name)
  if (found === undefined) {
    return `Resource ${via.ref.resource} has no column ${formatOperand({ name: operand.name })} for ${text}${near(operand.name, columnNames(target))}`
  }
  const viaIdentity = via.name === scope.keyColumn && via.ref.targetColumn === via.ref.keyColumn
  return { ...found, via, viaIdentity }
}

function resolveName(scope: Scope, name: string): ResolvedColumn | undefined {
  const column = scope.columns.find((candidate) => candidate.name === name)
  if (column === undefined && (name !== 'id' || scope.keyColumn === undefined)) return undefined
  const identity = column === undefined || column.name === scope.keyColumn
  if (identity) return { ...idColumn(scope.columns, scope.keyColumn ?? name), identity }
  if (column.ref === undefined) return { column, identity, type: column.type, kind: valueKind(column.type) }
  // A local key means nothing at another site: what is compared is the id of the record referred to.
  const { type, kind } = idColumn(column.ref.columns, column.ref.keyColumn)
  return { column, identity, type, kind }
}

/** The identity of records. An id is text, so a type without an order of its own compares as text. */
function idColumn(columns: readonly FilterColumn[], keyColumn: string) {
  const column = columns.find(({ name }) => name === keyColumn) ?? { name: keyColumn, type: '' }
  const kind = valueKind(column.type)
  const plain = kind === 'opaque' || kind === 'json' || kind === 'incomparable'
  return { column, type: column.type, kind: plain ? ('text' as const) : kind }
}

/** `country` and `country_id` both name the reference column country_id; the exact name goes first. */
function findReference(scope: Scope, name: string) {
  for (const candidate of [name, `${name}_id`]) {
    const column = scope.columns.find((each) => each.name === candidate)
    if (column?.ref !== undefined) return { ...column, ref: column.ref }
  }
  return undefined
}

function columnNames(scope: Scope): readonly string[] {
  const names = scope.columns.map(({ name }) => name)
  return scope.keyColumn === undefined || names.includes('id') ? names : [...names, 'id']
}

function referenceNames(scope: Scope): readonly string[] {
  return scope.columns.filter(({ ref }) => ref !== undefined).map(({ name }) => name)
}

function termFaults(term: FilterTerm, { kind, type }: ResolvedColumn): readonly string[] {
  if (term.kind === 'null') return []
  const column = `Column ${formatOperand(term.operand)} has type ${type === '' ? 'text' : type}`
  if (term.kind === 'has') {
    if (kind === 'json') return []
    const element = elementKind(type)
    if (element === undefined)
      return [`${column}: has looks into lists of texts, whole numbers and UUIDs, and into JSON`]
    const bound = bindLiteral(element, term.value)
    return typeof bound === 'string' ? [`${column}, ${formatLiteral(term.value)} cannot be in it: ${bound}`] : []
  }
  if (kind === 'incomparable' && elementKind(type) !== undefined)
    return [`${column}: it can only be tested with has, is null and is not null`]
  if (kind === 'json' || kind === 'incomparable')
    return [`${column}: it can only be tested with is null and is not null`]
  if (term.kind === 'like') {
    const text = kind === 'text' || kind === 'padded' || kind === 'uuid' || kind === 'opaque'
    return text ? [] : [`${column}: like is for text`]
  }
  if (term.kind === 'compare' && kind === 'opaque' && term.operator !== '=' && term.operator !== '!=') {
    return [`${column}: Syncline knows no order of it, so it can be tested with =, !=, in, like and is null`]
  }
  const literals = term.kind === 'in' ? term.values : [term.value]
  return literals.flatMap((literal) => {
    const bound = bindLiteral(kind, literal)
    return typeof bound === 'string'
      ? [`${column}, which ${shorten(formatLiteral(literal))} is no value of: ${bound}`]
      : []
  })
}

function shorten(text: string): string {
  return text.length <= 60 ? text : `${text.slice(0, 60)}…`
}

const NEAR_MAX = 5

/** The names that may have been meant; the first few when none is near. */
function near(name: string, names: readonly string[]): string {
  if (names.length === 0) return '; there is none'
  const wanted = name.toLowerCase()
  const ranked = names
    .map((each) => ({ each, distance: nameDistance(wanted, each.toLowerCase()) }))
    .filter(({ distance: steps }) => steps <= Math.max(1, wanted.length / 3))
    .sort((a, b) => a.distance - b.distance)
  const list = (found: readonly string[]) => found.map((each) => formatOperand({ name: each })).join(', ')
  if (ranked.length > 0) return `; near it: ${list(ranked.slice(0, NEAR_MAX).map(({ each }) => each))}`
  const more = names.length > NEAR_MAX * 2 ? `, and ${names.length - NEAR_MAX * 2} more` : ''
  return `; there are ${list(names.slice(0, NEAR_MAX * 2))}${more}`
}

/** A reference column may be meant without its _id. */
function nameDistance(wanted: string, name: string): number {
  return Math.min(distance(wanted, name), distance(wanted, name.replace(/_id$/, '')))
}

/** Fewest letters to add, drop or change to make one name the other; a name that begins with the other is one step away. */
function distance(a: string, b: string): number {
  if (a !== b && (b.startsWith(a) || (a.startsWith(b) && b.length > 2))) return 1
  let previous = Array.from({ length: b.length + 1 }, (_, index) => index)
  for (let row = 1; row <= a.length; row++) {
    const current = [row]
    for (let index = 1; index <= b.length; index++) {
      const change = (previous[index - 1] ?? 0) + (a[row - 1] === b[index - 1] ? 0 : 1)
      current.push(Math.min(change, (previous[index] ?? 0) + 1, (current[index - 1] ?? 0) + 1))
    }
    previous = current
  }
  return previous[b.length] ?? 0
}
