import { Readable } from 'node:stream'
import { Type } from 'typebox'
import {
  breakLease,
  changedJobRuns,
  JOB_PHASES,
  JOB_RESULTS,
  jobSteps,
  listJobRuns,
  listLeases,
  readJobRun,
} from '../../store/index.ts'
import type { ServerDeps } from '../deps.ts'
import { hangup, type Routes } from '../exchange.ts'
import { RetryLater } from '../problem.ts'
import {
  answer,
  anyJson,
  closed,
  count,
  flag,
  nullable,
  pageOf,
  pageQuery,
  rowId,
  text,
  time,
  words,
} from '../schemas.ts'

const phase = words(JOB_PHASES, { description: 'queued and waiting have not begun.' })
const result = words(JOB_RESULTS, { description: 'How it ended.' })
const counts = Type.Record(Type.String(), Type.Number(), { description: 'What was moved, such as bytes and files.' })
const jobRun = closed(
  {
    id: Type.String(),
    job: text('Name of the job.'),
    cause: text('What set it off: schedule, event, hand, signal.'),
    caller: nullable(Type.String(), { description: 'Token that asked for it.' }),
    dueAt: nullable(time('When it was due.')),
    phase,
    reason: nullable(Type.String(), { description: 'Why it does not go on.' }),
    dryRun: flag('It only tells what it would do.'),
    coalesced: count('Further wishes to run that it stands for.'),
    host: nullable(Type.String(), { description: 'Where it runs, or ran.' }),
    queuedAt: time('When it was made.'),
    startedAt: nullable(time('When its first step began.')),
    finishedAt: nullable(time('When it was over.')),
    nextAt: time('Not before then it begins, or is looked at again.'),
    blockedMs: count('How long it waited for gates and leases.'),
    result: nullable(result),
    code: nullable(Type.String(), { description: 'Code of what ended it.' }),
    message: nullable(Type.String()),
    counts,
    progress: anyJson(
      'How far its step is: step, place, of, bytes, total, files, rate, secondsLeft; null when it does not tell.',
    ),
    dead: flag('It failed for good, and no later run of the job has succeeded.'),
    changedAt: time('When anything of this last changed.'),
  },
  { title: 'JobRun', description: 'One run of a job.' },
)
const jobStep = closed(
  {
    id: Type.String(),
    stage: words(['steps', 'always'], { description: 'Part of the run.' }),
    place: count('Place in its part, from 0.'),
    name: Type.String(),
    kind: Type.String(),
    attempt: count('From 1.'),
    host: text('Where it ran.'),
    startedAt: time('When it began.'),
    finishedAt: nullable(time('When it ended.')),
    result: nullable(words(['success', 'warning', 'error'])),
    code: nullable(Type.String(), { description: 'Code of what ended it.' }),
    message: nullable(Type.String()),
    counts,
    output: text('What it said: the beginning and the end.'),
  },
  { title: 'JobStep', description: 'One try of a step.' },
)
const lease = closed(
  {
    name: Type.String(),
    owner: text('Job that holds it.'),
    runId: nullable(Type.String(), { description: 'Its run.' }),
    site: text('Name of the site.'),
    host: Type.String(),
    pid: Type.Integer(),
    takenAt: time('Since when it is held.'),
    renewedAt: time('When it was last renewed.'),
    expiresAt: time('When it ends unless it is renewed.'),
  },
  { title: 'Lease', description: 'Something that one run holds.' },
)
const params = closed({ run: rowId('Id of the run.') })

/** Who follows jobs may do so this often at once. */
const FOLLOWERS_MAX = 100
const POLL_MS = 500
const BEAT_MS = 15_000

/** /api/v1/job-runs, /api/v1/leases and /api/v1/events: what runs now, what ran, and what is held. */
export const jobRunRoutes =
  ({ store }: ServerDeps): Routes =>
  async (app) => {
    const closing = new AbortController()
    app.addHook('preClose', async () => closing.abort())
    let followers = 0

    const list = {
      operationId: 'listJobRuns',
      tags: ['jobs'],
      summary: 'List runs of jobs',
      querystring: closed({
        ...pageQuery,
        job: Type.Optional(
          Type.String({ minLength: 1, maxLength: 63, description: 'Name of the job, also of one that was removed.' }),
        ),
        phase: Type.Optional(phase),
        result: Type.Optional(result),
        dead: Type.Optional(Type.Boolean({ description: 'Those that wait for a person.' })),
      }),
      response: { 200: answer(pageOf(jobRun, 'JobRunPage')) },
    }
    app.get('/job-runs', { schema: list, config: { access: 'viewer' } }, async (request) => {
      const { cursor, ...query } = request.query
      const { items, next } = await listJobRuns(store.db, { ...query, before: cursor })
      return { items: [...items], next }
    })

    const read = {
      operationId: 'readJobRun',
      tags: ['jobs'],
      summary: 'Read a run of a job',
      params,
      response: { 200: answer(jobRun) },
    }
    app.get('/job-runs/:run', { schema: read, config: { access: 'viewer' } }, async (request) =>
      readJobRun(store.db, request.params.run),
    )

    const steps = {
      operationId: 'listJobSteps',
      tags: ['jobs'],
      summary: 'List the tries of the steps of a run',
      description: 'In order, with their output.',
      params,
      response: {
        200: answer(
          closed({ items: Type.Array(jobStep) }, { title: 'JobSteps', description: 'All tries of all steps.' }),
        ),
      },
    }
    app.get('/job-runs/:run/steps', { schema: steps, config: { access: 'viewer' } }, async (request) => {
      const { id } = await readJobRun(store.db, request.params.run)
      return { items: [...(await jobSteps(store.db, id))] }
    })

    const leases = {
      operationId: 'listLeases',
      tags: ['jobs'],
      summary: 'List the leases that are held in the database',
      response: { 200: answer(closed({ items: Type.Array(lease) }, { title: 'Leases', description: 'By name.' })) },
    }
    app.get('/leases', { schema: leases, config: { access: 'viewer' } }, async () => ({
      items: [...(await listLeases(store.db))],
    }))

    const release = {
      operationId: 'releaseLease',
      tags: ['jobs'],
      summary: 'Take a lease away from its holder',
      description: 'The run that holds it is ended, so that two do not work on the same thing.',
      params: closed({ lease: Type.String({ minLength: 1, maxLength: 200, description: 'Name of the lease.' }) }),
      'x-answers': { 204: { description: 'Released.' } },
    }
    app.delete('/leases/:lease', { schema: release, config: { access: 'operator' } }, async (request, reply) => {
      await breakLease(store.db, request.params.lease)
      return reply.code(204).send()
    })

    const follow = {
      operationId: 'followEvents',
      tags: ['jobs'],
      summary: 'Follow what happens',
      description:
        'Server-sent events. `job-run` tells a run of a job whenever something of it changed, first all that are not over. A comment line comes every 15 seconds.',
      querystring: closed({
        job: Type.Optional(Type.String({ minLength: 1, maxLength: 63, description: 'Only runs of this job.' })),
      }),
      'x-answers': {
        200: {
          description: 'A stream without end: `event: job-run` with a JobRun as `data`.',
          content: { 'text/event-stream': Type.String() },
        },
      },
    }
    app.get('/events', { schema: follow, config: { access: 'viewer', endless: true } }, async (request, reply) => {
      if (followers >= FOLLOWERS_MAX)
        throw new RetryLater('SYNC_REQUEST_TOO_MANY', 'too many follow what happens here', 30)
      followers += 1
      const stream = Readable.from(happenings(request.query.job, hangup(reply, closing.signal)), {
        objectMode: false,
        highWaterMark: 65_536,
      })
      stream.once('close', () => {
        followers -= 1
      })
      reply.headers({ 'content-type': 'text/event-stream', 'x-accel-buffering': 'no' })
      return reply.send(stream)
    })

    async function* happenings(job: string | undefined, signal: AbortSignal): AsyncIterable<string> {
      let after: string | null = null
      const told = new Map<string, string>()
      let saidAt = Date.now()
      yield ': here\n\n'
      while (!signal.aborted) {
        // A change may commit after a later one: looked at again for a while, and told once.
        const changed: Awaited<ReturnType<typeof changedJobRuns>> | null = await changedJobRuns(store.db, after).catch(
          () => null,
        )
        for (const run of changed?.runs ?? []) {
          if ((job !== undefined && run.job !== job) || told.get(run.id) === run.changedAt) continue
          told.set(run.id, run.changedAt)
          saidAt = Date.now()
          yield `event: job-run\ndata: ${JSON.stringify(run)}\n\n`
        }
        if (changed !== null) after = new Date(Date.parse(changed.at) - OVERLAP_MS).toISOString()
        for (const [id, at] of told)
          if (after !== null && Date.parse(at) < Date.parse(after) - OVERLAP_MS) told.delete(id)
        if (Date.now() - saidAt > BEAT_MS) {
          saidAt = Date.now()
          yield ':\n\n'
        }
        await pause(POLL_MS, signal)
      }
    }
  }

const OVERLAP_MS = 5_000

function pause(ms: number, signal: AbortSignal): Promise<void> {
  return new Promise((resolve) => {
    const timer = setTimeout(end, ms)
    function end() {
      clearTimeout(timer)
      signal.removeEventListener('abort', end)
      resolve()
    }
    signal.addEventListener('abort', end, { once: true })
    if (signal.aborted) end()
  })
}
