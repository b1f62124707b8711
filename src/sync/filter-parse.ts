import { SynclineError } from './errors.ts'
import { canonicalDecimal } from './filter-decimal.ts'
import {
  FILTER_WORDS,
  type FilterLiteral,
  type FilterOperand,
  type FilterOperator,
  type FilterTerm,
  type FilterTree,
  formatFilter,
} from './filter-tree.ts'

/** Bounds of one filter. A level is an open parenthesis or a `not`; values are those of all its lists together. */
export const FILTER_LIMITS = { characters: 4_000, levels: 32, terms: 200, values: 1_000 } as const

/**
 * Reads a filter; docs/guides/filters.md has the grammar. SYNC_FILTER_INVALID says at which character what was expected.
 * What it accepts it also accepts in the canonical text: parseFilter(formatFilter(tree)) is the same tree.
 */
export function parseFilter(text: string): FilterTree {
  if (text.length > FILTER_LIMITS.characters) throw tooLong(text.length)
  const tree = readAll(new Tokens(text))
  const canonical = formatFilter(tree)
  if (canonical.length > FILTER_LIMITS.characters) throw tooLong(canonical.length)
  return tree
}

type Token = {
  readonly kind: 'name' | 'quoted' | 'string' | 'number' | 'symbol' | 'end'
  /** Without quotes; a word of the grammar in the case it was written in. */
  readonly text: string
  readonly start: number
  readonly end: number
}

const TOKEN =
  /([\p{L}_][\p{L}\p{M}\p{N}_$]*)|"((?:[^"]|"")*)"|'((?:[^']|'')*)'|([+-]?(?:\d+(?:\.\d*)?|\.\d+)(?:e[+-]?\d+)?)|(<=|>=|<>|!=|[=<>(),.])/iuy
const SPACE = /\s*/uy

/** What people write who think of another language. */
const HINTS: readonly (readonly [RegExp, string])[] = [
  [/^==/, 'write a single = here.'],
  [/^&&/, 'write and here.'],
  [/^\|\|/, 'write or here.'],
  [/^!/, 'write != or not here.'],
  [/^[‘’‚“”„«»`]/, 'write straight quotes: \'text\', "Column Name".'],
  [/^'/, "the text that begins here has no closing quote; a quote inside it is written ''."],
  [/^"/, 'the column name that begins here has no closing double quote; one inside it is written "".'],
]

class Tokens {
  readonly text: string
  /** The token to be read next. */
  current: Token
  terms = 0
  values = 0

  constructor(text: string) {
    this.text = text
    this.current = this.scan(0)
  }

  take(): Token {
    const token = this.current
    this.current = token.kind === 'end' ? token : this.scan(token.end)
    return token
  }

  /** Takes the symbol or word if it comes next. */
  accept(text: string): boolean {
    const found = this.isWord() ? this.current.text.toLowerCase() : this.current.kind === 'symbol' && this.current.text
    if (found !== text) return false
    this.take()
    return true
  }

  /** True when a word of the grammar comes next. */
  isWord(): boolean {
    return this.current.kind === 'name' && FILTER_WORDS.has(this.current.text.toLowerCase())
  }

  expect(text: string, meaning: string): void {
    if (!this.accept(text)) throw this.unexpected(meaning)
  }

  count(what: 'terms' | 'values', at: number): void {
    this[what]++
    if (this[what] > FILTER_LIMITS[what]) {
      throw this.invalid(at, `the filter has more than ${FILTER_LIMITS[what].toLocaleString('en')} ${what}.`)
    }
  }

  unexpected(expected: string, hint?: string): SynclineError {
    const { kind, start, end } = this.current
    const found = kind === 'end' ? 'the end of the filter' : this.text.slice(start, Math.min(end, start + 40))
    return this.invalid(start, `expected ${expected}, found ${found}${hint === undefined ? '' : `; ${hint}`}.`)
  }

  /** Characters are counted from 1, as people do, and by code point. */
  invalid(at: number, what: string): SynclineError {
    return new SynclineError('SYNC_FILTER_INVALID', `At character ${[...this.text.slice(0, at)].length + 1}: ${what}`)
  }

  private scan(from: number): Token {
    SPACE.lastIndex = from
    SPACE.test(this.text)
    const start = SPACE.lastIndex
    if (start === this.text.length) return { kind: 'end', text: '', start, end: start }
    TOKEN.lastIndex = start
    const match = TOKEN.exec(this.text)
    if (match === null) throw this.unreadable(start)
    const [, name, quoted, string, number, symbol] = match
    const end = TOKEN.lastIndex
    if (name !== undefined) return { kind: 'name', text: name, start, end }
    if (quoted !== undefined)
      return { kind: 'quoted', text: this.storable(quoted.replaceAll('""', '"'), start), start, end }
    if (string !== undefined)
      return { kind: 'string', text: this.storable(string.replaceAll("''", "'"), start), start, end }
    if (symbol === '=' && this.text[end] === '=') throw this.unreadable(start)
    if (number === undefined) return { kind: 'symbol', text: symbol ?? '', start, end }
    if (/^[\p{L}\p{N}_.]/u.test(this.text.slice(end, end + 2))) {
      throw this.invalid(end, 'expected a space after the number; text is written in single quotes.')
    }
    return { kind: 'number', text: number, start, end }
  }

  private unreadable(start: number): SynclineError {
    const rest = this.text.slice(start)
    const hint = HINTS.find(([pattern]) => pattern.test(rest))?.[1]
    const found = String.fromCodePoint(rest.codePointAt(0) ?? 0)
    return this.invalid(start, hint ?? `${found} has no meaning in a filter; text is written in single quotes.`)
  }

  private storable(text: string, start: number): string {
    if (!text.includes('\0') && text.isWellFormed()) return text
    throw this.invalid(start, 'the text holds a character that no database can store.')
  }
}

function tooLong(characters: number): SynclineError {
  const limit = FILTER_LIMITS.characters.toLocaleString('en')
  return new SynclineError('SYNC_FILTER_INVALID', `The filter has ${characters} characters; ${limit} are allowed.`)
}

function readAll(tokens: Tokens): FilterTree {
  const tree = readOr(tokens, 0)
  if (tokens.current.kind !== 'end') throw tokens.unexpected('and, or, or the end of the filter')
  return tree
}

function readOr(tokens: Tokens, level: number): FilterTree {
  return readJoined(tokens, level, 'or', readAnd)
}

function readAnd(tokens: Tokens, level: number): FilterTree {
  return readJoined(tokens, level, 'and', readNot)
}

function readJoined(
  tokens: Tokens,
  level: number,
  kind: 'and' | 'or',
  readPart: (tokens: Tokens, level: number) => FilterTree,
): FilterTree {
  const first = readPart(tokens, level)
  if (!tokens.accept(kind)) return first
  const second = readPart(tokens, level)
  const more: FilterTree[] = []
  while (tokens.accept(kind)) more.push(readPart(tokens, level))
  return { kind, trees: [first, second, ...more] }
}

function readNot(tokens: Tokens, level: number): FilterTree {
  const start = tokens.current.start
  if (!tokens.accept('not')) return readPrimary(tokens, level)
  enter(tokens, level + 1, start)
  // The parentheses right after a `not` are part of it, so that the canonical text is never deeper than what was written.
  if (tokens.accept('(')) return { kind: 'not', tree: readGroup(tokens, level + 1) }
  return { kind: 'not', tree: readNot(tokens, level + 1) }
}

function readPrimary(tokens: Tokens, level: number): FilterTree {
  const start = tokens.current.start
  if (!tokens.accept('(')) return readTerm(tokens)
  enter(tokens, level + 1, start)
  return readGroup(tokens, level + 1)
}

function readGroup(tokens: Tokens, level: number): FilterTree {
  const tree = readOr(tokens, level)
  tokens.expect(')', 'and, or, or a closing parenthesis')
  return tree
}

function enter(tokens: Tokens, level: number, at: number): void {
  if (level > FILTER_LIMITS.levels) {
    throw tokens.invalid(at, `parentheses and not are nested more than ${FILTER_LIMITS.levels} levels deep.`)
  }
}

const OPERATORS: ReadonlyMap<string, FilterOperator> = new Map([
  ['=', '='],
  ['!=', '!='],
  ['<>', '!='],
  ['<', '<'],
  ['<=', '<='],
  ['>', '>'],
  ['>=', '>='],
])
const NULL_TESTS: Partial<Record<FilterOperator, string>> = { '=': 'is null', '!=': 'is not null' }
const EXPECTED_TEST = '=, !=, <, <=, >, >=, like, ilike, in, has, not or is'

function readTerm(tokens: Tokens): FilterTerm {
  tokens.count('terms', tokens.current.start)
  const operand = readOperand(tokens)
  const operator = tokens.current.kind === 'symbol' ? OPERATORS.get(tokens.current.text) : undefined
  if (operator !== undefined) {
    tokens.take()
    const hint = `write ${NULL_TESTS[operator] ?? 'is null or is not null'}`
    return { kind: 'compare', operand, operator, value: readLiteral(tokens, hint) }
  }
  if (tokens.accept('is')) {
    const negated = tokens.accept('not')
    tokens.expect('null', negated ? 'null' : 'null or not null')
    return { kind: 'null', operand, negated }
  }
  const negated = tokens.accept('not')
  if (tokens.accept('like')) return { kind: 'like', operand, pattern: readPattern(tokens), ignoreCase: false, negated }
  if (tokens.accept('ilike')) return { kind: 'like', operand, pattern: readPattern(tokens), ignoreCase: true, negated }
  if (tokens.accept('in')) return { kind: 'in', operand, values: readList(tokens), negated }
  if (tokens.accept('has'))
    return { kind: 'has', operand, value: readLiteral(tokens, 'no test finds a null in a list'), negated }
  if (negated) throw tokens.unexpected('like, ilike, in or has')
  throw tokens.unexpected(EXPECTED_TEST, testHint(tokens.current))
}

function testHint({ kind, text }: Token): string | undefined {
  if (kind === 'name' && text.toLowerCase() === 'between')
    return 'instead of between write column >= low and column <= high'
  return kind === 'end' ? 'a column alone is no test, write for instance column = true' : undefined
}

function readOperand(tokens: Tokens): FilterOperand {
  const first = readName(tokens, 'a column')
  if (!tokens.accept('.')) return { name: first }
  const name = readName(tokens, 'a column of the record that is referred to')
  if (tokens.current.text === '.' && tokens.current.kind === 'symbol') {
    throw tokens.invalid(
      tokens.current.start,
      'a filter can follow one reference only, so a column has one dot at most.',
    )
  }
  return { reference: first, name }
}

function readName(tokens: Tokens, expected: string): string {
  const { kind, text, start } = tokens.current
  if (tokens.isWord()) throw tokens.unexpected(expected, `a column of that name is written "${text}"`)
  if (kind === 'string') throw tokens.unexpected(expected, 'a column is written first, bare or in double quotes')
  if (kind !== 'name' && kind !== 'quoted') throw tokens.unexpected(expected)
  if (text === '') throw tokens.invalid(start, 'a column name cannot be empty.')
  tokens.take()
  return text
}

function readLiteral(tokens: Tokens, nullHint: string): FilterLiteral {
  const { kind, text, start } = tokens.current
  const expected = 'text in single quotes, a number, true or false'
  if (kind === 'string') return { type: 'string', value: tokens.take().text }
  if (kind === 'number') {
    const value = exponent(text) > EXPONENT_MAX ? undefined : canonicalDecimal(text)
    if (value === undefined) throw tokens.invalid(start, `the exponent of a number can be ${EXPONENT_MAX} at most.`)
    tokens.take()
    return { type: 'number', value }
  }
  if (tokens.accept('true')) return { type: 'boolean', value: true }
  if (tokens.accept('false')) return { type: 'boolean', value: false }
  if (tokens.isWord() && text.toLowerCase() === 'null') {
    throw tokens.unexpected(expected, `null compares with nothing, ${nullHint}`)
  }
  if (kind === 'quoted') throw tokens.unexpected(expected, 'double quotes are for column names, text has single quotes')
  if (kind === 'name') throw tokens.unexpected(expected, `if it is text, write '${text.slice(0, 40)}'`)
  throw tokens.unexpected(expected)
}

const EXPONENT_MAX = 400

function exponent(number: string): number {
  return Math.abs(Number(number.toLowerCase().split('e')[1] ?? 0))
}

function readPattern(tokens: Tokens): string {
  const { kind, text, start } = tokens.current
  if (kind !== 'string') throw tokens.unexpected('a pattern in single quotes')
  // PostgreSQL reports a lone backslash only for the rows that get that far; here nobody has to wait for it.
  if (/(?<!\\)(\\\\)*\\$/.test(text)) {
    throw tokens.invalid(start, 'the pattern ends in a backslash; write \\\\ for the character itself.')
  }
  tokens.take()
  return text
}

function readList(tokens: Tokens): readonly [FilterLiteral, ...FilterLiteral[]] {
  tokens.expect('(', 'an opening parenthesis and a list of values')
  const value = () => {
    tokens.count('values', tokens.current.start)
    return readLiteral(tokens, 'write (column in (…) or column is null)')
  }
  const values: [FilterLiteral, ...FilterLiteral[]] = [value()]
  while (tokens.accept(',')) values.push(value())
  tokens.expect(')', 'a comma or a closing parenthesis')
  return values
}
