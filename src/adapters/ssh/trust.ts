import { SynclineError } from '../../sync/index.ts'
import { hostFaults, hostLabel, SSH_PORT, type SshHost } from './host.ts'
import { fingerprint, type HostKey } from './known-hosts.ts'
import type { Ssh } from './ssh.ts'

/** A key that a host shows, and whether it is trusted. */
export type ShownKey = HostKey & { readonly fingerprint: string; readonly trusted: boolean }

/** The keys that a host shows now. Errors: SYNC_TRANSFER_INVALID, SYNC_TRANSFER_UNREACHABLE. */
export async function scanHost(
  { ssh, trusted }: { readonly ssh: Ssh; readonly trusted: readonly HostKey[] },
  host: SshHost,
): Promise<readonly ShownKey[]> {
  const faults = hostFaults(host, '')
  if (faults.length > 0) {
    const detail = faults.map(({ path, message }) => `${path.slice(1)} ${message}`).join('\n')
    throw new SynclineError('SYNC_TRANSFER_INVALID', detail)
  }
  const shown = await ssh.scan(host)
  const known = new Set(trusted.map(nameOf))
  return shown.map((each) => ({ ...each, fingerprint: fingerprint(each.key), trusted: known.has(nameOf(each)) }))
}

/**
 * The keys of a host that have one of the fingerprints, as it shows them at this moment: what a person compared is what is trusted. Errors:
 * SYNC_TRANSFER_UNTRUSTED when it shows none of them.
 */
export async function confirmedKeys(
  deps: { readonly ssh: Ssh; readonly trusted: readonly HostKey[] },
  host: SshHost,
  fingerprints: readonly string[],
): Promise<readonly ShownKey[]> {
  const shown = await scanHost(deps, host)
  const missing = fingerprints.filter((each) => !shown.some((key) => key.fingerprint === each))
  if (missing.length === 0 && fingerprints.length > 0)
    return shown.filter((key) => fingerprints.includes(key.fingerprint))
  const has = shown.map(({ type, fingerprint }) => `${fingerprint} (${type})`).join(', ')
  throw new SynclineError(
    'SYNC_TRANSFER_UNTRUSTED',
    `${hostLabel(host)} does not show ${missing.join(', ') || 'a named key'}; it shows ${has}`,
  )
}

function nameOf({ host, port = SSH_PORT, type, key }: HostKey): string {
  return [host, port, type, key].join(' ')
}
