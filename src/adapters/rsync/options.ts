import type { Fault } from '../fault.ts'

/**
 * The options of rsync that a definition may have. Everything else is refused: what is known to run a program, to write or read another file than
 * those that are copied, or to belong to Syncline itself, with that reason.
 */
const NUMBER = /^\d{1,12}$/
const SIZE = /^\d{1,12}(?:\.\d+)?(?:[KMGTP](?:B|iB)?)?(?:[+-]1)?$/i
const NAMES = /^[\w.,:@*+/-]{1,500}$/
const MODES = /^[DFugoarwxXstT0-7=+,-]{1,200}$/
/** Below the destination: neither absolute nor upwards. */
const BELOW = /^(?!\/)(?!-)(?!(?:.*\/)?\.\.(?:\/|$))\P{Cc}{1,500}$/u

/** An option without a value, or with one that must look so. */
const ALLOWED: Readonly<Record<string, true | RegExp>> = {
  ...flags(
    'recursive links perms times group owner specials archive dirs relative hard-links acls xattrs executability numeric-ids',
    'sparse whole-file inplace append-verify checksum update existing ignore-existing ignore-times size-only one-file-system',
    'prune-empty-dirs omit-dir-times omit-link-times safe-links munge-links fuzzy compress preallocate fsync atimes open-noatime',
    'delete delete-before delete-during delete-delay delete-after delete-excluded del force ignore-errors ignore-missing-args',
    'mkpath backup ipv4 ipv6 no-recursive no-links no-perms no-times no-group no-owner no-specials no-devices no-D no-whole-file',
    'no-compress no-implied-dirs no-inc-recursive inc-recursive implied-dirs no-relative no-hard-links no-acls no-xattrs',
    'no-checksum no-sparse no-update no-one-file-system no-force no-ignore-errors no-preallocate blocking-io no-blocking-io',
  ),
  chmod: MODES,
  chown: NAMES,
  usermap: NAMES,
  groupmap: NAMES,
  'max-size': SIZE,
  'min-size': SIZE,
  'modify-window': /^-?\d{1,6}$/,
  'block-size': SIZE,
  'checksum-choice': /^[a-z0-9,]{1,60}$/,
  'checksum-seed': NUMBER,
  'compress-choice': /^[a-z0-9]{1,20}$/,
  'compress-level': /^\d{1,2}$/,
  'skip-compress': /^[\w./[\]-]{0,500}$/,
  'stop-after': NUMBER,
  suffix: /^[\w.~-]{1,60}$/,
  'backup-dir': BELOW,
  'link-dest': BELOW,
  'copy-dest': BELOW,
  'compare-dest': BELOW,
}

const READS = 'it reads a file of this machine that is not copied: write the rules into the definition'
const DAEMON = 'it belongs to the rsync daemon, which Syncline does not use: files travel over ssh'
const OWN_OUTPUT = 'Syncline decides what rsync reports, and shows it'
const OUT_OF_TREE = 'it follows a symbolic link out of the folder that is copied'

/** Refused by name. Long names without dashes. */
export const FORBIDDEN: Readonly<Record<string, string>> = {
  rsh: 'it names a program to run; host, user, port, key and jump of a place say how to connect',
  'rsync-path': 'it names a program to run on the other host',
  'remote-option': 'it slips any option past this list to the other host',
  server: 'it makes rsync the other side of a connection',
  sender: 'it makes rsync the other side of a connection',
  daemon: DAEMON,
  config: DAEMON,
  dparam: DAEMON,
  'no-detach': DAEMON,
  address: DAEMON,
  port: `${DAEMON}; the port of ssh is the port of a place`,
  sockopts: DAEMON,
  'password-file': DAEMON,
  'early-input': DAEMON,
  contimeout: `${DAEMON}; connectSeconds limits how long connecting takes`,
  'log-file': 'it writes to a file of your choice; the history of the job has the output',
  'log-file-format': 'it goes with log-file',
  'write-batch': 'it writes to a file of your choice, and a script beside it',
  'only-write-batch': 'it writes to a file of your choice, and a script beside it',
  'read-batch': 'it applies a file that nobody has looked at',
  'files-from': READS,
  'exclude-from': READS,
  'include-from': READS,
  filter: 'it can name a file of this machine to read; use rules',
  exclude: 'use rules',
  include: 'use rules',
  from0: 'it goes with files-from',
  'cvs-exclude': READS,
  'temp-dir': 'it writes outside the destination',
  'partial-dir': 'use partial',
  partial: 'use partial',
  'no-partial': 'use partial',
  append: 'it takes the beginning of a file for right without looking; use append-verify',
  'delay-updates': 'use delayUpdates',
  'max-delete': 'use maxDelete',
  bwlimit: 'use bandwidth',
  timeout: 'use idleSeconds',
  'dry-run': 'use --plan of the job, or dryRun',
  'list-only': 'it copies nothing',
  'copy-links': OUT_OF_TREE,
  'copy-unsafe-links': OUT_OF_TREE,
  'copy-dirlinks': OUT_OF_TREE,
  'keep-dirlinks': 'it writes through a symbolic link at the destination, wherever that leads',
  'copy-devices': 'it reads devices as if they were files',
  'write-devices': 'it writes to devices as if they were files',
  devices: 'it makes devices',
  'remove-source-files': 'a transfer never removes what it copies',
  'remove-sent-files': 'a transfer never removes what it copies',
  'trust-sender': 'it lets the other host name files that nobody asked for',
  super: 'it tries what only the administrator of the machine may',
  'fake-super': 'it keeps owners in attributes that only rsync understands',
  'copy-as': 'it works as another user',
  'protect-args': 'Syncline protects the arguments itself',
  'secluded-args': 'Syncline protects the arguments itself',
  'old-args': 'it lets the shell of the other host read the paths',
  'out-format': OWN_OUTPUT,
  outbuf: OWN_OUTPUT,
  info: OWN_OUTPUT,
  debug: OWN_OUTPUT,
  verbose: OWN_OUTPUT,
  quiet: OWN_OUTPUT,
  progress: OWN_OUTPUT,
  stats: OWN_OUTPUT,
  'human-readable': OWN_OUTPUT,
  'itemize-changes': OWN_OUTPUT,
  '8-bit-output': OWN_OUTPUT,
  msgs2stderr: OWN_OUTPUT,
  stderr: OWN_OUTPUT,
  'no-motd': DAEMON,
  help: 'it copies nothing',
  version: 'it copies nothing',
}

/** Letters of rsync, and the long names they stand for. */
const LETTERS: Readonly<Record<string, string>> = {
  a: 'archive',
  r: 'recursive',
  l: 'links',
  p: 'perms',
  t: 'times',
  g: 'group',
  o: 'owner',
  D: 'devices',
  d: 'dirs',
  R: 'relative',
  H: 'hard-links',
  A: 'acls',
  X: 'xattrs',
  E: 'executability',
  S: 'sparse',
  W: 'whole-file',
  c: 'checksum',
  u: 'update',
  I: 'ignore-times',
  x: 'one-file-system',
  m: 'prune-empty-dirs',
  O: 'omit-dir-times',
  J: 'omit-link-times',
  y: 'fuzzy',
  z: 'compress',
  b: 'backup',
  U: 'atimes',
  C: 'cvs-exclude',
  v: 'verbose',
  q: 'quiet',
  h: 'human-readable',
  i: 'itemize-changes',
  n: 'dry-run',
  L: 'copy-links',
  k: 'copy-dirlinks',
  K: 'keep-dirlinks',
  e: 'rsh',
  M: 'remote-option',
  f: 'filter',
  F: 'filter',
  T: 'temp-dir',
  B: 'block-size',
  s: 'protect-args',
  P: 'partial',
  '0': 'from0',
  '8': '8-bit-output',
  '4': 'ipv4',
  '6': 'ipv6',
  N: 'crtimes',
  '@': 'modify-window',
  V: 'version',
}
const LETTERS_WITH_VALUE = 'eMfTB@'

/** One option by its long name. */
export type Option = { readonly name: string; readonly value?: string }

/** The options in a text as one would type it: `--delete`, `--chmod=F664` or a bundle of letters such as `-rlt`. Undefined when it is none. */
export function parseOption(text: string): readonly Option[] | undefined {
  const long = /^--([A-Za-z0-9][A-Za-z0-9-]*)(?:=([\s\S]*))?$/.exec(text)
  if (long !== null) return [{ name: long[1] ?? '', ...(long[2] !== undefined && { value: long[2] }) }]
  if (!/^-[A-Za-z0-9@]/.test(text)) return undefined
  const options: Option[] = []
  for (let index = 1; index < text.length; index++) {
    const letter = text[index] ?? ''
    const name = LETTERS[letter] ?? letter
    if (LETTERS_WITH_VALUE.includes(letter)) {
      const value = text.slice(index + 1)
      return [...options, { name, ...(value !== '' && { value }) }]
    }
    options.push({ name })
  }
  return options
}

export function optionFaults(text: string, path: string): Fault[] {
  const options = parseOption(text)
  if (options === undefined) return [{ path, message: `${text} is not an option: write --name or --name=value` }]
  return options.flatMap((option) => {
    const message = refusal(option)
    return message === undefined ? [] : [{ path, message }]
  })
}

/** Why an option is refused; undefined when it may be used. */
export function refusal({ name, value }: Option): string | undefined {
  const shown = name.length === 1 ? `-${name}` : `--${name}`
  const reason = Object.hasOwn(FORBIDDEN, name) ? FORBIDDEN[name] : undefined
  if (reason !== undefined) return `${shown} is not allowed: ${reason}`
  const rule = Object.hasOwn(ALLOWED, name) ? ALLOWED[name] : undefined
  if (rule === undefined) return `${shown} is not on the list of options that a transfer may have`
  if (rule === true) return value === undefined ? undefined : `${shown} takes no value`
  if (value === undefined) return `${shown} needs a value: write ${shown}=VALUE`
  return rule.test(value) ? undefined : `${shown} does not take ${JSON.stringify(value)}`
}

/** The option as rsync gets it. */
export function optionText({ name, value }: Option): string {
  return value === undefined ? `--${name}` : `--${name}=${value}`
}

/** Names of all options that may be used, for the guide. */
export const ALLOWED_NAMES: readonly string[] = Object.keys(ALLOWED)

function flags(...lines: readonly string[]): Record<string, true> {
  return Object.fromEntries(lines.flatMap((line) => line.split(' ')).map((name) => [name, true as const]))
}
