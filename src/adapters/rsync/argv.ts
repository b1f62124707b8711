import { aliasOf } from '../ssh/host.ts'
import { optionText, parseOption } from './options.ts'
import { deletes, type Leg, type Place, type Transfer } from './transfer-settings.ts'

/** Version of rsync, such as 3.2.7. */
export type RsyncVersion = readonly [major: number, minor: number, patch: number]

export type ArgvSettings = {
  readonly version: RsyncVersion
  /** Configuration for `ssh -F`, for a leg with a host. */
  readonly sshConfig?: string
  /** In units of rsync; `0` for none. */
  readonly limit?: string
  /** More options of Syncline's own, such as those that say what is reported. */
  readonly more?: readonly string[]
}

const PRESET_OPTIONS = {
  copy: ['--recursive', '--links', '--perms', '--times'],
  update: ['--recursive', '--links', '--perms', '--times', '--update'],
  mirror: ['--recursive', '--links', '--perms', '--times', '--delete-delay'],
  archive: ['--archive', '--hard-links', '--acls', '--xattrs', '--numeric-ids'],
} as const

/** What files and folders may be for whom, as rsync's --chmod has it. `X` is "may be run", where somebody may run it already. */
const MODES = {
  group: 'Dug=rwx,Dg+s,Do=,Fug+rwX,Fo=',
  'group-read': 'Du=rwx,Dg=rx,Dg+s,Do=,Fu+rw,Fg=rX,Fo=',
  private: 'Du=rwx,Dgo=,Fu+rw,Fgo=',
  public: 'Du=rwx,Dgo=rx,Fu+rw,Fgo=rX',
} as const

const SIGNS = { exclude: '-', include: '+', protect: 'P', hide: 'H', show: 'S', risk: 'R' } as const
export const PARTIAL_DIR = '.syncline-partial'
const IDLE_SECONDS = 300
const DELETE_MAX = 1000
/** From here on rsync escapes what a shell of the other host would read. */
const ESCAPES_SINCE: RsyncVersion = [3, 2, 4]

/**
 * The command line of one leg, exactly as it is started: no shell reads it here, and none reads the paths on the other host. The settings must
 * have been found without faults.
 */
export function buildArgv(transfer: Transfer, leg: Leg, settings: ArgvSettings): readonly [string, ...string[]] {
  const { version, sshConfig, limit = '0', more = [] } = settings
  const { sources, destination, host } = leg
  const remote =
    host === undefined || sshConfig === undefined
      ? []
      : [`--rsh=ssh -F ${rshWord(sshConfig)}`, ...(atLeast(version, ESCAPES_SINCE) ? [] : ['--protect-args'])]
  return [
    'rsync',
    ...optionsOf(transfer),
    ...rulesOf(transfer),
    ...(limit === '0' ? [] : [`--bwlimit=${limit}`]),
    ...remote,
    ...more,
    '--',
    ...sources.map(placeArgument),
    placeArgument(destination),
  ]
}

export function atLeast(version: RsyncVersion, least: RsyncVersion): boolean {
  const differs = version.findIndex((part, index) => part !== least[index])
  return differs === -1 || (version[differs] ?? 0) > (least[differs] ?? 0)
}

function optionsOf(transfer: Transfer): readonly string[] {
  const { preset = 'copy', permissions = 'keep', group, partial = true, delayUpdates = false } = transfer
  const { maxDelete = DELETE_MAX, idleSeconds = IDLE_SECONDS } = transfer
  const given = (transfer.options ?? []).flatMap((text) => parseOption(text) ?? []).map(optionText)
  const options: string[] = [...PRESET_OPTIONS[preset], ...given]
  if (permissions !== 'keep') options.push('--perms', `--chmod=${MODES[permissions]}`)
  if (group !== undefined) options.push('--group', `--chown=:${group}`)
  // What is below --archive would make devices.
  if (options.includes('--archive')) options.push('--no-devices')
  // A file that is changed in place is its own part.
  if (partial && !options.some((option) => /^--(?:inplace|append-verify)$/.test(option)))
    options.push(`--partial-dir=${PARTIAL_DIR}`)
  if (delayUpdates) options.push('--delay-updates')
  if (deletes(transfer) && maxDelete !== 'unlimited') options.push(`--max-delete=${maxDelete}`)
  options.push(`--timeout=${idleSeconds}`)
  return options.filter((option, index) => options.indexOf(option) === index)
}

function rulesOf({ rules = [] }: Transfer): readonly string[] {
  return rules.flatMap((rule) =>
    Object.entries(rule).map(([kind, pattern]) => `--filter=${SIGNS[kind as keyof typeof SIGNS]} ${pattern}`),
  )
}

/** A place as rsync gets it: nothing of it can be read as an option, a host or a pattern of a shell. */
function placeArgument(place: Place): string {
  if (typeof place === 'string') return place
  const path = place.path.startsWith('/') || place.path.startsWith('./') ? place.path : `./${place.path}`
  return `${aliasOf(place)}:${path}`
}

/** A word of --rsh, which rsync itself takes apart at spaces; in quotes, a doubled quote is one. */
function rshWord(text: string): string {
  return /^[\w./+,@:=-]+$/.test(text) ? text : `'${text.replaceAll("'", "''")}'`
}
