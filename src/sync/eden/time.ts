import type { Version } from '../record.ts'

/** Eden's times: whole seconds of UTC, without a mark of the zone. */
const EDEN_TIME = /^(\d{4})-(\d{2})-(\d{2})(?:[T ](\d{2}):(\d{2})(?::(\d{2})(\.\d{1,9})?)?)?\s*(Z|[+-]\d{2}:?\d{2})?$/i

/** Eden takes a date without a time for this hour. */
const HOUR_OF_A_DATE = 8

/** Seconds since 1970 of a time as Eden writes and reads it, or undefined for what is none. */
export function readEdenTime(text: string): number | undefined {
  const match = EDEN_TIME.exec(text.trim())
  if (match === null) return undefined
  const [, year, month, day, hour, minute = '0', second = '0', , zone] = match
  const ms = Date.UTC(
    Number(year),
    Number(month) - 1,
    Number(day),
    hour === undefined ? HOUR_OF_A_DATE : Number(hour),
    Number(minute),
    Number(second),
  )
  // Date.UTC carries a 31st of February on into March, which nobody wrote.
  const [date] = new Date(Number.isNaN(ms) ? 0 : ms).toISOString().split('T')
  if (date !== `${year}-${month}-${day}` || Number(hour ?? 0) > 23 || Number(minute) > 59 || Number(second) > 59)
    return undefined
  return ms / 1_000 - zoneSeconds(zone)
}

/** The only form of a time that Eden understands everywhere: `2026-11-21T10:00:03`. */
export function writeEdenTime(seconds: number): string {
  return new Date(seconds * 1_000).toISOString().slice(0, 19)
}

/**
 * The second under which Eden is told of a version. Eden takes what is as new as its own or newer: so it is never below a write of Eden that
 * this version has settled.
 */
export function edenTimeOf(version: Version): number {
  return Math.floor(Math.max(version.clock, ...Object.values(version.seen ?? {})) / 1_000_000)
}

function zoneSeconds(zone: string | undefined): number {
  if (zone === undefined || zone.toUpperCase() === 'Z') return 0
  const minutes = Number(zone.slice(1, 3)) * 60 + Number(zone.slice(-2))
  return (zone.startsWith('-') ? -1 : 1) * minutes * 60
}
