import { type Static, Type } from 'typebox'
import { type FolderFile, findPeer, listFolderFiles, type Peer, readFolder } from '../../store/index.ts'
import { FOLDER_AFTER, FOLDER_FORMATS, FOLDER_LAYOUTS, type FolderWish, TEMPLATE_VARIABLES } from '../../sync/index.ts'
import type { ServerDeps } from '../deps.ts'
import { matchedRevision, revisionTag } from '../etag.ts'
import type { Routes } from '../exchange.ts'
import {
  answer,
  closed,
  count,
  flag,
  ifMatch,
  nullable,
  peerRef,
  resourceName,
  text,
  time,
  uuid,
  words,
} from '../schemas.ts'
import { peer, peerView } from './peers.ts'

const format = words(FOLDER_FORMATS, {
  description:
    's3xml and s3json as Sahana Eden has them; json keeps versions and every digit; csv is for spreadsheets.',
})
const pattern = nullable(Type.String({ minLength: 1, maxLength: 500 }), {
  description: `Files that are read, such as in/*.xml or in/\${resource}-*.csv: * and ? stand for characters, ** for folders. Null reads nothing.`,
})
const template = nullable(Type.String({ minLength: 1, maxLength: 500 }), {
  description: `Names of files that are written. Variables: ${TEMPLATE_VARIABLES.map((name) => `\${${name}}`).join(', ')}; times are UTC. Null writes nothing.`,
})
const below = (description: string) => Type.String({ minLength: 1, maxLength: 200, description })

const members = {
  path: Type.String({
    minLength: 1,
    maxLength: 4096,
    description: 'The folder, absolute; the setting folderRoots must allow it.',
    examples: ['/srv/exchange/ngo'],
  }),
  format,
  readFormat: nullable(words(FOLDER_FORMATS), {
    description: 'Where files are read in another format than they are written in.',
  }),
  read: pattern,
  write: template,
  layout: words(FOLDER_LAYOUTS, {
    description: 'One file for each resource of a run, one for all, or one for each record.',
  }),
  readable: flag('Written with line breaks and indents.'),
  after: words(FOLDER_AFTER, { description: 'What becomes of a file that was taken.' }),
  done: below('Folder below the path that taken files are moved to.'),
  quarantine: below('Folder below the path for files that cannot be read.'),
  settleSeconds: Type.Integer({
    minimum: 0,
    maximum: 3600,
    description: 'A file is read when two looks so far apart saw the same size and time.',
  }),
}
const { path, ...others } = members
const optional = Object.fromEntries(Object.entries(others).map(([name, schema]) => [name, Type.Optional(schema)])) as {
  [K in keyof typeof others]: ReturnType<typeof Type.Optional<(typeof others)[K]>>
}

const folder = closed(members, { title: 'Folder', description: 'How a peer that is a folder is read and written.' })

const file = closed(
  {
    name: text('Below the folder.'),
    bytes: count('Of the file.'),
    sha256: nullable(Type.String(), { description: 'Null before it was read.' }),
    state: words(['new', 'waiting', 'taken', 'refused', 'changed'], {
      description:
        'new: may be written to still; waiting: to be read; refused: cannot be read; changed: was written to while it was read.',
    }),
    gone: flag('It is no longer there under this name, or has another content now.'),
    resources: Type.Record(Type.String(), count('Records.'), { description: 'Records in it, by resource.' }),
    leftOver: Type.Record(Type.String(), count('How many.'), { description: 'What of it was not taken, in words.' }),
    reason: nullable(Type.String(), { description: 'Why it cannot be read.' }),
    seenAt: time('When it was seen with this size and time.'),
    takenAt: nullable(time('When everything was taken of it.')),
  },
  { title: 'FolderFile', description: 'A file that was seen in a folder.' },
)

const params = closed({ peer: peerRef })

/** Peers that are folders, and a look at whether a peer can be reached at all. */
export const folderRoutes =
  ({ store, actions, observe }: ServerDeps): Routes =>
  async (app) => {
    const add = {
      operationId: 'addFolderPeer',
      tags: ['peers'],
      summary: 'Register a folder',
      description:
        'Records are exchanged with whoever reads and writes files there. The folder must be there, and be allowed.',
      body: closed({
        name: Type.String({ minLength: 1, maxLength: 63, description: 'Name of the peer here.', examples: ['ngo'] }),
        uuid: Type.Optional(uuid('Of the site at the other end, where it is known; made when absent.')),
        path,
        ...optional,
      }),
      response: { 201: answer(peer) },
    }
    app.post('/peers/folder', { schema: add, config: { access: 'administrator' } }, async (request, reply) => {
      const { name, uuid: known, ...settings } = request.body
      const made = await actions.folders.add({ name, uuid: known, settings: settings as FolderWish })
      observe.events.peerPaired({ peer: made.name, uuid: made.uuid, by: 'hand' })
      reply.code(201).headers({ etag: revisionTag(made), location: `/api/v1/peers/${made.name}` })
      return peerView(made)
    })

    const read = {
      operationId: 'readFolder',
      tags: ['peers'],
      summary: 'Read how a folder is used',
      params,
      response: { 200: answer(folder) },
    }
    app.get('/peers/:peer/folder', { schema: read, config: { access: 'viewer' } }, async (request, reply) => {
      const found = await findPeer(store.db, request.params.peer)
      reply.header('etag', revisionTag(found))
      return readFolder(store.db, found)
    })

    const change = {
      operationId: 'changeFolder',
      tags: ['peers'],
      summary: 'Change how a folder is used',
      description: 'Absent settings stay as they are. In another path every file is new.',
      params,
      headers: ifMatch,
      body: closed({ path: Type.Optional(path), ...optional }),
      response: { 200: answer(folder) },
    }
    app.patch(
      '/peers/:peer/folder',
      { schema: change, config: { access: 'administrator' } },
      async (request, reply) => {
        const found = await findPeer(store.db, request.params.peer)
        const revision = matchedRevision(request.headers['if-match'])
        const wish = request.body as Partial<FolderWish>
        const changed = await actions.folders.change({ peer: found, settings: wish, revision })
        reply.header('etag', revisionTag(changed))
        return readFolder(store.db, changed)
      },
    )

    const list = {
      operationId: 'listFolderFiles',
      tags: ['peers'],
      summary: 'List files of a folder',
      description: 'Those that were seen, the newest first: what waits, what was taken, and what cannot be read.',
      params,
      querystring: closed({
        state: Type.Optional(words(['new', 'waiting', 'taken', 'refused', 'changed'])),
        limit: Type.Optional(Type.Integer({ minimum: 1, maximum: 1000, default: 100, description: 'Most files.' })),
      }),
      response: {
        200: answer(closed({ items: Type.Array(file) }, { title: 'FolderFiles', description: 'Files of a folder.' })),
      },
    }
    app.get('/peers/:peer/folder/files', { schema: list, config: { access: 'viewer' } }, async (request) => {
      const found = await findPeer(store.db, request.params.peer)
      await readFolder(store.db, found)
      return { items: (await listFolderFiles(store.db, found.id, request.query)).map(fileView) }
    })

    const dump = {
      operationId: 'dumpFolder',
      tags: ['peers'],
      summary: 'Write everything to a folder',
      description:
        'All records that tasks push there, in new files. What changed since the last run is written by the next run all the same.',
      params,
      body: closed({
        resources: Type.Optional(
          Type.Array(resourceName, { minItems: 1, maxItems: 1000, description: 'Absent for all that are pushed.' }),
        ),
      }),
      response: {
        200: answer(
          closed(
            { files: count('Files under their names.'), records: count('In them.') },
            { title: 'FolderDump', description: 'What was written.' },
          ),
        ),
      },
    }
    app.post(
      '/peers/:peer/folder/dump',
      { schema: dump, config: { access: 'operator', endless: true } },
      async (request) => {
        const found = await findPeer(store.db, request.params.peer)
        return actions.folders.dump({ peer: found, resources: request.body.resources })
      },
    )

    const test = {
      operationId: 'testPeer',
      tags: ['peers'],
      summary: 'Look whether a peer can be reached',
      description:
        'Says hello to it as a run does, and exchanges nothing. A folder is looked at: whether it may be used, and what is in it.',
      params,
      response: { 200: answer(tested) },
    }
    app.post('/peers/:peer/test', { schema: test, config: { access: 'operator' } }, async (request) => {
      const found = await findPeer(store.db, request.params.peer)
      const look = await actions.testPeer(found)
      const { some, ...rest } = look.folder ?? { some: [] as readonly string[] }
      return {
        ...{
          peer: found.name,
          kind: found.kind,
          clockOffsetMs: look.clockOffsetMs,
          resources: look.resources.map((each) => ({ ...each })),
        },
        folder:
          look.folder === null ? null : { ...(rest as Omit<NonNullable<typeof look.folder>, 'some'>), some: [...some] },
      }
    })
  }

const tested = closed(
  {
    peer: text('Name.'),
    kind: text('What the peer runs.'),
    clockOffsetMs: Type.Integer({ description: 'Its clock minus ours.' }),
    resources: Type.Array(
      closed({ name: resourceName, pull: flag('This site may pull it.'), push: flag('This site may push it.') }),
      { description: 'What it offers; of a folder what tasks there are.' },
    ),
    folder: nullable(
      closed({
        files: count('Files that fit the pattern.'),
        some: Type.Array(Type.String(), { description: 'The oldest of them.' }),
        reads: nullable(Type.String(), { description: 'What is read.' }),
        writes: nullable(Type.String(), { description: 'What is written.' }),
      }),
      { description: 'Only of a folder.' },
    ),
  },
  { title: 'TestedPeer', description: 'What a look at a peer found.' },
)

function fileView({
  name,
  bytes,
  sha256,
  state,
  gone,
  resources,
  leftOver,
  reason,
  seenAt,
  takenAt,
}: FolderFile): Static<typeof file> {
  return {
    ...{ name, bytes, sha256, state, gone, reason, seenAt, takenAt },
    resources: { ...resources },
    leftOver: { ...leftOver },
  }
}

/** What is asked of folders. The composition root gives it. */
export type FolderActions = {
  readonly add: (request: {
    readonly name: string
    readonly uuid?: string | undefined
    readonly settings: FolderWish
  }) => Promise<Peer>
  readonly change: (request: {
    readonly peer: Peer
    readonly settings: Partial<FolderWish>
    readonly revision?: number | undefined
  }) => Promise<Peer>
  readonly dump: (request: {
    readonly peer: Peer
    readonly resources?: readonly string[] | undefined
  }) => Promise<{ readonly files: number; readonly records: number }>
}

/** What a look at a peer finds. `folder` is null for a site. */
export type TestedPeer = {
  readonly clockOffsetMs: number
  readonly resources: readonly { readonly name: string; readonly pull: boolean; readonly push: boolean }[]
  readonly folder: {
    readonly files: number
    readonly some: readonly string[]
    readonly reads: string | null
    readonly writes: string | null
  } | null
}
