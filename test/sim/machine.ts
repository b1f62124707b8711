/**
 * The machine that simulated sites run on: it alone decides who goes on. Whatever the program waits for (a query, a request, a pause) comes
 * here as a step that is parked; one is released at a time, so that a seed gives one order of events. The seams under `seams/` lead here.
 */
import { AsyncLocalStorage } from 'node:async_hooks'
import { setTimeout as pause, setImmediate as turn } from 'node:timers/promises'
import { type Random, randomOf } from './random.ts'

/** One life of a site's program, from its start to its end or crash. */
export type Process = { readonly site: string; alive: boolean; gated: boolean }

/** Who is at work: what runs in an async context belongs to a process, and to one of the things it does at a time. */
export type Context = { readonly process: Process; readonly actor: string }

type Parked = {
  readonly id: number
  readonly process: Process
  readonly actor: string
  readonly what: string
  readonly resume: () => void
  /** Has looked for a lock in vain; others go first. */
  readonly waits: boolean
}

type Flight = {
  readonly process: Process
  readonly what: string
  readonly pid: number
  /** Waits for locks no longer than it was told to. */
  readonly patient: boolean
  readonly ended: Promise<void>
  done: boolean
  blocked: boolean
  cancelled: 'lock timeout' | 'deadlock' | null
}

/** Asks the database about sessions, on a connection of the simulation. */
export type Control = {
  readonly isBlocked: (pid: number) => Promise<boolean>
  readonly cancel: (pid: number) => Promise<void>
}

/** Turns of the event loop without anything new after which all strands stand still. */
const CALM_TURNS = 6
/** A query that takes longer may be waiting for a lock: then it is looked into. */
const LOOK_AFTER_MS = 8

const contexts = new AsyncLocalStorage<Context>()
let parked: Parked[] = []
let flights: Flight[] = []
let connecting = 0
let line: Promise<unknown> = Promise.resolve()
let serial = 0
let released = 0
let lastActor = ''
let schedule: Random = randomOf('machine')
let chance: Random = randomOf('chance')
let control: Control | null = null
let nowMicros = 0
const skews = new Map<string, number>()
let skewMax = 0

export const machine = {
  /** Begins anew for a seed. */
  begin(seed: number | string, startMicros: number, to: Control): void {
    parked = []
    flights = []
    connecting = 0
    serial = 0
    released = 0
    lastActor = ''
    schedule = randomOf(seed, 'schedule')
    chance = randomOf(seed, 'chance')
    control = to
    nowMicros = startMicros
    skews.clear()
    skewMax = 0
  },
  get steps(): number {
    return released
  },
  context: (): Context | undefined => contexts.getStore(),
  run: <T>(context: Context, work: () => T): T => contexts.run(context, work),
  random: (): number => chance.below(2 ** 31) / 2 ** 31,
  byte: (): number => chance.below(256),

  /** Time of a site in microseconds: its own clock may be wrong. */
  clockOf: (site: string): number => nowMicros + (skews.get(site) ?? 0),
  setSkew: (site: string, micros: number): void => {
    skews.set(site, Math.round(micros))
    skewMax = Math.max(skewMax, micros)
  },
  /** How far ahead any clock ever was. */
  aheadMost: (): number => skewMax,
  advance: (micros: number): void => {
    nowMicros += Math.round(micros)
  },

  /** Waits until the schedule lets this go on. What belongs to a dead process never does. */
  park(what: string, context: Context, waits = false): Promise<void> {
    if (!context.process.alive) return new Promise(() => {})
    return new Promise((resume) => {
      parked.push({ id: ++serial, ...context, what, resume, waits })
    })
  },

  /** A query that is on its way to the database. One that has to wait for a lock lets others go on. */
  async flight<T>(
    context: Context,
    query: Pick<Flight, 'what' | 'pid' | 'patient'>,
    work: () => Promise<T>,
  ): Promise<T> {
    const ended = Promise.withResolvers<void>()
    const { process } = context
    const flight: Flight = { ...query, process, ended: ended.promise, done: false, blocked: false, cancelled: null }
    flights.push(flight)
    const outcome = await work().then(
      (value) => ({ value }),
      (error: unknown) => ({ error }),
    )
    flight.done = true
    flights = flights.filter((each) => each !== flight)
    ended.resolve()
    // Who waited for a lock hears of it when it is its turn: two that were let through at once keep their order.
    if (flight.blocked) await machine.park(`answer to ${query.what}`, context)
    if ('value' in outcome) return outcome.value
    throw flight.cancelled === null ? outcome.error : lockError(outcome.error, flight.cancelled)
  },

  async connecting<T>(work: () => Promise<T>): Promise<T> {
    connecting++
    // One after the other: two at once would come back in either order.
    const mine = line.then(work)
    line = mine.catch(() => {})
    try {
      return await mine
    } finally {
      connecting--
    }
  },

  /** Waits until nothing moves any more by itself. What ended may have let go of a lock, so who waits is looked at again. */
  async settle(): Promise<void> {
    for (let freed = true; freed; ) {
      await calmDown()
      freed = false
      for (const flight of flights.filter((each) => each.blocked)) {
        if (flight.done || (await control?.isBlocked(flight.pid)) === true) continue
        await landed(flight)
        freed = true
      }
    }
  },

  /** Lets one strand go on. False when there is none. */
  async step(): Promise<boolean> {
    await machine.settle()
    const ready = parked.filter((each) => !each.waits)
    const candidates = ready.length > 0 ? ready : parked
    const impatient = flights.filter((each) => each.blocked && !each.patient)
    if (impatient.length > 0 && (candidates.length === 0 || schedule.chance(0.1))) {
      await giveUp(schedule.pick(impatient), 'lock timeout')
      return true
    }
    if (candidates.length === 0) return false
    const own = candidates.filter((each) => each.actor === lastActor)
    const chosen = own.length > 0 && schedule.chance(0.9) ? schedule.pick(own) : schedule.pick(candidates)
    parked = parked.filter((each) => each !== chosen)
    lastActor = chosen.actor
    released++
    nowMicros += 100
    chosen.resume()
    return true
  },

  /** Some wait for each other and nobody else can end it: the database would choose one and refuse it. False when nobody waits. */
  async breakDeadlock(): Promise<boolean> {
    const stuck = flights.filter((each) => each.blocked)
    if (stuck.length > 0) await giveUp(schedule.pick(stuck), 'deadlock')
    return stuck.length > 0
  },
  under: (): readonly string[] => parked.map(({ process, what }) => `${process.site}: ${what}`),

  /** Ends a process where it stands: nothing of it goes on. Its connections are for the caller to end. */
  kill(process: Process): void {
    process.alive = false
    parked = parked.filter((each) => each.process !== process)
  },
}

async function calmDown(): Promise<void> {
  for (let calm = 0; calm < CALM_TURNS; ) {
    const flying = flights.filter((each) => !each.blocked)
    const before = serial
    if (flying.length > 0 || connecting > 0) {
      await waitFor(flying)
      calm = 0
      continue
    }
    await turn()
    calm = serial === before && flights.every((each) => each.blocked) && connecting === 0 ? calm + 1 : 0
  }
}

async function waitFor(flying: readonly Flight[]): Promise<void> {
  const since = performance.now()
  await Promise.race([...flying.map((each) => each.ended), pause(LOOK_AFTER_MS)])
  if (performance.now() - since < LOOK_AFTER_MS - 1) return
  for (const flight of flying) {
    if (!flight.done && (await control?.isBlocked(flight.pid)) === true) flight.blocked = !flight.done
  }
}

/** What was blocked and is so no longer ends soon. It stays marked, so that its answer waits for its turn. */
async function landed(flight: Flight): Promise<void> {
  for (;;) {
    await Promise.race([flight.ended, pause(LOOK_AFTER_MS)])
    if (flight.done || (await control?.isBlocked(flight.pid)) === true) return
  }
}

/** Ends the wait for a lock, as the database would. */
async function giveUp(flight: Flight, why: 'lock timeout' | 'deadlock'): Promise<void> {
  flight.cancelled = why
  await control?.cancel(flight.pid)
  await flight.ended
}

function lockError(error: unknown, why: 'lock timeout' | 'deadlock'): unknown {
  if ((error as { code?: string }).code !== '57014') return error
  const [code, message] =
    why === 'deadlock' ? ['40P01', 'deadlock detected'] : ['55P03', 'canceling statement due to lock timeout']
  return Object.assign(error as Error, { code, message })
}
