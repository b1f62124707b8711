/** A column as a filter names it: of the record itself or, with `reference`, of the record that this reference column points to. */
export type FilterOperand = { readonly name: string; readonly reference?: string }

/** A constant. A number keeps all its digits as canonical decimal text: no exponent, no plus sign, no superfluous zeros. */
export type FilterLiteral =
  | { readonly type: 'string'; readonly value: string }
  | { readonly type: 'number'; readonly value: string }
  | { readonly type: 'boolean'; readonly value: boolean }

export type FilterOperator = '=' | '!=' | '<' | '<=' | '>' | '>='

/** One test of one column. `pattern` has the wildcards % and _, a backslash makes the next character an ordinary one. */
export type FilterTerm =
  | {
      readonly kind: 'compare'
      readonly operand: FilterOperand
      readonly operator: FilterOperator
      readonly value: FilterLiteral
    }
  | {
      readonly kind: 'like'
      readonly operand: FilterOperand
      readonly pattern: string
      readonly ignoreCase: boolean
      readonly negated: boolean
    }
  | {
      readonly kind: 'in'
      readonly operand: FilterOperand
      readonly values: readonly [FilterLiteral, ...FilterLiteral[]]
      readonly negated: boolean
    }
  /** One value among those of a list. */
  | {
      readonly kind: 'has'
      readonly operand: FilterOperand
      readonly value: FilterLiteral
      readonly negated: boolean
    }
  | { readonly kind: 'null'; readonly operand: FilterOperand; readonly negated: boolean }

/** A filter as it was understood. Every tree has a text, and every text one tree: see formatFilter and parseFilter. */
export type FilterTree =
  | { readonly kind: 'and' | 'or'; readonly trees: readonly [FilterTree, FilterTree, ...FilterTree[]] }
  | { readonly kind: 'not'; readonly tree: FilterTree }
  | FilterTerm

/** Words that a column name must be quoted to be, in any case of letters. */
export const FILTER_WORDS: ReadonlySet<string> = new Set([
  'and',
  'or',
  'not',
  'in',
  'has',
  'is',
  'null',
  'like',
  'ilike',
  'true',
  'false',
])

const PLAIN_NAME = /^[\p{L}_][\p{L}\p{M}\p{N}_$]*$/u

/** The canonical text of a filter: what differs only in spaces, case of words, needless parentheses or the way a number is written becomes one. */
export function formatFilter(tree: FilterTree): string {
  switch (tree.kind) {
    case 'and':
      return tree.trees.map((part) => enclose(part, part.kind === 'and' || part.kind === 'or')).join(' and ')
    case 'or':
      return tree.trees.map((part) => enclose(part, part.kind === 'or')).join(' or ')
    case 'not':
      return `not ${enclose(tree.tree, true)}`
    case 'compare':
      return `${formatOperand(tree.operand)} ${tree.operator} ${formatLiteral(tree.value)}`
    case 'like':
      return `${formatOperand(tree.operand)}${tree.negated ? ' not' : ''} ${tree.ignoreCase ? 'ilike' : 'like'} ${quoteText(tree.pattern)}`
    case 'in':
      return `${formatOperand(tree.operand)}${tree.negated ? ' not' : ''} in (${tree.values.map(formatLiteral).join(', ')})`
    case 'has':
      return `${formatOperand(tree.operand)}${tree.negated ? ' not' : ''} has ${formatLiteral(tree.value)}`
    case 'null':
      return `${formatOperand(tree.operand)} is${tree.negated ? ' not' : ''} null`
  }
}

/** A column as a filter writes it: `beds`, `"Odd Name"`, `country.code`. Two operands are the same column exactly when these texts are equal. */
export function formatOperand(operand: FilterOperand): string {
  const name = quoteName(operand.name)
  return operand.reference === undefined ? name : `${quoteName(operand.reference)}.${name}`
}

/** A constant as a filter writes it. */
export function formatLiteral(literal: FilterLiteral): string {
  return literal.type === 'string' ? quoteText(literal.value) : String(literal.value)
}

/** Every term of a filter, in the order of the text. */
export function filterTerms(tree: FilterTree): readonly FilterTerm[] {
  switch (tree.kind) {
    case 'and':
    case 'or':
      return tree.trees.flatMap(filterTerms)
    case 'not':
      return filterTerms(tree.tree)
    default:
      return [tree]
  }
}

/** Every column that a filter uses, once, in the order of the text: what the sender must have and be willing to disclose. */
export function filterColumns(tree: FilterTree): readonly FilterOperand[] {
  return [...new Map(filterTerms(tree).map(({ operand }) => [formatOperand(operand), operand])).values()]
}

function enclose(tree: FilterTree, parentheses: boolean): string {
  return parentheses ? `(${formatFilter(tree)})` : formatFilter(tree)
}

function quoteName(name: string): string {
  const plain = PLAIN_NAME.test(name) && !FILTER_WORDS.has(name.toLowerCase())
  return plain ? name : `"${name.replaceAll('"', '""')}"`
}

function quoteText(text: string): string {
  return `'${text.replaceAll("'", "''")}'`
}
