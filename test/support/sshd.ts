/**
 * Hosts with a real SSH server, each on an address of 127/8 with a user, a folder and keys of its own; no state of the machine is used or
 * changed. As root the servers run as a user that is not (they could do more than a real host lets anybody do).
 *
 *     const hosts = await startHosts(t, ['backup01', 'backup-remote'])
 *     hosts['backup01'].ssh    // { host, port, user, key }: how a definition names it
 *     hosts['backup01'].dir    // a folder of that host
 */
import { type ChildProcess, execFileSync, spawn } from 'node:child_process'
import {
  chmodSync,
  chownSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  writeFileSync,
} from 'node:fs'
import { tmpdir, userInfo } from 'node:os'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { plainEnvironment } from './environment.ts'
import { freePort, type Owner } from './postgres.ts'

export type TestHost = {
  readonly name: string
  /** How a definition names it. */
  readonly ssh: { readonly host: string; readonly port: number; readonly user: string; readonly key: string }
  /** Folder of this host, open to the user that it runs as. */
  readonly dir: string
  /** Its public keys, as a person would have confirmed them. */
  readonly hostKey: { readonly host: string; readonly port: number; readonly type: string; readonly key: string }
  /** Lets a key in only under conditions, such as `restrict,command="…"`; gives the path of that key. */
  readonly addKey: (conditions: string) => string
  /** Makes the host prove itself with another key from now on. */
  readonly changeHostKey: () => Promise<void>
  /** Ends the server and cuts every connection to it. */
  readonly stop: () => Promise<void>
  readonly start: () => Promise<void>
  /** Runs a program as the user of the host. */
  readonly run: (file: string, ...args: string[]) => string
}

type Account = { readonly uid: number; readonly gid: number; readonly name: string }

/** Starts hosts that live until the teardown of `t`; each on an address of its own, so that they are different hosts to ssh. */
export async function startHosts<Name extends string>(
  t: Owner,
  names: readonly Name[],
): Promise<Record<Name, TestHost>> {
  const account = hostAccount()
  const home = mkdtempSync(join(tmpdir(), 'syncline-hosts-'))
  chmodSync(home, 0o755)
  const ends: (() => Promise<void>)[] = []
  t.teardown(async () => {
    for (const end of ends) await end()
    rmSync(home, { recursive: true, force: true })
  })
  const hosts: [Name, TestHost][] = []
  for (const [index, name] of names.entries()) {
    const host = await startHost(join(home, name), name, `127.0.${50 + (process.pid % 200)}.${10 + index}`, account)
    ends.push(host.stop)
    hosts.push([name, host])
  }
  return Object.fromEntries(hosts) as Record<Name, TestHost>
}

/** Program of OpenSSH's server, which an ordinary user's PATH does not have. */
export function sshdPath(): string {
  const found = ['/usr/sbin', '/usr/local/sbin', '/sbin', '/usr/bin', '/opt/homebrew/sbin'].find((folder) =>
    existsSync(join(folder, 'sshd')),
  )
  if (found === undefined) throw new Error('No sshd on this machine: apt-get install openssh-server')
  return join(found, 'sshd')
}

async function startHost(home: string, name: string, address: string, account: Account): Promise<TestHost> {
  const dir = join(home, 'data')
  for (const folder of [home, dir]) mkdirSync(folder)
  const own = (path: string) => chownSync(path, account.uid, account.gid)
  for (const folder of [home, dir]) own(folder)
  // Of a client: it belongs to whoever runs the tests.
  const key = makeKey(join(home, 'client-key'))
  const authorized = join(home, 'authorized_keys')
  writeFileSync(authorized, readFileSync(`${key}.pub`))
  own(authorized)
  const hostKeyFile = join(home, 'host-key')
  const makeHostKey = () => {
    for (const file of [hostKeyFile, `${hostKeyFile}.pub`]) rmSync(file, { force: true })
    for (const file of [makeKey(hostKeyFile), `${hostKeyFile}.pub`]) own(file)
  }
  makeHostKey()
  const port = await freePort()
  const config = join(home, 'sshd_config')
  const lines = [
    `Port ${port}`,
    `ListenAddress ${address}`,
    `HostKey ${hostKeyFile}`,
    `PidFile ${join(home, 'sshd.pid')}`,
    `AuthorizedKeysFile ${authorized}`,
    'UsePAM no',
    'Subsystem sftp internal-sftp',
    'StrictModes no',
    'PasswordAuthentication no',
    'MaxStartups 200:30:300',
    'MaxSessions 100',
    'LogLevel ERROR',
  ]
  writeFileSync(config, `${lines.join('\n')}\n`)

  let server: ChildProcess | undefined
  const start = async () => {
    const started = spawn(sshdPath(), ['-D', '-e', '-f', config], {
      uid: account.uid,
      gid: account.gid,
      cwd: '/',
      env: plainEnvironment({ HOME: home, USER: account.name, LOGNAME: account.name }),
      detached: true,
      stdio: ['ignore', 'ignore', 'pipe'],
    })
    let said = ''
    started.stderr.on('data', (data: Buffer) => {
      said = (said + data.toString()).slice(-4000)
    })
    server = started
    for (let tries = 0; !(await answers(address, port)); tries++) {
      if (started.exitCode !== null || tries === 3_000) throw new Error(`sshd of ${name} did not start:\n${said}`)
      await sleep(20)
    }
  }
  const stop = async () => {
    const running = server
    server = undefined
    if (running?.pid === undefined || running.exitCode !== null || running.signalCode !== null) return
    const ended = new Promise<void>((resolve) => running.once('exit', () => resolve()))
    for (const pid of family(running.pid)) kill(pid)
    await ended
  }
  await start()

  let serial = 0
  const [type = '', publicKey = ''] = readFileSync(`${hostKeyFile}.pub`, 'utf8').split(' ')
  return {
    name,
    ssh: { host: address, port, user: account.name, key },
    dir,
    hostKey: { host: address, port, type, key: publicKey.trim() },
    addKey: (conditions) => {
      const file = makeKey(join(home, `client-key-${++serial}`))
      const line = readFileSync(`${file}.pub`, 'utf8')
      writeFileSync(authorized, `${readFileSync(authorized, 'utf8')}${conditions} ${line}`)
      return file
    },
    changeHostKey: async () => {
      await stop()
      makeHostKey()
      await start()
    },
    stop,
    start,
    run: (file, ...args) =>
      execFileSync(file, args, { uid: account.uid, gid: account.gid, cwd: '/', encoding: 'utf8', stdio: 'pipe' }),
  }
}

/** Makes a key without a passphrase and gives its path. */
function makeKey(path: string): string {
  execFileSync('ssh-keygen', ['-q', '-t', 'ed25519', '-N', '', '-C', 'test', '-f', path])
  return path
}

/** The user that the servers run as, and that one logs in as: a server that is not root's knows no other. */
function hostAccount(): Account {
  const { uid, gid, username } = userInfo()
  if (uid !== 0) return { uid, gid, name: username }
  for (const line of readFileSync('/etc/passwd', 'utf8').split('\n')) {
    const [name = '', , id, group, , , shell = ''] = line.split(':')
    // One that can log in: its shell runs what is asked for.
    if (id !== '0' && /\/(?:bash|sh|dash|zsh)$/.test(shell)) return { uid: Number(id), gid: Number(group), name }
  }
  throw new Error('This machine has no user but root that can log in: PostgreSQL brings one')
}

/** Every process of this machine, as the kernel shows it: not every machine has ps. */
export function processes(): readonly { readonly pid: number; readonly parent: number; readonly args: string }[] {
  return readdirSync('/proc')
    .filter((name) => /^\d+$/.test(name))
    .flatMap((name) => {
      try {
        const args = readFileSync(`/proc/${name}/cmdline`, 'utf8').replaceAll('\0', ' ').trim()
        // The name stands in brackets and may have spaces.
        const [, parent = '0'] = /\) \S (\d+) /.exec(readFileSync(`/proc/${name}/stat`, 'utf8')) ?? []
        return [{ pid: Number(name), parent: Number(parent), args }]
      } catch {
        // It has ended meanwhile.
        return []
      }
    })
}

/** A server and its connections, the youngest first. What they run for others sees its connection end, as it does when a line is cut. */
function family(pid: number): readonly number[] {
  const children = Map.groupBy(processes(), ({ parent }) => parent)
  const below = (id: number): number[] => [
    ...(children.get(id) ?? []).filter(({ args }) => args.includes('sshd')).flatMap((child) => below(child.pid)),
    id,
  ]
  return below(pid)
}

function kill(pid: number): void {
  try {
    process.kill(pid, 'SIGKILL')
  } catch {
    // It has ended by itself.
  }
}

async function answers(host: string, port: number): Promise<boolean> {
  const { connect } = await import('node:net')
  return new Promise((resolve) => {
    const socket = connect(port, host)
    socket.once('connect', () => resolve(true)).once('error', () => resolve(false))
    socket.once('connect', () => socket.destroy())
  })
}
