import type { Writable } from 'node:stream'
import pg from 'pg'

/** What pg needs to know of a query that speaks the protocol itself. */
type Protocol = {
  query: (text: string) => void
  sendCopyFromChunk: (chunk: Uint8Array) => void
  endCopyFrom: () => void
  readonly stream: Writable
}

/**
 * A connection on which `copy … from stdin` takes its rows as its one parameter, a Uint8Array in the text form of COPY: kysely passes it on as any other
 * statement, and it answers with the number of rows. What COPY refuses is the error of the statement.
 */
export class CopyingClient extends pg.Client {
  // biome-ignore lint/suspicious/noExplicitAny: pg gives query() a dozen forms; this one adds a meaning to one of them and leaves the others alone
  override query(...args: any[]): any {
    const [text, values] = args
    const rows: unknown = typeof text === 'string' && text.startsWith('copy ') ? values?.[0] : undefined
    if (!(rows instanceof Uint8Array)) return Reflect.apply(super.query, this, args)
    return new Promise((resolve, reject) => {
      super.query(new CopyIn(text, rows, resolve, reject) as unknown as pg.Submittable)
    })
  }
}

type Copied = { readonly command: string; readonly rowCount: number; readonly rows: readonly never[] }

/** pg copies what it sends: small pieces keep its buffers small. */
const CHUNK_BYTES = 256 * 1024

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
