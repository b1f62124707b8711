import {
  type EdenColumn,
  type EdenShape,
  type EdenShapes,
  emptyS3xml,
  s3xmlWriter,
  shapeOfResource,
} from '../../sync/index.ts'

/** Types of fields as Eden names them. */
const TYPES: Readonly<Record<EdenColumn['kind'], string>> = {
  text: 'string',
  number: 'double',
  boolean: 'boolean',
  date: 'date',
  datetime: 'datetime',
  time: 'time',
  json: 'json',
  list: 'list:string',
  upload: 'upload',
  reference: 'reference',
  references: 'list:reference',
}

/** The fields of a table, as Eden describes its own. */
export function fieldsXml(shape: EdenShape, shapes: EdenShapes, whole: ReadonlySet<string>): string {
  const writer = s3xmlWriter()
  const fields = shape.columns.map((column) => {
    const target = column.resource === undefined ? undefined : shapeOfResource(shapes, column.resource)
    const type = whole.has(column.column) ? 'integer' : TYPES[column.kind]
    return {
      name: column.field,
      type: target === undefined ? type : `${type} ${target.table}`,
      ...{ readable: 'True', writable: 'True', has_options: target === undefined ? 'False' : 'True' },
    }
  })
  const root = emptyS3xml({ resource: shape.table }).replace('<s3xml ', '<fields ').replace(/\/>$/, '>')
  const lines = fields.map((attributes) =>
    writer
      .element({ table: attributes.name, attributes, fields: [], components: [] })
      .replace(/^<resource name="[^"]*" /, '<field '),
  )
  return `${root}${lines.join('')}</fields>`
}
