import { setTimeout as sleep } from 'node:timers/promises'
import { findPeer, type Store } from '../../store/index.ts'
import { isActive, type RunOutcome } from '../runs.ts'
import type { StepHandler, StepPlan } from '../step.ts'

type Sync = { readonly peer: string; readonly resources?: readonly string[] }

export type SyncDeps = {
  readonly store: Store
  readonly run: (
    peer: Awaited<ReturnType<typeof findPeer>>,
    options: { readonly resources?: readonly string[]; readonly cause: string; readonly signal: AbortSignal },
  ) => Promise<RunOutcome>
  /** What a run would do now. */
  readonly preview: (peer: string, resources: readonly string[] | undefined) => Promise<StepPlan>
}

/** A run with the same peer that is under way is waited for so long. */
const WAIT_ACTIVE_MS = 300_000
const WAIT_STEP_MS = 250

/** `sync`: one run of records with a peer, as its tasks say. */
export function syncStep({ store, run, preview }: SyncDeps): StepHandler<Sync> {
  return {
    kind: 'sync',
    schema: {
      type: 'object',
      description: 'Syncs records with a peer, as the tasks with it say.',
      required: ['peer'],
      properties: {
        peer: { type: 'string', minLength: 1, maxLength: 63, description: 'Name of the peer.' },
        resources: {
          type: 'array',
          items: { type: 'string', minLength: 1, maxLength: 63 },
          minItems: 1,
          maxItems: 1000,
          description: 'Only these resources; every one with a task when absent.',
        },
      },
      additionalProperties: false,
    },
    // Applying twice is applying once.
    repeatable: () => true,
    peers: ({ peer }) => [peer],
    plan: ({ peer, resources }) => preview(peer, resources),
    run: async ({ peer: name, resources }, { signal, say, now }) => {
      const peer = await findPeer(store.db, name)
      const options = { ...(resources !== undefined && { resources }), cause: 'job', signal }
      for (const until = now() + WAIT_ACTIVE_MS; ; ) {
        try {
          const { runId, result, cancelled, code } = await run(peer, options)
          say(`run ${runId} with ${name}: ${result}`)
          if (cancelled) return { result: 'error', message: `run ${runId} was cancelled` }
          const told = { message: `run ${runId} with ${name} ended with ${result}`, ...(code !== null && { code }) }
          if (result === 'success' || result === 'warning') return { result, ...told }
          // A person or a setting must change first.
          return { result: 'error', ...told, ...(result === 'fatal' && { again: false }) }
        } catch (error) {
          if (!isActive(error) || now() > until) throw error
          await sleep(WAIT_STEP_MS, undefined, { signal })
        }
      }
    },
  }
}
