import { writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import t from 'tap'
import { freePort } from '../support/postgres.ts'
import { openShell, shellBlocks } from './shell.ts'

t.setTimeout(600_000)

const GUIDE = 'docs/guides/pushing-with-curl.md'
const port = String(await freePort())
const shell = await openShell(t, { SYNCLINE_DATA_DIR: 'site', SYNCLINE_PORT: port })
const url = await shell.serve('syncline serve --name hub', 'site')

const text = { type: 'string' }
const SCHEMAS = {
  country: { type: 'object', properties: { id: text, name: text } },
  city: {
    type: 'object',
    required: ['name'],
    properties: {
      id: text,
      name: { ...text, maxLength: 100 },
      population: { type: ['integer', 'null'], minimum: 0 },
      country: { ...text, 'x-ref': 'country' },
    },
  },
}

type Report = { readonly counts: Readonly<Record<string, number>>; readonly rejections: readonly object[] }
type Exported = Readonly<Record<string, unknown>>[]

/** Records of a resource, as `record export` writes them, without their versions. */
async function recordsOf(resource: string): Promise<Exported> {
  const lines = (await shell.run(`syncline record export ${resource} --format ndjson`)).trim().split('\n')
  return lines
    .map((line) => JSON.parse(line) as Exported[number])
    .filter(({ id }) => id !== undefined)
    .map(({ version: _, ...record }) => record)
}

t.test('every push of the guide works as it is written', async (t) => {
  for (const [name, schema] of Object.entries(SCHEMAS)) {
    await writeFile(join(shell.folder, `${name}.json`), JSON.stringify(schema))
    await shell.run(`syncline resource create ${name} --schema ${name}.json`)
  }
  await shell.run(
    'syncline record put country AT --set name=Austria && syncline record put country FR --set name=France',
  )
  const [setUp = '', json = '', ...others] = await shellBlocks(GUIDE)
  t.equal(others.length, 3)
  await shell.run(setUp)
  const push = async (block: string) => {
    const token = 'TOKEN=$(cat ngo.token)\n'
    const answer = await shell.run(`${token}${block.replaceAll('http://127.0.0.1:8420', url)}`)
    return JSON.parse(answer) as Report
  }
  const first = await push(json)
  t.match(first.counts, { refused: 0, quarantined: 0, conflict: 0 })
  t.ok((first.counts.applied ?? 0) > 0, JSON.stringify(first))
  const before = await recordsOf('city')
  t.ok(before.length > 0)
  t.match((await push(json)).counts, { applied: 0, refused: 0 })
  t.same(await recordsOf('city'), before)
  for (const block of others) {
    const report = await push(block)
    t.match(report, { counts: { refused: 0, quarantined: 0, conflict: 0 } }, JSON.stringify(report))
    t.ok(Object.values(report.counts).reduce((sum, count) => sum + count, 0) > 0)
  }
})

t.test('the push of the README works as it is written', async (t) => {
  const [block = ''] = await shellBlocks('README.md', 'Pushing with curl')
  const id = /"id":"([^"]+)"/.exec(block)?.[1] ?? ''
  const answer = await shell.run(`TOKEN=$(cat ngo.token)\n${block.replace('http://127.0.0.1:8420', url)}`)
  t.match(JSON.parse(answer), { counts: { applied: 1 } })
  t.match(await shell.run(`syncline record get city ${id} --json`), /Graz/)
})
