import { readFileSync } from 'node:fs'
import { setTimeout as sleep } from 'node:timers/promises'
import { type Owner, startPostgres } from '../test/support/postgres.ts'
import { type Figure, median, say } from './report.ts'
import { type BenchSite, startSite } from './site.ts'

const STARTS = 25
const JOBS = 1_000
const IDLE_SECONDS = 30
/** Clock ticks of /proc/PID/stat in a second. */
const TICKS = 100

type Run = { readonly id: string; readonly dueAt: string | null; readonly phase: string }
type Step = { readonly startedAt: string }

/** How soon after it is due a job starts, and what a site with many scheduled jobs costs while none is due. */
export async function benchJobs(owner: Owner): Promise<Figure[]> {
  const cluster = await startPostgres(owner, { fsync: true })
  const { url } = await cluster.createDatabase()
  const site = await startSite(owner, 'jobs', url)
  const lateness = await starts(site)
  const late = median(lateness)
  const worst = [...lateness].sort((a, b) => a - b)[Math.ceil(lateness.length * 0.95) - 1] ?? Number.NaN
  const bare = await busy(site)
  const scheduled = Array.from({ length: JOBS }, (_, n) => ({
    name: `job-${n}`,
    schedule: { cron: `${n % 60} ${n % 24} 1 1 *`, timeZone: 'Europe/Vienna' },
    steps: [{ wait: 0 }],
  }))
  await site.call('POST', '/api/v1/jobs/apply', { jobs: scheduled })
  await sleep(3_000)
  const idle = await busy(site)
  say(
    `a job starts ${late.toFixed(1)} ms after it is due (19 of 20 within ${worst.toFixed(1)} ms); idle ${bare.toFixed(2)} % without jobs, ${idle.toFixed(2)} % with ${JOBS}`,
  )
  return [
    { what: 'from due to the first step', value: late, unit: 'ms', must: '≤ 50 ms', reached: late <= 50 },
    { what: 'the same, 19 of 20', value: worst, unit: 'ms', must: '≤ 50 ms', reached: worst <= 50 },
    {
      what: `site with ${JOBS} scheduled jobs, idle`,
      value: idle,
      unit: '% of a core',
      must: '< 1 %',
      reached: idle < 1,
    },
  ]
}

/** Milliseconds from the due time of runs to the begin of their first step, by the clock of the database. */
async function starts(site: BenchSite): Promise<readonly number[]> {
  const tick = { name: 'tick', schedule: { cron: '* * * * * *' }, steps: [{ command: { argv: ['/bin/true'] } }] }
  await site.call('POST', '/api/v1/jobs/apply', { jobs: [tick] })
  for (;;) {
    await sleep(500)
    const { items } = await site.call<{ items: Run[] }>('GET', `/api/v1/job-runs?job=tick&limit=${STARTS + 5}`)
    if (items.filter(({ phase }) => phase === 'over').length < STARTS) continue
    await site.call('DELETE', '/api/v1/jobs/tick')
    const found: number[] = []
    for (const { id, dueAt } of items.slice(-STARTS)) {
      const steps = await site.call<{ items: Step[] }>('GET', `/api/v1/job-runs/${id}/steps`)
      const began = steps.items[0]?.startedAt
      if (began !== undefined) found.push(Date.parse(began) - Date.parse(dueAt ?? ''))
    }
    return found
  }
}

/** Share of a core that the process of the site uses while nothing is asked of it. */
async function busy(site: BenchSite): Promise<number> {
  const before = ticksOf(site.pid)
  await sleep(IDLE_SECONDS * 1000)
  return ((ticksOf(site.pid) - before) / TICKS / IDLE_SECONDS) * 100
}

function ticksOf(pid: number): number {
  const fields = readFileSync(`/proc/${pid}/stat`, 'utf8')
    .replace(/^.*\) /, '')
    .split(' ')
  return Number(fields[11]) + Number(fields[12])
}
