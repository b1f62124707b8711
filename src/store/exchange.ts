import { setTimeout as sleep } from 'node:timers/promises'
import type { Transaction } from 'kysely'
import {
  type BatchReport,
  type FieldRules,
  type LineBatch,
  type Mapping,
  type Outcome,
  type Policy,
  type PolicyName,
  SynclineError,
  splitSets,
} from '../sync/index.ts'
import { type ApplyContext, applyLines, emptyReport } from './apply.ts'
import { writeCheckpoint } from './checkpoints.ts'
import { collect } from './collect.ts'
import type { Store } from './database.ts'
import { explain } from './explain.ts'
import { mergeRulesOf } from './field-marks.ts'
import { type Guard, receiveBrake } from './guard.ts'
import { tidyAfter } from './housekeeping.ts'
import { namePurged, passPurged, purgedSince, servePurged } from './purged.ts'
import type { ReceivedRun } from './received-run.ts'
import { touchRefiltered } from './refilter.ts'
import { findGrant, findTaskFor, type Peer, readSelf, type SelfEntry } from './registry/index.ts'
import { relayParked, SETS_MAX } from './relay.ts'
import { findResource, loadResources, type ResourceInfo } from './resources.ts'
import type { Database } from './schema.ts'
import { checkDisclosure, compileFilter, joinFilters, narrow, scopeMark, startOf } from './scope.ts'

/** Both ends of a link as this site knows them. */
export type Link = { readonly self: SelfEntry; readonly peer: Peer }

export type ExchangeLimits = {
  readonly batchRowsMax: number
  readonly batchBytesMax: number
  readonly recordBytesMax: number
  readonly clockAheadMaxMs: number
}

/** What a task, or the peer's request, narrows a link to. */
export type Scope = {
  readonly filter?: string | null | undefined
  readonly columns?: readonly string[] | null | undefined
}

export type PullRequest = Scope & {
  readonly resource: string
  readonly after?: string | undefined
  readonly limit?: number | undefined
  /** Asks for the deletions whose tombstones were purged since, instead of changes. */
  readonly purged?: boolean | undefined
  /** Only looks: nothing is taken note of, here or about the peer. */
  readonly quiet?: boolean | undefined
  /** Versions without values, quietly: enough to tell what the changes would do. */
  readonly heads?: boolean | undefined
}

/** What each try of a batch waits for a row in use, and the longest pause between two, in milliseconds: an application that holds one and waits for another of ours is let through soon. */
const LOCK_WAITS_MS = [50, 100, 200, 400, 800, 800]
const BUSY_PAUSE_MS = 400

/**
 * One batch for a peer that pulls, within what it was granted.
 * Errors: SYNC_AUTH_FORBIDDEN without a grant, SYNC_CHECKPOINT_GONE for a checkpoint of another log, SYNC_FILTER_INVALID.
 */
export async function serveChanges(
  store: Store,
  link: Link,
  request: PullRequest,
  limits: ExchangeLimits,
): Promise<LineBatch> {
  const resource = await readyResource(store, request.resource)
  const { columns, filters } = await grantedScope(store, link, resource, request)
  return collectScoped(store, link, resource, { ...request, columns, filters }, limits)
}

/** What of a request is granted. Errors: SYNC_AUTH_FORBIDDEN, SYNC_FILTER_INVALID. */
export async function grantedScope(store: Store, { peer }: Link, resource: ResourceInfo, request: Scope) {
  const grant = await findGrant(store.db, peer.id, resource.name, 'pull')
  if (grant === null) {
    throw new SynclineError(
      'SYNC_AUTH_FORBIDDEN',
      `peer "${peer.name}" may not pull "${resource.name}"; an administrator of this site can grant it`,
    )
  }
  const columns = narrow(grant.columns, request.columns, `pull of "${resource.name}" by "${peer.name}"`)
  if (request.filter != null && request.filter.trim() !== '')
    await checkDisclosure(store, peer, resource, grant.columns, request.filter)
  return { columns, filters: [grant.filter, request.filter] }
}

/** One batch of our own changes for a peer that we push to. */
export async function collectPush(
  store: Store,
  link: Link,
  request: PullRequest,
  limits: ExchangeLimits,
): Promise<LineBatch> {
  const resource = await readyResource(store, request.resource)
  return collectScoped(store, link, resource, { ...request, filters: [request.filter] }, limits)
}

type ScopedRequest = PullRequest & { readonly filters: readonly (string | null | undefined)[] }

async function collectScoped(
  store: Store,
  link: Link,
  resource: ResourceInfo,
  request: ScopedRequest,
  limits: ExchangeLimits,
): Promise<LineBatch> {
  const { peer } = link
  // Read each time: another process of this site may have begun a new log.
  const { logId } = await readSelf(store.db)
  const text = joinFilters(request.filters)
  const filter = text === null ? undefined : await compileFilter(store, resource, text)
  const scope = scopeMark(text, request.columns)
  const sharedWith = filter === undefined ? null : peer.id
  if (request.purged) {
    const rowsMax = request.limit ?? limits.batchRowsMax
    return servePurged(store, { resource, logId, scope, after: request.after, rowsMax, sharedWith })
  }
  const after = await startOf(store, request.after, logId, scope)
  const quiet = request.quiet === true || request.heads === true
  if (text !== null && filter !== undefined && !quiet)
    await touchRefiltered(store.db, { resource, peerId: peer.id, filter, text, after })
  const missed = await purgedSince(store.db, resource.id, after)
  const batch = await collect(store.db, {
    resource,
    logId: `${logId}${scope}`,
    after,
    rowsMax: Math.min(request.limit ?? limits.batchRowsMax, limits.batchRowsMax),
    bytesMax: limits.batchBytesMax,
    peer: { id: peer.id, siteId: peer.siteId },
    columns: request.heads === true ? [] : (request.columns ?? null),
    filter,
    quiet,
  }).catch((error: unknown) => {
    throw explain(error)
  })
  const relayed = request.heads === true ? batch : await relayParked(store.db, resource, request.columns, batch)
  if (relayed === null) return collectScoped(store, link, resource, { ...request, limit: SETS_MAX }, limits)
  return missed === null ? relayed : passPurged(relayed, missed)
}

/**
 * Applies what a peer pushed, within what it was granted: all of it in one transaction, each record with its own outcome.
 * Errors: SYNC_AUTH_FORBIDDEN without a grant, SYNC_STORE_BUSY, SYNC_RUN_BRAKED beyond what the grant lets it delete or change in an hour.
 */
export async function receiveChanges(
  store: Store,
  link: Link,
  push: {
    readonly resource: string
    readonly batches: readonly LineBatch[]
    readonly byHand: boolean
    readonly runId: string | null
    /** Takes note of what was done for its run, in the same commit. */
    readonly note?: ReceivedRun['note'] | undefined
    /** Deletions that the peer says to have still to send, these included. */
    readonly announced?: number | undefined
  },
  limits: ExchangeLimits,
): Promise<BatchReport> {
  const resource = await readyResource(store, push.resource)
  const { peer, self } = link
  const grant = await findGrant(store.db, peer.id, resource.name, 'push')
  if (grant === null) {
    throw new SynclineError(
      'SYNC_AUTH_FORBIDDEN',
      `peer "${peer.name}" may not push "${resource.name}"; an administrator of this site can grant it`,
    )
  }
  const task = await findTaskFor(store.db, peer.id, resource.name)
  const filter = grant.filter === null ? undefined : await compileFilter(store, resource, grant.filter)
  const context = await applyContext(store, link, resource, push.runId, limits, {
    policy: policyOf(task ?? grant, self, resource),
    unknownFields: push.byHand ? 'refuse' : 'park',
    onLeft: task?.onLeft ?? 'keep',
    grant: { columns: grant.columns, filter },
  })
  const brake = receiveBrake(store, link, resource, grant, push.announced ?? 0)
  const alongside: Alongside = async (trx, report) => push.note?.(trx, report)
  return applyAll(store, { ...context, guard: brake.guard }, push.batches, alongside).catch(brake.stopped)
}

/** Applies a pulled batch and moves the checkpoint in the same commit (I5). `alongside` adds to that commit, such as the log entry of the batch. */
export async function applyPull(
  store: Store,
  link: Link,
  pull: {
    readonly task: PullTask
    readonly batch: LineBatch
    readonly runId: string | null
    readonly alongside?: Alongside
    readonly guard?: Guard | undefined
  },
  limits: ExchangeLimits,
): Promise<BatchReport> {
  const resource = await readyResource(store, pull.batch.resource)
  const choice = { ...pullChoice(pull.task, link.self, resource), guard: pull.guard }
  const context = await applyContext(store, link, resource, pull.runId, limits, choice)
  return applyAll(store, context, [pull.batch], async (trx, report) => {
    if (pull.batch.next !== undefined && pull.batch.purged === undefined)
      await writeCheckpoint(trx, link.peer.id, resource.id, 'pull', pull.batch.next.checkpoint)
    await pull.alongside?.(trx, report)
  })
}

/** What else belongs into the transaction of a batch. It is repeated with the batch when the rows were in use. */
export type Alongside = (trx: Transaction<Database>, report: BatchReport) => Promise<void>

export type PullTask = {
  readonly onConflict: string
  readonly master: string | null
  readonly fields?: FieldRules | undefined
  readonly mapping?: Mapping | undefined
  readonly onLeft: 'keep' | 'remove'
}

/** Writes records by hand at this site: they are its own changes. What the database refuses is refused, not quarantined. */
export async function writeByHand(
  store: Store,
  self: SelfEntry,
  resourceName: string,
  batches: readonly LineBatch[],
  limits: ExchangeLimits,
): Promise<BatchReport> {
  const resource = await readyResource(store, resourceName)
  const context: Omit<ApplyContext, 'patience' | 'lockWaitMs'> = {
    resource,
    resources: await loadResources(store.db),
    peer: null,
    selfSiteId: self.siteId,
    runId: null,
    policy: { name: 'theirs', here: self.origin },
    unknownFields: 'refuse',
    onLeft: 'keep',
    recordBytesMax: limits.recordBytesMax,
    clockAheadMaxMicros: limits.clockAheadMaxMs * 1_000,
  }
  return applyAll(store, context, batches)
}

/** How what we pull is applied: by the task. */
export function pullChoice(task: PullTask, self: SelfEntry, resource: ResourceInfo): ContextChoice {
  return { policy: policyOf(task, self, resource), unknownFields: 'park', onLeft: task.onLeft, mapping: task.mapping }
}

/** How what a peer pushes is applied: within its grant, by the policy of our task with it where there is one. Null without a grant. */
export async function pushChoice(store: Store, link: Link, resource: ResourceInfo): Promise<ContextChoice | null> {
  const grant = await findGrant(store.db, link.peer.id, resource.name, 'push')
  if (grant === null) return null
  const task = await findTaskFor(store.db, link.peer.id, resource.name)
  const filter = grant.filter === null ? undefined : await compileFilter(store, resource, grant.filter)
  return {
    policy: policyOf(task ?? grant, link.self, resource),
    unknownFields: 'park',
    onLeft: task?.onLeft ?? 'keep',
    grant: { columns: grant.columns, filter },
  }
}

export type ContextChoice = Pick<ApplyContext, 'policy' | 'unknownFields' | 'onLeft'> &
  Partial<Pick<ApplyContext, 'grant' | 'guard' | 'mapping'>>

export async function applyContext(
  store: Store,
  link: Link,
  resource: ResourceInfo,
  runId: string | null,
  limits: ExchangeLimits,
  choice: ContextChoice,
): Promise<Omit<ApplyContext, 'patience' | 'lockWaitMs'>> {
  return {
    resource,
    resources: await loadResources(store.db),
    peer: { id: link.peer.id, siteId: link.peer.siteId },
    selfSiteId: link.self.siteId,
    runId,
    recordBytesMax: limits.recordBytesMax,
    clockAheadMaxMicros: limits.clockAheadMaxMs * 1_000,
    ...choice,
  }
}

/** Applies batches in one transaction; repeats it when the rows are in use, each time from the beginning. */
export async function applyAll(
  store: Store,
  context: Omit<ApplyContext, 'patience' | 'lockWaitMs'>,
  batches: readonly LineBatch[],
  alongside: Alongside = async () => {},
  tried: 'patiently' | 'once' = 'patiently',
): Promise<BatchReport> {
  for (let tries = tried === 'once' ? LOCK_WAITS_MS.length : 1; ; tries++) {
    try {
      const done = await store.db.transaction().execute(async (trx) => {
        let report = emptyReport()
        const patience = tries < LOCK_WAITS_MS.length ? 'wait' : 'set aside'
        const lockWaitMs = LOCK_WAITS_MS[tries - 1] ?? 0
        for (const sent of batches.flatMap(splitSets)) {
          const batch = sent.purged ? await namePurged(trx, context.resource, sent) : sent
          report = addReports(report, await applyLines(trx, { ...context, patience, lockWaitMs }, batch))
        }
        await alongside(trx, report)
        return report
      })
      await tidyAfter(store, done.counts.applied + done.counts.merged)
      return done
    } catch (error) {
      if (!(error instanceof SynclineError) || error.code !== 'SYNC_STORE_BUSY' || tries >= LOCK_WAITS_MS.length)
        throw error
      await sleep(Math.random() * BUSY_PAUSE_MS)
    }
  }
}

export function addReports(a: BatchReport, b: BatchReport): BatchReport {
  const counts = Object.fromEntries(
    Object.entries(a.counts).map(([outcome, count]) => [outcome, count + b.counts[outcome as Outcome]]),
  )
  const rejections = [...a.rejections, ...b.rejections]
  return {
    counts: counts as BatchReport['counts'],
    rejections: rejections.slice(0, 1_000),
    truncated: a.truncated || b.truncated || rejections.length > 1_000,
  }
}

export async function readyResource(store: Store, name: string): Promise<ResourceInfo> {
  const resource = await findResource(store.db, name)
  if (!resource.ready)
    throw new SynclineError(
      'SYNC_RESOURCE_OUTDATED',
      `the existing rows of "${name}" are not all registered yet; attach it again to go on`,
    )
  return resource
}

function policyOf(choice: Omit<PullTask, 'onLeft'>, self: SelfEntry, resource: ResourceInfo): Policy {
  const { onConflict, master, fields = {} } = choice
  const policy = { name: onConflict as PolicyName, master, here: self.origin }
  return policy.name === 'merge' ? { ...policy, merge: mergeRulesOf(resource, fields) } : policy
}
