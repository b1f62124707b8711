/**
 * The network between simulated sites: requests of the real client reach the real server of the other site, or not. What goes wrong is drawn
 * from the seed: connections that are refused, answers that are lost or cut, requests that come twice, the second time long after.
 */
import { Readable } from 'node:stream'
import type { FastifyInstance } from 'fastify'
import { errors } from 'undici'
import { type Context, machine, type Process } from './machine.ts'
import { type Random, randomOf } from './random.ts'

/** What undici's dispatcher is asked for. */
export type NetworkRequest = {
  readonly origin: string
  readonly path: string
  readonly method: 'GET' | 'POST' | 'PUT'
  readonly headers: Readonly<Record<string, string>>
  readonly body?: Buffer
  readonly signal?: AbortSignal
}

/** How bad the line is: the share of requests that meet each fault. */
export type Weather = {
  readonly refuse: number
  readonly lose: number
  readonly cut: number
  readonly repeat: number
}

export const FAIR: Weather = { refuse: 0, lose: 0, cut: 0, repeat: 0 }

type Host = { readonly site: string; readonly process: Process; readonly app: FastifyInstance }
type Answer = Awaited<ReturnType<FastifyInstance['inject']>>

let hosts = new Map<string, Host>()
let waiting = new Set<{ readonly process: Process; readonly fail: (error: Error) => void }>()
let weather: Weather = FAIR
let faults: Random = randomOf('faults')
let parted: (a: string, b: string) => boolean = () => false
let note: (text: string) => void = () => {}
let repeats = 0

export const network = {
  /** Changes that travelled, both ways. */
  lines: 0,
  requests: 0,

  begin(seed: number | string, tell: (text: string) => void): void {
    hosts = new Map()
    waiting = new Set()
    weather = FAIR
    faults = randomOf(seed, 'faults')
    parted = () => false
    note = tell
    network.lines = 0
    network.requests = 0
  },

  /** Changes the weather; gives what it was. */
  setWeather: (next: Weather): Weather => {
    const before = weather
    weather = next
    return before
  },
  setParted: (next: (a: string, b: string) => boolean): void => {
    parted = next
  },
  connect: (origin: string, host: Host): void => void hosts.set(origin, host),

  /** A site that is gone answers nobody: who waits for it hears that the connection broke. */
  disconnect(process: Process): void {
    hosts = new Map([...hosts].filter(([, host]) => host.process !== process))
    for (const each of waiting) if (each.process === process) each.fail(broken('other side closed'))
  },

  async request(context: Context, request: NetworkRequest): Promise<unknown> {
    const { site } = context.process
    const what = `${request.method} ${request.path.replace('/sync/v1', '').replace(/after=[^&]*/, 'after=…')}`
    network.requests++
    const fault = draw()
    await machine.park(`request ${what}`, context)
    request.signal?.throwIfAborted()
    const host = hosts.get(request.origin)
    if (host === undefined || parted(site, host.site) || fault === 'refuse') {
      note(`${site} → ${host?.site ?? request.origin}: ${what}: no connection`)
      throw Object.assign(new Error('connect ECONNREFUSED'), { code: 'ECONNREFUSED' })
    }
    if (fault === 'repeat' && request.method !== 'GET') later(context, host, request, what)
    const answer = await deliver(host, request)
    const text = answer.rawPayload.toString()
    network.lines += countOf(request.body?.toString() ?? '') + countOf(text)
    await machine.park(`answer ${what}`, context)
    request.signal?.throwIfAborted()
    note(
      `${site} → ${host.site}: ${what}: ${answer.statusCode}${detail(request, text)}${fault === 'none' ? '' : ` (${fault})`}`,
    )
    if (fault === 'lose' || parted(site, host.site)) throw broken('other side closed')
    const cut = fault === 'cut' && answer.rawPayload.length > 0
    const bytes = cut ? answer.rawPayload.subarray(0, faults.below(answer.rawPayload.length)) : answer.rawPayload
    const { 'content-digest': digest, ...headers } = answer.headers
    // Half of what cuts an answer also loses what would tell of it.
    const kept = digest !== undefined && !(cut && faults.chance(0.5))
    return {
      statusCode: answer.statusCode,
      headers: { ...headers, ...(kept && { 'content-digest': digest }) },
      body: Readable.from(bodyOf(bytes, cut && (!request.path.includes('/changes?') || faults.chance(0.5)))),
    }
  },
}

/** A connection that ends too early is noticed; a proxy that cuts a body and says so to nobody is not. */
async function* bodyOf(bytes: Buffer, noticed: boolean): AsyncGenerator<Buffer> {
  if (bytes.length > 0) yield bytes
  if (noticed) throw broken('other side closed')
}

function draw(): keyof Weather | 'none' {
  const kinds = ['refuse', 'lose', 'cut', 'repeat'] as const
  return kinds.find((kind) => faults.chance(weather[kind])) ?? 'none'
}

/** The same request once more, at any later time: a proxy that repeats, a packet that comes round. */
function later(context: Context, first: Host, request: NetworkRequest, what: string): void {
  const actor = `repeat ${++repeats}`
  const process = { site: `${context.process.site}'s repeat`, alive: true, gated: true }
  const repeat = async () => {
    for (let wait = faults.below(40); wait >= 0; wait--) await machine.park(`repeat of ${what}`, { process, actor })
    const host = [...hosts.values()].find(({ site }) => site === first.site)
    if (host === undefined || parted(context.process.site, host.site)) return
    note(`${context.process.site} → ${host.site}: ${what} once more`)
    await deliver(host, request).catch(() => {})
  }
  void machine.run({ process, actor }, repeat)
}

let serial = 0

async function deliver(host: Host, request: NetworkRequest): Promise<Answer> {
  const { process, app } = host
  const gone = Promise.withResolvers<never>()
  gone.promise.catch(() => {})
  const entry = { process, fail: gone.reject }
  waiting.add(entry)
  const { method, path, headers, body } = request
  try {
    const context = { process, actor: `${process.site} serves ${++serial}` }
    const given = { method, url: path, headers, ...(body !== undefined && { payload: body }) }
    const answer = machine.run(context, async () => app.inject(given))
    answer.catch(() => {})
    return await Promise.race([answer, gone.promise])
  } finally {
    waiting.delete(entry)
  }
}

function broken(why: string): Error {
  return new errors.SocketError(why)
}

/** Changes in a body of lines: its trailer tells. */
function countOf(text: string): number {
  const trailer = text.slice(text.lastIndexOf('\n') + 1)
  return text.startsWith('{"syncline"') ? Number(/^\{"count":(\d+)/.exec(trailer)?.[1] ?? 0) : 0
}

function detail({ method, body }: NetworkRequest, answer: string): string {
  if (method === 'POST')
    return ` (${countOf(body?.toString() ?? '')} changes: ${/"counts":\{([^}]*)\}/.exec(answer)?.[1]?.replaceAll(/"\w+":0,?/g, '') ?? answer.slice(0, 200)})`
  if (answer.startsWith('{"syncline"')) return ` (${countOf(answer)} changes)`
  return /"code":"\w+"/.test(answer) ? ` ${answer.slice(0, 300)}` : ''
}
