import { readEdenTime } from './time.ts'

/** How far the order of each resource here has been told: a checkpoint by resource. */
export type EdenPlaces = Readonly<Record<string, string>>

/** What Eden asked with when it had everything up to these places. */
type Taken = { readonly msince: string | null; readonly places: EdenPlaces }

/**
 * How far a puller of Eden has come. Eden keeps a time, not a place: after a pull that it could import, the time of the youngest record in it, and
 * one second. So what it asks with next tells whether it took the last answer.
 */
export type EdenTrail = {
  /** The last one is where it is now; the ones before are where it comes back to when it is put back itself. */
  readonly taken: readonly Taken[]
  /** The last answer, with the earliest and the latest second in it. */
  readonly pending: (Taken & { readonly from: number; readonly until: number }) | null
}

/** Steps back that are remembered. */
const TAKEN_MAX = 20
/** Who asks with some overlap asks with a time that many seconds before what it took. Eden itself has none. */
const OVERLAP_SECONDS = 600

/**
 * Where to go on for a puller that asks with `msince`, exactly as it wrote it. What it may not have taken is told again; from a time that it never
 * had from here, everything is.
 */
export function followTrail(trail: EdenTrail | undefined, msince: string | null): EdenTrail {
  const known = trail ?? { taken: [], pending: null }
  if (msince === null) return { taken: [{ msince, places: {} }], pending: null }
  // A time that it had before comes first: that it was put back there is told from an answer with such a time only by telling more than is needed.
  const at = known.taken.findLastIndex((taken) => taken.msince === msince)
  if (at !== -1) return { taken: known.taken.slice(0, at + 1), pending: null }
  if (!tookPending(known.pending, msince)) return { taken: [{ msince, places: {} }], pending: null }
  const places = known.pending?.places ?? {}
  return { taken: [...known.taken, { msince, places }].slice(-TAKEN_MAX), pending: null }
}

/** Where the trail is now. */
export function placesOf(trail: EdenTrail): EdenPlaces {
  return trail.taken.at(-1)?.places ?? {}
}

/** Notes an answer: what was told in it lies between two seconds, or nothing was told and the places may move at once. */
export function noteAnswer(
  trail: EdenTrail,
  places: EdenPlaces,
  told: { readonly from: number; readonly until: number } | null,
): EdenTrail {
  const now = trail.taken.at(-1) ?? { msince: null, places: {} }
  if (told !== null) return { ...trail, pending: { msince: now.msince, places, ...told } }
  return { taken: [...trail.taken.slice(0, -1), { msince: now.msince, places }], pending: null }
}

function tookPending(pending: EdenTrail['pending'], msince: string): boolean {
  if (pending === null) return false
  const last = readEdenTime(msince)
  return last !== undefined && last - 1 >= pending.from - OVERLAP_SECONDS && last - 1 <= pending.until
}
