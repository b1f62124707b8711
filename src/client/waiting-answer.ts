import { type DiscardedThere, TOLD_MAX, type Told, type WaitingThere } from '../store/index.ts'
import { isJsonObject } from '../sync/index.ts'
import { unreadable } from './answers.ts'

/** Counts of a greeting; null from a site that does not tell. */
export function readCounts(value: unknown): Told['counts'] | null {
  if (!isJsonObject(value)) return null
  const { quarantined, discarded } = value
  return isCount(quarantined) && isCount(discarded) ? { quarantined, discarded } : null
}

/** What a peer tells of our records. Nothing of it is believed to have the right type; texts are clipped where they are kept. */
export function readWaiting(value: Record<string, unknown>, what: string): Told & { readonly revived: number } {
  const counts = readCounts(value.counts)
  const { quarantined, discarded, revived } = value
  if (counts === null || !Array.isArray(quarantined) || !Array.isArray(discarded) || !isCount(revived))
    throw unreadable(what, 'it does not say what waits')
  if (Math.max(quarantined.length, discarded.length) > TOLD_MAX) throw unreadable(what, 'it lists too much')
  return {
    counts,
    quarantined: quarantined.map((each) => readEntry(each, what)),
    discarded: discarded.map((each) => readDiscard(each, what)),
    revived,
  }
}

function readEntry(value: unknown, what: string): WaitingThere {
  if (!isJsonObject(value)) throw unreadable(what, 'an entry is no object')
  const { resource, id, code, reason, dependants, attempts, firstAt, lastAt, retryAt, version } = value
  if (
    !isText(resource) ||
    !isText(id) ||
    !isText(code) ||
    !isText(reason) ||
    !isCount(dependants) ||
    !isCount(attempts)
  )
    throw unreadable(what, 'an entry is incomplete')
  if (!isTime(firstAt) || !isTime(lastAt) || !(retryAt === null || isTime(retryAt)))
    throw unreadable(what, 'an entry has no times')
  return {
    ...{ resource, id, code, reason, dependants, attempts, firstAt, lastAt, retryAt },
    version: version === null ? null : readDot(version, what),
    waitsFor: readAwaited(value.waitsFor, what),
  }
}

function readDiscard(value: unknown, what: string): DiscardedThere {
  if (!isJsonObject(value)) throw unreadable(what, 'an entry is no object')
  const { resource, id, code, reason, by, because, at } = value
  if (!isText(resource) || !isText(id) || !isText(code) || !isText(reason) || !isText(by) || !isTime(at))
    throw unreadable(what, 'an entry is incomplete')
  if (!(because === null || isText(because))) throw unreadable(what, 'an entry is incomplete')
  return { ...{ resource, id, code, reason, by, because, at }, version: readDot(value.version, what) }
}

function readDot(value: unknown, what: string): { readonly origin: string; readonly clock: number } {
  if (!isJsonObject(value) || !isText(value.origin) || !isCount(value.clock))
    throw unreadable(what, 'a version is none')
  return { origin: value.origin, clock: value.clock }
}

function readAwaited(value: unknown, what: string): WaitingThere['waitsFor'] {
  if (value === null || value === undefined) return null
  if (!isJsonObject(value) || !isText(value.resource) || !(value.id === null || isText(value.id)))
    throw unreadable(what, 'what an entry waits for is no record')
  return { resource: value.resource, id: value.id }
}

function isText(value: unknown): value is string {
  return typeof value === 'string' && value.length <= 20_000
}

function isCount(value: unknown): value is number {
  return Number.isSafeInteger(value) && (value as number) >= 0
}

function isTime(value: unknown): value is string {
  return typeof value === 'string' && value.length < 40 && !Number.isNaN(Date.parse(value))
}
