import { Type } from 'typebox'
import { findPeer, findResource, findTask } from '../../store/index.ts'
import { policyInOurWords } from '../../sync/index.ts'
import type { ServerDeps } from '../deps.ts'
import type { Routes } from '../exchange.ts'
import { checkRules } from '../link-check.ts'
import {
  answer,
  anyJson,
  batchReport,
  closed,
  count,
  flag,
  linkRulesGiven,
  mode,
  nullable,
  peerRef,
  recordId,
  resourceName,
  rowId,
  text,
  words,
} from '../schemas.ts'

const difference = closed(
  {
    field: text('Column.'),
    before: anyJson('As it is here.'),
    after: anyJson('As it would be.'),
    theirs: Type.Optional(anyJson('As the peer has it; where both sides had changed the record.')),
  },
  { title: 'FieldDifference', description: 'A value that would be another one.' },
)
const sample = closed(
  {
    id: recordId,
    kind: words(['insert', 'update', 'delete', 'keep'], { description: 'What would become of the row.' }),
    decision: Type.Optional(
      words(['ours', 'theirs', 'merged', 'open'], {
        description:
          'Whose values would stand, where both sides had changed the record; open: it would wait for a person.',
      }),
    ),
    fields: Type.Array(difference),
  },
  { title: 'PreviewedRecord', description: 'A record that would be touched.' },
)
const part = closed(
  {
    direction: words(['pull', 'push']),
    changes: count('Changes that would travel.'),
    bytes: count('As they travelled for the preview.'),
    batches: count('Batches that were looked at.'),
    complete: flag('False when only the first batches were looked at.'),
    counts: batchReport.properties.counts,
    writes: closed(
      {
        inserts: count('Records that would be new.'),
        updates: count('Records that would get other values.'),
        deletes: count('Records that would be deleted.'),
      },
      { title: 'PreviewedWrites', description: 'What would become of the rows of the table, here or at the peer.' },
    ),
    samples: Type.Array(sample, { description: 'Some of the records, conflicts first. Only of a pull.' }),
    rejections: batchReport.properties.rejections,
    braked: Type.Array(Type.String(), { description: 'Why a brake would stop it.' }),
    estimateMs: nullable(Type.Number({ minimum: 0 }), {
      description: 'How long the real run would take, in milliseconds.',
    }),
    failure: nullable(
      closed({ code: Type.String(), retryable: Type.Boolean(), detail: Type.String() }, { title: 'PreviewFailure' }),
      { description: 'Why it could not be looked at.' },
    ),
  },
  { title: 'PreviewedPart', description: 'What one direction of a task would do.' },
)
export const preview = closed(
  {
    peer: text('Name.'),
    tasks: Type.Array(
      closed(
        {
          resource: resourceName,
          mode,
          parts: Type.Array(part),
          leaving: Type.Optional(
            closed(
              {
                here: count('Records here.'),
                there: nullable(Type.Integer(), {
                  description: 'Records at the peer; null where it lets nobody count.',
                }),
              },
              {
                title: 'Leaving',
                description: 'What another filter would leave out from then on; with a filter that is tried.',
              },
            ),
          ),
        },
        { title: 'PreviewedTask', description: 'What one task would do.' },
      ),
    ),
    newLog: flag('The peer was restored or copied: everything would be offered and asked for again.'),
    durationMs: count('What the preview took, in milliseconds.'),
  },
  { title: 'Preview', description: 'What a run with a peer would do now. Nothing of it was done.' },
)
const previews = closed({ items: Type.Array(preview) }, { title: 'Previews', description: 'One for each peer.' })

/** /api/v1/sync/preview and /api/v1/tasks/{task}/preview: what would happen, by the code that would do it, rolled back. */
export const previewRoutes =
  ({ store, actions }: ServerDeps): Routes =>
  async (app) => {
    const sync = {
      operationId: 'previewSync',
      tags: ['runs'],
      summary: 'Preview a sync',
      description:
        'Fetches, applies and rolls back what a run would pull, and lets the peer try what it would push. Nothing stays, here or there; no run is started. Bounded: `complete` tells whether everything was looked at.',
      body: closed({
        peer: Type.Optional(peerRef),
        resources: Type.Optional(Type.Array(resourceName, { minItems: 1, maxItems: 1000 })),
      }),
      response: { 200: answer(previews) },
    }
    app.post('/sync/preview', { schema: sync, config: { access: 'operator', endless: true } }, async (request) => {
      const { peer, resources } = request.body
      const name = peer === undefined ? undefined : (await findPeer(store.db, peer)).name
      for (const resource of resources ?? []) await findResource(store.db, resource)
      return { items: await actions.previewSync({ peer: name, resources }) }
    })

    const task = {
      operationId: 'previewTask',
      tags: ['tasks'],
      summary: 'Preview a change of a task',
      description:
        'What the task would do with these settings: what it would add, change and remove, here and at the peer.',
      params: closed({ task: rowId('Id of the task.') }),
      body: closed({
        mode: Type.Optional(mode),
        ...linkRulesGiven,
        onLeft: Type.Optional(
          words(['keep', 'remove'], { description: 'What becomes of a record here that left the filter of the peer.' }),
        ),
      }),
      response: { 200: answer(preview) },
    }
    app.post(
      '/tasks/:task/preview',
      { schema: task, config: { access: 'operator', endless: true } },
      async (request) => {
        const { peer, resource, ...found } = await findTask(store.db, request.params.task)
        const given = policyInOurWords(request.body, (await findPeer(store.db, peer)).uuid)
        const settings = Object.fromEntries(Object.entries(given).filter(([, value]) => value !== undefined))
        const { mode: direction, filter, columns } = { ...found, ...settings }
        await checkRules(store, resource, { filter, columns }, direction === 'pull' ? 'there' : 'here')
        const [tried] = await actions.previewSync({ peer, resources: [resource], change: { resource, settings } })
        if (tried === undefined) throw new Error('a preview of one peer has one part')
        return tried
      },
    )
  }
