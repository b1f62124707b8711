import type { DatabaseExamination, Peer, ResourceCheck } from '../store/index.ts'
import type { SiteInfo } from './status.ts'
import { ago, bytes, cell, duration } from './text.ts'

/** One line of the doctor: what was looked at, how it is, and where it is not well how to mend it. */
export type Finding = {
  readonly about: string
  readonly state: 'ok' | 'warn' | 'fail'
  readonly text: string
  readonly mend?: string
}

const NODE_MAJOR_MIN = 24
const FREE_BYTES_LOW = 1024 ** 3
const FREE_BYTES_MIN = 100 * 1024 ** 2
const CLOCK_WARN_MS = 60_000
const CLOCK_FAIL_MS = 300_000
const HORIZON_WARN_MS = 60_000

export function nodeFinding(version: string): Finding {
  const text = `Node ${version}`
  return Number.parseInt(version, 10) >= NODE_MAJOR_MIN
    ? { about: 'node', state: 'ok', text }
    : { about: 'node', state: 'fail', text, mend: `Install Node ${NODE_MAJOR_MIN} or newer.` }
}

/** `mode` as stat gives it; `freeBytes` is what this user may still write. */
export function dataDirFinding(path: string, found: { readonly mode: number; readonly freeBytes: number }): Finding {
  const { mode, freeBytes } = found
  const text = `${path}, ${bytes(freeBytes)} free`
  if ((mode & 0o077) !== 0)
    return {
      about: 'data folder',
      state: 'fail',
      text: `${text}, open to other users`,
      mend: `It holds keys: chmod 700 ${path}`,
    }
  if (freeBytes >= FREE_BYTES_LOW) return { about: 'data folder', state: 'ok', text }
  const state = freeBytes >= FREE_BYTES_MIN ? 'warn' : 'fail'
  return { about: 'data folder', state, text, mend: 'Make room on this disk, or move the data folder to a larger one.' }
}

/** A program of the host; `version` undefined where there is none. */
export function toolFinding(name: string, version: string | undefined, use: string): Finding {
  return version === undefined
    ? { about: name, state: 'warn', text: `not found; only ${use} needs it`, mend: `apt-get install ${name}` }
    : { about: name, state: 'ok', text: version }
}

export function siteFindings(info: SiteInfo, program: string, roundTripMs: number, now: number): readonly Finding[] {
  const { database, horizon, waiting } = info
  const sameVersion = info.version === program
  const offset = Math.abs(Date.parse(info.time) - now) - roundTripMs
  const waits = waiting.conflicts + waiting.quarantine
  return [
    {
      about: 'site',
      state: sameVersion ? 'ok' : 'warn',
      text: `${cell(info.name)} at ${cell(info.url)}, version ${cell(info.version)}`,
      ...(!sameVersion && { mend: `This command line is version ${program}; use the same one.` }),
    },
    database.kind === 'embedded'
      ? {
          about: 'database',
          state: 'ok',
          text: `embedded, ${cell(database.version)}; keeps commits through a crash of the process, not through a power cut`,
        }
      : { about: 'database', state: 'ok', text: `PostgreSQL ${cell(database.version)}` },
    horizon.ageMs < HORIZON_WARN_MS
      ? { about: 'horizon', state: 'ok', text: `${duration(horizon.ageMs)} old` }
      : {
          about: 'horizon',
          state: 'warn',
          text: `${duration(horizon.ageMs)} old, held by ${cell(horizon.holder)}: nothing newer is synced`,
          mend: 'End that transaction, in the application or with pg_terminate_backend.',
        },
    clockFinding('clock of the site', Math.max(0, offset)),
    waits === 0
      ? { about: 'waiting', state: 'ok', text: 'nothing waits for a person' }
      : {
          about: 'waiting',
          state: 'warn',
          text: `${waiting.conflicts} conflicts, ${waiting.quarantine} records in quarantine`,
          mend: 'syncline conflict list; syncline quarantine list',
        },
  ]
}

export function rightsFindings({ role, rights }: DatabaseExamination): readonly Finding[] {
  if (rights.length === 0) return [{ about: 'rights', state: 'ok', text: `role ${role} has every right it needs` }]
  return rights.map(({ missing, grant, needed }) => ({
    about: 'rights',
    state: needed ? 'fail' : 'warn',
    text: `role ${role} lacks: ${missing}`,
    mend: `${grant};`,
  }))
}

export function captureFindings(checks: readonly ResourceCheck[]): readonly Finding[] {
  if (checks.length === 0)
    return [{ about: 'triggers', state: 'warn', text: 'no table is attached', mend: 'syncline resource attach TABLE' }]
  const faulty = checks.flatMap(({ resource, faults, mends = [] }) =>
    faults.map((fault): Finding => {
      return {
        about: 'triggers',
        state: 'fail',
        text: `${cell(resource)}: ${cell(fault)}`,
        mend: cell(mends.join('; ')),
      }
    }),
  )
  const warned = checks.flatMap(({ resource, warnings = [] }) =>
    warnings.map((warning): Finding => {
      const mend = 'Let the owner of the table run what is named; docs/guides/database-grants.md says why'
      return { about: 'triggers', state: 'warn', text: `${cell(resource)}: ${cell(warning)}`, mend }
    }),
  )
  return faulty.length + warned.length > 0
    ? [...faulty, ...warned]
    : [{ about: 'triggers', state: 'ok', text: `${checks.length} resources are captured as they should be` }]
}

/** What the site itself has seen of a peer: it connects from there, through its proxy and with its certificates. */
export function peerFindings(peer: Peer, now: number): readonly Finding[] {
  const about = `peer ${cell(peer.name)}`
  const seen = `last seen ${ago(peer.lastSeenAt, now)}`
  const clock = peer.clockOffsetMs === null ? [] : [clockFinding(`${about}, clock`, Math.abs(peer.clockOffsetMs))]
  if (peer.paused)
    return [{ about, state: 'warn', text: 'paused', mend: `syncline peer resume ${cell(peer.name)}` }, ...clock]
  if (peer.failures > 0) {
    const mend = `syncline run list --peer ${cell(peer.name)} says why; syncline sync ${cell(peer.name)} tries again`
    return [{ about, state: 'fail', text: `failed ${peer.failures} times in a row, ${seen}`, mend }, ...clock]
  }
  if (peer.lastSeenAt !== null) return [{ about, state: 'ok', text: seen }, ...clock]
  const mend = peer.url === null ? 'It connects by itself: look there.' : `syncline sync ${cell(peer.name)}`
  return [{ about, state: 'warn', text: 'never seen', mend }, ...clock]
}

function clockFinding(about: string, offsetMs: number): Finding {
  const text = offsetMs < 1000 ? 'agrees' : `${duration(offsetMs)} off`
  if (offsetMs < CLOCK_WARN_MS) return { about, state: 'ok', text }
  const mend = 'Keep both clocks right, by NTP: changes stamped too far ahead wait in quarantine.'
  return { about, state: offsetMs < CLOCK_FAIL_MS ? 'warn' : 'fail', text, mend }
}
