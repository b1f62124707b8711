import { homedir } from 'node:os'
import { StringDecoder } from 'node:string_decoder'
import { openPacedOutput } from './paced.ts'
import { runProcess } from './process.ts'

/** How a program ended. What it wrote is kept up to a bound: of standard output the beginning, of standard error the end. */
export type ProgramEnd = {
  /** Null when a signal ended it. */
  readonly code: number | null
  readonly signal: NodeJS.Signals | null
  readonly stdout: string
  readonly stderr: string
  readonly timedOut: boolean
  readonly aborted: boolean
}

export type ProgramOptions = {
  readonly signal?: AbortSignal | undefined
  readonly timeoutMs?: number
  readonly input?: string
  /** Gets standard output as it comes; nothing of it is kept then. */
  readonly onOutput?: (text: string) => void
}

const OUTPUT_MAX = 256 * 1024 * 1024
const ERROR_MAX = 16 * 1024
const GRACE_MS = 5_000
/** rsync puts aside what it has of a file when it is told to end; told twice, it may not get to that. */
const GENTLE_MS = 3_000

/** Nothing of the own environment: rsync and ssh let themselves be told programs to run by it. */
const ENVIRONMENT = {
  PATH: '/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin',
  LC_ALL: 'C.UTF-8',
  HOME: homedir(),
}

/** Runs rsync, ssh or what goes with them to its end, or to the end of its time, and gives what it wrote. Throws when it cannot be started. */
export async function runProgram(
  argv: readonly [string, ...string[]],
  { signal, timeoutMs, input, onOutput }: ProgramOptions = {},
): Promise<ProgramEnd> {
  const output: string[] = []
  let room = OUTPUT_MAX
  let stderr = ''
  const decoders = { stdout: new StringDecoder('utf8'), stderr: new StringDecoder('utf8') }
  const timeout = timeoutMs === undefined ? undefined : AbortSignal.timeout(timeoutMs)
  const either = AbortSignal.any([signal, timeout].filter((each) => each !== undefined))
  const take = (chunk: Buffer, stream: 'stdout' | 'stderr') => {
    const text = decoders[stream].write(chunk)
    if (stream === 'stderr') stderr = (stderr + text).slice(-ERROR_MAX)
    else if (onOutput !== undefined) onOutput(text)
    else if (room > 0) {
      output.push(text.slice(0, room))
      room -= text.length
    }
  }
  const paced = onOutput === undefined ? undefined : await openPacedOutput((chunk) => take(chunk, 'stdout'))
  const end = await runProcess({
    argv,
    env: ENVIRONMENT,
    cwd: '/',
    input,
    signal: either,
    graceMs: GRACE_MS,
    gentleMs: GENTLE_MS,
    onOutput: take,
    ...(paced !== undefined && { stdout: paced.fd, onStarted: paced.started }),
  }).finally(() => paced?.end())
  return {
    code: end.code,
    signal: end.signal,
    stdout: output.join(''),
    stderr,
    timedOut: end.aborted && timeout?.aborted === true && signal?.aborted !== true,
    aborted: end.aborted && signal?.aborted === true,
  }
}
