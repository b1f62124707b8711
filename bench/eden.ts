import { setTimeout as sleep } from 'node:timers/promises'
import pg from 'pg'
import { type Owner, startPostgres } from '../test/support/postgres.ts'
import { type Figure, median, say } from './report.ts'
import { type BenchSite, startSite } from './site.ts'

const ROUNDS = 3
const PUSHED = 20_000
const MEMORY_SAMPLE_MS = 50
const UUID = 'urn:uuid:e0e0e0e0-0000-4000-8000-00000000000'

const TABLE =
  'create table org_organisation (uuid text primary key, name text not null, acronym text, year int, website text)'
const FILL = `insert into org_organisation select 'urn:uuid:' || gen_random_uuid(), 'Organisation ' || n, 'O' || n, 1900 + n % 120, 'http://www.example.org/' || n
                from generate_series(1, $1::int) n`

/** An Eden site, as the site that it calls knows it. */
type Caller = { readonly url: string; readonly authorization: string; readonly repository: string }

/** A Sahana Eden site that pulls organisations of four fields as S3XML, and pushes them. */
export async function benchEden(owner: Owner, { rows }: { readonly rows: number }): Promise<Figure[]> {
  const cluster = await startPostgres(owner, {
    fsync: true,
    settings: { shared_buffers: '512MB', max_wal_size: '4GB' },
  })
  const database = await cluster.createDatabase()
  const db = new pg.Client(database.url)
  await db.connect()
  try {
    await db.query(TABLE)
    await db.query(FILL, [rows])
    const site = await startSite(owner, 'eden', database.url)
    await site.call('POST', '/api/v1/resources', { tables: [{ table: 'org_organisation' }] })
    await db.query('vacuum analyze')
    const begun = await site.residentMiB()
    const pulls = []
    for (let round = 1; round <= ROUNDS; round++) {
      pulls.push(await pull(site, await caller(site, `puller-${round}`, `${UUID}${round}`, ['pull', 'push']), rows))
    }
    const reader = await pull(site, await caller(site, 'reader', `${UUID}8`, ['pull']), rows)
    const pusher = await caller(site, 'pusher', `${UUID}9`, ['pull', 'push'])
    const pushes = []
    for (let round = 0; round < ROUNDS; round++) pushes.push(await push(pusher, round))
    const again = await push(pusher, 0)
    const pulled = median(pulls.map(({ seconds }) => rows / seconds))
    const pushed = median(pushes.map((seconds) => PUSHED / seconds))
    const firstByte = median(pulls.map(({ firstByteMs }) => firstByteMs))
    const peak = Math.max(...pulls.map(({ peakMiB }) => peakMiB))
    return [
      figure(`Eden pulls ${rows} organisations`, pulled, 'records/s', '≥ 10,000 records/s', pulled >= 10_000),
      figure(
        `the same by one that may not push`,
        rows / reader.seconds,
        'records/s',
        '≥ 10,000 records/s',
        rows / reader.seconds >= 10_000,
      ),
      figure(`first byte of that`, firstByte, 'ms', '≤ 100 ms', firstByte <= 100),
      figure(`Eden pushes ${PUSHED} new organisations`, pushed, 'records/s', '≥ 4,000 records/s', pushed >= 4_000),
      figure(`the same records again`, PUSHED / again, 'records/s', '≥ 4,000 records/s', PUSHED / again >= 4_000),
      figure(
        `peak memory while Eden pulls (${Math.round(begun)} MiB before)`,
        peak,
        'MiB',
        '≤ 256 MiB resident',
        peak <= 256,
      ),
    ]
  } finally {
    await db.end()
  }
}

function figure(what: string, value: number, unit: string, must: string, reached: boolean): Figure {
  return { what, value, unit, must, reached }
}

async function caller(site: BenchSite, name: string, uuid: string, directions: readonly string[]): Promise<Caller> {
  await site.call('POST', '/api/v1/peers/eden', { name })
  const { token } = await site.call<{ token: string }>('POST', `/api/v1/peers/${name}/rotate`, {})
  for (const direction of directions)
    await site.call('PUT', `/api/v1/peers/${name}/grants/${direction}/org_organisation`, {})
  const authorization = `Basic ${Buffer.from(`${name}:${token}`).toString('base64')}`
  const told = await fetch(`${site.url}/eden/sync/repository/register.json`, {
    method: 'POST',
    headers: { authorization },
    body: JSON.stringify({ uuid, name, apitype: 'eden' }),
  })
  const answer = await told.text()
  if (!answer.includes('Registration successful')) throw new Error(`registration: ${answer}`)
  const repository = `resource=org_organisation&repository=${uuid}`
  return { url: `${site.url}/eden/sync/sync.xml`, authorization, repository }
}

async function pull(site: BenchSite, { url, authorization, repository }: Caller, rows: number) {
  let peakMiB = 0
  let reading = true
  const sampling = (async () => {
    while (reading) {
      peakMiB = Math.max(peakMiB, await site.residentMiB())
      await sleep(MEMORY_SAMPLE_MS)
    }
  })()
  const begin = performance.now()
  const response = await fetch(`${url}?${repository}&include_deleted=True`, { headers: { authorization } })
  let [firstByteMs, records, bytes, rest] = [0, 0, 0, '']
  for await (const chunk of response.body ?? []) {
    if (firstByteMs === 0) firstByteMs = performance.now() - begin
    bytes += chunk.length
    const text = rest + Buffer.from(chunk).toString('latin1')
    records += text.split('<resource ').length - 1
    rest = text.slice(-9)
  }
  const seconds = (performance.now() - begin) / 1_000
  reading = false
  await sampling
  if (records !== rows) throw new Error(`${records} records came instead of ${rows}`)
  say(
    `pull: ${rows} records, ${(bytes / 1e6).toFixed(1)} MB in ${seconds.toFixed(2)} s, first byte ${Math.round(firstByteMs)} ms`,
  )
  return { seconds, firstByteMs, peakMiB }
}

/** Seconds of a push as Eden sends it. */
async function push({ url, authorization, repository }: Caller, round: number): Promise<number> {
  const records = Array.from({ length: PUSHED }, (_, n) => {
    const attributes = `uuid="urn:uuid:pushed-${round}-${n}" mci="1" created_on="2026-03-01T08:00:00" modified_on="2026-03-02T09:30:00" created_by="a@example.org" modified_by="a@example.org" owned_by_user="a@example.org"`
    const fields = `<data field="name">Pushed ${n}</data><data field="acronym" value="&quot;P${n}&quot;">P${n}</data><data field="year" value="1999">1999</data><data field="website" value="&quot;http://p.example.org&quot;">http://p.example.org</data>`
    return `<resource name="org_organisation" ${attributes}>${fields}</resource>`
  })
  const body = `<?xml version='1.0' encoding='utf-8'?>\n<s3xml success="true" results="${PUSHED}">${records.join('')}</s3xml>`
  const begin = performance.now()
  const response = await fetch(`${url}?${repository}`, {
    method: 'POST',
    headers: { authorization, 'content-type': 'application/x-www-form-urlencoded' },
    body,
  })
  const answer = await response.text()
  if (!response.ok) throw new Error(`push: ${response.status} ${answer.slice(0, 500)}`)
  const seconds = (performance.now() - begin) / 1_000
  say(`push: ${PUSHED} records, ${(body.length / 1e6).toFixed(1)} MB in ${seconds.toFixed(2)} s`)
  return seconds
}
