import type { Fault } from '../fault.ts'
import { CONTROL, HOST_MEMBERS, hostFaults, hostLabel, type SshHost } from '../ssh/host.ts'
import { BANDWIDTH_SCHEMA, type Bandwidth, bandwidthFaults } from './bandwidth.ts'
import { optionFaults, parseOption } from './options.ts'

/** A file or folder on the machine of this site, as an absolute path, or on a host that is reached by ssh. */
export type Place = string | RemotePlace
export type RemotePlace = SshHost & { readonly path: string }

export const RULES = ['exclude', 'include', 'protect', 'hide', 'show', 'risk'] as const
/** One rule of what is copied and deleted, by rsync's patterns; the first that fits a name decides. */
export type Rule = { readonly [kind in (typeof RULES)[number]]?: string }

export const PRESETS = ['copy', 'update', 'mirror', 'archive'] as const
export const PERMISSIONS = ['keep', 'group', 'group-read', 'private', 'public'] as const
export const VERIFICATIONS = ['none', 'again', 'checksum', 'sha256'] as const

/** The settings of a step that copies files. */
export type Transfer = {
  readonly from: Place | readonly Place[]
  readonly to: Place | readonly Place[]
  readonly preset?: (typeof PRESETS)[number]
  readonly options?: readonly string[]
  readonly rules?: readonly Rule[]
  readonly permissions?: (typeof PERMISSIONS)[number]
  readonly group?: string
  readonly bandwidth?: Bandwidth
  readonly maxDelete?: number | 'unlimited'
  readonly partial?: boolean
  readonly delayUpdates?: boolean
  readonly connectSeconds?: number
  readonly idleSeconds?: number
  readonly verify?: (typeof VERIFICATIONS)[number]
  readonly emptySource?: 'stop' | 'allow'
}

/** What one call of rsync copies: from one host, or this one, to one place. */
export type Leg = {
  readonly sources: readonly Place[]
  readonly destination: Place
  /** The host of the sources or of the destination; undefined when all are here. */
  readonly host?: SshHost
}

/** Options with which a file of the source may rightly be another one at the destination. */
const LEAVES = [
  'update',
  'existing',
  'ignore-existing',
  'size-only',
  'relative',
  'compare-dest',
  'max-size',
  'min-size',
]
const PLACES_MAX = 50
const RULES_MAX = 500
const OPTIONS_MAX = 50
const PATH_MAX = 4096
const GROUP = /^[A-Za-z0-9_][A-Za-z0-9._-]{0,63}$/

const path = { type: 'string', minLength: 1, maxLength: PATH_MAX }
// One schema for a text and an object, not a choice of two: a fault is then told of what is there.
const place = {
  type: ['string', 'object'],
  minLength: 1,
  maxLength: PATH_MAX,
  additionalProperties: false,
  required: ['host', 'path'],
  description: 'An absolute path on the machine of this site, or a path on another host',
  properties: {
    ...HOST_MEMBERS,
    path: { ...path, description: 'Path on that host, absolute or below the folder one logs in to' },
  },
}
const places = (description: string) => ({
  ...place,
  type: ['string', 'object', 'array'],
  minItems: 1,
  maxItems: PLACES_MAX,
  items: place,
  description,
})

/** JSON Schema of the settings. */
export const TRANSFER_SCHEMA = {
  type: 'object',
  additionalProperties: false,
  required: ['from', 'to'],
  properties: {
    from: places('What is copied. A folder with a slash at its end means its content, without one the folder itself'),
    to: places('Where it is copied to; several places get the same, one after the other'),
    preset: {
      enum: PRESETS,
      description:
        'copy (default): adds and overwrites, deletes nothing; update: leaves what is newer at the destination; mirror: also deletes what the source does not have; archive: also owners, hard links, ACLs and extended attributes',
    },
    options: {
      type: 'array',
      maxItems: OPTIONS_MAX,
      items: { type: 'string', minLength: 2, maxLength: 1000 },
      description: 'More options of rsync, from the list that docs/guides/rsync-between-hosts.md gives',
    },
    rules: {
      type: 'array',
      maxItems: RULES_MAX,
      description: 'Patterns of rsync for names; the first that fits decides',
      items: {
        type: 'object',
        additionalProperties: false,
        minProperties: 1,
        maxProperties: 1,
        properties: {
          exclude: { ...path, description: 'Not copied, and not deleted at the destination' },
          include: { ...path, description: 'Copied although a later rule excludes it' },
          protect: { ...path, description: 'Never deleted at the destination' },
          hide: { ...path, description: 'Not copied; deleted at the destination by a mirror' },
          show: { ...path, description: 'Copied although a later rule hides it' },
          risk: { ...path, description: 'May be deleted although a later rule protects it' },
        },
      },
    },
    permissions: {
      enum: PERMISSIONS,
      description:
        'keep (default): as at the source; group: the group reads and writes, and new files stay in it; group-read: the group reads; private: the owner alone; public: everybody reads',
    },
    group: { type: 'string', description: 'Group that everything belongs to at the destination' },
    bandwidth: BANDWIDTH_SCHEMA,
    maxDelete: {
      type: ['integer', 'string'],
      minimum: 0,
      maximum: 2_000_000_000,
      pattern: '^unlimited$',
      description: 'A transfer that deletes stops deleting after so many, and fails; default 1000',
    },
    partial: {
      type: 'boolean',
      description: 'Keep what was copied of a file when the transfer breaks off, and go on there; default true',
    },
    delayUpdates: { type: 'boolean', description: 'Put all new files in place together, at the end; default false' },
    connectSeconds: {
      type: 'integer',
      minimum: 1,
      maximum: 600,
      description: 'A connection must stand within so many seconds; default 20',
    },
    idleSeconds: {
      type: 'integer',
      minimum: 10,
      maximum: 86_400,
      description: 'A transfer that moves nothing for so many seconds is broken off; default 300',
    },
    emptySource: {
      enum: ['stop', 'allow'],
      description:
        'Whether a transfer that deletes may have an empty source; stop (default) protects from a disk that is not mounted',
    },
    verify: {
      enum: VERIFICATIONS,
      description:
        'none (default): nothing more than rsync does; again: a second look finds nothing left to copy; checksum: the same by the content of every file; sha256: a manifest made at the source is checked at the destination',
    },
  },
} as const

/** What a schema cannot say. */
export function transferFaults(transfer: Transfer): Fault[] {
  const { from, to, options = [], rules = [], group, bandwidth, preset } = transfer
  const faults: Fault[] = [
    ...listed(from, '/from').flatMap(([place, path]) => placeFaults(place, path, true)),
    ...listed(to, '/to').flatMap(([place, path]) => placeFaults(place, path, false)),
    ...options.flatMap((option, index) => optionFaults(option, `/options/${index}`)),
    ...rules.flatMap((rule, index) => ruleFaults(rule, `/rules/${index}`)),
    ...(bandwidth === undefined ? [] : bandwidthFaults(bandwidth, '/bandwidth')),
  ]
  if (group !== undefined && !GROUP.test(group)) faults.push({ path: '/group', message: 'is not the name of a group' })
  const words = new Set([
    ...(preset === 'update' ? ['update'] : []),
    ...options.flatMap((option) => parseOption(option) ?? []).map(({ name }) => name),
  ])
  const sources = placesOf(from)
  const away = (places: readonly Place[]) => places.some((place) => typeof place !== 'string')
  if (away(sources) && away(placesOf(to)))
    faults.push({
      path: '/to',
      message:
        'is on another host, and so is a source: rsync copies between here and one host. Give the job to the site on one of the two',
    })
  if (transfer.verify === 'sha256' && LEAVES.some((word) => words.has(word)))
    faults.push({
      path: '/verify',
      message:
        'cannot be sha256 where files at the destination may rightly differ from the source, or have other names: use again or checksum',
    })
  const hosts = new Set(sources.map(hostOf).map((host) => JSON.stringify(host ?? null)))
  if (hosts.size > 1 && deletes(transfer))
    faults.push({
      path: preset === 'mirror' ? '/preset' : '/options',
      message:
        'deletes at the destination what a source does not have, and the sources are on several hosts: each would delete what the others brought',
    })
  return faults
}

/** One call of rsync for each destination and each host that sources are on. */
export function legsOf({ from, to }: Transfer): readonly Leg[] {
  return placesOf(to).flatMap((destination) => {
    const byHost = Map.groupBy(placesOf(from), (place) => JSON.stringify(hostOf(place) ?? null))
    return [...byHost.values()].map((sources): Leg => {
      const host = hostOf(destination) ?? hostOf(sources[0] ?? '')
      return { sources, destination, ...(host !== undefined && { host }) }
    })
  })
}

/** True when the transfer may delete at its destination. */
export function deletes({ preset, options = [] }: Transfer): boolean {
  return preset === 'mirror' || options.some((option) => /^--del(?:ete.*)?$/.test(option))
}

export function hostOf(place: Place): SshHost | undefined {
  if (typeof place === 'string') return undefined
  const { path: _, ...host } = place
  return host
}

/** A place for people. */
export function placeLabel(place: Place): string {
  return typeof place === 'string' ? place : `${hostLabel(place)}:${place.path}`
}

function placesOf(value: Place | readonly Place[]): readonly Place[] {
  return Array.isArray(value) ? (value as readonly Place[]) : [value as Place]
}

function listed(value: Place | readonly Place[], path: string): (readonly [Place, string])[] {
  if (!Array.isArray(value)) return [[value as Place, path]]
  return (value as readonly Place[]).map((place, index) => [place, `${path}/${index}`])
}

function placeFaults(place: Place, path: string, source: boolean): Fault[] {
  if (typeof place === 'string') return pathFaults(place, path, false)
  const faults = [...hostFaults(place, path), ...pathFaults(place.path, `${path}/path`, true)]
  if (source && /[*?[\\{}]/.test(place.path))
    faults.push({
      path: `${path}/path`,
      message: 'has a character of patterns, which the other host would expand: name a folder, and use rules',
    })
  return faults
}

function pathFaults(path: string, at: string, remote: boolean): Fault[] {
  if (CONTROL.test(path)) return [{ path: at, message: 'has a control character' }]
  if (path.startsWith('/')) return []
  if (!remote) return [{ path: at, message: 'must be an absolute path' }]
  if (/^[-~]/.test(path)) return [{ path: at, message: `must not begin with ${path[0]}: give the absolute path` }]
  return []
}

function ruleFaults(rule: Rule, at: string): Fault[] {
  return Object.entries(rule).flatMap(([kind, pattern]) =>
    CONTROL.test(pattern) || pattern.trim() === '' ? [{ path: `${at}/${kind}`, message: 'is no pattern' }] : [],
  )
}
