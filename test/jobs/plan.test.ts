import fc from 'fast-check'
import t from 'tap'
import { createCheck } from '../../src/jobs/check.ts'
import type { Guarded, Job, Step } from '../../src/jobs/definition.ts'
import { createOutput } from '../../src/jobs/output.ts'
import {
  decideArrival,
  decideMissed,
  decideWait,
  FRESH,
  limitReached,
  nextOf,
  pauseMs,
  type RunAction,
  type RunEvent,
  type RunState,
} from '../../src/jobs/plan.ts'
import { commandStep, notifyStep, waitStep } from '../../src/jobs/steps/index.ts'
import { escapeHtml, render } from '../../src/jobs/steps/template.ts'
import { duesBetween, nextDue, readTrigger } from '../../src/jobs/times.ts'

const RETRIES = { limit: 0, delaySeconds: 10, maxSeconds: 60, factor: 2 }

function step(name: string, over: Partial<Step> = {}): Step {
  return {
    name,
    kind: 'command',
    settings: {},
    repeatable: false,
    onFailure: 'stop',
    retries: RETRIES,
    limitSeconds: null,
    ...over,
  }
}

type Plan = Pick<Job, 'steps' | 'always'>

/** Goes through a run: `ends` says how each try of a step ends. Gives the names of the tries and the last action. */
function walk(job: Plan, ends: (name: string, attempt: number) => Partial<RunEvent> & { readonly result: string }) {
  const tries: string[] = []
  let { state, action } = nextOf(job, FRESH, { event: 'begun' })
  for (let n = 0; action.does === 'step'; n++) {
    if (n > 200) throw new Error('a run without an end')
    const name = job[action.stage][action.at]?.name ?? ''
    tries.push(action.attempt === 1 ? name : `${name}#${action.attempt}`)
    const end = { event: 'stepEnded', message: 'm', random: 0, ...ends(name, action.attempt) } as RunEvent
    ;({ state, action } = nextOf(job, { ...state, started: true }, end))
  }
  return { tries, action, state }
}

t.test('a run goes from step to step, always ends with what is always done, and tells the first failure', async (t) => {
  const job = { steps: [step('a'), step('b'), step('c')], always: [step('z'), step('y')] }
  const all = walk(job, () => ({ result: 'success' }))
  t.same(all.tries, ['a', 'b', 'c', 'z', 'y'])
  t.match(all.action, { does: 'finish', result: 'success' })
  const failing = walk(job, (name) => ({ result: name === 'b' || name === 'z' ? 'error' : 'success' }))
  t.same(failing.tries, ['a', 'b', 'z', 'y'], 'each of the last is tried')
  t.match(failing.action, { result: 'error', code: 'SYNC_JOB_FAILED', message: 'step b: m' })
  const warned = walk(job, (name) => ({ result: name === 'c' ? 'warning' : 'success' }))
  t.match(warned.action, { result: 'warning' })
})

t.test('the rule of a step says what its failure does to the others', async (t) => {
  const ends = (name: string) => ({ result: name === 'a' ? 'error' : 'success' })
  const on = (onFailure: Step['onFailure']) => walk({ steps: [step('a', { onFailure }), step('b')], always: [] }, ends)
  t.match(on('stop'), { tries: ['a'], action: { result: 'error' } })
  t.match(on('continue'), { tries: ['a', 'b'], action: { result: 'error' } })
  t.match(on('warn'), { tries: ['a', 'b'], action: { result: 'warning' } })
})

t.test('a step is tried again as often as it may, and not when that is of no use', async (t) => {
  const job = { steps: [step('a', { retries: { ...RETRIES, limit: 2 } })], always: [] }
  t.same(walk(job, () => ({ result: 'error' })).tries, ['a', 'a#2', 'a#3'])
  t.same(walk(job, (_, attempt) => ({ result: attempt < 2 ? 'error' : 'success' })).tries, ['a', 'a#2'])
  t.same(walk(job, () => ({ result: 'error', again: false })).tries, ['a'])
  const pauses = [1, 2, 3, 4, 5].map((attempt) => pauseMs(RETRIES, attempt, 0))
  t.same(pauses, [10_000, 20_000, 40_000, 60_000, 60_000], 'longer each time, up to a bound')
  t.equal(pauseMs(RETRIES, 1, 1), 7_500, 'and a part of it is chance')
})

t.test('what a lost process leaves is begun again where that may be, else it has failed', async (t) => {
  const at = (over: Partial<Step>, state: Partial<RunState> = {}, asked = false) =>
    nextOf(
      { steps: [step('a', over), step('b')], always: [] },
      { ...FRESH, started: true, ...state },
      { event: 'cutOff', asked },
    )
  t.match(at({ repeatable: true }).action, { does: 'step', at: 0, attempt: 2 })
  t.match(at({}).action, { does: 'finish', result: 'error', code: 'SYNC_JOB_INTERRUPTED' })
  t.match(at({ retries: { ...RETRIES, limit: 1 } }).action, { does: 'step', at: 0, attempt: 2 })
  t.match(at({}, { started: false }).action, { does: 'step', at: 0, attempt: 1 }, 'it had not begun')
  t.match(
    at({ repeatable: true }, { losses: 3 }).action,
    { does: 'finish' },
    'a step that kills its process is not tried for ever',
  )
  t.match(
    at({ repeatable: true }, { losses: 3 }, true).action,
    { does: 'step' },
    'a process that was asked to end says nothing',
  )
})

t.test('a run that is stopped or out of time begins no further step, but does what is always done', async (t) => {
  const job = { steps: [step('a'), step('b')], always: [step('z')] }
  for (const why of ['stopped', 'time', 'lease'] as const) {
    const begun = nextOf(job, FRESH, { event: 'begun' })
    const told = nextOf(job, { ...begun.state, started: true }, { event: 'end', ending: { why, message: 'enough' } })
    t.match(told.action, { does: 'abort' })
    const after = nextOf(job, told.state, { event: 'stepEnded', result: 'error', message: 'ended', random: 0 })
    t.match(after.action, { does: 'step', stage: 'always' })
    const over = nextOf(job, after.state, { event: 'stepEnded', result: 'success', message: '', random: 0 })
    const code = { stopped: 'SYNC_JOB_STOPPED', time: 'SYNC_JOB_TIME_LIMIT', lease: 'SYNC_JOB_LEASE_LOST' }[why]
    t.match(over.action, { does: 'finish', result: why === 'stopped' ? 'stopped' : 'error', code, message: 'enough' })
  }
})

t.test('whatever happens in whatever order, a run comes to its end and tries each of the last steps', async (t) => {
  const anEvent = fc.oneof(
    fc.record({
      event: fc.constant('stepEnded' as const),
      result: fc.constantFrom('success' as const, 'warning' as const, 'error' as const),
      message: fc.constant('m'),
      again: fc.boolean(),
      random: fc.double({ min: 0, max: 1, noNaN: true }),
    }),
    fc.record({ event: fc.constant('cutOff' as const), asked: fc.constant(false) }),
    fc.record({
      event: fc.constant('end' as const),
      ending: fc.record({ why: fc.constantFrom('stopped' as const, 'time' as const), message: fc.constant('e') }),
    }),
  )
  const aStep = fc.record({
    repeatable: fc.boolean(),
    onFailure: fc.constantFrom('stop' as const, 'continue' as const, 'warn' as const),
    limit: fc.integer({ min: 0, max: 3 }),
  })
  const steps = (
    prefix: string,
    list: readonly { repeatable: boolean; onFailure: Step['onFailure']; limit: number }[],
  ) => list.map(({ limit, ...rest }, n) => step(`${prefix}${n}`, { ...rest, retries: { ...RETRIES, limit } }))
  fc.assert(
    fc.property(
      fc.array(aStep, { minLength: 1, maxLength: 4 }),
      fc.array(aStep, { maxLength: 3 }),
      fc.array(anEvent, { minLength: 200, maxLength: 200 }),
      (first, last, events) => {
        const job = { steps: steps('s', first), always: steps('z', last) }
        let { state, action }: { state: RunState; action: RunAction } = nextOf(job, FRESH, { event: 'begun' })
        const seen = new Set<string>()
        for (const event of events) {
          if (action.does === 'finish') break
          if (action.does === 'step' && action.stage === 'always') seen.add(job.always[action.at]?.name ?? '')
          ;({ state, action } = nextOf(job, { ...state, started: true }, event))
        }
        return action.does === 'finish' && job.always.every(({ name }) => seen.has(name))
      },
    ),
  )
  t.ok(true)
})

t.test('what a further reason to run becomes', async (t) => {
  const limits = { job: 1, peer: null, site: null }
  const rule = (overlap: Job['overlap'], job = 1) => ({ overlap, limits: { ...limits, job } })
  const none = { begun: 0, queued: 0 }
  t.match(decideArrival(rule('coalesce'), 'schedule', none), { does: 'begin' })
  t.match(decideArrival(rule('coalesce'), 'hand', { begun: 1, queued: 0 }), { does: 'begin' }, 'one run after it')
  t.match(decideArrival(rule('coalesce'), 'hand', { begun: 1, queued: 1 }), { does: 'coalesce' }, 'and no more')
  t.match(decideArrival(rule('skip'), 'schedule', { begun: 1, queued: 0 }), { does: 'skip' })
  t.match(decideArrival(rule('skip'), 'hand', { begun: 1, queued: 0 }), { does: 'begin' }, 'a person is not left out')
  t.match(decideArrival(rule('parallel', 3), 'schedule', { begun: 2, queued: 0 }), { does: 'begin' })
  t.match(decideArrival(rule('parallel', 3), 'schedule', { begun: 2, queued: 1 }), { does: 'coalesce' })
})

t.test('times that passed while nothing ran are left out, made up for once, or each', async (t) => {
  const now = 10_000_000
  const dues = [now - 300_000, now - 200_000, now - 100_000, now - 5]
  t.same(decideMissed('skip', dues, now), { run: [now - 5], skipped: dues.slice(0, 3) })
  t.same(decideMissed('once', dues, now), { run: [now - 5], skipped: dues.slice(0, 3) })
  t.same(decideMissed('once', dues.slice(0, 3), now), { run: [now - 100_000], skipped: dues.slice(0, 2) })
  t.same(decideMissed('all', dues, now), { run: dues, skipped: [] })
})

t.test('a gate is waited for exactly as long as it says', async (t) => {
  const by = (limitSeconds: number | null, onTimeout: 'skip' | 'fail' = 'skip'): Guarded => ({
    ...{ kind: 'lease', settings: 'x', label: 'lease x', everySeconds: 30, limitSeconds, onTimeout },
  })
  t.match(decideWait(null, 0, 99), { does: 'begin' })
  t.match(decideWait({ by: by(null), reason: 'held' }, 0, 1e9), { does: 'wait', untilMs: 1e9 + 30_000, reason: 'held' })
  t.match(
    decideWait({ by: by(40), reason: 'held' }, 0, 30_000),
    { does: 'wait', untilMs: 40_000 },
    'looked at when the time is over',
  )
  t.match(decideWait({ by: by(40), reason: 'held' }, 0, 40_000), { does: 'skip', reason: /not free within 40 s: held/ })
  t.match(decideWait({ by: by(40, 'fail'), reason: 'held' }, 0, 40_000), { does: 'fail' })
})

t.test('limits count runs of the job, with a peer, and of the site', async (t) => {
  const run = (job: string, peers: readonly string[] = []) => ({ job, peers })
  const wish = (limits: Partial<Job['limits']>, peers: readonly string[] = []) => ({
    ...run('a', peers),
    limits: { job: 1, peer: null, site: null, ...limits },
  })
  t.equal(limitReached(wish({}), [run('b')], 10), null)
  t.match(limitReached(wish({}), [run('a')], 10), /a run of this job is under way/)
  t.equal(limitReached(wish({ job: 2 }), [run('a')], 10), null)
  t.match(limitReached(wish({ peer: 1 }, ['hub']), [run('b', ['hub'])], 10), /peer hub/)
  t.equal(limitReached(wish({ peer: 1 }, ['hub']), [run('b', ['other'])], 10), null)
  t.match(limitReached(wish({ site: 2 }), [run('b'), run('c')], 10), /limit is 2/)
  t.match(limitReached(wish({}), [run('b'), run('c')], 2), /limit is 2/)
})

const at = (iso: string) => Date.parse(iso)
const cron = (rule: string, timeZone = 'UTC') => [{ kind: 'cron', rule, timeZone } as const]

t.test('cron rules keep the clock of their zone, once a day also when the clock is changed', async (t) => {
  const vienna = cron('30 2 * * *', 'Europe/Vienna')
  const from = (iso: string) => new Date(nextDue(vienna, 's', at(iso)) ?? 0).toISOString()
  // Also for times that have passed, which the library does not tell.
  for (const year of [2025, 2027]) {
    const spring = year === 2025 ? '03-30' : '03-28'
    const autumn = year === 2025 ? '10-26' : '10-31'
    t.equal(from(`${year}-01-10T12:00:00Z`), `${year}-01-11T01:30:00.000Z`)
    t.equal(from(`${year}-07-10T12:00:00Z`), `${year}-07-11T00:30:00.000Z`)
    t.equal(
      from(`${year}-${spring}T00:00:00Z`),
      `${year}-${spring}T01:30:00.000Z`,
      'half past two is skipped: half past three',
    )
    const first = nextDue(vienna, 's', at(`${year}-${autumn}T00:00:00Z`)) ?? 0
    const second = nextDue(vienna, 's', first) ?? 0
    t.ok(second - first > 20 * 3_600_000, 'half past two comes twice: once')
  }
  t.equal(nextDue(cron('0 4 29 2 *'), 's', at('2026-11-22T00:00:00Z')), at('2028-02-29T04:00:00Z'))
})

t.test('due times between two moments, the last ones when they are many', async (t) => {
  const hourly = cron('0 * * * *')
  const dues = duesBetween(hourly, 's', at('2025-05-01T00:30:00Z'), at('2025-05-01T03:30:00Z'))
  t.same(
    dues.map((ms) => new Date(ms).getUTCHours()),
    [1, 2, 3],
  )
  const many = duesBetween(hourly, 's', at('2025-05-01T00:30:00Z'), at('2025-05-10T00:30:00Z'))
  t.equal(many.length, 24)
  t.equal(many.at(-1), at('2025-05-10T00:00:00Z'))
  const every = [{ kind: 'every', seconds: 60 } as const]
  const next = nextDue(every, 'one site', 1_000_000) ?? 0
  t.ok(next > 1_000_000 && next <= 1_060_000)
  t.equal(nextDue(every, 'one site', next), next + 60_000)
  t.not(nextDue(every, 'another site', 1_000_000), next, 'sites are not due all at once')
  t.equal(nextDue([{ kind: 'manual' }], 's', 0), null)
})

t.test('calendar words are cron rules', async (t) => {
  const rule = (calendar: string) => {
    const read = readTrigger({ calendar })
    return 'fault' in read ? read.fault : read.trigger.kind === 'cron' ? read.trigger.rule : ''
  }
  t.equal(rule('hourly'), '0 * * * *')
  t.equal(rule('daily at 02:30'), '30 2 * * *')
  t.equal(rule('Weekdays at 18:00'), '0 18 * * 1-5')
  t.equal(rule('monday and thursdays at 6:15'), '15 6 * * 1,4')
  t.equal(rule('monthly on 1, 15 at 04:00'), '0 4 1,15 * *')
  t.equal(rule('monthly on last'), '0 0 L * *')
  t.match(rule('daily at 25:00'), /no time of day/)
  t.match(rule('sometimes'), /write hourly, or/)
  t.match(readTrigger({ every: '5m', timeZone: 'UTC' }), { path: '/timeZone' })
  t.match(readTrigger({ cron: '0 4 * * *', timeZone: 'Mars/Olympus' }), { path: '/timeZone' })
})

const { check, schema } = createCheck({ steps: [commandStep({}), waitStep, notifyStep({})], leases: [] })
const faultsOf = (definition: unknown) => check(definition).faults.map(({ path, message }) => `${path} ${message}`)

t.test('a definition gets every default, and what is wrong with it is told all at once', async (t) => {
  const { job, faults } = check({
    name: 'nightly',
    schedule: [
      { calendar: 'daily at 02:00', timeZone: 'Europe/Vienna' },
      { event: 'job export success' },
      { signal: true },
    ],
    gates: [{ lease: 'backups', timeLimit: '10m', onTimeout: 'fail' }, { job: 'export' }],
    leases: [{ lease: 'backups' }],
    steps: [{ command: { argv: ['/bin/true'], repeatable: true }, retries: 3 }, { wait: '90s' }],
    always: [{ command: { argv: ['/bin/true'] } }],
  })
  t.same(faults, [])
  t.match(job, {
    triggers: [{ kind: 'cron', rule: '0 2 * * *' }, { kind: 'event', event: 'job export success' }, { kind: 'signal' }],
    gates: [
      { label: 'lease backups', limitSeconds: 600, onTimeout: 'fail' },
      { label: 'job export', limitSeconds: null },
    ],
    steps: [
      { name: 'command-1', repeatable: true, retries: { limit: 3, delaySeconds: 10 } },
      { name: 'wait-2', repeatable: true },
    ],
    always: [{ name: 'always-command-1', repeatable: false, retries: { limit: 0 } }],
    missed: 'once',
    overlap: 'coalesce',
    limits: { job: 1 },
    dryRun: false,
  })
  const faulty = faultsOf({
    name: 'no good',
    schedule: { cron: '1 2 3' },
    leases: [{ lease: 'a' }, { lease: 'a' }, { lease: 'b', otherwise: 'what' }],
    steps: [
      { command: { argv: ['bin/true'], pass: ['SYNCLINE_TOKEN'] } },
      { name: 'x' },
      { wait: '1y' },
      { name: 'x', wait: 1 },
    ],
    surprise: true,
  })
  for (const expected of [
    /^\/name "no good" does not have the form/,
    /^\/surprise is not known here; known are name, description/,
    /^\/schedule\/cron the schedule "cron:1 2 3" cannot be kept: it has 3 fields/,
    /^\/leases\/1 the lease "lease a" is there twice/,
    /^\/leases\/2\/otherwise is not known here/,
    /^\/steps\/0\/command\/argv\/0 must be an absolute path/,
    /^\/steps\/0\/command\/pass\/0 settings of the site are not handed on/,
    /^\/steps\/1 must have exactly one of command, wait, notify/,
    /^\/steps\/2\/wait /,
  ])
    t.ok(
      faulty.some((fault) => expected.test(fault)),
      `${expected} in\n${faulty.join('\n')}`,
    )
  t.match(faultsOf({ name: 'a', steps: [{ wait: 1, command: { argv: ['/bin/true'] } }] }), [
    /^\/steps\/0 must have exactly one .*, not wait and command|not command and wait$/,
  ])
  t.match(faultsOf({ name: 'a', steps: [{ notify: { mail: {} } }] }), [/no mail server/])
  t.match(faultsOf('text'), [/must be settings, each as name: value/])
  const scheduled = (schedule: unknown) => faultsOf({ name: 'a', schedule, steps: [{ wait: 1 }] })
  t.match(scheduled('daily'), [/^\/schedule must be what sets it off, such as .*; not "daily"$/])
  t.match(scheduled([]), [/^\/schedule must not be empty$/])
  t.match(scheduled([{ every: '1s' }, { every: 5, cron: '* * * * *' }]), [
    /^\/schedule\/0\/every .* 5 to 604800/,
    /^\/schedule\/1 must have exactly one/,
  ])
  t.match(schema, { title: 'Job', properties: { steps: { items: { properties: { command: {}, wait: {} } } } } })
})

t.test('any JSON gives a job or faults, never an error', async (t) => {
  const like = fc.record(
    {
      name: fc.oneof(fc.constant('a'), fc.jsonValue()),
      schedule: fc.oneof(
        fc.jsonValue(),
        fc.record({ cron: fc.string(), timeZone: fc.string() }),
        fc.record({ calendar: fc.string() }),
      ),
      steps: fc.oneof(
        fc.jsonValue(),
        fc.array(fc.oneof(fc.jsonValue(), fc.record({ command: fc.jsonValue() }), fc.record({ wait: fc.jsonValue() }))),
      ),
      leases: fc.oneof(fc.jsonValue(), fc.array(fc.record({ lease: fc.jsonValue() }))),
      gates: fc.jsonValue(),
    },
    { requiredKeys: [] },
  )
  fc.assert(
    fc.property(like, (definition) => {
      const { job, faults } = check(definition)
      return (job === undefined) === faults.length > 0
    }),
  )
  t.ok(true)
})

t.test('of long output the beginning and the end are kept', async (t) => {
  const output = createOutput(400)
  for (let n = 0; n < 1000; n++) output.add(`line ${n}`)
  const text = output.text()
  t.ok(text.length < 500)
  t.match(text, /^line 0\n/)
  t.match(text, /characters left out …\n/)
  t.match(text, /line 999\n$/)
  const small = createOutput(400)
  small.add('all of it')
  t.equal(small.text(), 'all of it\n')
})

t.test('templates fill in, repeat and leave out, and HTML cannot be broken out of', async (t) => {
  const values = {
    job: 'a<b',
    failed: true,
    steps: [
      { name: 'x', counts: { bytes: 3 } },
      { name: 'y', counts: { bytes: 4 } },
    ],
  }
  t.equal(
    render('{{job}}: {{#steps}}{{name}}={{counts.bytes}};{{/steps}}{{^failed}}fine{{/failed}}', values),
    'a<b: x=3;y=4;',
  )
  t.equal(render('<b>{{job}}</b>', values, escapeHtml), '<b>a&#60;b</b>')
  t.equal(render('{{nothing}}{{constructor}}{{steps.length}}', values), '')
  t.throws(() => render('{{#steps}}', values), /has no end/)
  t.throws(() => render('{{/steps}}', values), /has not begun/)
})
