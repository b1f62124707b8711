/**
 * `npm run golden` writes the OpenAPI document of the server from the schemas of its routes. Building the application opens nothing, so
 * what it would need of other rooms is only named here.
 */
import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { createObserve } from '../../src/observe/index.ts'
import { buildApp, type ServerDeps } from '../../src/server/index.ts'

const ROOT = join(import.meta.dirname, '../..')

/** Path of the document from the root. */
export const file = 'openapi/syncline.openapi.json'

/** The whole text of the document. */
export async function generate(): Promise<string> {
  const app = await buildApp(nothing())
  try {
    await app.ready()
    return `${JSON.stringify(app.swagger(), null, 2)}\n`
  } finally {
    await app.close()
  }
}

function nothing(): ServerDeps {
  const { version } = JSON.parse(readFileSync(join(ROOT, 'package.json'), 'utf8')) as { version: string }
  const absent = () => {
    throw new Error('nothing of this is there while the document is made')
  }
  return {
    store: new Proxy({}, { get: () => absent }) as ServerDeps['store'],
    key: Buffer.alloc(32),
    self: absent,
    observe: createObserve({ level: 'silent' }),
    limits: {
      bodyBytesMax: 67_108_864,
      recordBytesMax: 8_388_608,
      depthMax: 64,
      batchRowsMax: 10_000,
      batchBytesMax: 4_194_304,
      requestTimeoutMs: 120_000,
      clockAheadMaxMs: 300_000,
    },
    publicUrl: absent,
    version,
    trustProxy: [],
    actions: {
      jobs: absent,
      syncNow: absent,
      joinPeer: absent,
      addEdenPeer: absent,
      folders: { add: absent, change: absent, dump: absent },
      testPeer: absent,
      createFromEden: absent,
      followDataset: absent,
      fetchEdenFile: absent,
      scheduleChanged: absent,
      nextRuns: absent,
      checkSchedule: absent,
      askRecord: absent,
      peerPolicy: absent,
      previewSync: absent,
      scanHost: absent,
      trustHost: absent,
      verifyPeer: absent,
    },
  }
}
