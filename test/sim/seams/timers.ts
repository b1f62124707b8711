/** node:timers/promises of simulated sites: a pause is a step of the machine, and costs no time of ours. */
import { setTimeout as real } from 'node:timers/promises'
import { machine } from '../machine.ts'

export { setImmediate, setInterval } from 'node:timers/promises'

export async function setTimeout<T>(delay?: number, value?: T, options?: { signal?: AbortSignal }): Promise<T> {
  const context = machine.context()
  if (context === undefined || !context.process.gated) return real(delay, value as T, options)
  await machine.park(`pause of ${Math.round(delay ?? 0)} ms`, context)
  options?.signal?.throwIfAborted()
  machine.advance((delay ?? 0) * 1_000)
  return value as T
}
