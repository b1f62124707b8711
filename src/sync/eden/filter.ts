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

/** The records that stand below one in its own table, where that has a column `parent` for it. */
export type Below = (resource: string, column: string, id: string) => readonly string[]

/** A record whose lower ones a filter asks for: `typeof` means a record and all below it. */
export type TypeofWish = { readonly resource: string; readonly column: string; readonly id: string }

/** What has to be looked up before the filters of an address can be read. Throws SYNC_FILTER_INVALID as they do. */
export function typeofWishes(
  variables: readonly EdenVariable[],
  asked: EdenShape,
  shapes: EdenShapes,
): readonly TypeofWish[] {
  const wishes: TypeofWish[] = []
  edenFilters(variables, asked, shapes, (resource, column, id) => {
    wishes.push({ resource, column, id })
    return []
  })
  return wishes
}

const PARENT = /^parent(?:_|$)/

/**
 * The filters among the variables of a URL: `[org_office]~.code__like=A*`. A table `~` or none is the one that was asked for, and
 * `office.code` there looks at what stands inside. Throws SYNC_FILTER_INVALID by name for what is no filter here: a filter that was left out would
 * send too much.
 */
export function edenFilters(
  variables: readonly EdenVariable[],
  asked: EdenShape,
  shapes: EdenShapes,
  below: Below = () => [],
): EdenFilters {
  const trees = new Map<string, FilterTree[]>()
  const inside: InsideFilter[] = []
  for (const [key, value] of variables) {
    const [, named = '', selector = '', operator, negated] = KEY.exec(key) ?? []
    const table = named === '' || named === '~' ? asked.table : named
    const shape = shapes.get(table)
    if (shape === undefined) throw invalid(key, `there is no table "${table}" here`)
    const said = { key, selector, operator, negated: negated !== undefined, value, below }
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
  readonly below: Below
}

function filterOf(said: Said, shape: EdenShape, shapes: EdenShapes): FilterTree {
  const selectors = said.selector.startsWith('(') ? said.selector.slice(1, -1).split('|') : [said.selector]
  const trees = selectors.map((selector) => {
    if (said.operator === 'intersects') return placeWithin(said.value, coordinatesOf(said.key, selector, shape, shapes))
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
    case 'typeof':
    case 'eq':
    case 'ne': {
      const all = operator === 'typeof' ? withBelow(literals, column, said.below, shapes) : literals
      if (operator !== 'eq' && operator !== 'ne' && isList(column))
        return joined('or', [...(none ? [isNull(false)] : []), ...all.map((value) => has(column, operand, value))])
      const negated = operator === 'ne'
      const [first, ...rest] = all
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
      if (isList(column))
        return joined(
          'and',
          literals.map((value) => has(column, operand, value)),
        )
      if (column.kind !== 'text') throw invalid(said.key, `"${column.field}" is no text and no list`)
      return joined(
        'and',
        given.map((value) => like(`*${value}*`, operand)),
      )
    default:
      throw invalid(said.key, `there is no operator "${operator}" here`)
  }
}

function isList({ kind }: EdenColumn): boolean {
  return kind === 'list' || kind === 'references' || kind === 'json'
}

/** JSON tells a number from its digits; an address does not. */
function has({ kind }: EdenColumn, operand: FilterOperand, value: FilterLiteral): FilterTree {
  const number = kind === 'json' && value.type === 'string' ? canonicalDecimal(value.value) : undefined
  const text: FilterTree = { kind: 'has', operand, value, negated: false }
  if (number === undefined) return text
  return {
    kind: 'or',
    trees: [text, { kind: 'has', operand, value: { type: 'number', value: number }, negated: false }],
  }
}

/** Records that are named, and all below them in their own table. */
function withBelow(
  literals: readonly FilterLiteral[],
  { resource }: EdenColumn,
  below: Below,
  shapes: EdenShapes,
): readonly FilterLiteral[] {
  const target = resource === undefined ? undefined : shapeOfResource(shapes, resource)
  const parent = target?.columns.find((each) => PARENT.test(each.field) && each.resource === target.resource)
  if (target === undefined || parent === undefined) return literals
  const ids = literals.flatMap(({ value }) => [String(value), ...below(target.resource, parent.column, String(value))])
  return [...new Set(ids)].map((value) => ({ type: 'string', value }))
}

type Coordinates = { readonly lat: FilterOperand; readonly lon: FilterOperand }

/** `location_id$wkt`, or `wkt` of a table of places: a place is its point here. */
function coordinatesOf(key: string, selector: string, shape: EdenShape, shapes: EdenShapes): Coordinates {
  const path = selector.slice(selector.lastIndexOf('.') + 1)
  const [first = '', second] = path.split('$')
  const geometry = second ?? first
  if (!['wkt', 'the_geom'].includes(geometry)) throw invalid(key, `"${geometry}" is no shape on a map`)
  const reference = second === undefined ? undefined : columnOf(key, shape, first)
  const place = reference === undefined ? shape : shapeOfResource(shapes, reference.resource ?? '')
  const operand = (field: string): FilterOperand => {
    const column = place?.columns.find((each) => each.field === field && each.kind === 'number')
    if (column === undefined) throw invalid(key, `"${place?.table ?? first}" has no field "${field}" here`)
    return { name: column.column, ...(reference !== undefined && { reference: reference.column }) }
  }
  return { lat: operand('lat'), lon: operand('lon') }
}

const CORNERS = /^(?:SRID=4326;)?POLYGON\s*\(\(([^()]*)\)\)$/i
const POINT = /^(?:SRID=4326;)?POINT\s*\(([^()]*)\)$/i

/** Places within a rectangle along the degrees, or at a point: what PostgreSQL can say without more about shapes. */
function placeWithin(value: string, { lat, lon }: Coordinates): FilterTree {
  const text = value.trim().replace(/^"(.*)"$/s, '$1')
  const corners = (CORNERS.exec(text)?.[1] ?? POINT.exec(text)?.[1] ?? '')
    .split(',')
    .map((corner) => corner.trim().split(/\s+/).map(canonicalDecimal))
  const points = corners.flatMap(([x, y, ...more]) =>
    x === undefined || y === undefined || more.length > 0 ? [] : [{ x, y }],
  )
  const [xs, ys] = [new Set(points.map(({ x }) => x)), new Set(points.map(({ y }) => y))]
  const places = new Set(points.map(({ x, y }) => `${x} ${y}`))
  const isPoint = points.length === 1 && corners.length === 1
  const isRectangle =
    corners.length === 5 &&
    points.length === 5 &&
    xs.size === 2 &&
    ys.size === 2 &&
    places.size === 4 &&
    alongDegrees(points)
  if (!isPoint && !isRectangle)
    throw invalid(text, 'only a point or a rectangle along the degrees can be looked for here: POLYGON((…)) in WGS 84')
  const between = (operand: FilterOperand, ends: ReadonlySet<string>): FilterTree[] => {
    const [low = '', high = ''] = [...ends].sort((a, b) => Number(a) - Number(b))
    const compare = (operator: '=' | '>=' | '<=', at: string): FilterTree => {
      return { kind: 'compare', operand, operator, value: { type: 'number', value: at } }
    }
    return ends.size === 1 ? [compare('=', low)] : [compare('>=', low), compare('<=', high)]
  }
  return joined('and', [...between(lon, xs), ...between(lat, ys)])
}

/** Each side goes along one degree, and the last corner is the first. */
function alongDegrees(points: readonly { readonly x: string; readonly y: string }[]): boolean {
  const [first, last] = [points[0], points.at(-1)]
  const sides = points.slice(1).map((point, n) => ({ from: points[n], to: point }))
  return (
    first?.x === last?.x &&
    first?.y === last?.y &&
    sides.every(({ from, to }) => (from?.x === to.x) !== (from?.y === to.y))
  )
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
