import { createEvents, type Events } from './events.ts'
import { createLog, type Log, type LogOptions } from './log.ts'
import { createMetrics, type Metrics } from './metrics.ts'

export type * from './events.ts'
export type { Log, LogOptions } from './log.ts'
export type { Measurement, Metrics } from './metrics.ts'

/** What one process tells about itself: lines, events that are lines and numbers, and the numbers. */
export type Observe = { readonly log: Log; readonly events: Events; readonly metrics: Metrics }

/** A log and a registry of metrics of their own; several may live in one process. */
export function createObserve(options: LogOptions): Observe {
  const log = createLog(options)
  const { metrics, meters } = createMetrics()
  return { log, events: createEvents(log, meters), metrics }
}
