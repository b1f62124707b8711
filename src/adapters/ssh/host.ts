import type { Fault } from '../fault.ts'

/** A host that is reached by OpenSSH. */
export type SshHost = {
  /** Name or address. */
  readonly host: string
  readonly user?: string
  readonly port?: number
  /** Path of the private key on the machine of this site; default the keys of its user. */
  readonly key?: string
  /** Host over which this one is reached. */
  readonly jump?: SshHost
}

export const SSH_PORT = 22
const JUMPS_MAX = 3
const NAME = /^[A-Za-z0-9_](?:[A-Za-z0-9._-]{0,252}[A-Za-z0-9_.])?$/
const ADDRESS_6 = /^(?=.*:)[0-9A-Fa-f:.]{2,45}$/
const USER = /^[A-Za-z0-9_][A-Za-z0-9._-]{0,63}$/
// biome-ignore lint/suspicious/noControlCharactersInRegex: these are what is looked for.
export const CONTROL = /[\u0000-\u001f\u007f]/

const members = {
  host: { type: 'string', description: 'Name or address of a host that is reached by ssh' },
  user: { type: 'string', description: 'User to log in as; default the user that runs this site' },
  port: { type: 'integer', minimum: 1, maximum: 65535, description: 'Port of its SSH server; default 22' },
  key: {
    type: 'string',
    description: 'Path of the private key on the machine of this site; default the keys of its user',
  },
}

const withoutJump = { type: 'object', additionalProperties: false, required: ['host'], properties: members }

/** Members of a JSON Schema that name a host. */
export const HOST_MEMBERS = {
  ...members,
  jump: {
    ...withoutJump,
    description: 'Host over which this one is reached',
    properties: {
      ...members,
      jump: { ...withoutJump, description: 'Host over which the jump host is reached' },
    },
  },
}

/** What is wrong with a host: nothing of it may be read as an option, a second host or a line of the configuration of ssh. */
export function hostFaults(host: SshHost, path: string, depth = 0): Fault[] {
  const faults: Fault[] = []
  if (!NAME.test(host.host) && !ADDRESS_6.test(host.host))
    faults.push({ path: `${path}/host`, message: 'is not a host name or an address' })
  if (host.user !== undefined && !USER.test(host.user))
    faults.push({
      path: `${path}/user`,
      message: 'may have letters, digits, dots, underscores and dashes, and begin with no dash',
    })
  if (host.key !== undefined && !isPlainPath(host.key))
    faults.push({
      path: `${path}/key`,
      message: 'must be an absolute path without quotes, dollar signs or control characters',
    })
  if (host.jump === undefined) return faults
  if (depth + 1 >= JUMPS_MAX)
    return [...faults, { path: `${path}/jump`, message: `goes over more than ${JUMPS_MAX - 1} hosts` }]
  return [...faults, ...hostFaults(host.jump, `${path}/jump`, depth + 1)]
}

/** A path that the configuration of ssh takes as it is. */
function isPlainPath(path: string): boolean {
  return path.startsWith('/') && !/["'\\$]/.test(path) && !CONTROL.test(path)
}

/** The name of the host in commands: what stands before the colon of a remote path, which an IPv6 address must not be. */
export function aliasOf({ host }: SshHost): string {
  return host.includes(':') ? `ipv6-${host.replaceAll(':', '-')}` : host
}

/** `user@host:port` for people, and alike for all who mean the same. */
export function hostLabel({ host, user, port = SSH_PORT }: SshHost): string {
  return `${user === undefined ? '' : `${user}@`}${host}${port === SSH_PORT ? '' : `:${port}`}`
}

export type SshLimits = {
  /** A connection must stand within so many seconds. */
  readonly connectSeconds: number
}

/**
 * A configuration for `ssh -F`, complete in itself: nothing is read from the user's or the system's one, nobody is asked, and only pinned host
 * keys are accepted. `file` is where it will stand: a jump host needs it again.
 */
export function sshConfig(
  host: SshHost,
  { file, knownHosts, connectSeconds }: SshLimits & { readonly file: string; readonly knownHosts: string },
): string {
  const blocks: string[] = []
  let alias = aliasOf(host)
  for (let each: SshHost | undefined = host, hop = 1; each !== undefined; each = each.jump, hop++) {
    const next = each.jump === undefined ? undefined : `hop-${hop}`
    blocks.push(
      [
        `Host ${alias}`,
        `HostName ${each.host}`,
        `Port ${each.port ?? SSH_PORT}`,
        ...(each.user === undefined ? [] : [`User ${each.user}`]),
        ...(each.key === undefined ? [] : [`IdentityFile "${percent(each.key)}"`, 'IdentitiesOnly yes']),
        ...(next === undefined ? [] : [`ProxyCommand ssh -F ${shellQuote(percent(file))} -W "[%h]:%p" ${next}`]),
      ].join('\n  '),
    )
    alias = next ?? ''
  }
  const common = [
    'Host *',
    'BatchMode yes',
    'StrictHostKeyChecking yes',
    `UserKnownHostsFile "${percent(knownHosts)}"`,
    'GlobalKnownHostsFile /dev/null',
    'UpdateHostKeys no',
    'PasswordAuthentication no',
    'KbdInteractiveAuthentication no',
    `ConnectTimeout ${connectSeconds}`,
    'ConnectionAttempts 1',
    'ServerAliveInterval 15',
    'ServerAliveCountMax 4',
    'TCPKeepAlive yes',
    'ForwardAgent no',
    'ForwardX11 no',
    'ClearAllForwardings yes',
    'PermitLocalCommand no',
    'ControlPath none',
    'RequestTTY no',
    'EscapeChar none',
    'LogLevel ERROR',
  ].join('\n  ')
  return `${[...blocks, common].join('\n')}\n`
}

/** ssh replaces what follows a per cent sign. */
function percent(text: string): string {
  return text.replaceAll('%', '%%')
}

/** As one word for /bin/sh. */
export function shellQuote(text: string): string {
  return `'${text.replaceAll("'", `'\\''`)}'`
}
