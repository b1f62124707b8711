import {
  choosePublished,
  findGrant,
  mastersWith,
  type ResourceInfo,
  serveAllChosen,
  type serveChanges,
} from '../../store/index.ts'
import type { LineBatch } from '../../sync/index.ts'
import type { ServerDeps } from '../deps.ts'

type Link = Parameters<typeof serveChanges>[1]
type Direction = 'pull' | 'push'

/** Where records come from that are told, and what of them may be. */
export type EdenSource = {
  /** 0: nobody in particular is told. */
  readonly peerId: number
  readonly may: (direction: Direction, resource: string) => Promise<boolean>
  /** Whether all of a record may be told, with what is kept beside it. */
  readonly isWhole: (resource: string) => Promise<boolean>
  /** Whether every record of a resource may be told, and all of each. */
  readonly isOpen: (resource: string) => Promise<boolean>
  /** Some records as they are now, of those that may be told. */
  readonly chosen: (request: {
    readonly resource: string
    readonly ids: readonly string[]
    readonly filter?: string | undefined
    readonly deleted?: boolean
  }) => Promise<readonly LineBatch[]>
  /** Of some records those to which a record refers that matches a filter. */
  readonly mastersWith: (request: {
    readonly resource: ResourceInfo
    readonly column: string
    readonly filter: string
    readonly masters: readonly string[]
  }) => Promise<ReadonlySet<string>>
}

/** What a peer was granted. Asks for each grant once. */
export function grantedSource({ store, limits }: ServerDeps, link: Link): EdenSource {
  const grants = new Map<string, ReturnType<typeof findGrant>>()
  function grantOf(direction: Direction, resource: string): ReturnType<typeof findGrant> {
    const key = `${direction} ${resource}`
    const known = grants.get(key) ?? findGrant(store.db, link.peer.id, resource, direction)
    grants.set(key, known)
    return known
  }
  return {
    peerId: link.peer.id,
    may: async (direction, resource) => (await grantOf(direction, resource)) !== null,
    // Who may see some columns only is not told what stands beside them.
    isWhole: async (resource) => (await grantOf('pull', resource))?.columns === null,
    isOpen: async (resource) => {
      const grant = await grantOf('pull', resource)
      return grant !== null && grant.columns === null && grant.filter === null
    },
    chosen: (request) => serveAllChosen(store, link, request, limits),
    mastersWith: (request) => mastersWith(store, link, request),
  }
}

/** What is published, by resource with its filter: for everybody, and so without what is kept beside records, such as who made them. */
export function publishedSource(
  { store, limits }: ServerDeps,
  published: ReadonlyMap<string, string | undefined>,
): EdenSource {
  return {
    peerId: 0,
    may: async (direction, resource) => direction === 'pull' && published.has(resource),
    isWhole: async () => false,
    isOpen: async (resource) => published.has(resource) && published.get(resource) === undefined,
    chosen: ({ resource, ids }) => choosePublished(store, { resource, ids, filter: published.get(resource) }, limits),
    mastersWith: async () => new Set(),
  }
}
