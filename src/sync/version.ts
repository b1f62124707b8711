import { isClockAhead, nextClock } from './clock.ts'
import type { Version } from './record.ts'

/** What names one write: no two writes of a record share it. */
export type Dot = Pick<Version, 'origin' | 'clock'>

/** For each origin the highest clock seen. Clocks are positive, so an absent origin counts as 0. */
export type Seen = Readonly<Record<string, number>>

/** What an incoming version is to the local one. Only `concurrent` calls for a conflict policy. */
export type Order = 'same' | 'newer' | 'stale' | 'concurrent'

/** Highest clock of `origin` that the version has seen, its own dot included; 0 when none. */
export function seenOf(version: Version, origin: string): number {
  return origin === version.origin ? version.clock : lookUp(version.seen, origin)
}

/** True when whoever wrote or settled `version` knew the write that `dot` names. */
export function hasSeen(version: Version, dot: Dot): boolean {
  return seenOf(version, dot.origin) >= dot.clock
}

/**
 * Causal order of `incoming` against `local`, by one look-up each: a site's writes of a record form a chain, so who has
 * seen the dot has seen what led to it. Clocks of different origins are never compared here (I7).
 * When each has seen the other and the dots differ, two sites settled one conflict differently: a conflict again.
 */
export function compareVersions(incoming: Version, local: Version): Order {
  if (incoming.origin === local.origin && incoming.clock === local.clock) return 'same'
  const supersedes = hasSeen(incoming, local)
  const known = hasSeen(local, incoming)
  if (supersedes === known) return 'concurrent'
  return supersedes ? 'newer' : 'stale'
}

/** Total order of dots by clock, then origin: negative when `a` is the lesser. Every site orders alike. */
export function dotOrder(a: Dot, b: Dot): number {
  if (a.clock !== b.clock) return a.clock - b.clock
  if (a.origin === b.origin) return 0
  return a.origin < b.origin ? -1 : 1
}

/** UUID of the site behind an origin. A restored site writes as `UUID/logId`. */
export function siteOf(origin: string): string {
  const slash = origin.indexOf('/')
  return slash === -1 ? origin : origin.slice(0, slash)
}

/** Highest clock of any origin of the site, under all its logs, that the version has seen; 0 when none. */
export function seenOfSite(version: Version, site: string): number {
  const origins = [version.origin, ...Object.keys(version.seen ?? {})]
  return Math.max(0, ...origins.filter((origin) => siteOf(origin) === site).map((origin) => seenOf(version, origin)))
}

/** Everything that either version has seen, both dots included, in order of origin. */
export function unionSeen(a: Version, b: Version): Seen {
  const origins = new Set([a, b].flatMap((version) => [version.origin, ...Object.keys(version.seen ?? {})]))
  // fromEntries defines own properties, so an origin called __proto__ does no harm.
  return Object.fromEntries(
    [...origins].sort().map((origin) => [origin, Math.max(seenOf(a, origin), seenOf(b, origin))]),
  )
}

/**
 * What a version that keeps `dot` has seen after `a` and `b` were joined under it: the union, without the dot's own
 * origin, for which the dot speaks. The same for (a, b) and (b, a), so both sites of a conflict write the same.
 */
export function joinSeen(a: Version, b: Version, dot: Dot): Seen {
  return withoutOrigin(unionSeen(a, b), dot.origin)
}

/** A version in its one canonical shape: `seen` is absent when it is empty. */
export function makeVersion(dot: Dot, seen: Seen): Version {
  const { origin, clock } = dot
  return Object.keys(seen).length === 0 ? { origin, clock } : { origin, clock, seen }
}

export type Minting = {
  readonly origin: string
  /** Everything that the new write has seen, the own earlier writes included, as `unionSeen` gives it. */
  readonly seen: Seen
  readonly nowMicros: number
  readonly aheadMaxMicros: number
}

/** The version of a new write by `origin` that has seen all of `seen`. */
export function mintVersion({ origin, seen, nowMicros, aheadMaxMicros }: Minting): Version {
  const seenMax = Math.max(0, ...Object.values(seen))
  const clock = nextClock({ nowMicros, previousOwn: lookUp(seen, origin), seenMax, aheadMaxMicros })
  return makeVersion({ origin, clock }, withoutOrigin(seen, origin))
}

/**
 * True when the version, or anything that it claims to have seen, is stamped too far in the future. The claims count
 * too: a forged claim about our own origin would otherwise pull our next dot as far ahead as it likes.
 */
export function isVersionAhead(version: Version, nowMicros: number, aheadMaxMicros: number): boolean {
  const clocks = [version.clock, ...Object.values(version.seen ?? {})]
  return clocks.some((clock) => isClockAhead(clock, nowMicros, aheadMaxMicros))
}

function lookUp(seen: Seen | undefined, origin: string): number {
  return seen !== undefined && Object.hasOwn(seen, origin) ? (seen[origin] ?? 0) : 0
}

function withoutOrigin(seen: Seen, origin: string): Seen {
  return Object.fromEntries(Object.entries(seen).filter(([other]) => other !== origin))
}
