import {
  checkFieldRules,
  type FieldRules,
  MODES,
  POLICIES,
  type PolicyName,
  parseLimit,
  SynclineError,
} from '../../sync/index.ts'

const UUID = /^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$/i
const NAME = /^[A-Za-z0-9][A-Za-z0-9._-]{0,62}$/
const INSTANT = /^\d{4}-\d\d-\d\dT\d\d:\d\d(:\d\d(\.\d{1,6})?)?(Z|[+-]\d\d:?\d\d)$/

/** What a link between this site and a peer may carry of one resource, as a grant and a task have it in common. */
export type LinkRules = {
  readonly filter: string | null
  /** Columns that travel; null means all. */
  readonly columns: readonly string[] | null
  readonly onConflict: PolicyName
  /** UUID of the site whose word counts; with the policy `master`, and for fields with the rule `site`. */
  readonly master: string | null
  /** Rules of single fields; only with the policy `merge`. */
  readonly fields: FieldRules
}

export type LinkRuleSettings = {
  readonly filter?: string | null | undefined
  readonly columns?: readonly string[] | null | undefined
  readonly onConflict?: string | undefined
  readonly master?: string | null | undefined
  readonly fields?: FieldRules | undefined
}

/** PostgreSQL's text of a time in ISO 8601, always with six digits of a second, so that times also sort as text. */
export function isoTime(text: string): string
export function isoTime(text: string | null): string | null
export function isoTime(text: string | null): string | null {
  if (text === null) return null
  const [, date, time, fraction = '', zone = ''] = /^(\S+) (\d\d:\d\d:\d\d)(?:\.(\d+))?([+-].*)?$/.exec(text) ?? []
  // Times beyond the calendar, such as infinity, have no other form.
  if (date === undefined) return text
  const offset = /^\+00(:00)?$/.test(zone) ? 'Z' : zone.replace(/^(.\d\d)$/, '$1:00')
  return `${date}T${time}.${fraction.padEnd(6, '0')}${offset}`
}

export function invalid(detail: string, options?: ErrorOptions): SynclineError {
  return new SynclineError('SYNC_REQUEST_INVALID', detail, options)
}

/**
 * Checks the name of a peer or an invitation: letters, digits, dot, hyphen and underscore, at most 63, not only digits and no UUID, because
 * commands take a name, a UUID or an id in the same place, and Basic authentication ends a user name at its first colon.
 */
export function checkName(what: string, name: string): string {
  if (!NAME.test(name) || UUID.test(name) || /^\d+$/.test(name)) {
    throw invalid(
      `"${name.slice(0, 80)}" cannot be the name of ${what}: use 1 to 63 letters, digits, dots, hyphens and underscores, ` +
        'begin with a letter or digit, and use neither digits alone nor a UUID',
    )
  }
  return name
}

/** Checks a line of text that a person writes: not empty, without control characters, at most `max` characters. */
export function checkText(what: string, text: string, max = 4000): string {
  if (text.trim() === '') throw invalid(`${what} is empty`)
  if (text.length > max) throw invalid(`${what} is longer than ${max} characters`)
  if (/\p{Cc}/u.test(text)) throw invalid(`${what} contains control characters`)
  return text
}

/** Checks a UUID and gives it in lower case. */
export function checkUuid(what: string, uuid: string): string {
  if (!UUID.test(uuid)) throw invalid(`${what} "${uuid.slice(0, 80)}" is not a UUID`)
  return uuid.toLowerCase()
}

export function isUuid(text: string): boolean {
  return UUID.test(text)
}

/** Checks a time with date, time and offset in ISO 8601. */
export function checkInstant(what: string, text: string): string {
  if (!INSTANT.test(text) || Number.isNaN(Date.parse(text))) {
    throw invalid(`${what} "${text.slice(0, 80)}" is not a time such as 2030-01-31T12:00:00Z`)
  }
  return text
}

/** Checks one of a closed set of words. */
export function checkWord<T extends string>(what: string, word: string, words: readonly T[]): T {
  const found = words.find((each) => each === word)
  if (found === undefined) throw invalid(`${what} "${word.slice(0, 80)}" is not one of ${words.join(', ')}`)
  return found
}

export const checkMode = (mode: string) => checkWord('mode', mode, MODES)

/** Lays `settings` over `base` and checks the result as a whole. */
export function checkLink(settings: LinkRuleSettings, base?: LinkRules): LinkRules {
  const filter = settings.filter === undefined ? (base?.filter ?? null) : settings.filter
  const columns = settings.columns === undefined ? (base?.columns ?? null) : settings.columns
  const onConflict = checkWord('on-conflict policy', settings.onConflict ?? base?.onConflict ?? 'newer', POLICIES)
  // A policy that is left behind takes its master along; one that stays keeps it.
  const inherited = onConflict === base?.onConflict ? base.master : null
  const master = settings.master === undefined ? inherited : settings.master
  if (onConflict === 'master' && master === null) {
    throw invalid('the on-conflict policy master needs the UUID of the site whose word counts')
  }
  const checked = master === null ? null : checkUuid('master', master)
  const fields = settings.fields ?? (onConflict === base?.onConflict ? base.fields : {})
  if (onConflict !== 'master' && onConflict !== 'merge' && master !== null)
    throw invalid(`a master site has no meaning with the on-conflict policy ${onConflict}`)
  if (filter !== null) checkText('the filter', filter.replace(/[\t\r\n]/g, ' '))
  if (columns !== null) checkColumns(columns)
  return { filter, columns, onConflict, master: checked, fields: checkFieldRules(fields, onConflict, checked) }
}

function checkColumns(columns: readonly string[]): void {
  if (columns.length === 0) throw invalid('the list of columns is empty; leave it out to mean all columns')
  for (const column of columns) checkText('a column name', column, 63)
  const doubled = columns.find((column, n) => columns.indexOf(column) !== n)
  if (doubled !== undefined) throw invalid(`column "${doubled}" is named twice`)
}

/** Limits of what one run, or one peer that pushes, may do before a person is asked; null for the usual ones. */
export type BrakeLimits = { readonly maxDeletes: string | null; readonly maxChanges: string | null }
export type BrakeLimitSettings = {
  readonly maxDeletes?: string | null | undefined
  readonly maxChanges?: string | null | undefined
}

/** Lays limits over those that are there and checks them. Errors: SYNC_REQUEST_INVALID. */
export function checkBrakes(settings: BrakeLimitSettings, base?: BrakeLimits): BrakeLimits {
  const maxDeletes = settings.maxDeletes === undefined ? (base?.maxDeletes ?? null) : settings.maxDeletes
  const maxChanges = settings.maxChanges === undefined ? (base?.maxChanges ?? null) : settings.maxChanges
  for (const limit of [maxDeletes, maxChanges]) if (limit !== null) parseLimit(limit)
  return { maxDeletes, maxChanges }
}
