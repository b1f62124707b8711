import { numberText } from './codec/index.ts'
import { canonicalDecimal } from './filter-decimal.ts'
import type { ResolvedColumns } from './filter-resolve.ts'
import {
  type FilterLiteral,
  type FilterOperand,
  type FilterOperator,
  type FilterTerm,
  type FilterTree,
  formatOperand,
} from './filter-tree.ts'
import {
  bindLiteral,
  type Comparable,
  comparable,
  elementKind,
  likePattern,
  orderValues,
  type ValueKind,
} from './filter-value.ts'
import type { Json, Reference } from './record.ts'

/** A record as filters see it; a put change is one. A reference is found in `refs`, or in `data` as the id of its target. */
export type FilterRecord = {
  readonly id: string
  readonly data: Readonly<Record<string, Json>>
  readonly refs?: Readonly<Record<string, Reference | null>>
}

/** Finds the record that a reference column leads to: null when there is none, undefined when that cannot be told. */
export type FilterLookup = (column: string, id: string) => FilterRecord | null | undefined

/**
 * True when a record matches a filter, by the three-valued logic of SQL: what is unknown does not match, nor does its opposite.
 * A column that was not sent is unknown, even to `is null`. With `columns` values compare as their types do in the database;
 * without, a number constant compares with numbers and decimal strings, a text constant with text by code point.
 */
export function evaluate(
  tree: FilterTree,
  record: FilterRecord,
  lookup?: FilterLookup,
  columns?: ResolvedColumns,
): boolean {
  return filterMatcher(tree, columns)(record, lookup)
}

/** `evaluate` for many records: the filter is prepared once. */
export function filterMatcher(
  tree: FilterTree,
  columns?: ResolvedColumns,
): (record: FilterRecord, lookup?: FilterLookup) => boolean {
  const test = prepare(tree, columns)
  return (record, lookup) => test(record, lookup) === true
}

/** True, false or, where SQL says unknown, null. */
type Truth = boolean | null
type Test = (record: FilterRecord, lookup: FilterLookup | undefined) => Truth
/** Reads the value of a column; undefined when it cannot be told. */
type Read = (record: FilterRecord, lookup: FilterLookup | undefined) => Json | undefined

function prepare(tree: FilterTree, columns: ResolvedColumns | undefined): Test {
  switch (tree.kind) {
    case 'and':
    case 'or': {
      const tests = tree.trees.map((part) => prepare(part, columns))
      const decisive = tree.kind === 'or'
      return (record, lookup) => {
        let truth: Truth = !decisive
        for (const test of tests) {
          const part = test(record, lookup)
          if (part === decisive) return decisive
          if (part === null) truth = null
        }
        return truth
      }
    }
    case 'not': {
      const test = prepare(tree.tree, columns)
      return (record, lookup) => opposite(test(record, lookup))
    }
    default:
      return prepareTerm(tree, columns)
  }
}

function prepareTerm(term: FilterTerm, columns: ResolvedColumns | undefined): Test {
  const read = columns === undefined ? readByName(term.operand) : readResolved(term.operand, columns)
  const kind = columns?.get(formatOperand(term.operand))?.kind
  switch (term.kind) {
    case 'null':
      return (record, lookup) => {
        const value = read(record, lookup)
        return value === undefined ? null : (value === null) !== term.negated
      }
    case 'compare': {
      const order = orderWith(kind, term.value)
      const accepts = OPERATORS[term.operator]
      return (record, lookup) => {
        const found = order(read(record, lookup))
        return found === undefined ? null : accepts(found)
      }
    }
    case 'in': {
      const contains = kind === undefined ? inAny(term.values) : inSet(kind, term.values)
      return (record, lookup) => {
        const found = contains(read(record, lookup))
        return term.negated ? opposite(found) : found
      }
    }
    case 'has': {
      const contains = hasElement(term.value, columns?.get(formatOperand(term.operand))?.type)
      return (record, lookup) => {
        const found = contains(read(record, lookup))
        return term.negated ? opposite(found) : found
      }
    }
    case 'like': {
      const matches = likePattern(term.pattern, term.ignoreCase)
      return (record, lookup) => {
        const text = comparable(kind ?? 'text', read(record, lookup))
        return typeof text === 'string' ? matches(text) !== term.negated : null
      }
    }
  }
}

const OPERATORS: Readonly<Record<FilterOperator, (order: number) => boolean>> = {
  '=': (order) => order === 0,
  '!=': (order) => order !== 0,
  '<': (order) => order < 0,
  '<=': (order) => order <= 0,
  '>': (order) => order > 0,
  '>=': (order) => order >= 0,
}

function opposite(truth: Truth): Truth {
  return truth === null ? null : !truth
}

/** Order of a value relative to a constant; undefined when it is unknown. */
function orderWith(
  kind: ValueKind | undefined,
  literal: FilterLiteral,
): (value: Json | undefined) => number | undefined {
  if (kind === undefined) {
    const byKind = new Map<ValueKind, Comparable>()
    return (value) => {
      const guessed = guessKind(value, literal)
      if (guessed === undefined) return undefined
      const constant = byKind.get(guessed) ?? constantOf(guessed, literal)
      byKind.set(guessed, constant)
      const found = comparable(guessed, value)
      return found === undefined ? undefined : orderValues(guessed, found, constant)
    }
  }
  const constant = constantOf(kind, literal)
  return (value) => {
    const found = comparable(kind, value)
    return found === undefined ? undefined : orderValues(kind, found, constant)
  }
}

function inSet(kind: ValueKind, literals: readonly FilterLiteral[]): (value: Json | undefined) => Truth {
  const constants = new Set(literals.map((literal) => constantOf(kind, literal)))
  return (value) => {
    const found = comparable(kind, value)
    return found === undefined ? null : constants.has(found)
  }
}

/** Whether a list has an element; a null among its elements is none. Without metadata, and in JSON, an element is text or number as it stands. */
function hasElement(literal: FilterLiteral, type: string | undefined): (value: Json | undefined) => Truth {
  const kind = type === undefined ? undefined : elementKind(type)
  const constant = kind === undefined ? undefined : constantOf(kind, literal)
  const same = (element: Json) => {
    if (kind !== undefined) return comparable(kind, element) === constant
    if (typeof element === 'boolean') return literal.type === 'boolean' && literal.value === element
    if (typeof element === 'string') return literal.type === 'string' && literal.value === element
    const number = numberText(element)
    return number !== undefined && literal.type === 'number' && canonicalDecimal(number) === literal.value
  }
  return (value) => {
    if (value === undefined || value === null) return null
    if (!Array.isArray(value)) return false
    return (kind === undefined ? value : value.flat(Number.POSITIVE_INFINITY)).some((element) => same(element as Json))
  }
}

function inAny(literals: readonly FilterLiteral[]): (value: Json | undefined) => Truth {
  const orders = literals.map((literal) => orderWith(undefined, literal))
  return (value) => {
    const found = orders.map((order) => order(value))
    if (found.includes(0)) return true
    return found.includes(undefined) ? null : false
  }
}

/** Without metadata the constant says what is compared; a text that is a number may stand for one. */
function guessKind(value: Json | undefined, literal: FilterLiteral): ValueKind | undefined {
  if (literal.type === 'number') return 'numeric'
  if (literal.type === 'boolean') return typeof value === 'boolean' ? 'boolean' : undefined
  if (typeof value === 'string') return 'text'
  return typeof value === 'number' && canonicalDecimal(literal.value) !== undefined ? 'numeric' : undefined
}

function constantOf(kind: ValueKind, literal: FilterLiteral): Comparable {
  const bound = bindLiteral(kind, literal)
  if (typeof bound === 'string')
    throw new Error(`A filter was evaluated with columns that it was not resolved with: ${bound}`)
  return bound.value
}

function readResolved(operand: FilterOperand, columns: ResolvedColumns): Read {
  const resolved = columns.get(formatOperand(operand))
  if (resolved === undefined) throw new Error(`Column ${formatOperand(operand)} of the filter was not resolved`)
  const { column, identity, via, viaIdentity } = resolved
  const own = (record: FilterRecord) => (identity ? record.id : columnValue(record, column.name))
  if (via === undefined) return own
  return across((record) => (viaIdentity ? record.id : columnValue(record, via.name)), via.name, own)
}

function readByName({ name, reference }: FilterOperand): Read {
  const own = (record: FilterRecord) => {
    const value = columnValue(record, name)
    return value === undefined && name === 'id' ? record.id : value
  }
  if (reference === undefined) return own
  return (record, lookup) => {
    const column = columnValue(record, reference) === undefined ? `${reference}_id` : reference
    return across((each) => columnValue(each, column), column, own)(record, lookup)
  }
}

/** The value on the other side of a reference. As in SQL it is null where the reference is, or leads nowhere. */
function across(
  reference: (record: FilterRecord) => Json | undefined,
  column: string,
  read: (target: FilterRecord) => Json | undefined,
): Read {
  return (record, lookup) => {
    const id = reference(record)
    if (typeof id !== 'string') return id === null ? null : undefined
    const target = lookup?.(column, id)
    return target === null || target === undefined ? target : read(target)
  }
}

function columnValue(record: FilterRecord, name: string): Json | undefined {
  if (record.refs !== undefined && Object.hasOwn(record.refs, name)) return record.refs[name]?.id ?? null
  return Object.hasOwn(record.data, name) ? record.data[name] : undefined
}
