import { Type } from 'typebox'
import { LINES_MEDIA_TYPE, ROWS_MEDIA_TYPE } from '../sync/index.ts'
import { change, closed } from './schemas.ts'

/** Batches of records as the document describes them, by media type. */

const trailer = closed(
  {
    count: Type.Integer({ minimum: 0, description: 'Changes before this line.' }),
    checkpoint: Type.Optional(Type.String({ description: 'Where the next batch begins.' })),
    more: Type.Optional(Type.Boolean({ description: 'Whether more follows at once.' })),
  },
  { title: 'Trailer', description: 'Last line of a batch: without it the batch is incomplete.' },
)

const ndjson = Type.Union([change, trailer], {
  title: 'BatchLine',
  description:
    'One change a line, then a line with count, checkpoint and more. In a push the last line may be left out.',
})

const json = closed(
  {
    changes: Type.Array(change),
    checkpoint: Type.Optional(Type.String({ description: 'Where the next batch begins.' })),
    more: Type.Optional(Type.Boolean({ description: 'Whether more follows at once.' })),
  },
  { title: 'Batch', description: 'Changes of one resource.' },
)

const s3xml = Type.String({ description: 'S3XML, the format of Sahana Eden: see docs/protocol.md.' })
const lines = Type.String({
  description: 'The form in which two Syncline sites exchange records: see docs/protocol.md.',
})
const csv = Type.String({
  description:
    'The first line names the columns; `id`, or the identity column, is compulsory; `_deleted` marks deletions. An empty cell is null, `""` an empty text.',
})

const rows = Type.String({
  description:
    'Records for a database with equal columns, as PostgreSQL copies them. Only where it is asked for by name, beside the form of lines in which every other batch comes: see docs/protocol.md.',
})

const records = {
  'application/x-ndjson': ndjson,
  'application/json': json,
  'application/xml': s3xml,
  [LINES_MEDIA_TYPE]: lines,
}

export const pulledAs = { ...records, [ROWS_MEDIA_TYPE]: rows }

export const pushedAs = { ...records, 'text/csv': csv }
