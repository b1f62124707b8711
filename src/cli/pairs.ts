import { type Json, SynclineError } from '../sync/index.ts'

/** Collects an option that may be given several times. */
export function several(value: string, before: readonly string[] = []): readonly string[] {
  return [...before, value]
}

/** `name=text` options as an object. A name that is given twice is refused. */
export function pairsOf(
  flag: string,
  texts: readonly string[] | undefined,
): Readonly<Record<string, string>> | undefined {
  if (texts === undefined) return undefined
  const pairs = texts.map((text): [string, string] => {
    const at = text.indexOf('=')
    if (at < 1) throw invalid(`${flag} ${text}: write it as ${flag} name=value`)
    return [text.slice(0, at), text.slice(at + 1)]
  })
  const doubled = pairs.find(([name], n) => pairs.findIndex(([other]) => other === name) !== n)
  if (doubled !== undefined) throw invalid(`${flag} names "${doubled[0]}" twice`)
  return Object.fromEntries(pairs)
}

/** A value as a person writes it: null, JSON where it begins like a list, an object or a quoted text, else the text itself. */
export function writtenValue(text: string): Json {
  if (text === 'null') return null
  if (!/^[[{"]/.test(text)) return text
  try {
    return JSON.parse(text) as Json
  } catch (error) {
    throw invalid(`${text.slice(0, 80)} begins like JSON and is none`, { cause: error })
  }
}

function invalid(detail: string, options?: ErrorOptions): SynclineError {
  return new SynclineError('SYNC_REQUEST_INVALID', detail, options)
}
