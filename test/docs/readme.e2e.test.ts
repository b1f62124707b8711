import { dirname } from 'node:path'
import t from 'tap'
import { freePort, startPostgres } from '../support/postgres.ts'
import { openShell, shellBlocks } from './shell.ts'

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
  t.equal(blocks.length, 5)
  const [tables = '', hub = '', field = '', setUp = '', sync = ''] = blocks
  await shell.run(tables)
  t.match(await shell.serve(hub, 'hub'), String(ports[8420]))
  t.match(await shell.serve(field, 'field'), String(ports[8421]))
  await shell.run(setUp)
  const said = await shell.run(sync)
  t.match(said, /10,000 pulled/)
  t.match(said, /equal/)
  t.match(said, /hub/)
  const [atHub, atField] = await Promise.all(
    ['clinic_hub', 'clinic_field'].map((name) =>
      cluster.query(name, 'select uuid, name, beds from hospital order by uuid'),
    ),
  )
  t.equal(atHub?.length, 10_001)
  t.same(atHub, atField)
  t.equal(atField?.find(({ name }) => name === 'Hospital 7')?.beds, 200)
})
