import { SynclineError } from '../errors.ts'
import { csv } from './csv.ts'
import type { Codec, WritingCodec } from './format.ts'
import { json } from './json.ts'
import { LINES_MEDIA_TYPE } from './lines.ts'
import { ndjson } from './ndjson.ts'
import { ROWS_MEDIA_TYPE } from './rows.ts'
import { s3xml } from './s3xml.ts'

/**
 * The internal wire stands in the registry for negotiation only: `linesBody` and `decodeLines` go with it, as its
 * batches are never parsed.
 */
export const lines = { name: 'lines', mediaType: LINES_MEDIA_TYPE, aliases: [] } as const
export type LinesFormat = typeof lines

/** Every format of records, in order of preference where a caller likes several equally. */
export const FORMATS: readonly (Codec | LinesFormat)[] = [lines, ndjson, json, s3xml, csv]

type Range = { readonly type: string; readonly quality: number }
type Match = { readonly quality: number; readonly specificity: number }

/**
 * The format to answer in. The highest quality wins, then the range that names a format more exactly, then the order
 * of FORMATS. A wildcard or no header at all means NDJSON: the lines wire must be asked for by name. Throws
 * SYNC_FORMAT_UNSUPPORTED with what was asked and what there is.
 */
export function codecForAccept(header: string | undefined): WritingCodec | LinesFormat {
  const ranges = acceptRanges(header)
  const best = FORMATS.filter((format) => format.name === 'lines' || format.encode !== undefined)
    .map((format) => ({ format, ...bestMatch(format, ranges) }))
    .filter(({ format, quality, specificity }) => quality > 0 && (format.name !== 'lines' || specificity === 2))
    .reduce<({ format: Codec | LinesFormat } & Match) | undefined>(
      (first, next) =>
        first === undefined ||
        next.quality > first.quality ||
        (next.quality === first.quality && next.specificity > first.specificity)
          ? next
          : first,
      undefined,
    )
  if (best === undefined)
    throw unsupported(
      `an answer as ${header} was asked for`,
      (format) => format.name === 'lines' || format.encode !== undefined,
    )
  return best.format as WritingCodec | LinesFormat
}

/** True where rows are asked for by name: where they cannot be made, the answer is in lines. */
export function asksForRows(header: string | undefined): boolean {
  return acceptRanges(header).some(({ type, quality }) => type === ROWS_MEDIA_TYPE && quality > 0)
}

/** The format of a body by its Content-Type. Throws SYNC_FORMAT_UNSUPPORTED with what was sent and what there is. */
export function codecForContentType(header: string | undefined): Codec | LinesFormat {
  const [type = '', ...parameters] = (header ?? '').split(';').map((part) => part.trim().toLowerCase())
  const format = FORMATS.find(({ mediaType, aliases }) => mediaType === type || aliases.includes(type as never))
  if (format === undefined)
    throw unsupported(type === '' ? 'the body has no Content-Type' : `the body is ${type}`, () => true)
  const charset = parameters
    .find((parameter) => parameter.startsWith('charset='))
    ?.slice('charset='.length)
    .replaceAll('"', '')
  if (charset !== undefined && !['utf-8', 'utf8', 'us-ascii'].includes(charset)) {
    throw new SynclineError('SYNC_FORMAT_UNSUPPORTED', `the body is in ${charset}; records are read in UTF-8`)
  }
  return format
}

function acceptRanges(header: string | undefined): Range[] {
  if (header === undefined || header.trim() === '') return [{ type: '*/*', quality: 1 }]
  return header.split(',').map((part) => {
    const [type = '', ...parameters] = part.split(';').map((piece) => piece.trim().toLowerCase())
    const quality = parameters.find((parameter) => parameter.startsWith('q='))?.slice(2)
    return {
      type,
      quality: quality === undefined ? 1 : /^[01](?:\.\d{0,3})?$/.test(quality) ? Math.min(1, Number(quality)) : 0,
    }
  })
}

/** The most exact range that covers a format decides its quality (RFC 9110, 12.5.1). */
function bestMatch(format: Codec | LinesFormat, ranges: readonly Range[]): Match {
  let best: Match = { quality: 0, specificity: -1 }
  for (const type of [format.mediaType, ...format.aliases]) {
    for (const range of ranges) {
      const specificity =
        range.type === type ? 2 : range.type === `${type.split('/')[0]}/*` ? 1 : range.type === '*/*' ? 0 : -1
      if (specificity > best.specificity) best = { quality: range.quality, specificity }
    }
  }
  return best
}

function unsupported(what: string, offered: (format: Codec | LinesFormat) => boolean): SynclineError {
  const names = FORMATS.filter(offered).map((format) => format.mediaType)
  return new SynclineError('SYNC_FORMAT_UNSUPPORTED', `${what}; there is ${names.join(', ')}`)
}
