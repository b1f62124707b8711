import { SynclineError } from './errors.ts'

/** How a field that was changed on both sides is settled under the policy `merge`. */
export const FIELD_RULES = ['newer', 'mine', 'theirs', 'greatest', 'least', 'sum', 'union', 'site', 'ask'] as const
export type FieldRuleName = (typeof FIELD_RULES)[number]

/** Rule by column, as a task or a grant has them; `*` is the rule of the columns that are not named. `site` may name its site: `site:UUID`. */
export type FieldRules = Readonly<Record<string, string>>

/** One rule, understood. `site` is there for the rule `site` only. */
export type FieldRule = { readonly name: FieldRuleName; readonly site?: string }

/** What a column is to the rules: only some can be counted, ordered or united. */
export type FieldKind = 'number' | 'text' | 'set' | 'other'

/** What a rule may be applied to, and how that is said. */
const FITTING: Partial<Record<FieldRuleName, { readonly kinds: readonly FieldKind[]; readonly words: string }>> = {
  sum: { kinds: ['number'], words: 'numbers' },
  greatest: { kinds: ['number', 'text'], words: 'numbers, texts, dates and times' },
  least: { kinds: ['number', 'text'], words: 'numbers, texts, dates and times' },
  union: { kinds: ['set'], words: 'arrays, json and jsonb' },
}

/** Rules that both sites compute alike from the two versions. The others are new writes of the site that decides. */
export const SYMMETRIC_RULES: readonly FieldRuleName[] = ['newer', 'greatest', 'least', 'sum', 'union', 'site']

const UUID = /^[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}$/i
const ANY = '*'

/** Reads one rule. Errors: SYNC_REQUEST_INVALID with the words that are known. */
export function parseFieldRule(text: string, column: string): FieldRule {
  const [word = '', site] = text.split(/:(.*)/s)
  const name = FIELD_RULES.find((rule) => rule === word)
  if (name === undefined || (site !== undefined && name !== 'site')) {
    throw refused(`the rule "${text.slice(0, 80)}" of field "${column}" is not one of ${FIELD_RULES.join(', ')}`)
  }
  if (site === undefined) return { name }
  if (!UUID.test(site)) throw refused(`the rule "${text.slice(0, 80)}" of field "${column}" names no site by its UUID`)
  return { name, site: site.toLowerCase() }
}

export function isFieldRule(value: unknown): value is string {
  const [word = '', site] = typeof value === 'string' ? value.split(/:(.*)/s) : []
  return FIELD_RULES.some((rule) => rule === word) && (site === undefined || (word === 'site' && UUID.test(site)))
}

/** The rule of a column; `newer` where none is given. */
export function ruleOf(rules: FieldRules, column: string): FieldRule {
  const text = Object.hasOwn(rules, column) ? rules[column] : Object.hasOwn(rules, ANY) ? rules[ANY] : undefined
  return text === undefined ? { name: 'newer' } : parseFieldRule(text, column)
}

/**
 * Checks the rules of a link by themselves, without the table: words, sites, and that they have a meaning under the policy.
 * Errors: SYNC_REQUEST_INVALID.
 */
export function checkFieldRules(rules: FieldRules, policy: string, master: string | null): FieldRules {
  const entries = Object.entries(rules)
  if (entries.length > 0 && policy !== 'merge')
    throw refused(`rules for fields have no meaning with the on-conflict policy ${policy}; use merge`)
  for (const [column, text] of entries) {
    if (column === '' || column.length > 63) throw refused(`"${column.slice(0, 80)}" cannot be the name of a field`)
    const rule = parseFieldRule(text, column)
    if (rule.name === 'site' && rule.site === undefined && master === null)
      throw refused(
        `the rule site of field "${column}" needs to know the site: site:UUID, or a master for the whole task`,
      )
    if (column === ANY && (rule.name === 'sum' || rule.name === 'union'))
      throw refused(`${rule.name} cannot be the rule of every field: name the fields`)
  }
  return Object.fromEntries(entries.sort(([a], [b]) => (a < b ? -1 : 1)))
}

/**
 * Checks the rules against the columns of a table: they must be there and of a kind that the rule can work on.
 * Errors: SYNC_REQUEST_INVALID with every fault.
 */
export function checkFieldKinds(rules: FieldRules, kinds: ReadonlyMap<string, FieldKind>, resource: string): void {
  const faults: string[] = []
  for (const [column, text] of Object.entries(rules)) {
    if (column === ANY) continue
    const { name } = parseFieldRule(text, column)
    const kind = kinds.get(column)
    const fitting = FITTING[name]
    if (kind === undefined) faults.push(`resource "${resource}" sends no column "${column}"`)
    else if (fitting !== undefined && !fitting.kinds.includes(kind))
      faults.push(`${name} works on ${fitting.words}, and field "${column}" is none of these`)
  }
  if (faults.length > 0) throw refused(faults.join('; '))
}

function refused(detail: string): SynclineError {
  return new SynclineError('SYNC_REQUEST_INVALID', detail)
}
