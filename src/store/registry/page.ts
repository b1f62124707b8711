import { type RawBuilder, type SqlBool, sql } from 'kysely'
import { SynclineError } from '../../sync/index.ts'

/** Most items that one page of a list may hold. */
export const PAGE_LIMIT_MAX = 1000
const PAGE_LIMIT_DEFAULT = 100
const INT8_MAX = 9_223_372_036_854_775_807n

/** Which part of a list: at most `limit` items older than the cursor `before`. Cursors are opaque to callers. */
export type PageQuery = { readonly before?: string | undefined; readonly limit?: number | undefined }

/** Newest first. `next` is the cursor of the following page, null at the end. */
export type Page<T> = { readonly items: readonly T[]; readonly next: string | null }

export type PageBounds = {
  readonly limit: number
  /** Rows to read: one more than the page holds, to know whether another page follows. */
  readonly take: number
  readonly before: string | null
}

/** Checks cursor and limit. Errors: SYNC_REQUEST_INVALID. */
export function pageBounds(query: PageQuery): PageBounds {
  const limit = query.limit ?? PAGE_LIMIT_DEFAULT
  if (!Number.isInteger(limit) || limit < 1 || limit > PAGE_LIMIT_MAX) {
    throw new SynclineError(
      'SYNC_REQUEST_INVALID',
      `limit is ${limit}; it must be a whole number from 1 to ${PAGE_LIMIT_MAX}`,
    )
  }
  const before = query.before ?? null
  if (before !== null && !isRowId(before)) {
    throw new SynclineError(
      'SYNC_REQUEST_INVALID',
      `the cursor "${before.slice(0, 40)}" was not given out by this list`,
    )
  }
  return { limit, take: limit + 1, before }
}

/** Condition that `column`, an integer id, lies before the cursor. */
export function olderThan(column: string, bounds: PageBounds): RawBuilder<SqlBool> {
  return bounds.before === null ? sql<SqlBool>`true` : sql<SqlBool>`${sql.ref(column)} < ${bounds.before}::int8`
}

/** Makes the page of rows that were read in descending order of id with `bounds.take` as their limit. */
export function toPage<R extends { readonly id: number | string }, T>(
  rows: readonly R[],
  bounds: PageBounds,
  face: (row: R) => T,
): Page<T> {
  const kept = rows.slice(0, bounds.limit)
  const last = kept.at(-1)
  return { items: kept.map(face), next: rows.length > bounds.limit && last !== undefined ? String(last.id) : null }
}

/** Reads a list to its end, page by page. For lists that a person makes (peers, tasks), never for logs. */
export async function everyItem<T>(list: (query: PageQuery) => Promise<Page<T>>): Promise<readonly T[]> {
  const items: T[] = []
  let before: string | undefined
  do {
    const page = await list({ before, limit: PAGE_LIMIT_MAX })
    items.push(...page.items)
    before = page.next ?? undefined
  } while (before !== undefined)
  return items
}

/** True for the text of a positive number that fits int8. */
export function isRowId(text: string): boolean {
  return /^[1-9]\d{0,18}$/.test(text) && BigInt(text) <= INT8_MAX
}
