import { ERRORS, type ErrorCode, SynclineError } from '../sync/index.ts'
import { EXIT, type ExitCode, exitOf } from './exit.ts'
import type { FailureText } from './output.ts'

export type Explained = { readonly text: FailureText; readonly exit: ExitCode }

/** What PostgreSQL says of itself, by class: connection, credentials, database, resources, shutdown. */
const DATABASE_STATES = /^(?:08|28|3D|53|57P)\w+$/
/** The site is asked through `Api`, which explains these itself: what is left of them comes from the database. */
const NETWORK = ['ECONNREFUSED', 'ECONNRESET', 'EPIPE', 'ETIMEDOUT', 'ENOTFOUND', 'EAI_AGAIN', 'EHOSTUNREACH']

/** A failure in words, with the exit code it ends the command with. */
export function explain(error: unknown): Explained {
  if (error instanceof SynclineError) return tableText(error.code, error.message)
  const { code = '', message, stack, syscall } = error as NodeJS.ErrnoException
  if (syscall === 'listen') {
    const { text, exit } = tableText('SYNC_CONFIG_INVALID', message)
    return { text: { ...text, mend: 'Choose another address with SYNCLINE_HOST and SYNCLINE_PORT.' }, exit }
  }
  if (NETWORK.includes(code) || DATABASE_STATES.test(code)) return tableText('SYNC_STORE_UNAVAILABLE', message)
  // A file that cannot be read or written: the system's words say what and where.
  if (/^E[A-Z]+$/.test(code)) {
    const mend = 'Check the path and its permissions.'
    return { text: { code, title: 'The system refused', detail: message, mend }, exit: EXIT.failed }
  }
  const { text, exit } = tableText('SYNC_INTERNAL', stack ?? String(error))
  return { text: { ...text, mend: 'This is a fault of the program: please report it with the lines above.' }, exit }
}

function tableText(code: ErrorCode, detail: string): Explained {
  const { title, mend } = ERRORS[code]
  return { text: { code, title, detail, mend }, exit: exitOf(code) }
}
