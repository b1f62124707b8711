import { randomBytes } from 'node:crypto'
import { closeSync, openSync } from 'node:fs'
import { chmod, mkdir, open, readFile, realpath, rename, rm } from 'node:fs/promises'
import { hostname } from 'node:os'
import { dirname, join, resolve } from 'node:path'
import { DatabaseSync } from 'node:sqlite'
import { setTimeout as sleep } from 'node:timers/promises'
import { SynclineError } from '../sync/index.ts'

/** A data folder held by this process until `release`. */
export type DataDir = {
  /** Absolute, without symbolic links. */
  readonly path: string
  /** 32 bytes that encrypt the secrets of this site at rest. */
  readonly key: Buffer
  /** Keeps the token of the first administrator for the command line in the same folder, readable by this user only. */
  readonly writeAdminToken: (token: string) => Promise<void>
  readonly readAdminToken: () => Promise<string | undefined>
  /** Tells the command line in the same folder where the running server listens; gone after `release`. */
  readonly writeAddress: (url: string) => Promise<void>
  readonly readAddress: () => Promise<string | undefined>
  /** Lets another process have the folder. May be called twice. */
  readonly release: () => Promise<void>
}

const FILES = {
  lock: 'lock',
  holder: 'holder',
  key: 'site.key',
  adminToken: 'admin.token',
  address: 'address',
} as const
const KEY_BYTES = 32
/** How long a starter waits for a holder that has the lock but has not yet written who it is. */
const LOCK_TRIES = 25
const LOCK_WAIT_MS = 20

type Lock = { readonly release: () => void }

/** Locks are let go when their handle is collected, so every held one is kept here. */
const held = new Set<DatabaseSync>()

/**
 * Takes the data folder for this process, making it (0700) and its key (0600) where they are missing.
 * One process per folder: processes that share one database have a folder each, and the key in common through `keyFile`.
 * Throws SYNC_CONFIG_DATA_DIR_LOCKED with the holder's process id, or SYNC_CONFIG_INVALID where the folder or key cannot be used.
 */
export async function openDataDir(
  folder: string,
  options: { readonly keyFile?: string | undefined } = {},
): Promise<DataDir> {
  const path = await makeFolder(resolve(folder))
  const lock = await takeLock(path)
  try {
    // Left by a process that was killed: nobody listens there any more.
    await rm(join(path, FILES.address), { force: true })
    const key = await (options.keyFile === undefined ? ownKey(path) : sharedKey(options.keyFile))
    return {
      path,
      key,
      writeAdminToken: (token) => writeWhole(join(path, FILES.adminToken), `${token}\n`),
      readAdminToken: () => readAdminToken(path),
      writeAddress: (url) => writeWhole(join(path, FILES.address), `${url}\n`),
      readAddress: () => readAddress(path),
      release: once(async () => {
        const files = [FILES.address, FILES.holder].map((name) => rm(join(path, name), { force: true }))
        await Promise.all(files).finally(lock.release)
      }),
    }
  } catch (error) {
    lock.release()
    throw error
  }
}

/** The administrator token in a data folder, for the command line; undefined when there is none. Needs no lock. */
export function readAdminToken(folder: string): Promise<string | undefined> {
  return readLine(join(folder, FILES.adminToken))
}

/** Where the server of a data folder listens, or did until it was killed; undefined when none runs. Needs no lock. */
export function readAddress(folder: string): Promise<string | undefined> {
  return readLine(join(folder, FILES.address))
}

async function makeFolder(path: string): Promise<string> {
  try {
    await mkdir(path, { recursive: true, mode: 0o700 })
    return await realpath(path)
  } catch (error) {
    throw unusable(path, 'cannot be made', error)
  }
}

/**
 * The lock is SQLite's own exclusive file lock on an empty database: the kernel drops it with the process, however that ends,
 * and of any number of starters it lets one through. A file of process ids could do neither without a race.
 * The file must never be opened in this process by other means: closing such a handle would drop the lock (POSIX).
 */
async function takeLock(path: string): Promise<Lock> {
  for (let tries = 1; ; tries++) {
    const lock = tryLock(path)
    if (lock !== undefined) return await announce(path, lock)
    const holder = await readHolder(path)
    if (holder?.alive || tries === LOCK_TRIES) {
      const who = holder === undefined ? 'another process' : `process ${holder.pid} on ${holder.host}`
      throw new SynclineError('SYNC_CONFIG_DATA_DIR_LOCKED', `The data folder ${path} is used by ${who}.`)
    }
    await sleep(LOCK_WAIT_MS)
  }
}

/** Undefined when another process holds the lock. */
function tryLock(path: string): Lock | undefined {
  const SQLITE_BUSY = 5
  let file: DatabaseSync | undefined
  try {
    makePrivate(join(path, FILES.lock))
    file = new DatabaseSync(join(path, FILES.lock), { timeout: 0 })
    file.exec('pragma journal_mode = memory; begin exclusive')
  } catch (error) {
    file?.close()
    if ((error as { errcode?: number }).errcode === SQLITE_BUSY) return undefined
    throw unusable(path, 'cannot be locked', error)
  }
  const taken = file
  held.add(taken)
  const release = () => {
    if (held.delete(taken)) taken.close()
  }
  return { release }
}

/** SQLite would make the file readable for everyone, who could then keep it locked. In one go, so that no lock can exist yet. */
function makePrivate(file: string): void {
  try {
    closeSync(openSync(file, 'wx', 0o600))
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'EEXIST') throw error
  }
}

async function announce(path: string, lock: Lock): Promise<Lock> {
  try {
    await writeWhole(join(path, FILES.holder), `${process.pid} ${hostname()}\n`)
    return lock
  } catch (error) {
    lock.release()
    throw unusable(path, 'cannot be written to', error)
  }
}

/** Who holds the folder, in its own words. A process of another host or container cannot be looked up here and counts as alive. */
async function readHolder(path: string): Promise<{ pid: number; host: string; alive: boolean } | undefined> {
  const [pid = '', host = ''] = (await readLine(join(path, FILES.holder)))?.split(' ') ?? []
  if (!/^[1-9]\d*$/.test(pid)) return undefined
  return { pid: Number(pid), host, alive: host !== hostname() || isAlive(Number(pid)) }
}

function isAlive(pid: number): boolean {
  try {
    process.kill(pid, 0)
    return true
  } catch (error) {
    return (error as NodeJS.ErrnoException).code === 'EPERM'
  }
}

async function ownKey(path: string): Promise<Buffer> {
  const file = join(path, FILES.key)
  const text = await readLine(file)
  if (text !== undefined) {
    // A folder restored from a copy may have lost the mode.
    await chmod(file, 0o600)
    return decodeKey(text, file)
  }
  const key = randomBytes(KEY_BYTES)
  await writeWhole(file, `${key.toString('base64')}\n`)
  return key
}

/** Never made here: a mistyped path must not become a second key that opens none of the stored secrets. */
async function sharedKey(file: string): Promise<Buffer> {
  const text = await readLine(file)
  if (text === undefined) throw new SynclineError('SYNC_CONFIG_INVALID', `keyFile: there is no file ${file}`)
  return decodeKey(text, file)
}

function decodeKey(text: string, file: string): Buffer {
  const key = Buffer.from(text, 'base64')
  if (key.length === KEY_BYTES && key.toString('base64') === text) return key
  throw new SynclineError(
    'SYNC_CONFIG_INVALID',
    `${file} is not a key: it must hold ${KEY_BYTES} bytes in base64 and nothing else`,
  )
}

/** Undefined when the file does not exist. */
async function readLine(file: string): Promise<string | undefined> {
  try {
    return (await readFile(file, 'utf8')).trimEnd()
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return undefined
    throw unusable(file, 'cannot be read', error)
  }
}

/**
 * Writes a file for this user only, so that a reader and a power failure meet the old content or the new, never a part.
 * Only the holder of the lock writes: one name for drafts is enough, and a draft left by a killed process is written over.
 */
async function writeWhole(file: string, text: string): Promise<void> {
  const draft = `${file}.draft`
  const handle = await open(draft, 'w', 0o600)
  try {
    await handle.writeFile(text)
    await handle.sync()
  } finally {
    await handle.close()
  }
  await rename(draft, file)
  const folder = await open(dirname(file))
  await folder.sync().finally(() => folder.close())
}

function unusable(path: string, what: string, cause: unknown): SynclineError {
  return new SynclineError('SYNC_CONFIG_INVALID', `${path} ${what}: ${(cause as Error).message}`, { cause })
}

function once(work: () => Promise<void>): () => Promise<void> {
  let done: Promise<void> | undefined
  return () => {
    done ??= work()
    return done
  }
}
