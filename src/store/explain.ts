import { ERRORS, SynclineError } from '../sync/index.ts'

export type DatabaseError = Error & {
  readonly code?: string
  readonly detail?: string
  readonly where?: string
  readonly constraint?: string
}

const BUSY = new Set(['40001', '40P01', '55P03', '57014'])

/** An error of the database that a batch met, as one that a caller knows what to do with; any other as it is. */
export function explain(error: unknown): unknown {
  const code = (error as DatabaseError).code ?? ''
  if (code in ERRORS) return error
  const words = (error as Error).message
  if (BUSY.has(code)) return new SynclineError('SYNC_STORE_BUSY', words, { cause: error })
  if (code === '42501') return new SynclineError('SYNC_STORE_RIGHTS', words, { cause: error })
  if (/^22/.test(code))
    return new SynclineError('SYNC_FORMAT_INVALID', `a line of the batch cannot be read: ${words}`, { cause: error })
  if (/^(42703|42P01|42804|42846)/.test(code))
    return new SynclineError('SYNC_RESOURCE_OUTDATED', words, { cause: error })
  return error
}
