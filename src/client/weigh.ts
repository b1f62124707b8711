import assert from 'node:assert/strict'
import {
  addClassified,
  type Brake,
  Braked,
  brakesWith,
  type Classified,
  classifyLines,
  collectPush,
  createGuard,
  endBrake,
  type Guard,
  heldFrom,
  livingCount,
  NOTHING,
  openBrake,
  passOf,
  type ResourceInfo,
  rolledBack,
  type Task,
  weighPush,
} from '../store/index.ts'
import {
  type BrakeDirection,
  brakesOf,
  EMPTY_HELD_MIN,
  judgeBrakes,
  type LineBatch,
  limitFor,
  type Pass,
  type RunEvent,
  SynclineError,
  surelyWithin,
  type Trip,
  type Weight,
} from '../sync/index.ts'
import type { Told } from './answers.ts'
import type { RunSession } from './run-session.ts'

/** What weighing needs of a run; a preview has the same. */
export type Scales = Pick<RunSession, 'store' | 'link' | 'peer' | 'limits' | 'signal'>

/** The first answer to a pull: all there is, or the beginning of more. */
export type FirstBatch = {
  readonly batches: readonly LineBatch[]
  readonly more: boolean
  readonly told: Told | null
  /** Where the pull began. */
  readonly after: string | null
}

/** `nothing` says that nothing is due. */
export type Weighed = {
  readonly weight: Weight
  readonly trips: readonly Trip[]
  readonly samples: readonly string[]
  readonly nothing: boolean
}

/** Steps of an exact count: two million records and more, without their values. */
const STEPS_MAX = 400
const HEADS_ROWS = 10_000

/** Weighs what is due of one resource before any of it is written (I10). Answers `allowed`, or throws SYNC_RUN_BRAKED with the token that lets it go on. */
export async function weigh(
  run: RunSession,
  {
    resource: name,
    direction,
    batch,
  }: { readonly resource: string; readonly direction: 'pull' | 'push'; readonly batch: number | null },
): Promise<RunEvent> {
  run.doing = `weigh ${name}`
  const task = run.tasks.get(name) ?? assert.fail(`the run has a task for ${name}`)
  const resource = run.resources.get(name) ?? assert.fail(`${name} is attached`)
  const brake = await brakeOf(run, name, direction)
  const pass = passOf(brake)
  const weighed =
    direction === 'pull'
      ? await pullWeight(run, task, resource, firstOf(run, name, batch), pass)
      : await pushWeightOf(run, task, resource, pass)
  const { trips, weight, samples, nothing } = weighed
  if (trips.length > 0) {
    const { deletes, changes, living } = weight
    const braked = new Braked(trips, { deletes, changes, living, samples })
    throw await stop(run, resource, direction, braked, 'Nothing of it was written')
  }
  if (brake !== undefined && (pass === null || nothing))
    await endBrake(run.store.db, brake.id, pass === null ? 'cleared' : 'used')
  else if (brake !== undefined) run.released.set(`${direction} ${name}`, brake)
  if (direction === 'pull') await guardFor(run, task, resource)
  return { type: 'allowed' }
}

/** Does work that may meet the brake of its own transaction, and writes that down. */
export async function braking<T>(run: RunSession, name: string, work: () => Promise<T>): Promise<T> {
  try {
    return await work()
  } catch (error) {
    if (!(error instanceof Braked)) throw error
    const resource = run.resources.get(name) ?? assert.fail(`${name} is attached`)
    throw await stop(run, resource, 'pull', error, 'The batch that would go beyond it was not written')
  }
}

/** Uses up the release that let a pull or push go on. For a pull it belongs into the commit of its last batch. */
export async function usePass(
  run: RunSession,
  direction: 'pull' | 'push',
  resource: string,
  db: Parameters<typeof endBrake>[0],
): Promise<void> {
  const brake = run.released.get(`${direction} ${resource}`)
  if (brake !== undefined) await endBrake(db, brake.id, 'used')
}

/** What pulling a resource would delete and change here. Counts exactly only where the cheap upper bounds do not already say that it is little. */
export async function pullWeight(
  scales: Scales,
  task: Task,
  resource: ResourceInfo,
  first: FirstBatch,
  pass: Pass | null,
): Promise<Weighed> {
  const { store, link } = scales
  const { told } = first
  const brakes = brakesOf(task)
  const most = upperBound(task, first)
  const calm: Weight = {
    deletes: 0,
    changes: 0,
    living: 0,
    held: 0,
    empty: told?.empty ?? false,
    canary: told?.canary ?? null,
  }
  let weight = calm
  let samples: readonly string[] = []
  const little = surelyWithin(brakes.maxDeletes, most.deletes) && surelyWithin(brakes.maxChanges, most.puts)
  if (!little || calm.empty) {
    const living = await livingCount(store.db, resource)
    weight = { ...calm, living, deletes: Math.min(living, most.deletes), changes: Math.min(living, most.puts) }
    const within =
      weight.deletes <= limitFor(brakes.maxDeletes, living) && weight.changes <= limitFor(brakes.maxChanges, living)
    if (living > 0 && (!within || calm.empty)) {
      const exact = await countPull(scales, task, resource, first)
      const held = calm.empty ? await heldFrom(store.db, resource, link.peer.siteId) : 0
      weight = { ...weight, deletes: exact.deletes, changes: exact.changes, held }
      samples = exact.samples
    }
  }
  const place = { direction: 'pull', peer: link.peer.name, resource: resource.name } as const
  const nothing = first.batches.length === 0
  return { weight, samples, nothing, trips: judgeBrakes(weight, brakes, place, pass) }
}

/** What pushing a resource would delete and change at the peer. */
export async function pushWeight(
  scales: Scales,
  task: Task,
  resource: ResourceInfo,
  after: string | undefined,
  pass: Pass | null,
): Promise<Weighed & { readonly announced: number }> {
  const { link } = scales
  const brakes = brakesOf(task)
  const { deletes, puts, empty } = await dueToPeer(scales, task, resource, after)
  const told = { announced: deletes, nothing: deletes + puts === 0 }
  const calm: Weight = { deletes: 0, changes: 0, living: 0, empty, held: 0, canary: null }
  const little = surelyWithin(brakes.maxDeletes, deletes) && surelyWithin(brakes.maxChanges, puts)
  if (little && !(empty && deletes >= EMPTY_HELD_MIN)) return { ...told, weight: calm, samples: [], trips: [] }
  const exact = await countPush(scales, task, resource, after)
  const weight = { ...calm, deletes: exact.deletes, changes: exact.changes, living: exact.living }
  const place = { direction: 'push', peer: link.peer.name, resource: resource.name } as const
  return { ...told, weight, samples: exact.samples, trips: judgeBrakes(weight, brakes, place, pass) }
}

async function pushWeightOf(run: RunSession, task: Task, resource: ResourceInfo, pass: Pass | null): Promise<Weighed> {
  const weighed = await pushWeight(run, task, resource, run.pushes.get(resource.name)?.after, pass)
  run.announced.set(resource.name, weighed.announced)
  return weighed
}

async function dueToPeer(
  { store, link }: Scales,
  { filter, columns }: Task,
  resource: ResourceInfo,
  after: string | undefined,
) {
  const request = { resource: resource.name, filter, columns }
  return weighPush(store, link, resource, { ...request, after }).catch((error: unknown) => {
    if (!isGone(error)) throw error
    return weighPush(store, link, resource, request)
  })
}

/** A place in a log that this site has left means nothing any more. */
function isGone(error: unknown): boolean {
  return error instanceof SynclineError && error.code === 'SYNC_CHECKPOINT_GONE'
}

function firstOf(run: RunSession, name: string, batch: number | null): FirstBatch {
  const { told, after } = run.firsts.get(name) ?? { told: null, after: null }
  if (batch === null) return { batches: [], more: false, told, after }
  const { pulled } = run.fetched.get(batch) ?? assert.fail(`batch ${batch} was fetched`)
  return { batches: pulled.batches, more: pulled.more, told, after }
}

/** The most that can be due: counted in the batch where it is all there is, else as the peer says. */
function upperBound(
  task: Task,
  { batches, more, told }: FirstBatch,
): { readonly puts: number; readonly deletes: number } {
  const leaving = task.onLeft === 'remove'
  if (more && told?.due != null) {
    const { puts, deletes } = told.due
    return { puts, deletes: leaving ? deletes + puts : deletes }
  }
  let [puts, deletes] = [0, 0]
  for (const { text } of batches) {
    for (const [, kind] of text.matchAll(/^[^\t]*\t[^\t]*\t[^\t]*\t[^\t]*\t([pdl])/gm)) {
      if (kind === 'p') puts++
      else if (kind === 'd' || leaving) deletes++
    }
  }
  return { puts, deletes }
}

async function countPull(scales: Scales, task: Task, resource: ResourceInfo, first: FirstBatch): Promise<Classified> {
  const classify = (batch: LineBatch) =>
    rolledBack(scales.store, (trx) => classifyLines(trx, resource, scales.link.peer.siteId, batch, task.onLeft))
  let total = NOTHING
  if (!first.more) {
    for (const batch of first.batches) total = addClassified(total, await classify(batch))
    return total
  }
  const { filter, columns } = task
  let { after } = first
  for (let n = 0; n < STEPS_MAX; n++) {
    scales.signal.throwIfAborted()
    const { client } = scales.peer
    const pulled = await client.pull({
      resource: resource.name,
      after,
      limit: HEADS_ROWS,
      filter,
      columns,
      heads: true,
      signal: scales.signal,
    })
    for (const batch of pulled.batches) total = addClassified(total, await classify(batch))
    if (!pulled.more || pulled.checkpoint === after) break
    after = pulled.checkpoint
  }
  return total
}

async function countPush(
  scales: Scales,
  { filter, columns }: Task,
  resource: ResourceInfo,
  from: string | undefined,
): Promise<Classified & { readonly living: number }> {
  let total = NOTHING
  let living = 0
  let after = from
  for (let n = 0; n < STEPS_MAX; n++) {
    scales.signal.throwIfAborted()
    const request = { resource: resource.name, after, limit: HEADS_ROWS, filter, columns, heads: true }
    const batch = await collectPush(scales.store, scales.link, request, scales.limits).catch((error: unknown) => {
      if (after === undefined || !isGone(error)) throw error
      return collectPush(scales.store, scales.link, { ...request, after: undefined }, scales.limits)
    })
    if (batch.count > 0) {
      const { preview } = await scales.peer.client.push(batch, scales.signal, { preview: 'heads' })
      if (preview === undefined)
        throw new SynclineError('SYNC_PEER_REFUSED', `the peer does not tell what a push would do`)
      const { inserts, updates: changes, deletes, samples } = preview
      total = addClassified(total, { inserts, changes, deletes, samples })
      living = preview.living ?? 0
    }
    if (batch.next?.more !== true || batch.next.checkpoint === after) break
    after = batch.next.checkpoint
  }
  return { ...total, living }
}

/** What is stopped or released of a resource in one direction. */
async function brakeOf(run: RunSession, name: string, direction: 'pull' | 'push'): Promise<Brake | undefined> {
  run.brakes ??= brakesWith(run.store.db, run.link.peer.id)
  return (await run.brakes).find((each) => each.resource === name && each.direction === direction)
}

/** The brake of the transactions that write what is pulled of a resource: one for the whole run. */
export async function guardFor(run: RunSession, task: Task, resource: ResourceInfo): Promise<PullGuard> {
  const known = run.guards.get(resource.name)
  if (known !== undefined) return known
  const made = pullGuard(run, task, resource, passOf(await brakeOf(run, resource.name, 'pull')))
  run.guards.set(resource.name, made)
  return made
}

/** What arrives while a run goes on was not weighed before: the transaction that writes counts too. */
function pullGuard(run: RunSession, task: Task, resource: ResourceInfo, pass: Pass | null): PullGuard {
  let total = { deletes: 0, changes: 0 }
  let pending = total
  const meter = {
    read: async () => total,
    add: async (_trx: unknown, counted: typeof total) => {
      pending = counted
    },
  }
  const place = { direction: 'pull', peer: run.link.peer.name, resource: resource.name } as const
  return {
    guard: createGuard(resource, brakesOf(task), place, meter, () => pass),
    committed: () => {
      total = { deletes: total.deletes + pending.deletes, changes: total.changes + pending.changes }
      pending = { deletes: 0, changes: 0 }
    },
  }
}

/** The brake of one pull. `committed` says that the batch that it saw last is written. */
export type PullGuard = { readonly guard: Guard; readonly committed: () => void }

/** Writes down that something was stopped. Gives the error that ends the task. */
async function stop(
  run: RunSession,
  resource: ResourceInfo,
  direction: BrakeDirection,
  { trips, facts, message }: Braked,
  written: string,
): Promise<SynclineError> {
  const place = { peerId: run.link.peer.id, resourceId: resource.id, direction, runId: run.runId }
  const { token }: Brake = await openBrake(run.store.db, {
    ...place,
    rules: trips.map(({ rule }) => rule),
    reason: message,
    facts,
  })
  const some = facts.samples.length === 0 ? '' : `; among them ${facts.samples.slice(0, 3).join(', ')}`
  return new SynclineError(
    'SYNC_RUN_BRAKED',
    `${message}${some}. ${written}. If it is meant: syncline sync --release ${token}`,
  )
}
