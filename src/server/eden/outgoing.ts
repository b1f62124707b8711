import {
  coordinatesOf,
  type EdenTold,
  noteEdenSent,
  noteWithin,
  type ResourceInfo,
  readEdenTold,
  referringIds,
  strangersWithin,
} from '../../store/index.ts'
import {
  type Change,
  changesOfLines,
  type EdenElement,
  type EdenField,
  type EdenPlaceHint,
  type EdenShape,
  type EdenState,
  edenElement,
  type InsideFilter,
  type LineBatch,
  PLACES_TABLE,
  printsOf,
  type Reference,
  SynclineError,
  sentTime,
  shapeOfResource,
  type Version,
} from '../../sync/index.ts'
import type { ServerDeps } from '../deps.ts'
import { type EdenTables, withoutFiles } from './asked.ts'
import { fileFields } from './files.ts'
import type { EdenSource } from './source.ts'

/** What records are made into elements with. */
export type OutgoingContext = {
  readonly deps: ServerDeps
  readonly source: EdenSource
  readonly tables: EdenTables
  /** Filters by table at Eden. */
  readonly filters: ReadonlyMap<string, string>
  readonly includeDeleted: boolean
  /** Records older than this second are not asked for. */
  readonly since: number
  /** Whether what is told is remembered: a plain export is read by anybody. */
  readonly remembered: boolean
}

/** Elements of records, in whatever form they were asked for, and what they refer to. */
export type Told<Form = EdenElement> = {
  readonly elements: readonly Form[]
  /** The second of each, in the order of the elements. */
  readonly seconds: readonly number[]
  readonly ids: readonly string[]
  /** What each of them refers to, what stands in it included. */
  readonly references: readonly (readonly Reference[])[]
}

const NOTHING: ReadonlySet<string> = new Set()

/** Levels of components inside components, and of references behind references. */
const COMPONENT_LEVELS = 3
const REFERENCE_LEVELS = 10

type How = {
  /** How deep inside other records. */
  readonly level?: number
  /** The column that says which record they stand in, and which that is. */
  readonly omit?: string
  readonly masterOf?: ReadonlyMap<string, string>
  /** Only records in which something stands that matches. */
  readonly inside?: readonly InsideFilter[]
  /** Only what the peer is not proved to have. */
  readonly unproved?: boolean
}

/** Turns records into elements, with their components inside. */
export function outgoing(context: OutgoingContext) {
  const { deps, source, tables, filters } = context
  const { store } = deps
  const { may } = source

  /** The elements of a batch. */
  async function tell(batch: LineBatch, resource: ResourceInfo, shape: EdenShape, how: How = {}): Promise<Told> {
    return tellAs((element) => element, batch, resource, shape, how)
  }

  /** The elements of a batch in another form: each is made at once, so that nothing of its making outlives it. */
  async function tellAs<Form>(
    form: (element: EdenElement) => Form,
    batch: LineBatch,
    resource: ResourceInfo,
    shape: EdenShape,
    how: How = {},
  ): Promise<Told<Form>> {
    const { level = 0, omit } = how
    const files = new Map<string, readonly EdenField[]>()
    const plain = changesOfLines(batch).map((change) => {
      const fields = source.peerId === 0 ? [] : fileFields(deps, source.peerId, change, shape)
      if (fields.length > 0) files.set(change.id, fields)
      return withoutFiles(change, shape)
    })
    const matching = await matchingInside(plain, how.inside ?? [])
    const all = matching.filter(
      (change) => change.kind === 'put' || (change.kind === 'delete' && context.includeDeleted),
    )
    const place = { peerId: source.peerId, resourceId: resource.id }
    const kept = await readEdenTold(
      store.db,
      place,
      all.map(({ id }) => id),
    )
    const changes = how.unproved === true ? all.filter((change) => !isProved(change, kept.get(change.id))) : all
    const ids = changes.map(({ id }) => id)
    const components = await componentsOf(ids, shape, level)
    const whole = await source.isWhole(resource.name)
    const strangers = ids.length === 0 || !whole ? new Map() : await strangersWithin(store.db, place, ids)
    const places = await placesOf(changes, shape)
    const remembered = context.remembered && (await may('push', resource.name))
    const sent = new Map<string, EdenState>()
    const told = {
      elements: [] as Form[],
      seconds: [] as number[],
      ids: [] as string[],
      references: [] as Reference[][],
    }
    for (const change of changes) {
      const version = change.version as Version
      const known = kept.get(change.id)
      const modifiedOn = sentTime({ version, notBefore: known?.notBefore })
      if (modifiedOn < context.since) continue
      const inside = components.get(change.id)
      const element = edenElement(
        {
          change: omit === undefined ? change : without(change, omit),
          version,
          kept: whole ? known?.kept : known && { attributes: {}, mci: known.kept.mci },
          notBefore: known?.notBefore,
          filled: known?.filled ?? NOTHING,
          places,
          components: [...(inside?.elements ?? []), ...(strangers.get(change.id) ?? [])],
        },
        shape,
        tables.shapes,
      )
      const named = files.get(change.id) ?? []
      told.elements.push(form(named.length === 0 ? element : { ...element, fields: [...element.fields, ...named] }))
      told.seconds.push(modifiedOn)
      told.ids.push(change.id)
      told.references.push([...referencesOf(change, shape), ...(inside?.references ?? [])])
      // Only who sends records back can be known again by what it was told.
      if (!remembered) continue
      sent.set(change.id, { modifiedOn, deleted: change.kind !== 'put', prints: printsOf(change, shape), version })
    }
    await noteEdenSent(store.db, place, sent)
    const within = [...(how.masterOf ?? [])].filter(([id]) => sent.has(id))
    await noteWithin(store.db, place, new Map(within))
    return told
  }

  /** Where the places are that records refer to, as far as all places may be told. */
  async function placesOf(
    changes: readonly Change[],
    shape: EdenShape,
  ): Promise<ReadonlyMap<string, EdenPlaceHint> | undefined> {
    const place = tables.shapes.get(PLACES_TABLE)
    const resource = place && tables.resources.get(place.resource)
    if (resource === undefined || !shape.columns.some((column) => column.resource === resource.name)) return undefined
    const known = (field: string) => place?.columns.find((column) => column.field === field && column.kind === 'number')
    const [lat, lon] = [known('lat'), known('lon')]
    if (lat === undefined || lon === undefined || !(await source.isOpen(resource.name))) return undefined
    const ids = changes.flatMap((change) => (change.kind === 'put' ? Object.values(change.refs ?? {}) : []))
    const wanted = new Set(ids.flatMap((to) => (to?.resource === resource.name ? [to.id] : [])))
    return coordinatesOf(store.db, resource, [...wanted], { lat: lat.column, lon: lon.column })
  }

  /** Deletions have nothing inside, and are told. */
  async function matchingInside(
    changes: readonly Change[],
    inside: readonly InsideFilter[],
  ): Promise<readonly Change[]> {
    let left = changes
    for (const { table, column, filter } of inside) {
      const component = tables.resources.get(tables.shapes.get(table)?.resource ?? '')
      if (component === undefined || !(await may('pull', component.name)))
        throw new SynclineError('SYNC_FILTER_INVALID', `a filter looks at "${table}", which this peer may not pull`)
      const ids = left.flatMap(({ kind, id }) => (kind === 'put' ? [id] : []))
      const found = await source.mastersWith({ resource: component, column, filter, masters: ids })
      left = left.filter(({ kind, id }) => kind !== 'put' || found.has(id))
    }
    return left
  }

  type Inside = { readonly elements: EdenElement[]; readonly references: Reference[] }

  async function componentsOf(
    masters: readonly string[],
    shape: EdenShape,
    level: number,
  ): Promise<ReadonlyMap<string, Inside>> {
    const found = new Map<string, Inside>()
    if (masters.length === 0 || level >= COMPONENT_LEVELS) return found
    for (const { table, column } of shape.components) {
      const own = tables.shapes.get(table)
      const resource = own && tables.resources.get(own.resource)
      if (own === undefined || resource === undefined || !(await may('pull', resource.name))) continue
      const refers = await referringIds(store.db, resource, column, masters)
      const masterOf = new Map([...refers].flatMap(([master, ids]) => ids.map((id) => [id, master] as const)))
      const request = { resource: resource.name, ids: [...masterOf.keys()], filter: filters.get(table) }
      for (const batch of await source.chosen(request)) {
        const told = await tell(batch, resource, own, { level: level + 1, omit: column, masterOf })
        told.elements.forEach((element, n) => {
          const master = masterOf.get(told.ids[n] ?? '') ?? ''
          const inside = found.get(master) ?? { elements: [], references: [] }
          found.set(master, inside)
          inside.elements.push(element)
          inside.references.push(...(told.references[n] ?? []))
        })
      }
    }
    return found
  }

  /** The records that others refer to, and those behind them, as far as the peer may have them; each once. */
  async function follow(
    references: readonly Reference[],
    seen: (reference: Reference) => boolean,
  ): Promise<EdenElement[]> {
    const elements: EdenElement[] = []
    let wanted = references.filter((reference) => !seen(reference))
    for (let level = 0; level < REFERENCE_LEVELS && wanted.length > 0; level++) {
      const next: Reference[] = []
      for (const [name, some] of Map.groupBy(wanted, ({ resource }) => resource)) {
        const shape = shapeOfResource(tables.shapes, name)
        const resource = tables.resources.get(name)
        if (shape === undefined || resource === undefined || !(await may('pull', name))) continue
        const request = { resource: name, ids: some.map(({ id }) => id), filter: filters.get(shape.table) }
        for (const batch of await source.chosen(request)) {
          const told = await tell(batch, resource, shape, { level: COMPONENT_LEVELS, unproved: context.remembered })
          elements.push(...told.elements)
          next.push(...told.references.flat())
        }
      }
      wanted = next.filter((reference) => !seen(reference))
    }
    return elements
  }

  return { tell, tellAs, follow, may }
}

function referencesOf(change: Change, shape: EdenShape): Reference[] {
  if (change.kind !== 'put') return []
  const single = Object.values(change.refs ?? {}).filter((reference) => reference !== null)
  const lists = shape.columns.flatMap(({ kind, column, resource }) => {
    const value = change.data[column]
    return kind === 'references' && resource !== undefined && Array.isArray(value)
      ? value.map((id) => ({ resource, id: String(id) }))
      : []
  })
  return lists.length === 0 ? single : [...single, ...lists]
}

function isProved({ version }: Change, told: EdenTold | undefined): boolean {
  return told?.proved != null && told.proved.origin === version?.origin && told.proved.clock === version.clock
}

/** A component does not name the record that it stands in. */
function without(change: Change, column: string): Change {
  if (change.kind !== 'put' || change.refs === undefined) return change
  const { [column]: _, ...refs } = change.refs
  return { ...change, refs }
}
