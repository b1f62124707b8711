import { peerSchemas, type ResourceInfo, type Store, sentColumns, type Task } from '../store/index.ts'
import {
  batchHere,
  batchThere,
  filterThere,
  isMapped,
  type Json,
  nameHere,
  nameThere,
  type SchemaColumn,
} from '../sync/index.ts'
import type { PeerClient } from './peer-client.ts'

/**
 * A client that speaks of columns by their names here and lets the peer hear its own: requests, answers and batches are renamed on the way, and
 * constants join what goes out. `theirs` are the columns of the peer, where it told them: a constant that it has no column for is not sent.
 */
function mappedClient(
  client: PeerClient,
  tasks: readonly Task[],
  theirs: ReadonlyMap<string, readonly SchemaColumn[]>,
): PeerClient {
  const mapped = new Map(tasks.filter(({ mapping }) => isMapped(mapping)).map((task) => [task.resource, task]))
  if (mapped.size === 0) return client
  const asked = <Q extends { readonly resource: string; readonly filter?: string | null | undefined }>(query: Q): Q => {
    const task = mapped.get(query.resource)
    if (task === undefined) return query
    const { mapping, columns } = task
    return {
      ...query,
      filter: query.filter == null ? query.filter : filterThere(mapping, query.filter),
      columns: columns?.map((name) => nameThere(mapping, name)) ?? null,
    }
  }
  const here = (resource: string) => {
    const mapping = mapped.get(resource)?.mapping
    return <B extends Parameters<typeof batchHere>[1]>(batch: B) =>
      mapping === undefined ? batch : batchHere(mapping, batch)
  }
  return {
    ...client,
    pull: async (query) => {
      const mapping = mapped.get(query.resource)?.mapping
      if (mapping === undefined) return client.pull(query)
      const refs = Object.fromEntries(
        Object.entries(query.refs ?? {}).map(([name, target]) => [nameThere(mapping, name), target]),
      )
      const pulled = await client.pull({ ...asked(query), refs })
      return { ...pulled, batches: pulled.batches.map(here(query.resource)) }
    },
    pullChosen: async (query) => {
      const chosen = await client.pullChosen(asked(query))
      return { ...chosen, batches: chosen.batches.map(here(query.resource)) }
    },
    pullForRepair: async (query) => (await client.pullForRepair(asked(query))).map(here(query.resource)),
    push: (batch, signal, options) => {
      const task = mapped.get(batch.resource)
      const sent =
        task === undefined ? batch : batchThere(task.mapping, batch, constantsOut(task, theirs.get(batch.resource)))
      return client.push(sent, signal, options)
    },
    digests: (resource, query, signal) => {
      const mapping = mapped.get(resource)?.mapping
      const filter = query.filter
      if (mapping === undefined || filter === undefined) return client.digests(resource, query, signal)
      return client.digests(resource, { ...query, filter: filterThere(mapping, filter) }, signal)
    },
    compare: (resource, body, signal) => {
      const mapping = mapped.get(resource)?.mapping
      if (mapping === undefined || typeof body.filter !== 'string') return client.compare(resource, body, signal)
      return client.compare(resource, { ...body, filter: filterThere(mapping, body.filter) }, signal)
    },
  }
}

/** A client and tasks that speak of columns by their names here, whatever the peer calls them. */
export async function mappedLink(
  { db }: Pick<Store, 'db'>,
  peerId: number,
  client: PeerClient,
  tasks: readonly Task[],
  resources: readonly ResourceInfo[],
): Promise<{ readonly client: PeerClient; readonly tasks: readonly Task[] }> {
  if (!tasks.some(({ mapping }) => isMapped(mapping))) return { client, tasks }
  const theirs = new Map([...(await peerSchemas(db, peerId))].map(([name, { columns }]) => [name, columns]))
  const infoOf = ({ resource }: Task) => resources.find(({ name }) => name === resource)
  return { client: mappedClient(client, tasks, theirs), tasks: tasks.map((task) => sendingTask(task, infoOf(task))) }
}

/** Values that go out in every record, by name at the peer. */
function constantsOut({ mapping }: Task, theirs: readonly SchemaColumn[] | undefined): Readonly<Record<string, Json>> {
  const taken = Object.entries(mapping.constant).filter(
    ([name]) => theirs === undefined || theirs.some((column) => column.name === name),
  )
  return Object.fromEntries(taken)
}

/** A task as it sends: without the columns that are left out, have a fixed value at the peer, or share their name with another one there. */
function sendingTask(task: Task, resource: ResourceInfo | undefined): Task {
  const { mapping } = task
  if (resource === undefined || !isMapped(mapping)) return task
  const sent = sentColumns(resource, task.columns).map(({ name }) => name)
  const kept = sent.filter(
    (name) =>
      !mapping.omit.includes(name) &&
      !mapping.omit.includes(nameThere(mapping, name)) &&
      !Object.hasOwn(mapping.constant, name) &&
      (nameHere(mapping, name) === name || nameThere(mapping, name) !== name),
  )
  return kept.length === sent.length ? task : { ...task, columns: kept }
}
