export { readChange, readId, writeChange } from './change.ts'
export { asksForRows, codecForAccept, codecForContentType, type LinesFormat } from './codec.ts'
export type { EdenAttributes, EdenElement, EdenField, EdenLimits, EdenReader, EdenWriter } from './eden-element.ts'
export { isJsonObject, JSON_DEPTH_MAX, numberText, parseJson } from './exact-json.ts'
export { type BodyLimits, type Codec, type DecodeContext, fault, quoted, type WritingCodec } from './format.ts'
export { changesOfLines, linesOfChanges } from './line-changes.ts'
export {
  decodeLines,
  LINES_MEDIA_TYPE,
  type LineBatch,
  linesBody,
  linesHeader,
  linesTrailer,
  splitSets,
  unsoundLines,
} from './lines.ts'
export { decodeRows, ROWS_MEDIA_TYPE, type RowBatch, type RowText, rowsBody } from './rows.ts'
export { s3jsonReader, s3jsonWriter } from './s3json.ts'
export { type S3xmlBatch, s3xml } from './s3xml.ts'
export { emptyS3xml, s3xmlWriter } from './s3xml-elements.ts'
export { s3xmlReader } from './s3xml-stream.ts'
export { readZip, writeZip, type ZipBytes, type ZipLimits, type ZipMember, type ZipSource, zipContent } from './zip.ts'
