/**
 * What an exit code of rsync means for the step. `success` and `warning` go on; `again` may work when it is tried again, with what was copied
 * so far; `error` needs a person first; `brake` stopped deleting at the limit.
 */
export type Severity = 'success' | 'warning' | 'again' | 'error' | 'brake'
export type ExitCode = { readonly severity: Severity; readonly text: string }

const TABLE: Readonly<Record<number, ExitCode>> = {
  0: { severity: 'success', text: 'done' },
  1: { severity: 'error', text: 'rsync does not understand its options' },
  2: { severity: 'error', text: 'the two rsync do not speak the same protocol' },
  3: { severity: 'error', text: 'a source or the destination cannot be used' },
  4: { severity: 'error', text: 'one of the two rsync cannot do what was asked' },
  5: { severity: 'again', text: 'the exchange with the other rsync did not begin' },
  6: { severity: 'error', text: 'rsync cannot write its log' },
  10: { severity: 'again', text: 'the connection failed' },
  11: { severity: 'error', text: 'a file could not be read or written; the disk may be full' },
  12: { severity: 'again', text: 'the connection broke, or the other side refused' },
  13: { severity: 'error', text: 'rsync could not say what was wrong' },
  14: { severity: 'error', text: 'rsync could not talk to itself' },
  20: { severity: 'again', text: 'rsync was told to stop' },
  21: { severity: 'error', text: 'rsync lost one of its processes' },
  22: { severity: 'error', text: 'rsync had not enough memory' },
  23: { severity: 'error', text: 'some files could not be copied' },
  24: { severity: 'warning', text: 'some files vanished at the source while they were copied' },
  25: { severity: 'brake', text: 'more would have been deleted than is allowed' },
  30: { severity: 'again', text: 'nothing moved for too long' },
  35: { severity: 'again', text: 'the other rsync did not answer in time' },
  124: { severity: 'error', text: 'the command on the other host failed' },
  125: { severity: 'error', text: 'the command on the other host was killed' },
  126: { severity: 'error', text: 'rsync on the other host cannot be run' },
  127: { severity: 'error', text: 'there is no rsync on the other host' },
  255: { severity: 'again', text: 'ssh failed' },
}

/** Every code that rsync documents is in the table; another one is an error. */
export function exitCode(code: number | null): ExitCode {
  if (code === null) return { severity: 'again', text: 'rsync was killed' }
  return TABLE[code] ?? { severity: 'error', text: `rsync ended with ${code}` }
}

export const EXIT_CODES = TABLE
