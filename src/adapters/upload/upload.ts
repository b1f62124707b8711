import { lstat, mkdir, readdir, realpath, rename, unlink } from 'node:fs/promises'
import { dirname, join } from 'node:path'
import { isTemporary, numbered, readPattern, SynclineError } from '../../sync/index.ts'
import { hostLabel } from '../ssh/host.ts'
import type { Ssh } from '../ssh/ssh.ts'
import { giveByFtps } from './ftps.ts'
import { isPlainName, type Upload, uploadFaults } from './settings.ts'
import { giveBySftp, type Outgoing } from './sftp.ts'

export type UploadResult = { readonly files: number; readonly bytes: number; readonly leftOut: readonly string[] }
export type PlannedUpload = UploadResult & { readonly to: string; readonly names: readonly string[] }

/** Files that one step gives at most, and that go over one connection. */
const FILES_MAX = 10_000
const AT_ONCE = 200
const DEPTH_MAX = 6
const NUMBER_MAX = 10_000

type Found = {
  readonly files: readonly (Outgoing & { readonly bytes: number; readonly modifiedMs: number })[]
  readonly leftOut: readonly string[]
}

/** What would be given. */
export async function planUpload(upload: Upload): Promise<PlannedUpload> {
  const { files, leftOut } = await find(upload)
  const bytes = files.reduce((sum, file) => sum + file.bytes, 0)
  return {
    files: files.length,
    bytes,
    leftOut,
    to: uploadLabel(upload),
    names: files.slice(0, 100).map(({ name }) => name),
  }
}

/** Gives the files of a folder to another host, the oldest first; what was given is let go of as it is. Throws SYNC_TRANSFER_… */
export async function runUpload(
  ssh: Ssh,
  upload: Upload,
  { signal, say }: { readonly signal: AbortSignal; readonly say: (line: string) => void },
): Promise<UploadResult> {
  const { files, leftOut } = await find(upload)
  let [count, bytes] = [0, 0]
  for (let at = 0; at < files.length; at += AT_ONCE) {
    const some = files.slice(at, at + AT_ONCE)
    const given = async (file: Outgoing) => {
      const own = some.find(({ name }) => name === file.name)
      count++
      bytes += own?.bytes ?? 0
      say(`gave ${file.name}`)
      await letGo(upload, file, own?.modifiedMs ?? 0)
    }
    if (upload.sftp !== undefined) await giveBySftp(ssh, upload.sftp, some, { signal, given })
    else if (upload.ftps !== undefined) await giveByFtps(upload.ftps, some, { signal, given })
  }
  return { files: count, bytes, leftOut }
}

/** Where files are given to, for people. */
export function uploadLabel({ sftp, ftps }: Upload): string {
  if (sftp !== undefined) return `sftp ${hostLabel(sftp)}:${sftp.path}`
  return `ftps ${ftps?.host ?? ''}${ftps?.port === undefined ? '' : `:${ftps.port}`}:${ftps?.path ?? ''}`
}

/** Regular files that fit, the oldest first. What is being written, hidden, or a link is none. */
async function find(upload: Upload): Promise<Found> {
  const faults = uploadFaults(upload)
  if (faults.length > 0)
    throw new SynclineError('SYNC_TRANSFER_INVALID', faults.map(({ path, message }) => `${path} ${message}`).join('\n'))
  const { from, files: text = '*', done = 'sent' } = upload
  const matches = readPattern(text).matcher([])
  const base = await realpath(from).catch((cause: unknown) => {
    throw new SynclineError('SYNC_TRANSFER_FAILED', `there is no folder ${from}`, { cause })
  })
  const [files, leftOut]: [Found['files'][number][], string[]] = [[], []]
  const walk = async (below: string, depth: number): Promise<void> => {
    for (const entry of await readdir(join(base, below), { withFileTypes: true })) {
      const name = below === '' ? entry.name : `${below}/${entry.name}`
      if (isTemporary(entry.name) || name === done) continue
      if (entry.isDirectory() && depth < DEPTH_MAX) await walk(name, depth + 1)
      if (!entry.isFile() || matches(name) === undefined) continue
      if (!isPlainName(join(base, name))) {
        leftOut.push(name)
        continue
      }
      const { size, mtimeMs } = await lstat(join(base, name))
      files.push({ file: join(base, name), name, bytes: size, modifiedMs: mtimeMs })
    }
  }
  await walk('', 1)
  files.sort((a, b) => a.modifiedMs - b.modifiedMs || (a.name < b.name ? -1 : 1))
  return { files: files.slice(0, FILES_MAX), leftOut }
}

async function letGo(
  { after = 'keep', done = 'sent', from }: Upload,
  { file, name }: Outgoing,
  modifiedMs: number,
): Promise<void> {
  if (after === 'keep') return
  // What was written to meanwhile goes with the next run.
  const now = await lstat(file).catch(() => undefined)
  if (now === undefined || now.mtimeMs !== modifiedMs) return
  if (after === 'delete') return unlink(file)
  const base = await realpath(from)
  for (let number = 1; number <= NUMBER_MAX; number++) {
    const target = join(base, done, number === 1 ? name : numbered(name, number))
    await mkdir(dirname(target), { recursive: true })
    const isFree = await lstat(target).then(
      () => false,
      () => true,
    )
    if (isFree) return rename(file, target)
  }
}
