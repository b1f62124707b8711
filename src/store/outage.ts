import { sqlState } from './registry/index.ts'

/** Classes of SQLSTATE that say that the database is not there: connection, lack of resources, shutdown, system error. */
const STATES = /^(08|53|57P0|58)/
const NETWORK = new Set(['ECONNREFUSED', 'ECONNRESET', 'EPIPE', 'ETIMEDOUT', 'ENOTFOUND', 'EHOSTUNREACH', 'EAI_AGAIN'])
/** What pg says itself of connections that broke or could not be had; these errors carry no code. */
const WORDS =
  /^(Connection terminated|Client has encountered a connection error|timeout exceeded when trying to connect|Client was closed)/

/** True for an error that only says that the database cannot be reached now: the same may work later. */
export function isDatabaseGone(error: unknown): boolean {
  if (!(error instanceof Error)) return false
  const state = sqlState(error)
  if (state !== null) return STATES.test(state)
  if (error instanceof AggregateError) return error.errors.some(isDatabaseGone)
  return NETWORK.has((error as NodeJS.ErrnoException).code ?? '') || WORDS.test(error.message)
}
