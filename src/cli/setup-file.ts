import { type Fault, invalid, type JobFile, jobsOf, readYaml, type YamlFile } from './job-file.ts'

/** A set-up as a file has it. A part that is absent is none of its business: what the site has of it stays. */
export type Setup = {
  readonly resources?: readonly GivenResource[]
  readonly peers?: readonly GivenPeer[]
  readonly tasks?: readonly GivenTask[]
  readonly jobs?: readonly unknown[]
}

export type Given = Readonly<Record<string, unknown>>
export type GivenResource = Given & { readonly name: string; readonly table?: string; readonly key?: string }
export type GivenPeer = Given & { readonly name: string; readonly grants?: GivenGrants }
export type GivenGrants = Readonly<Partial<Record<'pull' | 'push', Readonly<Record<string, Given | null>>>>>
export type GivenTask = Given & { readonly peer: string; readonly resource: string; readonly mode: string }

export type SetupFile = {
  readonly setup: Setup
  readonly lineOf: (pointer: string) => number
  /** The same, of faults in the list of jobs. */
  readonly jobFile: JobFile | null
}

type Kind = 'text' | 'flag' | 'texts' | 'map' | 'text or null' | 'texts or null'
type Shape = { readonly known: Readonly<Record<string, Kind>>; readonly needed: readonly string[] }

/** What grants and tasks have in common. */
const RULES = {
  filter: 'text or null',
  columns: 'texts or null',
  onConflict: 'text',
  master: 'text or null',
  fields: 'map',
  maxDeletes: 'text or null',
  maxChanges: 'text or null',
} as const
const SHAPES = {
  resources: {
    known: { name: 'text', table: 'text', key: 'text', addUuid: 'flag', managed: 'flag', schema: 'map' },
    needed: [],
  },
  peers: {
    known: {
      ...{ name: 'text', uuid: 'text', kind: 'text', url: 'text or null', proxyUrl: 'text or null', paused: 'flag' },
      ...{ caPem: 'text or null', clientCertPem: 'text or null', tokenFile: 'text', grants: 'map', folder: 'map' },
    },
    needed: ['name'],
  },
  tasks: {
    known: {
      ...{ peer: 'text', resource: 'text', mode: 'text', ...RULES, onLeft: 'text', emptyGuard: 'flag' },
      ...{ canary: 'text or null', mapping: 'map', schedule: 'text or null', enabled: 'flag' },
    },
    needed: ['peer', 'resource', 'mode'],
  },
  grants: { known: RULES, needed: [] },
} as const satisfies Record<string, Shape>

const PARTS = ['resources', 'peers', 'tasks', 'jobs'] as const

/** Reads a set-up, or jobs alone. Errors: SYNC_REQUEST_INVALID with every fault of its form and its line. */
export async function readSetup(file: string, stdin: AsyncIterable<Uint8Array | string>): Promise<SetupFile> {
  const yaml = await readYaml(file, stdin)
  const { content, lineOf } = yaml
  if (!isMap(content) || !PARTS.some((part) => part in content)) return onlyJobs(file, yaml)
  const faults: Fault[] = []
  for (const name of Object.keys(content))
    if (!(PARTS as readonly string[]).includes(name))
      faults.push({ path: `/${name}`, message: `is not known here; known are ${PARTS.join(', ')}` })
  for (const part of PARTS) faults.push(...partFaults(content, part))
  refuse(file, lineOf, faults)
  const jobFile = 'jobs' in content ? jobsOf(file, yaml) : null
  return { setup: named(content as Setup), lineOf, jobFile }
}

/** Every fault with file and line. Throws SYNC_REQUEST_INVALID when there are any. */
export function refuse(file: string, lineOf: SetupFile['lineOf'], faults: readonly Fault[]): void {
  if (faults.length === 0) return
  const told = faults
    .map(({ path, message }) => ({ line: lineOf(path), text: `${path} ${message}` }))
    .sort((a, b) => a.line - b.line)
  throw invalid(told.map(({ line, text }) => `${file}:${line}: ${text}`))
}

function onlyJobs(file: string, yaml: YamlFile): SetupFile {
  const jobFile = jobsOf(file, yaml)
  return { setup: { jobs: jobFile.jobs }, lineOf: yaml.lineOf, jobFile }
}

/** A resource has the name of its table when it says none. */
function named(setup: Setup): Setup {
  const resources = setup.resources?.map((each) => ({
    ...each,
    name: each.name ?? each.table?.replace(/^.*\./, '') ?? '',
  }))
  return { ...setup, ...(resources && { resources }) }
}

function partFaults(content: Given, part: (typeof PARTS)[number]): readonly Fault[] {
  if (!(part in content)) return []
  const list = content[part]
  if (!Array.isArray(list)) return [{ path: `/${part}`, message: 'must be a list' }]
  if (part === 'jobs') return []
  const faults: Fault[] = []
  const seen = new Set<string>()
  for (const [at, item] of list.entries()) {
    const path = `/${part}/${at}`
    if (!isMap(item)) {
      faults.push({ path, message: 'must be settings, each as name: value' })
      continue
    }
    faults.push(...shapeFaults(item, path, SHAPES[part]))
    if (part === 'resources' && typeof item.name !== 'string' && typeof item.table !== 'string')
      faults.push({ path, message: 'needs "table", or "name" with "managed"' })
    if (part === 'peers' && isMap(item.grants)) faults.push(...grantFaults(item.grants, `${path}/grants`))
    const key = part === 'tasks' ? `${item.peer} ${item.resource}` : String(item.name ?? item.table)
    if (seen.has(key)) faults.push({ path, message: `is there twice: ${key}` })
    seen.add(key)
  }
  return faults
}

function grantFaults(grants: Given, path: string): readonly Fault[] {
  return Object.entries(grants).flatMap(([direction, resources]): readonly Fault[] => {
    const at = `${path}/${direction}`
    if (direction !== 'pull' && direction !== 'push') return [{ path: at, message: 'must be pull or push' }]
    if (!isMap(resources)) return [{ path: at, message: 'must name resources, each with its rules' }]
    return Object.entries(resources).flatMap(([name, rules]): readonly Fault[] => {
      if (rules === null) return []
      if (isMap(rules)) return shapeFaults(rules, `${at}/${name}`, SHAPES.grants)
      return [{ path: `${at}/${name}`, message: 'must be rules, each as name: value, or nothing' }]
    })
  })
}

function shapeFaults(item: Given, path: string, { known, needed }: Shape): readonly Fault[] {
  const faults: Fault[] = []
  for (const [name, value] of Object.entries(item)) {
    const kind = Object.hasOwn(known, name) ? known[name] : undefined
    if (kind === undefined)
      faults.push({ path: `${path}/${name}`, message: `is not known here; known are ${Object.keys(known).join(', ')}` })
    else if (!fits(value, kind)) faults.push({ path: `${path}/${name}`, message: `must be ${WORDS[kind]}` })
  }
  for (const name of needed) if (!(name in item)) faults.push({ path, message: `needs "${name}"` })
  return faults
}

const WORDS: Readonly<Record<Kind, string>> = {
  text: 'a text',
  'text or null': 'a text or null',
  texts: 'a list of texts',
  'texts or null': 'a list of texts or null',
  flag: 'true or false',
  map: 'settings, each as name: value',
}

function fits(value: unknown, kind: Kind): boolean {
  if (value === null) return kind.endsWith('or null')
  if (kind === 'flag') return typeof value === 'boolean'
  if (kind === 'map') return isMap(value)
  if (kind.startsWith('texts')) return Array.isArray(value) && value.every((each) => typeof each === 'string')
  return typeof value === 'string'
}

export function isMap(value: unknown): value is Given {
  return typeof value === 'object' && value !== null && !Array.isArray(value)
}
