import type { FileHandle } from 'node:fs/promises'
import {
  appendLog,
  checkpointsOf,
  type FolderFile,
  filesInFolder,
  nextFolderFiles,
  updateFolderFile,
} from '../../store/index.ts'
import { type LineBatch, SynclineError } from '../../sync/index.ts'
import type { EdenResource } from '../eden/resources.ts'
import type { Pulled, PullQuery } from '../peer-client.ts'
import { type Folder, pulledNames } from './folder.ts'
import { fittingFiles, isSameFile, lookAtFolder, noteGone, putAside, reasonOf, refuseFile, unpulled } from './look.ts'
import { wordsOf } from './place.ts'
import { type FoundRecord, readFile } from './reader.ts'
import { joined, takeRecords } from './take.ts'

/** Where a pull of a resource stands: behind a file, or behind some of its records in the next one. */
type Place = { readonly file: number; readonly records: number }

/** A file that is to be read. Without `row` it was not taken up yet, and is only looked at. */
type Due = {
  readonly place: number
  readonly name: string
  readonly row: FolderFile | undefined
  readonly resource?: string | undefined
}

/** A file under way. */
type Reading = {
  readonly due: Due
  readonly handle: FileHandle
  readonly modifiedMs: number
  readonly records: AsyncIterator<FoundRecord, undefined>
  /** Records of the resource that were given. */
  given: number
  /** One that was read and has to wait for the next batch. */
  held?: FoundRecord | undefined
}

export type FolderPuller = {
  /** Forgets what was seen: the next pull looks at the folder again. */
  readonly begin: () => void
  readonly pull: (query: PullQuery) => Promise<Pulled>
  /** Lets go of files that everything was taken of. Gives how many. */
  readonly clear: (runId: string) => Promise<number>
  /** Files that cannot be read, in words, each told once. */
  readonly refused: () => readonly string[]
  readonly close: () => Promise<void>
}

/** Numbers of files that were not taken up, far behind those that were. */
const UNTAKEN = 2 ** 40

/**
 * Pulls from the files of a folder, a batch at a time, the oldest first. Each resource has a place of its own in the order of files, which is
 * committed with what was applied (I5): a file counts as taken when every task that it has records for has passed it.
 */
export function createFolderPuller(folder: Folder): FolderPuller {
  const { store, peer } = folder
  const readings = new Map<string, Reading>()
  const refused: string[] = []
  let looking: Promise<void> | undefined

  /** Once in a run. */
  function look(signal: AbortSignal | undefined): Promise<void> {
    looking ??= (async () => {
      refused.push(...(await lookAtFolder(folder, pulledNames(await folder.tasks()), signal)))
    })()
    return looking
  }

  async function pull(query: PullQuery): Promise<Pulled> {
    const { resource: name, after, signal } = query
    const quiet = query.heads === true || query.preview === true
    if (!quiet) await look(signal)
    const resource = await folder.resourceOf(name)
    const key = quiet ? `${name} quiet` : name
    let at = readPlace(after)
    for (;;) {
      signal?.throwIfAborted()
      const due = await dueFiles(name, at, quiet)
      const [next, ...rest] = due
      if (next === undefined) return given(name, [], writePlace(at), false)
      const batches = await readNext(key, next, at, resource, { ...query, quiet })
      if (batches === undefined) {
        at = { file: next.place, records: 0 }
        continue
      }
      const more = !batches.ended || rest.length > 0
      at = batches.ended ? { file: next.place, records: 0 } : { file: next.place - 1, records: batches.given }
      const count = batches.some.reduce((sum, batch) => sum + batch.count, 0)
      // What says nothing new needs no batch, but its place is kept.
      if (count === 0 && more) continue
      return given(name, batches.some, writePlace(at), more)
    }
  }

  async function dueFiles(name: string, at: Place, quiet: boolean): Promise<readonly Due[]> {
    const next = await nextFolderFiles(store.db, peer.id, name, at.file, 2)
    const due = next.map((row): Due => ({ place: row.place ?? 0, name: row.name, row }))
    if (!quiet || looking !== undefined || due.length > 1) return due
    const rows = await filesInFolder(store.db, peer.id)
    const known = new Map(
      rows.filter(({ state }) => state !== 'new' && state !== 'changed').map((row) => [row.name, row]),
    )
    // A file that was replaced is another one.
    const fresh = (await fittingFiles(folder, pulledNames(await folder.tasks()))).filter((file) => {
      const row = known.get(file.name)
      return row === undefined || !isSameFile(file, row)
    })
    const more = fresh.map(
      (file, n): Due => ({ place: UNTAKEN + n, name: file.name, row: undefined, resource: file.resource }),
    )
    return [...due, ...more.filter(({ place }) => place > at.file)]
  }

  /** The next records of a file; undefined where it is not what it was. */
  async function readNext(
    key: string,
    due: Due,
    at: Place,
    resource: EdenResource,
    query: PullQuery & { readonly quiet: boolean },
  ): Promise<{ readonly some: readonly LineBatch[]; readonly ended: boolean; readonly given: number } | undefined> {
    const from = at.file === due.place - 1 ? at.records : 0
    const reading = (await continued(key, due, from)) ?? (await begin(key, due, from, resource.name, query.quiet))
    if (reading === undefined) return undefined
    try {
      // A record that stands there again is joined with the first, or is the beginning of another batch: one batch says one thing of a record.
      const found = new Map<string, FoundRecord>()
      const limit = Math.max(1, query.limit ?? folder.limits.batchRowsMax)
      let [ended, taken] = [false, 0]
      while (taken < limit) {
        const next = reading.held ?? (await reading.records.next()).value
        reading.held = undefined
        if (next === undefined) {
          ended = true
          break
        }
        const { id } = next.change
        const before = found.get(id)
        const record = before === undefined ? next : joined(before, next)
        if (record === undefined) {
          reading.held = next
          break
        }
        found.set(id, record)
        taken++
      }
      if (ended && due.row !== undefined) await checkUnchanged(reading, due.row)
      reading.given += taken
      const { peer: origin } = folder
      const how = { origin: origin.uuid, modifiedMs: reading.modifiedMs, columns: query.columns, quiet: query.quiet }
      const some = await takeRecords(store, resource, [...found.values()], how)
      if (ended) await end(key)
      return { some, ended, given: reading.given }
    } catch (error) {
      await end(key)
      const reason = reasonOf(error)
      if (reason === undefined) throw error
      if (due.row !== undefined && !query.quiet) refused.push(await refuseFile(folder, due.row, reason, true))
      return undefined
    }
  }

  async function continued(key: string, due: Due, from: number): Promise<Reading | undefined> {
    const reading = readings.get(key)
    if (reading?.due.place === due.place && reading.given === from && from > 0) return reading
    await end(key)
    return undefined
  }

  async function begin(
    key: string,
    due: Due,
    skip: number,
    resource: string,
    quiet: boolean,
  ): Promise<Reading | undefined> {
    const opened = await (await folder.place()).open(due.name)
    if (opened === undefined) {
      if (due.row !== undefined && !quiet) await noteGone(folder, due.row)
      return undefined
    }
    const { handle, file } = opened
    if (due.row !== undefined && !isSameFile(file, due.row)) {
      await handle.close()
      if (!quiet) await updateFolderFile(store.db, due.row, { state: 'changed' })
      return undefined
    }
    const named = due.resource ?? folder.pattern?.matcher(pulledNames(await folder.tasks()))(due.name)?.resource
    const records: AsyncIterator<FoundRecord, undefined> = recordsOf(handle, named, resource)
    const reading: Reading = { due, handle, modifiedMs: Number(file.modified / 1_000_000n), records, given: 0 }
    readings.set(key, reading)
    while (reading.given < skip && !(await records.next()).done) reading.given++
    return reading
  }

  async function* recordsOf(
    handle: FileHandle,
    named: string | undefined,
    resource: string,
  ): AsyncGenerator<FoundRecord, undefined> {
    for await (const { records } of readFile(handle, await folder.contextOf(named, resource)))
      yield* records.filter((record) => record.resource === resource)
    return undefined
  }

  /** A program that writes to a file that it has finished is caught at the latest here. */
  async function checkUnchanged({ handle, due }: Reading, row: FolderFile): Promise<void> {
    const { size, mtimeNs } = await handle.stat({ bigint: true })
    if (isSameFile({ name: due.name, bytes: Number(size), modified: mtimeNs }, row)) return
    await updateFolderFile(store.db, row, { state: 'changed' })
    throw new SynclineError('SYNC_PEER_UNREACHABLE', `${due.name} was written to while it was read; it is read again`)
  }

  async function clear(runId: string): Promise<number> {
    const { after } = folder.settings
    const [rows, checkpoints] = await Promise.all([
      filesInFolder(store.db, peer.id, after === 'keep' ? ['waiting'] : ['waiting', 'taken']),
      checkpointsOf(store.db, peer.id),
    ])
    const pulled = new Set(pulledNames(await folder.tasks({ disabled: true })))
    let cleared = 0
    for (const row of rows) {
      const behind = Object.entries(row.resources).filter(
        ([name]) => readPlace(checkpoints.get(name)?.pull ?? null).file < (row.place ?? 0),
      )
      // A task that is disabled may take them yet; where there is none any more, nobody does.
      if (row.state === 'waiting' && !behind.some(([name]) => pulled.has(name))) {
        await letGo(await withLeftOver(row, behind), runId)
        cleared++
      } else if (row.state === 'taken') await tidy(row)
    }
    return cleared
  }

  /** Records of resources that a task pulled when the file was looked at, and that none pulls any more. */
  async function withLeftOver(row: FolderFile, behind: readonly (readonly [string, number])[]): Promise<FolderFile> {
    if (behind.length === 0) return row
    const leftOver = { ...row.leftOver, ...Object.fromEntries(behind.map(([name, count]) => [unpulled(name), count])) }
    const names = new Set(behind.map(([name]) => name))
    const resources = Object.fromEntries(Object.entries(row.resources).filter(([name]) => !names.has(name)))
    await updateFolderFile(store.db, row, { resources, leftOver })
    return { ...row, resources, leftOver }
  }

  async function letGo(row: FolderFile, runId: string): Promise<void> {
    const records = Object.values(row.resources).reduce((sum, count) => sum + count, 0)
    const left = Object.entries(row.leftOver)
    await updateFolderFile(store.db, row, { state: 'taken', taken: true })
    const became = await tidy(row)
    const counted = Object.entries(row.resources).map(([name, count]) => `${count} of ${name}`)
    const said = left.length === 0 ? '' : `; not taken: ${left.map(([what, count]) => `${count} × ${what}`).join('; ')}`
    await appendLog(store.db, {
      ...{
        peer,
        runId,
        mode: 'pull',
        direction: 'outgoing',
        action: `import ${row.name}`,
        changes: records,
        bytes: row.bytes,
      },
      result: left.length === 0 ? 'success' : 'warning',
      message:
        `Data imported successfully (${records} records): ${counted.join(', ') || 'nothing for this site'}${said}; ${became}`.slice(
          0,
          9_000,
        ),
    })
  }

  /** What the settings say of a file that was taken. One of which something was left over is kept for a person. */
  async function tidy(row: FolderFile): Promise<string> {
    const { after, done, quarantine } = folder.settings
    const left = Object.entries(row.leftOver)
    if (left.length > 0 && after === 'delete') {
      const reason = `what this site could not take of the file:\n${left.map(([what, count]) => `${count} × ${what}`).join('\n')}\n`
      const { moved, words } = await putAside(folder, row, quarantine, reason)
      if (moved) await updateFolderFile(store.db, row, { gone: true })
      return words
    }
    if (after === 'keep') return 'it is kept'
    try {
      const place = await folder.place()
      const where = await place.move(
        row.name,
        after === 'move' ? `${done}/${row.name}` : `.syncline/${folder.self.uuid}-${row.id}.taken`,
      )
      const moved = await place.open(where)
      await moved?.handle.close()
      if (moved === undefined || !isSameFile(moved.file, row)) {
        await place.move(where, row.name)
        return 'it stays, as it has another content by now'
      }
      if (after === 'delete') await place.remove(where)
      await updateFolderFile(store.db, row, { gone: true })
      return after === 'delete' ? 'it is deleted' : `it is in ${where} now`
    } catch (error) {
      return `it stays where it is, as it cannot be ${after === 'move' ? 'moved' : 'deleted'}: ${wordsOf(error)}`
    }
  }

  async function end(key: string): Promise<void> {
    const reading = readings.get(key)
    readings.delete(key)
    await reading?.records.return?.()
    await reading?.handle.close().catch(() => {})
  }

  return {
    begin: () => {
      looking = undefined
    },
    pull,
    clear,
    refused: () => refused.splice(0),
    close: async () => {
      for (const key of [...readings.keys()]) await end(key)
    },
  }
}

function given(resource: string, batches: readonly LineBatch[], checkpoint: string, more: boolean): Pulled {
  const last = batches.at(-1) ?? { resource, columns: [], refs: {}, origins: [], text: '', count: 0 }
  const count = batches.reduce((sum, batch) => sum + batch.count, 0)
  const bytes = batches.reduce((sum, batch) => sum + batch.text.length, 0)
  return {
    batches: [...batches.slice(0, -1), { ...last, next: { checkpoint, more } }],
    count,
    checkpoint,
    more,
    bytes,
    told: null,
  }
}

const PLACE = /^folder:(\d{1,13})(?:\.(\d{1,9}))?$/

function readPlace(after: string | null): Place {
  if (after === null) return { file: 0, records: 0 }
  const [matched, file, records = '0'] = PLACE.exec(after) ?? []
  if (matched === undefined)
    throw new SynclineError('SYNC_CHECKPOINT_GONE', `the checkpoint ${after.slice(0, 80)} is not one of a folder`)
  return { file: Number(file), records: Number(records) }
}

function writePlace({ file, records }: Place): string {
  return `folder:${file}${records === 0 ? '' : `.${records}`}`
}
