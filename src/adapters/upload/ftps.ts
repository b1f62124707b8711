import { readFile } from 'node:fs/promises'
import { type ErrorCode, SynclineError } from '../../sync/index.ts'
import { type ProgramEnd, runProgram } from '../process/program.ts'
import { lastLines } from '../ssh/failure.ts'
import type { FtpsPlace } from './settings.ts'
import { type Outgoing, temporaryName } from './sftp.ts'

const CONNECT_SECONDS = 20
/** A connection that moves less than a byte in a second for so long has broken off. */
const IDLE_SECONDS = 120

/** What curl says by its exit code. */
const ENDS: Readonly<Record<number, readonly [ErrorCode, string]>> = {
  6: ['SYNC_TRANSFER_UNREACHABLE', 'its name is not known'],
  7: ['SYNC_TRANSFER_UNREACHABLE', 'it cannot be reached'],
  9: ['SYNC_TRANSFER_DENIED', 'the folder there cannot be entered'],
  18: ['SYNC_TRANSFER_INTERRUPTED', 'the transfer broke off'],
  25: ['SYNC_TRANSFER_DENIED', 'it does not take the file'],
  28: ['SYNC_TRANSFER_UNREACHABLE', 'it did not answer in time'],
  35: ['SYNC_TRANSFER_UNTRUSTED', 'no encryption could be agreed on'],
  51: ['SYNC_TRANSFER_UNTRUSTED', 'its certificate is for another host'],
  55: ['SYNC_TRANSFER_INTERRUPTED', 'the transfer broke off'],
  56: ['SYNC_TRANSFER_INTERRUPTED', 'the transfer broke off'],
  58: ['SYNC_TRANSFER_UNTRUSTED', 'the certificate cannot be used'],
  60: ['SYNC_TRANSFER_UNTRUSTED', 'its certificate is not of an authority that is trusted'],
  64: ['SYNC_TRANSFER_UNTRUSTED', 'it speaks no TLS'],
  67: ['SYNC_TRANSFER_DENIED', 'it does not let this account in'],
  77: ['SYNC_TRANSFER_UNTRUSTED', 'the file of authorities cannot be read'],
}

/**
 * Gives files by the curl of the machine, always encrypted and to a host whose certificate is checked. Each grows under a temporary name and gets its
 * own when it is complete. The password goes over standard input: no list of processes shows it. Throws SYNC_TRANSFER_…
 */
export async function giveByFtps(
  place: FtpsPlace,
  files: readonly Outgoing[],
  {
    signal,
    given,
    program = 'curl',
  }: {
    readonly signal: AbortSignal
    readonly given: (file: Outgoing) => Promise<void>
    readonly program?: string
  },
): Promise<void> {
  const password = await readFile(place.passwordFile, 'utf8').catch((cause: unknown) => {
    throw new SynclineError('SYNC_TRANSFER_DENIED', `the password in ${place.passwordFile} cannot be read`, { cause })
  })
  for (const each of files) {
    signal.throwIfAborted()
    await giveOne(place, password.replace(/\r?\n$/, ''), each, { signal, program })
    await given(each)
  }
}

async function giveOne(
  place: FtpsPlace,
  password: string,
  { file, name }: Outgoing,
  { signal, program }: { readonly signal: AbortSignal; readonly program: string },
): Promise<void> {
  const { host, port, user, tls = 'explicit', caFile } = place
  const temporary = temporaryName(name)
  const last = (path: string) => path.slice(path.lastIndexOf('/') + 1)
  const lines = [
    `url = ${quoted(addressOf(place, temporary))}`,
    `upload-file = ${quoted(file)}`,
    `user = ${quoted(`${user}:${password}`)}`,
    `connect-timeout = ${CONNECT_SECONDS}`,
    `speed-limit = 1`,
    `speed-time = ${IDLE_SECONDS}`,
    'proto = "=ftp,ftps"',
    'ssl-reqd',
    'ftp-create-dirs',
    'silent',
    'show-error',
    // curl stands in the folder of the file; some hosts give no name that another file has.
    `quote = ${quoted(`-*DELE ${last(name)}`)}`,
    `quote = ${quoted(`-RNFR ${last(temporary)}`)}`,
    `quote = ${quoted(`-RNTO ${last(name)}`)}`,
    ...(caFile === undefined ? [] : [`cacert = ${quoted(caFile)}`]),
  ]
  const label = `${host}${port === undefined ? '' : `:${port}`}${tls === 'implicit' ? ' (implicit TLS)' : ''}`
  let end: ProgramEnd
  try {
    end = await runProgram([program, '--disable', '--config', '-'], { signal, input: `${lines.join('\n')}\n` })
  } catch (cause) {
    signal.throwIfAborted()
    throw new SynclineError(
      'SYNC_TRANSFER_TOOL',
      'there is no curl on the machine of this site, which gives files by FTPS: install it, or use SFTP',
      { cause },
    )
  }
  if (end.code === 0) return
  if (end.aborted) throw new SynclineError('SYNC_TRANSFER_STOPPED', `the work on ${label} was stopped`)
  const [code, words] = ENDS[end.code ?? -1] ?? ['SYNC_TRANSFER_FAILED', 'it failed']
  throw new SynclineError(
    code,
    `${label}: ${name}: ${words}: ${lastLines(end.stderr, 2) || `curl ended with ${end.code ?? end.signal}`}`,
  )
}

function addressOf({ host, port, tls, path }: FtpsPlace, name: string): string {
  const scheme = tls === 'implicit' ? 'ftps' : 'ftp'
  // Two slashes mean the root; each part as it is called, whatever characters it has.
  const parts = `${path.replace(/\/+$/, '')}/${name}`.split('/')
  const encoded = parts.map(encodeURIComponent).join('/')
  const from = path.startsWith('/') ? `%2F${encoded.slice(1)}` : encoded
  return `${scheme}://${host}${port === undefined ? '' : `:${port}`}/${from}`
}

/** As the configuration of curl reads it. */
function quoted(text: string): string {
  return `"${text.replace(/[\\"]/g, '\\$&')}"`
}
