import fc from 'fast-check'
import t from 'tap'
import { checkSchedule } from '../../src/jobs/index.ts'
import { lastDue, offsetOf, parseSchedule } from '../../src/jobs/schedule.ts'
import { type DueTasks, type ScheduledTask, startScheduler } from '../../src/jobs/scheduler.ts'
import { SynclineError } from '../../src/sync/index.ts'

const CODE = { name: 'SynclineError', code: 'SYNC_REQUEST_INVALID' }

t.test('a schedule has one spelling', async (t) => {
  const same: [string, string][] = [
    ['live', 'live'],
    [' every:300 ', 'every:300'],
    ['every:5m', 'every:300'],
    ['every:2h', 'every:7200'],
    ['every:7d', 'every:604800'],
    ['cron:0 3 * * *', 'cron:0 3 * * *'],
    ['cron:  */5   0-6,12 1,15 JAN-Jun mon-Fri ', 'cron:*/5 0-6,12 1,15 jan-jun mon-fri'],
    ['cron:30 0 3 * * 7', 'cron:30 0 3 * * 7'],
    ['cron:0 0 29 2 *', 'cron:0 0 29 2 *'],
    ['cron:0 0 31 4,5 *', 'cron:0 0 31 4,5 *'],
  ]
  for (const [given, expected] of same) t.equal(checkSchedule(given), expected)
})

t.test('what cannot be kept is refused with its reason', async (t) => {
  const wrong: [string, RegExp][] = [
    ['', /must be cron:/],
    ['daily', /must be cron:/],
    ['every:', /interval must be/],
    ['every:4', /interval must be 5/],
    ['every:8d', /interval must be/],
    ['every:1.5h', /interval must be/],
    ['cron:', /has 0 fields/],
    ['cron:* * * *', /has 4 fields/],
    ['cron:* * * * * * *', /has 7 fields/],
    ['cron:60 * * * *', /minute "60"/],
    ['cron:* 24 * * *', /hour "24"/],
    ['cron:* * 0 * *', /day of month "0"/],
    ['cron:* * * 13 *', /month "13"/],
    ['cron:* * * * 8', /day of week "8"/],
    ['cron:* * * * funday', /day of week "funday"/],
    ['cron:*/0 * * * *', /step must be/],
    ['cron:*/ * * * *', /minute "\*\/"/],
    ['cron:5-1 * * * *', /range must go upwards/],
    ['cron:1,,2 * * * *', /minute "1,,2"/],
    ['cron:1-2-3 * * * *', /minute/],
    ['cron:60 * * * * *', /second "60"/],
    ['cron:0 0 31 2 *', /no such day/],
    ['cron:0 0 31 apr,jun *', /no such day/],
    [`cron:${'1,'.repeat(500)}`, /has 1 fields/],
  ]
  for (const [text, message] of wrong) t.throws(() => parseSchedule(text), { ...CODE, message }, text)
})

t.test('any text is a schedule or a SynclineError, and a schedule keeps its spelling', async (t) => {
  const field = fc.constantFrom('*', '*/5', '1', '0-6', 'mon', 'jan', '1,2', '31', '99', '-', '1/', '')
  const rule = fc.array(field, { minLength: 4, maxLength: 7 }).map((fields) => `cron:${fields.join(' ')}`)
  const text = fc.oneof(
    rule,
    fc.string(),
    fc.nat({ max: 700_000 }).map((n) => `every:${n}`),
  )
  let kept = 0
  fc.assert(
    fc.property(text, (text) => {
      try {
        const spelling = checkSchedule(text)
        kept += 1
        return checkSchedule(spelling) === spelling
      } catch (error) {
        return error instanceof SynclineError
      }
    }),
    { numRuns: 3000 },
  )
  t.ok(kept > 100, `${kept} of the texts were schedules`)
})

t.test('every process finds the same times on the raster of an interval', async (t) => {
  const seconds = fc.integer({ min: 5, max: 604_800 })
  const now = fc.integer({ min: 1_600_000_000_000, max: 2_000_000_000_000 })
  fc.assert(
    fc.property(seconds, now, fc.string(), (every, nowMs, name) => {
      const offset = offsetOf(name, every * 1000)
      const last = lastDue(every, offset, nowMs)
      const step = every * 1000
      return (
        last <= nowMs && nowMs < last + step && (last - offset) % step === 0 && lastDue(every, offset, last) === last
      )
    }),
  )
  const offsets = new Set(Array.from({ length: 50 }, (_, n) => offsetOf(`site ${n}`, 300_000)))
  t.ok(offsets.size > 40, 'sites are spread over the interval')
})

const TASK: ScheduledTask = { taskId: 1, peerId: 7, peer: 'hub', resource: 'city', schedule: 'every:3600' }

t.test('an interval that passed while nothing ran is due at once, and the same in two processes', async (t) => {
  const first: DueTasks[] = []
  const second: DueTasks[] = []
  const errors: unknown[] = []
  const start = async (due: DueTasks[]) => {
    const tasks = async () => [TASK, { ...TASK, taskId: 2, resource: 'area' }]
    const scheduler = startScheduler({
      siteUuid: 'u',
      tasks,
      onDue: (each) => due.push(each),
      onError: (e) => errors.push(e),
    })
    await scheduler.refresh()
    await scheduler.refresh()
    t.teardown(scheduler.stop)
    return scheduler
  }
  const scheduler = await start(first)
  await start(second)
  t.same(first, second)
  t.equal(first.length, 1)
  t.match(first[0], { peerId: 7, peer: 'hub', resources: ['area', 'city'] })
  t.ok(Date.parse(first[0]?.dueAt ?? '') <= Date.now())
  const next = scheduler.nextRuns()
  t.same(
    next.map(({ taskId }) => taskId),
    [1, 2],
  )
  t.equal(Date.parse(next[0]?.at ?? '') - Date.parse(first[0]?.dueAt ?? ''), 3_600_000)
  t.same(errors, [])
})

t.test('due times follow cron rules in UTC, tasks that come and go, and end with stop', async (t) => {
  let tasks = [{ ...TASK, schedule: 'cron:* * * * * *' }]
  const due: DueTasks[] = []
  const errors: Error[] = []
  const scheduler = startScheduler({
    siteUuid: 'u',
    tasks: async () => tasks,
    onDue: (each) => due.push(each),
    onError: (error) => errors.push(error as Error),
  })
  t.teardown(scheduler.stop)
  await scheduler.refresh()
  const until = async (count: number) => {
    while (due.length < count) await new Promise((resolve) => setTimeout(resolve, 20))
  }
  await until(2)
  for (const { dueAt } of due) t.match(dueAt, /:\d\d\.000Z$/, 'a due time is the time of the rule, not of the timer')
  t.equal(new Set(due.map(({ key }) => key)).size, due.length)

  tasks = [
    { ...TASK, schedule: 'cron:0 3 * * *' },
    { ...TASK, taskId: 3, schedule: 'live' },
  ]
  await scheduler.refresh()
  const [next, ...others] = scheduler.nextRuns()
  t.same(others, [], 'a live task has no due time')
  t.match(next?.at, /T03:00:00\.000Z$/)
  const before = due.length
  await new Promise((resolve) => setTimeout(resolve, 1_100))
  t.equal(due.length, before, 'a schedule that is gone is silent')

  tasks = [{ ...TASK, schedule: 'cron:often' }]
  await scheduler.refresh()
  await scheduler.refresh()
  t.equal(errors.length, 1, 'one that cannot be kept is told of once')
})
