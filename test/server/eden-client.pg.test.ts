/** A model of Eden's own client (its cursor, its clock of whole seconds, its policy NEWER, its push of whole tables) against a site, with faults. */
import { randomUUID } from 'node:crypto'
import { setTimeout as sleep } from 'node:timers/promises'
import t, { type Test } from 'tap'
import { type EdenElement, s3xmlReader, s3xmlWriter } from '../../src/sync/index.ts'
import { siteFactory } from '../support/sites.ts'
import { addPeer, basic, LIMITS, type Served, serve } from './served.ts'

const DDL =
  'create table org_organisation (uuid text primary key, name text, year int); create table org_sector (uuid text primary key, name text)'
const TABLE = 'org_organisation'
const STEPS = 150
const RECORDS = 50

type Record = { name: string | null; year: number | null; modifiedOn: number; deleted: boolean }
type Fault = 'none' | 'lost' | 'cut' | 'item'

const sites = await siteFactory(t)

/** Numbers that a seed gives, so that a failure can be seen again. */
function random(seed: number): (below: number) => number {
  let state = seed >>> 0
  return (below) => {
    state = (Math.imul(state ^ (state >>> 15), 0x2c1b3c6d) + 0x9e3779b9) >>> 0
    return ((state ^ (state >>> 13)) >>> 0) % below
  }
}

const now = () => Math.floor(Date.now() / 1_000)
const written = (seconds: number) => new Date(seconds * 1_000).toISOString().slice(0, 19)
const readTime = (text: string | undefined) => Date.parse(`${text}Z`) / 1_000

function createEden(hub: Served, token: string) {
  const uuid = `urn:uuid:${randomUUID()}`
  const authorization = basic('eden', token)
  const records = new Map<string, Record>()
  let lastPull: number | null = null
  const address = `/eden/sync/sync.xml?resource=${TABLE}&repository=${uuid}`

  async function register(): Promise<void> {
    const body = JSON.stringify({ uuid, name: 'eden', apitype: 'eden' })
    await hub.app.inject({
      method: 'POST',
      url: '/eden/sync/repository/register.json',
      headers: { authorization },
      payload: body,
    })
  }

  async function pull(fault: Fault): Promise<number> {
    const msince = lastPull === null ? '' : `&msince=${written(lastPull)}`
    const answer = await hub.app.inject({
      method: 'GET',
      url: `${address}${msince}&include_deleted=True`,
      headers: { authorization },
    })
    if (answer.statusCode !== 200) throw new Error(answer.body)
    // Lost on its way, or cut: Eden imports nothing of a document that it cannot parse.
    if (fault === 'lost' || fault === 'cut') return 0
    const reader = s3xmlReader({ elementsMax: 1e6, recordBytesMax: 1e6, depthMax: 32, bytesMax: 1e9 })
    const elements = [...reader.write(Buffer.from(answer.body)), ...reader.end()]
    // An item that fails is left out of the time that Eden goes on from.
    const failing = fault === 'item' ? elements.findIndex(({ attributes }) => records.has(attributes.uuid ?? '')) : -1
    const taken = elements.filter((_, n) => n !== failing)
    for (const element of taken) importOne(element)
    const times = taken.map(({ attributes }) => readTime(attributes.modified_on))
    if (times.length > 0) lastPull = Math.max(...times) + 1
    return elements.length
  }

  function importOne({ attributes, fields }: EdenElement): void {
    const id = attributes.uuid ?? ''
    const at = readTime(attributes.modified_on)
    const original = records.get(id)
    if (original !== undefined && original.modifiedOn > at) return
    if (attributes.deleted === 'True') {
      if (original !== undefined && !original.deleted)
        records.set(id, { ...original, deleted: true, modifiedOn: now() })
      return
    }
    const value = (name: string) => fields.find(({ field }) => field === name)?.attributes
    const [name, year] = [value('name'), value('year')]
    records.set(id, {
      // What is not told stays; an empty element empties a text, and says nothing of a number.
      name:
        name === undefined
          ? (original?.name ?? null)
          : name.value === undefined
            ? ''
            : (JSON.parse(name.value) as string),
      year: year?.value === undefined ? (original?.year ?? null) : Number(year.value),
      modifiedOn: at,
      deleted: false,
    })
  }

  /** Everything that Eden has, each time. */
  async function push(fault: Fault): Promise<void> {
    if (fault === 'lost') return
    const writer = s3xmlWriter()
    const body = [...records].map(([id, record]) => writer.element(exported(id, record))).join('')
    const document = `${writer.open({})}${body}${fault === 'cut' ? '<resource' : writer.close()}`
    const answer = await hub.app.inject({
      method: 'POST',
      url: `${address}&update_policy=NEWER`,
      headers: { authorization },
      payload: document,
    })
    if (fault === 'cut' ? answer.statusCode < 400 : answer.statusCode !== 200)
      throw new Error(`${answer.statusCode} ${answer.body}`)
  }

  return { records, register, pull, push }
}

function exported(uuid: string, { name, year, modifiedOn, deleted }: Record): EdenElement {
  const at = written(modifiedOn)
  if (deleted)
    return { table: TABLE, attributes: { uuid, deleted: 'True', modified_on: at }, fields: [], components: [] }
  const attributes = { uuid, mci: '1', created_on: at, modified_on: at }
  const data = (field: string, value: string, text: string) => ({
    kind: 'data' as const,
    field,
    attributes: { value },
    text,
  })
  const fields = [
    ...(name === null ? [] : [{ kind: 'data' as const, field: 'name', attributes: {}, text: name }]),
    ...(year === null ? [] : [data('year', String(year), String(year))]),
  ]
  return { table: TABLE, attributes, fields, components: [] }
}

async function simulate(t: Test, seed: number): Promise<void> {
  const hub = await serve(t, await sites.make(`model-${seed}`, DDL, [TABLE, 'org_sector']), {
    // On a machine with other work the site would rightly ask to come again later.
    limits: { ...LIMITS, eventLoopDelayMaxMs: 120_000 },
  })
  const { token } = await addPeer(hub, { name: 'eden', uuid: randomUUID(), kind: 'eden' }, [TABLE])
  const eden = createEden(hub, token)
  const { sql } = hub.site
  const pick = random(seed)
  const id = () => `urn:uuid:r${pick(RECORDS)}`
  const fault = (): Fault => (['none', 'none', 'none', 'lost', 'cut', 'item'] as const)[pick(6)] ?? 'none'
  await eden.register()
  for (let step = 0; step < STEPS; step++) {
    const uuid = id()
    switch (pick(9)) {
      case 0:
      case 1:
        await sql(
          `insert into ${TABLE} values ($1, $2, $3) on conflict (uuid) do update set name = excluded.name, year = excluded.year`,
          [uuid, `site ${step}`, 1_900 + step],
        )
        break
      case 2:
        await sql(`delete from ${TABLE} where uuid = $1`, [uuid])
        break
      case 3:
      case 4:
        eden.records.set(uuid, { name: `eden ${step}`, year: 2_000 + step, modifiedOn: now(), deleted: false })
        break
      case 5: {
        const known = eden.records.get(uuid)
        if (known !== undefined && !known.deleted)
          eden.records.set(uuid, { ...known, deleted: true, modifiedOn: now() })
        break
      }
      case 6:
        await sleep(pick(400))
        break
      case 7:
        await eden.pull(fault())
        break
      default:
        await eden.push(fault())
    }
  }
  // Edits of one second are told apart no more: what comes to rest is looked at a second later.
  await sleep(1_100)
  for (let round = 0; round < 4; round++) {
    await eden.pull('none')
    await eden.push('none')
  }
  const here = await sql(`select uuid, name, year from ${TABLE} order by uuid collate "C"`)
  const there = [...eden.records]
    .filter(([, { deleted }]) => !deleted)
    .map(([uuid, { name, year }]) => ({ uuid, name, year }))
    .sort((a, b) => (a.uuid < b.uuid ? -1 : 1))
  t.same(there, here, `seed ${seed}`)
  t.same(await sql('select record_id, reason from syncline.quarantine'), [])
  const clocks = await sql('select sum(clock)::text as clocks from syncline.record')
  t.ok((await eden.pull('none')) <= RECORDS)
  await eden.push('none')
  t.same(
    await sql('select sum(clock)::text as clocks from syncline.record'),
    clocks,
    'I4: at rest nothing is written any more',
  )
}

t.test(
  'I3: a site and an Eden that calls it, with lost and cut answers, items that fail and edits in one second, come to rest equal',
  async (t) => {
    const seeds = process.argv[2] === undefined ? [1, 2, 3] : [Number(process.argv[2])]
    for (const seed of seeds) await simulate(t, seed)
  },
)
