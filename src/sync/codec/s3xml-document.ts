import { SaxesParser, type SaxesTagPlain } from 'saxes'
import { SynclineError } from '../errors.ts'
import { type BodyLimits, checkCount, decodeText, fault, placed, quoted } from './format.ts'

/** A `<data>` or `<reference>` with its text, and the line it begins in. */
export type S3xmlField = {
  readonly tag: 'data' | 'reference'
  readonly attributes: Readonly<Record<string, string>>
  readonly text: string
  readonly line: number
}

/** A `<resource>`: its attributes, fields in document order, and the resources inside it. */
export type S3xmlResource = {
  readonly attributes: Readonly<Record<string, string>>
  readonly fields: readonly S3xmlField[]
  readonly components: readonly S3xmlResource[]
  /** Number of the resource in the document, from 1. */
  readonly number: number
  readonly line: number
}

export type S3xmlDocument = {
  readonly attributes: Readonly<Record<string, string>>
  readonly resources: readonly S3xmlResource[]
  readonly count: number
}

type Growing<T> = { -readonly [K in keyof T]: T[K] extends readonly (infer E)[] ? E[] : T[K] }
type Frame = { readonly node: Growing<S3xmlResource>; readonly start: number }

/** Which elements may stand in which; `''` is the document. */
const CHILDREN: Readonly<Record<string, readonly string[]>> = {
  '': ['s3xml'],
  s3xml: ['resource'],
  resource: ['data', 'reference', 'resource'],
  data: [],
  reference: [],
}

/**
 * The elements of an S3XML document, strictly: one root, UTF-8, XML 1.0, no DOCTYPE (so no entities but the five of
 * XML), bounded depth, and the first error ends it. Only structure is checked here; what attributes mean is the
 * caller's. Throws SYNC_FORMAT_INVALID, SYNC_RECORD_TOO_LARGE or SYNC_REQUEST_TOO_LARGE.
 */
export function readS3xmlDocument(bytes: Uint8Array, limits: BodyLimits): S3xmlDocument {
  const parser = new SaxesParser()
  const root = { attributes: {} as Record<string, string>, resources: [] as S3xmlResource[], count: 0 }
  const path: string[] = []
  const frames: Frame[] = []
  let field: Growing<S3xmlField> | undefined

  parser.on('error', (error) => fault(error.message.replace(/^\d+:\d+: /, ''), { cause: error }))
  parser.on('doctype', () => fault('a DOCTYPE is not taken'))
  parser.on('xmldecl', ({ version, encoding = 'utf-8' }) => {
    if (version !== '1.0') fault(`XML ${quoted(version)} is not taken, only 1.0`)
    if (!/^utf-?8$/i.test(encoding)) fault(`the encoding ${quoted(encoding)} is not taken; send UTF-8`)
  })
  parser.on('opentagstart', ({ name }) => {
    const parent = path.at(-1) ?? ''
    if (!CHILDREN[parent]?.includes(name))
      fault(`unknown element ${quoted(name)} in ${parent === '' ? 'the document' : `<${parent}>`}`)
    path.push(name)
    if (path.length > limits.depthMax) fault(`elements are nested deeper than ${limits.depthMax} levels`)
  })
  parser.on('opentag', open)
  parser.on('text', text)
  parser.on('cdata', text)
  parser.on('closetag', close)

  try {
    parser.write(decodeText(bytes)).close()
  } catch (error) {
    throw placed(error, `line ${parser.line}`)
  }
  return root

  function open({ name, attributes }: SaxesTagPlain): void {
    if (name === 's3xml') root.attributes = attributes
    else if (name === 'resource') {
      root.count++
      checkCount(root.count, limits.recordsMax)
      frames.push({
        node: { attributes, fields: [], components: [], number: root.count, line: parser.line },
        start: parser.position,
      })
    } else field = { tag: name as S3xmlField['tag'], attributes, text: '', line: parser.line }
  }

  function text(piece: string): void {
    if (field !== undefined) field.text += piece
    else if (piece.trim() !== '') fault(`text ${quoted(piece.trim())} stands outside of a field`)
  }

  function close({ name }: SaxesTagPlain): void {
    path.pop()
    if (name === 'resource') {
      const { node, start } = frames.pop() as Frame
      const size = parser.position - start
      if (size > limits.recordBytesMax) {
        throw new SynclineError(
          'SYNC_RECORD_TOO_LARGE',
          `record ${node.number} has ${size} characters; at most ${limits.recordBytesMax} are taken here`,
        )
      }
      const siblings = frames.at(-1)?.node.components ?? root.resources
      siblings.push(node)
    } else if (field !== undefined) {
      frames.at(-1)?.node.fields.push(field)
      field = undefined
    }
  }
}
