import { migrate, openStore } from '../../src/store/index.ts'
import { type Cluster, startPostgres } from '../../test/support/postgres.ts'

export const file = 'test/golden/schema.sql'

/** What the migrations make, as pg_dump says it. */
export async function generate(cluster?: Cluster): Promise<string> {
  const ends: (() => Promise<void>)[] = []
  const server = cluster ?? (await startPostgres({ teardown: (end) => void ends.push(end) }))
  try {
    const database = await server.createDatabase()
    const store = await openStore({ databaseUrl: database.url, dataDir: '/nonexistent' })
    await migrate(store)
    await store.close()
    const dump = await server.run('pg_dump', ['--schema-only', '--no-owner', '-n', 'syncline', database.name])
    return `-- PostgreSQL ${server.version}\n\n${tidy(dump.toString())}`
  } finally {
    for (const end of ends) await end()
  }
}

/** Without what differs from one dump to the next: comments, settings and tokens. */
function tidy(dump: string): string {
  const lines = dump.split('\n').filter((line) => !/^(--|SET |SELECT pg_catalog|\\)/.test(line))
  return `${lines
    .join('\n')
    .replaceAll(/\n{2,}/g, '\n\n')
    .trim()}\n`
}
