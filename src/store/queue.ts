import { createHash } from 'node:crypto'
import pg from 'pg'
import { type Job, PgBoss } from 'pg-boss'
import type { Store } from './database.ts'

/** One due piece of work. Processes that share the database and find the same `key` due make one job of it. */
export type DueJob<Data extends object> = {
  readonly key: string
  readonly data: Data
  /** Not before this time; at once when absent. */
  readonly startAfter?: Date | undefined
}

/** `signal` is aborted when the job was taken away: its process was silent for too long, or the queue stops. */
export type Work<Data extends object> = (data: Data, signal: AbortSignal) => Promise<void>

/** Due work on the site's own database, done once by any of the processes that share it. */
export type Queue<Data extends object> = {
  /** Puts a job on the queue; false when a job of that key has been there in the last days. */
  readonly send: (job: DueJob<Data>) => Promise<boolean>
  /** Takes jobs from now on. A job whose work throws, or whose process dies, is tried again. */
  readonly work: (work: Work<Data>) => Promise<void>
  /** Takes no more, and waits for what is under way at most `timeoutMs`. */
  readonly stop: (timeoutMs: number) => Promise<void>
}

const NAME = 'sync'
/** Jobs that one process works on at once; the embedded database has one connection for everything. */
const CONCURRENCY = 4
const CONCURRENCY_EMBEDDED = 1
const POLL_SECONDS = 2
/** A process that does not say for so long that it still works on a job is taken for dead. */
const HEARTBEAT_SECONDS = 30
/** The longest run that is believed in: what pg-boss allows. Dead processes are found by their heartbeat long before. */
const EXPIRE_SECONDS = 86_400
/** How long a finished job is kept, and with it the memory that its key was done. */
const KEEP_SECONDS = 7 * 86_400

/**
 * pg-boss reads numbers and times as pg gives them, the store as text. An empty list besides, because the embedded database's driver takes what
 * stands here for the types of the parameters.
 */
const PARSERS = Object.assign([], { getTypeParser: pg.types.getTypeParser }) as unknown as pg.CustomTypesConfig

/**
 * pg-boss in schema `syncline`, through the store's own connections (docs/adr/0005-queue.md). Makes or upgrades its tables, under its own lock.
 * `onError` hears of trouble in its background work, which goes on.
 */
export async function openQueue<Data extends object>(
  store: Store,
  onError: (error: Error) => void,
): Promise<Queue<Data>> {
  const boss = new PgBoss({
    db: { executeSql: (text: string, values: unknown[] = []) => store.pool.query({ text, values, types: PARSERS }) },
    backend: store.server ? 'postgres' : 'pglite',
    schema: 'syncline',
    createSchema: false,
    schedule: false,
    superviseIntervalSeconds: HEARTBEAT_SECONDS,
    monitorIntervalSeconds: HEARTBEAT_SECONDS,
    // The embedded database has one connection; nothing may occupy it for long, and its tables stay small.
    reindex: store.server,
    monitorVacuum: false,
  })
  boss.on('error', onError)
  await boss.start()
  await boss.createQueue(NAME, {
    policy: 'standard',
    retryLimit: 5,
    retryDelay: 10,
    retryBackoff: true,
    retryDelayMax: 300,
    expireInSeconds: EXPIRE_SECONDS,
    heartbeatSeconds: HEARTBEAT_SECONDS,
    deleteAfterSeconds: KEEP_SECONDS,
    retentionSeconds: KEEP_SECONDS,
  })
  const workers: string[] = []
  return {
    send: async ({ key, data, startAfter }) => {
      const id = await boss.send(NAME, data, { id: jobId(key), ...(startAfter && { startAfter }) })
      if (id !== null && startAfter === undefined) for (const worker of workers) boss.notifyWorker(worker)
      return id !== null
    },
    work: async (work) => {
      for (let n = 0; n < (store.server ? CONCURRENCY : CONCURRENCY_EMBEDDED); n++) {
        const options = { pollingIntervalSeconds: POLL_SECONDS, batchSize: 1 }
        workers.push(
          await boss.work<Data>(NAME, options, async (jobs: Job<Data>[]) => {
            for (const job of jobs) await work(job.data, job.signal)
          }),
        )
      }
    },
    stop: (timeoutMs) => boss.stop({ close: false, graceful: true, timeout: timeoutMs }),
  }
}

/** The same key gives the same id, and an id is taken only once, even after its job is done. */
function jobId(key: string): string {
  const hex = createHash('sha256').update(key).digest('hex')
  return `${hex.slice(0, 8)}-${hex.slice(8, 12)}-8${hex.slice(13, 16)}-a${hex.slice(17, 20)}-${hex.slice(20, 32)}`
}
