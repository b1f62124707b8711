import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { type ArgvSettings, buildArgv } from './argv.ts'
import { REPORT_ITEMS } from './progress.ts'
import { runRsync } from './rsync.ts'
import { hostOf, type Leg, type Place, type Transfer } from './transfer-settings.ts'

/** A file as the rules of a transfer let it through. */
export type Listed = { readonly name: string; readonly size: number }

/**
 * The files of one source that the transfer would copy to an empty folder: what rsync itself says, so that rules mean the same. Names are as they
 * will stand below the destination.
 */
export async function listSource(
  transfer: Transfer,
  source: Place,
  settings: Omit<ArgvSettings, 'more'>,
  signal: AbortSignal,
): Promise<readonly Listed[]> {
  const empty = await mkdtemp(join(tmpdir(), 'syncline-empty-'))
  try {
    const host = hostOf(source)
    const leg: Leg = { sources: [source], destination: `${empty}/`, ...(host !== undefined && { host }) }
    const files: Listed[] = []
    const argv = buildArgv(transfer, leg, { ...settings, more: ['--dry-run', ...REPORT_ITEMS] })
    await runRsync(argv, leg, {
      signal,
      report: (report) => {
        if (report.kind === 'item' && report.change[1] === 'f') files.push({ name: report.name, size: report.bytes })
      },
    })
    return files
  } finally {
    await rm(empty, { recursive: true, force: true })
  }
}
