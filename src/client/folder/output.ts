import { appendLog, endFolderOutput, type FolderOutput, folderOutputs, writeFolderOutput } from '../../store/index.ts'
import {
  type FileRecord,
  type FileState,
  type FolderFormat,
  type FolderLayout,
  fileFoot,
  fileHead,
  filePiece,
  fillTemplate,
  fitsFile,
  isTold,
  NEW_FILE,
  SynclineError,
} from '../../sync/index.ts'
import type { Folder } from './folder.ts'
import { writeAll } from './place.ts'

/** What is known of a file in the making: also how it is written, as the settings may change meanwhile. */
type Growing = FileState & { readonly how: How }
type How = { readonly format: FolderFormat; readonly layout: FolderLayout; readonly readable: boolean }

export type FolderWriter = {
  /** Writes records down, safe from a crash. They are under their name with the end of the run, or when the file is large. Gives bytes. */
  readonly write: (resource: string, records: readonly FileRecord[]) => Promise<number>
  /** Gives the files in the making their names. Gives how many. */
  readonly publish: (runId: string | null) => Promise<number>
}

/** A file that grows beyond this part of what is read at most is complete. */
const LARGE_PART = 4
/** Text that is gathered before it is written. */
const CHUNK_CHARACTERS = 1 << 20

/**
 * Writes the files of a folder. A file grows hidden, under a name of its own, with its length in the database: what a crash left behind that length
 * is cut off. When it is complete it gets its name, never that of a file that is there.
 */
export function createFolderWriter(folder: Folder, now: () => number = Date.now): FolderWriter {
  const { store, peer, self, settings, limits } = folder
  const { format, layout, readable } = settings
  const how: How = { format, layout, readable }
  const bytesMax = Math.ceil(limits.bodyBytesMax / LARGE_PART)

  async function write(resource: string, records: readonly FileRecord[]): Promise<number> {
    if (settings.write === null)
      throw new SynclineError(
        'SYNC_REQUEST_INVALID',
        `nothing is written to the folder "${peer.name}": it has no names for files, as \`syncline folder set\` gives with --write`,
      )
    const told = records.filter((record) => isTold(how, record))
    if (layout === 'record') return writeEach(resource, told)
    return grow(resource, told)
  }

  async function writeEach(resource: string, records: readonly FileRecord[]): Promise<number> {
    const place = await folder.place()
    const names: string[] = []
    let bytes = 0
    for (const record of records) {
      const { text, state } = filePiece(how, NEW_FILE, resource, record)
      const whole = `${fileHead(how)}${text}${fileFoot(how, state)}`
      names.push(await place.write(nameFor(resource, record.change.id), whole))
      bytes += Buffer.byteLength(whole)
    }
    if (records.length === 0) return bytes
    const some = `${names[0]}${names.length === 1 ? '' : ` and ${names.length - 1} more files`}`
    await note(null, `${some}: ${records.length} of ${resource}, one file for each`, records.length, bytes)
    return bytes
  }

  async function grow(resource: string, records: readonly FileRecord[]): Promise<number> {
    if (records.length === 0) return 0
    // Other sites, and other peers of this one, may write to the same folder.
    const own = layout === 'all' ? 'all' : String((await folder.resourceOf(resource)).place.resourceId)
    const spool = `${self.uuid}-${peer.id}-${own}.part`
    let file = await openFile(spool, resource)
    let written = 0
    try {
      for (const record of records) {
        if (!fitsFile(how, file.state, record) || file.bytes + file.text.length >= bytesMax) {
          written += await file.flush()
          await file.handle.close()
          await publishOne(file.output(), null)
          file = await openFile(spool, resource)
        }
        const { text, state } = filePiece(how, file.state, resource, record)
        file.text += text
        file.state = state
        file.records = { ...file.records, [resource]: (file.records[resource] ?? 0) + 1 }
        if (file.text.length >= CHUNK_CHARACTERS) written += await file.flush()
      }
      written += await file.flush()
      await file.handle.datasync()
    } finally {
      await file.handle.close().catch(() => {})
    }
    await writeFolderOutput(store.db, peer.id, file.output())
    return written
  }

  /** A file in the making, new or as it was left. */
  async function openFile(spool: string, resource: string) {
    let before = (await folderOutputs(store.db, peer.id)).find((each) => each.spool === spool)
    const isOther =
      before !== undefined && (JSON.stringify(growing(before).how) !== JSON.stringify(how) || before.name !== null)
    // The records of a resource come together: another run that begins again with the first resource needs another file.
    const isBehind =
      before !== undefined && growing(before).resource !== resource && Object.hasOwn(before.records, resource)
    if (before !== undefined && (isOther || isBehind)) {
      await publishOne(before, null)
      before = undefined
    }
    // A new file in the place of one that is gone would hide that its records are.
    const handle = await wholeSpool(before ?? { spool, bytes: 0 }, before === undefined)
    if (handle === undefined) return endLost(before as FolderOutput)
    return {
      handle,
      bytes: before?.bytes ?? 0,
      state: before === undefined ? NEW_FILE : (growing(before) as FileState),
      records: before?.records ?? {},
      text: before === undefined ? fileHead(how) : '',
      async flush(): Promise<number> {
        const bytes = Buffer.from(this.text)
        await writeAll(handle, bytes, this.bytes)
        this.bytes += bytes.length
        this.text = ''
        return bytes.length
      },
      output(): FolderOutput {
        const { records: count, resource: last, columns } = this.state
        const state: Growing = { records: count, resource: last, columns, how }
        return { spool, bytes: this.bytes, state, records: this.records, name: null }
      },
    }
  }

  async function publish(runId: string | null): Promise<number> {
    const outputs = await folderOutputs(store.db, peer.id)
    for (const output of outputs) await publishOne(output, runId)
    return outputs.length
  }

  async function publishOne(output: FolderOutput, runId: string | null): Promise<void> {
    const { db } = store
    const handle = await wholeSpool(output, false)
    if (handle === undefined) {
      // With a name it was complete, and only this entry was left over by a crash.
      if (output.name !== null) return endFolderOutput(db, peer.id, output.spool)
      return endLost(output)
    }
    const { how: written, ...state } = growing(output)
    try {
      await handle.truncate(output.bytes)
      const foot = Buffer.from(fileFoot(written, state))
      await writeAll(handle, foot, output.bytes)
      await handle.sync()
    } finally {
      await handle.close()
    }
    const wanted = output.name ?? nameFor(state.resource ?? '', '')
    await writeFolderOutput(db, peer.id, { ...output, name: wanted })
    const name = await (await folder.place()).move(output.spool, wanted, true).catch(async (error: unknown) => {
      await writeFolderOutput(db, peer.id, { ...output, name: null })
      throw error
    })
    await endFolderOutput(db, peer.id, output.spool)
    const total = Object.values(output.records).reduce((sum, count) => sum + count, 0)
    await note(runId, `${name}: ${countsOf(output)}`, total, output.bytes)
  }

  /** Opens a file in the making; undefined where it is gone, or not all that was written is in it any more. */
  async function wholeSpool({ spool, bytes }: Pick<FolderOutput, 'spool' | 'bytes'>, make: boolean) {
    const handle = await (await folder.place()).spool(spool, make)
    if (handle === undefined || (await handle.stat()).size >= bytes) return handle
    await handle.close()
    return undefined
  }

  /** Records that counted as delivered are nowhere: it is told, and the next run begins a file of its own. */
  async function endLost(output: FolderOutput): Promise<never> {
    await endFolderOutput(store.db, peer.id, output.spool)
    throw new SynclineError(
      'SYNC_PEER_UNREACHABLE',
      `the file in which ${countsOf(output)} were written for "${peer.name}" was removed by somebody: \`syncline folder dump ${peer.name}\` writes everything again`,
    )
  }

  function nameFor(resource: string, id: string): string {
    return fillTemplate(settings.write ?? '', { resource, id, peer: peer.name, site: self.name, at: now() })
  }

  async function note(runId: string | null, message: string, changes: number, bytes: number): Promise<void> {
    await appendLog(store.db, {
      ...{ peer, runId, mode: 'push', direction: 'outgoing', action: 'data export', result: 'success' },
      ...{ message: `data sent successfully: ${message}`, changes, bytes },
    })
  }

  return { write, publish }
}

function growing({ state }: FolderOutput): Growing {
  return state as Growing
}

function countsOf({ records }: FolderOutput): string {
  return Object.entries(records)
    .map(([name, count]) => `${count} of ${name}`)
    .join(', ')
}
