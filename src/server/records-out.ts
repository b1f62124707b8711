import type { RecordPage } from '../store/index.ts'
import { changesOfLines, codecForContentType, SynclineError, type WritingCodec, writeChange } from '../sync/index.ts'

/** A format in which pages become one document. */
type Whole = {
  readonly mediaType: string
  readonly open: string
  readonly separator: string
  readonly close: (count: number) => string
  readonly records: (page: RecordPage) => readonly string[]
}

const xml = codecForContentType('application/xml') as WritingCodec
const texts = ({ batch }: RecordPage) => changesOfLines(batch).map(writeChange)

const FORMATS: Readonly<Record<string, Whole>> = {
  ndjson: {
    mediaType: 'application/x-ndjson',
    open: '',
    separator: '\n',
    close: (count) => `${count === 0 ? '' : '\n'}${JSON.stringify({ count })}\n`,
    records: texts,
  },
  json: {
    mediaType: 'application/json',
    open: '{"changes":[\n',
    separator: ',\n',
    close: () => '\n]}\n',
    records: texts,
  },
  s3xml: {
    mediaType: 'application/xml',
    open: '<?xml version="1.0" encoding="UTF-8"?>\n<s3xml>\n',
    separator: '\n',
    close: () => '\n</s3xml>\n',
    // A page is a whole document of declaration, root and one line for each record.
    records: ({ batch }) =>
      [...xml.encode({ resource: batch.resource, changes: changesOfLines(batch) })].join('').split('\n').slice(2, -2),
  },
}

/** Every page as one document, read as fast as it is taken. Errors: SYNC_FORMAT_UNSUPPORTED. */
export function exportRecords(
  format: string,
  readPage: (after: string | undefined) => Promise<RecordPage>,
): { readonly mediaType: string; readonly chunks: AsyncIterable<string> } {
  const whole = FORMATS[format]
  if (whole === undefined) {
    throw new SynclineError(
      'SYNC_FORMAT_UNSUPPORTED',
      'records are given as application/json, application/x-ndjson or application/xml',
    )
  }
  return { mediaType: whole.mediaType, chunks: chunksOf(whole, readPage) }
}

async function* chunksOf(
  whole: Whole,
  readPage: (after: string | undefined) => Promise<RecordPage>,
): AsyncIterable<string> {
  if (whole.open !== '') yield whole.open
  let count = 0
  let after: string | undefined
  do {
    const page = await readPage(after)
    const records = whole.records(page)
    if (records.length > 0) yield `${count === 0 ? '' : whole.separator}${records.join(whole.separator)}`
    count += records.length
    after = page.next ?? undefined
  } while (after !== undefined)
  yield whole.close(count)
}
