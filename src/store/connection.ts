import { createHash } from 'node:crypto'
import { sql } from 'kysely'
import pg from 'pg'
import { copyIn } from './copy-in.ts'

const MARK = '/* kept */'

/**
 * For a select (`modifyFront`) that every run asks and whose plan takes longer to make than to follow: each connection keeps the plan. Not for what reads
 * tables of applications, whose best plan changes, nor for `select *`, which a migration under a running process would break.
 */
export const KEPT_PLAN = sql.raw<never>(MARK)

/**
 * A connection as the store uses it. Two statements have a meaning of their own, which kysely passes on like every other: `copy … from stdin` takes its rows as its
 * one parameter, a Uint8Array, and answers with their number; a select marked by KEPT_PLAN is prepared once.
 */
export class StoreClient extends pg.Client {
  // biome-ignore lint/suspicious/noExplicitAny: pg gives query() a dozen forms; these are one of them, and the others stay as they are
  override query(...args: any[]): any {
    const [text, values] = args
    if (typeof text !== 'string') return Reflect.apply(super.query, this, args)
    if (text.startsWith(`select ${MARK}`)) return super.query({ name: nameOf(text), text, values })
    const rows: unknown = text.startsWith('copy ') ? values?.[0] : undefined
    return rows instanceof Uint8Array ? copyIn(this, text, rows) : Reflect.apply(super.query, this, args)
  }
}

const names = new Map<string, string>()

/** The few statements that are marked have a name each, at most 63 characters long. */
function nameOf(text: string): string {
  const known = names.get(text)
  if (known !== undefined) return known
  const name = `syncline_${createHash('sha256').update(text).digest('hex').slice(0, 32)}`
  names.set(text, name)
  return name
}
