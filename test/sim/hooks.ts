/**
 * Puts the seams in place: what modules under src/ import of time, chance, network and database is the machine's. Nothing in src/ knows of
 * it. Import this before anything of src/.
 */
import { registerHooks } from 'node:module'
import { machine } from './machine.ts'

const SOURCE = new URL('../../src/', import.meta.url).href
const SEAMS: Readonly<Record<string, string>> = {
  pg: new URL('./seams/pg.ts', import.meta.url).href,
  undici: new URL('./seams/undici.ts', import.meta.url).href,
  'node:crypto': new URL('./seams/crypto.ts', import.meta.url).href,
  'node:timers/promises': new URL('./seams/timers.ts', import.meta.url).href,
}

registerHooks({
  resolve: (specifier, context, next) => {
    const seam = context.parentURL?.startsWith(SOURCE) === true ? SEAMS[specifier] : undefined
    return seam === undefined
      ? next(specifier, context)
      : { url: seam, format: 'module-typescript', shortCircuit: true }
  },
})

const RealDate = Date
const realRandom = Math.random
const realInterval = setInterval

/** Inside of a simulated site the time is the site's own. */
function simulatedNow(): number {
  const context = machine.context()
  return context === undefined ? RealDate.now() : Math.floor(machine.clockOf(context.process.site) / 1_000)
}

class SimulatedDate extends RealDate {
  constructor(...args: unknown[]) {
    super(...((args.length === 0 ? [simulatedNow()] : args) as [number]))
  }

  static override now(): number {
    return simulatedNow()
  }
}

globalThis.Date = SimulatedDate as DateConstructor
Math.random = () => (machine.context() === undefined ? realRandom() : machine.random())
/** Signs of life by real time would come at another step each time. */
globalThis.setInterval = ((work: () => void, delay?: number, ...args: []) =>
  machine.context() === undefined
    ? realInterval(work, delay, ...args)
    : realInterval(() => {}, 2 ** 30).unref()) as typeof setInterval
