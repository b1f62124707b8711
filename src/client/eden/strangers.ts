import { type EdenElement, idOfEdenUuid } from '../../sync/index.ts'
import type { EdenResource } from './resources.ts'

/** A record of a table that nobody has here, and the record here that it stood in. */
export type Stranger = {
  readonly element: EdenElement
  readonly uuid: string
  readonly resourceId: number | null
  readonly recordId: string | null
}

/** Records of strange tables among some elements, and inside those of the table that was asked for. */
export function strangersOf(
  elements: readonly EdenElement[],
  { shape, shapes, place }: EdenResource,
): readonly Stranger[] {
  return elements.flatMap((element): readonly Stranger[] => {
    const { uuid } = element.attributes
    if (!shapes.has(element.table))
      return isRecord(element) ? [{ element, uuid: uuid ?? '', resourceId: null, recordId: null }] : []
    if (element.table !== shape.table || uuid === undefined) return []
    const within = { resourceId: place.resourceId, recordId: idOfEdenUuid(uuid, shape.uuidKey) }
    return element.components
      .filter((component) => !shapes.has(component.table) && isRecord(component))
      .map((component) => ({ element: component, uuid: component.attributes.uuid ?? '', ...within }))
  })
}

/** A super-entity repeats a record under another name, without a time of its own. */
function isRecord({ attributes }: EdenElement): boolean {
  return attributes.uuid !== undefined && attributes.modified_on !== undefined
}
