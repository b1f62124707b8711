import { isJsonObject, parseJson, quoted, readChange } from '../codec/index.ts'
import { SynclineError } from '../errors.ts'
import type { Change, Json } from '../record.ts'

/** The changes of one resource in a file. */
export type FileChanges = { readonly resource: string; readonly changes: readonly Change[] }

/** Levels that the document and its lists add around a change. */
const WRAPPING_DEPTH = 4

/**
 * Reads a file of our own JSON: `{"resource","changes":[…]}`, or `{"resources":[…]}` of several such. `refsOf` gives the reference columns of a
 * resource. `named` is the resource that the name of the file tells; a document that says no other may leave it out. Throws SYNC_FORMAT_INVALID.
 */
export function readJsonFile(
  text: string,
  context: {
    readonly depthMax: number
    readonly named: string | undefined
    readonly refsOf: (resource: string) => Readonly<Record<string, string>>
  },
): readonly FileChanges[] {
  const root = parsed(text, context.depthMax + WRAPPING_DEPTH)
  if (!isJsonObject(root)) return refuse('the document is no object with changes')
  if (!Object.hasOwn(root, 'resources')) return [readPart(root, context, '')]
  known(root, ['resources'], 'the document')
  const { resources } = root
  if (!Array.isArray(resources)) return refuse('resources must be a list')
  return resources.map((part, at) => {
    const place = `part ${at + 1}: `
    return isJsonObject(part) ? readPart(part, { ...context, named: undefined }, place) : refuse(`${place}is no object`)
  })
}

function readPart(
  part: { readonly [name: string]: Json },
  { named, refsOf }: Parameters<typeof readJsonFile>[1],
  place: string,
): FileChanges {
  known(part, ['resource', 'changes'], `${place}the document`)
  const { resource = named, changes } = part
  if (typeof resource !== 'string' || resource === '')
    return refuse(`${place}neither the document nor the name of the file says which resource it is of`)
  if (named !== undefined && resource !== named)
    return refuse(`${place}the document is of ${quoted(resource)}, the name of the file of ${quoted(named)}`)
  if (!Array.isArray(changes)) return refuse(`${place}changes must be a list`)
  const refs = refsOf(resource)
  return {
    resource,
    changes: changes.map((value, at) => {
      try {
        return readChange(value, refs)
      } catch (error) {
        if (!(error instanceof SynclineError)) throw error
        throw new SynclineError(error.code, `${place}record ${at + 1}: ${error.message}`, { cause: error })
      }
    }),
  }
}

function parsed(text: string, depthMax: number): Json {
  try {
    return parseJson(text, depthMax)
  } catch (error) {
    if (!(error instanceof SyntaxError)) throw error
    return refuse(error.message, error)
  }
}

function known(part: object, names: readonly string[], what: string): void {
  for (const name of Object.keys(part))
    if (!names.includes(name)) refuse(`unknown member ${quoted(name)}; ${what} has ${names.join(', ')}`)
}

function refuse(why: string, cause?: unknown): never {
  throw new SynclineError('SYNC_FORMAT_INVALID', why, { cause })
}
