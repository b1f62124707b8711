import {
  appendLog,
  getSetting,
  notePeerSchema,
  type Peer,
  type PeerSchema,
  peerSchemas,
  type ResourceInfo,
  type Store,
  setSetting,
  skewText,
  type Task,
  toldSchema,
} from '../store/index.ts'
import { compareSchemas, isJsonObject, type SchemaColumn, type Skew } from '../sync/index.ts'
import type { OfferedResource } from './answers.ts'
import type { PeerClient } from './peer-client.ts'

type About = {
  readonly store: Store
  readonly client: PeerClient
  readonly peer: Peer
  readonly runId: string | null
  readonly tasks: ReadonlyMap<string, Task>
  readonly resources: ReadonlyMap<string, ResourceInfo>
  readonly signal: AbortSignal
}

/**
 * Learns the columns of the peer where they changed, tells it ours where it does not know them, and compares both for every task. What differs
 * stands in the log once, until it differs otherwise. A site that tells nothing of its columns is no fault.
 */
export async function exchangeSchemas(
  about: About,
  offered: readonly OfferedResource[],
): Promise<ReadonlyMap<string, Skew>> {
  const { store, client, peer, tasks, resources, signal } = about
  const known = await peerSchemas(store.db, peer.id)
  const skews = new Map<string, Skew>()
  for (const { name, fingerprint, yours } of offered) {
    const [task, resource] = [tasks.get(name), resources.get(name)]
    // A site of another make, or an earlier program, says nothing of `yours`.
    if (task === undefined || resource === undefined || yours === undefined || fingerprint === null) continue
    const before = known.get(name)
    const theirs = before?.fingerprint === fingerprint ? before : await learn(about, name)
    if (yours !== resource.fingerprint) {
      const told = { fingerprint: resource.fingerprint, columns: toldSchema(resource, task.columns) }
      await client.tellSchema(name, told, signal)
    }
    const { mode, mapping, columns } = task
    const ours = toldSchema(resource, null)
    const schemas = { peer: peer.name, resource: name, mode, mapping, columns, ours, theirs: theirs.columns }
    skews.set(name, compareSchemas(schemas))
    await noteSkew(about, name, mode, skewText(schemas, 0))
  }
  return skews
}

/** How columns differ as far as both sites have told each other, for tasks that are only tried. */
export async function knownSkews(
  store: Store,
  peer: Peer,
  tasks: readonly Task[],
  resources: readonly ResourceInfo[],
): Promise<ReadonlyMap<string, Skew>> {
  const known = await peerSchemas(store.db, peer.id)
  return new Map(
    tasks.flatMap(({ resource: name, mode, mapping, columns }) => {
      const [resource, theirs] = [resources.find((each) => each.name === name), known.get(name)]
      if (resource === undefined || theirs === undefined) return []
      const ours = toldSchema(resource, null)
      return [
        [
          name,
          compareSchemas({ peer: peer.name, resource: name, mode, mapping, columns, ours, theirs: theirs.columns }),
        ] as const,
      ]
    }),
  )
}

async function learn({ store, client, peer, signal }: About, resource: string): Promise<PeerSchema> {
  const answer = await client.readSchema(resource, signal)
  const columns = Array.isArray(answer.columns) ? answer.columns.flatMap(columnOf) : []
  const schema = { fingerprint: String(answer.fingerprint), columns }
  await notePeerSchema(store.db, peer.id, resource, schema)
  return schema
}

function columnOf(value: unknown): readonly SchemaColumn[] {
  if (!isJsonObject(value) || typeof value.name !== 'string' || typeof value.type !== 'string') return []
  return [
    { name: value.name, type: value.type, nullable: value.nullable === true, hasDefault: value.hasDefault === true },
  ]
}

async function noteSkew(
  { store, peer, runId }: About,
  resource: string,
  mode: string,
  notes: readonly string[],
): Promise<void> {
  const name = `skew:${peer.id}:${resource}`
  const text = notes.join('; ')
  if (((await getSetting(store.db, name)) ?? '') === text) return
  await setSetting(store.db, name, text)
  await appendLog(store.db, {
    peer,
    ...{ runId, resource, mode, direction: 'none', action: 'compare schema' },
    result: text === '' ? 'success' : 'warning',
    message: text === '' ? 'both sites have the same columns again' : text,
  })
}
