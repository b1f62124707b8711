import { execFile } from 'node:child_process'
import { closeSync, constants, openSync, readSync } from 'node:fs'
import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'

/** A way out for a program that writes much in small pieces. */
export type PacedOutput = {
  /** What the program gets as its standard output. */
  readonly fd: number
  /** The program has it now: nobody else may keep it open. */
  readonly started: () => void
  /** Takes what is left when the program has ended. */
  readonly end: () => void
}

const FAST_MS = 15
const SLOW_MS = 200
const PIECE_BYTES = 65_536

/**
 * A pipe that is looked into now and then. A pipe of Node's own wakes this process for each piece: for ten thousand small files that is ten thousand
 * times, at the cost of a tenth of the copy. The program waits only when 64 KiB are full. Undefined where no named pipe can be made.
 */
export async function openPacedOutput(onOutput: (chunk: Buffer) => void): Promise<PacedOutput | undefined> {
  const folder = await mkdtemp(join(tmpdir(), 'syncline-out-')).catch(() => undefined)
  if (folder === undefined) return undefined
  let reader: number
  let writer: number | undefined
  try {
    const path = join(folder, 'out')
    await new Promise<void>((resolve, reject) =>
      execFile('mkfifo', ['-m', '600', path], (error) => (error === null ? resolve() : reject(error))),
    )
    reader = openSync(path, constants.O_RDONLY | constants.O_NONBLOCK)
    writer = openSync(path, constants.O_WRONLY)
  } catch {
    return undefined
  } finally {
    await rm(folder, { recursive: true, force: true })
  }
  const piece = Buffer.alloc(PIECE_BYTES)
  /** Bytes that were there. */
  const take = (): number => {
    let taken = 0
    try {
      for (let got = readSync(reader, piece); got > 0; got = readSync(reader, piece)) {
        taken += got
        onOutput(Buffer.from(piece.subarray(0, got)))
        // Others want their turn too.
        if (taken >= 16 * PIECE_BYTES) break
      }
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code !== 'EAGAIN') throw error
    }
    return taken
  }
  const look = () => {
    timer = setTimeout(look, take() > 0 ? FAST_MS : SLOW_MS)
  }
  let timer = setTimeout(look, FAST_MS)
  const started = () => {
    if (writer !== undefined) closeSync(writer)
    writer = undefined
  }
  return {
    fd: writer,
    started,
    end: () => {
      clearTimeout(timer)
      started()
      while (take() > 0);
      closeSync(reader)
    },
  }
}
