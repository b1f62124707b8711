/** How Eden writes the values of a column. */
export type EdenKind =
  | 'text'
  | 'number'
  | 'boolean'
  | 'date'
  | 'datetime'
  | 'time'
  | 'json'
  | 'list'
  | 'upload'
  | 'reference'
  | 'references'

/** A column here under the name of its field at Eden. */
export type EdenColumn = {
  readonly field: string
  readonly column: string
  readonly kind: EdenKind
  /** datetime: the column keeps the zone, so a time of Eden is written as UTC into it. */
  readonly zoned?: boolean
  /** reference and references: the resource here that the ids belong to. */
  readonly resource?: string
  /** Eden tells of it in an attribute of the record, such as created_by: it is no content, and says nothing of what changed. */
  readonly attribute?: true
}

/** What Eden tells of a record in attributes, and a table here may have as columns. */
const ATTRIBUTE_COLUMNS = ['created_on', 'created_by', 'modified_by', 'owned_by_user', 'owned_by_group']
/** What is made anew for each link, and therefore never travels as a value. */
const LINK_COLUMNS = ['mci', 'modified_on', 'deleted']

/** A table of Eden whose records stand inside those of another one. `column` is the column here that refers to the master. */
export type EdenComponent = { readonly table: string; readonly column: string }

/** What a resource here is at Eden. */
export type EdenShape = {
  /** Name of the table at Eden. */
  readonly table: string
  /** Name of the resource here. */
  readonly resource: string
  /** The identity here is a bare UUID, Eden's is `urn:uuid:` and that UUID. */
  readonly uuidKey: boolean
  /** Column here that holds the identity. */
  readonly keyColumn?: string | undefined
  readonly columns: readonly EdenColumn[]
  readonly components: readonly EdenComponent[]
}

/** The shapes of a site, by table at Eden. */
export type EdenShapes = ReadonlyMap<string, EdenShape>

/** What a shape is made from: a resource as the store knows it, in the least words. */
export type ShapeSource = {
  readonly name: string
  readonly keyType: string
  readonly keyColumn?: string
  readonly columns: readonly {
    readonly name: string
    /** Name of the type in PostgreSQL under all domains, such as int4 or _text. */
    readonly baseType: string
    readonly form: 'native' | 'text' | 'json' | 'array'
    readonly sent: boolean
  }[]
  readonly references: readonly { readonly column: { readonly name: string }; readonly resource: string }[]
}

/** What was said of a resource beyond its columns: other names at Eden, files, lists of references, components. */
export type ShapeChoice = {
  readonly table?: string
  /** Field at Eden → column here, where they differ. */
  readonly rename?: Readonly<Record<string, string>>
  /** Columns that hold an uploaded file or its address. */
  readonly uploads?: readonly string[]
  /** Columns with a list of ids → resource here. */
  readonly lists?: Readonly<Record<string, string>>
  readonly components?: readonly EdenComponent[]
}

const KINDS: Readonly<Record<string, EdenKind>> = {
  bool: 'boolean',
  int2: 'number',
  int4: 'number',
  int8: 'number',
  float4: 'number',
  float8: 'number',
  numeric: 'number',
  date: 'date',
  timestamp: 'datetime',
  timestamptz: 'datetime',
  time: 'time',
  timetz: 'time',
}

/**
 * The shapes of resources. Without a choice a table has the name of its resource, and is a component of the master that its module's name and
 * column say: `org_office.organisation_id` stands inside `org_organisation`.
 */
export function edenShapes(
  sources: readonly ShapeSource[],
  choices: Readonly<Record<string, ShapeChoice>> = {},
): EdenShapes {
  const choiceOf = (name: string): ShapeChoice => (Object.hasOwn(choices, name) ? (choices[name] ?? {}) : {})
  const tableOf = (name: string) => choiceOf(name).table ?? name
  return new Map(
    sources.map((source) => {
      const choice = choiceOf(source.name)
      const table = tableOf(source.name)
      const components = choice.components ?? componentsOf(source, table, sources, tableOf)
      const columns = source.columns
        .filter(({ name, sent }) => sent && !LINK_COLUMNS.includes(name))
        .map((column) => columnOf(column, source, choice, sources, tableOf))
      return [
        table,
        {
          table,
          resource: source.name,
          uuidKey: /^(?:"?pg_catalog"?\.)?"?uuid"?(?:\s|$)/.test(source.keyType),
          keyColumn: source.keyColumn,
          columns,
          components,
        },
      ]
    }),
  )
}

type Lookup = { readonly byColumn: ReadonlyMap<string, EdenColumn>; readonly byField: ReadonlyMap<string, EdenColumn> }
const lookups = new WeakMap<EdenShape, Lookup>()

/** The columns of a shape by name here, and those that hold content by their field at Eden: looked up for every value. */
export function columnsOfShape(shape: EdenShape): Lookup {
  const known = lookups.get(shape)
  if (known !== undefined) return known
  const content = shape.columns.filter(({ attribute }) => attribute === undefined)
  const made = {
    byColumn: new Map(shape.columns.map((column) => [column.column, column])),
    byField: new Map(content.map((column) => [column.field, column])),
  }
  lookups.set(shape, made)
  return made
}

/** The shape of a resource here, if it has one. */
export function shapeOfResource(shapes: EdenShapes, resource: string): EdenShape | undefined {
  return shapes.get(resource)?.resource === resource
    ? shapes.get(resource)
    : [...shapes.values()].find((shape) => shape.resource === resource)
}

function columnOf(
  column: ShapeSource['columns'][number],
  source: ShapeSource,
  choice: ShapeChoice,
  sources: readonly ShapeSource[],
  tableOf: (name: string) => string,
): EdenColumn {
  const { name, baseType, form } = column
  const field = Object.entries(choice.rename ?? {}).find(([, ours]) => ours === name)?.[0] ?? name
  const one = source.references.find((reference) => reference.column.name === name)?.resource
  if (one !== undefined) return { field, column: name, kind: 'reference', resource: one }
  const many = Object.hasOwn(choice.lists ?? {}, name) ? choice.lists?.[name] : undefined
  const listed = many ?? (form === 'array' ? listedResource(column, source, sources, tableOf) : undefined)
  if (listed !== undefined) return { field, column: name, kind: 'references', resource: listed }
  if (choice.uploads?.includes(name)) return { field, column: name, kind: 'upload' }
  if (form === 'array') return { field, column: name, kind: 'list' }
  if (form === 'json') return { field, column: name, kind: 'json' }
  const kind = Object.hasOwn(KINDS, baseType) ? (KINDS[baseType] as EdenKind) : 'text'
  return {
    field,
    column: name,
    kind,
    ...(baseType.endsWith('tz') && { zoned: true }),
    ...(ATTRIBUTE_COLUMNS.includes(name) && { attribute: true as const }),
  }
}

/** A list of texts under `sector_id`, `sector_ids` or `multi_sector_id`, where there is one table of that name: ids of its records. */
function listedResource(
  { name, baseType }: ShapeSource['columns'][number],
  source: ShapeSource,
  sources: readonly ShapeSource[],
  tableOf: (name: string) => string,
): string | undefined {
  const [, what] = /^(?:multi_)?(\w+?)_ids?$/.exec(name) ?? []
  if (what === undefined || !['_text', '_varchar', '_uuid'].includes(baseType)) return undefined
  const [module] = tableOf(source.name).split('_')
  const named = sources.filter((each) => tableOf(each.name).replace(/^[^_]*_/, '') === what)
  const near = named.filter((each) => tableOf(each.name).startsWith(`${module}_`))
  const [one, ...others] = near.length > 0 ? near : named
  return others.length === 0 ? one?.name : undefined
}

/**
 * `org_office` with a column `organisation_id` that refers to `org_organisation`. A table that links two of a module stands inside the one that has
 * more to say of itself: organisations have sectors, and sectors would otherwise bring all organisations along.
 */
function componentsOf(
  master: ShapeSource,
  table: string,
  sources: readonly ShapeSource[],
  tableOf: (name: string) => string,
): EdenComponent[] {
  return sources.flatMap((source) => {
    const own = tableOf(source.name)
    const masters = source.references.flatMap(({ column, resource }) => {
      const found = sources.find(({ name }) => name === resource)
      return found !== undefined && isNamedAfter(own, column.name, tableOf(resource)) ? [{ column, found }] : []
    })
    const [most] = masters.sort((a, b) => b.found.columns.length - a.found.columns.length)
    return most?.found === master && own !== table ? [{ table: own, column: most.column.name }] : []
  })
}

function isNamedAfter(own: string, column: string, master: string): boolean {
  const [module = '', ...rest] = master.split('_')
  return rest.length > 0 && own.startsWith(`${module}_`) && column === `${rest.join('_')}_id`
}
