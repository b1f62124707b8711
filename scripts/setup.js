// Brings what a fresh clone lacks: Node 24, the locked dependencies, the system's own programs. Plain JavaScript without dependencies,
// because it runs on the Node that the machine has (18 or newer), before anything is installed.
import { spawn, spawnSync } from 'node:child_process'
import { existsSync, mkdirSync, readdirSync, rmSync, statSync, writeFileSync } from 'node:fs'
import { delimiter, dirname, join } from 'node:path'
import { fileURLToPath } from 'node:url'

/** Folder of the checkout. */
export const ROOT = dirname(dirname(fileURLToPath(import.meta.url)))

/** Oldest Node that runs the program, and the one that is brought when the machine has only an older one. */
const NODE_MAJOR = 24
const NODE_BROUGHT = '24.21.0'
const TOOLCHAIN = join(ROOT, '.toolchain')

/** Says what is being done, one line a step, beside the output of the program itself. */
export function say(text) {
  process.stderr.write(`- ${text}\n`)
}

/** Ends the process with a message for the person in front of it. */
export function fail(text, code = 1) {
  process.stderr.write(`\n${text}\n`)
  process.exit(code)
}

/**
 * Runs a program to its end and resolves with its exit code. `quiet` keeps its output back and shows it only when it fails.
 * It ends as the program ends: Ctrl-C at the terminal reaches both, other signals are passed on.
 */
export async function run(file, args, { cwd = ROOT, env = process.env, quiet = false } = {}) {
  const child = spawn(file, args, { cwd, env, stdio: quiet ? ['ignore', 'pipe', 'pipe'] : 'inherit' })
  const output = []
  for (const stream of [child.stdout, child.stderr]) stream?.on('data', (data) => output.push(data))
  const wait = () => {}
  const pass = (signal) => child.kill(signal)
  process.on('SIGINT', wait).on('SIGTERM', pass).on('SIGHUP', pass)
  const [status, signal] = await new Promise((resolve) => {
    child.once('error', (error) => resolve([127, null, output.push(`${error.message}\n`)]))
    child.once('close', (...end) => resolve(end))
  })
  process.off('SIGINT', wait).off('SIGTERM', pass).off('SIGHUP', pass)
  if (status !== 0) for (const data of output) process.stderr.write(data)
  if (signal) process.kill(process.pid, signal)
  return status ?? 1
}

/** The folders of PATH, and those where Debian keeps servers but an ordinary user's PATH does not look. */
export function searchPath(path = process.env.PATH ?? '') {
  return [...path.split(delimiter).filter(Boolean), '/usr/sbin', '/usr/local/sbin', '/sbin']
}

function onPath(name) {
  return searchPath().some((folder) => existsSync(join(folder, name)))
}

function majorOf(version) {
  return Number(version.replace(/^v/, '').split('.')[0])
}

/** Path of a Node that is new enough, brought into `.toolchain` when the machine has none. */
export async function findNode() {
  if (majorOf(process.versions.node) >= NODE_MAJOR) return process.execPath
  const brought = join(TOOLCHAIN, 'node_modules', 'node', 'bin', 'node')
  if (works(brought)) return brought
  say(
    `Node ${NODE_MAJOR} is needed and this is ${process.version}: bringing the npm package node@${NODE_BROUGHT} into .toolchain`,
  )
  rmSync(TOOLCHAIN, { recursive: true, force: true })
  mkdirSync(TOOLCHAIN)
  // The package's install script fetches the binary of this platform; npm runs it only for packages named here.
  const manifest = { private: true, dependencies: { node: NODE_BROUGHT }, allowScripts: { node: true } }
  writeFileSync(join(TOOLCHAIN, 'package.json'), JSON.stringify(manifest))
  const status = await npm(
    process.execPath,
    ['install', '--no-package-lock', '--no-audit', '--no-fund', '--loglevel=error'],
    {
      cwd: TOOLCHAIN,
    },
  )
  if (status !== 0 || !works(brought)) {
    fail(
      `Missing: Node ${NODE_MAJOR} or newer, and npm could not bring it. Install it from https://nodejs.org and repeat the command.`,
    )
  }
  return brought
}

function works(node) {
  if (!existsSync(node)) return false
  const { stdout } = spawnSync(node, ['--version'], { encoding: 'utf8' })
  return majorOf(stdout ?? '') >= NODE_MAJOR
}

/** The environment for everything that follows: the right Node first on PATH, nothing of the npm that started this process. */
export function environmentFor(node) {
  const kept = Object.entries(process.env).filter(([name]) => !/^npm_/i.test(name))
  const path = [dirname(node), join(ROOT, 'node_modules', '.bin'), process.env.PATH].filter(Boolean).join(delimiter)
  return { ...Object.fromEntries(kept), PATH: path }
}

/** Runs npm under the given Node: the npm that started this process, else the one on PATH. */
function npm(node, args, { cwd }) {
  const env = environmentFor(node)
  const script = process.env.npm_execpath
  return script?.endsWith('.js')
    ? run(node, [script, ...args], { cwd, env, quiet: true })
    : run('npm', args, { cwd, env, quiet: true })
}

/** Installs exactly what package-lock.json says, when that has not been done since it last changed. */
export async function installDependencies(node) {
  const installed = join(ROOT, 'node_modules', '.package-lock.json')
  if (existsSync(installed) && statSync(installed).mtimeMs >= statSync(join(ROOT, 'package-lock.json')).mtimeMs) return
  say('Installing the locked dependencies (npm ci)')
  if ((await npm(node, ['ci', '--no-audit', '--no-fund', '--loglevel=error'], { cwd: ROOT })) !== 0) {
    fail('Missing: the dependencies of package-lock.json. Mend what npm names above and repeat the command.')
  }
}

function postgresServerIsHere() {
  const debian = '/usr/lib/postgresql'
  const versions = existsSync(debian) ? readdirSync(debian) : []
  return versions.some((version) => existsSync(join(debian, version, 'bin', 'initdb'))) || onPath('initdb')
}

/** Programs of the system that the tests use for real: how to see that they are here, and their packages. */
export const PARTS = {
  postgresql: { title: 'PostgreSQL server', here: postgresServerIsHere, debian: 'postgresql', brew: 'postgresql@17' },
  rsync: { title: 'rsync', here: () => onPath('rsync'), debian: 'rsync', brew: 'rsync' },
  openssh: { title: 'OpenSSH server', here: () => onPath('sshd'), debian: 'openssh-server', brew: 'openssh' },
  python: { title: 'Python 3, which rrsync needs', here: () => onPath('python3'), debian: 'python3', brew: 'python3' },
  curl: { title: 'curl', here: () => onPath('curl'), debian: 'curl', brew: 'curl' },
  openssl: { title: 'OpenSSL', here: () => onPath('openssl'), debian: 'openssl', brew: 'openssl' },
}

/** Installs the named parts that are missing; where it cannot, it names them and the command that does. */
export async function installParts(names) {
  const missing = names.map((name) => PARTS[name]).filter((part) => !part.here())
  if (missing.length === 0) return
  const titles = missing.map((part) => part.title).join(', ')
  const packages = missing.map((part) => part.debian)
  if (process.getuid?.() === 0 && onPath('apt-get')) {
    say(`Installing ${titles} (apt-get install ${packages.join(' ')})`)
    await aptInstall(packages)
    const still = missing.filter((part) => !part.here())
    if (still.length === 0) return
    fail(`Missing: ${still.map((part) => part.title).join(', ')}, although apt-get reported no fault.`)
  }
  fail(`Missing: ${titles}. Install with:\n  ${installCommand(missing)}\nand repeat the command.`)
}

/** The command a person types on this system. */
function installCommand(parts) {
  if (process.platform === 'darwin') return `brew install ${parts.map((part) => part.brew).join(' ')}`
  return `sudo apt-get install -y ${parts.map((part) => part.debian).join(' ')}   (or the packages of this system with these names)`
}

async function aptInstall(packages) {
  const env = { ...process.env, DEBIAN_FRONTEND: 'noninteractive', LC_ALL: 'C.UTF-8' }
  const apt = (...args) => run('apt-get', ['-q', '-y', ...args], { env, quiet: true })
  const lists = '/var/lib/apt/lists'
  const known =
    existsSync(lists) && readdirSync(lists).some((name) => name.endsWith('Packages') || name.includes('Packages.'))
  await withoutServices(async () => {
    const install = () => apt('install', '--no-install-recommends', ...packages)
    if (known && (await install()) === 0) return
    say('Renewing the list of Debian packages (apt-get update)')
    if ((await apt('update')) !== 0 || (await install()) !== 0) {
      fail(`Missing: ${packages.join(', ')}. Mend what apt-get names above and repeat the command.`)
    }
  })
}

/** The tests start servers of their own: a package that brings one must not open a port of this machine by being installed. */
async function withoutServices(action) {
  const policy = '/usr/sbin/policy-rc.d'
  if (existsSync(policy)) return action()
  writeFileSync(policy, '#!/bin/sh\nexit 101\n', { mode: 0o755 })
  const remove = () => rmSync(policy, { force: true })
  process.once('exit', remove)
  await action()
  remove()
}
