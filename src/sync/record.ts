/** Any JSON value. Column values travel as JSON; exact numbers (bigint, numeric) travel as strings. */
export type Json = string | number | boolean | null | readonly Json[] | { readonly [key: string]: Json }

/**
 * The version of one record: a dot (origin, clock) and what it has seen.
 * `clock` is microseconds since 1970 from a hybrid logical clock, always below 2^53.
 * `seen` gives, for every *other* origin, the highest clock this version has seen; the dot itself is implied. Absent means none.
 */
export type Version = {
  readonly origin: string
  readonly clock: number
  readonly seen?: Readonly<Record<string, number>>
  /** Where fields were not last written by the dot. Absent: every field was. `*` stands for the fields that are not named. */
  readonly fields?: Fields
}

/**
 * The writes that stand behind one field, by origin. One, unless concurrent writes were merged: then `values` has what each of them wrote.
 * A counter has `base`, the write it counts from, and in `sums` what each origin added to it since, as a decimal.
 */
export type FieldMark = {
  readonly dots: Readonly<Record<string, number>>
  readonly values?: Readonly<Record<string, Json>>
  readonly base?: Readonly<Record<string, number>>
  readonly sums?: Readonly<Record<string, string>>
}

export type Fields = Readonly<Record<string, FieldMark>>

/** A foreign key as it travels: local integer keys never leave a site. */
export type Reference = { readonly resource: string; readonly id: string }

/** A record as it is now. An absent column is "not sent"; an explicit null is a null. */
export type PutChange = {
  readonly kind: 'put'
  readonly id: string
  readonly version?: Version
  readonly data: Readonly<Record<string, Json>>
  readonly refs?: Readonly<Record<string, Reference | null>>
}

/** A tombstone: the record was deleted. A delete is a version like any other. */
export type DeleteChange = { readonly kind: 'delete'; readonly id: string; readonly version?: Version }

/** The record still lives at the sender but no longer matches the filter of this link. */
export type LeftChange = { readonly kind: 'left'; readonly id: string; readonly version?: Version }

export type Change = PutChange | DeleteChange | LeftChange

/** One bounded piece of one resource's change order. `next` is absent in a push: the receiver keeps no checkpoint for it. */
export type Batch = {
  readonly resource: string
  readonly changes: readonly Change[]
  readonly next?: { readonly checkpoint: string; readonly more: boolean }
}

/** What became of one record of a batch. */
export type Outcome = 'applied' | 'known' | 'skipped' | 'merged' | 'conflict' | 'quarantined' | 'refused'

/** One record of a batch that was not simply applied, with the reason in words for a person. */
export type Rejection = {
  readonly id: string
  readonly outcome: Exclude<Outcome, 'applied' | 'known'>
  readonly code?: string
  readonly reason: string
}

/** The answer to a batch: how many of each outcome, and every record that was not simply applied. */
export type BatchReport = {
  readonly counts: Readonly<Record<Outcome, number>>
  readonly rejections: readonly Rejection[]
  /** True when the list of rejections was cut at its limit; the counts are always complete. */
  readonly truncated: boolean
}

/** How concurrent versions of one record are settled. `master` needs the UUID of the site whose word counts; `merge` goes by field. */
export const POLICIES = ['newer', 'mine', 'theirs', 'master', 'merge', 'ask'] as const
export type PolicyName = (typeof POLICIES)[number]

/** Direction of a task as seen from the site that runs it. */
export const MODES = ['pull', 'push', 'both'] as const
export type Mode = (typeof MODES)[number]
