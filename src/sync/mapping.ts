import type { LineBatch } from './codec/index.ts'
import { type FilterTree, formatFilter, parseFilter } from './filter.ts'
import type { Json } from './record.ts'

/** How the columns of a resource here and at the peer belong together where their names or their number differ. */
export type Mapping = {
  /** Name at the peer → name here. */
  readonly rename: Readonly<Record<string, string>>
  /** Columns with a fixed value: of this site when records come in, of the peer when they go out. */
  readonly constant: Readonly<Record<string, Json>>
  /** Columns, by their name here or at the peer, that neither come in nor go out. */
  readonly omit: readonly string[]
}

export const NO_MAPPING: Mapping = { rename: {}, constant: {}, omit: [] }

export function isMapped({ rename, constant, omit }: Mapping): boolean {
  return Object.keys(rename).length + Object.keys(constant).length + omit.length > 0
}

/** What contradicts itself in a mapping, in words; null when nothing does. */
export function mappingFault({ rename, constant, omit }: Mapping): string | null {
  const ours = Object.values(rename)
  const doubled = ours.find((name, n) => ours.indexOf(name) !== n)
  if (doubled !== undefined) return `two columns of the peer are mapped to "${doubled}"`
  const named = new Set([...Object.keys(rename), ...ours])
  const both = omit.find((name) => named.has(name) || Object.hasOwn(constant, name))
  if (both !== undefined) return `column "${both}" is omitted, and something else is said of it too`
  const fixed = Object.keys(constant).find((name) => named.has(name))
  return fixed === undefined ? null : `column "${fixed}" has a constant value, and is renamed too`
}

/** Name at the peer of a column here. */
export function nameThere({ rename }: Mapping, ours: string): string {
  return Object.keys(rename).find((theirs) => rename[theirs] === ours) ?? ours
}

/** Name here of a column at the peer. */
export function nameHere({ rename }: Mapping, theirs: string): string {
  return Object.hasOwn(rename, theirs) ? (rename[theirs] as string) : theirs
}

/** A filter in the names of this site, in those of the peer. */
export function filterThere(mapping: Mapping, filter: string): string {
  const renamed = (tree: FilterTree): FilterTree => {
    if ('trees' in tree) {
      const [first, second, ...rest] = tree.trees
      return { kind: tree.kind, trees: [renamed(first), renamed(second), ...rest.map(renamed)] }
    }
    if (tree.kind === 'not') return { kind: 'not', tree: renamed(tree.tree) }
    const { reference, name } = tree.operand
    const operand =
      reference === undefined ? { name: nameThere(mapping, name) } : { name, reference: nameThere(mapping, reference) }
    return { ...tree, operand }
  }
  return formatFilter(renamed(parseFilter(filter)))
}

/** A batch of the peer in the names of this site. Values stay as they came. */
export function batchHere(mapping: Mapping, batch: LineBatch): LineBatch {
  return renamedBatch(batch, (name) => nameHere(mapping, name))
}

/**
 * A batch of this site in the names of the peer, with the constants that go out in every record: `constants` by name at the peer. They stand
 * behind the other values, as fields that belong to no column here.
 */
export function batchThere(mapping: Mapping, batch: LineBatch, constants: Readonly<Record<string, Json>>): LineBatch {
  const renamed = renamedBatch(batch, (name) => nameThere(mapping, name))
  const names = Object.keys(constants)
  if (names.length === 0 || batch.purged === true || batch.text === '') return renamed
  const values = names.map((name) => JSON.stringify(constants[name])).join(',')
  const sets = renamed.sets ?? []
  const text = renamed.text
    .split('\n')
    .map((line) => {
      const [id, clock, origin, seen, kind, payload = '', set = String(sets.length)] = line.split('\t')
      if (kind !== 'p') return line
      const filled = `${payload.slice(0, -1)}${payload === '[]' ? '' : ','}${values}]`
      return [id, clock, origin, seen, kind, filled, set].join('\t')
    })
    .join('\n')
  return { ...renamed, text, sets: [...sets.map((set) => [...set, ...names]), names] }
}

function renamedBatch(batch: LineBatch, renamed: (name: string) => string): LineBatch {
  return {
    ...batch,
    columns: batch.columns.map(renamed),
    refs: Object.fromEntries(Object.entries(batch.refs).map(([column, resource]) => [renamed(column), resource])),
    ...(batch.sets && { sets: batch.sets.map((set) => set.map(renamed)) }),
  }
}
