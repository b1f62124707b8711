import type { Writable } from 'node:stream'
import type pg from 'pg'

/** What pg needs to know of a query that speaks the protocol itself. */
type Protocol = {
  query: (text: string) => void
  sendCopyFromChunk: (chunk: Uint8Array) => void
  endCopyFrom: () => void
  readonly stream: Writable
}

type Copied = { readonly command: string; readonly rowCount: number; readonly rows: readonly never[] }

/** pg copies what it sends: small pieces keep its buffers small. */
const CHUNK_BYTES = 256 * 1024

/** Copies rows, in the text form of COPY, into the table of a statement `copy … from stdin`; answers as a statement that was taken by kysely. */
export function copyIn(client: pg.ClientBase, text: string, rows: Uint8Array): Promise<Copied> {
  return new Promise((resolve, reject) => {
    client.query(new CopyIn(text, rows, resolve, reject) as unknown as pg.Submittable)
  })
}

/** One `copy … from stdin`, as pg's queue of queries drives it. */
class CopyIn {
  readonly #text: string
  readonly #rows: Uint8Array
  readonly #done: (copied: Copied) => void
  readonly #failed: (error: Error) => void
  #copied = 0
  #over = false

  constructor(text: string, rows: Uint8Array, done: (copied: Copied) => void, failed: (error: Error) => void) {
    this.#text = text
    this.#rows = rows
    this.#done = done
    this.#failed = failed
  }

  submit(connection: Protocol): void {
    connection.query(this.#text)
  }

  handleCopyInResponse(connection: Protocol): void {
    this.#send(connection, 0)
  }

  /** Goes on when what was sent is on its way, so that the rows are not held a second time. */
  #send(connection: Protocol, from: number): void {
    for (let start = from; start < this.#rows.length && !this.#over; ) {
      const end = start + CHUNK_BYTES
      connection.sendCopyFromChunk(this.#rows.subarray(start, end))
      if (connection.stream.writableNeedDrain) {
        connection.stream.once('drain', () => this.#send(connection, end))
        return
      }
      start = end
    }
    if (!this.#over) connection.endCopyFrom()
  }

  handleCommandComplete({ text }: { readonly text: string }): void {
    this.#copied = Number(/^COPY (\d+)$/.exec(text)?.[1] ?? 0)
  }

  handleError(error: Error): void {
    this.#over = true
    this.#failed(error)
  }

  handleReadyForQuery(): void {
    // Only these commands have their rows counted by kysely.
    this.#done({ command: 'INSERT', rowCount: this.#copied, rows: [] })
  }
}
