import { createHash } from 'node:crypto'
import type { FileHandle } from 'node:fs/promises'
import { setTimeout as sleep } from 'node:timers/promises'
import {
  appendLog,
  checkpointsOf,
  type FolderFile,
  filesInFolder,
  keepStrangers,
  noteFolderFile,
  pruneFolderFiles,
  queueFolderFile,
  updateFolderFile,
} from '../../store/index.ts'
import { type EdenFault, type EdenStranger, readFormatOf, SynclineError } from '../../sync/index.ts'
import type { Folder } from './folder.ts'
import { type ListedFile, wordsOf } from './place.ts'
import { readFile } from './reader.ts'

/** Files that one run takes up at most; the oldest first. */
const FILES_MAX = 5_000
/** The longest step of a clock of files, that of FAT, and some more. */
const CLOCK_STEP_MS = 3_000
/** Reasons that are told of one file. */
const REASONS_MAX = 100

/** A file that fits the pattern, and the resource that its name tells. */
export type FittingFile = ListedFile & { readonly resource?: string }

/** Files of the folder that fit its pattern, the oldest first. */
export async function fittingFiles(
  { place, settings, pattern }: Folder,
  resources: readonly string[],
): Promise<readonly FittingFile[]> {
  if (pattern === null) return []
  const matches = pattern.matcher(resources)
  const listed = await (await place()).list([settings.done, settings.quarantine])
  return listed
    .flatMap((file) => {
      const fits = matches(file.name)
      return fits === undefined ? [] : [{ ...file, ...fits }]
    })
    .sort((a, b) => (a.modified === b.modified ? (a.name < b.name ? -1 : 1) : a.modified < b.modified ? -1 : 1))
}

/**
 * Looks at what is in the folder: what is new and no longer written to is read through once, and waits to be taken, the oldest first. What cannot
 * be read goes into quarantine, and is told. A file that was only touched is known by what is in it.
 */
export async function lookAtFolder(
  folder: Folder,
  resources: readonly string[],
  signal: AbortSignal | undefined,
): Promise<readonly string[]> {
  if (readFormatOf(folder.settings) === 'csv' && folder.pattern?.namesResource === false && resources.length > 1)
    throw new SynclineError(
      'SYNC_REQUEST_INVALID',
      `nothing says which of ${[...resources].sort().join(', ')} a table is of: put \${resource} into the pattern of the files that are read from "${folder.peer.name}"`,
    )
  const { db } = folder.store
  const [known, found] = await Promise.all([filesInFolder(db, folder.peer.id), fittingFiles(folder, resources)])
  const names = new Set(found.map(({ name }) => name))
  for (const file of known) if (!names.has(file.name)) await noteGone(folder, file)
  const before = new Map(known.map((file) => [file.name, file]))
  let fresh = 0
  for (const file of found) {
    if (fresh === FILES_MAX) break
    signal?.throwIfAborted()
    if (await noteSeen(folder, file, before.get(file.name))) fresh++
  }
  const seen = await filesInFolder(db, folder.peer.id, ['new'])
  const ready = await settled(folder, seen, resources, signal)
  const refused: string[] = []
  for (const file of ready) {
    signal?.throwIfAborted()
    const told = await takeUp(folder, file, seen.find(({ name }) => name === file.name) as FolderFile)
    if (told !== undefined) refused.push(told)
  }
  await pruneFolderFiles(db, folder.peer.id)
  return refused
}

/** Says of a file that it is no longer there, and that it was not taken where that is so. */
export async function noteGone(folder: Folder, file: FolderFile): Promise<void> {
  await updateFolderFile(folder.store.db, file, { gone: true })
  if (file.state === 'waiting') await notTaken(folder, file, 'the file is no longer there')
}

async function notTaken({ store, peer }: Folder, { name }: FolderFile, what: string): Promise<void> {
  await appendLog(store.db, {
    ...{ peer, mode: 'pull', direction: 'outgoing', action: `import ${name}`, result: 'warning' },
    message: `${what}; it was not taken, or not all of it`,
  })
}

/** True for a file that was written to while some task was between its records. */
async function isTakenInPart({ store, peer }: Folder, { state, place }: FolderFile): Promise<boolean> {
  if (state !== 'changed' || place === null) return false
  const checkpoints = [...(await checkpointsOf(store.db, peer.id)).values()]
  return checkpoints.some(({ pull }) => pull?.startsWith(`folder:${place - 1}.`) === true)
}

/** True for a file that is new, or has another content. */
async function noteSeen(folder: Folder, file: ListedFile, before: FolderFile | undefined): Promise<boolean> {
  const { db } = folder.store
  const facts = { bytes: file.bytes, modified: String(file.modified) }
  const isSame = before?.bytes === facts.bytes && before.modified === facts.modified
  if (before !== undefined && before.state !== 'changed') {
    if (isSame && !(await hidesAnother(folder, file, before))) return before.state === 'new'
    // A touched file is the same file.
    const isTouched =
      before.bytes === facts.bytes && before.sha256 !== null && (await sumOfFile(folder, file)) === before.sha256
    if (before.state === 'new' || isTouched) {
      await updateFolderFile(db, before, facts)
      return before.state === 'new'
    }
  }
  if (before !== undefined && (before.state === 'waiting' || (await isTakenInPart(folder, before))))
    await notTaken(folder, before, 'the file was replaced by another one')
  await noteFolderFile(db, folder.peer.id, { name: file.name, ...facts })
  return true
}

/**
 * Whether there is another content behind the same name, size and time, as clocks of file systems go in steps. What was seen a step after its
 * time is what it was: whatever is written later has a later time.
 */
async function hidesAnother(folder: Folder, file: ListedFile, before: FolderFile): Promise<boolean> {
  const ageAt = (time: number) => Math.abs(time - Number(file.modified / 1_000_000n))
  if (before.sha256 === null || ageAt(Date.parse(before.seenAt)) > CLOCK_STEP_MS) return false
  const now = Date.now()
  const sum = await sumOfFile(folder, file)
  if (sum !== undefined && sum !== before.sha256) return true
  if (ageAt(now) > CLOCK_STEP_MS) await updateFolderFile(folder.store.db, before, { bytes: file.bytes })
  return false
}

/** Of new files those that are not written to: two looks, far enough apart, saw the same. */
async function settled(
  folder: Folder,
  fresh: readonly FolderFile[],
  resources: readonly string[],
  signal: AbortSignal | undefined,
): Promise<readonly FittingFile[]> {
  if (fresh.length === 0) return []
  const pauseMs = folder.settings.settleSeconds * 1_000
  const seen = new Map(fresh.map((file) => [file.name, file]))
  const now = Date.now()
  const isOld = ({ seenAt }: FolderFile) => now - Date.parse(seenAt) >= pauseMs
  const waits = pauseMs > 0 && !fresh.every(isOld)
  if (waits) await sleep(pauseMs, undefined, { signal })
  const again = await fittingFiles(folder, resources)
  return again.filter(({ name, bytes, modified }) => {
    const first = seen.get(name)
    return first !== undefined && first.bytes === bytes && first.modified === String(modified)
  })
}

/** Reads a file through: what cannot be read is told before anything of it is taken. */
async function takeUp(folder: Folder, file: FittingFile, row: FolderFile): Promise<string | undefined> {
  const { db } = folder.store
  const opened = await (await folder.place()).open(file.name)
  if (opened === undefined) return undefined
  try {
    if (!isSameFile(opened.file, row)) return undefined
    const sha256 = await sumOf(opened.handle)
    const { resources, leftOver, strangers, unknown } = await lookThrough(folder, opened.handle, file.resource)
    await keepAll(folder, strangers)
    if (unknown.length > 0) await tellUnknown(folder, file.name, unknown)
    await queueFolderFile(db, row, { sha256, resources, leftOver })
    return undefined
  } catch (error) {
    const reason = reasonOf(error)
    if (reason === undefined) throw error
    return await refuseFile(folder, row, reason)
  } finally {
    await opened.handle.close()
  }
}

type Content = {
  readonly resources: Record<string, number>
  readonly leftOver: Record<string, number>
  readonly strangers: readonly EdenStranger[]
  /** Names in tables of which there is no column here. */
  readonly unknown: readonly string[]
}

/** What is in a file, counted. */
export async function lookThrough(folder: Folder, handle: FileHandle, named: string | undefined): Promise<Content> {
  const resources: Record<string, number> = {}
  const leftOver: Record<string, number> = {}
  const strangers: EdenStranger[] = []
  const unknown = new Set<string>()
  const columns = new Map<string, ReadonlySet<string>>()
  const count = (counts: Record<string, number>, name: string) => {
    if (Object.hasOwn(counts, name) || Object.keys(counts).length < REASONS_MAX) counts[name] = (counts[name] ?? 0) + 1
  }
  const context = await folder.contextOf(named)
  const pulled = new Set((await folder.tasks()).filter(({ mode }) => mode !== 'push').map(({ resource }) => resource))
  for await (const portion of readFile(handle, context)) {
    for (const { resource, change, told } of portion.records) {
      if (!pulled.has(resource)) {
        count(leftOver, unpulled(resource))
        continue
      }
      count(resources, resource)
      if (told === undefined || context.format === 's3xml' || context.format === 's3json') continue
      if (change.kind !== 'put' || unknown.size >= REASONS_MAX) continue
      const known = columns.get(resource) ?? (await columnsOf(folder, resource))
      columns.set(resource, known)
      for (const name of Object.keys(change.data)) if (!known.has(name)) unknown.add(`${name} of ${resource}`)
    }
    for (const fault of portion.faults) count(leftOver, faultText(fault))
    strangers.push(...portion.strangers)
    for (const { element } of portion.strangers)
      if (element.attributes.uuid === undefined)
        count(leftOver, storable(`records of ${element.table} without a name, of which there is no table here`))
  }
  return { resources, leftOver, strangers, unknown: [...unknown] }
}

/** Columns of a resource as the files of its task call them, constant ones too. */
async function columnsOf(folder: Folder, resource: string): Promise<ReadonlySet<string>> {
  const task = (await folder.tasks()).find((each) => each.resource === resource)
  const { shape } = await folder.resourceOf(resource)
  return new Set([...shape.columns.map(({ column }) => column), ...Object.keys(task?.mapping.constant ?? {})])
}

/** A name that is written wrong must not stay unnoticed. */
async function tellUnknown({ store, peer }: Folder, name: string, unknown: readonly string[]): Promise<void> {
  await appendLog(store.db, {
    ...{ peer, mode: 'pull', direction: 'outgoing', action: `import ${name}`, result: 'warning' },
    message: storable(
      `there is no column ${unknown.slice(0, 20).join(', ').slice(0, 2_000)} here: what stands in it goes into no table`,
    ),
  })
}

/** What is left over where no task takes records of a resource. */
export function unpulled(resource: string): string {
  return `records of "${resource}", which no task pulls`
}

function faultText({ table, uuid, code, reason }: EdenFault): string {
  return storable(`${table} ${uuid ?? 'without a name'}: ${code}: ${reason}`.slice(0, 500))
}

/** Text from a file may hold what no text of the database can. */
function storable(text: string): string {
  return text.replace(/\p{Cc}+/gu, ' ').toWellFormed()
}

/** Records of tables that nobody has here are kept as they came. */
async function keepAll({ store, peer, resources }: Folder, strangers: readonly EdenStranger[]): Promise<void> {
  const rows = strangers.flatMap(({ element, within }) => {
    const { uuid } = element.attributes
    return uuid === undefined ? [] : [{ element, uuid, within }]
  })
  if (rows.length === 0) return
  const known = await resources()
  await keepStrangers(
    store.db,
    peer.id,
    rows.map(({ element, uuid, within }) => ({
      ...{ element, uuid, recordId: within?.id ?? null },
      resourceId: within === undefined ? null : (known.get(within.resource)?.id ?? null),
    })),
  )
  const tables = [...new Set(rows.map(({ element }) => element.table))].sort()
  await appendLog(store.db, {
    ...{ peer, mode: 'pull', direction: 'outgoing', action: 'import', result: 'success' },
    message: `there is no resource of the name of ${tables.slice(0, 20).join(', ')} here: ${rows.length} records are kept as they came, and not synchronized`,
  })
}

/** Puts a file aside that cannot be read, with the reason in a file beside it and in the log. Gives that in words. */
export async function refuseFile(folder: Folder, row: FolderFile, reason: string, begun = false): Promise<string> {
  const { store, peer, settings } = folder
  const where = await putAside(folder, row, settings.quarantine, `${reason}\n`)
  await updateFolderFile(store.db, row, { state: 'refused', reason, ...(where.moved && { gone: true }) })
  await appendLog(store.db, {
    ...{ peer, mode: 'pull', direction: 'outgoing', action: `import ${row.name}`, result: 'error', remote: true },
    message: `${begun ? 'the rest of the file cannot be read, and was not taken' : 'the file cannot be read, and nothing of it was taken'}: ${reason}; ${where.words}`,
  })
  return `${row.name} cannot be read: ${reason}`
}

/** Moves a file to a folder for what needs a person. Where that cannot be, or another one has its name by now, it stays, and says so. */
export async function putAside(
  folder: Folder,
  row: FolderFile,
  to: string,
  reason: string,
): Promise<{ readonly moved: boolean; readonly words: string }> {
  try {
    const place = await folder.place()
    const moved = await place.move(row.name, `${to}/${row.name}`)
    const opened = await place.open(moved)
    await opened?.handle.close()
    if (opened === undefined || !isSameFile(opened.file, row)) {
      await place.move(moved, row.name)
      return { moved: false, words: 'what has its name by now has another content, and stays' }
    }
    await place.write(`${moved}.reason.txt`, reason)
    return { moved: true, words: `it is in ${moved} now` }
  } catch (error) {
    return { moved: false, words: `it stays where it is, as it cannot be moved: ${wordsOf(error)}` }
  }
}

/** Why a file cannot be read; undefined where something else went wrong. */
export function reasonOf(error: unknown): string | undefined {
  if (!(error instanceof SynclineError)) return undefined
  return /^SYNC_(?:FORMAT|BATCH|RECORD|REQUEST_TOO_LARGE)/.test(error.code)
    ? storable(`${error.code}: ${error.message}`)
    : undefined
}

export function isSameFile(file: ListedFile, row: Pick<FolderFile, 'bytes' | 'modified'>): boolean {
  return file.bytes === row.bytes && String(file.modified) === row.modified
}

async function sumOfFile(folder: Folder, file: ListedFile): Promise<string | undefined> {
  const opened = await (await folder.place()).open(file.name)
  if (opened === undefined) return undefined
  try {
    return await sumOf(opened.handle)
  } finally {
    await opened.handle.close()
  }
}

async function sumOf(handle: FileHandle): Promise<string> {
  const hash = createHash('sha256')
  for await (const chunk of handle.createReadStream({ start: 0, autoClose: false })) hash.update(chunk as Buffer)
  return hash.digest('hex')
}
