import {
  type BatchReport,
  type CanaryState,
  isFieldRule,
  isJsonObject,
  JSON_DEPTH_MAX,
  type LinkPolicy,
  type Outcome,
  POLICIES,
  parseJson,
} from '../sync/index.ts'
import { PeerError } from './peer-error.ts'
import type { PeerAnswer } from './transport.ts'

/** What peers answer, checked member by member: whoever answers there may be anybody. */

/** Bounds of a peer; null where it does not tell. */
export type PeerLimits = { readonly bodyBytesMax: number | null; readonly batchRowsMax: number | null }

/** A resource that the peer lets this site pull or push. */
export type OfferedResource = {
  readonly name: string
  readonly pull: boolean
  readonly push: boolean
  readonly fingerprint: string | null
  /** Fingerprint of our own columns as the peer knows them; null when it knows none, absent when it keeps none. */
  readonly yours?: string | null
  /** Changes with what the peer lets us write; null where it does not tell. */
  readonly terms: string | null
  /** How the peer settles what it gets from this site; null where it takes nothing or does not tell. */
  readonly policy: LinkPolicy | null
  /** Where that policy is set there; absent where the peer does not tell. */
  readonly policyOf?: 'task' | 'grant'
}

/** What a peer told with a batch about all that is due; null where nobody asked, or it does not know. */
export type Told = {
  readonly due: { readonly puts: number; readonly deletes: number } | null
  /** The resource has no record there. */
  readonly empty: boolean
  readonly canary: CanaryState | null
}

/** What a push would do at the peer. `living` and `samples` only for heads. */
export type PushPreview = {
  readonly inserts: number
  readonly updates: number
  readonly deletes: number
  readonly living: number | null
  readonly samples: readonly string[]
  readonly braked: string | null
}

export function readJson(answer: PeerAnswer, what: string): Record<string, unknown> {
  const text = answer.body.bytes.toString()
  try {
    const value = parseJson(text, JSON_DEPTH_MAX)
    if (isJsonObject(value)) return value
  } catch (cause) {
    if (isJsonType(answer.headers['content-type']) && !isJson(text)) throw cut(what, answer.body.bytes.length, cause)
    throw unreadable(what, (cause as Error).message, cause)
  }
  throw unreadable(what, 'it is not an object')
}

/** An answer that says it is JSON and is none was cut or altered on its way, whatever the connection says: the same request may work. */
function cut(what: string, bytes: number, cause: unknown): PeerError {
  const detail = `${what}: the answer of ${bytes} bytes was cut or altered on its way`
  return new PeerError('SYNC_BATCH_INCOMPLETE', detail, { status: 200, retryable: true }, { cause })
}

function isJsonType(header: string | string[] | undefined): boolean {
  return typeof header === 'string' && /^application\/json\b/i.test(header)
}

function isJson(text: string): boolean {
  try {
    JSON.parse(text)
    return true
  } catch {
    return false
  }
}

export function text(value: Record<string, unknown>, member: string, what: string): string {
  const found = value[member]
  if (typeof found !== 'string' || found === '' || found.length > 300) throw unreadable(what, `${member} is missing`)
  return found
}

/** Something else than a Syncline site answers there, or one of another make. */
export function unreadable(what: string, why: string, cause?: unknown): PeerError {
  const facts = { status: 200, retryable: false }
  return new PeerError('SYNC_PEER_REFUSED', `${what}: the answer is not that of a Syncline site: ${why}`, facts, {
    cause,
  })
}

export function readResources(value: unknown, what: string): readonly OfferedResource[] {
  if (value === undefined) return []
  if (!Array.isArray(value)) throw unreadable(what, 'resources is no list')
  return value.map((each: unknown) => {
    if (!isJsonObject(each)) throw unreadable(what, 'a resource is no object')
    const { fingerprint, yours, terms } = each
    return {
      name: text(each, 'name', what),
      pull: each.pull === true,
      push: each.push === true,
      fingerprint: typeof fingerprint === 'string' ? fingerprint : null,
      ...(yours !== undefined && { yours: typeof yours === 'string' ? yours : null }),
      terms: typeof terms === 'string' ? terms : null,
      policy: readPolicy(each.policy),
      ...((each.policyOf === 'task' || each.policyOf === 'grant') && { policyOf: each.policyOf }),
    }
  })
}

/** A policy that this site does not know is as good as none: nothing can be said about it. */
function readPolicy(value: unknown): LinkPolicy | null {
  if (!isJsonObject(value)) return null
  const { onConflict, master, fields } = value
  const known = POLICIES.find((policy) => policy === onConflict)
  if (known === undefined) return null
  const rules = isJsonObject(fields) ? Object.entries(fields).filter(([, rule]) => isFieldRule(rule)) : []
  return {
    onConflict: known,
    master: typeof master === 'string' ? master : null,
    fields: Object.fromEntries(rules) as LinkPolicy['fields'],
  }
}

export function readLimits(value: unknown): PeerLimits {
  const limit = (member: string) => {
    const found = isJsonObject(value) ? value[member] : undefined
    return Number.isSafeInteger(found) && (found as number) > 0 ? (found as number) : null
  }
  return { bodyBytesMax: limit('bodyBytesMax'), batchRowsMax: limit('batchRowsMax') }
}

const OUTCOMES: readonly Outcome[] = ['applied', 'known', 'skipped', 'merged', 'conflict', 'quarantined', 'refused']

export function readReport(value: Record<string, unknown>, what: string): BatchReport {
  const { counts, rejections = [], truncated = false } = value
  if (!isJsonObject(counts) || !Array.isArray(rejections)) throw unreadable(what, 'there are no counts')
  const entries = OUTCOMES.map((outcome) => {
    const count = counts[outcome] ?? 0
    if (!Number.isSafeInteger(count) || (count as number) < 0)
      throw unreadable(what, `the count of ${outcome} is no number`)
    return [outcome, count as number]
  })
  return {
    counts: Object.fromEntries(entries) as BatchReport['counts'],
    rejections: rejections.map((each) => readRejection(each, what)),
    truncated: truncated === true,
  }
}

function readRejection(value: unknown, what: string): BatchReport['rejections'][number] {
  if (!isJsonObject(value)) throw unreadable(what, 'a rejection is no object')
  const { id, outcome, code, reason } = value
  if (typeof id !== 'string' || !OUTCOMES.includes(outcome as Outcome))
    throw unreadable(what, 'a rejection names no record')
  return {
    id,
    outcome: outcome as BatchReport['rejections'][number]['outcome'],
    ...(typeof code === 'string' && { code }),
    reason: typeof reason === 'string' ? reason : '',
  }
}

export function toldIn(headers: PeerAnswer['headers']): Told | null {
  const empty = headers['syncline-empty']
  if (empty === undefined) return null
  const [, puts, deletes] = /^puts=(\d{1,15}), deletes=(\d{1,15})$/.exec(String(headers['syncline-due'])) ?? []
  const canary = CANARY_STATES.find((state) => state === headers['syncline-canary']) ?? null
  const due = puts === undefined ? null : { puts: Number(puts), deletes: Number(deletes) }
  return { due, empty: empty === 'true', canary }
}

const CANARY_STATES: readonly CanaryState[] = ['living', 'deleted', 'missing']

export function readPreview(value: unknown, what: string): PushPreview {
  if (!isJsonObject(value)) throw unreadable(what, 'it does not tell what a push would do')
  const number = (member: string) => {
    const found = value[member]
    if (!Number.isSafeInteger(found) || (found as number) < 0) throw unreadable(what, `${member} is no number`)
    return found as number
  }
  const samples = Array.isArray(value.samples) ? value.samples.filter((id): id is string => typeof id === 'string') : []
  return {
    inserts: number('inserts'),
    updates: number('updates'),
    deletes: number('deletes'),
    living: value.living === null ? null : number('living'),
    samples,
    braked: typeof value.braked === 'string' ? value.braked : null,
  }
}
