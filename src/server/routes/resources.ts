import { PassThrough } from 'node:stream'
import { type Static, Type } from 'typebox'
import {
  type AttachOptions,
  type AttachProgress,
  attach,
  checkResources,
  createManaged,
  detach,
  findResource,
  finishRun,
  isoTime,
  loadResources,
  type ResourceCheck,
  type ResourceInfo,
  readRun,
  readSelf,
  redrive,
  setRunState,
  startRun,
} from '../../store/index.ts'
import { type Json, SynclineError } from '../../sync/index.ts'
import type { ServerDeps } from '../deps.ts'
import { checkMatch } from '../etag.ts'
import type { Routes } from '../exchange.ts'
import { problemOf, toSynclineError } from '../problem.ts'
import {
  answer,
  anyJson,
  closed,
  count,
  flag,
  ifMatch,
  nullable,
  pageOf,
  pageQuery,
  problem,
  resourceName,
  rowId,
  text,
  time,
  words,
} from '../schemas.ts'

const column = closed(
  {
    name: Type.String(),
    type: text('As PostgreSQL calls it.'),
    notNull: Type.Boolean(),
    sent: flag('It travels; local keys and generated columns stay on their site.'),
    refersTo: nullable(Type.String(), { description: 'Resource that a reference column refers to.' }),
  },
  { title: 'Column', description: 'A column of a resource.' },
)
const resource = closed(
  {
    id: Type.Integer(),
    name: resourceName,
    table: text('Schema and table.'),
    key: text('Identity column.'),
    columns: Type.Array(column),
    fingerprint: text('Changes with any column that travels.'),
    managed: flag('Syncline made the table.'),
    addedUuid: flag('Syncline added the identity column.'),
    ready: flag('All rows that were there before are registered.'),
    attachedAt: time('When it was attached.'),
  },
  { title: 'Resource', description: 'A table whose rows are synced as records.' },
)
const check = closed(
  {
    resource: resourceName,
    faults: Type.Array(Type.String(), { description: 'What is wrong; empty when all is well.' }),
    mends: Type.Optional(Type.Array(Type.String(), { description: 'The commands that mend what is wrong.' })),
    warnings: Type.Optional(
      Type.Array(Type.String(), { description: 'What works, and an owner of the table could still improve.' }),
    ),
  },
  { title: 'ResourceCheck', description: 'A resource compared with its table as it is now.' },
)
const operation = closed(
  {
    id: Type.String(),
    state: words(['running', 'done', 'failed']),
    doing: text('What is being done.'),
    done: count('Steps done, mostly rows.'),
    total: count('Steps expected; an estimate.'),
    resources: Type.Array(Type.String(), { description: 'What came of it.' }),
    code: nullable(Type.String(), { description: 'Why it failed.' }),
    detail: nullable(Type.String(), { description: 'Why it failed, in words.' }),
  },
  { title: 'Operation', description: 'Work that takes longer than a request.' },
)
const attached = closed(
  { resources: Type.Array(resource) },
  { title: 'AttachedResources', description: 'The resources that came to be.' },
)
const step = closed(
  {
    resource: resourceName,
    doing: text('What is being done.'),
    done: count('Rows done.'),
    total: count('Rows expected.'),
  },
  { title: 'AttachStep', description: 'How far an attach is.' },
)
const failed = closed({ problem }, { title: 'AttachFailure', description: 'Why an attach ended early.' })
const params = closed({ resource: resourceName })
const ATTACH = 'attach'

/** /api/v1/resources, /api/v1/checks and /api/v1/operations: tables that are synced. */
export const resourceRoutes =
  ({ store, observe, limits }: ServerDeps): Routes =>
  async (app) => {
    const list = {
      operationId: 'listResources',
      tags: ['resources'],
      summary: 'List resources',
      querystring: closed({ ...pageQuery, managed: Type.Optional(Type.Boolean()) }),
      response: { 200: answer(pageOf(resource, 'ResourcePage')) },
    }
    app.get('/resources', { schema: list, config: { access: 'viewer' } }, async (request) => {
      const { cursor, limit = 100, managed } = request.query
      const before = cursor === undefined ? Number.POSITIVE_INFINITY : Number(cursor)
      if (Number.isNaN(before))
        throw new SynclineError('SYNC_REQUEST_INVALID', `the cursor "${cursor}" was not given out by this list`)
      const all = (await loadResources(store.db))
        .filter(({ id }) => id < before)
        .filter((each) => managed === undefined || each.managed === managed)
        .sort((a, b) => b.id - a.id)
      const items = all.slice(0, limit)
      return { items: items.map(view), next: all.length > limit ? String(items.at(-1)?.id) : null }
    })

    const post = {
      operationId: 'attachResources',
      tags: ['resources'],
      summary: 'Attach tables',
      description:
        'Begins capture on existing tables; those that refer to each other go together. Large tables take long: the answer is an operation to ask for. With `Prefer: wait` it comes when all is done, with `Accept: application/x-ndjson` as lines of progress with the outcome last.',
      headers: Type.Object({
        prefer: Type.Optional(Type.String({ description: '`wait` answers when it is done.' })),
        accept: Type.Optional(Type.String()),
      }),
      body: closed({
        tables: Type.Array(
          closed({
            table: Type.String({
              minLength: 1,
              maxLength: 130,
              description: '`schema.table` or `table`.',
              examples: ['public.hospital'],
            }),
            name: Type.Optional(
              Type.String({
                minLength: 1,
                maxLength: 63,
                description: 'Of the resource; the table’s name when absent.',
              }),
            ),
            key: Type.Optional(
              Type.String({ minLength: 1, maxLength: 63, description: 'Identity column; chosen when absent.' }),
            ),
            addUuid: Type.Optional(
              Type.Boolean({ description: 'Adds a unique uuid column when there is no usable identity.' }),
            ),
          }),
          { minItems: 1, maxItems: 200 },
        ),
      }),
      response: { 201: answer(attached), 202: answer(operation) },
      'x-answers': {
        200: {
          description: 'Lines of progress; the last one has the outcome.',
          content: { 'application/x-ndjson': Type.Union([step, attached, failed], { title: 'AttachLine' }) },
        },
      },
    }
    app.post(
      '/resources',
      { schema: post, config: { access: 'administrator', endless: true } },
      async (request, reply) => {
        const { tables } = request.body
        if (/\bapplication\/x-ndjson\b/.test(request.headers.accept ?? '')) {
          const lines = new PassThrough()
          const say = (line: unknown) => void (lines.destroyed || lines.write(`${JSON.stringify(line)}\n`))
          attachTables(tables, say)
            .then(
              (resources) => say({ resources: resources.map(view) }),
              (error: unknown) => {
                const known = toSynclineError(error)
                if (known === undefined)
                  observe.events.internalError({ where: ATTACH, err: error, requestId: request.id })
                say({ problem: problemOf(known, request) })
              },
            )
            .finally(() => lines.end())
          return reply.type('application/x-ndjson').send(lines as never)
        }
        if (/\bwait\b/.test(request.headers.prefer ?? '')) {
          return reply.code(201).send({ resources: (await attachTables(tables)).map(view) })
        }
        const { id } = await startRun(store.db, { cause: ATTACH, state: 'preparing' })
        void attachInBackground(id, tables)
        return reply
          .code(202)
          .header('location', `/api/v1/operations/${id}`)
          .send(await operationOf(id))
      },
    )

    async function attachTables(
      tables: readonly AttachOptions[],
      progress: AttachProgress = () => {},
    ): Promise<readonly ResourceInfo[]> {
      const began = performance.now()
      const rows = new Map<string, number>()
      const resources = await attach(store, tables, (step) => {
        rows.set(step.resource, step.done)
        progress(step)
      })
      const durationMs = Math.round(performance.now() - began)
      for (const { name, tableSchema, tableName } of resources) {
        observe.events.resourceAttached({
          resource: name,
          table: `${tableSchema}.${tableName}`,
          rows: rows.get(name) ?? 0,
          durationMs,
        })
      }
      // What waited for the tables to be as they are now.
      await redrive(store, await readSelf(store.db), null, limits)
      return resources
    }

    /** The run keeps the state in the database: any process of this site can be asked. */
    async function attachInBackground(id: string, tables: readonly AttachOptions[]): Promise<void> {
      let told: Promise<unknown> = Promise.resolve()
      const tell = ({ resource, doing, done, total }: Parameters<AttachProgress>[0]) => {
        told = told.then(() => setRunState(store.db, id, `${resource}: ${doing}`, { done, total })).catch(() => {})
      }
      try {
        const resources = await attachTables(tables, tell)
        await told
        await finishRun(store.db, id, { result: 'success', message: JSON.stringify(resources.map(({ name }) => name)) })
      } catch (error) {
        await told
        const known = toSynclineError(error)
        if (known === undefined) observe.events.internalError({ where: ATTACH, err: error, runId: id })
        const failure = { code: known?.code ?? 'SYNC_INTERNAL', message: known?.message ?? 'internal error' }
        await finishRun(store.db, id, { result: 'error', ...failure }).catch(() => {})
      }
    }

    const progress = {
      operationId: 'readOperation',
      tags: ['operations'],
      summary: 'Ask how far an operation is',
      params: closed({ operation: rowId('Id of the operation.') }),
      response: { 200: answer(operation) },
    }
    app.get('/operations/:operation', { schema: progress, config: { access: 'viewer' } }, async (request) =>
      operationOf(request.params.operation),
    )

    async function operationOf(id: string): Promise<Static<typeof operation>> {
      const run = await readRun(store.db, id)
      if (run.cause !== ATTACH) throw new SynclineError('SYNC_REQUEST_NOT_FOUND', `there is no operation ${id}`)
      const state = run.result === null ? 'running' : run.result === 'success' ? 'done' : 'failed'
      return {
        ...{ id, state, doing: run.state, done: run.counts.done ?? 0, total: run.counts.total ?? 0 },
        resources: state === 'done' ? (JSON.parse(run.message ?? '[]') as string[]) : [],
        code: run.code,
        detail: state === 'failed' ? run.message : null,
      }
    }

    const managed = {
      operationId: 'createResource',
      tags: ['resources'],
      summary: 'Make a resource',
      description:
        'For sites without an application database: makes a table from a JSON Schema and attaches it. `id` is the identity, text when it is described as a string, else a uuid. A reference is `{"type":"string","x-ref":"country"}`.',
      body: closed({
        name: Type.String({ minLength: 1, maxLength: 58, description: 'Of the resource.', examples: ['city'] }),
        schema: Type.Record(Type.String(), anyJson('Keyword'), {
          description: 'JSON Schema of one record.',
          examples: [{ type: 'object', properties: { name: { type: 'string' } }, required: ['name'] }],
        }),
      }),
      response: { 201: answer(resource) },
    }
    app.post('/resources/managed', { schema: managed, config: { access: 'administrator' } }, async (request, reply) => {
      const { name, schema } = request.body
      const made = await createManaged(store, { name, schema: schema as Json })
      reply.code(201).headers({ etag: tagOf(made), location: `/api/v1/resources/${made.name}` })
      return view(made)
    })

    const read = {
      operationId: 'readResource',
      tags: ['resources'],
      summary: 'Read a resource',
      params,
      response: { 200: answer(resource) },
    }
    app.get('/resources/:resource', { schema: read, config: { access: 'viewer' } }, async (request, reply) => {
      const found = await findResource(store.db, request.params.resource)
      reply.header('etag', tagOf(found))
      return view(found)
    })

    const remove = {
      operationId: 'detachResource',
      tags: ['resources'],
      summary: 'Detach a resource',
      description:
        'Ends capture and leaves the table as it was before it was attached. Tasks for it must be removed first.',
      params,
      headers: ifMatch,
      'x-answers': { 204: { description: 'Detached.' } },
    }
    app.delete(
      '/resources/:resource',
      { schema: remove, config: { access: 'administrator' } },
      async (request, reply) => {
        const found = await findResource(store.db, request.params.resource)
        checkMatch(request.headers['if-match'], tagOf(found), `resource "${found.name}"`)
        await detach(store, found.name)
        observe.events.resourceDetached({ resource: found.name, table: `${found.tableSchema}.${found.tableName}` })
        return reply.code(204).send()
      },
    )

    const checkOne = {
      operationId: 'checkResource',
      tags: ['resources'],
      summary: 'Check a resource',
      description: 'Compares triggers, columns and registration with the table as it is now.',
      params,
      response: { 200: answer(check) },
    }
    app.get('/resources/:resource/check', { schema: checkOne, config: { access: 'viewer' } }, async (request) => {
      const { name } = await findResource(store.db, request.params.resource)
      const [found] = await checkResources(store.db, name)
      return tell(found ?? { resource: name, faults: [] })
    })

    const checkAll = {
      operationId: 'checkResources',
      tags: ['resources'],
      summary: 'Check every resource',
      response: { 200: answer(pageOf(check, 'ResourceCheckPage')) },
    }
    app.get('/checks', { schema: checkAll, config: { access: 'viewer' } }, async () => ({
      items: (await checkResources(store.db)).map(tell),
      next: null,
    }))

    function tell({ resource, faults, mends, warnings }: ResourceCheck): Static<typeof check> {
      for (const problem of faults) observe.events.captureBroken({ resource, problem })
      return {
        resource,
        faults: [...faults],
        ...(mends !== undefined && { mends: [...mends] }),
        ...(warnings !== undefined && { warnings: [...warnings] }),
      }
    }
  }

function tagOf({ id, fingerprint }: ResourceInfo): string {
  return `"${id}-${fingerprint}"`
}

function view(info: ResourceInfo): Static<typeof resource> {
  const { id, name, keyColumn: key, fingerprint, managed, addedUuid, ready, attachedAt } = info
  return {
    ...{ id, name, table: `${info.tableSchema}.${info.tableName}`, key },
    columns: info.columns.map((each) => ({
      name: each.name,
      type: each.typeName,
      notNull: each.notNull,
      sent: each.sent,
      refersTo: info.references.find((reference) => reference.column.name === each.name)?.resource ?? null,
    })),
    ...{ fingerprint, managed, addedUuid, ready, attachedAt: isoTime(attachedAt) },
  }
}

export { resource, view as resourceView }
