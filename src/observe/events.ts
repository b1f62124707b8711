import type { BatchReport, Outcome, PolicyName } from '../sync/index.ts'
import { createJobEvents } from './job-events.ts'
import type { Log } from './log.ts'
import type { Meters } from './metrics.ts'

export type RunResult = 'success' | 'warning' | 'error' | 'fatal'
export type RefusalReason = 'missing' | 'unknown' | 'expired' | 'forbidden' | 'pairing'
export type OutcomeCounts = BatchReport['counts']

type Site = {
  readonly uuid: string
  readonly name: string
  readonly version: string
  readonly database: 'server' | 'embedded'
}

export type SiteStarted = Site & {
  readonly roles: readonly string[]
  /** Absent where the process serves no requests. */
  readonly address?: string
  readonly durationMs: number
}

export type RequestServed = {
  readonly requestId: string
  readonly method: string
  /** The pattern of the route, such as /api/v1/peers/:name, never the URL: it is a label. */
  readonly route: string
  readonly status: number
  readonly durationMs: number
  readonly peer?: string
  readonly code?: string
  /** Shown with its stack where the answer is a 500. */
  readonly err?: unknown
}

export type PullServed = {
  readonly peer: string
  readonly resource: string
  readonly changes: number
  readonly bytes: number
  readonly more: boolean
  readonly durationMs: number
}

/** A batch that one side sent and the other applied, as the side that logs it saw it. */
export type BatchMoved = {
  readonly runId?: string
  readonly peer: string
  readonly resource: string
  readonly counts: OutcomeCounts
  readonly bytes: number
  readonly durationMs: number
}

export type RunStarted = {
  readonly runId: string
  readonly peer: string
  readonly cause: string
  readonly resources?: readonly string[]
}

export type RunFinished = {
  readonly runId: string
  readonly peer: string
  readonly cause?: string
  readonly result: RunResult
  readonly pulled: number
  readonly applied: number
  readonly conflicts: number
  readonly rejected: number
  readonly pushed: number
  /** Age of the oldest change that this run brought. */
  readonly lagMs?: number
  readonly durationMs: number
  readonly code?: string
  readonly message?: string
  /** When it is tried again by itself; a failed run without it needs a person. */
  readonly retryAt?: string
}

export type ResourceCompared = {
  readonly runId?: string
  readonly peer: string
  readonly resource: string
  readonly verdict: 'equal' | 'waiting' | 'different' | 'unknown'
  /** Living records here that were compared. */
  readonly records?: number
  readonly reason?: string
  readonly durationMs: number
}

/** An episode of the stall detector; `peer` and `resource` are empty where the site itself is meant. */
export type AlarmEvent = {
  readonly code: string
  readonly level: 'info' | 'warning' | 'critical'
  readonly peer: string
  readonly resource: string
  readonly text: string
  readonly mend: string
}

type AboutRecord = {
  readonly runId?: string
  readonly peer: string
  readonly resource: string
  readonly recordId: string
}

export type RecordQuarantined = AboutRecord & { readonly code: string; readonly reason: string }

export type ConflictDecided = AboutRecord & {
  readonly policy: PolicyName
  /** `open` waits for a person. */
  readonly decision: 'ours' | 'theirs' | 'merged' | 'equal' | 'open'
}

export type JobScheduled = {
  readonly job: string
  readonly cause: 'schedule' | 'now' | 'retry' | 'live'
  readonly dueAt: string
}

export type AuthRefused = {
  readonly requestId: string
  readonly method: string
  readonly route: string
  readonly reason: RefusalReason
  readonly address: string
  readonly detail?: string
}

export type PeerUnreachable = {
  readonly peer: string
  readonly runId?: string
  readonly reason: string
  readonly failures: number
  readonly retryAt?: string
}

export type HorizonOld = {
  readonly ageMs: number
  /** Who holds the oldest transaction open: process, application and state. */
  readonly holder?: string
}

/** One function per thing that happens to a site: one log line and the metrics that belong to it. Nothing else writes either. */
export type Events = ReturnType<typeof createEvents>

export function createEvents(log: Log, meters: Meters) {
  let siteName = ''
  const countChanges = (direction: 'incoming' | 'outgoing', batch: BatchMoved) => {
    const { peer, resource, counts, bytes } = batch
    for (const [outcome, count] of Object.entries(counts) as [Outcome, number][]) {
      if (count > 0) meters.changes.inc({ peer, resource, direction, outcome }, count)
    }
    meters.bytes.inc({ peer, direction }, bytes)
  }

  return {
    ...createJobEvents(log, meters.work, () => siteName),

    siteStarted(event: SiteStarted): void {
      siteName = event.name
      meters.info.set({ version: event.version, name: event.name }, 1)
      log.info({ event: 'site.started', ...event })
    },

    /** The process takes no more work and ends what it does. `cause` is a signal's name, or why. */
    siteStopping(event: { readonly cause: string }): void {
      log.info({ event: 'site.stopping', ...event })
    },

    siteStopped(event: { readonly durationMs: number }): void {
      log.info({ event: 'site.stopped', ...event })
    },

    databaseMigrated(event: { readonly applied: readonly string[]; readonly durationMs: number }): void {
      log.info({ event: 'database.migrated', ...event })
    },

    /** The database is another than the log belonged to (restored, copied, failed over), or a person asked for it. */
    logRenewed(event: { readonly from: string; readonly to: string; readonly cause: string }): void {
      log.warn({ event: 'log.renewed', ...event })
    },

    /** Probes and scrapes are the even beat of every site and logged at debug only. */
    requestServed(event: RequestServed): void {
      const { method, route, status, durationMs } = event
      meters.requestSeconds.observe({ method, route, status: String(status) }, durationMs / 1000)
      const line = { event: 'request.served', ...event }
      if (status === 500) log.error(line)
      else if (status > 500) log.warn(line)
      else if (/^\/(health|metrics)\b/.test(route)) log.debug(line)
      else log.info(line)
    },

    pullServed(event: PullServed): void {
      const { peer, resource, changes, bytes } = event
      if (changes > 0) meters.changes.inc({ peer, resource, direction: 'outgoing', outcome: 'sent' }, changes)
      meters.bytes.inc({ peer, direction: 'outgoing' }, bytes)
      log.debug({ event: 'pull.served', ...event })
    },

    /** A peer pushed to us and we applied. */
    pushServed(event: BatchMoved): void {
      countChanges('incoming', event)
      log.debug({ event: 'push.served', ...event })
    },

    /** We pulled from a peer and applied. */
    batchPulled(event: BatchMoved): void {
      countChanges('incoming', event)
      log.debug({ event: 'batch.pulled', ...event })
    },

    /** We pushed to a peer; the counts are its answer. */
    batchPushed(event: BatchMoved): void {
      countChanges('outgoing', event)
      log.debug({ event: 'batch.pushed', ...event })
    },

    runStarted(event: RunStarted): void {
      log.debug({ event: 'run.started', ...event })
    },

    runFinished(event: RunFinished): void {
      const { peer, result, durationMs, retryAt } = event
      meters.runs.inc({ peer, result })
      meters.runSeconds.observe({ peer, result }, durationMs / 1000)
      meters.runFinishedAt.setToCurrentTime({ peer, result })
      const line = { event: 'run.finished', ...event }
      if (result === 'success') log.info(line)
      else if (result === 'warning' || retryAt !== undefined) log.warn(line)
      else log.error(line)
    },

    resourceCompared(event: ResourceCompared): void {
      const { peer, resource, verdict } = event
      if (verdict === 'equal') meters.agreedAt.setToCurrentTime({ peer, resource })
      const line = { event: 'resource.compared', ...event }
      if (verdict === 'different') log.warn(line)
      else log.debug(line)
    },

    recordQuarantined(event: RecordQuarantined): void {
      const { peer, resource, code } = event
      meters.quarantined.inc({ peer, resource, code })
      log.warn({ event: 'record.quarantined', ...event })
    },

    conflictDecided(event: ConflictDecided): void {
      const { peer, resource, policy, decision } = event
      meters.conflicts.inc({ peer, resource, policy })
      const line = { event: 'conflict.decided', ...event }
      if (decision === 'open') log.warn(line)
      else log.debug(line)
    },

    jobScheduled(event: JobScheduled): void {
      meters.jobs.inc({ cause: event.cause })
      log.debug({ event: 'job.scheduled', ...event })
    },

    authRefused(event: AuthRefused): void {
      meters.refusals.inc({ reason: event.reason })
      log.warn({ event: 'auth.refused', ...event })
    },

    /** Pairing is complete on this side. */
    peerPaired(event: {
      readonly peer: string
      readonly uuid: string
      readonly by: 'invitation' | 'joining' | 'hand'
    }): void {
      log.info({ event: 'peer.paired', ...event })
    },

    peerUnreachable(event: PeerUnreachable): void {
      meters.unreachable.inc({ peer: event.peer })
      log.warn({ event: 'peer.unreachable', ...event })
    },

    /** Every exchange with a peer tells how far its clock is from ours; no line, the gauge is enough. */
    clockCompared(event: { readonly peer: string; readonly offsetMs: number }): void {
      meters.clockOffset.set({ peer: event.peer }, event.offsetMs / 1000)
    },

    clockFar(event: { readonly peer: string; readonly offsetMs: number; readonly limitMs: number }): void {
      meters.clockOffset.set({ peer: event.peer }, event.offsetMs / 1000)
      log.warn({ event: 'clock.far', ...event })
    },

    /** An open transaction somewhere in the cluster holds back the change order. */
    horizonOld(event: HorizonOld): void {
      log.warn({ event: 'horizon.old', ...event })
    },

    resourceAttached(event: {
      readonly resource: string
      readonly table: string
      readonly rows: number
      readonly durationMs: number
    }): void {
      log.info({ event: 'resource.attached', ...event })
    },

    resourceDetached(event: { readonly resource: string; readonly table: string }): void {
      log.info({ event: 'resource.detached', ...event })
    },

    /** A rule of the stall detector began to hold. */
    alarmBegun({ code, level, peer, resource, text, mend }: AlarmEvent): void {
      meters.alarms.inc({ code })
      const line = { event: 'alarm.begun', code, alarm: level, peer, resource, text, mend }
      if (level === 'critical') log.error(line)
      else log.warn(line)
    },

    alarmEnded({ code, level, peer, resource, text }: AlarmEvent): void {
      log.info({ event: 'alarm.ended', code, alarm: level, peer, resource, text })
    },

    /** An alarm could not be told; it is tried again. */
    noticeFailed(event: { readonly channel: string; readonly alarm: string; readonly reason: string }): void {
      meters.noticesFailed.inc({ channel: event.channel })
      log.warn({ event: 'notice.failed', ...event })
    },

    /** Changes may go unseen: triggers are missing, disabled or outdated. */
    captureBroken(event: { readonly resource: string; readonly problem: string }): void {
      meters.captureBroken.inc({ resource: event.resource })
      log.error({ event: 'capture.broken', ...event })
    },

    /** Deletions that every peer has, or that waited too long for one that has not. */
    tombstonesPurged(event: { readonly resource: string; readonly count: number }): void {
      meters.purged.inc({ resource: event.resource }, event.count)
      log.info({ event: 'tombstones.purged', ...event })
    },

    /** A bug or something equally unforeseen. `where` is a room or part of one: it is a label. */
    internalError(event: {
      readonly where: string
      readonly err: unknown
      readonly requestId?: string
      readonly runId?: string
    }): void {
      meters.failures.inc({ where: event.where })
      log.error({ event: 'internal.error', ...event })
    },
  }
}
