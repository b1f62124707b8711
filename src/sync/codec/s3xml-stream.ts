import type { SaxesTagPlain } from 'saxes'
import { SynclineError } from '../errors.ts'
import type { EdenElement, EdenField, EdenLimits, EdenReader } from './eden-element.ts'
import { fault, placed } from './format.ts'
import { strictS3xml } from './s3xml-strict.ts'

type Growing<T> = { -readonly [K in keyof T]: T[K] extends readonly (infer E)[] ? E[] : T[K] }
/** An element or field whose end has not come yet. */
type Open =
  | { readonly kind: 'resource'; readonly node: Growing<EdenElement> }
  | { readonly kind: 'field'; readonly node: Growing<EdenField> & { inline?: EdenElement } }

/**
 * Reads S3XML of Eden as it comes, strictly; a record may stand inside a reference. Memory is bounded by one top-level element. Throws SYNC_FORMAT_INVALID, SYNC_RECORD_TOO_LARGE or SYNC_REQUEST_TOO_LARGE.
 */
export function s3xmlReader(limits: EdenLimits): EdenReader {
  const decoder = new TextDecoder('utf-8', { fatal: true })
  const parser = strictS3xml({ depthMax: limits.depthMax, inline: true }, { opened, text, closed })
  const open: Open[] = []
  let root: Readonly<Record<string, string>> = {}
  let done: EdenElement[] = []
  let [count, bytesRead, fed, begin] = [0, 0, 0, 0]

  return { write, end: () => feed(() => decoder.decode(), true), root: () => root }

  function write(bytes: Uint8Array): readonly EdenElement[] {
    bytesRead += bytes.length
    if (bytesRead > limits.bytesMax)
      throw new SynclineError('SYNC_REQUEST_TOO_LARGE', `the document has more than ${limits.bytesMax} bytes`)
    return feed(() => decoder.decode(bytes, { stream: true }), false)
  }

  function feed(next: () => string, last: boolean): readonly EdenElement[] {
    done = []
    let text: string
    try {
      text = next()
    } catch (error) {
      throw placed(
        new SyntaxError('it is not UTF-8; send the document in UTF-8', { cause: error }),
        `line ${parser.line}`,
      )
    }
    try {
      parser.write(text)
      fed += text.length
      // A tag or text that never ends must not be gathered without bound.
      checkSize(fed)
      if (last) parser.close()
    } catch (error) {
      throw placed(error, `line ${parser.line}`)
    }
    return done
  }

  function opened({ name, attributes }: SaxesTagPlain): void {
    if (name === 's3xml') {
      root = attributes
      begin = parser.position
    } else if (name === 'resource') {
      count++
      if (count > limits.elementsMax)
        throw new SynclineError('SYNC_REQUEST_TOO_LARGE', `the document has more than ${limits.elementsMax} records`)
      const { name: table = '', ...others } = attributes
      if (table === '') fault('a <resource> needs a name')
      open.push({ kind: 'resource', node: { table, attributes: others, fields: [], components: [] } })
    } else {
      const { field = '', ...others } = attributes
      if (field === '') fault(`a <${name}> needs the attribute field`)
      open.push({ kind: 'field', node: { kind: name as EdenField['kind'], field, attributes: others, text: '' } })
    }
  }

  function text(piece: string): void {
    const within = open.at(-1)
    if (within?.kind === 'field') within.node.text += piece
  }

  function closed(): void {
    const ended = open.pop()
    const around = open.at(-1)
    if (ended === undefined) return
    if (ended.kind === 'field') {
      if (around?.kind === 'resource') around.node.fields.push(ended.node)
    } else if (around === undefined) {
      checkSize(parser.position)
      begin = parser.position
      done.push(ended.node)
    } else if (around.kind === 'resource') around.node.components.push(ended.node)
    else if (around.node.inline !== undefined) fault('a reference has more than one record in it')
    else around.node.inline = ended.node
  }

  function checkSize(until: number): void {
    const size = until - begin
    if (size <= limits.recordBytesMax) return
    throw new SynclineError(
      'SYNC_RECORD_TOO_LARGE',
      `record ${count} has ${size} characters; at most ${limits.recordBytesMax} are taken here`,
    )
  }
}
