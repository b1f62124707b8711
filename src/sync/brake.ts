import { SynclineError } from './errors.ts'

/**
 * Brakes: what one run, or one peer that pushes, may do to what lives here before a person is asked (I10). Pure decisions; counting is
 * the store's, stopping is the run's.
 */

/** At most `count` records, or this share of those that live (0 to 1), whichever is more. Null: no limit. */
export type Limit = { readonly count: number; readonly share: number } | null

export type Brakes = {
  readonly maxDeletes: Limit
  /** Records that live here and get other values. New records are no danger to what is here and are not counted. */
  readonly maxChanges: Limit
  /** Stops when the other side has nothing any more where this side holds many. */
  readonly emptyGuard: boolean
  /** Id of a record that must live at the peer. */
  readonly canary: string | null
}

/** As they are kept with a task or a grant: text of a limit, null for the usual one. */
export type BrakeSettings = {
  readonly maxDeletes: string | null
  readonly maxChanges: string | null
  readonly emptyGuard: boolean
  readonly canary: string | null
}

/** A first copy only adds, so it meets none of these. */
export const USUAL_LIMITS = { maxDeletes: '100,10%', maxChanges: '10000,50%' } as const
/** Fewer records than this are not many: a small table may well become empty. */
export const EMPTY_HELD_MIN = 10

export type BrakeRule = 'deletes' | 'changes' | 'empty' | 'canary' | 'clone'
export type CanaryState = 'living' | 'deleted' | 'missing'

/** Who is being written to: this site by a pull, the peer by a push, this site by a peer that pushes. */
export type BrakeDirection = 'pull' | 'push' | 'receive'

/** What is due, counted before anything is written. */
export type Weight = {
  readonly deletes: number
  readonly changes: number
  /** Records that live where they would be written to. */
  readonly living: number
  /** True when the side that the changes come from has no record of the resource any more. */
  readonly empty: boolean
  /** Records that live where they would be written to and came from a side that is empty now. */
  readonly held: number
  /** Null when there is no canary, or nobody was asked. */
  readonly canary: CanaryState | null
}

/** What a person let pass: the rules that had stopped it, with the numbers that were shown. */
export type Pass = { readonly rules: readonly BrakeRule[]; readonly deletes: number; readonly changes: number }

export type Trip = { readonly rule: BrakeRule; readonly reason: string }

/** Names for the sentences. */
export type BrakePlace = { readonly direction: BrakeDirection; readonly peer: string; readonly resource: string }

const LIMIT = /^\s*(?:(\d{1,9})\s*(?:[,|]\s*(\d{1,3}(?:\.\d{1,3})?)\s*%)?|(\d{1,3}(?:\.\d{1,3})?)\s*%)\s*$/

/** Reads `100`, `5%`, `100,5%` (whichever is more) or `none`. Errors: SYNC_REQUEST_INVALID. */
export function parseLimit(text: string): Limit {
  if (text.trim() === 'none') return null
  const [, count = '0', both, alone] = LIMIT.exec(text) ?? []
  const share = Number(both ?? alone ?? 0)
  if (!LIMIT.test(text) || share > 100) {
    throw new SynclineError(
      'SYNC_REQUEST_INVALID',
      `"${text.slice(0, 40)}" is not a limit: write a number, a share such as 5%, both as 100,5% (whichever is more), or none`,
    )
  }
  return { count: Number(count), share: share / 100 }
}

export function brakesOf(settings: BrakeSettings): Brakes {
  const { maxDeletes, maxChanges, emptyGuard, canary } = settings
  return {
    maxDeletes: parseLimit(maxDeletes ?? USUAL_LIMITS.maxDeletes),
    maxChanges: parseLimit(maxChanges ?? USUAL_LIMITS.maxChanges),
    emptyGuard,
    canary,
  }
}

/** The most records that a limit lets through where so many live. */
export function limitFor(limit: Limit, living: number): number {
  return limit === null ? Number.POSITIVE_INFINITY : Math.max(limit.count, Math.floor(limit.share * living))
}

/** True when no number of living records could make this too much: then nobody needs to count them. */
export function surelyWithin(limit: Limit, records: number): boolean {
  return limit === null || records <= limit.count
}

/** Every rule that stops this, the plainest first; none when it may go on. A pass lets through what was shown, and as much again as the limit allows anyway. */
export function judgeBrakes(
  weight: Weight,
  brakes: Brakes,
  place: BrakePlace,
  pass: Pass | null = null,
): readonly Trip[] {
  const { deletes, changes, living, empty, held, canary } = weight
  const passed = (rule: BrakeRule) => pass?.rules.includes(rule) ?? false
  const trips: Trip[] = []
  const { subject, where, source } = WORDS[place.direction](place)
  if (brakes.canary !== null && canary !== null && canary !== 'living' && !passed('canary')) {
    const fate = canary === 'deleted' ? 'was deleted' : 'is not'
    trips.push({
      rule: 'canary',
      reason: `the canary record "${brakes.canary}" of "${place.resource}" ${fate} ${source}`,
    })
  }
  const lost = Math.max(deletes, held)
  if (brakes.emptyGuard && empty && lost >= EMPTY_HELD_MIN && !passed('empty')) {
    const holds =
      held > deletes
        ? `${grouped(held)} that came from there are ${where}`
        : `${grouped(deletes)} would be deleted ${where}`
    trips.push({ rule: 'empty', reason: `"${place.resource}" has no record ${source} any more, and ${holds}` })
  }
  const most = (limit: Limit, shown: number | undefined, rule: BrakeRule) =>
    limitFor(limit, living) + (passed(rule) ? (shown ?? 0) : 0)
  if (deletes > most(brakes.maxDeletes, pass?.deletes, 'deletes')) {
    trips.push({
      rule: 'deletes',
      reason: `${subject} would delete ${portion(deletes, living)} ${where}; at most ${limitText(brakes.maxDeletes, living)} may be deleted without a person's word`,
    })
  }
  if (changes > most(brakes.maxChanges, pass?.changes, 'changes')) {
    trips.push({
      rule: 'changes',
      reason: `${subject} would change ${portion(changes, living)} ${where}; at most ${limitText(brakes.maxChanges, living)} may be changed without a person's word`,
    })
  }
  return trips
}

const WORDS: Readonly<
  Record<
    BrakeDirection,
    (place: BrakePlace) => { readonly subject: string; readonly where: string; readonly source: string }
  >
> = {
  pull: ({ peer, resource }) => ({
    subject: `pulling "${resource}" from ${peer}`,
    where: 'here',
    source: `at ${peer}`,
  }),
  push: ({ peer, resource }) => ({ subject: `pushing "${resource}" to ${peer}`, where: `at ${peer}`, source: 'here' }),
  receive: ({ peer, resource }) => ({
    subject: `what ${peer} pushes of "${resource}"`,
    where: 'here',
    source: `at ${peer}`,
  }),
}

function portion(records: number, living: number): string {
  const share = living === 0 ? '' : ` (${Math.round((1000 * records) / living) / 10} %)`
  return `${grouped(records)} of ${grouped(Math.max(living, records))} records${share}`
}

function limitText(limit: Limit, living: number): string {
  if (limit === null) return 'any number'
  const share = `${Math.round(limit.share * 1000) / 10} %`
  if (limit.share === 0) return grouped(limit.count)
  return limit.count === 0
    ? `${share} (${grouped(limitFor(limit, living))})`
    : `${grouped(limit.count)} or ${share}, whichever is more,`
}

const grouped = (records: number) => String(records).replace(/\B(?=(\d{3})+$)/g, ',')

/** A mark that another one had taken the place of for so long cannot be a request that was under way at the change. */
export const MARK_GRACE_MS = 60_000

/**
 * What the mark that a peer shows tells. Every start of a site makes a new mark, and nobody shows an old one again: a former mark that
 * comes back proves that two sites live under one UUID, or that one was put back to an earlier state while it ran.
 */
export function judgeMark(
  shown: { readonly current: boolean; readonly supersededMsAgo: number | null } | null,
): 'new' | 'same' | 'late' | 'former' {
  if (shown === null) return 'new'
  if (shown.current || shown.supersededMsAgo === null) return 'same'
  return shown.supersededMsAgo <= MARK_GRACE_MS ? 'late' : 'former'
}
