import { readFileSync } from 'node:fs'
import t from 'tap'
import * as queries from '../../scripts/golden/queries.ts'
import * as schema from '../../scripts/golden/schema.ts'
import { startPostgres } from '../support/postgres.ts'

const cluster = await startPostgres(t)
const golden = (file: string) => readFileSync(new URL(`../../${file}`, import.meta.url), 'utf8')

t.test('the statements of the store are those in test/golden/queries.sql', async (t) => {
  const text = await queries.generate(cluster)
  t.equal(await queries.generate(cluster), text, 'they are the same each time')
  t.equal(golden(queries.file), text, 'stale: run npm run golden and review the difference')
})

t.test('the migrations make what test/golden/schema.sql says', async (t) => {
  const text = await schema.generate(cluster)
  const expected = golden(schema.file)
  // Each PostgreSQL writes its dumps a little differently: elsewhere only the objects are compared.
  const objects = (dump: string) => dump.match(/^(CREATE|ALTER|COMMENT) [^(\n;]*/gm)?.toSorted()
  if (expected.startsWith(`-- PostgreSQL ${cluster.version}\n`))
    t.equal(text, expected, 'stale: run npm run golden and review the difference')
  else
    t.same(
      objects(text)?.filter((line) => line.startsWith('CREATE')),
      objects(expected)?.filter((line) => line.startsWith('CREATE')),
    )
  t.ok((objects(expected)?.length ?? 0) > 50)
})
