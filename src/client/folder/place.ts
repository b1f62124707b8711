import { constants, type Stats } from 'node:fs'
import {
  access,
  type FileHandle,
  link,
  lstat,
  mkdir,
  open,
  readdir,
  readlink,
  realpath,
  rename,
  unlink,
} from 'node:fs/promises'
import { dirname, isAbsolute, join, relative, sep } from 'node:path'
import { isTemporary, numbered, SynclineError } from '../../sync/index.ts'
import { PeerError } from '../peer-error.ts'

/** A regular file below a folder, as it was listed. */
export type ListedFile = {
  /** Below the folder, with forward slashes. */
  readonly name: string
  readonly bytes: number
  /** Nanoseconds since 1970. */
  readonly modified: bigint
}

/**
 * A folder that may be used, and everything that is done below it. No name leads out of it: symbolic links are not followed, neither in the middle
 * of a path nor at its end.
 */
export type FolderPlace = {
  /** Where it really is. */
  readonly base: string
  /** Files that are not in the making, in no order. `leaveOut`: folders that are not looked into. */
  readonly list: (leaveOut: readonly string[]) => Promise<readonly ListedFile[]>
  /** Opens a file for reading. Undefined where there is none, or it is none. */
  readonly open: (name: string) => Promise<{ readonly handle: FileHandle; readonly file: ListedFile } | undefined>
  /** Opens the hidden file in which another one grows, and makes it where it is missing and `make` says so. */
  readonly spool: (name: string, make: boolean) => Promise<FileHandle | undefined>
  /**
   * Gives a file another name, in a folder that is made where it is missing. Where the name is taken, it gets a number. Gives the
   * name. `hidden`: it is what grew hidden, and is safe under its name when this ends.
   */
  readonly move: (from: string, to: string, hidden?: boolean) => Promise<string>
  /** Writes a small file whole, under this name or one with a number. Gives the name. */
  readonly write: (name: string, text: string) => Promise<string>
  readonly remove: (name: string) => Promise<void>
}

const ENTRIES_MAX = 100_000
const DEPTH_MAX = 8
const NUMBER_MAX = 10_000
/** Where files grow: hidden, so that nobody takes them for files. */
const HIDDEN = '.syncline'

/**
 * Opens the folder at a path. Errors: SYNC_PEER_FOLDER_FORBIDDEN where the settings of the site do not name a folder above it; SYNC_PEER_UNREACHABLE
 * where it is not there, as a disk that is not mounted is not.
 */
export async function openPlace(path: string, roots: readonly string[]): Promise<FolderPlace> {
  const base = await allowedPath(path, roots)
  const full = (name: string) => join(base, name)

  /** The folder of a name, checked to be the one that it says. */
  async function folderOf(name: string, make: boolean): Promise<string> {
    const folder = dirname(full(name))
    if (make) await makeFolders(base, relative(base, folder))
    if ((await realpath(folder)) !== folder || !isWithin(folder, base))
      throw forbidden(`${folder} goes over a symbolic link, which is not followed`)
    return folder
  }

  async function openFile(name: string): ReturnType<FolderPlace['open']> {
    let handle: FileHandle
    try {
      await folderOf(name, false)
      handle = await open(full(name), constants.O_RDONLY | constants.O_NOFOLLOW | constants.O_NONBLOCK)
    } catch (error) {
      if (['ENOENT', 'ENOTDIR', 'ELOOP'].includes(codeOf(error))) return undefined
      throw error
    }
    const stats = await handle.stat({ bigint: true })
    if (stats.isFile() && (await isStillAt(handle, full(name))))
      return { handle, file: { name, bytes: Number(stats.size), modified: stats.mtimeNs } }
    await handle.close()
    return undefined
  }

  /** Gives a file another name, where that is free. `own`: nobody else writes to it, or gives its first name to another one. */
  async function take(from: string, to: string, own: boolean): Promise<boolean> {
    try {
      // Unlike a new name, a second name is never given to a file in the place of another one.
      await link(from, to)
    } catch (error) {
      if (codeOf(error) === 'EEXIST') return false
      if (!['EPERM', 'ENOTSUP', 'EOPNOTSUPP', 'EMLINK', 'ENOSYS'].includes(codeOf(error))) throw error
      // A file system without second names.
      if (await exists(to)) return false
      await rename(from, to)
      return true
    }
    await takeName(from, to, own)
    return true
  }

  /** Takes the first name of a file away that has a second one. Another file may have come under that name meanwhile: it keeps it. */
  async function takeName(from: string, second: string, own: boolean): Promise<void> {
    // A folder that nothing can be taken out of keeps its file, under its one name.
    const keepFirst = (error: unknown) => unlink(second).then(() => Promise.reject(error))
    if (own) return unlink(from).catch(keepFirst)
    const aside = join(dirname(from), hiddenName())
    await rename(from, aside).catch(keepFirst)
    if (!(await isOneFile(aside, second))) await named(relative(base, from), (name) => giveName(aside, full(name)))
    await unlink(aside)
  }

  async function named(to: string, attempt: (name: string) => Promise<boolean>): Promise<string> {
    for (let number = 1; number <= NUMBER_MAX; number++) {
      const name = number === 1 ? to : numbered(to, number)
      if (await attempt(name)) return name
    }
    throw new SynclineError(
      'SYNC_PEER_UNREACHABLE',
      `${full(to)}: ${NUMBER_MAX} files have that name with a number already`,
    )
  }

  return {
    base,
    list: async (leaveOut) => {
      const found: ListedFile[] = []
      const budget = { left: ENTRIES_MAX }
      await walk(base, '', new Set([HIDDEN, ...leaveOut]), found, budget, 1)
      return found
    },
    open: openFile,
    spool: async (name, make) => {
      const path = `${HIDDEN}/${name}`
      try {
        await folderOf(path, make)
        const flags = constants.O_RDWR | constants.O_NOFOLLOW | constants.O_NONBLOCK | (make ? constants.O_CREAT : 0)
        return await open(full(path), flags, 0o666)
      } catch (error) {
        if (!make && codeOf(error) === 'ENOENT') return undefined
        throw error
      }
    },
    move: async (from, to, hidden = false) => {
      const source = hidden ? `${HIDDEN}/${from}` : from
      await folderOf(source, false)
      const folder = await folderOf(to, true)
      const name = await named(to, (each) => take(full(source), full(each), hidden))
      // What is only put away comes back with a crash, and is known then.
      if (hidden) await syncFolder(folder)
      return name
    },
    write: async (name, text) => {
      const folder = await folderOf(name, true)
      const temporary = join(folder, hiddenName())
      const handle = await open(temporary, 'wx', 0o666)
      try {
        await handle.writeFile(text)
        await handle.sync()
      } finally {
        await handle.close()
      }
      const given = await named(name, (each) => take(temporary, full(each), true))
      await syncFolder(folder)
      return given
    },
    remove: async (name) => {
      await folderOf(name, false)
      await unlink(full(name)).catch((error: unknown) => {
        if (codeOf(error) !== 'ENOENT') throw error
      })
    },
  }
}

/** Step by step: what is made at once would follow a link in the middle. */
async function makeFolders(base: string, below: string): Promise<void> {
  let folder = base
  for (const segment of below.split(sep).filter((each) => each !== '')) {
    folder = join(folder, segment)
    await mkdir(folder).catch((error: unknown) => {
      if (codeOf(error) !== 'EEXIST') throw error
    })
    if (!(await lstat(folder)).isDirectory())
      throw forbidden(`${folder} is a symbolic link or no folder, and is not followed`)
  }
}

async function allowedPath(path: string, roots: readonly string[]): Promise<string> {
  if (roots.length === 0)
    throw forbidden(
      `${path}: this site may use no folder at all; the setting folderRoots names those above which may be used`,
    )
  const real = await realpath(path).catch((error: unknown) => {
    throw new PeerError(
      'SYNC_PEER_UNREACHABLE',
      `the folder ${path} cannot be used: ${wordsOf(error)}`,
      {},
      { cause: error },
    )
  })
  const above = await Promise.all(roots.map((root) => realpath(root).catch(() => undefined)))
  if (!above.some((root) => root !== undefined && isWithin(real, root)))
    throw forbidden(`${real} is below none of ${roots.join(', ')}, which the setting folderRoots allows`)
  const stats: Stats = await lstat(real)
  if (!stats.isDirectory()) throw new PeerError('SYNC_PEER_UNREACHABLE', `${real} is no folder`)
  await access(real, constants.R_OK | constants.X_OK).catch((error: unknown) => {
    throw new PeerError(
      'SYNC_PEER_UNREACHABLE',
      `the folder ${path} cannot be used: ${wordsOf(error)}`,
      {},
      { cause: error },
    )
  })
  return real
}

async function walk(
  folder: string,
  prefix: string,
  leaveOut: ReadonlySet<string>,
  found: ListedFile[],
  budget: { left: number },
  depth: number,
): Promise<void> {
  for (const entry of await readdir(folder, { withFileTypes: true })) {
    if (--budget.left < 0)
      throw new SynclineError(
        'SYNC_REQUEST_TOO_LARGE',
        `the folder has more than ${ENTRIES_MAX} files; let those that were taken be deleted or moved`,
      )
    const name = `${prefix}${entry.name}`
    if (leaveOut.has(name) || isTemporary(entry.name)) continue
    // Of a symbolic link it is neither.
    if (entry.isDirectory() && depth < DEPTH_MAX)
      await walk(join(folder, entry.name), `${name}/`, leaveOut, found, budget, depth + 1)
    if (!entry.isFile()) continue
    const stats = await lstat(join(folder, entry.name), { bigint: true }).catch(() => undefined)
    if (stats?.isFile()) found.push({ name, bytes: Number(stats.size), modified: stats.mtimeNs })
  }
}

/** The folder may have been exchanged for a link between the look and the opening; Linux tells where an open file is. */
async function isStillAt(handle: FileHandle, path: string): Promise<boolean> {
  const where = await readlink(`/proc/self/fd/${handle.fd}`).catch(() => path)
  return where === path
}

async function syncFolder(folder: string): Promise<void> {
  const handle = await open(folder, constants.O_RDONLY)
  try {
    await handle.sync()
  } catch (error) {
    // Some file systems keep no order of folders.
    if (!['EINVAL', 'ENOTSUP', 'EPERM'].includes(codeOf(error))) throw error
  } finally {
    await handle.close()
  }
}

async function giveName(from: string, to: string): Promise<boolean> {
  return link(from, to).then(
    () => true,
    (error: unknown) => (codeOf(error) === 'EEXIST' ? false : Promise.reject(error)),
  )
}

/** Whether two names are of one file. Where one of them is gone by now, nobody knows. */
async function isOneFile(a: string, b: string): Promise<boolean> {
  const [one, other] = await Promise.all([a, b].map((path) => lstat(path, { bigint: true }).catch(() => undefined)))
  return one !== undefined && one.dev === other?.dev && one.ino === other.ino
}

/** A name for a moment, which nobody takes for a file. */
function hiddenName(): string {
  return `.${process.pid}-${Math.random().toString(36).slice(2)}.part`
}

async function exists(path: string): Promise<boolean> {
  return lstat(path).then(
    () => true,
    () => false,
  )
}

function isWithin(path: string, above: string): boolean {
  const way = relative(above, path)
  return way === '' || (way !== '..' && !way.startsWith(`..${sep}`) && !isAbsolute(way))
}

/** Writes all of some bytes at a place in a file: where a disk is nearly full, a write may take only a part of them. */
export async function writeAll(handle: Pick<FileHandle, 'write'>, bytes: Buffer, position: number): Promise<void> {
  for (let done = 0; done < bytes.length; ) {
    const { bytesWritten } = await handle.write(bytes, done, bytes.length - done, position + done)
    if (bytesWritten === 0) throw new PeerError('SYNC_PEER_UNREACHABLE', 'the disk takes nothing more')
    done += bytesWritten
  }
}

/** What the machine says of a file. */
export function wordsOf(error: unknown): string {
  const words: Readonly<Record<string, string>> = {
    ENOENT: 'it is not there',
    EACCES: 'the user of this site may not enter it',
    EROFS: 'it cannot be written to',
    ENOSPC: 'the disk is full',
    EDQUOT: 'the quota of the user is used up',
  }
  return words[codeOf(error)] ?? (error instanceof Error ? error.message : String(error))
}

/** Does work in a folder; what the machine refuses is told in words, and may work later: a disk is full, or away. Errors also: SYNC_PEER_UNREACHABLE. */
export async function inFolder<T>(path: string, work: () => Promise<T>): Promise<T> {
  try {
    return await work()
  } catch (error) {
    if (!(error instanceof Error) || error instanceof SynclineError || !('syscall' in error)) throw error
    throw new PeerError('SYNC_PEER_UNREACHABLE', `in the folder ${path}: ${wordsOf(error)}`, {}, { cause: error })
  }
}

function codeOf(error: unknown): string {
  return error instanceof Error && 'code' in error ? String(error.code) : ''
}

function forbidden(detail: string): SynclineError {
  return new SynclineError('SYNC_PEER_FOLDER_FORBIDDEN', detail)
}
