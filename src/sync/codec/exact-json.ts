import type { Json } from '../record.ts'

/** Levels of arrays and objects that a JSON text may nest where no other limit is given. */
export const JSON_DEPTH_MAX = 64

/**
 * What Node 24 offers and the compiler's ES2024 library does not describe yet (TC39 "JSON.parse source text access").
 */
type SourceReviver = (this: unknown, key: string, value: unknown, context: { readonly source?: string }) => unknown
type ExactJson = {
  rawJSON(text: string): { readonly rawJSON: string }
  isRawJSON(value: unknown): value is { readonly rawJSON: string }
  parse(text: string, reviver: SourceReviver): unknown
} & typeof JSON
const exactJson = JSON as ExactJson

/**
 * A number that a double would not give back character by character: an exponent, a trailing zero of a fraction, more
 * than fifteen digits, minus zero, a very small fraction. It may also hit inside a string, which only costs the slower
 * parse.
 */
const INEXACT_NUMBER =
  /(?:^|[:,[\s])(?:-0|-?(?:[\d.]{16,}|\d+(?:\.\d+)?[eE][+-]?\d+|\d+\.\d*0|0\.000000\d*))(?=[,\]}\s]|$)/

/**
 * JSON text to value such that `JSON.stringify` gives every number back as it was written: a number that a double
 * cannot carry becomes a raw JSON value (`JSON.isRawJSON`), everything else what `JSON.parse` makes of it. Throws
 * SyntaxError, also for nesting deeper than `depthMax`.
 */
export function parseJson(text: string, depthMax: number = JSON_DEPTH_MAX): Json {
  assertDepth(text, depthMax)
  if (!INEXACT_NUMBER.test(text)) return JSON.parse(text) as Json
  return exactJson.parse(text, (_key, value, { source }) =>
    typeof value === 'number' && source !== undefined && String(value) !== source ? exactJson.rawJSON(source) : value,
  ) as Json
}

/** The text of a JSON number, whether a double carries it or not; undefined for every other value. */
export function numberText(value: unknown): string | undefined {
  if (typeof value === 'number') return String(value)
  return exactJson.isRawJSON(value) ? value.rawJSON : undefined
}

/** True for a JSON object, and neither for an array nor for a number kept as text. */
export function isJsonObject(value: unknown): value is { readonly [key: string]: Json } {
  return typeof value === 'object' && value !== null && !Array.isArray(value) && !exactJson.isRawJSON(value)
}

/**
 * Throws SyntaxError when `text` nests deeper than `depthMax`. Runs before any parser, as a reviver and a serializer
 * recurse.
 */
export function assertDepth(text: string, depthMax: number): void {
  if (opens(text, depthMax) <= depthMax) return
  let depth = 0
  for (let at = 0; at < text.length; at++) {
    const code = text.charCodeAt(at)
    if (code === 0x22) at = closingQuote(text, at)
    else if (code === 0x5b || code === 0x7b) depth++
    else if (code === 0x5d || code === 0x7d) depth--
    if (depth > depthMax) throw new SyntaxError(`nested deeper than ${depthMax} levels at position ${at}`)
  }
}

/**
 * Number of opening brackets, in strings or not, counted up to a little over `enough`: a text with few brackets cannot
 * be deep.
 */
function opens(text: string, enough: number): number {
  let count = 0
  for (const bracket of ['[', '{']) {
    for (let at = text.indexOf(bracket); at !== -1 && count <= enough; at = text.indexOf(bracket, at + 1)) count++
  }
  return count
}

function closingQuote(text: string, opening: number): number {
  for (let at = text.indexOf('"', opening + 1); at !== -1; at = text.indexOf('"', at + 1)) {
    let backslashes = 0
    while (text.charCodeAt(at - 1 - backslashes) === 0x5c) backslashes++
    if (backslashes % 2 === 0) return at
  }
  return text.length
}
