import type { EdenElement } from '../codec/index.ts'
import type { Change, Json } from '../record.ts'
import type { EdenRecord } from './records.ts'

/**
 * A record in which fields are empty that Eden had, and shows no more: it leaves out what is empty. Only an export of Eden is whole; it says when
 * a record was made and when it was changed. A document that a person wrote may name a few fields, and means no more.
 */
export function emptied({ change, shape, attributes }: EdenRecord, fields: readonly string[]): Change {
  const whole = ['created_on', 'modified_on', 'mci'].every((name) => attributes[name] !== undefined)
  if (change.kind !== 'put' || !whole || fields.length === 0) return change
  const data: Record<string, Json> = { ...change.data }
  const refs = { ...change.refs }
  for (const field of fields) {
    const column = shape.columns.find((each) => each.field === field && each.attribute === undefined)
    if (column === undefined) continue
    if (column.kind === 'reference') refs[column.column] = null
    else data[column.column] = null
  }
  return { ...change, data, ...(Object.keys(refs).length > 0 && { refs }) }
}

/** Whether an element, or what stands in it, has a name or refers by a name that means nothing outside of its document. */
export function usesTuid({ attributes, fields, components }: EdenElement): boolean {
  if (attributes.tuid !== undefined) return true
  return (
    fields.some(
      ({ attributes: own, inline }) => own.tuid !== undefined || (inline !== undefined && usesTuid(inline)),
    ) || components.some(usesTuid)
  )
}
