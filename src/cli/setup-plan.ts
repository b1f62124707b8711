import { readFile } from 'node:fs/promises'
import { folderFaults, folderSettings } from '../sync/index.ts'
import { type Api, path } from './api.ts'
import { type Fault, invalid } from './job-file.ts'
import type { Given, GivenGrants, GivenPeer, GivenResource, GivenTask, Setup } from './setup-file.ts'
import { type State, same, USUAL } from './setup-state.ts'

/** One thing that a site has, or is to have. `leave` is there and not in the file, and stays unless somebody says otherwise. */
export type Step = {
  readonly what: 'resource' | 'peer' | 'grant' | 'task'
  readonly name: string
  readonly does: 'add' | 'change' | 'remove' | 'keep' | 'leave'
  /** Settings that change. */
  readonly changes: readonly string[]
  readonly perform: (api: Api) => Promise<unknown>
}

export type SetupPlan = { readonly steps: readonly Step[]; readonly faults: readonly Fault[] }

const nothing = async () => {}

/**
 * What makes a site what a set-up says, in an order in which each finds what it needs. Grants and tasks that are not in it go; resources and peers, with
 * which data would go, only with `prune`. Faults are what can be seen without asking the site to do it.
 */
export function planSetup(setup: Setup, state: State, prune: boolean): SetupPlan {
  const faults: Fault[] = []
  const resources = setup.resources === undefined ? [] : resourceSteps(setup.resources, state, prune, faults)
  const peers = setup.peers === undefined ? [] : peerSteps(setup.peers, state, prune, faults)
  const known = {
    resources: new Set([...state.resources, ...(setup.resources ?? [])].map(({ name }) => name)),
    peers: new Set([...state.peers, ...(setup.peers ?? [])].map(({ name }) => name)),
  }
  const grants = (setup.peers ?? []).flatMap((peer, at) => grantSteps(peer, at, state, known.resources, faults))
  const tasks = setup.tasks === undefined ? [] : taskSteps(setup.tasks, state, known, faults)
  const gone = (list: readonly Step[]) => list.filter(({ does }) => does === 'remove')
  const stays = (list: readonly Step[]) => list.filter(({ does }) => does !== 'remove')
  return {
    faults,
    steps: [
      ...[...stays(resources), ...stays(peers), ...stays(grants), ...stays(tasks)],
      ...[...gone(tasks), ...gone(grants), ...gone(peers), ...gone(resources).toReversed()],
    ],
  }
}

function resourceSteps(
  given: readonly GivenResource[],
  state: State,
  prune: boolean,
  faults: Fault[],
): readonly Step[] {
  // Tables that refer to each other go together: the first of them takes the others along.
  const tables: Given[] = []
  const steps = given.map((each, at): Step => {
    const { name, table, key, addUuid, schema } = each
    const here = state.resources.find((resource) => resource.name === name)
    const step = { what: 'resource', name, changes: [], perform: nothing } as const
    if (here !== undefined) {
      const [was, is] = [here.table, table === undefined || table.includes('.') ? table : `public.${table}`]
      if (is !== undefined && is !== was)
        faults.push({ path: `/resources/${at}/table`, message: `is ${was} at the site; detach it first` })
      if (key !== undefined && key !== here.key)
        faults.push({ path: `/resources/${at}/key`, message: `is ${here.key} at the site; detach it first` })
      return { ...step, does: 'keep' }
    }
    if (table === undefined && schema === undefined)
      faults.push({
        path: `/resources/${at}`,
        message: 'is not at the site, and needs "table", or "schema" to be made',
      })
    const leads = table !== undefined && tables.length === 0
    if (table !== undefined) tables.push({ table, name, key, addUuid })
    const attach = (api: Api) =>
      api.open('POST', '/resources', { body: { tables }, patient: true, accept: 'application/x-ndjson' }).then(lastLine)
    const make = (api: Api) => api.send('POST', '/resources/managed', { body: { name, schema } })
    const perform = table === undefined ? make : leads ? attach : nothing
    return { ...step, does: 'add', perform }
  })
  return [...steps, ...left('resource', state.resources, given, prune, (name) => path`/resources/${name}`)]
}

/** An attach tells how far it is, line by line; the last one says whether it failed. */
async function lastLine(answer: Response): Promise<void> {
  const lines = (await answer.text()).trim().split('\n')
  const { problem } = JSON.parse(lines.at(-1) || '{}') as { problem?: { code?: string; detail?: string } }
  if (problem !== undefined) throw invalid([`${problem.detail ?? problem.code}`])
}

function peerSteps(given: readonly GivenPeer[], state: State, prune: boolean, faults: Fault[]): readonly Step[] {
  const steps = given.map((each, at): Step => {
    const { name, uuid, kind = 'syncline', tokenFile, grants: _, folder, ...rest } = each
    if (kind === 'folder' || folder !== undefined) return folderStep(each, `/peers/${at}`, state, faults)
    const wanted = { ...USUAL.peer, ...rest }
    const here = state.peers.find((peer) => peer.name === name)
    const { paused, ...settings } = wanted as Given & { readonly paused?: unknown }
    const pausing = async (api: Api, was: boolean) => {
      if (paused !== was)
        await api.send('POST', paused === true ? path`/peers/${name}/pause` : path`/peers/${name}/resume`)
    }
    if (here === undefined) {
      if (kind !== 'syncline')
        faults.push({ path: `/peers/${at}/kind`, message: `is registered by syncline peer add --type ${String(kind)}` })
      const perform = async (api: Api) => {
        await api.send('POST', '/peers', { body: { name, uuid, ...settings, ...(await secret(tokenFile)) } })
        await pausing(api, false)
      }
      return { what: 'peer', name, does: 'add', changes: [], perform }
    }
    if (uuid !== undefined && uuid !== here.uuid)
      faults.push({ path: `/peers/${at}/uuid`, message: `is ${here.uuid} at the site: another site is another peer` })
    if (kind !== here.kind) faults.push({ path: `/peers/${at}/kind`, message: `is ${here.kind} at the site` })
    const changes = [...differing(wanted, here), ...(tokenFile === undefined ? [] : ['token'])]
    const perform = async (api: Api) => {
      const body = { ...pick(settings, changes), ...(await secret(tokenFile)) }
      if (Object.keys(body).length > 0) await api.send('PATCH', path`/peers/${name}`, { body })
      await pausing(api, here.paused)
    }
    return { what: 'peer', name, does: changes.length === 0 ? 'keep' : 'change', changes, perform }
  })
  return [...steps, ...left('peer', state.peers, given, prune, (name) => path`/peers/${name}`)]
}

/** A folder has settings of its own, and nothing of a connection. */
function folderStep(given: GivenPeer, at: string, state: State, faults: Fault[]): Step {
  const { name, uuid, kind, folder = {}, paused = false, grants: _, ...rest } = given
  const here = state.peers.find((peer) => peer.name === name)
  for (const each of Object.keys(rest)) faults.push({ path: `${at}/${each}`, message: 'is nothing that a folder has' })
  if (kind !== 'folder') faults.push({ path: `${at}/kind`, message: 'must be folder where there are settings of one' })
  if (here !== undefined && here.kind !== 'folder')
    faults.push({ path: `${at}/kind`, message: `is ${here.kind} at the site` })
  if (here !== undefined && uuid !== undefined && uuid !== here.uuid)
    faults.push({ path: `${at}/uuid`, message: `is ${here.uuid} at the site: another folder is another peer` })
  const settings = folderSettings({ path: '', ...(folder as object) })
  const known = Object.keys(folderSettings({ path: '' }))
  for (const each of Object.keys(folder as object))
    if (!known.includes(each))
      faults.push({ path: `${at}/folder/${each}`, message: `is not known here; known are ${known.join(', ')}` })
  for (const { path: member, message } of folderFaults(settings))
    faults.push({ path: `${at}/folder/${member}`, message })
  const changes = [
    ...differing(settings as unknown as Given, here?.folder ?? {}),
    ...(paused === (here?.paused ?? false) ? [] : ['paused']),
  ]
  const perform = async (api: Api) => {
    const body = pick(settings as unknown as Given, changes)
    if (here === undefined) await api.send('POST', '/peers/folder', { body: { name, uuid, ...settings } })
    else if (Object.keys(body).length > 0) await api.send('PATCH', path`/peers/${name}/folder`, { body })
    if (paused !== (here?.paused ?? false))
      await api.send('POST', paused === true ? path`/peers/${name}/pause` : path`/peers/${name}/resume`)
  }
  if (here === undefined) return { what: 'peer', name, does: 'add', changes: [], perform }
  return { what: 'peer', name, does: changes.length === 0 ? 'keep' : 'change', changes, perform }
}

/** A token is in a file of its own, so that the set-up can be shown to anybody. */
async function secret(file: unknown): Promise<{ readonly token?: string }> {
  if (typeof file !== 'string') return {}
  const text = await readFile(file, 'utf8').catch((cause: Error) => {
    throw invalid([`${file}: ${cause.message}`])
  })
  return { token: text.trim() }
}

function grantSteps(
  { name: peer, grants }: GivenPeer,
  at: number,
  state: State,
  resources: ReadonlySet<string>,
  faults: Fault[],
): readonly Step[] {
  const here = state.peers.find(({ name }) => name === peer)?.grants ?? []
  const steps: Step[] = []
  for (const direction of ['pull', 'push'] as const) {
    const wanted = (grants as GivenGrants | undefined)?.[direction] ?? {}
    for (const [resource, rules] of Object.entries(wanted)) {
      if (!resources.has(resource))
        faults.push({
          path: `/peers/${at}/grants/${direction}/${resource}`,
          message: 'is no resource of the site or the file',
        })
      const found = here.find((grant) => grant.direction === direction && grant.resource === resource)
      const body = { ...USUAL.grant, ...rules }
      const changes = found === undefined ? [] : differing(body, found)
      const does = found === undefined ? 'add' : changes.length === 0 ? 'keep' : 'change'
      const perform = (api: Api) => api.send('PUT', path`/peers/${peer}/grants/${direction}/${resource}`, { body })
      steps.push({ what: 'grant', name: `${peer} ${direction} ${resource}`, does, changes, perform })
    }
    for (const { direction: way, resource } of here) {
      if (way !== direction || resource in wanted) continue
      const perform = (api: Api) => api.send('DELETE', path`/peers/${peer}/grants/${direction}/${resource}`)
      steps.push({ what: 'grant', name: `${peer} ${direction} ${resource}`, does: 'remove', changes: [], perform })
    }
  }
  return steps
}

function taskSteps(
  given: readonly GivenTask[],
  state: State,
  known: { readonly resources: ReadonlySet<string>; readonly peers: ReadonlySet<string> },
  faults: Fault[],
): readonly Step[] {
  const steps = given.map((each, at): Step => {
    const { peer, resource } = each
    if (!known.peers.has(peer))
      faults.push({ path: `/tasks/${at}/peer`, message: 'is no peer of the site or the file' })
    if (!known.resources.has(resource))
      faults.push({ path: `/tasks/${at}/resource`, message: 'is no resource of the site or the file' })
    const mapping = { rename: {}, constant: {}, omit: [], ...(each.mapping as Given | undefined) }
    const wanted = { ...USUAL.task, ...each, mapping }
    const here = state.tasks.find((task) => task.peer === peer && task.resource === resource)
    const name = `${peer} ${resource}`
    if (here === undefined)
      return {
        what: 'task',
        name,
        does: 'add',
        changes: [],
        perform: (api) => api.send('POST', '/tasks', { body: wanted }),
      }
    const changes = differing(wanted, here)
    const perform = (api: Api) => api.send('PATCH', path`/tasks/${here.id}`, { body: pick(wanted, changes) })
    return { what: 'task', name, does: changes.length === 0 ? 'keep' : 'change', changes, perform }
  })
  const gone = state.tasks.filter(
    (task) => !given.some(({ peer, resource }) => peer === task.peer && resource === task.resource),
  )
  const remove = ({ id, peer, resource }: (typeof gone)[number]): Step => ({
    ...{ what: 'task', name: `${peer} ${resource}`, does: 'remove', changes: [] },
    perform: (api) => api.send('DELETE', path`/tasks/${id}`),
  })
  return [...steps, ...gone.map(remove)]
}

/** What is there and not in the file. */
function left(
  what: 'resource' | 'peer',
  here: readonly { readonly name: string }[],
  given: readonly { readonly name: string }[],
  prune: boolean,
  pathOf: (name: string) => string,
): readonly Step[] {
  return here
    .filter(({ name }) => !given.some((each) => each.name === name))
    .map(({ name }) => ({
      ...{ what, name, changes: [] },
      does: prune ? 'remove' : 'leave',
      perform: prune ? (api) => api.send('DELETE', pathOf(name)) : nothing,
    }))
}

function differing(wanted: Given, here: object): readonly string[] {
  return Object.keys(wanted).filter((name) => !same(wanted[name] ?? null, (here as Given)[name] ?? null))
}

function pick(from: Given, names: readonly string[]): Given {
  return Object.fromEntries(names.filter((name) => name in from).map((name) => [name, from[name]]))
}
