import { SynclineError } from '../../sync/index.ts'
import { type ProgramEnd, runProgram } from '../process/program.ts'
import { lastLines, sshSaying } from '../ssh/failure.ts'
import { hostLabel } from '../ssh/host.ts'
import { atLeast, type RsyncVersion } from './argv.ts'
import { exitCode } from './exit-codes.ts'
import { createReader, type Report, type Totals } from './progress.ts'
import type { Leg } from './transfer-settings.ts'

const VERSION_LEAST: RsyncVersion = [3, 1, 0]
const VERSION_TIMEOUT_MS = 10_000

/** How one call of rsync came to its end. */
export type RsyncEnd = {
  readonly severity: 'success' | 'warning'
  /** What the exit code means, and of a warning what rsync said. */
  readonly text: string
  readonly totals: Partial<Totals>
}

/** What was found is believed for so long: it may be brought up to date while the site runs. */
const VERSION_FRESH_MS = 60_000
let known: { readonly version: RsyncVersion; readonly at: number } | undefined

/** The version of the rsync of this machine. Throws SYNC_TRANSFER_TOOL when there is none, or one that is too old. */
export async function rsyncVersion(signal?: AbortSignal): Promise<RsyncVersion> {
  if (known !== undefined && performance.now() - known.at < VERSION_FRESH_MS) return known.version
  let end: ProgramEnd
  try {
    end = await runProgram(['rsync', '--version'], { signal, timeoutMs: VERSION_TIMEOUT_MS })
  } catch (cause) {
    throw new SynclineError('SYNC_TRANSFER_TOOL', 'there is no rsync on the machine of this site', { cause })
  }
  const version = readVersion(end.stdout)
  known = { version, at: performance.now() }
  return version
}

/** Throws SYNC_TRANSFER_TOOL when it is none, or one that is too old. */
export function readVersion(text: string): RsyncVersion {
  const found = /^rsync\s+version v?(\d+)\.(\d+)(?:\.(\d+))?/.exec(text)
  if (found === null) {
    const said = text.split('\n')[0]?.slice(0, 100) || 'nothing'
    throw new SynclineError(
      'SYNC_TRANSFER_TOOL',
      `the rsync of this machine is not the one of rsync.samba.org: it says ${said}`,
    )
  }
  const version: RsyncVersion = [Number(found[1]), Number(found[2]), Number(found[3] ?? 0)]
  if (atLeast(version, VERSION_LEAST)) return version
  const detail = `the rsync of this machine is ${version.join('.')}; ${VERSION_LEAST.join('.')} or newer is needed`
  throw new SynclineError('SYNC_TRANSFER_TOOL', detail)
}

/** Runs one command line of rsync. Throws SYNC_TRANSFER_… for every end that is neither a success nor a warning. */
export async function runRsync(
  argv: readonly [string, ...string[]],
  leg: Leg,
  { signal, report }: { readonly signal: AbortSignal; readonly report: (report: Report) => void },
): Promise<RsyncEnd> {
  const totals: { -readonly [name in keyof Totals]?: number } = {}
  let moved = false
  const reader = createReader((each) => {
    if (each.kind === 'progress') moved = true
    if (each.kind === 'total') totals[each.name] = each.value
    else report(each)
  })
  const end = await runProgram(argv, { signal, onOutput: reader.write })
  reader.end()
  if (end.aborted) throw new SynclineError('SYNC_TRANSFER_STOPPED', 'rsync was stopped; what was copied so far stays')
  const { severity, text } = exitCode(end.code)
  const said = lastLines(end.stderr.replaceAll(/^rsync (?:error|warning): .* \(code \d+\) at .*$/gm, ''), 3)
  const told = said === '' ? text : `${text}: ${said}`
  if (severity === 'success') return { severity, text: said, totals }
  if (severity === 'warning') return { severity, text: told, totals }
  throw failure(moved && severity === 'again' ? 'broken' : severity, told, end, leg)
}

function failure(
  severity: 'again' | 'broken' | 'error' | 'brake',
  text: string,
  { stderr }: ProgramEnd,
  { host }: Leg,
): SynclineError {
  if (severity === 'brake') return new SynclineError('SYNC_TRANSFER_BRAKED', text)
  // What has begun to move was let in.
  if (severity === 'broken') return new SynclineError('SYNC_TRANSFER_INTERRUPTED', text)
  if (host !== undefined) {
    const saying = sshSaying(stderr, hostLabel(host))
    if (saying !== undefined) return saying
    // A server side that is restricted to a folder says why it refuses.
    const refused = /rrsync error: (.*)/.exec(stderr)
    if (refused !== null)
      return new SynclineError(
        'SYNC_TRANSFER_DENIED',
        `${hostLabel(host)} is restricted and refuses: ${refused[1]?.trim()}`,
      )
  }
  return new SynclineError(severity === 'again' ? 'SYNC_TRANSFER_INTERRUPTED' : 'SYNC_TRANSFER_FAILED', text)
}
