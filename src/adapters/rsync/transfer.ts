import { readdir } from 'node:fs/promises'
import { setTimeout as sleep } from 'node:timers/promises'
import { SynclineError } from '../../sync/index.ts'
import { runProgram } from '../process/program.ts'
import type { Ssh } from '../ssh/ssh.ts'
import { type ArgvSettings, buildArgv, type RsyncVersion } from './argv.ts'
import { limitAt } from './bandwidth.ts'
import { REPORT_ITEMS, REPORT_PROGRESS, type Report, type Totals } from './progress.ts'
import { type RsyncEnd, rsyncVersion, runRsync } from './rsync.ts'
import {
  deletes,
  type Leg,
  legsOf,
  type Place,
  placeLabel,
  type Transfer,
  transferFaults,
} from './transfer-settings.ts'
import { checkManifest, lookAgain, makeManifest, type Verdict } from './verify.ts'

/** How far a transfer is. What nobody knows is null; `rate` is bytes in a second. */
export type TransferProgress = {
  readonly bytes: number | null
  readonly total: number | null
  readonly files: number | null
  readonly rate: number | null
  readonly secondsLeft: number | null
}

export type TransferDeps = { readonly ssh: Ssh; readonly now: () => number }

export type TransferWatch = {
  readonly signal: AbortSignal
  readonly say?: (line: string) => void
  readonly progress?: (progress: TransferProgress) => void
}

/** What a transfer would do, one entry for each call of rsync. */
export type PlannedLeg = {
  readonly from: readonly string[]
  readonly to: string
  /** Exactly what would be started. */
  readonly argv: readonly string[]
  readonly files: number
  readonly bytes: number
  readonly deleted: number
  /** What would be copied (`+`) and deleted (`-`), the first of them. */
  readonly names: readonly string[]
}

export type TransferResult = {
  readonly warnings: readonly string[]
  readonly counts: {
    /** Files and bytes that were copied; files that were looked at. */
    readonly files: number
    readonly bytes: number
    readonly found: number
    readonly deleted: number
    /** Bytes that went over the line. */
    readonly sent: number
    readonly received: number
    /** Files that were compared with the source afterwards. */
    readonly verified: number
    /** Bytes of all files, copied or not: against what went over the line it is the speed-up. */
    readonly size: number
  }
  /** Of the manifest, for each leg that has one. */
  readonly manifests: readonly string[]
}

const NAMES_PLANNED = 100
/** A source that changes while it is copied is copied again so often. */
const PASSES_MAX = 3
const PAUSE_BETWEEN_PASSES_MS = 200

/** What `transfer` would do: the exact command lines, and what rsync says to them with --dry-run. Writes nothing at either end. */
export async function planTransfer(
  deps: TransferDeps,
  transfer: Transfer,
  { signal }: Pick<TransferWatch, 'signal'>,
): Promise<readonly PlannedLeg[]> {
  const version = await ready(transfer, signal)
  const planned: PlannedLeg[] = []
  for (const leg of legsOf(transfer)) {
    const settings = await settingsOf(deps, transfer, leg, version)
    await refuseEmptySources(transfer, leg, settings, signal)
    const names: string[] = []
    const note = (name: string) => names.length < NAMES_PLANNED && names.push(name)
    const argv = buildArgv(transfer, leg, { ...settings, more: ['--dry-run', ...REPORT_ITEMS] })
    const { totals } = await runRsync(argv, leg, {
      signal,
      report: (report) => {
        if (report.kind === 'deleted') note(`- ${report.name}`)
        if (report.kind === 'item' && /^[<>ch]f/.test(report.change)) note(`+ ${report.name}`)
      },
    })
    const { transferred: files = 0, copied: bytes = 0, deleted = 0 } = totals
    const exact = buildArgv(transfer, leg, { ...settings, more: REPORT_PROGRESS })
    planned.push({
      from: leg.sources.map(placeLabel),
      to: placeLabel(leg.destination),
      argv: exact,
      files,
      bytes,
      deleted,
      names,
    })
  }
  return planned
}

/**
 * Copies. An interrupted transfer goes on, the next time it is run, where it was. Throws SYNC_TRANSFER_… when it did not come to a good end, or
 * when it was looked at again and was not what it should be.
 */
export async function runTransfer(
  deps: TransferDeps,
  transfer: Transfer,
  watch: TransferWatch,
): Promise<TransferResult> {
  const version = await ready(transfer, watch.signal)
  const results: LegResult[] = []
  for (const leg of legsOf(transfer)) {
    const settings = await settingsOf(deps, transfer, leg, version)
    await refuseEmptySources(transfer, leg, settings, watch.signal)
    results.push(await copyLeg({ deps, transfer, leg, settings, watch, before: results }))
  }
  return sumUp(results)
}

type LegResult = {
  readonly totals: Totals
  readonly verified: number
  readonly warnings: readonly string[]
  readonly manifest: string | undefined
}

type LegWork = {
  readonly deps: TransferDeps
  readonly transfer: Transfer
  readonly leg: Leg
  readonly settings: Omit<ArgvSettings, 'more'>
  readonly watch: TransferWatch
  readonly before: readonly LegResult[]
}

async function copyLeg(work: LegWork): Promise<LegResult> {
  const { deps, transfer, leg, settings, watch } = work
  const { verify = 'none' } = transfer
  const given = { ssh: deps.ssh, transfer, leg, settings, signal: watch.signal }
  let done = NOTHING
  const warnings: string[] = []
  for (let pass = 1, again: readonly string[] = []; ; pass++) {
    const manifest = verify === 'sha256' ? await makeManifest(given) : undefined
    const { end, totals } = await copyOnce(work, again, done)
    done = totals
    if (end.severity === 'warning') warnings.push(end.text)
    else if (end.text !== '') watch.say?.(end.text)
    if (verify === 'none') return { totals, verified: 0, warnings, manifest: undefined }
    const verdict =
      manifest === undefined ? await lookAgain(given, verify === 'checksum') : await checkManifest(given, manifest)
    if (verdict.damaged.count + verdict.changed.count === 0)
      return { totals, verified: verdict.checked, warnings, manifest: verdict.sha256 }
    const text = verdictText(verdict)
    if (pass === PASSES_MAX) throw new SynclineError('SYNC_TRANSFER_INCOMPLETE', `after ${pass} copies ${text}`)
    watch.say?.(`${text}: copying again`)
    // A file of the same size and time is passed over unless its content is compared.
    again = verdict.damaged.count > 0 ? ['--checksum'] : []
    await sleep(PAUSE_BETWEEN_PASSES_MS, undefined, { signal: watch.signal })
  }
}

/** Runs rsync to its end, again with another limit when the hours of the bandwidth change under way. */
async function copyOnce(
  { deps, transfer, leg, settings, watch, before }: LegWork,
  more: readonly string[],
  done: Totals,
): Promise<{ readonly end: RsyncEnd; readonly totals: Totals }> {
  const base = before.reduce((sum, { totals }) => sum + totals.copied, done.copied)
  const filesBase = before.reduce((sum, { totals }) => sum + totals.transferred, done.transferred)
  const report = (each: Report) => {
    if (each.kind === 'progress') watch.progress?.(progressOf(each, base, filesBase))
    if (each.kind === 'deleted') watch.say?.(`deleted ${each.name}`)
    if (each.kind === 'text') watch.say?.(each.text)
  }
  for (;;) {
    const { limit, forMs } = limitAt(transfer.bandwidth ?? {}, deps.now())
    const argv = buildArgv(transfer, leg, { ...settings, limit, more: [...more, ...REPORT_PROGRESS] })
    const change = Number.isFinite(forMs) ? AbortSignal.timeout(Math.ceil(forMs)) : undefined
    const signal = change === undefined ? watch.signal : AbortSignal.any([watch.signal, change])
    try {
      const end = await runRsync(argv, leg, { signal, report })
      return { end, totals: add(done, end.totals) }
    } catch (error) {
      if (watch.signal.aborted || change?.aborted !== true || !stopped(error)) throw error
      watch.say?.('the hours of the bandwidth change: going on with another limit')
    }
  }
}

function stopped(error: unknown): boolean {
  return error instanceof SynclineError && error.code === 'SYNC_TRANSFER_STOPPED'
}

async function ready(transfer: Transfer, signal: AbortSignal): Promise<RsyncVersion> {
  const faults = transferFaults(transfer)
  if (faults.length > 0) {
    const detail = faults.map(({ path, message }) => `${path} ${message}`).join('\n')
    throw new SynclineError('SYNC_TRANSFER_INVALID', detail)
  }
  return rsyncVersion(signal)
}

async function settingsOf(
  { ssh, now }: TransferDeps,
  transfer: Transfer,
  { host }: Leg,
  version: RsyncVersion,
): Promise<Omit<ArgvSettings, 'more'>> {
  const { limit } = limitAt(transfer.bandwidth ?? {}, now())
  if (host === undefined) return { version, limit }
  const { config } = await ssh.route(host, transfer.connectSeconds)
  return { version, limit, sshConfig: config }
}

/** An empty source is what a disk looks like that is not mounted: a mirror of it would delete everything. */
async function refuseEmptySources(
  transfer: Transfer,
  leg: Leg,
  settings: Omit<ArgvSettings, 'more'>,
  signal: AbortSignal,
): Promise<void> {
  if (!deletes(transfer) || transfer.emptySource === 'allow') return
  for (const place of leg.sources) {
    if (await hasSomething(place, leg, settings, signal)) continue
    const detail = `${placeLabel(place)} is empty, and the transfer deletes at its destination what the source does not have`
    throw new SynclineError('SYNC_TRANSFER_BRAKED', detail)
  }
}

async function hasSomething(
  place: Place,
  leg: Leg,
  settings: Omit<ArgvSettings, 'more'>,
  signal: AbortSignal,
): Promise<boolean> {
  // Whatever cannot be read here is found and told by the transfer itself.
  if (typeof place === 'string')
    return readdir(place).then(
      (names) => names.length > 0,
      () => true,
    )
  // What is in the folder; a file fails, and is something.
  const inside = { ...place, path: place.path.replace(/\/*$/, '/') }
  const [program, ...rest] = buildArgv(
    { from: inside, to: '/' },
    { ...leg, sources: [inside], destination: '/' },
    settings,
  )
  const paths = rest.slice(rest.indexOf('--'), -1)
  const options = rest.filter((word) => /^--(?:rsh=|protect-args$)/.test(word))
  const argv: [string, ...string[]] = [program, '--list-only', '--dirs', ...options, ...paths]
  const { code, stdout } = await runProgram(argv, { signal })
  const names = stdout.split('\n').filter((line) => line !== '' && !/ \.$/.test(line))
  return code !== 0 || names.length > 0
}

function progressOf(report: Report & { readonly kind: 'progress' }, base: number, files: number): TransferProgress {
  const { bytes, percent, rate, seconds } = report
  return {
    bytes: base + bytes,
    total: percent > 0 ? base + Math.round((bytes * 100) / percent) : null,
    files: report.files === null ? null : files + report.files,
    rate,
    secondsLeft: percent > 0 && percent < 100 ? seconds : null,
  }
}

function verdictText({ damaged, changed }: Verdict): string {
  const parts = [
    ...(damaged.count === 0
      ? []
      : [`${damaged.count} files are not at the destination as they are at the source (${damaged.some.join(', ')})`]),
    ...(changed.count === 0
      ? []
      : [`${changed.count} files changed at the source while they were copied (${changed.some.join(', ')})`]),
  ]
  return parts.join(', and ')
}

const NOTHING: Totals = {
  files: 0,
  regular: 0,
  created: 0,
  deleted: 0,
  transferred: 0,
  size: 0,
  copied: 0,
  literal: 0,
  sent: 0,
  received: 0,
  speedup: 0,
}

function add(one: Totals, more: Partial<Totals>): Totals {
  const sum = (name: keyof Totals) => one[name] + (more[name] ?? 0)
  return {
    ...NOTHING,
    // A second pass looks at the same files again.
    files: more.files ?? one.files,
    regular: more.regular ?? one.regular,
    size: more.size ?? one.size,
    created: sum('created'),
    deleted: sum('deleted'),
    transferred: sum('transferred'),
    copied: sum('copied'),
    literal: sum('literal'),
    sent: sum('sent'),
    received: sum('received'),
  }
}

function sumUp(results: readonly LegResult[]): TransferResult {
  const sum = (pick: (result: LegResult) => number) => results.reduce((all, result) => all + pick(result), 0)
  return {
    warnings: results.flatMap(({ warnings }) => warnings),
    counts: {
      files: sum(({ totals }) => totals.transferred),
      bytes: sum(({ totals }) => totals.copied),
      found: sum(({ totals }) => totals.regular),
      deleted: sum(({ totals }) => totals.deleted),
      sent: sum(({ totals }) => totals.sent),
      received: sum(({ totals }) => totals.received),
      verified: sum(({ verified }) => verified),
      size: sum(({ totals }) => totals.size),
    },
    manifests: results.flatMap(({ manifest }) => (manifest === undefined ? [] : [manifest])),
  }
}
