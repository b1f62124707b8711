import { type Static, Type } from 'typebox'
import {
  findPeer,
  findResource,
  listLog,
  listRuns,
  RESULTS,
  RUN_KINDS,
  type RunEntry,
  readRun,
} from '../../store/index.ts'
import type { ServerDeps } from '../deps.ts'
import type { Routes } from '../exchange.ts'
import {
  answer,
  closed,
  count,
  flag,
  nullable,
  pageOf,
  pageQuery,
  peerRef,
  resourceName,
  rowId,
  text,
  time,
  words,
} from '../schemas.ts'

const result = words(RESULTS, {
  description:
    'success, warning (something waits for a person), error (may work later), fatal (a person or a setting must change first).',
})
const runKind = words(RUN_KINDS, {
  description:
    'sync: with a peer, set off here; received: what a peer pushed in one of its runs; repair: what differed, exchanged anew; undo: a run taken back.',
})
const run = closed(
  {
    id: Type.String(),
    kind: runKind,
    received: nullable(Type.String(), {
      description: 'What the peer calls the run in which it pushed this; null for what began here.',
    }),
    peer: nullable(Type.String(), { description: 'Name of the peer; null for work without one.' }),
    cause: text('What set it off.'),
    state: text('What it is doing, or how it ended.'),
    startedAt: time('When it began.'),
    finishedAt: nullable(time('When it ended; null while it runs.')),
    result: nullable(result),
    code: nullable(Type.String(), { description: 'Code of what ended it.' }),
    message: nullable(Type.String()),
    counts: Type.Record(Type.String(), Type.Number(), { description: 'What it moved so far.' }),
  },
  { title: 'Run', description: 'One pull and push with one peer, or another piece of work.' },
)
const entry = closed(
  {
    id: Type.String(),
    at: time('When it was written.'),
    runId: nullable(Type.String(), { description: 'Run of this site that it belongs to.' }),
    peer: nullable(Type.String(), { description: 'Name of the peer, as it was then.' }),
    resource: nullable(Type.String()),
    mode: text('pull or push.'),
    direction: words(['incoming', 'outgoing', 'none'], {
      description: 'Who asked: the peer (incoming) or this site (outgoing).',
    }),
    action: text('send, apply, retry, …'),
    result,
    remote: flag('The error was the other side’s.'),
    message: text('In words for a person.'),
    changes: count('Changes that travelled.'),
    applied: count('Of these, applied.'),
    conflicts: count('Of these, waiting for a person.'),
    quarantined: count('Of these, in quarantine.'),
    refused: count('Of these, refused.'),
    bytes: count('As they travelled.'),
    durationMs: count('Milliseconds.'),
  },
  { title: 'LogEntry', description: 'One transaction with a peer.' },
)

/** /api/v1/runs, /api/v1/log and /api/v1/sync: what was done, and doing it now. */
export const runRoutes =
  ({ store, actions }: ServerDeps): Routes =>
  async (app) => {
    const list = {
      operationId: 'listRuns',
      tags: ['runs'],
      summary: 'List runs',
      querystring: closed({
        ...pageQuery,
        peer: Type.Optional(peerRef),
        state: Type.Optional(Type.String({ minLength: 1, maxLength: 100 })),
        result: Type.Optional(result),
        kind: Type.Optional(runKind),
      }),
      response: { 200: answer(pageOf(run, 'RunPage')) },
    }
    app.get('/runs', { schema: list, config: { access: 'viewer' } }, async (request) => {
      const { cursor, ...query } = request.query
      const { items, next } = await listRuns(store.db, { ...query, before: cursor })
      return { items: items.map(view), next }
    })

    const read = {
      operationId: 'readRun',
      tags: ['runs'],
      summary: 'Read a run',
      params: closed({ run: rowId('Id of the run.') }),
      response: { 200: answer(run) },
    }
    app.get('/runs/:run', { schema: read, config: { access: 'viewer' } }, async (request) =>
      view(await readRun(store.db, request.params.run)),
    )

    const log = {
      operationId: 'listLog',
      tags: ['runs'],
      summary: 'List the log',
      querystring: closed({
        ...pageQuery,
        peer: Type.Optional(peerRef),
        resource: Type.Optional(resourceName),
        result: Type.Optional(result),
        action: Type.Optional(
          Type.String({ minLength: 1, maxLength: 63, description: 'send, apply, retry, verify, …' }),
        ),
        run: Type.Optional(rowId('Id of a run.')),
      }),
      response: { 200: answer(pageOf(entry, 'LogPage')) },
    }
    app.get('/log', { schema: log, config: { access: 'viewer' } }, async (request) => {
      const { cursor, run: runId, ...query } = request.query
      const { items, next } = await listLog(store.db, { ...query, runId, before: cursor })
      return { items: items.map(({ peerId: _, ...each }) => each), next }
    })

    const sync = {
      operationId: 'syncNow',
      tags: ['runs'],
      summary: 'Sync now',
      description: 'Starts a run with a peer, or with every peer that has tasks, and does not wait for it to end.',
      body: closed({
        peer: Type.Optional(peerRef),
        resources: Type.Optional(
          Type.Array(resourceName, {
            minItems: 1,
            maxItems: 1000,
            description: 'Absent for every resource with a task.',
          }),
        ),
      }),
      response: {
        202: answer(
          closed(
            {
              runs: Type.Array(
                closed(
                  { peer: text('Name.'), runId: text('To ask how far it is.') },
                  { title: 'StartedRun', description: 'A run that began.' },
                ),
              ),
            },
            { title: 'StartedRuns', description: 'What was begun.' },
          ),
        ),
      },
    }
    app.post('/sync', { schema: sync, config: { access: 'operator' } }, async (request, reply) => {
      const { peer, resources } = request.body
      const name = peer === undefined ? undefined : (await findPeer(store.db, peer)).name
      for (const resource of resources ?? []) await findResource(store.db, resource)
      const started = await actions.syncNow({ peer: name, resources, cause: 'hand' })
      return reply.code(202).send({ runs: started.runs.map(({ peer, runId }) => ({ peer, runId })) })
    })
  }

function view({ peerId: _, ...rest }: RunEntry): Static<typeof run> {
  return { ...rest, counts: { ...rest.counts } }
}
