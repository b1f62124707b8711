import { Type } from 'typebox'
import {
  breakLease,
  dismissJobRun,
  JOB_PHASES,
  JOB_RESULTS,
  jobSteps,
  listJobRuns,
  listLeases,
  readJobRun,
} from '../../store/index.ts'
import type { ServerDeps } from '../deps.ts'
import type { Routes } from '../exchange.ts'
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

/** /api/v1/job-runs and /api/v1/leases: what runs now, what ran, and what is held. */
export const jobRunRoutes =
  ({ store }: ServerDeps): Routes =>
  async (app) => {
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

    const dismiss = {
      operationId: 'dismissJobRun',
      tags: ['jobs'],
      summary: 'Dismiss a run that waits for a person',
      description: 'It failed for good; somebody has seen to it. It stays in the history.',
      params,
      response: { 200: answer(jobRun) },
    }
    app.post('/job-runs/:run/dismiss', { schema: dismiss, config: { access: 'operator' } }, async (request) =>
      dismissJobRun(store.db, request.params.run),
    )

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
  }
