import { SynclineError } from '../errors.ts'
import { canonicalDecimal } from '../filter-decimal.ts'
import { type FilterLiteral, type FilterOperand, type FilterTree, formatFilter } from '../filter-tree.ts'
import { idOfEdenUuid } from './identity.ts'
import { type EdenColumn, type EdenShape, type EdenShapes, shapeOfResource } from './shape.ts'

/** One variable of a URL. */
export type EdenVariable = readonly [key: string, value: string]

const OPERATORS = { lt: '<', le: '<=', eq: '=', ne: '!=', ge: '>=', gt: '>' } as const
const KEY = /^(?:\[([^\]]*)\])?(.+?)(?:__([a-z]+))?(!)?$/

/** A filter on what stands inside the records of the table that was asked for: at least one component must match. */
export type InsideFilter = { readonly table: string; readonly column: string; readonly filter: string }

/** Filters of a request: by table of Eden, and on components of the table that was asked for. */
export type EdenFilters = {
  readonly byTable: ReadonlyMap<string, string>
  readonly inside: readonly InsideFilter[]
}

/**
 * The filters among the variables of a URL: `[org_office]~.code__like=A*`. A table `~` or none is the one that was asked for, and
 * `office.code` there looks at what stands inside. Throws SYNC_FILTER_INVALID by name for what is no filter here: a filter that was left out would
 * send too much.
 */
export function edenFilters(variables: readonly EdenVariable[], asked: EdenShape, shapes: EdenShapes): EdenFilters {
  const trees = new Map<string, FilterTree[]>()
  const inside: InsideFilter[] = []
  for (const [key, value] of variables) {
    const [, named = '', selector = '', operator, negated] = KEY.exec(key) ?? []
    const table = named === '' || named === '~' ? asked.table : named
    const shape = shapes.get(table)
    if (shape === undefined) throw invalid(key, `there is no table "${table}" here`)
    const said = { key, selector, operator, negated: negated !== undefined, value }
    const component = table === asked.table ? componentOf(said, shape, shapes) : undefined
    if (component === undefined) trees.set(table, [...(trees.get(table) ?? []), filterOf(said, shape, shapes)])
    else inside.push({ ...component.place, filter: formatFilter(filterOf(component.said, component.shape, shapes)) })
  }
  return { byTable: new Map([...trees].map(([table, all]) => [table, formatFilter(joined('and', all))])), inside }
}

/** `office.code` of organisations, where offices stand inside them: the same filter on the office. */
function componentOf(said: Said, shape: EdenShape, shapes: EdenShapes) {
  const [, alias = '', rest = ''] = /^(\w+)\.(.+)$/.exec(said.selector) ?? []
  const place = shape.components.find(({ table }) => afterModule(table) === alias)
  const own = place && shapes.get(place.table)
  if (place === undefined || own === undefined || alias === afterModule(shape.table)) return undefined
  return { place, shape: own, said: { ...said, selector: rest } }
}

function afterModule(table: string): string {
  return table.slice(table.indexOf('_') + 1)
}

type Said = {
  readonly key: string
  readonly selector: string
  readonly operator: string | undefined
  readonly negated: boolean
  readonly value: string
}

function filterOf(said: Said, shape: EdenShape, shapes: EdenShapes): FilterTree {
  const selectors = said.selector.startsWith('(') ? said.selector.slice(1, -1).split('|') : [said.selector]
  const trees = selectors.map((selector) => {
    const { operand, column } = operandOf(said.key, selector, shape, shapes)
    return termOf(said, operand, column, shapes)
  })
  const tree = joined('or', trees)
  return said.negated ? { kind: 'not', tree } : tree
}

/** `~.field`, `organisation.field` for the table itself, `~.fk$field` across a reference. */
function operandOf(
  key: string,
  selector: string,
  shape: EdenShape,
  shapes: EdenShapes,
): { readonly operand: FilterOperand; readonly column: EdenColumn } {
  const dot = selector.lastIndexOf('.')
  const [alias, path] = [selector.slice(0, Math.max(0, dot)), selector.slice(dot + 1)]
  const own = afterModule(shape.table)
  if (!['', '~', own].includes(alias))
    throw invalid(key, `"${alias}" is nothing that stands inside "${shape.table}" here`)
  const [first = '', second, ...more] = path.split('$')
  const column = columnOf(key, shape, first)
  if (second === undefined) return { operand: { name: column.column }, column }
  const target = column.resource === undefined ? undefined : shapeOfResource(shapes, column.resource)
  if (column.kind !== 'reference' || target === undefined || more.length > 0)
    throw invalid(key, `"${path}" leads further than across one reference`)
  const there = columnOf(key, target, second)
  return { operand: { reference: column.column, name: there.column }, column: there }
}

function columnOf(key: string, shape: EdenShape, field: string): EdenColumn {
  const column = shape.columns.find((each) => each.field === field)
  // A record by its name at Eden: like a reference to itself.
  if (column === undefined && field === 'uuid')
    return { field, column: shape.keyColumn ?? 'id', kind: 'reference', resource: shape.resource }
  if (column === undefined) throw invalid(key, `"${shape.table}" has no field "${field}" here`)
  return column
}

function termOf(said: Said, operand: FilterOperand, column: EdenColumn, shapes: EdenShapes): FilterTree {
  const values = listOf(said.value)
  const operator = said.operator ?? (values.length > 1 ? 'belongs' : 'eq')
  const none = values.includes('NONE')
  const given = values.filter((value) => value !== 'NONE')
  const literals = given.map((value) => literalOf(said.key, value, column, shapes))
  const isNull = (negated: boolean): FilterTree => ({ kind: 'null', operand, negated })
  switch (operator) {
    case 'belongs':
    case 'anyof':
    case 'eq':
    case 'ne': {
      if (operator === 'anyof' && (column.kind === 'list' || column.kind === 'references'))
        throw invalid(said.key, 'a filter here cannot look into lists')
      const negated = operator === 'ne'
      const [first, ...rest] = literals
      const parts: FilterTree[] = none ? [isNull(negated)] : []
      if (first !== undefined && rest.length === 0)
        parts.push({ kind: 'compare', operand, operator: negated ? '!=' : '=', value: first })
      else if (first !== undefined) parts.push({ kind: 'in', operand, values: [first, ...rest], negated })
      return joined(negated ? 'and' : 'or', parts)
    }
    case 'lt':
    case 'le':
    case 'ge':
    case 'gt':
      if (none) throw invalid(said.key, 'nothing is less or greater than NONE')
      return joined(
        'or',
        literals.map((value) => ({ kind: 'compare', operand, operator: OPERATORS[operator], value })),
      )
    case 'like':
      return joined('or', [...(none ? [isNull(false)] : []), ...given.map((value) => like(value, operand))])
    case 'contains':
      if (column.kind !== 'text') throw invalid(said.key, 'a filter here cannot look into lists')
      return joined(
        'and',
        given.map((value) => like(`*${value}*`, operand)),
      )
    default:
      throw invalid(said.key, `there is no operator "${operator}" here`)
  }
}

/** Eden compares without regard to case, and its wildcard is a star. */
function like(value: string, operand: FilterOperand): FilterTree {
  const pattern = value.replace(/[\\%_]/g, '\\$&').replaceAll('*', '%')
  return { kind: 'like', operand, pattern, ignoreCase: true, negated: false }
}

function literalOf(key: string, value: string, column: EdenColumn, shapes: EdenShapes): FilterLiteral {
  if (column.kind === 'number') {
    const number = canonicalDecimal(value)
    if (number === undefined) throw invalid(key, `"${value}" is no number`)
    return { type: 'number', value: number }
  }
  if (column.kind === 'boolean') return { type: 'boolean', value: /^(?:true|1)$/i.test(value) }
  if (column.kind !== 'reference') return { type: 'string', value }
  const target = shapeOfResource(shapes, column.resource ?? '')
  return { type: 'string', value: target === undefined ? value : idOfEdenUuid(value, target.uuidKey) }
}

/** Values between commas; quotes keep a comma in. */
function listOf(text: string): readonly string[] {
  const parts = text.match(/"(?:[^"\\]|\\.)*"|[^,]+/g) ?? ['']
  return parts.map((part) => (/^".*"$/s.test(part) ? part.slice(1, -1).replace(/\\(.)/g, '$1') : part))
}

function joined(kind: 'and' | 'or', trees: readonly FilterTree[]): FilterTree {
  const [first, second, ...rest] = trees
  if (first === undefined) throw invalid('', 'a filter without a value says nothing')
  return second === undefined ? first : { kind, trees: [first, second, ...rest] }
}

function invalid(key: string, why: string): SynclineError {
  return new SynclineError('SYNC_FILTER_INVALID', `filter "${key.slice(0, 120)}": ${why}`)
}
