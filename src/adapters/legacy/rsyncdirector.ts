import { isAbsolute } from 'node:path/posix'
import type { Fault } from '../fault.ts'
import { hostFaults, type SshHost } from '../ssh/host.ts'
import { takeCron } from './director-cron.ts'
import { takeOptions } from './director-options.ts'
import { shellWords } from './shell-words.ts'

/** Definitions of jobs that do what an instance of RsyncDirector did. */
export type TakenOver = {
  readonly jobs: readonly Readonly<Record<string, unknown>>[]
  /** Where ours means something else, or something is left out, by the place in the file. */
  readonly differences: readonly Fault[]
  /** What cannot be taken over: somebody must change it first. There are no jobs then. */
  readonly faults: readonly Fault[]
}

type Given = Readonly<Record<string, unknown>>
type Notes = {
  readonly differ: (path: string, message: string) => void
  readonly fail: (path: string, message: string) => void
}

const TOP = ['rsync_id', 'cron_schedule', 'pid_file_dir', 'metrics', 'jobs']
const HOST = ['user', 'host', 'port', 'private_key_path', 'private_ssh_key']
const JOB = ['id', 'type', ...HOST, 'lock_files', 'blocks_on', 'actions']
const LOCK = ['type', 'path', ...HOST]
const BLOCK = [...LOCK, 'wait_time', 'timeout']
const SYNC = ['action', 'id', 'source', 'dest', 'opts']
const COMMAND = ['action', 'id', 'command', 'args']
const WAIT_SECONDS = 60
const NAME_MAX = 63

/**
 * Reads the configuration of RsyncDirector as it is, with the spelling of the key that its guide has and the one that its program has. Pure: what it
 * was parsed from is for the caller. `timeZone` is that of the machine it ran on.
 */
export function takeOverRsyncDirector(given: unknown, timeZone: string): TakenOver {
  const differences: Fault[] = []
  const faults: Fault[] = []
  const notes: Notes = {
    differ: (path, message) => void differences.push({ path, message }),
    fail: (path, message) => void faults.push({ path, message }),
  }
  if (!isObject(given))
    return { jobs: [], differences, faults: [{ path: '', message: 'is no configuration of RsyncDirector' }] }
  known(given, '', TOP, notes)
  const instance = nameOf(given['rsync_id'], '/rsync_id', notes)
  if (given['pid_file_dir'] !== undefined)
    notes.differ('/pid_file_dir', 'is not needed: a site keeps its own folder to itself, and each run is begun once')
  if (given['metrics'] !== undefined)
    notes.differ(
      '/metrics',
      `the metrics are at /metrics of the site, for this machine or with a token, not on a port of their own; rsync_id is the name of the site there, and job_id that of the job here, such as ${instance}.JOB`,
    )
  const cron = takeCron(String(given['cron_schedule'] ?? ''))
  if ('fault' in cron) notes.fail('/cron_schedule', cron.fault)
  else {
    if (cron.told !== undefined) notes.differ('/cron_schedule', cron.told)
    notes.differ(
      '/cron_schedule',
      `is kept in the time zone ${timeZone}, by name; a time that is skipped in spring is an hour later`,
    )
  }
  const rule = 'cron' in cron ? cron.cron : ''
  const list = listOf(given['jobs'], '/jobs', notes)
  if (list.length === 0) notes.fail('/jobs', 'has no jobs')
  if (list.length > 1)
    notes.differ(
      '/jobs',
      'ran one after the other: here each is set off by the end of the one before, whether that went well, failed, or was left out as its blocks_on were not free in time, and can also be run alone',
    )
  notes.differ(
    '',
    `a time that came while a run was under way was dropped: here the first job waits for the lease rsyncdirector/${instance}`,
  )

  let before: string | undefined
  const jobs = list.flatMap(([job, path]) => {
    if (!isObject(job)) {
      notes.fail(path, 'is no job')
      return []
    }
    const name = `${instance}.${nameOf(job['id'], `${path}/id`, notes)}`.slice(0, NAME_MAX)
    const schedule = before === undefined ? [{ cron: rule, timeZone }, { signal: true }] : [{ event: `job ${before}` }]
    const taken = takeJob(job, path, { instance, schedule }, notes)
    // What only tells what it would do sets nothing off.
    if (taken['dryRun'] !== true) before = name
    return [{ name, ...taken }]
  })
  const names = jobs.map(({ name }) => name)
  for (const [index, name] of names.entries())
    if (names.indexOf(name) !== index) notes.fail(`/jobs/${index}/id`, 'is the id of a job before it')
  return { jobs: faults.length > 0 ? [] : jobs, differences, faults }
}

function takeJob(
  job: Given,
  path: string,
  { instance, schedule }: { readonly instance: string; readonly schedule: unknown },
  notes: Notes,
): Given {
  known(job, path, JOB, notes)
  const remote = job['type'] === 'remote'
  if (!remote && job['type'] !== 'local') notes.fail(`${path}/type`, 'must be local or remote')
  const host = remote ? hostOf(job, path, notes) : undefined
  const gates = listOf(job['blocks_on'], `${path}/blocks_on`, notes).map(([block, at]) => takeBlock(block, at, notes))
  const files = listOf(job['lock_files'], `${path}/lock_files`, notes).map(([lock, at]) => ({
    file: takeFile(lock, at, LOCK, notes),
  }))
  if (files.length > 0)
    notes.differ(
      `${path}/lock_files`,
      'are made so that one alone can have them, and held by signs of life. An instance of RsyncDirector respects them where they are in its blocks_on; one that has the same path in its own lock_files writes over or removes them, and the run here then ends with an error',
    )
  const actions = listOf(job['actions'], `${path}/actions`, notes)
  if (actions.length === 0) notes.fail(`${path}/actions`, 'has no actions')
  const taken = actions.map(([action, at], index) => takeAction(action, at, { host, index }, notes))
  const steps = taken.map(({ dryRun: _, ...step }) => step)
  return {
    schedule,
    missed: 'skip',
    overlap: 'coalesce',
    ...(taken.some(({ dryRun }) => dryRun === true) && { dryRun: true }),
    ...(gates.length > 0 && { gates }),
    leases: [{ lease: `rsyncdirector/${instance}` }, ...files],
    steps,
  }
}

function takeAction(
  action: unknown,
  path: string,
  { host, index }: { readonly host: SshHost | undefined; readonly index: number },
  notes: Notes,
): Given {
  if (!isObject(action)) {
    notes.fail(path, 'is no action')
    return {}
  }
  const name = action['id'] === undefined ? `action-${index + 1}` : nameOf(action['id'], `${path}/id`, notes)
  if (action['action'] === 'command') return { name, command: takeCommand(action, path, notes) }
  if (action['action'] === 'sync') return { name, ...takeSync(action, path, host, notes) }
  notes.fail(`${path}/action`, 'must be sync or command')
  return {}
}

function takeCommand(action: Given, path: string, notes: Notes): Given {
  known(action, path, COMMAND, notes)
  const args = listOf(action['args'], `${path}/args`, notes).map(([arg]) => String(arg))
  const line = [String(action['command'] ?? ''), ...args].join(' ')
  const { words, needsShell } = shellWords(line)
  notes.differ(
    `${path}/command`,
    'gets a plain environment, and the home of the user as its working folder: variables that it needs are named in `pass` or `set`, another folder in `folder`',
  )
  if (words.length === 0) notes.fail(`${path}/command`, 'is empty')
  if (needsShell === undefined) return { argv: words }
  notes.differ(`${path}/command`, `is a line for a shell, because of ${needsShell}: it is given to /bin/bash as it is`)
  return { argv: ['/bin/bash', '-c', line] }
}

function takeSync(action: Given, path: string, host: SshHost | undefined, notes: Notes): Given {
  known(action, path, SYNC, notes)
  const words = listOf(action['opts'], `${path}/opts`, notes).flatMap(([option, at]) => wordsOf(option, at, notes))
  const { transfer, dryRun, ssh, told, faults } = takeOptions(words)
  for (const each of told) notes.differ(`${path}/opts`, each)
  notes.differ(
    path,
    'files that vanish at the source under way (24 of rsync) are a warning; the original gave up the job',
  )
  for (const each of faults) notes.fail(`${path}/opts`, each)
  const sources = wordsOf(action['source'], `${path}/source`, notes).map((word) =>
    placeOf(word, `${path}/source`, ssh, notes),
  )
  const [dest, ...more] = wordsOf(action['dest'], `${path}/dest`, notes)
  if (dest === undefined || more.length > 0) {
    notes.fail(`${path}/dest`, 'must be one path')
    return {}
  }
  if (sources.length === 0) notes.fail(`${path}/source`, 'is missing')
  const to = host === undefined ? placeOf(dest, `${path}/dest`, ssh, notes) : { ...host, ...ssh, path: dest }
  if (typeof to !== 'string')
    notes.differ(path, `the key of ${to['host']} must be trusted first: syncline transfer trust ${to['host']}`)
  return { transfer: { from: sources.length === 1 ? sources[0] : sources, to, ...transfer }, ...(dryRun && { dryRun }) }
}

/** A path here, or `user@host:path` as rsync would read it. */
function placeOf(word: string, path: string, ssh: Given, notes: Notes): string | Given {
  const remote = /^(?:([^@:/]+)@)?([^@:/]+):(?!:)(.+)$/.exec(word)
  if (remote !== null) {
    const [, user, host = '', there = ''] = remote
    const place = { host, ...(user !== undefined && { user }), ...ssh, path: there }
    for (const fault of hostFaults(place as unknown as SshHost, path)) notes.fail(fault.path, fault.message)
    return place
  }
  if (!isAbsolute(word))
    notes.fail(path, `${word} must be an absolute path: it was looked for where the program was started`)
  return word
}

function takeBlock(block: unknown, path: string, notes: Notes): Given {
  const file = takeFile(block, path, BLOCK, notes)
  if (!isObject(block)) return {}
  const every = Number(block['wait_time'] ?? WAIT_SECONDS)
  if (!(every > 0)) notes.fail(`${path}/wait_time`, 'must be a number of seconds')
  const { timeout } = block
  if (timeout !== undefined) {
    if (!(Number(timeout) > 0)) notes.fail(`${path}/timeout`, 'must be a number of seconds')
    notes.differ(`${path}/timeout`, `is ${timeout} seconds, as it says; the original waited for twice as long`)
  }
  notes.differ(
    path,
    'what cannot be looked at counts as blocked; the original went on. A lock file of a Syncline that gives no sign of life any more counts as gone',
  )
  return { file, every, ...(timeout !== undefined && { timeLimit: Number(timeout), onTimeout: 'skip' }) }
}

function takeFile(lock: unknown, path: string, keys: readonly string[], notes: Notes): Given {
  if (!isObject(lock)) {
    notes.fail(path, 'is no lock file')
    return {}
  }
  known(lock, path, keys, notes)
  const file = String(lock['path'] ?? '')
  if (!isAbsolute(file)) notes.fail(`${path}/path`, 'must be an absolute path')
  if (lock['type'] === 'local') return { path: file }
  if (lock['type'] !== 'remote') notes.fail(`${path}/type`, 'must be local or remote')
  return { ...hostOf(lock, path, notes), path: file }
}

function hostOf(given: Given, path: string, notes: Notes): SshHost {
  const { host, user, port, private_key_path, private_ssh_key } = given
  if (private_ssh_key !== undefined && private_key_path === undefined)
    notes.differ(
      `${path}/private_ssh_key`,
      'is used here; the original knew it under this name in its guide alone, and logged in with the default keys of its user',
    )
  if (private_ssh_key !== undefined && private_key_path !== undefined && private_ssh_key !== private_key_path)
    notes.differ(`${path}/private_ssh_key`, 'is not private_key_path, which is the one that counts')
  const key = private_key_path ?? private_ssh_key
  const found: SshHost = {
    host: String(host ?? ''),
    ...(user !== undefined && { user: String(user) }),
    ...(port !== undefined && { port: Number(port) }),
    ...(key !== undefined && { key: String(key) }),
  }
  for (const fault of hostFaults(found, path)) notes.fail(fault.path, fault.message)
  if (found.port !== undefined && !(found.port > 0 && found.port < 65_536)) notes.fail(`${path}/port`, 'is no port')
  return found
}

function wordsOf(given: unknown, path: string, notes: Notes): readonly string[] {
  const { words, needsShell } = shellWords(String(given ?? ''))
  if (needsShell !== undefined)
    notes.fail(path, `has ${needsShell}, which the original gave to a shell: write out what it stands for`)
  return words
}

/** What the original did not know it ignored; here somebody is told. */
function known(given: Given, path: string, keys: readonly string[], { differ }: Notes): void {
  for (const key of Object.keys(given))
    if (!keys.includes(key))
      differ(`${path}/${key}`, 'is not known to the original, which ignored it; so it is left out')
}

/** A name that jobs and steps may have. */
function nameOf(given: unknown, path: string, { differ, fail }: Notes): string {
  const text = String(given ?? '')
  if (text === '') fail(path, 'is missing')
  const name = text.replaceAll(/[^A-Za-z0-9._-]+/g, '-').replace(/^[^A-Za-z0-9]+/, '') || 'unnamed'
  if (name !== text && text !== '') differ(path, `is written ${name} here`)
  return name.slice(0, NAME_MAX)
}

function listOf(given: unknown, path: string, { fail }: Notes): readonly (readonly [unknown, string])[] {
  if (given === undefined || given === null) return []
  if (Array.isArray(given)) return given.map((each, index) => [each, `${path}/${index}`] as const)
  fail(path, 'must be a list')
  return []
}

function isObject(value: unknown): value is Given {
  return typeof value === 'object' && value !== null && !Array.isArray(value)
}
