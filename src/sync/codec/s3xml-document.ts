import type { SaxesTagPlain } from 'saxes'
import { SynclineError } from '../errors.ts'
import { type BodyLimits, checkCount, decodeText, placed } from './format.ts'
import { strictS3xml } from './s3xml-strict.ts'

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

/** The elements of a whole S3XML document, strictly. Throws SYNC_FORMAT_INVALID, SYNC_RECORD_TOO_LARGE or SYNC_REQUEST_TOO_LARGE. */
export function readS3xmlDocument(bytes: Uint8Array, limits: BodyLimits): S3xmlDocument {
  const root = { attributes: {} as Record<string, string>, resources: [] as S3xmlResource[], count: 0 }
  const frames: Frame[] = []
  let field: Growing<S3xmlField> | undefined

  const parser = strictS3xml(limits, { opened, text, closed })

  try {
    parser.write(decodeText(bytes)).close()
  } catch (error) {
    throw placed(error, `line ${parser.line}`)
  }
  return root

  function opened({ name, attributes }: SaxesTagPlain): void {
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
  }

  function closed({ name }: SaxesTagPlain): void {
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
