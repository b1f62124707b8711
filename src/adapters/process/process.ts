import { type ChildProcess, spawn } from 'node:child_process'
import { setTimeout as sleep } from 'node:timers/promises'

export type ProcessRequest = {
  /** Program and arguments; no shell reads them. */
  readonly argv: readonly [string, ...string[]]
  /** The whole environment: nothing of this process's own is added. */
  readonly env: Readonly<Record<string, string>>
  readonly cwd?: string | undefined
  /** Written to its standard input, which is closed then; without it the input is empty. */
  readonly input?: string | undefined
  /** A file that gets its standard output; without it `onOutput` does. */
  readonly stdout?: number | undefined
  /** Ends the process and everything it started. */
  readonly signal: AbortSignal
  /** Between the request to end (SIGTERM) and the end (SIGKILL); asked for when it comes to that. */
  readonly graceMs: number | (() => number)
  /**
   * For so long, before all that, the program alone is asked to end and what it started is waited for: one that puts things in order by itself must
   * not be told twice. Default 0.
   */
  readonly gentleMs?: number
  readonly onOutput: (chunk: Buffer, stream: 'stdout' | 'stderr') => void
  /** Told as soon as there is a process; its group has the same number. */
  readonly onStarted?: (pid: number) => void
}

/** How a process ended. `aborted` says that the signal asked for it. */
export type ProcessEnd = {
  readonly code: number | null
  readonly signal: NodeJS.Signals | null
  readonly aborted: boolean
}

const POLL_MS = 20
/** Output that is still on its way when everything has ended is waited for so long. */
const DRAIN_MS = 1_000
/**
 * Waits for the end of its input, which comes when this process ends in whatever way, and then ends the group. Only a number is given to it.
 */
const GUARD = 'cat >/dev/null; kill -s KILL -- "-$1" 2>/dev/null'

/**
 * Runs a program in a process group of its own to its end. When it has ended, was aborted, or this process died under it (also by SIGKILL), nothing
 * of the group is left. Throws an Error when it cannot be started; any end of a started program is a result.
 */
export async function runProcess(request: ProcessRequest): Promise<ProcessEnd> {
  const { argv, env, cwd, input, signal, gentleMs = 0, onOutput, onStarted } = request
  const grace = () => (typeof request.graceMs === 'number' ? request.graceMs : request.graceMs())
  signal.throwIfAborted()
  const [file, ...args] = argv
  const child = spawn(file, args, {
    env: { ...env },
    ...(cwd !== undefined && { cwd }),
    detached: true,
    stdio: [input === undefined ? 'ignore' : 'pipe', request.stdout ?? 'pipe', 'pipe'],
  })
  const { stdout, stderr } = child
  const closed = new Promise<void>((resolve) => child.once('close', () => resolve()))
  const exited = new Promise<void>((resolve, reject) => {
    child.once('exit', () => resolve())
    child.once('error', (cause) => reject(new Error(`${file} cannot be started: ${reasonOf(cause, cwd)}`, { cause })))
  })
  const { pid } = child
  if (pid === undefined) {
    await exited
    throw new Error(`${file} cannot be started`)
  }
  stdout?.on('data', (chunk: Buffer) => onOutput(chunk, 'stdout'))
  stderr?.on('data', (chunk: Buffer) => onOutput(chunk, 'stderr'))
  // A program that ends early closes its input; its exit code tells that better than the broken pipe.
  child.stdin?.on('error', () => {})
  child.stdin?.end(input)
  const guard = startGuard(pid)
  onStarted?.(pid)
  let aborted = false
  const stop = () => {
    aborted = true
    if (gentleMs === 0) return void endGroup(pid, grace())
    child.kill('SIGTERM')
    void groupGone(pid, gentleMs).then((gone) => (gone ? undefined : endGroup(pid, grace())))
  }
  signal.addEventListener('abort', stop, { once: true })
  if (signal.aborted) stop()
  try {
    await exited
    // What the program left behind in its group goes with it; what made a group of its own (a daemon) does not.
    if (gentleMs === 0 || !(await groupGone(pid, gentleMs))) await endGroup(pid, grace())
    await Promise.race([closed, sleep(DRAIN_MS)])
    return { code: child.exitCode, signal: child.signalCode, aborted }
  } finally {
    signal.removeEventListener('abort', stop)
    stdout?.destroy()
    stderr?.destroy()
    endGuard(guard)
  }
}

/** Asks a process group to end, and ends it when it has not after `graceMs`. */
async function endGroup(group: number, graceMs: number): Promise<void> {
  if (!signalGroup(group, 'SIGTERM') || (await groupGone(group, graceMs))) return
  signalGroup(group, 'SIGKILL')
}

/** Waits for the end of a process group; false when it is still there after `withinMs`. */
async function groupGone(group: number, withinMs: number): Promise<boolean> {
  for (const until = performance.now() + withinMs; performance.now() < until; await sleep(POLL_MS)) {
    if (!signalGroup(group, 0)) return true
  }
  return false
}

/** False when there is no such group (any more). */
function signalGroup(group: number, signal: NodeJS.Signals | 0): boolean {
  try {
    return process.kill(-group, signal)
  } catch (error) {
    // A group of another user, which a program with rights of its own may have become, is there and cannot be ended.
    return (error as NodeJS.ErrnoException).code === 'EPERM'
  }
}

function startGuard(group: number): ChildProcess {
  const guard = spawn('/bin/sh', ['-c', GUARD, 'sh', String(group)], {
    env: { PATH: '/usr/bin:/bin' },
    cwd: '/',
    detached: true,
    stdio: ['pipe', 'ignore', 'ignore'],
  })
  // Without a guard the program runs all the same.
  guard.on('error', () => {})
  guard.stdin?.on('error', () => {})
  guard.unref()
  return guard
}

function endGuard(guard: ChildProcess): void {
  if (guard.pid !== undefined) signalGroup(guard.pid, 'SIGKILL')
  guard.stdin?.destroy()
}

/** The system says the same of a program and of a folder that is not there. */
function reasonOf(cause: Error, cwd: string | undefined): string {
  const { code } = cause as NodeJS.ErrnoException
  if (code === 'ENOENT')
    return cwd === undefined ? 'there is no such program' : `there is no such program, or no folder ${cwd}`
  if (code === 'EACCES') return 'this user may not run it'
  return cause.message
}
