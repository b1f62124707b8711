import type { Version } from '../record.ts'
import { makeVersion, type Seen, seenOf, unionSeen } from '../version.ts'
import type { EdenElement, EdenField } from './element.ts'

/** What Eden shows of a record at one time. Times are seconds since 1970, by the clock of Eden. */
export type Showing = {
  readonly modifiedOn: number
  readonly deleted: boolean
  /** What its values say, however Eden writes them this time: see contentOf. */
  readonly content: string
}

/** What Eden showed of it before, and the version here that it stands for. */
export type KnownShowing = Showing & { readonly version: Version; readonly shownAt: number }

/** Log of writes that Eden shows after it went back to an earlier state. */
const WENT_BACK = 'back'
/** Eden's clock counts whole seconds, and its answer is on its way for a moment. */
const SLACK_SECONDS = 2

/**
 * The version that a record of Eden stands for. Eden has times, no versions; so this site writes down, on Eden's behalf, what must have happened:
 *
 * - It shows what it showed before: the same version, whatever its time says now. A refused push may set that time back.
 * - It shows something else: a write of Eden that has seen what it showed before. It is told from another write of the same second by what it
 *   says, so that two sites that call one Eden find the same version.
 * - Something else, older than what it showed and than the moment when it did: Eden was put back. That write has seen nothing, and meets what
 *   there is as a conflict (I7).
 *
 * `eden` is the UUID of the Eden site.
 */
export function versionOfShowing(known: KnownShowing | undefined, now: Showing, eden: string): Version {
  const clock = now.modifiedOn * 1_000_000 + fraction(now)
  if (known === undefined) return makeVersion({ origin: eden, clock }, {})
  if (known.deleted === now.deleted && known.content === now.content) return known.version
  const seen = unionSeen(known.version, known.version)
  if (now.modifiedOn < known.modifiedOn && now.modifiedOn < known.shownAt - SLACK_SECONDS) {
    const origin = `${eden}/${WENT_BACK}`
    return makeVersion({ origin, clock: Math.max(clock, seenOf(known.version, origin) + 1) }, {})
  }
  return writeAfter(eden, clock, seen)
}

/** A write of Eden that has seen all of `seen` has a clock above all of it: the order of versions agrees with what they know (I3). */
function writeAfter(origin: string, clock: number, seen: Seen): Version {
  const above = Math.max(clock, ...Object.values(seen).map((each) => each + 1))
  const { [origin]: _, ...others } = seen
  return makeVersion({ origin, clock: above }, others)
}

/**
 * What the values of an element say: fields in order of their names, each as its text, its target or its file. What Eden adds for people to read
 * is left out, and so is the form: a text may come with `value` or without.
 */
export function contentOf(element: EdenElement): string {
  const fields = element.fields.map((field) => [field.field, valueText(field)] as const)
  return JSON.stringify(fields.sort(([a], [b]) => (a < b ? -1 : a > b ? 1 : 0)))
}

function valueText({ kind, attributes, text, inline }: EdenField): string {
  if (kind === 'reference') {
    const target = attributes.uuid ?? attributes.tuid ?? (inline === undefined ? '' : contentOf(inline))
    return `${attributes.resource ?? ''} ${target}`
  }
  const { value, filename, url } = attributes
  if (filename !== undefined || url !== undefined) return `file ${filename ?? ''} ${url ?? ''}`
  if (value === undefined) return text
  try {
    const parsed: unknown = JSON.parse(value)
    return typeof parsed === 'string' ? parsed : JSON.stringify(parsed)
  } catch {
    return value
  }
}

/** Microseconds below one second, made from what is said: FNV-1a. */
function fraction({ deleted, content }: Showing): number {
  let hash = 0x811c9dc5
  for (const character of deleted ? 'deleted' : content) {
    hash ^= character.codePointAt(0) ?? 0
    hash = Math.imul(hash, 0x01000193) >>> 0
  }
  return hash % 1_000_000
}
