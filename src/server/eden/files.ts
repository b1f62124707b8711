import { createHash, createHmac, timingSafeEqual } from 'node:crypto'
import { findGrant, type ResourceInfo, readBytes } from '../../store/index.ts'
import type { Change, EdenField, EdenShape } from '../../sync/index.ts'
import type { ServerDeps } from '../deps.ts'
import { edenTables } from './asked.ts'

/** What a file begins with, and what it is. Eden takes a file by the end of its name. */
const KINDS: readonly (readonly [begins: string, end: string, mediaType: string])[] = [
  ['89504e47', 'png', 'image/png'],
  ['ffd8ff', 'jpg', 'image/jpeg'],
  ['474946', 'gif', 'image/gif'],
  ['25504446', 'pdf', 'application/pdf'],
]
const OTHER = ['', 'bin', 'application/octet-stream'] as const

/** Bytes of a value in a document of records. */
const HEX = /^\\x((?:[0-9a-f]{2})*)$/i
const NAME = /^file\.(\d{1,9})\.([\w-]+)\.([\w-]+)\.([\w-]+)\.([0-9a-f]{64})\.[a-z]{3}$/

/**
 * Where a peer fetches the files of a record. Eden asks for a file without an account, so the name is the permission: nobody can guess it, it is for
 * this content alone, and it is worth no more than the grant of the peer whom it was told to.
 */
export function fileFields(
  { key, publicUrl }: Pick<ServerDeps, 'key' | 'publicUrl'>,
  peerId: number,
  change: Change,
  { resource, columns }: EdenShape,
): EdenField[] {
  if (change.kind !== 'put') return []
  return columns.flatMap(({ kind, column, field }): EdenField[] => {
    const value = change.data[column]
    const hex = kind === 'upload' && typeof value === 'string' ? HEX.exec(value)?.[1] : undefined
    if (hex === undefined || hex === '') return []
    const bytes = Buffer.from(hex, 'hex')
    const parts = [String(peerId), ...[resource, column, change.id].map(coded)]
    const [, end] = kindOf(bytes)
    const name = ['file', ...parts, sealOf(key, parts, bytes), end].join('.')
    const url = `${publicUrl()}/eden/default/download/${name}`
    return [{ kind: 'data', field, attributes: { url, filename: `${field}.${end}` }, text: '' }]
  })
}

/** A file by the name that fileFields gave it; null for any other name, for another content, and where the peer may have it no longer. */
export async function namedFile(
  { store, key }: Pick<ServerDeps, 'store' | 'key'>,
  name: string,
): Promise<{ readonly bytes: Buffer; readonly mediaType: string } | null> {
  const [matched, peerId = '', ...rest] = NAME.exec(name) ?? []
  const [resourceCode = '', columnCode = '', idCode = '', seal = ''] = rest
  if (matched === undefined) return null
  const [resourceName = '', column = '', id = ''] = [resourceCode, columnCode, idCode].map(decoded)
  const resource: ResourceInfo | undefined = (await edenTables(store)).resources.get(resourceName)
  const grant = resource && (await findGrant(store.db, Number(peerId), resource.name, 'pull'))
  const known = resource?.columns.some((each) => each.name === column && each.baseType === 'bytea')
  if (resource === undefined || grant == null || known !== true) return null
  if (grant.columns !== null && !grant.columns.includes(column)) return null
  const bytes = await readBytes(store.db, resource, column, id)
  if (bytes === null) return null
  const expected = sealOf(key, [peerId, resourceCode, columnCode, idCode], bytes)
  if (!timingSafeEqual(Buffer.from(expected), Buffer.from(seal))) return null
  return { bytes, mediaType: kindOf(bytes)[2] }
}

function sealOf(key: Buffer, parts: readonly string[], bytes: Buffer): string {
  const digest = createHash('sha256').update(bytes).digest('hex')
  return createHmac('sha256', key)
    .update(`eden file\n${parts.join('.')}\n${digest}`)
    .digest('hex')
}

function kindOf(bytes: Buffer): readonly [begins: string, end: string, mediaType: string] {
  const begin = bytes.subarray(0, 4).toString('hex')
  return KINDS.find(([begins]) => begin.startsWith(begins)) ?? OTHER
}

function coded(text: string): string {
  return Buffer.from(text).toString('base64url')
}

function decoded(code: string): string {
  return Buffer.from(code, 'base64url').toString()
}
