import { Readable } from 'node:stream'
import { setTimeout as sleep } from 'node:timers/promises'
import { Type } from 'typebox'
import { type Alarm, alarmsSince, listAlarms } from '../../store/index.ts'
import { ALARM_CODES, ALARM_LEVELS } from '../../sync/index.ts'
import type { ServerDeps } from '../deps.ts'
import { hangup, type Routes } from '../exchange.ts'
import { createJobTidings } from '../job-tidings.ts'
import { answer, closed, nullable, pageOf, pageQuery, text, time, words } from '../schemas.ts'

export const alarm = closed(
  {
    id: text('Of the episode.'),
    code: words(ALARM_CODES, { description: 'The rule; docs/guides/alarms.md describes each.' }),
    level: words(ALARM_LEVELS, { description: 'How bad it is now.' }),
    peer: text('Name of the peer; empty where the site itself is meant.'),
    resource: text('Name of the resource or job, or path of the disk; empty for none.'),
    text: text('What is the matter.'),
    mend: text('What to do about it.'),
    since: time('When it began.'),
    last: time('When it was last so.'),
    ended: nullable(time('When it ended; null while it lasts.')),
    notified: closed(
      {
        begin: nullable(time('When somebody was told that it began.')),
        end: nullable(time('When somebody was told that it ended.')),
      },
      { title: 'AlarmNotified', description: 'By mail or webhook.' },
    ),
  },
  {
    title: 'Alarm',
    description: 'An episode of the stall detector: from when a rule began to hold until it no longer did.',
  },
)

/** How often somebody who listens is told of what changed, and how often a line comes anyway. */
const LOOK_MS = 1_000
const BEAT_MS = 15_000

/** /api/v1/alarms and /api/v1/events: what the stall detector found. */
export const alarmRoutes =
  ({ store }: ServerDeps): Routes =>
  async (app) => {
    const closing = new AbortController()
    app.addHook('preClose', async () => closing.abort())

    const list = {
      operationId: 'listAlarms',
      tags: ['alarms'],
      summary: 'List alarms',
      description: 'Open and ended episodes of the stall detector.',
      querystring: closed({
        ...pageQuery,
        open: Type.Optional(Type.Boolean({ description: 'Only those that last, or only those that ended.' })),
        code: Type.Optional(words(ALARM_CODES, { description: 'Only of this rule.' })),
        peer: Type.Optional(Type.String({ maxLength: 63, description: 'Only of this peer, by its name.' })),
      }),
      response: { 200: answer(pageOf(alarm, 'AlarmPage')) },
    }
    app.get('/alarms', { schema: list, config: { access: 'viewer' } }, async (request) => {
      const { cursor, ...query } = request.query
      return listAlarms(store.db, { ...query, before: cursor })
    })

    const listen = {
      operationId: 'listenForEvents',
      tags: ['alarms'],
      summary: 'Listen for events of the site',
      description:
        'Server-sent events: `alarm.begun` and `alarm.ended`, each with the alarm as JSON, and `job.run` with the JobRun whenever something of it changed, its progress too. Begins with every alarm that is open and every run that is not over. A comment line comes every 15 seconds.',
      'x-answers': {
        200: {
          description: 'A stream without end.',
          content: { 'text/event-stream': Type.String() },
        },
      },
    }
    app.get('/events', { schema: listen, config: { access: 'viewer', endless: true } }, async (_request, reply) => {
      const stream = Readable.from(tidings(hangup(reply, closing.signal)), { objectMode: false, highWaterMark: 1024 })
      reply.headers({ 'content-type': 'text/event-stream', 'x-accel-buffering': 'no' })
      return reply.send(stream)
    })

    async function* tidings(signal: AbortSignal): AsyncIterable<string> {
      let { now: after } = await alarmsSince(store.db, null)
      yield ': here\n\n'
      for (const each of (await listAlarms(store.db, { open: true, limit: 1000 })).items.toReversed())
        yield tiding('alarm.begun', each)
      const jobRuns = createJobTidings(store)
      yield* await jobRuns()
      for (let beatAt = Date.now() + BEAT_MS; ; ) {
        await sleep(LOOK_MS, undefined, { signal }).catch(() => {})
        if (signal.aborted) return
        const { now, alarms } = await alarmsSince(store.db, after)
        for (const { alarm, began } of alarms) {
          if (began) yield tiding('alarm.begun', alarm)
          if (alarm.ended !== null) yield tiding('alarm.ended', alarm)
        }
        after = now
        yield* await jobRuns()
        if (Date.now() < beatAt) continue
        beatAt = Date.now() + BEAT_MS
        yield ':\n\n'
      }
    }
  }

function tiding(event: 'alarm.begun' | 'alarm.ended', alarm: Alarm): string {
  return `event: ${event}\nid: ${alarm.id}.${event}\ndata: ${JSON.stringify(alarm)}\n\n`
}
