import { createHash } from 'node:crypto'
import { isJsonObject, type Json, SynclineError } from '../sync/index.ts'

/** ETag of something with a revision. */
export function revisionTag({ revision }: { readonly revision: number }): string {
  return `"${revision}"`
}

/** The revision that a request was made for; undefined for `*`, which means whatever is there. Errors: SYNC_REQUEST_CHANGED. */
export function matchedRevision(header: string): number | undefined {
  const text = header.trim()
  if (text === '*') return undefined
  const revision = /^"(\d{1,10})"$/.exec(text)?.[1]
  if (revision === undefined) throw changed(`If-Match ${text.slice(0, 80)} is no ETag that this site gave for it`)
  return Number(revision)
}

/** ETag of something without a revision: by its content, in which the order of members says nothing. */
export function contentTag(content: Json): string {
  const text = JSON.stringify(content, (_key, value: Json) => {
    if (!isJsonObject(value)) return value
    return Object.fromEntries(Object.entries(value).sort(([a], [b]) => (a < b ? -1 : 1)))
  })
  return `"${createHash('sha256').update(text).digest('base64url').slice(0, 22)}"`
}

/** Refuses a change that was made for something else than what is there. Errors: SYNC_REQUEST_CHANGED. */
export function checkMatch(header: string, tag: string, what: string): void {
  const text = header.trim()
  if (text !== '*' && text !== tag) throw changed(`${what} is not what the request was made for`)
}

export function changed(detail: string): SynclineError {
  return new SynclineError('SYNC_REQUEST_CHANGED', detail)
}
