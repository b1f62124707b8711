import type { Grant, Peer, Task } from '../store/index.ts'
import { type FolderSettings, folderSettings } from '../sync/index.ts'
import type { Api, Page } from './api.ts'
import { path } from './api.ts'
import type { JobView } from './job-lights.ts'
import type { Resource } from './resource.ts'
import type { Given } from './setup-file.ts'

/** What a site keeps of its set-up. */
export type State = {
  readonly resources: readonly Resource[]
  readonly peers: readonly (Peer & { readonly grants: readonly Grant[]; readonly folder: FolderSettings | null })[]
  readonly tasks: readonly Task[]
  readonly jobs: readonly JobView[]
}

const RULES = { filter: null, columns: null, onConflict: 'newer', master: null, fields: {} }
const LIMITS = { maxDeletes: null, maxChanges: null }
/** What each has that nobody set otherwise: not written by an export, and meant where a file says nothing. */
export const USUAL: Readonly<Record<'grant' | 'task' | 'peer', Given>> = {
  grant: { ...RULES, ...LIMITS },
  task: {
    ...{ ...RULES, onLeft: 'keep', ...LIMITS, emptyGuard: true, canary: null },
    ...{ mapping: { rename: {}, constant: {}, omit: [] }, schedule: null, enabled: true },
  },
  peer: { url: null, proxyUrl: null, caPem: null, clientCertPem: null, paused: false },
}

export async function readState(api: Api): Promise<State> {
  const [resources, peers, tasks, jobs] = await Promise.all([
    api.all<Resource>('/resources'),
    api.all<Peer>('/peers'),
    api.all<Task>('/tasks'),
    api.all<JobView>('/jobs'),
  ])
  const granted = peers.map(async (peer) => {
    const { items } = await api.get<Page<Grant>>(path`/peers/${peer.name}/grants`)
    const folder = peer.kind === 'folder' ? await api.get<FolderSettings>(path`/peers/${peer.name}/folder`) : null
    return { ...peer, grants: items, folder }
  })
  return { resources, peers: await Promise.all(granted), tasks, jobs }
}

/** Of what is there only what is not as usual, in the order of `usual`. */
export function unusual(found: object, usual: Given): Given {
  const values = found as Given
  return Object.fromEntries(
    Object.keys(usual).flatMap((name) =>
      name in values && !same(values[name], usual[name]) ? [[name, values[name]]] : [],
    ),
  )
}

/** The whole set-up as a file has it. Secrets are nowhere to be read, so they are not in it. */
export function setupOf({ resources, peers, tasks, jobs }: State): Given {
  const byName = <T extends { readonly name: string }>(list: readonly T[]) =>
    list.toSorted((a, b) => (a.name < b.name ? -1 : 1))
  return {
    // Parents before what refers to them: the order in which they were attached.
    resources: resources
      .toSorted((a, b) => a.id - b.id)
      .map(({ name, table, key, managed }) => (managed ? { name, managed } : { name, table, key })),
    peers: byName(peers).map((peer) => ({
      ...{ name: peer.name, uuid: peer.uuid, ...(peer.kind !== 'syncline' && { kind: peer.kind }) },
      ...unusual(peer.folder === null ? peer : { ...peer, url: null }, USUAL.peer),
      ...(peer.folder !== null && {
        folder: { path: peer.folder.path, ...unusual(peer.folder, folderSettings({ path: peer.folder.path })) },
      }),
      ...(peer.grants.length > 0 && { grants: grantsOf(peer.grants) }),
    })),
    tasks: tasks
      .toSorted((a, b) => (a.peer === b.peer ? (a.resource < b.resource ? -1 : 1) : a.peer < b.peer ? -1 : 1))
      .map((task) => ({ peer: task.peer, resource: task.resource, mode: task.mode, ...unusual(task, USUAL.task) })),
    jobs: byName(jobs).map(({ definition }) => definition),
  }
}

function grantsOf(grants: readonly Grant[]): Given {
  const of = (wanted: string) => {
    const some = grants
      .filter(({ direction }) => direction === wanted)
      .toSorted((a, b) => (a.resource < b.resource ? -1 : 1))
    return some.length === 0
      ? {}
      : { [wanted]: Object.fromEntries(some.map((grant) => [grant.resource, unusual(grant, USUAL.grant)])) }
  }
  return { ...of('pull'), ...of('push') }
}

/** Equal as JSON, whatever the order of members; what is absent is no member. */
export function same(a: unknown, b: unknown): boolean {
  return stable(a) === stable(b)
}

function stable(value: unknown): string {
  return JSON.stringify(value, (_, each: unknown) =>
    typeof each === 'object' && each !== null && !Array.isArray(each)
      ? Object.fromEntries(Object.entries(each).sort(([x], [y]) => (x < y ? -1 : 1)))
      : each,
  )
}
