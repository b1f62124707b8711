/** pg of simulated sites: each query is a step of the machine. Real queries go to a real PostgreSQL. */
import pg from 'pg'
import { type Context, machine } from '../machine.ts'

type Callback = (error: Error | null, result?: unknown) => void
type Query = (...args: unknown[]) => Promise<unknown>

class GatedClient extends pg.Client {
  readonly #process = machine.context()?.process
  /** True until a transaction says how long it waits for locks. */
  #patient = true

  // biome-ignore lint/suspicious/noExplicitAny: pg's own overloads are many
  override connect(...args: any[]): any {
    const connected = machine.connecting(() => super.connect())
    const [callback] = args as [Callback?]
    if (callback === undefined) return connected
    connected.then(
      () => callback(null, this),
      (error: Error) => callback(error),
    )
  }

  // biome-ignore lint/suspicious/noExplicitAny: pg's own overloads are many
  override query(...args: any[]): any {
    const process = this.#process
    const callback = typeof args.at(-1) === 'function' ? (args.pop() as Callback) : undefined
    const work = super.query.bind(this) as unknown as Query
    const answer = process === undefined || !process.gated ? work(...args) : this.#gated(process, args, work)
    if (callback === undefined) return answer
    answer.then(
      (result) => callback(null, result),
      (error: Error) => callback(error),
    )
  }

  async #gated(process: NonNullable<Context['process']>, args: unknown[], work: Query): Promise<unknown> {
    const [first, values] = args as [string | { text: string; values?: unknown[] }, unknown[]?]
    const text = typeof first === 'string' ? first : first.text
    const actor = machine.context()?.actor ?? process.site
    const context = { process, actor }
    const what = text.replaceAll(/\s+/g, ' ').trim().slice(0, 70)
    // The machine decides how long a lock is waited for.
    const given = (values ?? (typeof first === 'string' ? undefined : first.values))?.map((value) =>
      typeof value === 'string' && /^\d+ms$/.test(value) && text.includes('lock_timeout') ? '0' : value,
    )
    await machine.park(what, context)
    if (text.includes('lock_timeout')) this.#patient = false
    if (/^(begin|commit|rollback$|start)/i.test(text)) this.#patient = true
    const { processID } = this as unknown as { processID: number }
    return machine.flight(context, { what, pid: processID, patient: this.#patient }, () =>
      work({ ...(typeof first === 'string' ? {} : first), text, values: given }),
    )
  }
}

class GatedPool extends pg.Pool {
  constructor(config?: pg.PoolConfig) {
    super({ ...config, Client: GatedClient } as pg.PoolConfig)
  }
}

// biome-ignore lint/style/noDefaultExport: it stands in for a module that has one
export default { ...pg, Client: GatedClient, Pool: GatedPool, types: pg.types }
