import type { SchemaColumn } from './skew.ts'

/** A type as PostgreSQL writes it, in its parts: `numeric(8,2)`, `timestamp(0) without time zone`. */
const DECLARED = /^([^(]+?)(?:\((\d+)(?:,(-?\d+))?\))?( with(?:out)? time zone)?$/

/** Types whose values all have their place in those behind them. */
const WIDENING: readonly (readonly string[])[] = [
  ['smallint', 'integer', 'bigint', 'numeric'],
  ['real', 'double precision'],
  ['character varying', 'text'],
  ['character', 'text'],
]

/**
 * Columns that were altered so that what is in them may have lost something, in words: a table is rewritten then without any trigger seeing it, and
 * every version stays. A wider type of the same kind keeps all there was.
 */
export function narrowedColumns(before: readonly SchemaColumn[], after: readonly SchemaColumn[]): readonly string[] {
  return before.flatMap((was) => {
    const is = after.find(({ name }) => name === was.name)
    return is === undefined || keepsAll(was.type, is.type)
      ? []
      : [`column ${was.name} was ${was.type} and is ${is.type}`]
  })
}

function keepsAll(before: string, after: string): boolean {
  if (before === after) return true
  const [was, is] = [DECLARED.exec(before), DECLARED.exec(after)]
  if (was === null || is === null) return false
  const [base, other] = [`${was[1]}${was[4] ?? ''}`, `${is[1]}${is[4] ?? ''}`]
  if (base !== other) {
    return (
      is[2] === undefined &&
      WIDENING.some((order) => order.includes(base) && order.indexOf(base) < order.indexOf(other))
    )
  }
  if (is[2] === undefined) return true
  if (was[2] === undefined) return false
  const scale = (parts: RegExpExecArray) => Number(parts[3] ?? 0)
  return Number(is[2]) >= Number(was[2]) ? scale(is) >= scale(was) : base === 'numeric' && scale(is) >= scale(was)
}
