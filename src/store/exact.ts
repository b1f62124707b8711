import { type RawBuilder, sql, type Transaction } from 'kysely'
import type { DatabaseError } from './explain.ts'
import { quoteIdent, quoteLiteral } from './quote.ts'
import { type Column, liveTable, type ResourceInfo } from './resources.ts'
import type { Database } from './schema.ts'

/**
 * Where the database would change a value without a word when it is written: it rounds what has more digits than a column keeps, cuts blanks and
 * what a domain has no room for, and drops the time of a date. Expressions over the payload array `v` and the record id `id`.
 */
export type Inexact = {
  /** True where some value of the record would be changed. */
  readonly some: (v: string, id: string) => string
  /** Which, and how, in words; null where none would. */
  readonly reason: (v: string, id: string) => string
}

/** The error of `syncline.inexact()`. */
export const INEXACT = 'SYNX1'

/** Base types that change a value where they have a length or precision, and those that may do so anyway. */
const LIMITED = ['varchar', 'bpchar', 'numeric', 'timestamptz', 'timetz', 'interval', 'bit', 'varbit']
const ALWAYS = ['float4', 'float8', 'date', 'time', 'timestamp', 'char', 'name']
const SUSPECT = new Set([...LIMITED, ...ALWAYS].flatMap((name) => [name, `_${name}`]))

/** A column as the table has it now, whatever was known of it: the innermost type under domains and arrays, with its length or precision. */
type Live = {
  readonly name: string
  readonly declared: string
  readonly type: string
  readonly base: string
  readonly limit: number
  readonly array: boolean
  readonly domain: boolean
}

/** A test over the text of one value, and what becomes of the value in words. */
type Test = { readonly lossy: (x: string) => string; readonly words: (x: string) => string }

/**
 * What of a batch its table would not keep as it is; null where it keeps everything, as most tables do. Read from the catalogue with the table held, so
 * that nobody alters a column between this look and the writing.
 */
export async function inexactOf(
  trx: Transaction<Database>,
  resource: ResourceInfo,
  columns: readonly { readonly column: Column; readonly at: number }[],
): Promise<Inexact | null> {
  const plain = columns.filter(({ column }) => !resource.references.some((each) => each.column.name === column.name))
  const key = resource.columns.find(({ name }) => name === resource.keyColumn)
  if (
    ![...plain.map(({ column }) => column), key].some((column) => column !== undefined && SUSPECT.has(column.baseType))
  )
    return null
  const live = new Map((await liveColumns(trx, resource)).map((each) => [each.name, each]))
  const tests = plain.flatMap(({ column, at }) => {
    const now = live.get(column.name)
    const test = now === undefined || column.form === 'json' ? null : testOf(now, column)
    return now === undefined || test === null ? [] : [{ at: at as number | null, now, test }]
  })
  const id = live.get(resource.keyColumn)
  const idTest = id === undefined || key === undefined ? null : testOf(id, key)
  if (id !== undefined && idTest !== null) tests.push({ at: null, now: id, test: idTest })
  if (tests.length === 0) return null
  return { some: someOf(tests), reason: reasonOf(tests) }
}

type Tests = readonly { readonly at: number | null; readonly now: Live; readonly test: Test }[]

function someOf(tests: Tests): Inexact['some'] {
  return (v, id) => {
    const parts = tests.map(({ at, now, test }) => {
      if (at === null) return test.lossy(id)
      return now.array ? `exists (${elements(now, v, at)} where ${test.lossy('e.x')})` : test.lossy(`(${v} ->> ${at})`)
    })
    // Nothing is known of a null, and nothing is lost.
    return `coalesce(${parts.join(' or ')}, false)`
  }
}

function reasonOf(tests: Tests): Inexact['reason'] {
  return (v, id) => {
    const parts = tests.map(({ at, now, test }) => {
      const where = quoteLiteral(`column ${quoteIdent(now.name)} is ${now.declared} here: `)
      const words = (x: string) => `left(${where} || ${test.words(x)}, 500)`
      if (at === null) return `case when ${test.lossy(id)} then ${words(id)} end`
      if (now.array)
        return `(select ${words('e.x')} from (${elements(now, v, at)}) e where ${test.lossy('e.x')} limit 1)`
      const x = `(${v} ->> ${at})`
      return `case when ${test.lossy(x)} then ${words(x)} end`
    })
    return `nullif(concat_ws('; ', ${parts.join(', ')}), '')`
  }
}

/** The elements of an array as it travels: a JSON array or, where that cannot say it, as the database writes one. */
function elements({ base }: Live, v: string, at: number): string {
  const value = `${v} -> ${at}`
  return `select x from (
      select e #>> '{}' as x from jsonb_path_query(case jsonb_typeof(${value}) when 'array' then ${value} else '[]'::jsonb end, 'strict $.**') e
       where jsonb_typeof(e) in ('string', 'number')
      union all select u::text from unnest(case jsonb_typeof(${value}) when 'string' then (${v} ->> ${at})::pg_catalog.${quoteIdent(`_${base}`)} end) u) e`
}

function testOf(now: Live, known: Column): Test | null {
  // It was altered, and nobody here knows it yet: what is read as the type it had becomes the type that it has.
  if (now.type !== known.type && !now.array && known.form !== 'array')
    return {
      lossy: (x) => `(${x}::${known.type})::${now.declared}::text <> (${x}::${known.type})::text`,
      words: (x) => becomes(x, `((${x}::${known.type})::${now.declared})::text`),
    }
  const test = limitedTest(now) ?? unlimitedTest(now)
  if (test === null || !now.domain || now.array || now.limit < 0) return test
  // A domain is the one type that a text is cast to with its length.
  const bare = `pg_catalog.${quoteIdent(now.base)}`
  const text = now.base === 'varchar' || now.base === 'bpchar' ? 'text' : bare
  const plain = (x: string) => (now.base === 'bpchar' ? `rtrim(${x})` : `${x}::${text}`)
  return {
    lossy: (x) => `(${x}::${now.type})::${text} <> ${plain(x)}`,
    words: (x) => becomes(x, `(${x}::${now.type})::text`),
  }
}

const short = (x: string) => `left(${x}, 100)`
const becomes = (x: string, stored: string) => `${short(x)} || ' would become ' || ${short(stored)}`

/** Types that keep as much as they are declared to. */
function limitedTest({ base, limit, declared }: Live): Test | null {
  if (limit < 0) return null
  switch (base) {
    case 'numeric': {
      // The scale is the lower eleven bits, with a sign.
      const scale = (((limit - 4) & 0x7ff) ^ 1024) - 1024
      return {
        lossy: (x) =>
          `scale(${x}::pg_catalog.numeric) > ${scale} and ${x}::pg_catalog.numeric <> round(${x}::pg_catalog.numeric, ${scale})`,
        words: (x) =>
          `format('%s has %s digits after the point, and ${scale} would be kept', ${short(x)}, scale(${x}::pg_catalog.numeric))`,
      }
    }
    case 'varchar': {
      // What is more than blanks the database refuses by itself.
      const room = limit - 4
      return {
        lossy: (x) => `length(${x}) > ${room} and rtrim(substr(${x}, ${room + 1}), ' ') = ''`,
        words: (x) => `format('%s blanks at the end would be cut off', length(${x}) - ${room})`,
      }
    }
    case 'interval':
    case 'time':
    case 'timetz':
    case 'timestamp':
    case 'timestamptz': {
      const bare = `pg_catalog.${base}`
      const other = unlimitedTest({ base })
      const lossy = (x: string) => `(${x}::${bare})::text <> (${x}::${bare}::${declared})::text`
      return {
        lossy: (x) => (other === null ? lossy(x) : `(${lossy(x)} or ${other.lossy(x)})`),
        words: (x) => becomes(x, `(${x}::${bare}::${declared})::text`),
      }
    }
    default:
      return null
  }
}

/** Types that lose something of what their input takes without an error. Few values pass the first half of each test. */
function unlimitedTest({ base }: Pick<Live, 'base'>): Test | null {
  const stored = (x: string) => `(${x}::pg_catalog.${quoteIdent(base)})::text`
  const words = (x: string) => becomes(x, stored(x))
  switch (base) {
    case 'float4':
    case 'float8': {
      const digits = base === 'float4' ? 6 : 15
      return {
        lossy: (x) =>
          `length(${x}) > ${digits} and ${stored(x)} <> ${x} and ${stored(x)}::pg_catalog.numeric <> ${x}::pg_catalog.numeric`,
        words,
      }
    }
    case 'date':
      return {
        lossy: (x) =>
          `strpos(${x}, ':') > 0 and ${x}::pg_catalog.timestamp <> ${x}::pg_catalog.date::pg_catalog.timestamp`,
        words,
      }
    case 'time':
      return {
        lossy: (x) => `(strpos(${x}, '-') > 0 or strpos(${x}, '+') > 0)`,
        words: (x) => `${short(x)} || ' has a date or a zone, which would be dropped'`,
      }
    case 'timestamp': {
      const zone = (x: string) => `(strpos(substr(${x}, 17), '-') > 0 or strpos(substr(${x}, 17), '+') > 0)`
      return {
        lossy: (x) => `${zone(x)} and ${x}::pg_catalog.timestamp <> ${x}::pg_catalog.timestamptz at time zone 'UTC'`,
        words,
      }
    }
    case 'char':
    case 'name':
      return { lossy: (x) => `${stored(x)} <> ${x}`, words }
    default:
      return null
  }
}

async function liveColumns(trx: Transaction<Database>, resource: ResourceInfo): Promise<readonly Live[]> {
  const { rows } = await sql<Live>`
    with recursive inner_type as (
      select a.attname, a.atttypid as typid, a.atttypmod as typmod, false as is_array, false as is_domain
        from pg_attribute a
       where a.attrelid = ${resource.tableOid}::oid and a.attnum > 0 and not a.attisdropped
         and not exists (select from only ${sql.raw(liveTable(resource))} limit 0)
      union all
      select i.attname, case t.typtype when 'd' then t.typbasetype else t.typelem end,
             case t.typtype when 'd' then t.typtypmod else i.typmod end, i.is_array or t.typtype <> 'd', i.is_domain or t.typtype = 'd'
        from inner_type i join pg_type t on t.oid = i.typid and (t.typtype = 'd' or t.typcategory = 'A' and t.typelem <> 0 and t.typlen = -1)
    )
    select a.attname as name, format_type(a.atttypid, a.atttypmod) as declared, format('%I.%I', n.nspname, o.typname) as type,
           t.typname as base, i.typmod as limit, i.is_array as array, i.is_domain as domain
      from inner_type i join pg_type t on t.oid = i.typid and t.typnamespace = 'pg_catalog'::regnamespace
       and not (t.typtype = 'd' or t.typcategory = 'A' and t.typelem <> 0 and t.typlen = -1)
      join pg_attribute a on a.attrelid = ${resource.tableOid}::oid and a.attname = i.attname
      join pg_type o on o.oid = a.atttypid join pg_namespace n on n.oid = o.typnamespace`.execute(trx)
  return rows
}

/**
 * Sets aside the staged records of some classes that their table would not keep as they are: in one statement or, where the database refuses to look at
 * one of them, not at all. Whoever writes them meets that one anyway.
 */
export async function markInexact(
  trx: Transaction<Database>,
  inexact: Inexact | null | undefined,
  classes: readonly string[],
  within: RawBuilder<unknown> = sql`true`,
): Promise<boolean> {
  if (inexact == null) return false
  await sql`savepoint syncline_exact`.execute(trx)
  try {
    const { numAffectedRows } = await sql`
      update pg_temp.syncline_stage s set class = 'q', code = 'SYNC_RECORD_INEXACT', reason = x.reason
        from (select n, ${sql.raw(inexact.reason('p.v', 'p.id'))} as reason
                from (select s.n, s.id, s.payload::jsonb as v from pg_temp.syncline_stage s
                       where s.kind = 'p' and s.class::text = any (${[...classes]}::text[]) and ${within} offset 0) p) x
       where s.n = x.n and x.reason is not null`.execute(trx)
    await sql`release savepoint syncline_exact`.execute(trx)
    return Number(numAffectedRows ?? 0) > 0
  } catch (error) {
    if (
      (error as DatabaseError).code?.length !== 5 ||
      /^(08|40|53|55|57|58|XX)/.test((error as DatabaseError).code ?? '')
    )
      throw error
    await sql`rollback to savepoint syncline_exact`.execute(trx)
    return false
  }
}

/** The payload array, or an error where the table would not keep it as it is. */
export function exactPayload(inexact: Inexact | null | undefined, v: string, id: string): string {
  return inexact == null ? v : `case when ${inexact.some(v, id)} then syncline.inexact() else ${v} end`
}
