import { readFile } from 'node:fs/promises'
import { dirname, join } from 'node:path'
import t from 'tap'
import { freePort, startPostgres } from '../support/postgres.ts'
import { openShell, ROOT, shellBlocks } from './shell.ts'

t.setTimeout(600_000)

const cluster = await startPostgres(t)
const env = { PGHOST: cluster.host, PGPORT: String(cluster.port), PGUSER: 'postgres' }
const shell = await openShell(t, env, [dirname(cluster.bin('psql'))])
const ports = { 8420: await freePort(), 8421: await freePort() }

/** The page names ports that may be taken on the machine of the test. */
function onFreePorts(block: string): string {
  return block.replace(/\b(8420|8421)\b/g, (port) => String(ports[port as '8420']))
}

t.test('the first sync of the README works as it is written', async (t) => {
  const blocks = (await shellBlocks('README.md', 'The first real sync, in five minutes')).map(onFreePorts)
  t.equal(blocks.length, 6)
  const [tables = '', hub = '', field = '', setUp = '', sync = '', schedule = ''] = blocks
  await shell.run(tables)
  t.match(await shell.serve(hub, 'hub'), String(ports[8420]))
  t.match(await shell.serve(field, 'field'), String(ports[8421]))
  await shell.run(setUp)
  const said = await shell.run(sync)
  t.match(said, /10,000 pulled, 10,000 applied/)
  t.match(said, /1 pulled, 1 applied, 1 pushed/)
  const shown = /```\n(RESOURCE[\s\S]*?)```/.exec(await readFile(join(ROOT, 'README.md'), 'utf8'))?.[1] ?? 'no table'
  t.ok(said.replace(/ +$/gm, '').includes(shown), said)
  t.match(said, /green +hub +hospital/)
  t.match(await shell.run(schedule), /every 1 min/)
  const [atHub, atField] = await Promise.all(
    ['clinic_hub', 'clinic_field'].map((name) =>
      cluster.query(name, 'select uuid, name, beds from hospital order by uuid'),
    ),
  )
  t.equal(atHub?.length, 10_001)
  t.same(atHub, atField)
  t.equal(atField?.find(({ name }) => name === 'Hospital 7')?.beds, 200)
})
