import type { Version } from '../record.ts'
import { makeVersion, unionSeen } from '../version.ts'
import type { EdenPrints } from './records.ts'

/** A state of one record: what Eden was found to have, or what it was sent. */
export type EdenState = {
  /** Seconds since 1970 as Eden tells them. */
  readonly modifiedOn: number
  readonly deleted: boolean
  readonly prints: EdenPrints
  /** The version here that this state is. */
  readonly version: Version
}

/** What this site knows of one record at one peer of Eden. */
export type EdenKnown = {
  /** What the peer has, shown by itself. */
  readonly have?: EdenState | undefined
  /** What it was sent last, until it shows that it took it. */
  readonly sent?: EdenState | undefined
  /** What it was sent before that, the earliest first, and did not show: kept where what was sent may come back in any order, as from a folder. */
  readonly told?: readonly EdenState[] | undefined
}

export type EdenArriving = {
  /** UUID of the site of Eden: the origin of its writes. */
  readonly origin: string
  readonly modifiedOn: number | undefined
  readonly deleted: boolean
  readonly prints: EdenPrints
  readonly nowMicros: number
  /** The record is told with all its fields: what is missing in it is empty. */
  readonly exact?: boolean | undefined
}

/**
 * What an arriving record is.
 * `known`: the peer has exactly this version of ours, or of its own as it came before; there is nothing to apply, and it is proved.
 * `old`: the peer has shown something newer before; nothing older wins.
 * `write`: the peer wrote it. `emptied` are the fields that it had and has no longer: Eden leaves out what is empty.
 */
export type EdenArrival =
  | { readonly kind: 'known'; readonly have: EdenState }
  | { readonly kind: 'old' }
  | { readonly kind: 'write'; readonly have: EdenState; readonly emptied: readonly string[] }

/**
 * Tells an echo from a write, and gives a write its version. Eden knows whole seconds and one time for a record, so the rest is told by what
 * this site remembers of the peer:
 * - what is the same as before is no write, whatever its time;
 * - what is the same as it was sent is an echo, and proves that the peer has that very version, to the microsecond;
 * - a write has seen what the peer was proved to have, and nothing else: an edit made beside an unproved one of ours is concurrent (I7);
 * - two writes in one second have two clocks: one more each, which never reaches the next second's in practice and never goes back.
 */
export function readArrival(arriving: EdenArriving, known: EdenKnown | undefined): EdenArrival {
  const { have, sent } = known ?? {}
  const at = arriving.modifiedOn
  // What was sent and then changed back to what it was before is a write. At the very time that was sent it is a refusal: Eden takes over the
  // time of what it does not take.
  const back = sent !== undefined && at !== undefined && at > sent.modifiedOn && at > (have?.modifiedOn ?? 0)
  if (have !== undefined && !back && sameState(arriving, have))
    return { kind: 'known', have: { ...have, modifiedOn: Math.max(have.modifiedOn, at ?? 0) } }
  if (sent !== undefined && isEcho(arriving, sent))
    return { kind: 'known', have: { ...sent, prints: arriving.prints, modifiedOn: Math.max(sent.modifiedOn, at ?? 0) } }
  if (have !== undefined && at !== undefined && at < have.modifiedOn) return { kind: 'old' }
  const earlier = back ? undefined : toldBefore(known).find((state) => isEcho(arriving, state))
  if (earlier !== undefined) return { kind: 'known', have: { ...earlier, prints: arriving.prints } }
  const seen = behind(arriving, have, sent)
  const others = seen === undefined ? {} : unionSeen(seen, seen)
  // Above all that it has seen, ours of the same second too: a write that knows another one is the greater of the two everywhere (I3).
  const above = Math.max(0, ...Object.values(others)) + 1
  const clock = Math.max(at === undefined ? arriving.nowMicros : at * 1_000_000, above)
  const version = makeVersion(
    { origin: arriving.origin, clock },
    Object.fromEntries(Object.entries(others).filter(([origin]) => origin !== arriving.origin)),
  )
  const { prints, deleted } = arriving
  const emptied =
    have === undefined || deleted ? [] : Object.keys(have.prints).filter((field) => !Object.hasOwn(prints, field))
  return {
    kind: 'write',
    have: { modifiedOn: at ?? Math.floor(clock / 1_000_000), deleted, prints, version },
    emptied,
  }
}

/**
 * Earlier states that may still come back as an echo, the earliest first: of several alike that one counts, as nobody has seen more than is proved.
 * Where the peer has what it was sent last, whatever it says else is a write that goes back.
 */
export function toldBefore({ have, sent, told = [] }: EdenKnown = {}): readonly EdenState[] {
  return sent === undefined || (have !== undefined && sameState(sent, have)) ? [] : told
}

/** What the writer had before it: what it is proved to have, and what it was sent where its time says that it took it and changed it. */
function behind(arriving: EdenArriving, have: EdenState | undefined, sent: EdenState | undefined): Version | undefined {
  const took = sent !== undefined && arriving.modifiedOn === sent.modifiedOn
  if (!took) return have?.version
  if (have === undefined) return sent.version
  return { ...sent.version, seen: unionSeen(sent.version, have.version) }
}

function sameState(arriving: Pick<EdenState, 'deleted' | 'prints'>, state: EdenState): boolean {
  if (arriving.deleted || state.deleted) return arriving.deleted === state.deleted
  const names = Object.keys(arriving.prints)
  return (
    names.length === Object.keys(state.prints).length &&
    names.every((name) => arriving.prints[name] === state.prints[name])
  )
}

/**
 * Eden drops fields that it has not, so what is missing proves nothing; and it stamps a deletion with its own time. A record that comes back with
 * an older time than it was sent with is not what was sent.
 */
function isEcho(arriving: EdenArriving, sent: EdenState): boolean {
  if (arriving.modifiedOn !== undefined && arriving.modifiedOn < sent.modifiedOn) return false
  if (arriving.deleted || sent.deleted) return arriving.deleted === sent.deleted
  if (arriving.exact === true) return sameState(arriving, sent)
  return Object.entries(arriving.prints).every(([name, mark]) => sent.prints[name] === mark)
}
