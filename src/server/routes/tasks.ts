import { type Static, Type } from 'typebox'
import {
  checkLink,
  createTask,
  everyItem,
  findPeer,
  findTask,
  listTasks,
  ON_LEFT,
  RESULTS,
  removeTask,
  type Task,
  type TaskSettings,
  updateTask,
} from '../../store/index.ts'
import { type Json, policyInOurWords } from '../../sync/index.ts'
import type { ServerDeps } from '../deps.ts'
import { matchedRevision, revisionTag } from '../etag.ts'
import type { Routes } from '../exchange.ts'
import { checkRules } from '../link-check.ts'
import { warningsOf } from '../policy-check.ts'
import {
  answer,
  brakeLimits,
  brakeLimitsRead,
  closed,
  flag,
  ifMatch,
  linkRulesGiven,
  linkRulesRead,
  mode,
  nullable,
  pageOf,
  pageQuery,
  peerRef,
  recordId,
  resourceName,
  rowId,
  text,
  time,
  words,
} from '../schemas.ts'

const onLeft = words(ON_LEFT, { description: 'What becomes of a record here that left the filter of the peer.' })
const emptyGuard = flag('A run stops when the peer has no record any more of a resource that many are here of.')
const canary = nullable(recordId, {
  description: 'A record that must live at the peer; where it is missing or deleted, a run stops.',
})
const columnName = Type.String({ minLength: 1, maxLength: 63 })
const mapping = closed(
  {
    rename: Type.Optional(
      Type.Record(columnName, columnName, {
        description: 'Name at the peer → name here.',
        examples: [{ population: 'inhabitants' }],
      }),
    ),
    constant: Type.Optional(
      Type.Record(columnName, Type.Unsafe<Json>({ description: 'Any value.' }), {
        description: 'Columns with a fixed value: here when records come in, at the peer when they go out.',
        examples: [{ country: 'AT' }],
      }),
    ),
    omit: Type.Optional(
      Type.Array(columnName, { maxItems: 1_600, description: 'Columns that neither come in nor go out.' }),
    ),
  },
  { title: 'Mapping', description: 'How columns here and at the peer belong together.' },
)
const SCHEDULE =
  '`cron:` with five or six fields in UTC, `every:` with a number and s, m or h, `live`, or null for by hand only.'

const task = closed(
  {
    id: Type.Integer(),
    peer: text('Name of the peer.'),
    resource: resourceName,
    mode,
    ...linkRulesRead,
    ...brakeLimitsRead,
    emptyGuard,
    canary,
    onLeft,
    mapping,
    schedule: nullable(Type.String(), { description: SCHEDULE }),
    enabled: flag('Runs by itself.'),
    lastRun: nullable(
      closed({
        runId: rowId('Id of the run.'),
        at: time('When the run began.'),
        succeededAt: nullable(time('End of the last run that succeeded for this task; null when none ever did.')),
        result: words(RESULTS, { description: 'How it ended for this task, whatever became of others.' }),
        code: nullable(Type.String(), { description: 'Code of the error that ended it.' }),
        message: nullable(Type.String(), { description: 'The error in words.' }),
      }),
      { description: 'The last run that came to this task; null before the first.' },
    ),
    revision: Type.Integer({ description: 'Goes up with every change; the ETag.' }),
    createdAt: time('When it was made.'),
    warnings: Type.Optional(
      Type.Array(Type.String(), {
        description:
          'Only in the answer to making and changing: what is doubtful about this policy beside that of the peer.',
      }),
    ),
  },
  { title: 'Task', description: 'What is synced with a peer: one resource, how and when.' },
)

const settings = {
  ...linkRulesGiven,
  onLeft: Type.Optional(onLeft),
  ...brakeLimits,
  emptyGuard: Type.Optional(emptyGuard),
  canary: Type.Optional(canary),
  mapping: Type.Optional(
    nullable(mapping, { description: 'Parts that are given replace those of before; null takes the mapping away.' }),
  ),
  schedule: Type.Optional(
    nullable(Type.String({ minLength: 1, maxLength: 200 }), {
      description: SCHEDULE,
      examples: ['every:5m', 'cron:0 4 * * *', 'live'],
    }),
  ),
  enabled: Type.Optional(Type.Boolean()),
}
const force = Type.Optional(Type.Boolean({ description: 'Also with a policy that the one of the peer contradicts.' }))
const params = closed({ task: rowId('Id of the task.') })

/** /api/v1/tasks and /api/v1/schedules: what is synced with whom, how and when. */
export const taskRoutes =
  ({ store, actions }: ServerDeps): Routes =>
  async (app) => {
    const list = {
      operationId: 'listTasks',
      tags: ['tasks'],
      summary: 'List tasks',
      querystring: closed({
        ...pageQuery,
        peer: Type.Optional(peerRef),
        resource: Type.Optional(resourceName),
        mode: Type.Optional(mode),
        enabled: Type.Optional(Type.Boolean()),
      }),
      response: { 200: answer(pageOf(task, 'TaskPage')) },
    }
    app.get('/tasks', { schema: list, config: { access: 'viewer' } }, async (request) => {
      const { cursor, peer, ...query } = request.query
      const peerId = peer === undefined ? undefined : (await findPeer(store.db, peer)).id
      const { items, next } = await listTasks(store.db, { ...query, peerId, before: cursor })
      return { items: items.map(view), next }
    })

    const add = {
      operationId: 'addTask',
      tags: ['tasks'],
      summary: 'Make a task',
      body: closed({ peer: peerRef, resource: resourceName, mode, ...settings, force }),
      response: { 201: answer(task) },
    }
    app.post('/tasks', { schema: add, config: { access: 'administrator' } }, async (request, reply) => {
      const { peer, resource, mode, force, ...rest } = request.body
      const { id: peerId, ...known } = await findPeer(store.db, peer)
      const rules = policyInOurWords(rest, known.uuid)
      await checkTask(resource, mode, rules)
      const warnings = await warningsOf(actions, { ...known, resource, mode, force }, checkLink(rules))
      const made = await createTask(store.db, { ...scheduled(rules), peerId, resource, mode })
      actions.scheduleChanged()
      reply.code(201).headers({ etag: revisionTag(made), location: `/api/v1/tasks/${made.id}` })
      return { ...view(made), warnings }
    })

    const read = {
      operationId: 'readTask',
      tags: ['tasks'],
      summary: 'Read a task',
      params,
      response: { 200: answer(task) },
    }
    app.get('/tasks/:task', { schema: read, config: { access: 'viewer' } }, async (request, reply) => {
      const found = await findTask(store.db, request.params.task)
      reply.header('etag', revisionTag(found))
      return view(found)
    })

    const change = {
      operationId: 'changeTask',
      tags: ['tasks'],
      summary: 'Change a task',
      description: 'Absent settings stay as they are.',
      params,
      headers: ifMatch,
      body: closed({ mode: Type.Optional(mode), ...settings, force }),
      response: { 200: answer(task) },
    }
    app.patch('/tasks/:task', { schema: change, config: { access: 'administrator' } }, async (request, reply) => {
      const before = await findTask(store.db, request.params.task)
      const { url, uuid } = await findPeer(store.db, before.peer)
      const { force, ...given } = request.body
      const changes = policyInOurWords(given, uuid)
      const { mode = before.mode, filter = before.filter, columns = before.columns, fields = {} } = changes
      await checkTask(before.resource, mode, { filter, columns, fields })
      const revision = matchedRevision(request.headers['if-match'])
      const settles = [changes.onConflict, changes.master, changes.fields, changes.mode].some(
        (each) => each !== undefined,
      )
      const planned = { name: before.peer, url, resource: before.resource, mode, force }
      const warnings = settles ? await warningsOf(actions, planned, checkLink(changes, before)) : []
      const changed = await updateTask(store.db, before.id, scheduled(changes), revision)
      actions.scheduleChanged()
      reply.header('etag', revisionTag(changed))
      return { ...view(changed), warnings }
    })

    const remove = {
      operationId: 'removeTask',
      tags: ['tasks'],
      summary: 'Remove a task',
      description: 'Also forgets how far it had come. The records stay.',
      params,
      headers: ifMatch,
      'x-answers': { 204: { description: 'Removed.' } },
    }
    app.delete('/tasks/:task', { schema: remove, config: { access: 'administrator' } }, async (request, reply) => {
      const { id } = await findTask(store.db, request.params.task)
      await removeTask(store.db, id, matchedRevision(request.headers['if-match']))
      actions.scheduleChanged()
      return reply.code(204).send()
    })

    const due = closed(
      {
        taskId: Type.Integer(),
        peer: text('Name of the peer.'),
        resource: resourceName,
        schedule: Type.String({ description: SCHEDULE }),
        at: nullable(time('When it is due next; null when nothing is planned.')),
      },
      { title: 'DueTask', description: 'A task that runs by itself.' },
    )
    const schedules = {
      operationId: 'listSchedules',
      tags: ['tasks'],
      summary: 'List what is due when',
      description: 'Tasks that run by themselves, the next one first.',
      response: { 200: answer(pageOf(due, 'SchedulePage')) },
    }
    app.get('/schedules', { schema: schedules, config: { access: 'viewer' } }, async () => {
      const at = new Map(actions.nextRuns().map((next) => [next.taskId, next.at]))
      const tasks = await everyItem((page) => listTasks(store.db, { ...page, enabled: true }))
      const items = tasks.flatMap(({ id, peer, resource, schedule }) =>
        schedule === null ? [] : [{ taskId: id, peer, resource, schedule, at: at.get(id) ?? null }],
      )
      const last = '9999'
      return { items: items.sort((a, b) => ((a.at ?? last) < (b.at ?? last) ? -1 : 1)), next: null }
    })

    function scheduled<T extends TaskSettings>(settings: T): T {
      const { schedule } = settings
      return schedule == null ? settings : { ...settings, schedule: actions.checkSchedule(schedule) }
    }

    /** What we send, we choose; what we pull, the peer chooses for us, and it may have columns that we have not. */
    function checkTask(resource: string, mode: Task['mode'], rules: TaskSettings): Promise<void> {
      return checkRules(store, resource, rules, mode === 'pull' ? 'there' : 'here')
    }
  }

function view({ peerId: _, columns, ...rest }: Task): Static<typeof task> {
  const { rename, constant, omit } = rest.mapping
  const mapping = { rename: { ...rename }, constant: { ...constant }, omit: [...omit] }
  return { ...rest, mapping, columns: columns === null ? null : [...columns] }
}
