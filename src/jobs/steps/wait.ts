import { setTimeout as sleep } from 'node:timers/promises'
import { durationSchema, secondsOf } from '../definition.ts'
import type { StepHandler } from '../step.ts'

const STEP_MS = 1_000

/** `wait`: lets time pass. Waiting is cut short by a stop, and begun again after a restart. */
export const waitStep: StepHandler<string | number> = {
  kind: 'wait',
  schema: durationSchema('Lets so much time pass.'),
  repeatable: () => true,
  plan: async (duration) => ({ summary: `would wait ${secondsOf(duration)} s` }),
  run: async (duration, { signal, progress, now }) => {
    const seconds = secondsOf(duration)
    const until = now() + seconds * 1000
    for (let left = until - now(); left > 0; left = until - now()) {
      progress({ bytes: null, total: null, files: null, rate: null, secondsLeft: Math.ceil(left / 1000) })
      await sleep(Math.min(left, STEP_MS), undefined, { signal })
    }
    return { result: 'success', message: `waited ${seconds} s` }
  },
}
