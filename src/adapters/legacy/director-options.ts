import { optionText, parseOption, refusal } from '../rsync/options.ts'
import type { Rule, Transfer } from '../rsync/transfer-settings.ts'

/** What the options of an action become. `told` has what is different, `faults` what cannot be taken over. */
export type TakenOptions = {
  readonly transfer: Partial<Transfer>
  readonly dryRun: boolean
  readonly ssh: { readonly port?: number; readonly key?: string; readonly user?: string }
  readonly told: readonly string[]
  readonly faults: readonly string[]
}

/** Options that take the next word as their value, when it is not joined to them by an equals sign. */
const WITH_VALUE = new Set([
  ...[
    'rsh',
    'rsync-path',
    'exclude',
    'include',
    'filter',
    'exclude-from',
    'include-from',
    'files-from',
    'bwlimit',
    'timeout',
  ],
  ...[
    'max-delete',
    'max-size',
    'min-size',
    'modify-window',
    'block-size',
    'chmod',
    'chown',
    'usermap',
    'groupmap',
    'suffix',
  ],
  ...['backup-dir', 'temp-dir', 'partial-dir', 'link-dest', 'copy-dest', 'compare-dest', 'log-file', 'log-file-format'],
  ...[
    'out-format',
    'info',
    'debug',
    'outbuf',
    'password-file',
    'port',
    'address',
    'sockopts',
    'compress-level',
    'compress-choice',
  ],
  ...[
    'skip-compress',
    'checksum-choice',
    'checksum-seed',
    'remote-option',
    'contimeout',
    'write-batch',
    'read-batch',
    'iconv',
  ],
])
/** What only says how rsync reports. */
const REPORTING = new Set([
  ...[
    'verbose',
    'quiet',
    'human-readable',
    'itemize-changes',
    'progress',
    'stats',
    'info',
    'debug',
    'out-format',
    'outbuf',
  ],
  ...['log-file', 'log-file-format', 'no-motd', '8-bit-output', 'msgs2stderr'],
])
const KINDS = { '-': 'exclude', '+': 'include', P: 'protect', H: 'hide', S: 'show', R: 'risk' } as const
const BASE = ['recursive', 'links', 'perms', 'times'] as const

/** Reads the words of `opts`, as the shell of the original made them. */
export function takeOptions(words: readonly string[]): TakenOptions {
  const options: string[] = []
  const rules: Rule[] = []
  const told: string[] = []
  const faults: string[] = []
  let ssh: TakenOptions['ssh'] = {}
  let extra: Partial<Transfer> = {}
  let dryRun = false
  const queue = [...words]
  for (let word = queue.shift(); word !== undefined; word = queue.shift()) {
    const parsed = parseOption(word)
    if (parsed === undefined) {
      faults.push(`${word} is no option: it would have been one more source`)
      continue
    }
    for (const { name, value: joined } of parsed) {
      const value = joined ?? (WITH_VALUE.has(name) ? queue.shift() : undefined)
      if (REPORTING.has(name)) {
        if (name === 'log-file') told.push(`--log-file ${value}: the history of the job has the output instead`)
      } else if (name === 'exclude' || name === 'include') {
        rules.push({ [name]: value ?? '' })
      } else if (name === 'filter') {
        const found = /^([-+PHSR]) (.+)$/.exec(value ?? '')
        if (found === null) faults.push(`--filter '${value}': write it as a rule; rules from files are not taken over`)
        else rules.push({ [KINDS[found[1] as keyof typeof KINDS]]: found[2] })
      } else if (name === 'bwlimit') {
        const limit = bandwidthOf(value ?? '')
        if (limit === undefined) faults.push(`--bwlimit=${value} is no limit that can be read`)
        else extra = { ...extra, bandwidth: { limit } }
      } else if (name === 'timeout') {
        const seconds = Number(value)
        if (seconds >= 10) extra = { ...extra, idleSeconds: Math.min(seconds, 86_400) }
        else told.push(`--timeout=${value}: a transfer that moves nothing is broken off after 300 seconds`)
      } else if (name === 'max-delete') {
        extra = { ...extra, maxDelete: Number(value) }
      } else if (name === 'partial' || name === 'partial-dir') {
        extra = { ...extra, partial: true }
      } else if (name === 'delay-updates') {
        extra = { ...extra, delayUpdates: true }
      } else if (name === 'dry-run') {
        dryRun = true
        told.push('--dry-run: the whole job only tells what it would do, until it is run with --execute')
      } else if (name === 'rsh') {
        const found = sshOf(value ?? '')
        if (found === undefined)
          faults.push(`-e '${value}' is not taken over: name port, key and user of the host instead`)
        else ssh = { ...ssh, ...found }
      } else if (name === 'devices') {
        options.push('--specials')
        told.push('-D: devices are not made at the destination; other special files are')
      } else {
        const reason = refusal({ name, ...(value !== undefined && { value }) })
        if (reason === undefined) options.push(optionText({ name, ...(value !== undefined && { value }) }))
        else faults.push(reason)
      }
    }
  }
  if (options.includes('--archive'))
    told.push('-a: devices are not made at the destination, also where the site runs as root')
  const asWritten = [...lacking(options), ...options]
  if (asWritten.some((option) => /^--del(?:ete.*)?$/.test(option))) {
    extra = { maxDelete: 'unlimited', emptySource: 'allow', ...extra }
    told.push(
      '--delete: taken over without a limit and also for an empty source, as it was; consider maxDelete, and emptySource: stop',
    )
  }
  const transfer = {
    ...(asWritten.length > 0 && { options: asWritten }),
    ...(rules.length > 0 && { rules }),
    ...extra,
  }
  return { transfer, dryRun, ssh, told, faults }
}

/** What the preset would do beyond the options as they were written. */
function lacking(options: readonly string[]): readonly string[] {
  if (options.includes('--archive')) return []
  return BASE.filter((name) => !options.includes(`--${name}`)).map((name) => `--no-${name}`)
}

/** Of rsync: a number is KiB in a second, with a unit it is that. */
function bandwidthOf(text: string): string | undefined {
  if (/^0+$/.test(text)) return 'unlimited'
  const found = /^([1-9]\d{0,8}(?:\.\d{1,3})?)([kmg])?(?:i?b)?$/i.exec(text)
  return found === null ? undefined : `${found[1]}${(found[2] ?? 'K').toUpperCase()}`
}

/** Port, key and user of a plain `ssh -p 22 -i key -l user`. */
function sshOf(text: string): TakenOptions['ssh'] | undefined {
  const words = text.split(/\s+/).filter((word) => word !== '')
  if (words.shift() !== 'ssh') return undefined
  let found: { port?: number; key?: string; user?: string } = {}
  for (let word = words.shift(); word !== undefined; word = words.shift()) {
    const value = words.shift()
    if (value === undefined) return undefined
    if (word === '-p' && /^\d+$/.test(value)) found = { ...found, port: Number(value) }
    else if (word === '-i') found = { ...found, key: value }
    else if (word === '-l') found = { ...found, user: value }
    else return undefined
  }
  return found
}
