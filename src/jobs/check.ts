import type { ErrorObject } from 'ajv'
import { Ajv2020 } from 'ajv/dist/2020.js'
import {
  type Guarded,
  type Job,
  jobSchema,
  type Parts,
  type Retries,
  type Step,
  secondsOf,
  type Trigger,
} from './definition.ts'
import type { Fault, HostLease, JsonSchema, StepHandler } from './step.ts'
import { readTrigger } from './times.ts'

/** Definitions in, jobs or all their faults out. */
export type JobCheck = {
  /** The JSON Schema of one definition. */
  readonly schema: JsonSchema
  /** `job` when there are no faults. Paths are JSON Pointers into the definition. */
  readonly check: (definition: unknown) => { readonly job?: Job; readonly faults: readonly Fault[] }
}

type Given = Readonly<Record<string, unknown>>
type Duration = string | number
type GivenStep = Given & { name?: string; onFailure?: Step['onFailure']; retries?: GivenRetries; timeLimit?: Duration }
type GivenRetries = number | { limit?: number; delay?: Duration; factor?: number; max?: Duration }
type GivenGuard = Given & { every?: Duration; timeLimit?: Duration; onTimeout?: Guarded['onTimeout'] }

const STEP_MEMBERS = new Set(['name', 'onFailure', 'retries', 'timeLimit'])
const GUARD_MEMBERS = new Set(['every', 'timeLimit', 'onTimeout'])
const EVERY_SECONDS = 5
const FAULTS_MAX = 200

/** Makes the check for a site's kinds of steps and leases. */
export function createCheck(parts: Parts): JobCheck {
  const schema = jobSchema(parts)
  const ajv = new Ajv2020({ allErrors: true, verbose: true, strict: false, validateFormats: false })
  const validate = ajv.compile(schema)
  const handlers = new Map(parts.steps.map((handler) => [handler.kind, handler as StepHandler<unknown>]))
  const keepers = new Map(parts.leases.map((keeper) => [keeper.kind, keeper as HostLease<unknown>]))
  return {
    schema,
    check: (definition) => {
      const faults: Fault[] = validate(definition) ? [] : describeAll(validate.errors ?? [])
      const found = reader(handlers, keepers, faults)
      const job = found(definition, faults.length === 0)
      return faults.length > 0 || job === null ? { faults: faults.slice(0, FAULTS_MAX) } : { job, faults }
    },
  }
}

/** What a schema cannot say is looked at also where other parts have faults, as far as it can be: all faults are told at once. */
function reader(
  handlers: ReadonlyMap<string, StepHandler<unknown>>,
  keepers: ReadonlyMap<string, HostLease<unknown>>,
  faults: Fault[],
) {
  const tell = (path: string, message: string) => faults.push({ path, message })
  const sound = (path: string) => !faults.some((fault) => fault.path === path || fault.path.startsWith(`${path}/`))

  /** The one kind of a step or guard; null when there is none, or several, which is told. */
  const kindOf = (given: Given, path: string, members: ReadonlySet<string>, kinds: readonly string[]) => {
    const named = Object.keys(given).filter((key) => !members.has(key) && kinds.includes(key))
    if (named.length === 1) return named[0] as string
    if (sound(path) || named.length > 1)
      tell(
        path,
        `must have exactly one of ${kinds.join(', ')}${named.length === 0 ? '' : `, not ${named.join(' and ')}`}`,
      )
    return null
  }

  const step = (given: GivenStep, path: string, job: Given, at: number): Step | null => {
    const kind = kindOf(given, path, STEP_MEMBERS, [...handlers.keys()])
    const handler = kind === null ? undefined : handlers.get(kind)
    if (kind === null || handler === undefined || !sound(`${path}/${kind}`)) return null
    const settings = given[kind]
    for (const fault of handler.check?.(settings) ?? []) tell(`${path}/${kind}${fault.path}`, fault.message)
    return {
      name: given.name ?? `${path.startsWith('/always') ? 'always-' : ''}${kind}-${at + 1}`,
      kind,
      settings,
      repeatable: handler.repeatable(settings),
      onFailure: given.onFailure ?? (job.onFailure as Step['onFailure'] | undefined) ?? 'stop',
      retries: retriesOf(given.retries ?? (job.retries as GivenRetries | undefined) ?? 0),
      limitSeconds: given.timeLimit === undefined ? null : secondsOf(given.timeLimit),
    }
  }

  const guarded = (given: GivenGuard, path: string, gate: boolean): Guarded | null => {
    const kinds = ['lease', ...keepers.keys(), ...(gate ? ['job'] : [])]
    const kind = kindOf(given, path, GUARD_MEMBERS, kinds)
    if (kind === null || !sound(`${path}/${kind}`)) return null
    const settings = given[kind]
    const keeper = keepers.get(kind)
    for (const fault of keeper?.check?.(settings) ?? []) tell(`${path}/${kind}${fault.path}`, fault.message)
    if (!sound(`${path}/${kind}`)) return null
    return {
      kind,
      settings,
      label: keeper === undefined ? `${kind} ${String(settings)}` : keeper.label(settings),
      everySeconds: Math.max(given.every === undefined ? EVERY_SECONDS : secondsOf(given.every), 0.1),
      limitSeconds: given.timeLimit === undefined ? null : secondsOf(given.timeLimit),
      onTimeout: given.onTimeout ?? 'skip',
    }
  }

  const triggersOf = (given: Given): readonly Trigger[] => {
    const list = Array.isArray(given.schedule) ? given.schedule : given.schedule === undefined ? [] : [given.schedule]
    return list.flatMap((each: unknown, n) => {
      const path = Array.isArray(given.schedule) ? `/schedule/${n}` : '/schedule'
      if (!isObject(each) || !sound(path)) return []
      const read = readTrigger(each)
      if ('fault' in read) tell(`${path}${read.path}`, read.fault)
      return 'fault' in read ? [] : [read.trigger]
    })
  }

  const listOf = <T>(given: unknown, path: string, one: (item: Given, path: string, at: number) => T | null) =>
    (Array.isArray(given) ? given : []).flatMap((item: unknown, at): readonly T[] => {
      const made = isObject(item) ? one(item, `${path}/${at}`, at) : null
      return made === null ? [] : [made]
    })

  const oneOfEach = (items: readonly string[], path: string, what: string) => {
    for (const [at, item] of items.entries())
      if (items.indexOf(item) !== at) tell(`${path}/${at}`, `${what} "${item}" is there twice`)
  }

  return (definition: unknown, valid: boolean): Job | null => {
    if (!isObject(definition)) return null
    const triggers = triggersOf(definition)
    const gates = listOf(definition.gates, '/gates', (item, path) => guarded(item, path, true))
    const leases = listOf(definition.leases, '/leases', (item, path) => guarded(item, path, false))
    const steps = listOf(definition.steps, '/steps', (item, path, at) => step(item, path, definition, at))
    const always = listOf(definition.always, '/always', (item, path, at) => step(item, path, { retries: 0 }, at))
    oneOfEach(
      leases.map(({ label }) => label),
      '/leases',
      'the lease',
    )
    oneOfEach(
      [...steps, ...always].map((each) => each.name),
      '/steps',
      'a step named',
    )
    if (!valid || faults.length > 0) return null
    const peers = [
      ...[...steps, ...always].flatMap(({ kind, settings }) => handlers.get(kind)?.peers?.(settings) ?? []),
      ...[...gates, ...leases].flatMap(({ kind, settings }) => keepers.get(kind)?.peers?.(settings) ?? []),
    ]
    return complete(definition, { triggers, gates, leases, steps, always, peers: [...new Set(peers)].sort() })
  }
}

function complete(given: Given, read: Pick<Job, 'triggers' | 'gates' | 'leases' | 'steps' | 'always' | 'peers'>): Job {
  const { limits = {}, history = {} } = given as { limits?: Partial<Job['limits']>; history?: Partial<Job['history']> }
  const parallel = given.overlap === 'parallel'
  return {
    ...read,
    name: given.name as string,
    description: (given.description as string | undefined) ?? '',
    enabled: given.enabled !== false,
    jitterSeconds: given.jitter === undefined ? 0 : secondsOf(given.jitter as Duration),
    missed: (given.missed as Job['missed'] | undefined) ?? 'once',
    overlap: (given.overlap as Job['overlap'] | undefined) ?? 'coalesce',
    limitSeconds: given.timeLimit === undefined ? null : secondsOf(given.timeLimit as Duration),
    deadLetter: given.deadLetter !== false,
    priority: (given.priority as number | undefined) ?? 0,
    limits: { job: limits.job ?? (parallel ? 100 : 1), peer: limits.peer ?? null, site: limits.site ?? null },
    dryRun: given.dryRun === true,
    history: { runs: history.runs ?? 1000, days: history.days ?? 90, outputBytes: history.outputBytes ?? 65_536 },
  }
}

function retriesOf(given: GivenRetries): Retries {
  const { limit = 0, delay = 10, factor = 2, max = 300 } = typeof given === 'number' ? { limit: given } : given
  return { limit, delaySeconds: secondsOf(delay), factor, maxSeconds: secondsOf(max) }
}

function isObject(value: unknown): value is Given {
  return typeof value === 'object' && value !== null && !Array.isArray(value)
}

/** What ajv says, in words of people, once for each place. */
function describeAll(errors: readonly ErrorObject[]): Fault[] {
  const inside = errors.filter(({ keyword, schemaPath, instancePath }) => {
    // Of alternatives only what is wrong inside the one that was meant is worth saying, not that it is none of the others.
    return (
      keyword !== 'anyOf' && !(keyword === 'type' && instancePath === '/schedule' && schemaPath.includes('/anyOf/'))
    )
  })
  const missed = errors.filter(
    ({ keyword, instancePath: path }) =>
      keyword === 'anyOf' &&
      !inside.some((other) => other.instancePath === path || other.instancePath.startsWith(`${path}/`)),
  )
  const faults = [...inside, ...missed].map(describe)
  return [...new Map(faults.map((fault) => [`${fault.path} ${fault.message}`, fault])).values()]
}

const TYPES: Readonly<Record<string, string>> = {
  integer: 'a whole number',
  number: 'a number',
  string: 'a text',
  array: 'a list',
  object: 'settings, each as name: value',
  boolean: 'true or false',
}

function describe({ keyword, params, instancePath: path, message, data, parentSchema }: ErrorObject): Fault {
  switch (keyword) {
    case 'additionalProperties': {
      const known = Object.keys((parentSchema as { properties?: object } | undefined)?.properties ?? {})
      const name = String(params.additionalProperty)
      return { path: `${path}/${escaped(name)}`, message: `is not known here; known are ${known.join(', ')}` }
    }
    case 'anyOf':
      return {
        path,
        message: `must be what sets it off, such as { cron: "30 2 * * *" }, or a list of those; not ${shown(data)}`,
      }
    case 'required':
      return { path, message: `needs "${String(params.missingProperty)}"` }
    case 'enum':
      return { path, message: `must be one of ${(params.allowedValues as readonly unknown[]).join(', ')}` }
    case 'const':
      return { path, message: `must be ${JSON.stringify(params.allowedValue)}` }
    case 'type': {
      const wanted = (Array.isArray(params.type) ? params.type : [params.type]) as readonly string[]
      return { path, message: `must be ${wanted.map((type) => TYPES[type] ?? type).join(' or ')}, not ${shown(data)}` }
    }
    case 'minimum':
      return { path, message: `must be at least ${params.limit}` }
    case 'maximum':
      return { path, message: `must be at most ${params.limit}` }
    case 'minItems':
      return { path, message: 'must not be empty' }
    case 'maxItems':
      return { path, message: `must have at most ${params.limit} items` }
    case 'minLength':
      return { path, message: 'must not be empty' }
    case 'pattern':
      return { path, message: `${shown(data)} does not have the form that is needed${hint(parentSchema)}` }
    default:
      return { path, message: message ?? 'is not valid' }
  }
}

function hint(schema: unknown): string {
  const { description = '', examples = [] } = (schema ?? {}) as { description?: string; examples?: readonly unknown[] }
  const such = examples.length > 0 ? ` (such as ${examples.join(', ')})` : ''
  return description === '' ? such : `: ${description}${such}`
}

function shown(data: unknown): string {
  const text = JSON.stringify(data) ?? String(data)
  return text.length <= 60 ? text : `${text.slice(0, 59)}…`
}

function escaped(name: string): string {
  return name.replaceAll('~', '~0').replaceAll('/', '~1')
}
