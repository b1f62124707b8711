import { existsSync } from 'node:fs'
import { join } from 'node:path'
import type { JsonSchema } from '../step.ts'

/** What a program is held to that any user may ask for: nothing here needs root, and nothing of it can be lifted by the program itself. */
export type Confinement = {
  readonly limits?: {
    readonly cpuSeconds?: number
    readonly memoryMegabytes?: number
    readonly fileMegabytes?: number
    readonly openFiles?: number
  }
  readonly nice?: number
  readonly umask?: string
  readonly noNewPrivileges?: boolean
}

const count = (description: string, maximum: number) => ({ type: 'integer', minimum: 1, maximum, description })

export const confinementSchema: Readonly<Record<keyof Confinement, JsonSchema>> = {
  limits: {
    type: 'object',
    description: 'What each of its processes may use at most. Beyond it they are ended, or what they ask for fails.',
    properties: {
      cpuSeconds: count('Seconds of processor time.', 31_536_000),
      memoryMegabytes: count('Address space.', 1_048_576),
      fileMegabytes: count('Size of a file that it writes.', 1_073_741_824),
      openFiles: count('Files that are open at once.', 1_048_576),
    },
    additionalProperties: false,
  },
  nice: {
    type: 'integer',
    minimum: 0,
    maximum: 19,
    description: 'By how much it gives way to others: 19 runs when nobody else wants to.',
  },
  umask: {
    type: 'string',
    pattern: '^0?[0-7]{3}$',
    description: 'Rights that files made by it do not get.',
    examples: ['027'],
  },
  noNewPrivileges: {
    type: 'boolean',
    default: false,
    description: 'It gains no rights by what it starts, such as sudo and other set-user-id programs.',
  },
}

const FOLDERS = ['/usr/bin', '/bin', '/usr/local/bin']
const MEGABYTE = 1024 ** 2

/** Arguments that start a program confined so. Throws an Error where this host lacks what that needs. */
export function confined(
  { limits = {}, nice, umask, noNewPrivileges = false }: Confinement,
  argv: readonly [string, ...string[]],
): readonly [string, ...string[]] {
  const { cpuSeconds, memoryMegabytes, fileMegabytes, openFiles } = limits
  const most = [
    ...(cpuSeconds === undefined ? [] : [`--cpu=${cpuSeconds}`]),
    ...(memoryMegabytes === undefined ? [] : [`--as=${memoryMegabytes * MEGABYTE}`]),
    ...(fileMegabytes === undefined ? [] : [`--fsize=${fileMegabytes * MEGABYTE}`]),
    ...(openFiles === undefined ? [] : [`--nofile=${openFiles}`]),
  ]
  const words = [
    // The shell sees a fixed script; the program and its arguments pass through it unread.
    ...(umask === undefined ? [] : ['/bin/sh', '-c', 'umask "$1"; shift; exec "$@"', 'sh', umask]),
    ...(most.length === 0 ? [] : [tool('prlimit', 'util-linux'), ...most]),
    ...(nice === undefined || nice === 0 ? [] : [tool('nice', 'coreutils'), '-n', String(nice)]),
    ...(noNewPrivileges ? [tool('setpriv', 'util-linux'), '--no-new-privs'] : []),
  ]
  return [...words, ...argv] as readonly string[] as readonly [string, ...string[]]
}

function tool(name: string, source: string): string {
  const found = FOLDERS.map((folder) => join(folder, name)).find((path) => existsSync(path))
  if (found === undefined)
    throw new Error(`this host has no ${name}, which confines the program: apt-get install ${source}`)
  return found
}
