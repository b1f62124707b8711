import { readFile, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import t from 'tap'
import { openShell, ROOT, shellBlocks } from './shell.ts'

t.setTimeout(600_000)

const shell = await openShell(t)
const [hub] = await Promise.all([
  shell.serve('syncline serve --name hub --data-dir hub --port 0', 'hub'),
  shell.serve('syncline serve --name tablet --data-dir tablet --port 0', 'tablet'),
])
/** Runs a block as at one of the two sites. */
const at = (site: 'hub' | 'tablet', block: string) => shell.run(`export SYNCLINE_DATA_DIR=${site}\n${block}`)

async function uuidOf(site: 'hub' | 'tablet'): Promise<string> {
  return (await at(site, 'syncline status')).split(/\s+/)[1] ?? ''
}

const COUNTRY = { type: 'object', properties: { id: { type: 'string' }, name: { type: 'string' } } }
const CITIES = [
  'id,name,population,founded,country',
  '0198c0de-0000-7000-8000-00000000000a,Graz,298479,1128-01-01,AT',
  '0198c0de-0000-7000-8000-00000000000b,Linz,,,AT',
]

t.test('a resource begins with the schema of the guide, and records go in and out', async (t) => {
  const page = 'docs/guides/embedded-or-postgresql.md'
  const schema = /```json\n([\s\S]*?)```/.exec(await readFile(join(ROOT, page), 'utf8'))?.[1] ?? ''
  const [block = ''] = await shellBlocks(page)
  await writeFile(join(shell.folder, 'city.schema.json'), schema)
  await writeFile(join(shell.folder, 'country.schema.json'), JSON.stringify(COUNTRY))
  await writeFile(join(shell.folder, 'cities.csv'), CITIES.join('\n'))
  const country = 'syncline resource create country --schema country.schema.json\n'
  await at('hub', `${country}syncline record put country AT --set name=Austria\n${block}`)
  const exported = await readFile(join(shell.folder, 'cities.ndjson'), 'utf8')
  const cities = exported.trim().split('\n').slice(0, 2)
  t.match(
    cities.map((line) => JSON.parse(line)),
    [
      { data: { name: 'Graz', population: '298479', founded: '1128-01-01' }, refs: { country: { id: 'AT' } } },
      { data: { name: 'Linz', population: null } },
    ],
  )
  await t.rejects(at('hub', 'syncline record put city x --set name=Nowhere --set population=-1'), {
    message: /exit code/,
  })
})

t.test('two sites are registered by hand as the guide says, and sync', async (t) => {
  const [atHub = '', atTablet = ''] = await shellBlocks('docs/guides/pairing.md', 'Where no code can be passed on')
  const real = async (block: string, uuid: string) =>
    block.replace(/--uuid \S+/, `--uuid ${uuid}`).replace('https://hub.example.org', hub)
  await at('hub', await real(atHub, await uuidOf('tablet')))
  await at('hub', 'syncline peer grant tablet country --pull')
  await at('tablet', await real(atTablet, await uuidOf('hub')))
  const create = ['country', 'city'].map((name) => `syncline resource create ${name} --schema ${name}.schema.json`)
  const tasks = ['syncline task add hub country --mode pull', 'syncline task add hub city --mode both']
  const said = await at('tablet', [...create, ...tasks, 'syncline sync', 'syncline verify hub'].join('\n'))
  t.match(said, /3 pulled, 3 applied/)
  t.match(said, /city +2 +equal/)
})

t.test('a conflict and a record that waits are shown and settled as the guide says', async (t) => {
  const put = (name: string) => `syncline record put city 0198c0de-0000-7000-8000-00000000000a --set name=${name}`
  await at('tablet', 'syncline task set hub city --on-conflict ask')
  await Promise.all([at('hub', put('Graz-Ost')), at('tablet', put('Graz-West'))])
  await t.rejects(at('tablet', 'syncline sync'), { message: /exit code 3/ })
  const { items } = JSON.parse(await at('tablet', 'syncline conflict list --json')) as { items: { id: string }[] }
  t.equal(items.length, 1)
  const [show = '', decide = ''] = await shellBlocks('docs/guides/conflicts.md', 'When a person is asked')
  const ours = (text: string) => text.replaceAll(' 12', ` ${items[0]?.id}`).replaceAll('item', 'city')
  const said = await at('tablet', ours(show))
  t.match(said, /name.*Graz-West.*Graz-Ost/)
  await at('tablet', ours(decide.split('\n')[0] ?? ''))
  await at('tablet', 'syncline sync')
  for (const site of ['hub', 'tablet'] as const) {
    t.match(await at(site, 'syncline record get city 0198c0de-0000-7000-8000-00000000000a'), /Graz-Ost/)
  }
})
