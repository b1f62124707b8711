import { type Kysely, sql } from 'kysely'
import {
  ALARM_LEVELS,
  type AlarmCode,
  type AlarmLevel,
  type Episode,
  follow,
  keyOf,
  type StallFinding,
} from '../sync/index.ts'
import { getSetting, isoTime, type Page, type PageQuery, pageBounds, setSetting, toPage } from './registry/index.ts'
import type { Database } from './schema.ts'

/** An episode of the stall detector. */
export type Alarm = {
  readonly id: string
  readonly code: AlarmCode
  readonly level: AlarmLevel
  /** Empty where the site itself is meant. */
  readonly peer: string
  readonly resource: string
  readonly text: string
  readonly mend: string
  readonly since: string
  /** When its rule last held. */
  readonly last: string
  readonly ended: string | null
  /** When somebody was told of its begin and of its end; null where nobody was to be told, or could be yet. */
  readonly notified: { readonly begin: string | null; readonly end: string | null }
}

export const NOTICE_CHANNELS = ['mail', 'webhook'] as const
export type NoticeChannel = (typeof NOTICE_CHANNELS)[number]

/** One thing to tell by one way. */
export type Notice = {
  readonly id: string
  readonly moment: 'begin' | 'end'
  readonly channel: NoticeChannel
  readonly attempts: number
  readonly alarm: Alarm
}

/** When a snapshot was last looked at: in whatever order they come, an older one changes nothing. */
const LOOKED_AT = 'alarms:at'

/**
 * Writes down what the verdicts of a snapshot change: episodes that begin, go on and end, and what is to be told of them by each channel. An episode
 * below `level` is told of when it rises to it. Two processes may call this at once. Gives what began and what ended.
 */
export async function recordVerdicts(
  db: Kysely<Database>,
  snapshot: { readonly at: number; readonly verdicts: readonly StallFinding[] },
  options: { readonly calmMs: number; readonly channels: readonly NoticeChannel[]; readonly level: AlarmLevel },
): Promise<{ readonly begun: readonly Episode[]; readonly ended: readonly Episode[] }> {
  return db.transaction().execute(async (trx) => {
    await sql`select pg_advisory_xact_lock(hashtextextended('syncline.alarms', 0))`.execute(trx)
    const at = Number((await getSetting(trx, LOOKED_AT)) ?? 0)
    const { rows } = await sql<Episode & { readonly id: string }>`
      select id, code, level, peer, resource, text, mend, (extract(epoch from since) * 1000)::float8 as since, (extract(epoch from last) * 1000)::float8 as last
        from syncline.alarm where ended is null order by id`.execute(trx)
    const followed = follow({ at, open: rows }, snapshot.at, snapshot.verdicts, options.calmMs)
    if (followed.episodes.at === at) return { begun: [], ended: [] }
    const ids = new Map(rows.map((row) => [keyOf(row), row.id]))
    for (const episode of followed.episodes.open) {
      const id = ids.get(keyOf(episode))
      if (id === undefined) ids.set(keyOf(episode), await insertAlarm(trx, episode))
      else if (episode.last === snapshot.at) await touchAlarm(trx, id, episode)
      if (reaches(episode.level, options.level))
        await owe(trx, ids.get(keyOf(episode)) ?? '', 'begin', options.channels)
    }
    for (const episode of followed.ended) await endAlarm(trx, ids.get(keyOf(episode)) ?? '', snapshot.at)
    await setSetting(trx, LOOKED_AT, snapshot.at)
    return { begun: followed.begun, ended: followed.ended }
  })
}

function reaches(level: AlarmLevel, least: AlarmLevel): boolean {
  return ALARM_LEVELS.indexOf(level) >= ALARM_LEVELS.indexOf(least)
}

async function insertAlarm(trx: Kysely<Database>, episode: Episode): Promise<string> {
  const { code, level, peer, resource, text, mend, since } = episode
  const { rows } = await sql<{ id: string }>`
    insert into syncline.alarm (code, level, peer, resource, text, mend, since, last)
    values (${code}, ${level}, ${peer}, ${resource}, ${text}, ${mend}, ${timeOf(since)}, ${timeOf(since)}) returning id`.execute(
    trx,
  )
  return rows[0]?.id ?? ''
}

async function touchAlarm(trx: Kysely<Database>, id: string, { level, text, mend, last }: Episode): Promise<void> {
  await sql`
    update syncline.alarm set level = ${level}, text = ${text}, mend = ${mend}, last = ${timeOf(last)} where id = ${id}::int8`.execute(
    trx,
  )
}

/** Who was told that it began is told that it ended. */
async function endAlarm(trx: Kysely<Database>, id: string, at: number): Promise<void> {
  await sql`update syncline.alarm set ended = ${timeOf(at)} where id = ${id}::int8`.execute(trx)
  await sql`
    insert into syncline.alarm_notice (alarm_id, moment, channel)
    select alarm_id, 'end', channel from syncline.alarm_notice where alarm_id = ${id}::int8 and moment = 'begin'
    on conflict do nothing`.execute(trx)
}

async function owe(
  trx: Kysely<Database>,
  id: string,
  moment: string,
  channels: readonly NoticeChannel[],
): Promise<void> {
  if (channels.length === 0) return
  await sql`
    insert into syncline.alarm_notice (alarm_id, moment, channel) select ${id}::int8, ${moment}, channel from unnest(${[...channels]}::text[]) channel
    on conflict do nothing`.execute(trx)
}

function timeOf(at: number) {
  return sql`to_timestamp(${at / 1000}::float8)`
}

type AlarmRow = Omit<Alarm, 'notified'> & { readonly toldBegin: string | null; readonly toldEnd: string | null }

const told = (moment: string) => sql`(
  select max(n.sent_at) from syncline.alarm_notice n where n.alarm_id = a.id and n.moment = ${moment})`
const alarmColumns = sql`a.id, a.code, a.level, a.peer, a.resource, a.text, a.mend, a.since, a.last, a.ended,
  ${told('begin')} as "toldBegin", ${told('end')} as "toldEnd"`

/** Episodes, newest first. */
export async function listAlarms(
  db: Kysely<Database>,
  query: PageQuery & {
    readonly open?: boolean | undefined
    readonly code?: string | undefined
    readonly peer?: string | undefined
  } = {},
): Promise<Page<Alarm>> {
  const bounds = pageBounds(query)
  const { rows } = await sql<AlarmRow>`
    select ${alarmColumns} from syncline.alarm a
     where (${query.open ?? null}::bool is null or (a.ended is null) = ${query.open ?? null})
       and (${query.code ?? null}::text is null or a.code = ${query.code ?? null})
       and (${query.peer ?? null}::text is null or a.peer = ${query.peer ?? null})
       and (${query.before ?? null}::int8 is null or a.id < ${query.before ?? null}::int8)
     order by a.id desc limit ${bounds.take}`.execute(db)
  return toPage(rows, bounds, toAlarm)
}

/** Episodes that began or ended after a moment, which is `now` of an earlier answer; null begins. The oldest first. */
export async function alarmsSince(
  db: Kysely<Database>,
  after: string | null,
): Promise<{ readonly now: string; readonly alarms: readonly { readonly alarm: Alarm; readonly began: boolean }[] }> {
  const { rows: clock } = await sql<{ now: string }>`
    select coalesce(max(greatest(since, ended)), 'epoch')::text as now from syncline.alarm`.execute(db)
  if (after === null) return { now: clock[0]?.now ?? '', alarms: [] }
  const { rows } = await sql<AlarmRow & { readonly began: boolean }>`
    select ${alarmColumns}, a.since > ${after}::timestamptz as began from syncline.alarm a where a.since > ${after}::timestamptz or a.ended > ${after}::timestamptz
     order by a.id limit 1000`.execute(db)
  return { now: clock[0]?.now ?? after, alarms: rows.map(({ began, ...row }) => ({ began, alarm: toAlarm(row) })) }
}

/** Of the open episodes how many there are for each code, peer and level. */
export async function countAlarms(
  db: Kysely<Database>,
): Promise<
  readonly { readonly code: string; readonly peer: string; readonly level: AlarmLevel; readonly count: number }[]
> {
  const { rows } = await sql<{ code: string; peer: string; level: AlarmLevel; count: number }>`
    select code, peer, level, count(*)::int as count from syncline.alarm where ended is null group by 1, 2, 3 order by 1, 2, 3`.execute(
    db,
  )
  return rows
}

/** What is to be told now, in the order of things. An end waits for its begin. */
export async function dueNotices(db: Kysely<Database>, limit: number): Promise<readonly Notice[]> {
  const { rows } = await sql<
    AlarmRow & { noticeId: string; moment: 'begin' | 'end'; channel: NoticeChannel; attempts: number }
  >`
    select n.id as "noticeId", n.moment, n.channel, n.attempts, ${alarmColumns}
      from syncline.alarm_notice n join syncline.alarm a on a.id = n.alarm_id
     where n.sent_at is null and not n.given_up and n.next_at <= clock_timestamp() and not exists (
       select from syncline.alarm_notice b where b.alarm_id = n.alarm_id and b.channel = n.channel and b.id < n.id and b.sent_at is null and not b.given_up)
     order by n.id limit ${limit}`.execute(db)
  return rows.map(({ noticeId, moment, channel, attempts, ...alarm }) => ({
    id: noticeId,
    moment,
    channel,
    attempts,
    alarm: toAlarm(alarm),
  }))
}

export async function noteNoticeSent(db: Kysely<Database>, id: string): Promise<void> {
  await sql`
    update syncline.alarm_notice set sent_at = clock_timestamp(), attempts = attempts + 1, error = null where id = ${id}::int8`.execute(
    db,
  )
}

/** `retryMs` null: it is given up. */
export async function noteNoticeFailed(
  db: Kysely<Database>,
  id: string,
  error: string,
  retryMs: number | null,
): Promise<void> {
  await sql`
    update syncline.alarm_notice set attempts = attempts + 1, error = ${error.slice(0, 1_000)}, given_up = ${retryMs === null},
           next_at = clock_timestamp() + make_interval(secs => ${(retryMs ?? 0) / 1000}) where id = ${id}::int8`.execute(
    db,
  )
}

/** Deletes episodes that ended more than `days` ago; gives how many. */
export async function pruneAlarms(db: Kysely<Database>, days: number): Promise<number> {
  const { numAffectedRows } = await sql`
    delete from syncline.alarm where ended < now() - make_interval(days => ${days}::int4)`.execute(db)
  return Number(numAffectedRows ?? 0)
}

function toAlarm({
  toldBegin,
  toldEnd,
  id,
  code,
  level,
  peer,
  resource,
  text,
  mend,
  since,
  last,
  ended,
}: AlarmRow): Alarm {
  return {
    ...{ id, code, level, peer, resource, text, mend },
    since: isoTime(since),
    last: isoTime(last),
    ended: isoTime(ended),
    notified: { begin: isoTime(toldBegin), end: isoTime(toldEnd) },
  }
}
