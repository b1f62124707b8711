import type {
  Agreement,
  Alarm,
  Brake,
  Conflict,
  JobRunEntry,
  Peer,
  QuarantineEntry,
  ResourceCheck,
  RunEntry,
  Task,
} from '../store/index.ts'
import { alarmLines, withAlarms } from './alarm.ts'
import type { Api, Page } from './api.ts'
import { withBrakes } from './brake.ts'
import { type Register, verb } from './command.ts'
import { EXIT } from './exit.ts'
import { type JobLight, type JobView, jobLights, jobLightsText } from './job-lights.ts'
import type { Output } from './output.ts'
import { LIGHT_COLORS, linkKey, type StatusFacts, type StatusRow, statusRows } from './status-lights.ts'
import { ago, cell, duration, plural, time } from './text.ts'

/** What the site says of itself. */
export type SiteInfo = {
  readonly uuid: string
  readonly name: string
  readonly logId: string
  readonly version: string
  readonly url: string
  readonly time: string
  readonly database: { readonly kind: 'postgresql' | 'embedded'; readonly version: string }
  readonly horizon: { readonly ageMs: number; readonly holder: string | null }
  readonly waiting: { readonly conflicts: number; readonly quarantine: number }
}

/** Nothing younger than an open write transaction is synced; a short one is normal. */
const HORIZON_AGE_MAX_MS = 10_000
const ALARMS_MAX = 100
const BRAKES_MAX = 100
const WAITING_READ_MAX = 1000

/** `status`: one screen. */
export const status: Register = (program, session) => {
  verb(program, session, {
    use: 'status',
    does: 'Shows each peer and resource, and each job: green, amber or red, and why',
    more: 'Green means proved equal: the last run succeeded, and a comparison found both sites equal since anything moved, within a day.',
    examples: ['syncline status', 'syncline status --json'],
    run: async ({ site, out }) => {
      const api = await site()
      const info = await api.get<SiteInfo>('/site')
      const alarms = (await api.get<Page<Alarm>>('/alarms', { open: true, limit: ALARMS_MAX })).items
      const brakes = (await api.get<Page<Brake>>('/brakes', { open: true, limit: BRAKES_MAX })).items
      const facts = await factsOf(api, info, brakes)
      const rows = withBrakes(withAlarms(statusRows(facts), alarms), brakes)
      const notes = notesOf(facts.checks)
      const { jobs, dead } = await jobsOf(api, alarms)
      const raised = alarms.length === 0 ? [] : ['', alarmLines(out, alarms)]
      await out.result({ site: info, links: rows, jobs, alarms, brakes, notes }, async () =>
        [
          headText(out, info),
          ...raised,
          '',
          await rowsText(out, rows),
          ...(await jobLightsText(out, jobs)),
          ...notesText(notes),
        ].join('\n'),
      )
      const critical = alarms.filter(({ level }) => level === 'critical').length
      const { conflicts, quarantine } = info.waiting
      return conflicts + quarantine + brakes.length + critical + dead > 0 ? EXIT.waiting : EXIT.done
    },
  })
}

/** The jobs, and how many of their runs wait for a person. */
export async function jobsOf(
  api: Api,
  alarms: readonly Alarm[],
): Promise<{ readonly jobs: readonly JobLight[]; readonly dead: number }> {
  const [jobs, dead] = await Promise.all([
    api.all<JobView>('/jobs'),
    api.get<Page<JobRunEntry>>('/job-runs', { dead: true, limit: WAITING_READ_MAX }),
  ])
  return { jobs: jobLights({ jobs, dead: dead.items, alarms, now: Date.now() }), dead: dead.items.length }
}

async function factsOf(api: Api, { waiting }: SiteInfo, brakes: readonly Brake[]): Promise<StatusFacts> {
  const [peers, tasks, checks, conflicts, quarantine, agreements] = await Promise.all([
    api.all<Peer>('/peers'),
    api.all<Task>('/tasks'),
    api.get<{ readonly items: readonly ResourceCheck[] }>('/checks'),
    waiting.conflicts > 0 ? waitingItems<Conflict>(api, '/conflicts', { open: true }) : [],
    waiting.quarantine > 0 ? waitingItems<QuarantineEntry>(api, '/quarantine', {}) : [],
    api.get<{ readonly items: readonly Agreement[] }>('/agreements'),
  ])
  const runs = peers.map(async ({ name }) => {
    const { items } = await api.get<Page<RunEntry>>('/runs', { peer: name, kind: 'sync', limit: 1 })
    return items.map((run) => [name, run] as const)
  })
  return {
    peers: peers.toSorted((a, b) => (a.name < b.name ? -1 : 1)),
    tasks: tasks.toSorted((a, b) => (a.resource < b.resource ? -1 : 1)),
    checks: checks.items,
    lastRuns: new Map((await Promise.all(runs)).flat()),
    agreements: new Map(agreements.items.map((each) => [linkKey(each.peer, each.resource), each])),
    conflicts: countByLink(conflicts),
    quarantine: countByLink(quarantine),
    stopped: new Set(brakes.map(({ peer, resource }) => linkKey(peer, resource ?? ''))),
    now: Date.now(),
  }
}

type Note = { readonly resource: string; readonly note: string }

/** What works and is worth knowing: columns that differ between sites, deletions that are kept for somebody. */
function notesOf(checks: readonly ResourceCheck[]): readonly Note[] {
  return checks.flatMap(({ resource, warnings = [] }) => warnings.map((note) => ({ resource, note })))
}

function notesText(notes: readonly Note[]): readonly string[] {
  return notes.length === 0 ? [] : ['', ...notes.map(({ resource, note }) => `note: ${cell(resource)}: ${cell(note)}`)]
}

/** Where thousands wait, which of them belong where is counted on the newest; the totals above are exact. */
async function waitingItems<T>(api: Api, path: string, query: { readonly open?: boolean }): Promise<readonly T[]> {
  return (await api.get<Page<T>>(path, { ...query, limit: WAITING_READ_MAX })).items
}

function countByLink(
  items: readonly { readonly peer: string | null; readonly resource: string }[],
): ReadonlyMap<string, number> {
  const counts = new Map<string, number>()
  for (const { peer, resource } of items) {
    const key = linkKey(peer ?? '', resource)
    counts.set(key, (counts.get(key) ?? 0) + 1)
  }
  return counts
}

function headText(out: Output, info: SiteInfo): string {
  const { database, horizon, waiting } = info
  const kind = database.kind === 'embedded' ? 'embedded database' : 'PostgreSQL'
  const lines = [
    `${out.paint('bold', cell(info.name))}  ${info.uuid}  ${cell(info.url)}`,
    `Syncline ${cell(info.version)} on ${kind} ${cell(database.version)}`,
    `waiting: ${plural(waiting.conflicts, 'conflict')}, ${plural(waiting.quarantine, 'record')} in quarantine`,
  ]
  const age = `horizon: ${duration(horizon.ageMs)}`
  if (horizon.ageMs > HORIZON_AGE_MAX_MS) {
    lines.push(
      out.paint(
        'yellow',
        `${age}: held back since ${time(new Date(Date.now() - horizon.ageMs).toISOString())} by ${cell(horizon.holder)}: nothing newer is synced`,
      ),
    )
  } else lines.push(age)
  return lines.join('\n')
}

async function rowsText(out: Output, rows: readonly StatusRow[]): Promise<string> {
  if (rows.length === 0) return 'No peers: see `syncline peer invite --help` and `syncline peer join --help`.'
  const now = Date.now()
  return out.table(
    ['STATUS', 'PEER', 'RESOURCE', 'MODE', 'LAST RUN', 'WHY'],
    rows.map((row) => [
      out.paint(LIGHT_COLORS[row.light], row.light),
      cell(row.peer),
      cell(row.resource),
      cell(row.mode),
      ago(row.lastRunAt, now),
      row.why.join('; '),
    ]),
  )
}
