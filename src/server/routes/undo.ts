import { Type } from 'typebox'
import { undoRun } from '../../store/index.ts'
import { callerOf } from '../access.ts'
import type { ServerDeps } from '../deps.ts'
import type { Routes } from '../exchange.ts'
import {
  answer,
  anyJson,
  closed,
  count,
  flag,
  nullable,
  recordId,
  resourceName,
  rowId,
  text,
  time,
  words,
} from '../schemas.ts'

const DEEDS = ['inserted', 'replaced', 'deleted'] as const
const counts = {
  removed: count('Records that the run had brought and that are gone again.'),
  restored: count('Records that the run had deleted and that are back.'),
  replaced: count('Records that have their previous values again.'),
}
const since = closed(
  {
    resource: resourceName,
    id: recordId,
    did: words(DEEDS, { description: 'What the run had done to it.' }),
    site: text('Site where it was changed since.'),
    via: nullable(Type.String(), {
      description: 'Peer that this change came by; null when it was made or settled here.',
    }),
    at: time('When.'),
    runId: nullable(Type.String(), {
      description: 'Run that brought or made it; null for the application and for writes by hand.',
    }),
    deleted: flag('It was deleted since.'),
  },
  { title: 'ChangedSince', description: 'A record that somebody changed after the run.' },
)
const report = closed(
  {
    runId: text('Run that is taken back.'),
    undoRunId: nullable(Type.String(), {
      description:
        'Run that did so, which can be taken back in turn; null for a preview, and where there was nothing to write.',
    }),
    before: nullable(closed({ runId: text('Its id.'), at: time('When it began.') }), {
      description: 'The last run that had taken it back before.',
    }),
    preview: flag('Nothing was written.'),
    counts: closed(
      {
        ...counts,
        since: count('Records that somebody changed since; they are left as they are.'),
        blocked: count('Records that the database does not let go or take back.'),
        same: count('Records that were as before already.'),
        missing: count('Records whose values before the run are no longer kept.'),
      },
      { title: 'UndoCounts', description: 'How many records had which outcome.' },
    ),
    resources: Type.Array(
      closed(
        { resource: resourceName, ...counts },
        { title: 'UndoResource', description: 'What was taken back of a resource.' },
      ),
    ),
    since: Type.Array(since, { description: 'Up to a thousand.' }),
    blocked: Type.Array(
      closed(
        {
          resource: resourceName,
          id: recordId,
          code: text('Code of the reason.'),
          reason: text('In words for a person.'),
        },
        { title: 'UndoBlocked', description: 'A record that could not be taken back.' },
      ),
      { description: 'Up to a thousand.' },
    ),
    missing: Type.Array(
      closed(
        {
          resource: nullable(Type.String(), { description: 'Null when it is not attached any more.' }),
          deed: words(['inserted', 'changed'], {
            description: 'Whether the run had brought these records or changed them.',
          }),
          count: count('How many.'),
          reason: text('Why they cannot be put back.'),
        },
        { title: 'UndoMissing', description: 'What the run changed and nobody can put back.' },
      ),
    ),
    samples: Type.Array(
      closed(
        {
          resource: resourceName,
          id: recordId,
          does: words(['removed', 'restored', 'replaced']),
          fields: Type.Record(
            Type.String(),
            closed(
              { now: anyJson('Value before the undo.'), next: anyJson('Value after it.') },
              { title: 'UndoField', description: 'A field that differs.' },
            ),
          ),
        },
        { title: 'UndoSample', description: 'A record with the fields that the undo changes.' },
      ),
      { description: 'The first twenty.' },
    ),
    bytes: count('Of what is written.'),
    durationMs: count('Milliseconds.'),
  },
  { title: 'UndoReport', description: 'What taking back a run did, or would do.' },
)

/** POST /api/v1/runs/{run}/undo: a run taken back, as a run of its own. */
export const undoRoutes =
  ({ store, limits, self }: ServerDeps): Routes =>
  async (app) => {
    const schema = {
      operationId: 'undoRun',
      tags: ['runs'],
      summary: 'Take back a run',
      description:
        'Writes what was before for each record that the run changed here and nobody changed since, as a new change of this site that syncs on. With `preview` nothing is written. It is a run of its own and can be taken back too.',
      params: closed({ run: rowId('Id of the run.') }),
      body: closed({
        preview: Type.Optional(Type.Boolean({ default: false, description: 'Only say what it would do.' })),
        force: Type.Optional(
          Type.Array(Type.String({ minLength: 3, maxLength: 704 }), {
            maxItems: 10_000,
            description: 'Records, as resource/id, to take back although somebody changed them since.',
            examples: [['city/AT']],
          }),
        ),
        partial: Type.Optional(
          Type.Boolean({ default: false, description: 'Take back what can be, although values are no longer kept.' }),
        ),
      }),
      response: { 200: answer(report) },
    }
    app.post('/runs/:run/undo', { schema, config: { access: 'operator' } }, async (request) => {
      const { preview = false, force = [], partial = false } = request.body
      const { run: runId } = request.params
      const { name: by } = callerOf(request)
      return undoRun(store, await self(), { runId, preview, force, partial, by }, limits)
    })
  }
