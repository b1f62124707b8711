import type { HostLease, JsonSchema, StepHandler } from './step.ts'

/** What a job is, as people write it: one JSON Schema for YAML, API and console. src/jobs/check.ts turns it into a Job. */

/** How a run of the job is set off. A job may have several. */
export type Trigger =
  | { readonly kind: 'cron'; readonly rule: string; readonly timeZone: string }
  | { readonly kind: 'every'; readonly seconds: number }
  | { readonly kind: 'event'; readonly event: string }
  | { readonly kind: 'manual' }
  | { readonly kind: 'signal' }

export type Retries = {
  readonly limit: number
  readonly delaySeconds: number
  readonly maxSeconds: number
  readonly factor: number
}

/** One thing to be free, or to be held. `kind` is `lease` (in the database), `job`, or that of a HostLease. */
export type Guarded = {
  readonly kind: string
  readonly settings: unknown
  /** Names it for people, and puts several in order. */
  readonly label: string
  readonly everySeconds: number
  /** Null for as long as it takes. */
  readonly limitSeconds: number | null
  readonly onTimeout: 'skip' | 'fail'
}

export type Step = {
  readonly name: string
  readonly kind: string
  readonly settings: unknown
  readonly repeatable: boolean
  readonly onFailure: 'stop' | 'continue' | 'warn'
  readonly retries: Retries
  readonly limitSeconds: number | null
}

/** A definition with every default in its place. */
export type Job = {
  readonly name: string
  readonly description: string
  readonly enabled: boolean
  readonly triggers: readonly Trigger[]
  readonly jitterSeconds: number
  readonly missed: 'skip' | 'once' | 'all'
  readonly overlap: 'coalesce' | 'skip' | 'parallel'
  readonly gates: readonly Guarded[]
  readonly leases: readonly Guarded[]
  readonly steps: readonly Step[]
  readonly always: readonly Step[]
  readonly limitSeconds: number | null
  readonly deadLetter: boolean
  readonly priority: number
  readonly limits: { readonly job: number; readonly peer: number | null; readonly site: number | null }
  readonly dryRun: boolean
  readonly history: { readonly runs: number; readonly days: number; readonly outputBytes: number }
  /** Peers that its steps and leases have to do with. */
  readonly peers: readonly string[]
}

/** Everything that a definition can name. */
export type Parts = {
  readonly steps: readonly StepHandler<never>[]
  readonly leases: readonly HostLease<never>[]
}

export const NAME_PATTERN = '^[A-Za-z0-9][A-Za-z0-9._-]{0,62}$'
const STEPS_MAX = 50
const GUARDED_MAX = 50
const YEAR_SECONDS = 366 * 86_400

const text = (description: string, maxLength: number, more: object = {}) => ({
  type: 'string',
  minLength: 1,
  maxLength,
  description,
  ...more,
})
const name = (description: string) => text(description, 63, { pattern: NAME_PATTERN })
const flag = (description: string, fallback: boolean) => ({ type: 'boolean', default: fallback, description })
const whole = (description: string, minimum: number, maximum: number, more: object = {}) => ({
  type: 'integer',
  minimum,
  maximum,
  description,
  ...more,
})
const words = (values: readonly string[], fallback: string, description: string) => ({
  type: 'string',
  enum: values,
  default: fallback,
  description,
})
const closed = (properties: object, more: object = {}) => ({
  type: 'object',
  properties,
  additionalProperties: false,
  ...more,
})

/** Seconds, or a number with its unit. Handlers may use it for their own settings; `secondsOf` reads it. */
export const durationSchema = (description: string): JsonSchema => ({
  description: `${description} Seconds, or a number with s, m, h or d.`,
  type: ['string', 'integer'],
  minimum: 0,
  maximum: YEAR_SECONDS,
  pattern: '^\\d{1,8}(ms|s|m|h|d)$',
  examples: ['90s', '5m', '2h'],
})

/** Seconds of what `durationSchema` lets through. */
export function secondsOf(duration: string | number): number {
  if (typeof duration === 'number') return duration
  const [, digits = '0', unit = 's'] = /^(\d+)(ms|s|m|h|d)$/.exec(duration) ?? []
  return Number(digits) * { ms: 0.001, s: 1, m: 60, h: 3600, d: 86_400 }[unit as 's']
}

const timeZone = text('Time zone of the rule, such as Europe/Vienna; UTC when absent.', 64)
const trigger = {
  description: 'What sets off a run.',
  type: 'object',
  properties: {
    cron: text('Minute, hour, day of month, month, day of week; six fields begin with seconds.', 200, {
      examples: ['30 2 * * *'],
    }),
    every: durationSchema('Even intervals, from 5 seconds to a week.'),
    calendar: text('hourly; daily, weekdays, weekends, or days of the week or month, with a time of day.', 200, {
      examples: ['daily at 02:30', 'weekdays at 18:00', 'monday, thursday at 06:15', 'monthly on 1, 15 at 04:00'],
    }),
    event: text('`job NAME`, with `success` or `failure` after it if only that is meant; or `sync PEER`.', 200, {
      pattern: '^(job [A-Za-z0-9][A-Za-z0-9._-]{0,62}( (success|failure))?|sync [A-Za-z0-9][A-Za-z0-9._-]{0,62})$',
      examples: ['job export success', 'sync hub'],
    }),
    manual: { const: true, description: 'Only when a person or a program asks.' },
    signal: { const: true, description: 'Only when the site gets SIGHUP, or when asked.' },
    timeZone,
  },
  additionalProperties: false,
}

const retries = {
  description: 'How often a step that failed is tried again: a number, or more exactly.',
  type: ['integer', 'object'],
  minimum: 0,
  maximum: 100,
  properties: {
    limit: whole('How often.', 0, 100, { default: 0 }),
    delay: durationSchema('Pause before the first time; 10 seconds when absent.'),
    factor: {
      type: 'number',
      minimum: 1,
      maximum: 10,
      default: 2,
      description: 'By how much the pause grows each time.',
    },
    max: durationSchema('The longest pause; 5 minutes when absent.'),
  },
  additionalProperties: false,
}

/** The schema of one job, with what the given parts add. */
export function jobSchema({ steps, leases }: Parts): JsonSchema {
  const step = closed(
    {
      name: name('Name of the step; its kind and place when absent.'),
      onFailure: words(
        ['stop', 'continue', 'warn'],
        'stop',
        'What a failure does to the steps after: nothing more is begun, they go on, or they go on and it only counts as a warning. Default: that of the job.',
      ),
      retries,
      timeLimit: durationSchema('A step that takes longer is ended and has failed.'),
      ...Object.fromEntries(steps.map(({ kind, schema }) => [kind, schema])),
    },
    { description: 'One piece of work: exactly one of the kinds of work.' },
  )
  const guard = (extra: object, what: string) =>
    closed(
      {
        lease: text('A lease in the database of this site.', 200, { pattern: '^[A-Za-z0-9][A-Za-z0-9._:/-]*$' }),
        ...Object.fromEntries(leases.map(({ kind, schema }) => [kind, schema])),
        ...extra,
        every: durationSchema('How often it is looked at while it is not free; 5 seconds when absent.'),
        timeLimit: durationSchema('How long it is waited for; for ever when absent.'),
        onTimeout: words(['skip', 'fail'], 'skip', 'What becomes of the run when the time is over.'),
      },
      { description: what },
    )
  return closed(
    {
      name: name('Names the job, in commands and metrics.'),
      description: text('For people.', 1000),
      enabled: flag('False keeps it from being set off by itself.', true),
      schedule: {
        description: 'What sets it off; several as a list. By hand only when absent.',
        anyOf: [trigger, { type: 'array', items: trigger, minItems: 1, maxItems: 10 }],
      },
      jitter: durationSchema('Each run starts later by something between nothing and this.'),
      missed: words(
        ['skip', 'once', 'all'],
        'once',
        'What becomes of times that passed while nothing ran here: none is made up for, one for all, or each (at most 24).',
      ),
      overlap: words(
        ['coalesce', 'skip', 'parallel'],
        'coalesce',
        'What becomes of a time that comes while a run is under way: one run after it for all such times, none, or a run beside it.',
      ),
      gates: {
        type: 'array',
        maxItems: GUARDED_MAX,
        items: guard({ job: name('A job without a run under way.') }, 'What must be free before anything begins.'),
        description: 'What must be free before anything begins.',
      },
      leases: {
        type: 'array',
        maxItems: GUARDED_MAX,
        items: guard({}, 'What is held while it runs.'),
        description: 'What is held while it runs: all of them or none.',
      },
      steps: { type: 'array', minItems: 1, maxItems: STEPS_MAX, items: step, description: 'The work, in order.' },
      always: {
        type: 'array',
        maxItems: STEPS_MAX,
        items: step,
        description: 'Done at the end of every run that has begun, however it went.',
      },
      onFailure: words(['stop', 'continue', 'warn'], 'stop', 'What a failed step does to those after it.'),
      timeLimit: durationSchema('A run that takes longer is ended; `always` still follows.'),
      retries,
      deadLetter: flag('A run that failed for good waits for a person until a later one succeeds.', true),
      priority: whole('Of several that could start, those with more go first.', -100, 100, { default: 0 }),
      limits: closed(
        {
          job: whole('Runs of this job at once.', 1, 100, { default: 1 }),
          peer: whole('It starts only while fewer runs with any of its peers are under way.', 1, 1000),
          site: whole('It starts only while fewer runs are under way here in all.', 1, 1000),
        },
        { description: 'How many runs may be under way.' },
      ),
      dryRun: flag('Runs only tell what they would do, unless they are started with --execute.', false),
      history: closed(
        {
          runs: whole('Finished runs that are kept.', 1, 100_000, { default: 1000 }),
          days: whole('How long they are kept.', 1, 3650, { default: 90 }),
          outputBytes: whole('Output that is kept of one try of a step, its beginning and its end.', 0, 4_194_304, {
            default: 65_536,
          }),
        },
        { description: 'What is kept of runs that are over.' },
      ),
    },
    { $schema: 'https://json-schema.org/draft/2020-12/schema', title: 'Job', required: ['name', 'steps'] },
  )
}
