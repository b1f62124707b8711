import { join } from 'node:path'
import {
  confirmedKeys,
  createLockFiles,
  createSsh,
  LOCK_FILE_SCHEMA,
  type LockFile,
  lockFileFaults,
  lockFileLabel,
  planTransfer,
  runTransfer,
  type SshHost,
  scanHost,
  TRANSFER_SCHEMA,
  type Transfer,
  type TransferResult,
  transferFaults,
  type Upload,
} from './adapters/index.ts'
import type { HostLease, StepHandler } from './jobs/index.ts'
import { listHostKeys, type Store, trustHostKeys } from './store/index.ts'
import { uploadStep } from './upload.ts'

/** What the rest of the site needs for copying files between hosts: a kind of step, a kind of lease, and the trust in hosts. */
export type TransferParts = {
  readonly step: StepHandler<Transfer>
  readonly upload: StepHandler<Upload>
  readonly lockFile: HostLease<LockFile>
  readonly scanHost: (host: SshHost) => ReturnType<typeof scanHost>
  /** From now on the host is believed with the keys of these fingerprints, which it must show now, and with no other. */
  readonly trustHost: (host: SshHost, fingerprints: readonly string[], by: string | null) => ReturnType<typeof scanHost>
}

/** `dataDir`: the data folder, where ssh finds what it reads. */
export function transferParts({ store, dataDir }: { readonly store: Store; readonly dataDir: string }): TransferParts {
  const trusted = () => listHostKeys(store.db)
  const ssh = createSsh({ folder: join(dataDir, 'ssh'), hostKeys: trusted })
  const scan = async (host: SshHost) => scanHost({ ssh, trusted: await trusted() }, host)
  return {
    step: transferStep({ ssh, now: Date.now }),
    upload: uploadStep(ssh),
    lockFile: lockFileLease(ssh),
    scanHost: scan,
    trustHost: async (host, fingerprints, by) => {
      const keys = await confirmedKeys({ ssh, trusted: await trusted() }, host, fingerprints)
      await trustHostKeys(store.db, keys, by)
      return scan(host)
    },
  }
}

type Deps = Parameters<typeof planTransfer>[0]

/** `{ transfer: { from, to, … } }`: files by rsync. */
function transferStep(deps: Deps): StepHandler<Transfer> {
  return {
    kind: 'transfer',
    schema: {
      ...TRANSFER_SCHEMA,
      description: 'Copies files with rsync, on this machine or between it and another host',
    },
    check: transferFaults,
    // What was copied stays, and the rest is copied.
    repeatable: () => true,
    plan: async (transfer, { signal }) => {
      const legs = await planTransfer(deps, transfer, { signal })
      const sum = (pick: (leg: (typeof legs)[number]) => number) => legs.reduce((all, leg) => all + pick(leg), 0)
      const [files, bytes, deleted] = [sum((leg) => leg.files), sum((leg) => leg.bytes), sum((leg) => leg.deleted)]
      return {
        summary: `would copy ${amount(files)} (${bytes} bytes)${deleted === 0 ? '' : ` and delete ${deleted}`}`,
        argv: legs.map(({ argv }) => argv),
        files,
        bytes,
        notes: legs.flatMap(({ from, to, names }) => [`${from.join(', ')} → ${to}`, ...names]),
      }
    },
    run: async (transfer, { signal, say, progress }) => {
      const { counts, warnings, manifests } = await runTransfer(deps, transfer, { signal, say, progress })
      for (const each of manifests) say(`sha256 of the manifest: ${each}`)
      const message = [...warnings, summaryOf(counts)].join('; ')
      return { result: warnings.length === 0 ? 'success' : 'warning', message, counts }
    },
  }
}

/** `{ file: { path, host, … } }`: a lock file, as a lease or a gate. */
function lockFileLease(ssh: ReturnType<typeof createSsh>): HostLease<LockFile> {
  return {
    kind: 'file',
    schema: LOCK_FILE_SCHEMA,
    check: lockFileFaults,
    label: (where) => `file ${lockFileLabel(where)}`,
    ...createLockFiles(ssh),
  }
}

function summaryOf(counts: TransferResult['counts']): string {
  const { files, bytes, found, deleted, verified, size, sent, received } = counts
  const parts = [
    `${files} of ${amount(found)} copied (${bytes} bytes)`,
    ...(deleted === 0 ? [] : [`${deleted} deleted`]),
    ...(verified === 0 ? [] : [`${verified} verified`]),
    ...(sent + received === 0 ? [] : [`speed-up ${(size / (sent + received)).toFixed(2)}`]),
  ]
  return parts.join(', ')
}

function amount(files: number): string {
  return `${files} ${files === 1 ? 'file' : 'files'}`
}
