import { mkdir, readdir, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import t from 'tap'
import { openShell, shellBlocks } from './shell.ts'

t.test('a folder is a peer as the guide says', async (t) => {
  const shell = await openShell(t, { SYNCLINE_DATA_DIR: 'site' })
  const root = join(shell.folder, 'exchange')
  await mkdir(root)
  const page = 'docs/guides/folders.md'
  const blocks = (await shellBlocks(page)).map((block) => block.replaceAll('/srv/exchange', root))
  const [serve = '', add = '', sync = '', dump = ''] = blocks
  t.equal(blocks.length, 4)
  await shell.serve(`${serve.trim()} --port 0`, 'site')
  const schema = {
    type: 'object',
    properties: { id: { type: 'string' }, name: { type: 'string' }, population: { type: ['integer', 'null'] } },
  }
  await writeFile(join(shell.folder, 'city.json'), JSON.stringify(schema))
  await shell.run('syncline resource create city --schema city.json\nsyncline record put city AT-1 --set name=Graz')
  t.match(await shell.run(add), /reads +csv from in\/\$\{resource\}\*\.csv/)
  const said = await shell.run(sync)
  t.match(said, /1 pulled, 1 applied/)
  t.match(said, /city-\d{8}T\d{6}\.csv[\s\S]*city-today\.csv/)
  t.match(said, /in\/city-today\.csv +taken +1 city/)
  t.match(await shell.run('syncline record get city AT-2'), /Villach/)
  t.equal(await shell.run(dump), '2 records are in 1 files.\n')
  t.equal((await readdir(join(root, 'ngo/out'))).length, 2)
})
