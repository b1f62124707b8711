import { type Static, Type } from 'typebox'
import { findJob, type JobEntry, listJobs, openJobRuns, removeJob } from '../../store/index.ts'
import { SynclineError } from '../../sync/index.ts'
import { callerOf } from '../access.ts'
import type { AppliedJobs, ServerDeps } from '../deps.ts'
import { matchedRevision, revisionTag } from '../etag.ts'
import type { Routes } from '../exchange.ts'
import {
  answer,
  anyJson,
  closed,
  flag,
  ifMatch,
  nullable,
  pageOf,
  pageQuery,
  rowId,
  text,
  time,
  words,
} from '../schemas.ts'

const jobName = Type.String({
  pattern: '^[A-Za-z0-9][A-Za-z0-9._-]{0,62}$',
  description: 'Name of the job.',
  examples: ['nightly-copy'],
})
const definition = anyJson('What the job is; GET /api/v1/jobs/schema has its JSON Schema.')
const job = closed(
  {
    name: jobName,
    definition,
    enabled: flag('It is set off by itself.'),
    revision: Type.Integer({ description: 'Goes up with every change; the ETag.' }),
    nextDue: nullable(time('When it is due next; null when no time sets it off.')),
    underWay: Type.Integer({ minimum: 0, description: 'Runs that are not over.' }),
    waitsFor: nullable(Type.String(), { description: 'Why the first of them does not go on.' }),
    lastResult: nullable(Type.String(), { description: 'How its last run ended.' }),
    lastFinishedAt: nullable(time('When its last run ended.')),
    lastSuccessAt: nullable(time('When it last succeeded.')),
    createdAt: time('When it was made.'),
    changedAt: time('When its definition last changed.'),
  },
  { title: 'Job', description: 'Scheduled work.' },
)
const applied = closed(
  {
    faults: Type.Array(
      closed(
        {
          path: text('JSON Pointer into the list of definitions.', { examples: ['/0/steps/1/command/argv'] }),
          message: text('What is wrong there.'),
        },
        { title: 'JobFault', description: 'Something wrong in a definition.' },
      ),
      { description: 'All of them at once; with faults nothing is changed.' },
    ),
    changes: Type.Array(
      closed(
        { name: jobName, does: words(['add', 'change', 'remove', 'keep'], { description: 'What becomes of it.' }) },
        { title: 'JobChange', description: 'What becomes of one job.' },
      ),
    ),
  },
  { title: 'AppliedJobs', description: 'What applying definitions does.' },
)
const guarded = closed(
  {
    label: text('What it is.'),
    free: flag('It is free now.'),
    reason: nullable(Type.String(), { description: 'Why it is not, or cannot be looked at.' }),
  },
  { title: 'PlannedGuard', description: 'Something to be free or to be held.' },
)
const planned = closed(
  {
    job: jobName,
    dryRun: flag('Runs only tell what they would do, unless they are told otherwise.'),
    gates: Type.Array(guarded),
    leases: Type.Array(guarded),
    steps: Type.Array(
      closed(
        {
          name: Type.String(),
          kind: Type.String(),
          stage: words(['steps', 'always'], { description: 'Part of the run.' }),
          plan: nullable(
            closed(
              {
                summary: text('What would be done.'),
                argv: Type.Optional(
                  Type.Array(Type.Array(Type.String()), { description: 'Programs and their exact arguments.' }),
                ),
                files: Type.Optional(nullable(Type.Integer(), { description: 'Files that would be moved.' })),
                bytes: Type.Optional(nullable(Type.Number(), { description: 'Bytes that would be moved.' })),
                notes: Type.Optional(Type.Array(Type.String())),
              },
              { title: 'StepPlan', description: 'What a step would do.' },
            ),
          ),
          failure: nullable(Type.String(), { description: 'Why it cannot be told.' }),
        },
        { title: 'PlannedStep', description: 'A step of the run.' },
      ),
    ),
  },
  { title: 'PlannedJob', description: 'What a run would do now. Nothing of it was begun.' },
)
const params = closed({ job: jobName })
const definitions = closed({
  jobs: Type.Array(definition, { maxItems: 10_000 }),
  prune: Type.Optional(Type.Boolean({ default: false, description: 'Jobs that are not among them are removed.' })),
})

/** /api/v1/jobs: scheduled work, and doing it now. */
export const jobRoutes =
  ({ store, actions }: ServerDeps): Routes =>
  async (app) => {
    const list = {
      operationId: 'listJobs',
      tags: ['jobs'],
      summary: 'List jobs',
      querystring: closed({ ...pageQuery, enabled: Type.Optional(Type.Boolean()) }),
      response: { 200: answer(pageOf(job, 'JobPage')) },
    }
    app.get('/jobs', { schema: list, config: { access: 'viewer' } }, async (request) => {
      const { cursor, ...query } = request.query
      const { items, next } = await listJobs(store.db, { ...query, before: cursor })
      return { items: await views(items), next }
    })

    const schema = {
      operationId: 'readJobSchema',
      tags: ['jobs'],
      summary: 'Read the JSON Schema of jobs',
      description: 'For editors and consoles; it depends on the kinds of steps that this site knows.',
      response: {
        200: Type.Unsafe<Readonly<Record<string, unknown>>>({
          description: 'A JSON Schema.',
          type: 'object',
          additionalProperties: true,
        }),
      },
    }
    app.get('/jobs/schema', { schema, config: { access: 'viewer' } }, async () => (await actions.jobs()).schema())

    const compare = {
      operationId: 'compareJobs',
      tags: ['jobs'],
      summary: 'Tell what applying definitions would do',
      description: 'Also checks them: all faults are told at once.',
      body: definitions,
      response: { 200: answer(applied) },
    }
    app.post('/jobs/compare', { schema: compare, config: { access: 'operator' } }, async (request) =>
      (await actions.jobs()).compare(request.body.jobs, request.body.prune === true),
    )

    const apply = {
      operationId: 'applyJobs',
      tags: ['jobs'],
      summary: 'Make jobs what definitions say',
      description: 'All in one commit, or nothing. Runs that are under way go on as they began.',
      body: definitions,
      response: { 200: answer(applied) },
    }
    app.post('/jobs/apply', { schema: apply, config: { access: 'administrator' } }, async (request) =>
      sound(await (await actions.jobs()).apply(request.body.jobs, request.body.prune === true)),
    )

    const read = {
      operationId: 'readJob',
      tags: ['jobs'],
      summary: 'Read a job',
      params,
      response: { 200: answer(job) },
    }
    app.get('/jobs/:job', { schema: read, config: { access: 'viewer' } }, async (request, reply) => {
      const found = await findJob(store.db, request.params.job)
      reply.header('etag', revisionTag(found))
      return viewOf(found)
    })

    const put = {
      operationId: 'putJob',
      tags: ['jobs'],
      summary: 'Make or change a job',
      params,
      headers: ifMatch,
      body: definition,
      response: { 200: answer(job) },
    }
    app.put('/jobs/:job', { schema: put, config: { access: 'administrator' } }, async (request, reply) => {
      const { job: name } = request.params
      if ((request.body as { name?: unknown } | null)?.name !== name)
        throw new SynclineError('SYNC_REQUEST_INVALID', `the definition is not that of job "${name}"`)
      const revision = matchedRevision(request.headers['if-match'])
      if (revision !== undefined && (await findJob(store.db, name)).revision !== revision)
        throw new SynclineError('SYNC_REQUEST_CHANGED', `job "${name}" has another revision now`)
      sound(await (await actions.jobs()).apply([request.body], false))
      const found = await findJob(store.db, name)
      reply.header('etag', revisionTag(found))
      return viewOf(found)
    })

    const remove = {
      operationId: 'removeJob',
      tags: ['jobs'],
      summary: 'Remove a job',
      description: 'A run that is under way ends by itself; the history stays as long as it is kept.',
      params,
      headers: ifMatch,
      'x-answers': { 204: { description: 'Removed.' } },
    }
    app.delete('/jobs/:job', { schema: remove, config: { access: 'administrator' } }, async (request, reply) => {
      await removeJob(store.db, request.params.job, matchedRevision(request.headers['if-match']))
      return reply.code(204).send()
    })

    const plan = {
      operationId: 'planJob',
      tags: ['jobs'],
      summary: 'Tell what a run would do now',
      description: 'Asks hosts and peers as the run would, and writes nothing.',
      params,
      response: { 200: answer(planned) },
    }
    app.get('/jobs/:job/plan', { schema: plan, config: { access: 'operator' } }, async (request) =>
      (await actions.jobs()).plan(request.params.job, request.signal),
    )

    const run = {
      operationId: 'runJob',
      tags: ['jobs'],
      summary: 'Run a job now',
      description: 'Does not wait for its end. While a run is under way, one run follows it for all such wishes.',
      params,
      body: closed({
        dryRun: Type.Optional(
          Type.Boolean({ description: 'Only tell what would be done, or do it; as the job says when absent.' }),
        ),
      }),
      response: {
        202: answer(
          closed(
            {
              runId: text('To ask how far it is.'),
              does: words(['begin', 'after', 'coalesce'], {
                description:
                  'Begins as soon as it can, follows the run that is under way, or a run that waits stands for this wish too.',
              }),
            },
            { title: 'RequestedRun', description: 'What was made of the wish.' },
          ),
        ),
      },
    }
    app.post('/jobs/:job/runs', { schema: run, config: { access: 'operator' } }, async (request, reply) => {
      const { dryRun } = request.body
      const caller = callerOf(request).name
      return reply.code(202).send(await (await actions.jobs()).run(request.params.job, { caller, dryRun }))
    })

    const stop = {
      operationId: 'stopJob',
      tags: ['jobs'],
      summary: 'Stop the runs of a job',
      description:
        'What runs is ended with everything it started; the steps that are always done still follow. Asked again, those end too.',
      params,
      body: closed({ run: Type.Optional(rowId('Only this run.')) }),
      response: {
        200: answer(
          closed(
            { runs: Type.Array(Type.String()) },
            { title: 'StoppedRuns', description: 'Runs that were asked to stop.' },
          ),
        ),
      },
    }
    app.post('/jobs/:job/stop', { schema: stop, config: { access: 'operator' } }, async (request) => {
      const caller = callerOf(request).name
      return { runs: await (await actions.jobs()).stop(request.params.job, request.body.run, caller) }
    })

    async function views(entries: readonly JobEntry[]): Promise<Static<typeof job>[]> {
      const open = Map.groupBy(await openJobRuns(store.db), (each) => each.job)
      return entries.map(({ id: _, events: __, ...rest }) => {
        const runs = open.get(rest.name) ?? []
        return { ...rest, underWay: runs.length, waitsFor: runs.find(({ reason }) => reason !== null)?.reason ?? null }
      })
    }

    async function viewOf(entry: JobEntry): Promise<Static<typeof job>> {
      return (await views([entry]))[0] as Static<typeof job>
    }
  }

/** Errors: SYNC_REQUEST_INVALID with every fault. */
function sound(result: AppliedJobs): AppliedJobs {
  if (result.faults.length === 0) return result
  throw new SynclineError(
    'SYNC_REQUEST_INVALID',
    result.faults.map(({ path, message }) => `${path} ${message}`).join('; '),
  )
}
