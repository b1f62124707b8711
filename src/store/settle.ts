import { sql, type Transaction } from 'kysely'
import {
  decide,
  type FieldMark,
  fieldsOf,
  type Json,
  mintVersion,
  parseJson,
  type Seen,
  sameJson,
  unionSeen,
  type Values,
  type Version,
} from '../sync/index.ts'
import { openConflicts } from './conflict-open.ts'
import {
  type ConflictRow,
  conflictPage,
  incomingVersion,
  localVersion,
  PAGE,
  type SettleContext,
} from './conflict-page.ts'
import type { LineHeader } from './quarantine.ts'
import { siteIds } from './registry/index.ts'
import type { Database } from './schema.ts'

export type { SettleContext } from './conflict-page.ts'

export type Settled = {
  readonly taken: number
  readonly kept: number
  readonly rewritten: number
  readonly asked: number
  readonly equal: number
}

/**
 * Settles the staged records that are concurrent with what is here, and those pushed without a version over a living record: a page at a time,
 * each with a fixed number of statements. Whatever is decided, the losing values go to history, and what a decision changed is announced on
 * every link.
 */
export async function settleConflicts(
  trx: Transaction<Database>,
  context: SettleContext,
  header: LineHeader,
): Promise<Settled> {
  const total = { taken: 0, kept: 0, rewritten: 0, asked: 0, equal: 0 }
  for (let after = -1; ; ) {
    const rows = await conflictPage(trx, context, after)
    const verdicts = rows.map((row) => (row.class === 'u' ? settlePush(row, context) : settleOne(row, context, header)))
    for (const { tally } of verdicts) total[tally] += 1
    await keepLosers(trx, context, header, verdicts)
    const asked = verdicts.filter((verdict) => verdict.class === 'a')
    if (asked.length > 0) await openConflicts(trx, context, header, asked)
    await carryOut(trx, context, verdicts)
    const last = rows.at(-1)
    if (last === undefined || rows.length < PAGE) return total
    after = last.n
  }
}

type Verdict = {
  readonly row: ConflictRow
  readonly tally: keyof Settled
  /** f: write the incoming content, or `payload` · v: only the version changes · s: nothing to do · a: a person decides. */
  readonly class: 'f' | 'v' | 's' | 'a'
  readonly version?: Version
  readonly announce: boolean
  /** True when values of the incoming version are not in what is here afterwards. */
  readonly loses?: boolean
  /** What two versions made together, as a put in the order of the batch. */
  readonly payload?: string
  /** Fields that need a person, where not all do. */
  readonly fields?: readonly string[]
}

/**
 * A push without a version is the peer's own write at the time of arrival: it has seen what is here. Equal content is no write, unless it tells what
 * else it has seen, as a decision does.
 */
function settlePush(row: ConflictRow, context: SettleContext): Verdict {
  const local = localVersion(row)
  const [known = null] = Object.keys(row.seen ?? {})
  if (row.equal && known === null) return { row, tally: 'equal', class: 's', announce: false }
  const { seen = {} } = incomingVersion(row)
  const other = known === null ? local : { origin: known, clock: seen[known] ?? 0, seen }
  const version = mint(row, context, row.origin ?? context.policy.here, unionSeen(local, other))
  return { row, tally: 'rewritten', class: row.equal ? 'v' : 'f', version, announce: false }
}

function settleOne(row: ConflictRow, context: SettleContext, header: LineHeader): Verdict {
  const values = context.policy.name === 'merge' ? valuesOf(row, context, header) : undefined
  const decision = decide(
    { version: localVersion(row), deleted: row.l_deleted, content: values?.local ?? (row.equal ? 'equal' : 'local') },
    {
      version: incomingVersion(row),
      deleted: row.kind === 'd',
      content: values?.incoming ?? (row.equal ? 'equal' : 'incoming'),
    },
    context.policy,
  )
  switch (decision.kind) {
    case 'take':
      return row.equal
        ? { row, tally: 'equal', class: 'v', version: decision.version, announce: true }
        : { row, tally: 'taken', class: 'f', version: decision.version, announce: true }
    case 'keep':
      return {
        ...{ row, tally: row.equal ? 'equal' : 'kept', class: 'v', version: decision.version, announce: true },
        loses: !row.equal,
      }
    case 'rewrite': {
      const mine = decision.content === 'local'
      const version = mint(row, context, decision.origin, decision.seen)
      return { row, tally: 'rewritten', class: mine ? 'v' : 'f', version, announce: true, loses: mine }
    }
    case 'merge': {
      const version = withFields(mint(row, context, decision.origin, decision.seen), decision.marks)
      const loses = row.equal !== true
      const { data } = decision
      // What is here may say it all: then only what stands behind the fields changes.
      if (Object.keys(data).every((column) => sameJson(data[column] ?? null, values?.local[column] ?? null)))
        return { row, tally: loses ? 'kept' : 'equal', class: 'v', version, announce: true, loses }
      const payload = JSON.stringify(mergedPayload(row, header, data))
      return { row, tally: 'rewritten', class: 'f', version, announce: true, loses, payload }
    }
    case 'ask':
      return { row, tally: 'asked', class: 'a', announce: false, ...(decision.fields && { fields: decision.fields }) }
    default:
      return decision satisfies never
  }
}

function withFields(version: Version, marks: Readonly<Record<string, FieldMark | 'own'>>): Version {
  const fields = fieldsOf(marks, version)
  return fields === undefined ? version : { ...version, fields }
}

/**
 * Both contents by column, for a merge. A value that reads the same as the one here is taken for it, however the peer spells it. Columns that
 * did not travel are only named, so that what stands behind them is kept.
 */
function valuesOf(
  row: ConflictRow,
  { columns, resource }: SettleContext,
  header: LineHeader,
): { readonly local: Values; readonly incoming: Values } | undefined {
  if (row.ours === null || row.theirs === null) return undefined
  const [ours, theirs] = [parseJson(row.ours) as readonly Json[], parseJson(row.theirs) as readonly Json[]]
  const untold = resource.columns.filter(({ name, sent }) => sent && !header.columns.includes(name))
  const local = columns.map(({ column }, n): [string, Json] => [column.name, ours[n] ?? null])
  const incoming = columns.map(({ column, at }, n): [string, Json] => {
    return [column.name, (row.alike?.[n] ? ours[n] : theirs[at]) ?? null]
  })
  return {
    local: Object.fromEntries([...local, ...untold.map(({ name }): [string, Json] => [name, null])]),
    incoming: Object.fromEntries(incoming),
  }
}

/** The incoming values where nothing was decided: of columns that this site has not. */
function mergedPayload(row: ConflictRow, header: LineHeader, data: Values): readonly Json[] {
  const theirs = parseJson(row.theirs ?? '[]') as readonly Json[]
  return header.columns.map((column, at) => (Object.hasOwn(data, column) ? data[column] : theirs[at]) ?? null)
}

function mint(row: ConflictRow, context: SettleContext, origin: string, seen: Seen): Version {
  return mintVersion({ origin, seen, nowMicros: Number(row.now_us), aheadMaxMicros: context.clockAheadMaxMicros })
}

async function keepLosers(
  trx: Transaction<Database>,
  context: SettleContext,
  header: LineHeader,
  verdicts: readonly Verdict[],
): Promise<void> {
  const lost = verdicts.filter(({ loses }) => loses === true).map(({ row }) => row.n)
  if (lost.length === 0) return
  await sql`
    insert into syncline.history (resource_id, record_id, run_id, reason, origin, clock, seen, deleted, source, rule, data)
    select ${context.resource.id}, s.id, ${context.runId}::int8, 'lost a conflict', s.origin, s.clock, s.seen, s.kind = 'd', ${context.source}::int4, ${context.rule},
           (select json_object_agg(name, s.v -> (at - 1)::int4) from unnest(${header.columns}::text[]) with ordinality c(name, at))
      from (select x.*, nullif(x.payload, '')::jsonb as v from unnest(${lost}::int4[]) l(n) join pg_temp.syncline_stage x on x.n = l.n offset 0) s order by s.n`.execute(
    trx,
  )
}

async function carryOut(
  trx: Transaction<Database>,
  context: SettleContext,
  verdicts: readonly Verdict[],
): Promise<void> {
  if (verdicts.length === 0) return
  const sites = await siteNumbers(trx, context, verdicts)
  const number = (origin: string) => sites.get(origin) as number
  const rows = verdicts.map(({ row, version, payload = null, ...verdict }) => ({
    n: row.n,
    class: verdict.class,
    announce: verdict.announce,
    decided: version !== undefined,
    clock: version?.clock ?? null,
    origin: version === undefined ? null : number(version.origin),
    seen: version?.seen === undefined || Object.keys(version.seen).length === 0 ? null : numbered(version.seen, number),
    fields: version?.fields === undefined ? null : numberedFields(version.fields, number),
    payload,
  }))
  await sql`
    update pg_temp.syncline_stage s set class = v.class::"char", announce = v.announce, in_clock = s.clock, in_origin = s.origin,
           clock = coalesce(v.clock, s.clock), origin = coalesce(v.origin, s.origin), seen = case when v.decided then v.seen else s.seen end,
           fields = case when v.decided then v.fields else s.fields end, payload = coalesce(v.payload, s.payload)
      from jsonb_to_recordset(${JSON.stringify(rows)}::jsonb)
           v(n int4, class text, announce bool, decided bool, clock int8, origin int4, seen jsonb, fields jsonb, payload text)
     where s.n = v.n`.execute(trx)
}

function numbered<T>(byOrigin: Readonly<Record<string, T>>, number: (origin: string) => number): Record<string, T> {
  return Object.fromEntries(Object.entries(byOrigin).map(([origin, value]) => [String(number(origin)), value]))
}

/** Every part of a mark is an object by origin. */
function numberedFields(fields: NonNullable<Version['fields']>, number: (origin: string) => number) {
  const parts = (mark: FieldMark) =>
    Object.entries(mark).map(([part, byOrigin]) => [part, numbered(byOrigin as Record<string, Json>, number)])
  return Object.fromEntries(Object.entries(fields).map(([column, mark]) => [column, Object.fromEntries(parts(mark))]))
}

/** Numbers of the origins that the versions to be written name. There may be many others. */
async function siteNumbers(
  trx: Transaction<Database>,
  context: SettleContext,
  verdicts: readonly Verdict[],
): Promise<Map<string, number>> {
  const named = new Set([context.policy.here])
  for (const { version } of verdicts) {
    if (version === undefined) continue
    named.add(version.origin)
    for (const origin of Object.keys(version.seen ?? {})) named.add(origin)
    for (const mark of Object.values(version.fields ?? {})) {
      for (const part of Object.values(mark)) for (const origin of Object.keys(part)) named.add(origin)
    }
  }
  const origins = [...named]
  const ids = await siteIds(trx, origins)
  return new Map(origins.map((origin, index) => [origin, ids[index] as number]))
}
