import { SaxesParser, type SaxesTagPlain } from 'saxes'
import { fault, quoted } from './format.ts'

/** What becomes of the elements of a document, in its order. */
export type S3xmlEvents = {
  readonly opened: (tag: SaxesTagPlain) => void
  /** Text within an element that may have some. */
  readonly text: (piece: string) => void
  readonly closed: (tag: SaxesTagPlain) => void
}

export type S3xmlParser = SaxesParser

/** Which elements may stand in which; `''` is the document. */
const CHILDREN: Readonly<Record<string, readonly string[]>> = {
  '': ['s3xml'],
  s3xml: ['resource'],
  resource: ['data', 'reference', 'resource'],
  data: [],
  reference: [],
}
/** Elements with a text; between others there are only spaces. */
const FIELDS = ['data', 'reference']

/**
 * A parser that takes S3XML strictly: one root, UTF-8, XML 1.0, no DOCTYPE (so no entities but the five of XML), bounded depth, and the first error
 * ends it. With `inline` a record may stand inside a reference. Only structure is checked here; what attributes mean is the caller's. Throws
 * SYNC_FORMAT_INVALID.
 */
export function strictS3xml(
  { depthMax, inline = false }: { readonly depthMax: number; readonly inline?: boolean },
  events: S3xmlEvents,
): S3xmlParser {
  const parser = new SaxesParser()
  const path: string[] = []
  const within = () => path.at(-1) ?? ''
  const mayHold = (parent: string, name: string) =>
    CHILDREN[parent]?.includes(name) === true || (inline && parent === 'reference' && name === 'resource')
  const text = (piece: string) => {
    if (FIELDS.includes(within())) events.text(piece)
    else if (piece.trim() !== '') fault(`text ${quoted(piece.trim())} stands outside of a field`)
  }
  parser.on('error', (error) => fault(error.message.replace(/^\d+:\d+: /, ''), { cause: error }))
  parser.on('doctype', () => fault('a DOCTYPE is not taken'))
  parser.on('xmldecl', ({ version, encoding = 'utf-8' }) => {
    if (version !== '1.0') fault(`XML ${quoted(version)} is not taken, only 1.0`)
    if (!/^utf-?8$/i.test(encoding)) fault(`the encoding ${quoted(encoding)} is not taken; send UTF-8`)
  })
  parser.on('opentagstart', ({ name }) => {
    const parent = within()
    if (!mayHold(parent, name))
      fault(`unknown element ${quoted(name)} in ${parent === '' ? 'the document' : `<${parent}>`}`)
    path.push(name)
    if (path.length > depthMax) fault(`elements are nested deeper than ${depthMax} levels`)
  })
  parser.on('opentag', events.opened)
  parser.on('text', text)
  parser.on('cdata', text)
  parser.on('closetag', (tag) => {
    path.pop()
    events.closed(tag)
  })
  return parser
}
