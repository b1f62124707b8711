import { isMapped, type Mapping, nameHere, nameThere } from './mapping.ts'
import type { Mode } from './record.ts'

/** A column that travels, as sites tell each other of it. */
export type SchemaColumn = {
  readonly name: string
  /** As PostgreSQL writes it, with its length or precision. */
  readonly type: string
  readonly nullable: boolean
  /** The database fills it in where nothing is sent. */
  readonly hasDefault: boolean
}

/** What is known of both ends of a link of one resource. */
export type Schemas = {
  readonly peer: string
  readonly resource: string
  readonly mode: Mode
  readonly mapping: Mapping
  /** Columns that the task is limited to; null for all. */
  readonly columns: readonly string[] | null
  readonly ours: readonly SchemaColumn[]
  readonly theirs: readonly SchemaColumn[]
}

/** How two schemas differ, in words for a person. `pull` and `push` are why nothing can go that way at all. */
export type Skew = {
  readonly notes: readonly string[]
  /** Columns of this site whose type differs: what does not fit waits in quarantine, here or there. */
  readonly narrowed: readonly string[]
  readonly pull: string | null
  readonly push: string | null
}

/** Compares what travels. A column that only one side has is no fault: its values are parked, or not sent. */
export function compareSchemas(schemas: Schemas): Skew {
  const { peer, resource, mode, mapping } = schemas
  const ours = schemas.ours.filter(({ name }) => taken(schemas, name))
  const theirs = schemas.theirs.filter(({ name }) => taken(schemas, nameHere(mapping, name)) && taken(schemas, name))
  const there = new Map(theirs.map((column) => [nameHere(mapping, column.name), column]))
  const here = new Map(ours.map((column) => [column.name, column]))
  const notes: string[] = []
  const narrowed: string[] = []
  for (const column of ours) {
    const other = there.get(column.name)
    const named = bothNames(nameThere(mapping, column.name), column.name)
    if (other === undefined) {
      const missing = `${peer} has no column ${column.name} (${column.type})`
      notes.push(
        mode === 'pull'
          ? `${missing}: it stays as it is here`
          : `${missing}: values go on to others through it, or wait there`,
      )
    } else if (other.type !== column.type) {
      narrowed.push(column.name)
      notes.push(`${peer} has column ${named} ${other.type}, here it is ${column.type}`)
    } else if (other.nullable !== column.nullable) {
      notes.push(`${peer} has column ${named} ${nullability(other)}, here it is ${nullability(column)}`)
    }
  }
  for (const column of theirs) {
    if (!here.has(nameHere(mapping, column.name)))
      notes.push(
        `${peer} has column ${column.name} ${column.type}, here there is none: its values are parked with their records`,
      )
  }
  const filled = (name: string) => Object.hasOwn(mapping.constant, name)
  const unfed = schemas.ours.filter((column) => required(column) && !there.has(column.name) && !filled(column.name))
  const unfedThere = schemas.theirs.filter(
    (column) => required(column) && !here.has(nameHere(mapping, column.name)) && !filled(column.name),
  )
  const blocked = (columns: readonly SchemaColumn[], says: (names: string) => string) =>
    columns.length === 0 ? null : `${resource}: ${says(columns.map(({ name }) => name).join(', '))}`
  return {
    notes,
    narrowed,
    pull:
      mode === 'push'
        ? null
        : blocked(unfed, (names) => `${names} must have a value here and has no default, and ${peer} does not send it`),
    push:
      mode === 'pull'
        ? null
        : blocked(
            unfedThere,
            (names) => `${names} must have a value at ${peer} and has no default, and this site does not send it`,
          ),
  }
}

/** Names in a mapping that neither side has, in words; null when all are known. Without `theirs` only what must be here is checked. */
export function unknownInMapping(
  mapping: Mapping,
  ours: readonly SchemaColumn[],
  theirs: readonly SchemaColumn[] | null,
): string | null {
  if (!isMapped(mapping)) return null
  const here = new Set(ours.map(({ name }) => name))
  const there = theirs === null ? null : new Set(theirs.map(({ name }) => name))
  for (const [theirName, ourName] of Object.entries(mapping.rename)) {
    if (!here.has(ourName)) return `there is no column "${ourName}" here that travels`
    if (there !== null && !there.has(theirName)) return `the peer has no column "${theirName}" that travels`
    if (here.has(theirName) && nameThere(mapping, theirName) === theirName && !mapping.omit.includes(theirName))
      return `there is a column "${theirName}" here too; rename or omit it as well`
  }
  for (const name of [...Object.keys(mapping.constant), ...mapping.omit])
    if (!here.has(name) && there !== null && !there.has(name)) return `neither side has a column "${name}" that travels`
  return null
}

function taken({ mapping, columns }: Schemas, name: string): boolean {
  if (mapping.omit.includes(name) || Object.hasOwn(mapping.constant, name)) return false
  return columns === null || columns.includes(name)
}

function required(column: SchemaColumn): boolean {
  return !column.nullable && !column.hasDefault
}

function nullability({ nullable }: SchemaColumn): string {
  return nullable ? 'may be empty' : 'must have a value'
}

function bothNames(theirs: string, ours: string): string {
  return theirs === ours ? ours : `${theirs} (${ours} here)`
}
