import type { EdenRecord } from '../../sync/index.ts'
import { type ArrivalPlace, isOnlyNamed, recordOf } from './arrive.ts'
import type { EdenRequests } from './requests.ts'
import type { EdenResource } from './resources.ts'

/** Names go in the address of a request: so many characters of them. */
const NAMES_CHARACTERS = 3_000
/** Elements that are read at once. */
const ELEMENTS = 200

/** A record as Eden shows it, and what it was read with. */
export type Shown = { readonly record: EdenRecord; readonly at: ArrivalPlace }

/** Records by their names at Eden, as it shows them now; those that it has not are left out. */
export async function* edenRecordsByName(
  { requests, origin }: { readonly requests: Pick<EdenRequests, 'pull'>; readonly origin: string },
  { shape, shapes }: EdenResource,
  names: readonly string[],
  signal: AbortSignal | undefined,
): AsyncIterable<Shown> {
  for (const uuids of portions(names.flatMap(asked))) {
    const document = await requests.pull({ table: shape.table, uuids }, signal)
    const at: ArrivalPlace = { shape, shapes, origin, serverTime: document.serverTime }
    try {
      for (
        let elements = await document.next(ELEMENTS);
        elements.length > 0;
        elements = await document.next(ELEMENTS)
      ) {
        for (const element of elements) {
          if (element.table !== shape.table || isOnlyNamed(element)) continue
          const record = recordOf(element, at)
          if (record !== undefined && !('reason' in record)) yield { record, at }
        }
      }
    } finally {
      document.close()
    }
  }
}

/** Eden puts its domain in front of a name that is no urn, and does not know it by that. A list is told apart by commas. */
function asked(name: string): readonly string[] {
  const quoted = (text: string) => (text.includes(',') ? `"${text}"` : text)
  const slash = name.startsWith('urn:') ? -1 : name.indexOf('/')
  return slash === -1 ? [quoted(name)] : [quoted(name), quoted(name.slice(slash + 1))]
}

function* portions(names: readonly string[]): Iterable<readonly string[]> {
  let [some, length]: [string[], number] = [[], 0]
  for (const name of names) {
    if (some.length > 0 && length + name.length > NAMES_CHARACTERS) {
      yield some
      ;[some, length] = [[], 0]
    }
    some.push(name)
    length += name.length + 1
  }
  if (some.length > 0) yield some
}
