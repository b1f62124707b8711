import type { Batch, Json } from '../record.ts'
import { readChange, writeChange } from './change.ts'
import { isJsonObject, parseJson } from './exact-json.ts'
import {
  checkCount,
  checkSize,
  type DecodeContext,
  decodeText,
  fault,
  glue,
  placed,
  readNext,
  refuseUnknown,
  type WritingCodec,
} from './format.ts'

/** Levels that the root object and its list add around a change. */
const WRAPPING_DEPTH = 2

/** One document `{"changes":[…],"checkpoint","more"}`. Its closing brace is what says that it is whole. */
export const json: WritingCodec = {
  name: 'json',
  mediaType: 'application/json',
  aliases: [],
  decode: decodeJson,
  encode: (batch) => glue(jsonPieces(batch)),
}

function decodeJson(bytes: Uint8Array, context: DecodeContext): Batch[] {
  const root = parseRoot(decodeText(bytes), context)
  const { changes } = root
  if (!Array.isArray(changes)) return fault('body: changes must be a list')
  checkCount(changes.length, context.recordsMax)
  const mayBeLarge = bytes.length > context.recordBytesMax
  const read = changes.map((value, index) => {
    try {
      if (mayBeLarge) checkSize(JSON.stringify(value), context.recordBytesMax)
      return readChange(value, context.refs)
    } catch (error) {
      throw placed(error, `record ${index + 1}`)
    }
  })
  const next = readNext(root)
  return [{ resource: context.resource, changes: read, ...(next && { next }) }]
}

function parseRoot(text: string, context: DecodeContext): { readonly [key: string]: Json } {
  try {
    const root = parseJson(text, context.depthMax + WRAPPING_DEPTH)
    if (!isJsonObject(root)) return fault('the document is an object with changes')
    refuseUnknown(root, ['changes', 'checkpoint', 'more'], 'the document')
    return root
  } catch (error) {
    throw placed(error, 'body')
  }
}

function* jsonPieces(batch: Batch): Iterable<string> {
  yield '{"changes":['
  let separator = '\n'
  for (const change of batch.changes) {
    yield separator + writeChange(change)
    separator = ',\n'
  }
  yield batch.next === undefined ? '\n]}\n' : `\n],${JSON.stringify(batch.next).slice(1)}\n`
}
