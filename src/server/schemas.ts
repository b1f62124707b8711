import { type Static, type TSchema, Type } from 'typebox'
import { EDEN_POLICIES, type EdenPolicy, FIELD_RULES, MODES, POLICIES, USUAL_LIMITS } from '../sync/index.ts'

/** Pieces that several routes describe their requests and answers with. */

/** One of a closed set of words. */
export function words<const T extends readonly string[]>(values: T, options: Record<string, unknown> = {}) {
  return Type.Unsafe<T[number]>({ type: 'string', enum: [...values], ...options })
}

export function nullable<T extends TSchema>(schema: T, options: Record<string, unknown> = {}) {
  return Type.Union([schema, Type.Null()], options)
}

/** An object that has exactly these members. With `title` it becomes a named schema of the document. */
export function closed<T extends Record<string, TSchema>>(members: T, options: Record<string, unknown> = {}) {
  return Type.Object(members, { additionalProperties: false, ...options })
}

export const text = (description: string, options: Record<string, unknown> = {}) =>
  Type.String({ description, ...options })
export const count = (description: string) => Type.Integer({ minimum: 0, description })
export const flag = (description: string) => Type.Boolean({ description })
export const time = (description: string) =>
  Type.String({ format: 'date-time', description, examples: ['2026-11-22T09:30:00.000000Z'] })
export const uuid = (description: string) =>
  Type.String({ format: 'uuid', description, examples: ['0a8f0c1e-0d43-4f0a-9c5b-3c2b7f6f1d11'] })

/** Any JSON value. */
export const anyJson = (description: string) => Type.Unsafe<unknown>({ description })

type DeepReadonly<T> = T extends readonly (infer U)[]
  ? readonly DeepReadonly<U>[]
  : T extends object
    ? { readonly [K in keyof T]: DeepReadonly<T[K]> }
    : T

/** A schema of what we answer: what nobody may change will do. */
export function answer<T extends TSchema>(schema: T) {
  return Type.Unsafe<DeepReadonly<Static<T>>>(schema)
}
export const rowId = (description: string) =>
  Type.String({ pattern: '^[1-9][0-9]{0,18}$', description, examples: ['17'] })
export const resourceName = Type.String({
  minLength: 1,
  maxLength: 63,
  description: 'Name of the resource.',
  examples: ['city'],
})
export const peerRef = Type.String({
  minLength: 1,
  maxLength: 63,
  description: 'Name, UUID or id of the peer.',
  examples: ['field-laptop'],
})
export const recordId = Type.String({ minLength: 1, maxLength: 640, description: 'Record id.', examples: ['AT'] })
export const filterText = Type.String({
  minLength: 1,
  maxLength: 4000,
  description: 'Filter, see docs/guides/filters.md.',
  examples: ["country.name = 'Austria' and population > 10000"],
})
/** In a query: names separated by commas. */
export const columnList = Type.String({
  minLength: 1,
  description: 'Names of columns, separated by commas.',
  examples: ['name,population'],
})

export function columnsOf(list: string | undefined): readonly string[] | undefined {
  return list?.split(',').map((name) => name.trim())
}

export const pageQuery = {
  cursor: Type.Optional(Type.String({ minLength: 1, maxLength: 2000, description: '`next` of the page before.' })),
  limit: Type.Optional(Type.Integer({ minimum: 1, maximum: 1000, default: 100, description: 'Items on the page.' })),
}

/** A page of a list, newest first. */
export function pageOf<T extends TSchema>(item: T, title: string) {
  return closed(
    {
      items: Type.Array(item),
      next: nullable(Type.String(), { description: '`cursor` of the following page; null at the end.' }),
    },
    { title, description: 'A page of a list, newest first.' },
  )
}

const fieldRules = Type.Record(Type.String(), Type.String({ minLength: 1, maxLength: 60 }), {
  description: `For the policy merge: what becomes of a field that both sides changed, by column; * for the others. One of ${FIELD_RULES.join(', ')}, or site:UUID.`,
  examples: [{ price: 'greatest', stock: 'sum', '*': 'newer' }],
})

/** What a link may carry, as grants and tasks have it in common. */
export const linkRules = {
  filter: Type.Optional(nullable(filterText)),
  columns: Type.Optional(
    nullable(Type.Array(Type.String({ minLength: 1 }), { minItems: 1 }), {
      description: 'Columns that travel; null for all.',
    }),
  ),
  onConflict: Type.Optional(words(POLICIES, { description: 'How concurrent changes of one record are settled.' })),
  master: Type.Optional(nullable(uuid('Site whose word counts; for the policy master and the rule site.'))),
  fields: Type.Optional(fieldRules),
}

/** The same, as whoever knows Sahana Eden may write them: policyInOurWords makes them ours. */
export const linkRulesGiven = {
  ...linkRules,
  onConflict: Type.Optional(
    words([...POLICIES, ...(Object.keys(EDEN_POLICIES) as EdenPolicy[])], {
      description:
        'How concurrent changes of one record are settled. Eden’s words are taken too: THIS is mine, OTHER theirs, NEWER newer, MASTER master with the peer as the site whose word counts.',
    }),
  ),
}

export const linkRulesRead = {
  filter: nullable(Type.String(), { description: 'Condition that records must meet.' }),
  columns: nullable(Type.Array(Type.String()), { description: 'Columns that travel; null for all.' }),
  onConflict: words(POLICIES, { description: 'How concurrent changes of one record are settled.' }),
  master: nullable(Type.String(), { description: 'UUID of the site whose word counts.' }),
  fields: fieldRules,
}

const LIMIT =
  'a number, a share such as `5%`, both as `100,5%` (whichever is more), or `none`; null for the usual limit'
const limitText = (description: string, usual: string) =>
  nullable(Type.String({ minLength: 1, maxLength: 40 }), {
    description: `${description}: ${LIMIT}, ${usual}.`,
    examples: ['100,5%'],
  })

/** What one run, or a peer that pushes, may do in an hour before a person is asked. */
const maxDeletes = limitText('Most records deleted without a person', USUAL_LIMITS.maxDeletes)
const maxChanges = limitText('Most records that get other values without a person', USUAL_LIMITS.maxChanges)
export const brakeLimits = { maxDeletes: Type.Optional(maxDeletes), maxChanges: Type.Optional(maxChanges) }
export const brakeLimitsRead = { maxDeletes, maxChanges }

/** How one end of a link settles conflicts. */
export const linkPolicy = closed(
  { onConflict: linkRulesRead.onConflict, master: linkRulesRead.master, fields: linkRulesRead.fields },
  { title: 'LinkPolicy', description: 'How concurrent changes of one record are settled.' },
)

export const mode = words(MODES, { description: 'Direction as seen from this site.' })

const byOrigin = (description: string) => Type.Record(Type.String(), Type.Integer(), { description })
const mark = closed(
  {
    dots: byOrigin('Clock of the last write of each origin that counts.'),
    values: Type.Optional(
      Type.Record(Type.String(), anyJson('Value'), { description: 'What each of several writes wrote.' }),
    ),
    base: Type.Optional(byOrigin('For a counter: the write that it counts from.')),
    sums: Type.Optional(
      Type.Record(Type.String(), Type.String(), {
        description: 'For a counter: what each origin added, as a decimal.',
      }),
    ),
  },
  { title: 'FieldMark', description: 'What stands behind one field of a version.' },
)

export const version = closed(
  {
    origin: text('Site where the version was made: its UUID, after a restore with a slash and its log.'),
    clock: Type.Integer({ minimum: 1, description: 'Microseconds since 1970, of a hybrid logical clock.' }),
    seen: Type.Optional(
      Type.Record(Type.String(), Type.Integer(), {
        description: 'Highest clock of every other origin that the version has seen.',
      }),
    ),
    fields: Type.Optional(
      Type.Record(Type.String(), mark, {
        description:
          'The writes behind single fields; * for the fields that are not named. Absent when the version wrote every field.',
      }),
    ),
  },
  { title: 'Version', description: 'What a version is known by, and what it has seen.' },
)

export const reference = closed(
  { resource: Type.String(), id: Type.String() },
  { title: 'Reference', description: 'The record that a column refers to.' },
)

export const change = closed(
  {
    id: recordId,
    version: Type.Optional(version),
    data: Type.Optional(
      Type.Record(Type.String(), anyJson('Value'), {
        description: 'Values by column. A column that is absent was not sent; null is null.',
      }),
    ),
    refs: Type.Optional(Type.Record(Type.String(), nullable(reference), { description: 'References by column.' })),
    deleted: Type.Optional(flag('The record was deleted; then there is no data.')),
    left: Type.Optional(flag('The record lives, but no longer matches the filter of the link.')),
  },
  {
    title: 'Change',
    description: 'A record as it is now, or that it was deleted. In a push the version may be missing.',
    examples: [{ id: 'AT', data: { name: 'Austria' } }],
  },
)

const outcomes = ['applied', 'known', 'skipped', 'merged', 'conflict', 'quarantined', 'refused'] as const

export const batchReport = closed(
  {
    counts: closed(
      {
        applied: count('New here, or newer than what was here.'),
        known: count('Here already, or older than what is here.'),
        skipped: count('No longer matches the filter of the link.'),
        merged: count('Changed on both sides and settled by the policy.'),
        conflict: count('Changed on both sides; waits for a person.'),
        quarantined: count('Cannot be applied now; tried again by itself.'),
        refused: count('Not permitted, or not valid here.'),
      },
      { title: 'OutcomeCounts', description: 'How many records had which outcome.' },
    ),
    rejections: Type.Array(
      closed(
        {
          id: recordId,
          outcome: words(outcomes.slice(2)),
          code: Type.Optional(Type.String({ description: 'Code of the reason.' })),
          reason: text('In words for a person.'),
        },
        { title: 'Rejection', description: 'A record that was not simply applied.' },
      ),
      { description: 'Every record that was not simply applied, up to a thousand.' },
    ),
    truncated: flag('There are more rejections than are listed; the counts are complete.'),
  },
  { title: 'BatchReport', description: 'What became of each record of a batch.' },
)

export const problem = Type.Object(
  {
    type: text('urn:syncline:problem:CODE'),
    title: text('What kind of problem it is.'),
    status: Type.Integer(),
    detail: Type.Optional(text('What happened to what, and why.')),
    instance: text('Names the request, also in the log of the site.'),
    code: text('Stable code; docs/errors.md lists them.', { pattern: '^SYNC_[A-Z_]+$' }),
    retry: words(['never', 'later', 'after-fix'], {
      description: 'Whether the same request may work when it is sent again.',
    }),
    mend: text('What to do about it.'),
  },
  { title: 'Problem', description: 'A failure, as RFC 9457 has it.', additionalProperties: false },
)

export const ifMatch = Type.Object({
  'if-match': Type.String({ description: 'ETag of what was read; `*` means whatever is there.', examples: ['"3"'] }),
})
