import { Counter, collectDefaultMetrics, Gauge, Histogram, Registry } from 'prom-client'
import { createJobMeters, type JobMeasurement, recordJobs } from './job-events.ts'

/** States that are measured when somebody asks, not counted as they happen. What is absent is not shown. */
export type Measurement = {
  readonly quarantine?: readonly { readonly peer: string; readonly resource: string; readonly count: number }[]
  /** Records of this site that wait at peers. */
  readonly quarantineThere?: readonly { readonly peer: string; readonly resource: string; readonly count: number }[]
  /** Open alarms. */
  readonly alarms?: readonly {
    readonly code: string
    readonly peer: string
    readonly level: string
    readonly count: number
  }[]
  /** Conflicts that wait for a person. */
  readonly conflictsOpen?: number
  /** Age of the oldest transaction that holds back the change order; 0 when there is none. */
  readonly horizonAgeMs?: number
  /** Time since each checkpoint moved or was confirmed. */
  readonly checkpoints?: readonly { readonly peer: string; readonly resource: string; readonly ageMs: number }[]
  readonly work?: JobMeasurement
}

/** Every metric of Syncline. Labels are few and bounded: peer, resource, result and the like, never a record, a URL or a message. */
export type Meters = ReturnType<typeof createMeters>

export type Metrics = {
  /** The Prometheus text of now. A measurement that fails leaves out its gauges and counts in syncline_measure_failures_total. */
  readonly text: () => Promise<string>
  readonly contentType: string
  /** Sets what `text` measures first; scrapes that come at once share one measurement. */
  readonly measureWith: (measure: () => Promise<Measurement>) => void
}

const REQUEST_SECONDS = [0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120]
const RUN_SECONDS = [0.02, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 15, 60, 300, 900, 3600]

export function createMeters(registry: Registry) {
  const registers = [registry]
  const counter = <L extends string>(name: string, help: string, labelNames: readonly L[]) =>
    new Counter<L>({ name: `syncline_${name}`, help, labelNames: [...labelNames], registers })
  const gauge = <L extends string>(name: string, help: string, labelNames: readonly L[]) =>
    new Gauge<L>({ name: `syncline_${name}`, help, labelNames: [...labelNames], registers })
  const histogram = <L extends string>(name: string, help: string, labelNames: readonly L[], buckets: number[]) =>
    new Histogram<L>({ name: `syncline_${name}`, help, labelNames: [...labelNames], buckets, registers })
  return {
    info: gauge('info', 'Always 1; the labels say which site and version this is.', ['version', 'name']),
    runs: counter('runs_total', 'Finished runs.', ['peer', 'result']),
    runSeconds: histogram('run_seconds', 'Duration of runs.', ['peer', 'result'], RUN_SECONDS),
    runFinishedAt: gauge('run_finished_timestamp_seconds', 'When the last run with this result ended.', [
      'peer',
      'result',
    ]),
    agreedAt: gauge('agreed_timestamp_seconds', 'When both sites were last found equal.', ['peer', 'resource']),
    changes: counter('changes_total', 'Changes by what became of them.', ['peer', 'resource', 'direction', 'outcome']),
    bytes: counter('bytes_total', 'Bytes of batches as they travelled.', ['peer', 'direction']),
    requestSeconds: histogram(
      'http_request_seconds',
      'Time to answer requests.',
      ['route', 'method', 'status'],
      REQUEST_SECONDS,
    ),
    conflicts: counter('conflicts_total', 'Concurrent changes by policy.', ['peer', 'resource', 'policy']),
    quarantined: counter('quarantined_total', 'Records put in quarantine.', ['peer', 'resource', 'code']),
    refusals: counter('auth_refused_total', 'Requests refused for who sent them.', ['reason']),
    unreachable: counter('peer_unreachable_total', 'Failed attempts to reach a peer.', ['peer']),
    clockOffset: gauge('clock_offset_seconds', 'Clock of the peer minus ours.', ['peer']),
    captureBroken: counter('capture_broken_total', 'Findings of missing, disabled or outdated triggers.', ['resource']),
    purged: counter('tombstones_purged_total', 'Deletions that are no longer kept for peers.', ['resource']),
    jobs: counter('jobs_scheduled_total', 'Jobs put on the queue.', ['cause']),
    failures: counter('internal_errors_total', 'Failures that no rule foresees.', ['where']),
    quarantine: gauge('quarantine', 'Records in quarantine now.', ['peer', 'resource']),
    quarantineThere: gauge('quarantine_there', 'Records of this site in quarantine at a peer.', ['peer', 'resource']),
    alarm: gauge('alarm', 'Open alarms of the stall detector.', ['code', 'peer', 'level']),
    alarms: counter('alarms_total', 'Alarms that began.', ['code']),
    noticesFailed: counter('notices_failed_total', 'Failed attempts to tell an alarm.', ['channel']),
    conflictsOpen: gauge('conflicts_open', 'Conflicts that wait for a person.', []),
    horizonAge: gauge('horizon_age_seconds', 'Age of the oldest transaction that holds back the change order.', []),
    checkpointAge: gauge('checkpoint_age_seconds', 'Time since the checkpoint moved or was confirmed.', [
      'peer',
      'resource',
    ]),
    work: createJobMeters(registry),
    measureFailures: counter('measure_failures_total', 'Measurements for this page that failed.', []),
  }
}

/** A registry of its own, so that two sites in one process (as in tests) do not mix. */
export function createMetrics(): { readonly metrics: Metrics; readonly meters: Meters } {
  const registry = new Registry()
  collectDefaultMetrics({ register: registry })
  const meters = createMeters(registry)
  let measure: () => Promise<Measurement> = async () => ({})
  let underWay: Promise<void> | undefined
  const refresh = async () => {
    try {
      record(meters, await measure())
    } catch {
      record(meters, {})
      meters.measureFailures.inc()
    }
  }
  const text = async () => {
    underWay ??= refresh().finally(() => {
      underWay = undefined
    })
    await underWay
    return registry.metrics()
  }
  const measureWith = (next: () => Promise<Measurement>) => {
    measure = next
  }
  return { metrics: { text, contentType: registry.contentType, measureWith }, meters }
}

/** Sets the measured gauges anew: a pair of peer and resource that is gone, or a failed measurement, must not show an old number. */
function record(meters: Meters, now: Measurement): void {
  meters.quarantine.reset()
  for (const { peer, resource, count } of now.quarantine ?? []) meters.quarantine.set({ peer, resource }, count)
  meters.quarantineThere.reset()
  for (const { peer, resource, count } of now.quarantineThere ?? [])
    meters.quarantineThere.set({ peer, resource }, count)
  meters.alarm.reset()
  for (const { code, peer, level, count } of now.alarms ?? []) meters.alarm.set({ code, peer, level }, count)
  meters.checkpointAge.reset()
  for (const { peer, resource, ageMs } of now.checkpoints ?? [])
    meters.checkpointAge.set({ peer, resource }, ageMs / 1000)
  recordJobs(meters.work, now.work)
  setOrRemove(meters.conflictsOpen, now.conflictsOpen)
  setOrRemove(meters.horizonAge, now.horizonAgeMs === undefined ? undefined : now.horizonAgeMs / 1000)
}

function setOrRemove(gauge: Gauge<never>, value: number | undefined): void {
  if (value === undefined) gauge.remove()
  else gauge.set(value)
}
