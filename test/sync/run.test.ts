import assert from 'node:assert/strict'
import fc from 'fast-check'
import t from 'tap'
import type {
  BatchReport,
  Effect,
  ErrorCode,
  Mode,
  ResultName,
  RunEvent,
  RunResult,
  RunState,
  RunTask,
} from '../../src/sync/index.ts'
import { ENDS_RUN, ERRORS, needsAttention, startRun, step } from '../../src/sync/index.ts'
import { holds } from './holds.ts'

type StateName = RunState['at']
type EventName = RunEvent['type']

const UUID = 'peer-uuid'
const LOG = 'log-1'
const expected = { uuid: UUID, logId: LOG }
const task = (resource: string, mode: Mode, given: Partial<RunTask> = {}): RunTask => ({
  resource,
  mode,
  after: null,
  acked: null,
  proved: true,
  ...given,
})

const greeted: RunEvent = { type: 'greeted', uuid: UUID, logId: LOG }
const fetched = (batch: number, more: boolean, checkpoint = `c${batch}`): RunEvent => ({
  type: 'batchFetched',
  batch,
  checkpoint,
  more,
})
const applied = (attention = false): RunEvent => ({ type: 'batchApplied', attention })
const sent = (attention = false): RunEvent => ({ type: 'pushSent', attention })
const compared = (attention = false): RunEvent => ({ type: 'compared', attention })
const failed = (code: ErrorCode = 'SYNC_PEER_REFUSED', retryable = false): RunEvent => ({
  type: 'failed',
  code,
  retryable,
  detail: 'because',
})
const plain = <E extends 'logFollowed' | 'allowed' | 'pullEnded' | 'acked' | 'pushEnded' | 'aborted' | 'cancelled'>(
  type: E,
): RunEvent => ({ type }) as RunEvent
const [pullEnded, acked, pushEnded] = [plain('pullEnded'), plain('acked'), plain('pushEnded')]
const [logFollowed, allowed] = [plain('logFollowed'), plain('allowed')]
const [aborted, cancelled] = [plain('aborted'), plain('cancelled')]

/** Effects as words: `pull city c1`, `finish warning`. */
function word(effect: Effect): string {
  switch (effect.do) {
    case 'greet':
      return 'greet'
    case 'followLog':
      return `followLog ${effect.logId}`
    case 'pull':
      return `pull ${effect.resource} ${effect.after ?? 'from zero'}`
    case 'weigh':
      return `weigh ${effect.direction} ${effect.resource} ${effect.batch ?? 'nothing'}`
    case 'apply':
      return `apply ${effect.resource} ${effect.batch}`
    case 'ack':
      return `ack ${effect.resource} ${effect.checkpoint}`
    case 'push':
      return `push ${effect.resource}`
    case 'compare':
      return `compare ${effect.resource}`
    case 'finish':
      return `finish ${effect.result.result}`
  }
}

/** Plays a run and gives the effects of every step as words, with the result. Unless asked for, what is due is always allowed. */
function play(
  tasks: readonly RunTask[],
  events: readonly RunEvent[],
  peer: RunState['expected'] = expected,
  scales: 'open' | 'shown' = 'open',
) {
  let { state, effects } = startRun({ expected: peer, tasks })
  const steps = [effects.map(word).join(', ')]
  let result: RunResult | null = null
  for (const event of events) {
    ;({ state, effects } = step(state, event))
    while (scales === 'open' && effects[0]?.do === 'weigh') ({ state, effects } = step(state, allowed))
    steps.push(effects.map(word).join(', '))
    for (const effect of effects) if (effect.do === 'finish') result = effect.result
  }
  return { steps, result, state }
}

t.test('a run pulls, applies, acknowledges, pushes and compares, one resource after the other', (t) => {
  const { steps, result } = play(
    [task('country', 'both'), task('city', 'pull', { after: 'c9' }), task('visit', 'push')],
    [
      greeted,
      fetched(1, false),
      applied(),
      acked,
      sent(),
      pushEnded,
      compared(),
      fetched(2, false),
      applied(),
      acked,
      compared(),
      sent(),
      pushEnded,
      compared(),
    ],
  )
  t.strictSame(steps, [
    'greet',
    'pull country from zero',
    'apply country 1',
    'ack country c1',
    'push country',
    'push country',
    'compare country',
    'pull city c9',
    'apply city 2',
    'ack city c2',
    'compare city',
    'push visit',
    'push visit',
    'compare visit',
    'finish success',
  ])
  t.strictSame(result, {
    result: 'success',
    cancelled: false,
    failure: null,
    tasks: ['country', 'city', 'visit'].map((resource) => ({ resource, result: 'success', failure: null })),
  })
  t.end()
})

t.test('a run with nothing to do asks once for each resource and writes nothing', (t) => {
  const tasks = [task('city', 'both', { after: 'c9', acked: 'c9' })]
  t.strictSame(play(tasks, [greeted, pullEnded, pushEnded]).steps, [
    'greet',
    'pull city c9',
    'push city',
    'finish success',
  ])
  t.strictSame(play([], [greeted]).steps, ['greet', 'finish success'])
  t.end()
})

t.test('I9: both sides are compared after whatever moved, and until they were found equal', (t) => {
  const unproved = { after: 'c9', acked: 'c9', proved: false }
  for (const [mode, events] of [
    ['both', [pullEnded, pushEnded]],
    ['pull', [pullEnded]],
    ['push', [pushEnded]],
  ] as const) {
    const { steps } = play([task('city', mode, unproved)], [greeted, ...events, compared()])
    t.strictSame(steps.slice(-2), ['compare city', 'finish success'], mode)
    const known = play([task('city', mode, { ...unproved, proved: true })], [greeted, ...events])
    t.equal(known.steps.at(-1), 'finish success', `${mode}, proved and unmoved`)
  }
  const proved = task('city', 'both', { after: 'c9', acked: 'c9' })
  t.equal(play([proved], [greeted, fetched(1, false), applied(), acked, pushEnded]).steps.at(-1), 'compare city')
  t.equal(play([proved], [greeted, pullEnded, sent(), pushEnded]).steps.at(-1), 'compare city')
  t.equal(
    play([proved], [greeted, failed('SYNC_CHECKPOINT_GONE'), pullEnded, pushEnded]).steps.at(-1),
    'compare city',
    'a peer that lost our place may have lost more',
  )
  const other: RunEvent = { type: 'greeted', uuid: UUID, logId: 'log-2' }
  t.equal(play([proved], [other, logFollowed, pullEnded, pushEnded]).steps.at(-1), 'compare city', 'a new log')
  const different = play([proved], [greeted, pullEnded, sent(), pushEnded, compared(true)])
  t.match(different.result, { result: 'warning', tasks: [{ resource: 'city', result: 'warning' }] })
  const broken = play([proved, task('visit', 'push')], [greeted, pullEnded, sent(), pushEnded, failed()])
  t.equal(broken.steps.at(-1), 'push visit', 'a comparison that fails does not stop the others')
  t.end()
})

t.test('an acknowledgement that got lost is given again although nothing new was pulled', (t) => {
  const { steps } = play([task('city', 'pull', { after: 'c9', acked: 'c8' })], [greeted, pullEnded, acked])
  t.strictSame(steps, ['greet', 'pull city c9', 'ack city c9', 'finish success'])
  t.end()
})

t.test('the next batch is fetched while one is applied, and no further one', (t) => {
  const events = [
    greeted,
    fetched(1, true),
    fetched(2, true),
    applied(),
    applied(),
    fetched(3, false),
    applied(),
    acked,
    compared(),
  ]
  t.strictSame(play([task('city', 'pull')], events).steps, [
    'greet',
    'pull city from zero',
    'apply city 1, pull city c1',
    '',
    'apply city 2, pull city c2',
    '',
    'apply city 3',
    'ack city c3',
    'compare city',
    'finish success',
  ])
  t.strictSame(
    play([task('city', 'pull')], [greeted, fetched(1, true), pullEnded, applied(), acked, compared()]).steps.slice(3),
    ['', 'ack city c1', 'compare city', 'finish success'],
    'more was announced, but nothing came',
  )
  t.end()
})

t.test('a peer with a new log is followed before anything else, and every pull begins from zero', (t) => {
  const tasks = [task('city', 'pull', { after: 'c9', acked: 'c9' })]
  const other: RunEvent = { type: 'greeted', uuid: UUID, logId: 'log-2' }
  t.strictSame(play(tasks, [other, logFollowed, fetched(1, false), applied(), acked, compared()]).steps, [
    'greet',
    'followLog log-2',
    'pull city from zero',
    'apply city 1',
    'ack city c1',
    'compare city',
    'finish success',
  ])
  t.strictSame(
    play(tasks, [other], { uuid: UUID, logId: null }).steps,
    ['greet', 'pull city c9'],
    'the first log is no new one',
  )
  t.end()
})

t.test('another site at the address of the peer ends the run before anything is asked or sent', (t) => {
  const { steps, result } = play([task('city', 'both')], [{ type: 'greeted', uuid: 'other', logId: LOG }])
  t.strictSame(steps, ['greet', 'finish fatal'])
  t.match(result, { failure: { code: 'SYNC_PEER_MISMATCH', detail: /peer-uuid.*other/ }, tasks: [] })
  t.end()
})

t.test('a peer that cannot be reached ends the run, which may work later', (t) => {
  const down = failed('SYNC_PEER_UNREACHABLE', true)
  t.strictSame(play([task('city', 'both')], [down]).steps, ['greet', 'finish error'])
  const { steps, result } = play([task('city', 'both'), task('visit', 'push')], [greeted, down])
  t.strictSame(steps.slice(2), ['finish error'])
  t.match(result, { failure: { code: 'SYNC_PEER_UNREACHABLE' }, tasks: [{ resource: 'city', result: 'error' }] })
  t.equal(result?.tasks.length, 1)
  t.end()
})

t.test('any failure to greet or to follow ends the run', (t) => {
  t.strictSame(play([task('city', 'pull')], [failed()]).steps, ['greet', 'finish fatal'])
  const other: RunEvent = { type: 'greeted', uuid: UUID, logId: 'log-2' }
  t.strictSame(play([task('city', 'pull')], [other, failed('SYNC_STORE_BUSY', true)]).steps.slice(2), ['finish error'])
  t.end()
})

t.test('a resource that fails does not stop the others', (t) => {
  const tasks = [task('country', 'both'), task('city', 'both'), task('visit', 'push')]
  const { steps, result } = play(tasks, [
    greeted,
    failed('SYNC_AUTH_FORBIDDEN'),
    pullEnded,
    failed('SYNC_STORE_BUSY', true),
    pushEnded,
  ])
  t.strictSame(steps.slice(1), [
    'pull country from zero',
    'pull city from zero',
    'push city',
    'push visit',
    'finish fatal',
  ])
  t.match(result, {
    failure: null,
    tasks: [
      { resource: 'country', result: 'fatal', failure: { code: 'SYNC_AUTH_FORBIDDEN' } },
      { resource: 'city', result: 'error', failure: { code: 'SYNC_STORE_BUSY' } },
      { resource: 'visit', result: 'success', failure: null },
    ],
  })
  t.end()
})

t.test('only what concerns the whole peer or this whole site ends the run', (t) => {
  const whole: readonly ErrorCode[] = [
    'SYNC_PEER_UNREACHABLE',
    'SYNC_PEER_MISMATCH',
    'SYNC_PEER_CLONED',
    'SYNC_PEER_PAUSED',
    'SYNC_AUTH_MISSING',
    'SYNC_REQUEST_TOO_MANY',
    'SYNC_REQUEST_OVERLOADED',
    'SYNC_STORE_UNAVAILABLE',
  ]
  for (const code of Object.keys(ERRORS) as ErrorCode[]) {
    const { steps } = play([task('city', 'push'), task('visit', 'push')], [greeted, failed(code, true)])
    t.equal(steps.at(-1), whole.includes(code) ? 'finish error' : 'push visit', code)
  }
  t.end()
})

t.test('a failed resource begins nothing more but waits for what is under way', (t) => {
  const events = (first: RunEvent, second: RunEvent) => [greeted, fetched(1, true), first, second]
  const tasks = [task('city', 'both'), task('visit', 'push')]
  for (const second of [applied(), failed(), fetched(2, true), pullEnded]) {
    t.strictSame(play(tasks, events(failed(), second)).steps.slice(3), ['', 'push visit'], second.type)
  }
  const held = play(tasks, [greeted, fetched(1, true), fetched(2, true), failed('SYNC_STORE_BUSY', true)])
  t.strictSame(held.steps.slice(3), ['', 'push visit'], 'a batch that waited is dropped')
  t.end()
})

t.test('the first failure of a resource is its reason, but the second may still end the run', (t) => {
  const events = [greeted, fetched(1, true), failed('SYNC_STORE_BUSY', true), failed('SYNC_PEER_UNREACHABLE', true)]
  const { steps, result } = play([task('city', 'pull'), task('visit', 'push')], events)
  t.equal(steps.at(-1), 'finish error')
  t.match(result, { failure: { code: 'SYNC_PEER_UNREACHABLE' }, tasks: [{ failure: { code: 'SYNC_STORE_BUSY' } }] })
  t.end()
})

t.test('a checkpoint that the peer no longer knows starts the pull again from zero, once', (t) => {
  const gone = failed('SYNC_CHECKPOINT_GONE')
  const tasks = [task('city', 'pull', { after: 'c9', acked: 'c9' })]
  t.strictSame(play(tasks, [greeted, gone, fetched(1, true), applied(), gone]).steps.slice(1), [
    'pull city c9',
    'pull city from zero',
    'apply city 1, pull city c1',
    '',
    'finish error',
  ])
  t.strictSame(play(tasks, [greeted, gone, gone]).steps.slice(3), ['finish error'])
  t.strictSame(
    play(tasks, [greeted, gone, pullEnded, compared()]).steps.slice(3),
    ['compare city', 'finish success'],
    'there is nothing to acknowledge',
  )
  t.strictSame(play([task('city', 'pull')], [greeted, gone]).steps.slice(2), ['finish error'], 'it was asked for none')
  t.end()
})

t.test('a peer that announces more but stays at one checkpoint fails the resource instead of looping', (t) => {
  const stalled = { resource: 'city', result: 'error', failure: { code: 'SYNC_PEER_STALLED' } }
  const first = play([task('city', 'pull', { after: 'c1' })], [greeted, fetched(1, true, 'c1')])
  t.match(first.result?.tasks, [stalled])
  const later = play([task('city', 'pull')], [greeted, fetched(1, true), fetched(2, true, 'c1'), applied()])
  t.strictSame(later.steps.slice(3), ['', 'finish error'])
  t.match(later.result?.tasks, [stalled])
  const end = play([task('city', 'pull', { after: 'c1' })], [greeted, fetched(1, false, 'c1')])
  t.equal(end.steps.at(-1), 'apply city 1', 'the last batch may stay where it is')
  t.end()
})

t.test('a run in which something waits for a person ends with a warning', (t) => {
  const pulled = play(
    [task('city', 'pull'), task('visit', 'push')],
    [greeted, fetched(1, true), applied(true), fetched(2, false), applied(), acked, compared(), pushEnded],
  )
  t.match(pulled.result, { result: 'warning', tasks: [{ result: 'warning' }, { result: 'success' }] })
  const pushed = play([task('visit', 'push')], [greeted, sent(true), sent(), pushEnded, compared()])
  t.match(pushed.result, { result: 'warning', tasks: [{ result: 'warning' }] })
  t.end()
})

t.test('the result of a run is the worst of its resources', (t) => {
  const outcome: Record<ResultName, readonly RunEvent[]> = {
    success: [pushEnded],
    warning: [sent(true), pushEnded, compared()],
    error: [failed('SYNC_STORE_BUSY', true)],
    fatal: [failed()],
  }
  const ranks: readonly ResultName[] = ['success', 'warning', 'error', 'fatal']
  for (const [i, a] of ranks.entries()) {
    for (const [j, b] of ranks.entries()) {
      const { result } = play([task('a', 'push'), task('b', 'push')], [greeted, ...outcome[a], ...outcome[b]])
      t.equal(result?.result, ranks[Math.max(i, j)], `${a} and ${b}`)
    }
  }
  t.end()
})

t.test('a cancelled run begins nothing more, waits for what is under way and may work later', (t) => {
  const tasks = [task('city', 'both'), task('visit', 'push')]
  t.strictSame(play(tasks, [cancelled, greeted]).steps, ['greet', '', 'finish error'])
  const both = play(tasks, [greeted, fetched(1, true), cancelled, cancelled, aborted, applied(true)])
  t.strictSame(both.steps.slice(3), ['', '', '', 'finish error'])
  t.match(both.result, {
    cancelled: true,
    failure: null,
    tasks: [{ resource: 'city', result: 'error', failure: null }],
  })
  t.equal(both.result?.tasks.length, 1)
  const late = play([], [greeted, cancelled])
  t.strictSame(late.steps, ['greet', 'finish success', ''], 'it was over already')
  t.end()
})

t.test('a report needs attention when something conflicts, is in quarantine or was refused', (t) => {
  const none = { applied: 3, known: 2, skipped: 1, merged: 1, conflict: 0, quarantined: 0, refused: 0 }
  const report = (counts: Partial<BatchReport['counts']>): BatchReport => ({
    counts: { ...none, ...counts },
    rejections: [],
    truncated: false,
  })
  t.notOk(needsAttention(report({})))
  for (const outcome of ['conflict', 'quarantined', 'refused'] as const)
    t.ok(needsAttention(report({ [outcome]: 1 })), outcome)
  t.end()
})

t.test('I10: nothing of a task is applied or sent before what is due was weighed, once for each direction', (t) => {
  const shown = (tasks: readonly RunTask[], events: readonly RunEvent[]) => play(tasks, events, expected, 'shown').steps
  t.strictSame(
    shown(
      [task('city', 'both')],
      [greeted, fetched(1, true), allowed, fetched(2, false), applied(), applied(), acked, allowed, sent(), pushEnded],
    ),
    [
      'greet',
      'pull city from zero',
      'weigh pull city 1',
      'apply city 1, pull city c1',
      '',
      'apply city 2',
      'ack city c2',
      'weigh push city nothing',
      'push city',
      'push city',
      'compare city',
    ],
  )
  t.strictSame(shown([task('city', 'pull', { after: 'c9', acked: 'c9' })], [greeted, pullEnded, allowed]).slice(2), [
    'weigh pull city nothing',
    'finish success',
  ])
  t.strictSame(shown([task('city', 'push')], [greeted, allowed]).slice(1), ['weigh push city nothing', 'push city'])
  t.end()
})

t.test('I10: what a brake stops is not written, and the other resources go on', (t) => {
  const braked = failed('SYNC_RUN_BRAKED')
  const tasks = [task('city', 'both'), task('visit', 'push')]
  const { steps, result } = play(tasks, [greeted, fetched(1, true), braked, allowed, pushEnded], expected, 'shown')
  t.strictSame(steps.slice(2), ['weigh pull city 1', 'weigh push visit nothing', 'push visit', 'finish fatal'])
  t.match(result, {
    failure: null,
    tasks: [
      { resource: 'city', result: 'fatal', failure: { code: 'SYNC_RUN_BRAKED' } },
      { resource: 'visit', result: 'success' },
    ],
  })
  t.end()
})

t.test('a pull that begins again from zero is weighed again', (t) => {
  const gone = failed('SYNC_CHECKPOINT_GONE')
  const events = [greeted, fetched(1, true), allowed, applied(), gone, fetched(2, false), allowed]
  t.strictSame(play([task('city', 'pull', { after: 'c9' })], events, expected, 'shown').steps.slice(4), [
    '',
    'pull city from zero',
    'weigh pull city 2',
    'apply city 2',
  ])
  t.end()
})

/** Where each event leads from each state: every state that it may lead to, in order of name; anything else is impossible. */
type Row = { readonly [E in EventName]: string }
const nowhere = 'impossible'
const impossible = {
  ...{
    greeted: nowhere,
    logFollowed: nowhere,
    allowed: nowhere,
    batchFetched: nowhere,
    pullEnded: nowhere,
    batchApplied: nowhere,
  },
  ...{ acked: nowhere, pushSent: nowhere, pushEnded: nowhere, compared: nowhere },
  ...{ failed: nowhere, aborted: nowhere, cancelled: nowhere },
} satisfies Row
const next = 'fetching finished weighing'
const begun = { ...impossible, cancelled: 'settling' }
const settling = `fetching finished settling weighing`
const GRID: Readonly<Record<StateName, Row>> = {
  greeting: { ...begun, greeted: 'fetching finished following weighing', failed: 'finished' },
  following: { ...begun, logFollowed: next, failed: 'finished' },
  fetching: {
    ...begun,
    // A stalled peer fails the task, so the next one begins.
    batchFetched: `applying fetching finished overlapping weighing`,
    pullEnded: `acking comparing weighing`,
    failed: next,
  },
  weighing: {
    ...begun,
    allowed: `acking applying comparing fetching finished overlapping pushing weighing`,
    failed: next,
  },
  overlapping: {
    ...begun,
    batchFetched: 'holding settling',
    pullEnded: 'applying',
    batchApplied: 'fetching',
    failed: 'settling',
  },
  holding: { ...begun, batchApplied: 'applying overlapping', failed: next },
  applying: { ...begun, batchApplied: `acking comparing weighing`, failed: next },
  acking: { ...begun, acked: 'comparing finished weighing', failed: next },
  pushing: { ...begun, pushSent: 'pushing', pushEnded: `comparing ${next}`, failed: next },
  comparing: { ...begun, compared: next, failed: next },
  settling: {
    ...{
      greeted: settling,
      logFollowed: settling,
      allowed: settling,
      batchFetched: settling,
      pullEnded: settling,
      batchApplied: settling,
    },
    ...{ acked: settling, pushSent: settling, pushEnded: settling, compared: settling },
    ...{ failed: settling, aborted: settling },
    cancelled: 'settling',
  },
  finished: { ...impossible, cancelled: 'finished' },
}

t.test('every event in every state leads where the table says, or is impossible', (t) => {
  const vocabulary: readonly RunEvent[] = [
    ...[
      greeted,
      { ...greeted, logId: 'log-2' },
      { ...greeted, uuid: 'other' },
      logFollowed,
      allowed,
      pullEnded,
      acked,
      pushEnded,
      aborted,
      cancelled,
    ],
    ...[
      fetched(1, true, 'c1'),
      fetched(2, true, 'c2'),
      fetched(3, false, 'c3'),
      fetched(4, false, 'c1'),
      applied(),
      applied(true),
      sent(),
      sent(true),
      compared(),
      compared(true),
    ],
    ...[failed(), failed('SYNC_CHECKPOINT_GONE'), failed('SYNC_PEER_UNREACHABLE', true)],
  ]
  const seen = new Map<StateName, Map<EventName, Set<string>>>()
  const visited = new Set<string>()
  const starts = [
    [task('a', 'both', { after: 'c1', acked: 'c1' }), task('b', 'push'), task('c', 'pull', { after: 'c1' })],
    [task('a', 'pull', { acked: 'c1' }), task('b', 'both', { after: 'c1', proved: false })],
    [task('a', 'push')],
    [task('a', 'pull', { acked: 'c1' })],
    [],
  ]
  const open = starts.map((tasks) => startRun({ expected, tasks }).state)
  for (let state = open.pop(); state !== undefined; state = open.pop()) {
    const key = JSON.stringify({ ...state, done: [] })
    if (visited.has(key)) continue
    visited.add(key)
    for (const event of vocabulary) {
      const cells = seen.get(state.at) ?? new Map<EventName, Set<string>>()
      const cell = cells.get(event.type) ?? new Set<string>()
      seen.set(state.at, cells.set(event.type, cell))
      try {
        const next = step(state, event).state
        cell.add(next.at)
        open.push(next)
      } catch (error) {
        assert(error instanceof assert.AssertionError, String(error))
        cell.add('impossible')
      }
    }
  }
  t.ok(visited.size > 500, `${visited.size} states were visited`)
  for (const [at, row] of Object.entries(GRID) as [StateName, Record<EventName, string>][]) {
    for (const [type, leadsTo] of Object.entries(row) as [EventName, string][]) {
      t.equal([...(seen.get(at)?.get(type) ?? [])].sort().join(' '), leadsTo, `${at} × ${type}`)
    }
  }
  t.end()
})

/**
 * A world that answers what a run asks for, in any order and with any outcome, and watches what it is asked.
 * It knows the rules of a run in its own words: every break of one throws.
 */
class World {
  readonly tasks: readonly RunTask[]
  outstanding: Effect[] = []
  result: RunResult | null = null
  cancelled = false
  follow = false
  /** The task at work as the world sees it. */
  at = -1
  last: string | null = null
  waiting: { readonly batch: number; readonly checkpoint: string; readonly more: boolean }[] = []
  committed: string | null = null
  weighed: 'nothing' | 'pull' | 'push' = 'nothing'
  pullOver = false
  pushOver = false
  compared = false
  moved = false
  taskFailed = false
  runFailed = false
  attention = false
  expectedResults: ResultName[] = []
  #batch = 0

  constructor(tasks: readonly RunTask[]) {
    this.tasks = tasks
  }

  begin(effects: readonly Effect[]): void {
    assert(this.result === null || effects.length === 0, 'nothing begins after the end')
    for (const effect of effects) {
      this.#check(effect)
      if (effect.do !== 'finish') this.outstanding.push(effect)
    }
    const applies = effects.find((effect) => effect.do === 'apply')
    assert(
      applies === undefined || this.pullOver || effects.some((effect) => effect.do === 'pull'),
      'the next batch is fetched at once',
    )
  }

  #check(effect: Effect): void {
    if (effect.do === 'finish') {
      assert.equal(this.outstanding.length, 0, 'the run ends when nothing is under way')
      this.#closeTask()
      assert(this.cancelled || this.runFailed || this.at === this.tasks.length - 1, 'every task had its turn')
      this.result = effect.result
      return
    }
    assert(!this.cancelled && !this.runFailed, `${effect.do} begins after the run was stopped`)
    if (effect.do === 'greet' || effect.do === 'followLog') return
    if (this.tasks[this.at]?.resource !== effect.resource) this.#openTask()
    const task = this.tasks[this.at]
    assert(task !== undefined && task.resource === effect.resource, 'resources have their turn in order')
    assert(!this.taskFailed, `${effect.do} of a resource that failed`)
    const busy = this.outstanding.map((each) => each.do)
    switch (effect.do) {
      case 'pull':
        assert(task.mode !== 'push' && !this.pullOver, 'a pull that was asked for and is not over')
        assert(!busy.includes('pull') && this.waiting.length === 0, 'at most one batch ahead')
        assert.equal(effect.after, this.last, 'where the last fetch ended')
        break
      case 'weigh':
        assert(busy.length === 0 && this.weighed !== effect.direction, 'weighed alone, and once')
        assert(effect.direction === 'push' || effect.batch === (this.waiting[0]?.batch ?? null), 'what was fetched')
        this.weighed = effect.direction
        break
      case 'apply': {
        assert(this.weighed === 'pull' && !busy.includes('weigh'), 'nothing is written before it was weighed')
        assert(!busy.includes('apply'), 'one apply at a time')
        assert.equal(effect.batch, this.waiting.shift()?.batch, 'in the order of fetching')
        break
      }
      case 'ack':
        assert(
          busy.length === 0 && this.waiting.length === 0 && this.pullOver,
          'acknowledged when everything is applied',
        )
        assert(effect.checkpoint !== null && effect.checkpoint === this.committed, 'what was applied')
        break
      case 'push':
        assert(this.weighed === 'push', 'nothing is sent before it was weighed')
        assert(busy.length === 0, 'a push is alone')
        assert(
          task.mode === 'push' || (task.mode === 'both' && this.pullOver && this.waiting.length === 0),
          'a push after its pull',
        )
        break
      case 'compare':
        assert(busy.length === 0 && !this.compared, 'a comparison is alone, and there is one')
        assert(
          task.mode === 'pull' ? this.pullOver && this.waiting.length === 0 : this.pushOver,
          'at the end of its task',
        )
        assert(this.moved || !this.#proved(task), 'nobody asks what is known')
        break
    }
  }

  #openTask(): void {
    assert.equal(this.outstanding.length, 0, 'one resource at a time')
    this.#closeTask()
    this.at += 1
    const after = this.follow ? null : (this.tasks[this.at]?.after ?? null)
    Object.assign(this, {
      last: after,
      committed: after,
      waiting: [],
      weighed: 'nothing',
      pullOver: false,
      pushOver: false,
      compared: false,
      moved: false,
      taskFailed: false,
      attention: false,
    })
  }

  #closeTask(): void {
    if (this.at === -1) return
    const task = this.tasks[this.at]
    assert(
      this.taskFailed || this.cancelled || this.compared || (task !== undefined && this.#proved(task) && !this.moved),
      'no task ends well without a proof',
    )
    if (!this.taskFailed) this.expectedResults.push(this.cancelled ? 'error' : this.attention ? 'warning' : 'success')
  }

  #proved(task: RunTask): boolean {
    return task.proved && !this.follow
  }

  /** Answers one effect that is under way. `dice` chooses which and how; without it everything ends well and soon. */
  answer(dice: readonly [number, number] | null): RunEvent {
    const [which, how] = dice ?? [0, 0]
    if (dice !== null && which % 31 === 30) {
      this.cancelled = true
      return cancelled
    }
    const [effect] = this.outstanding.splice(which % this.outstanding.length, 1)
    assert(effect !== undefined, 'something is under way until the run ends')
    if (this.cancelled && how % 3 === 0) return aborted
    if (how % 10 === 9) return this.#fail(effect, how)
    switch (effect.do) {
      case 'greet': {
        this.follow = how % 5 === 4
        const other = how % 7 === 6
        if (other && !this.cancelled) this.runFailed = true
        return { type: 'greeted', uuid: other ? 'other' : UUID, logId: this.follow ? 'log-2' : LOG }
      }
      case 'followLog':
        return logFollowed
      case 'weigh':
        return allowed
      case 'pull':
        return this.#fetch(how)
      case 'apply':
        this.committed = `c${effect.batch}`
        if (how % 4 === 3) this.attention = true
        return applied(how % 4 === 3)
      case 'ack':
        return acked
      case 'push':
        if (how % 3 !== 0 && how % 8 === 7) this.attention = true
        if (how % 3 === 0) this.pushOver = true
        else this.moved = true
        return how % 3 === 0 ? pushEnded : sent(how % 8 === 7)
      case 'compare':
        this.compared = true
        if (how % 8 === 7) this.attention = true
        return compared(how % 8 === 7)
      case 'finish':
        return assert.fail('finish is not answered')
    }
  }

  #fetch(how: number): RunEvent {
    if (how % 3 === 0) {
      this.pullOver = true
      return pullEnded
    }
    const more = how % 3 === 1
    // A cancelled run drops what still arrives without looking at it.
    if (more && how % 11 === 10 && this.last !== null && !this.cancelled) {
      this.#noteFailure(true, false)
      return fetched(0, true, this.last)
    }
    this.#batch += 1
    const batch = { batch: this.#batch, checkpoint: `c${this.#batch}`, more }
    this.waiting.push(batch)
    this.moved = true
    this.last = batch.checkpoint
    if (!more) this.pullOver = true
    return { type: 'batchFetched', ...batch }
  }

  #gone = false
  #fail(effect: Effect, how: number): RunEvent {
    if (effect.do === 'pull' && how % 20 === 19 && !this.#gone && this.last !== null) {
      this.#gone = true
      // The pull starts again only when nothing else is under way and nothing had gone wrong.
      if (this.outstanding.length === 0 && !this.taskFailed && !this.cancelled)
        Object.assign(this, { last: null, committed: null, moved: true, weighed: 'nothing' })
      else this.#noteFailure(true, false)
      return failed('SYNC_CHECKPOINT_GONE')
    }
    const code =
      (['SYNC_PEER_UNREACHABLE', 'SYNC_AUTH_FORBIDDEN', 'SYNC_STORE_BUSY'] as const)[how % 3] ?? 'SYNC_INTERNAL'
    const retryable = code !== 'SYNC_AUTH_FORBIDDEN'
    this.#noteFailure(retryable, this.at === -1 || ENDS_RUN.has(code))
    return failed(code, retryable)
  }

  #noteFailure(retryable: boolean, endsRun: boolean): void {
    if (this.at >= 0 && !this.taskFailed) this.expectedResults.push(retryable ? 'error' : 'fatal')
    this.taskFailed = true
    if (endsRun) this.runFailed = true
  }
}

t.test('whatever happens, a run keeps its rules and ends once', (t) => {
  const mode = fc.constantFrom<Mode>('pull', 'push', 'both')
  const after = fc.constantFrom(null, 'old')
  const tasks = fc
    .array(fc.record({ mode, after, acked: after, proved: fc.boolean() }), { maxLength: 3 })
    .map((list) => {
      return list.map((each, index): RunTask => ({ ...each, resource: `r${index}` }))
    })
  const dice = fc.array(fc.tuple(fc.nat(1000), fc.nat(1000)), { maxLength: 40 })
  const ends = new Set<string>()
  holds(
    t,
    fc.property(tasks, dice, (tasks, dice) => {
      const world = new World(tasks)
      let { state, effects } = startRun({ expected, tasks })
      world.begin(effects)
      for (let turn = 0; world.result === null; turn++) {
        assert(turn < dice.length + 20, 'a run whose world has calmed down ends')
        ;({ state, effects } = step(state, world.answer(dice[turn] ?? null)))
        world.begin(effects)
        assert.equal(state.outstanding, world.outstanding.length, 'the run knows what is under way')
      }
      assert.equal(state.at, 'finished')
      assert.deepEqual(step(state, cancelled).effects, [])
      assert.deepEqual(
        world.result.tasks.map((each) => [each.resource, each.result]),
        world.expectedResults.map((result, index) => [tasks[index]?.resource, result]),
      )
      assert.equal(world.result.cancelled, world.cancelled)
      assert.equal(world.result.failure !== null, world.runFailed)
      ends.add(world.result.result)
    }),
    5000,
  )
  t.strictSame([...ends].sort(), ['error', 'fatal', 'success', 'warning'], 'every end was met')
  t.end()
})
