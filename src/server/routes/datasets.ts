import { Type } from 'typebox'
import { createDataset, type Dataset, findDataset, findPeer, readDatasets, removeDataset } from '../../store/index.ts'
import type { ServerDeps } from '../deps.ts'
import { makeArchive, publishedFilter } from '../eden/archive.ts'
import { edenTables } from '../eden/asked.ts'
import type { Routes } from '../exchange.ts'
import { answer, closed, count, nullable, peerRef, resourceName, text, time, uuid } from '../schemas.ts'

const code = Type.String({
  pattern: '^[A-Za-z][A-Za-z0-9_.-]{0,63}$',
  description: 'Code of the data set.',
  examples: ['RELIEF-2026'],
})

const edenFilter = Type.String({
  minLength: 1,
  maxLength: 2000,
  description: 'Which records, in Eden’s words.',
  examples: ['~.name__like=A*'],
})

const dataset = closed(
  {
    code,
    uuid: uuid('Its name at Eden, behind urn:uuid:.'),
    name: text('For people.'),
    comments: nullable(text('What else is to be said.')),
    tables: Type.Array(
      closed({
        resource: resourceName,
        filter: nullable(edenFilter),
        uuid: uuid('Name of the task that the table is at Eden, and of its file in the archive, behind urn:uuid:.'),
      }),
    ),
    createdAt: time('When it was made.'),
    archive: nullable(
      closed({
        url: text('Where anybody may download it.'),
        madeAt: time('When it was made.'),
        records: count('Records in it.'),
        bytes: count('Bytes of it.'),
      }),
      { description: 'All of it as it was; null before one was made.' },
    ),
  },
  { title: 'Dataset', description: 'Tables that this site publishes together for Sahana Eden sites.' },
)

const followed = closed(
  {
    code,
    name: text('As it is called there.'),
    archive: nullable(text('Where its archive is.'), { description: 'Null for none.' }),
    made: Type.Array(resourceName, { description: 'Resources that are pulled from now on.' }),
    kept: Type.Array(resourceName, { description: 'Resources that were pulled before.' }),
    without: Type.Array(Type.String(), { description: 'Tables of it that are not here.' }),
  },
  { title: 'DatasetFollowed', description: 'What follows from a data set of a Sahana Eden site.' },
)

const ref = closed({ code })

/** /api/v1/datasets: what this site publishes for Sahana Eden sites, and following what such a site publishes. */
export const datasetRoutes =
  (deps: ServerDeps): Routes =>
  async (app) => {
    const { store, actions, publicUrl } = deps

    const view = ({ code, uuid, name, comments, tables, createdAt, archive }: Dataset) => ({
      ...{ code, uuid, name, comments, createdAt },
      tables: tables.map(({ resource, filter, uuid }) => ({ resource, filter, uuid })),
      archive: archive && {
        url: `${publicUrl()}/eden/default/download/sync_dataset_archive.archive.${archive.name}`,
        ...{ madeAt: archive.madeAt, records: archive.records, bytes: archive.bytes },
      },
    })

    const list = {
      operationId: 'listDatasets',
      tags: ['datasets'],
      summary: 'List data sets',
      description: 'What this site publishes for Sahana Eden sites, by code.',
      response: {
        200: answer(closed({ items: Type.Array(dataset) }, { title: 'Datasets', description: 'All of them.' })),
      },
    }
    app.get('/datasets', { schema: list, config: { access: 'viewer' } }, async () => ({
      items: (await readDatasets(store.db)).map(view),
    }))

    const create = {
      operationId: 'createDataset',
      tags: ['datasets'],
      summary: 'Publish tables together',
      description:
        'Whoever can reach this site may read which tables these are, and the archive of them: it needs no account. What stands beside records, such as who made them, is not in it.',
      body: closed({
        code,
        name: Type.String({ minLength: 1, maxLength: 200, description: 'For people.' }),
        comments: Type.Optional(nullable(Type.String({ maxLength: 2000 }))),
        tables: Type.Array(closed({ resource: resourceName, filter: Type.Optional(nullable(edenFilter)) }), {
          minItems: 1,
          maxItems: 100,
        }),
      }),
      response: { 201: answer(dataset) },
    }
    app.post('/datasets', { schema: create, config: { access: 'administrator' } }, async (request, reply) => {
      const tables = await edenTables(store)
      for (const { resource, filter } of request.body.tables) publishedFilter(tables, resource, filter)
      const made = await createDataset(store.db, request.body)
      reply.code(201).header('location', `/api/v1/datasets/${made.code}`)
      return view(made)
    })

    const remove = {
      operationId: 'removeDataset',
      tags: ['datasets'],
      summary: 'Publish a data set no longer',
      description: 'Its archive goes; the tables stay. Sites that follow it are told that it has gone.',
      params: ref,
      response: { 204: Type.Null() },
    }
    app.delete('/datasets/:code', { schema: remove, config: { access: 'administrator' } }, async (request, reply) => {
      await removeDataset(store.db, request.params.code)
      return reply.code(204).send(null)
    })

    const archive = {
      operationId: 'archiveDataset',
      tags: ['datasets'],
      summary: 'Make the archive of a data set anew',
      description: 'Answers when it is made, which takes a second for about ten thousand records.',
      params: ref,
      response: { 200: answer(dataset) },
    }
    app.post(
      '/datasets/:code/archive',
      { schema: archive, config: { access: 'operator', endless: true } },
      async (request) => {
        await makeArchive(deps, await findDataset(store.db, request.params.code))
        return view(await findDataset(store.db, request.params.code))
      },
    )

    const follow = {
      operationId: 'followDataset',
      tags: ['datasets'],
      summary: 'Follow a data set of a Sahana Eden site',
      description:
        'Makes tasks that pull the tables of the data set that are here, with its filters; the first time from its archive. To be repeated when the data set changed.',
      params: closed({ peer: peerRef }),
      body: closed({
        code,
        schedule: Type.Optional(
          nullable(Type.String({ maxLength: 200 }), { description: 'As of a task; null for by hand.' }),
        ),
      }),
      response: { 200: answer(followed) },
    }
    app.post('/peers/:peer/datasets', { schema: follow, config: { access: 'administrator' } }, async (request) => {
      const { code, schedule = null } = request.body
      const peer = await findPeer(store.db, request.params.peer)
      const wish = { peer, code, schedule: schedule === null ? null : actions.checkSchedule(schedule) }
      const done = await actions.followDataset(wish)
      actions.scheduleChanged()
      return done
    })
  }
