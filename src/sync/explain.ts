import { comparePositions, type Position } from './checkpoint.ts'

/** What a site knows of a record and of the ways between it and a peer: the facts that src/store/reach.ts gathers and the peer answers. */
export type ReachFacts = {
  readonly peer: string
  readonly resource: string
  readonly id: string
  readonly idBytes: number
  readonly idBytesMax: number
  /** Null when no record is known here. */
  readonly record: {
    readonly deleted: boolean
    /** True when the version here came by this peer. */
    readonly cameFromPeer: boolean
    readonly position: Position
  } | null
  /** Whether the table has a row of that id. */
  readonly row: boolean
  /** Whether the record lived here once, was deleted, and its tombstone was purged. */
  readonly purged: boolean
  /** What is wrong with the triggers of the table; null when nothing is. */
  readonly captureFault: string | null
  /** The command that attaches the table again. */
  readonly attach: string
  readonly link: {
    readonly paused: boolean
    readonly lastSeenAt: string | null
    readonly failures: number
    readonly retryAt: string | null
  }
  /** What the peer said just now; a failure to ask it is an answer too. */
  readonly asked: PeerAnswer
  readonly task: {
    readonly mode: 'pull' | 'push' | 'both'
    readonly enabled: boolean
    readonly schedule: string | null
    readonly filter: string | null
  } | null
  /** What the peer may do here. */
  readonly grants: { readonly pull: boolean; readonly push: boolean }
  /** Parts of a filter that the record does not match, with its values. */
  readonly filtered: readonly FilteredPart[]
  /** Columns that do not travel to the peer. */
  readonly columnsKept: readonly string[]
  readonly quarantine: { readonly code: string; readonly reason: string; readonly attempts: number } | null
  readonly elsewhere: { readonly outcome: string; readonly code: string; readonly reason: string } | null
  readonly openConflict: string | null
  readonly brakes: readonly { readonly direction: string; readonly reason: string; readonly token: string }[]
  /** How far the peer has what is here: by our pushes, and by what it said of its pulls. Null when that has not begun, or begins anew. */
  readonly pushed: Position | null
  readonly acknowledged: Position | null
  /** When this site took the last batch from the peer. */
  readonly pulledAt: string | null
  /** Transactions that keep the record from being read, oldest first; empty when it can be. */
  readonly heldBy: readonly HorizonHolder[]
}

export type FilteredPart = {
  readonly of: 'task' | 'grant'
  readonly part: string
  readonly values: Readonly<Record<string, unknown>>
}

export type HorizonHolder = {
  readonly pid: number | null
  readonly application: string
  readonly state: string
  readonly since: string | null
  readonly query: string
}

export type PeerAnswer =
  | {
      readonly answered: true
      /** What it lets this site do with the resource; null when it does not offer it at all. */
      readonly offers: { readonly pull: boolean; readonly push: boolean } | null
      /** Its record against the one here: the same version, another one, none; null when it does not let this site compare. */
      readonly holds: 'same' | 'other' | 'none' | null
    }
  | { readonly answered: false; readonly code: string; readonly detail: string }

export const REASONS = [
  'no task',
  'task disabled',
  'not permitted',
  'filter',
  'columns',
  'quarantine',
  'conflict',
  'brake',
  'checkpoint',
  'horizon',
  'paused',
  'never contacted',
  'unreachable',
  'id too long',
  'came from there',
  'deleted there',
  'deleted and purged',
  'never seen',
  'trigger missing',
  'not captured',
  'unexplained',
] as const
export type ReasonName = (typeof REASONS)[number]

/** One reason why two sites do not hold the same of a record, with the fact that shows it. `way`: to the peer, or from it to here. */
export type Reason = { readonly reason: ReasonName; readonly way: 'there' | 'here'; readonly fact: string }

export type Reach = {
  /** Whether the peer has what is here. `acknowledged`: it could not be asked, but has said that it has everything up to there. */
  readonly has: 'same' | 'other' | 'none' | 'acknowledged' | 'unknown'
  /** How that is known. */
  readonly proof: string
  readonly reasons: readonly Reason[]
}

/** Whether a peer has a record as it is here and, where it has not, everything that stands in the way, each with its fact. Pure. */
export function explainReach(facts: ReachFacts): Reach {
  const { has, proof } = verdict(facts)
  const done = has === 'same' || has === 'acknowledged'
  const columns: readonly Reason[] = facts.columnsKept.length > 0 && facts.record !== null ? [columnsReason(facts)] : []
  // What the peer acknowledged it may have changed since, and a brake may hold that back.
  if (done) return { has, proof, reasons: has === 'same' ? columns : [...columns, ...brakeReasons(facts, 'here')] }
  const out = facts.record === null && !facts.row ? [] : outward(facts)
  const missing =
    facts.record === null || has === 'other' || (facts.record.deleted && has === 'unknown') || goneThere(facts)
  const back = missing || facts.quarantine !== null ? inward(facts) : []
  const way = [...shared(facts), ...out, ...columns, ...back]
  const reasons = has === 'none' ? [...traceless(facts), ...way] : [...way, ...traceless(facts)]
  if (reasons.some(({ reason }) => reason !== 'columns')) return { has, proof, reasons }
  const fact =
    has === 'unknown'
      ? 'nothing here stands in the way'
      : `nothing here stands in the way; \`syncline verify ${facts.peer} ${facts.resource} --repair\` offers it again`
  return { has, proof, reasons: [...reasons, { reason: 'unexplained', way: 'there', fact }] }
}

/** True for a record that came from the peer, lives here, and does not live there any more. */
function goneThere({ record, asked }: ReachFacts): boolean {
  return record !== null && !record.deleted && record.cameFromPeer && asked.answered && asked.holds === 'none'
}

/** An id that nothing is known of here. */
function traceless({ record, row, purged, quarantine, asked, peer, resource, id }: ReachFacts): readonly Reason[] {
  if (record !== null || row || quarantine !== null) return []
  if (purged)
    return [
      {
        reason: 'deleted and purged',
        way: 'here',
        fact: `"${id}" lived here once; it was deleted, and its tombstone was purged when every peer had it`,
      },
    ]
  const never = (fact: string): readonly Reason[] => [{ reason: 'never seen', way: 'here', fact }]
  if (asked.answered && asked.holds === 'none')
    return never(
      `neither this site nor ${peer} has a ${resource} "${id}", and this site has never had one; is the id right?`,
    )
  return asked.answered && asked.holds !== null
    ? []
    : never(`this site has never had a ${resource} "${id}"; whether ${peer} has one could not be asked`)
}

function verdict(facts: ReachFacts): Pick<Reach, 'has' | 'proof'> {
  const { asked, peer, record } = facts
  if (asked.answered && asked.holds !== null) {
    const gone = record?.deleted === true && asked.holds === 'none'
    if (gone) return { has: 'same', proof: `${peer} was asked just now: it holds no such record either` }
    if (asked.holds === 'same')
      return { has: 'same', proof: `${peer} was asked just now: its digest of the record is that of the version here` }
    return asked.holds === 'other'
      ? { has: 'other', proof: `${peer} was asked just now: its digest of the record is that of another version` }
      : { has: 'none', proof: `${peer} was asked just now: it holds no such record` }
  }
  const why = asked.answered
    ? `${peer} does not let this site compare ${facts.resource}`
    : `${asked.code}: ${asked.detail}`
  const reached = reachedBy(facts)
  if (reached !== null && facts.filtered.length === 0 && facts.elsewhere === null)
    return { has: 'acknowledged', proof: `${peer} could not be asked (${why}), but ${reached}` }
  return { has: 'unknown', proof: `${peer} could not be asked: ${why}` }
}

/** What shows, without asking, that the peer has had the record. */
function reachedBy({ record, pushed, acknowledged, peer }: ReachFacts): string | null {
  if (record === null) return null
  const covers = (place: Position | null): place is Position =>
    place !== null && comparePositions(place, record.position) >= 0
  if (record.cameFromPeer) return `the version here came from ${peer}`
  if (covers(pushed)) return `it took everything up to ${place(pushed)}; the record stands at ${place(record.position)}`
  if (covers(acknowledged))
    return `it acknowledged everything up to ${place(acknowledged)}; the record stands at ${place(record.position)}`
  return null
}

/** What stops both ways. */
function shared(facts: ReachFacts): readonly Reason[] {
  const { link, peer, asked } = facts
  const reasons: Reason[] = []
  const add = (reason: ReasonName, fact: string) => reasons.push({ reason, way: 'there', fact })
  if (facts.idBytes > facts.idBytesMax)
    add('id too long', `the record id has ${facts.idBytes} bytes; ids of up to ${facts.idBytesMax} travel`)
  if (link.paused) add('paused', `the exchange with ${peer} is paused here; \`syncline peer resume ${peer}\` ends that`)
  if (!asked.answered && asked.code === 'SYNC_PEER_PAUSED')
    add('paused', `${peer} has paused the exchange: ${asked.detail}`)
  if (!asked.answered && link.lastSeenAt === null)
    add('never contacted', `${peer} has never been heard of since it was registered here`)
  else if (!asked.answered && asked.code === 'SYNC_PEER_UNREACHABLE')
    add('unreachable', `${asked.detail}; last heard of at ${link.lastSeenAt}${retry(link)}`)
  if (facts.openConflict !== null)
    add('conflict', `conflict ${facts.openConflict} waits for a decision: both sites keep what they have until then`)
  return reasons
}

function retry({ failures, retryAt }: ReachFacts['link']): string {
  return failures === 0 ? '' : `; ${failures} attempts failed${retryAt === null ? '' : `, the next is at ${retryAt}`}`
}

/** Why what is here is not there. */
function outward(facts: ReachFacts): readonly Reason[] {
  const { record, peer, resource, task } = facts
  const reasons: Reason[] = []
  const add = (reason: ReasonName, fact: string) => reasons.push({ reason, way: 'there', fact })
  if (facts.captureFault !== null)
    add('trigger missing', `changes of ${resource} are not captured: ${facts.captureFault}`)
  if (record === null) {
    if (facts.captureFault === null)
      add(
        'not captured',
        `the table has the row, but it was written while no trigger saw it; to mend: \`${facts.attach}\``,
      )
    return reasons
  }
  if (record.cameFromPeer) add('came from there', `the version here came from ${peer} and is not sent back to it`)
  const pushes = task !== null && task.mode !== 'pull'
  if (!pushes && !facts.grants.pull) add('no task', `${noTask(facts, 'push')}, and ${peer} was not granted to pull it`)
  if (pushes && !task.enabled && !facts.grants.pull)
    add('task disabled', `the task that pushes ${resource} to ${peer} is disabled`)
  if (pushes && facts.asked.answered && facts.asked.offers?.push !== true)
    add('not permitted', `${peer} does not let this site push ${resource}`)
  for (const { of, part, values } of facts.filtered)
    add('filter', `the filter of the ${of} asks for ${part}; the record has ${valuesText(values)}`)
  reasons.push(...brakeReasons(facts, 'there'))
  if (facts.elsewhere !== null)
    add(
      'quarantine',
      `at ${peer} it was ${facts.elsewhere.outcome}: ${facts.elsewhere.code}: ${facts.elsewhere.reason}`,
    )
  for (const holder of facts.heldBy) add('horizon', holderText(holder))
  if (facts.heldBy.length === 0 && !record.cameFromPeer) reasons.push(...notReached(facts, record.position, pushes))
  return reasons
}

function notReached(facts: ReachFacts, at: Position, pushes: boolean): readonly Reason[] {
  const { peer, resource, task } = facts
  const ways: (readonly [boolean, Position | null, string])[] = [
    [pushes && task?.enabled === true, facts.pushed, `what this site pushes to ${peer}`],
    [facts.grants.pull, facts.acknowledged, `what ${peer} pulls and acknowledges`],
  ]
  const open = ways.filter(([used]) => used)
  if (open.length === 0 || open.some(([, reached]) => reached !== null && comparePositions(reached, at) >= 0)) return []
  return open.map(([, reached, what]) => ({
    reason: 'checkpoint',
    way: 'there',
    fact:
      reached === null
        ? `${what} of ${resource} has not begun; the record stands at ${place(at)}${nextRun(task)}`
        : `${what} has reached ${place(reached)}; the record stands at ${place(at)}${nextRun(task)}`,
  }))
}

function nextRun(task: ReachFacts['task']): string {
  return task === null
    ? ''
    : task.schedule === null
      ? '; the task runs by hand only'
      : `; the task runs ${task.schedule}`
}

/** Why what is there is not here. */
function inward(facts: ReachFacts): readonly Reason[] {
  const { peer, resource, task, asked, quarantine } = facts
  const reasons: Reason[] = []
  const add = (reason: ReasonName, fact: string) => reasons.push({ reason, way: 'here', fact })
  if (quarantine !== null)
    add(
      'quarantine',
      `it waits here: ${quarantine.code}: ${quarantine.reason} (${quarantine.attempts === 1 ? 'tried once' : `tried ${quarantine.attempts} times`})`,
    )
  if (facts.record !== null && facts.record.cameFromPeer === false && quarantine === null && task === null)
    return reasons
  const pulls = task !== null && task.mode !== 'push'
  if (!pulls && !facts.grants.push) add('no task', `${noTask(facts, 'pull')}, and ${peer} was not granted to push it`)
  if (pulls && !task.enabled && !facts.grants.push)
    add('task disabled', `the task that pulls ${resource} from ${peer} is disabled`)
  if (pulls && asked.answered && asked.offers?.pull !== true)
    add('not permitted', `${peer} does not let this site pull ${resource}`)
  if (pulls && task.filter !== null && facts.record === null)
    add('filter', `the task asks only for records that match ${task.filter}`)
  const brakes = brakeReasons(facts, 'here')
  if (goneThere(facts)) add('deleted there', goneFact(facts, brakes.length > 0))
  reasons.push(...brakes)
  if (pulls && asked.answered && asked.holds !== 'none')
    add(
      'checkpoint',
      facts.pulledAt === null
        ? `nothing of ${resource} was pulled from ${peer} yet`
        : `the last batch from ${peer} was taken at ${facts.pulledAt}; what was written there since comes with the next run`,
    )
  return reasons
}

function goneFact({ peer, pulledAt }: ReachFacts, braked: boolean): string {
  const gone = `${peer} had the version that is here and shows no such record any more: it was deleted there, or left what this site may see`
  if (braked) return `${gone}. That waits behind the brake below`
  const last = pulledAt === null ? '' : `; the last batch from ${peer} was taken at ${pulledAt}`
  return `${gone}${last}, and what happened since comes with the next run`
}

/** What stopped runs in one direction, with what shows more and what lets them go on. */
function brakeReasons({ brakes }: ReachFacts, way: Reason['way']): readonly Reason[] {
  const stopping = way === 'here' ? ['pull', 'receive'] : ['push', 'peer']
  return brakes
    .filter(({ direction }) => stopping.includes(direction))
    .map(({ reason, token }) => ({
      reason: 'brake',
      way,
      fact: `${reason}; \`syncline brake show ${token}\` tells more, and if it is meant, \`syncline sync --release ${token}\` lets it pass`,
    }))
}

function noTask({ task, resource, peer }: ReachFacts, what: 'push' | 'pull'): string {
  const direction = what === 'push' ? 'to' : 'from'
  return task === null
    ? `no task syncs ${resource} with ${peer}`
    : `the task with ${peer} only ${task.mode}s; none ${what}es ${resource} ${direction} it`.replace('pulles', 'pulls')
}

function columnsReason({ columnsKept, peer }: ReachFacts): Reason {
  return {
    reason: 'columns',
    way: 'there',
    fact: `of its columns these do not travel to ${peer}: ${columnsKept.join(', ')}`,
  }
}

function holderText({ pid, application, state, since, query }: HorizonHolder): string {
  const who =
    pid === null ? `prepared transaction ${application}` : `process ${pid} (${application || 'no name'}, ${state})`
  return `an open transaction keeps it from being read: ${who}${since === null ? '' : `, in it since ${since}`}${query === '' ? '' : `, last query: ${query}`}`
}

function valuesText(values: Readonly<Record<string, unknown>>): string {
  return Object.entries(values)
    .map(([name, value]) => `${name} = ${value === undefined ? 'nothing' : JSON.stringify(value)}`)
    .join(', ')
}

function place({ xact, recordId }: Position): string {
  return recordId === '' ? xact : `${xact}/${recordId}`
}
