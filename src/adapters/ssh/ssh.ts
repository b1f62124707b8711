import { createHash } from 'node:crypto'
import { mkdir, readdir, readFile, rename, rm, stat, utimes, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { SynclineError } from '../../sync/index.ts'
import { type ProgramEnd, runProgram } from '../process/program.ts'
import { sshFailure } from './failure.ts'
import { aliasOf, hostLabel, SSH_PORT, type SshHost, sshConfig } from './host.ts'
import { type HostKey, keysInText, knownHostsText } from './known-hosts.ts'

export type SshSettings = {
  /** Folder for what ssh reads; made when it is missing. */
  readonly folder: string
  /** The keys that hosts have proved themselves with, as a person confirmed them. */
  readonly hostKeys: () => Promise<readonly HostKey[]>
}

/** How a host is called from a command line. */
export type Route = {
  /** The host, as the configuration knows it. */
  readonly alias: string
  /** Path of the configuration for `ssh -F`. */
  readonly config: string
}

export type ScriptOptions = { readonly signal?: AbortSignal; readonly timeoutMs?: number }

export type Ssh = {
  /** Writes down how to reach the host. */
  readonly route: (host: SshHost, connectSeconds?: number) => Promise<Route>
  /**
   * Runs a script with /bin/sh on the host, or here without one. The script and everything in it goes over standard input, so that no login
   * shell looks at it. Gives what it wrote; throws SYNC_TRANSFER_… when the host cannot be reached or the script fails.
   */
  readonly script: (host: SshHost | undefined, text: string, options?: ScriptOptions) => Promise<string>
  /** The keys that the host shows now. Nothing is sent to it. */
  readonly scan: (host: SshHost, options?: ScriptOptions) => Promise<readonly HostKey[]>
}

export const CONNECT_SECONDS = 20
const SCRIPT_TIMEOUT_MS = 60_000
const SCAN_SECONDS = 10
/** Files of hosts that nobody has named for so long are removed. */
const UNUSED_MS = 7 * 86_400_000

export function createSsh({ folder, hostKeys }: SshSettings): Ssh {
  const write = async (name: string, content: string) => {
    const file = join(folder, name)
    const now = new Date()
    // Named by its content: what is there already is right.
    if (await utimes(file, now, now).then(always, never)) return
    await mkdir(folder, { recursive: true, mode: 0o700 })
    await removeUnused(folder)
    const fresh = `${file}.${process.pid}.${Math.random().toString(36).slice(2)}`
    await writeFile(fresh, content, { mode: 0o600 })
    await rename(fresh, file)
  }

  const route = async (host: SshHost, connectSeconds = CONNECT_SECONDS): Promise<Route> => {
    const known = knownHostsText(await hostKeys())
    const knownName = `known-hosts-${nameOf(known)}`
    await write(knownName, known)
    const knownHosts = join(folder, knownName)
    const name = `ssh-${nameOf(JSON.stringify([host, connectSeconds, knownName]))}`
    const config = join(folder, name)
    await write(name, sshConfig(host, { file: config, knownHosts, connectSeconds }))
    return { alias: aliasOf(host), config }
  }

  return {
    route,
    script: async (host, text, { signal, timeoutMs = SCRIPT_TIMEOUT_MS } = {}) => {
      const options = { timeoutMs, input: text, signal }
      if (host === undefined) return outputOf(await runProgram(['/bin/sh', '-s'], options), 'this host')
      const { alias, config } = await route(host)
      const end = await runProgram(['ssh', '-F', config, '--', alias, '/bin/sh -s'], options)
      return outputOf(end, hostLabel(host))
    },
    scan: async (host, { signal } = {}) => {
      const port = host.port ?? SSH_PORT
      const options = { timeoutMs: 3 * SCAN_SECONDS * 1000, signal }
      if (host.jump === undefined) {
        const argv: [string, ...string[]] = [
          'ssh-keyscan',
          '-T',
          String(SCAN_SECONDS),
          '-p',
          String(port),
          '--',
          host.host,
        ]
        const { stdout, stderr } = await runProgram(argv, options)
        return found(keysInText(stdout, host.host, port), host, stderr)
      }
      return scanOverJump(host, port, { ...options, folder, route })
    },
  }
}

/** ssh-keyscan goes over no jump host: ssh itself is let note the key in a file of its own, before it would log in. */
async function scanOverJump(
  host: SshHost,
  port: number,
  given: Pick<SshSettings, 'folder'> &
    Pick<Ssh, 'route'> & { readonly timeoutMs: number; readonly signal: AbortSignal | undefined },
): Promise<readonly HostKey[]> {
  const { folder, route, timeoutMs, signal } = given
  const { alias, config } = await route(host)
  const noted = join(folder, `scan-${process.pid}-${Math.random().toString(36).slice(2)}`)
  const options = [
    'StrictHostKeyChecking=accept-new',
    `UserKnownHostsFile="${noted.replaceAll('%', '%%')}"`,
    'PreferredAuthentications=none',
    'HashKnownHosts=no',
  ].flatMap((option) => ['-o', option])
  try {
    const argv: [string, ...string[]] = ['ssh', '-F', config, ...options, '--', alias, 'true']
    const { stderr } = await runProgram(argv, { timeoutMs, signal })
    const text = await readFile(noted, 'utf8').catch(() => '')
    return found(keysInText(text, host.host, port), host, stderr)
  } finally {
    await rm(noted, { force: true })
  }
}

function found(keys: readonly HostKey[], host: SshHost, stderr: string): readonly HostKey[] {
  if (keys.length > 0) return keys
  const said = stderr
    .split('\n')
    .filter((line) => line !== '' && !line.startsWith('#'))
    .slice(-1)
  const detail = `${hostLabel(host)} shows no host key: ${said.join('') || 'nobody answers there'}`
  throw new SynclineError('SYNC_TRANSFER_UNREACHABLE', detail)
}

function outputOf(end: ProgramEnd, where: string): string {
  if (end.code === 0) return end.stdout
  throw sshFailure(end, where)
}

function nameOf(content: string): string {
  return createHash('sha256').update(content).digest('hex').slice(0, 16)
}

async function removeUnused(folder: string): Promise<void> {
  const before = Date.now() - UNUSED_MS
  for (const name of await readdir(folder)) {
    const file = join(folder, name)
    const age = await stat(file).catch(() => undefined)
    if (age !== undefined && age.mtimeMs < before) await rm(file, { force: true })
  }
}

const always = () => true
const never = () => false
