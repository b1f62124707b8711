import { ERRORS, SynclineError } from '../sync/index.ts'
import { EXIT, type ExitCode, exitOf } from './exit.ts'
import type { FailureText } from './output.ts'

/** A failure in words, with the exit code it ends the command with. */
export function explain(error: unknown): { readonly text: FailureText; readonly exit: ExitCode } {
  if (error instanceof SynclineError) {
    const { title, mend } = ERRORS[error.code]
    return { text: { code: error.code, title, detail: error.message, mend }, exit: exitOf(error.code) }
  }
  const { code, message, stack } = error as NodeJS.ErrnoException
  // A file that cannot be read or written: the system's words say what and where.
  if (typeof code === 'string' && /^E[A-Z]+$/.test(code)) {
    const text = { code, title: 'The system refused', detail: message, mend: 'Check the path and its permissions.' }
    return { text, exit: EXIT.failed }
  }
  const { title } = ERRORS.SYNC_INTERNAL
  const mend = 'This is a fault of the program: please report it with the lines above.'
  return { text: { code: 'SYNC_INTERNAL', title, detail: stack ?? String(error), mend }, exit: EXIT.failed }
}
