import { createHash } from 'node:crypto'
import { setTimeout as sleep } from 'node:timers/promises'
import { countryId, type Row, readCountries, readPlaces, stableId } from './data.ts'
import { type Progress, type StepFacts, step, tell } from './screen.ts'
import type { Site } from './site.ts'

const RESOURCES = ['country', 'place'] as const
/** Records in one request: a few requests in a second keep the bar moving. */
const IMPORT_ROWS = 5_000
const POLL_MS = 200
const EDITED_AT_HUB = 500
const EDITED_AT_FIELD = 300
const ADDED_AT_FIELD = 200

const text = { type: 'string' }
const optionalText = { type: ['string', 'null'] }
const SCHEMAS = {
  country: {
    type: 'object',
    description: 'Countries of the world',
    required: ['code', 'name', 'continent'],
    properties: {
      id: { type: 'string', format: 'uuid' },
      code: { ...text, maxLength: 2 },
      name: text,
      native_name: text,
      capital: optionalText,
      continent: text,
      currencies: text,
      phone: text,
    },
  },
  place: {
    type: 'object',
    description: 'Cities, towns and villages',
    required: ['name', 'latitude', 'longitude', 'country'],
    properties: {
      id: { type: 'string', format: 'uuid' },
      name: text,
      latitude: { type: 'number', minimum: -90, maximum: 90 },
      longitude: { type: 'number', minimum: -180, maximum: 180 },
      division: optionalText,
      subdivision: optionalText,
      note: optionalText,
      country: { type: 'string', 'x-ref': 'country' },
    },
  },
} as const

type Counts = Readonly<Record<string, number>>
type Run = {
  readonly id: string
  readonly finishedAt: string | null
  readonly result: string | null
  readonly message: string | null
  readonly counts: Counts
}
type BatchReport = { readonly counts: Counts; readonly rejections: readonly { readonly reason: string }[] }
type Shown = { readonly deleted?: boolean; readonly data?: Readonly<Record<string, unknown>> }
type Verified = {
  readonly resources: readonly { readonly resource: string; readonly equal: boolean; readonly checked: number }[]
}
type Waiting = { readonly items: readonly { readonly recordId: string; readonly reason: string }[] }
type Past = {
  readonly items: readonly { readonly reason: string; readonly data: Readonly<Record<string, unknown>> | null }[]
}
/** A change as it is pushed: without a version it is a write of this moment. */
type Change = Partial<Row> & { readonly id: string; readonly deleted?: true }

/** Plays the demo with `rows` places and tells whether both sites hold the same at the end. */
export async function play(start: (name: string) => Promise<Site>, rows: number): Promise<boolean> {
  const [hub, field] = await step('Start both sites', async () => {
    const sites = await Promise.all([start('hub'), start('field')])
    return [sites, {}] as const
  })
  await step('Create the resources country and place at both', async () => {
    for (const name of RESOURCES) {
      const create = (site: Site) => site.call('POST', '/resources/managed', { name, schema: SCHEMAS[name] })
      await Promise.all([create(hub), create(field)])
    }
    return [undefined, {}]
  })
  const places = readPlaces(rows)
  await step('Load the data at the hub', async (progress) => {
    const countries = readCountries()
    progress.total(countries.length + places.length)
    await write(hub, 'country', countries)
    await write(hub, 'place', places, (done) => progress.at(countries.length + done))
    return [undefined, { records: countries.length + places.length }]
  })
  await step('Pair them with one code', async () => {
    const grants = { pull: RESOURCES, push: RESOURCES }
    const { code } = await hub.call<{ code: string }>('POST', '/invitations', {
      name: 'field',
      ...grants,
      ttlSeconds: 600,
    })
    await field.call('POST', '/peers/join', { code, name: 'hub' })
    for (const resource of RESOURCES) {
      await field.call('POST', '/tasks', { peer: 'hub', resource, mode: 'both', onConflict: 'newer' })
    }
    return [undefined, {}]
  })
  await step('First sync: the field takes everything', (progress) =>
    syncStep(field, progress, { total: places.length + 252 }),
  )
  await editBoth(hub, field, places)
  await conflict(hub, field, placeNamed(places, 'Lyon', 7))
  await deletion(hub, field, placeNamed(places, 'Nice', 11))
  await missingParent(hub, field)
  const proven = await compareDigests(field)
  return (await compareValues(hub, field)) && proven
}

/** The place of that name, or the one at `index` when only some places were taken. */
function placeNamed(places: readonly Row[], name: string, index: number): Row {
  const found = places.find((place) => place.data.name === name) ?? places[index]
  if (found === undefined) throw new RangeError('there are no places')
  return found
}

async function editBoth(hub: Site, field: Site, places: readonly Row[]): Promise<void> {
  const change = (at: string) => (place: Row) => ({ id: place.id, data: { note: `seen by the ${at}` } })
  const some = (count: number, offset: number) => {
    const stride = Math.max(1, Math.floor(places.length / count))
    return places.filter((_, n) => n % stride === offset % stride).slice(0, count)
  }
  const edits = [some(EDITED_AT_HUB, 1).map(change('hub')), some(EDITED_AT_FIELD, 3).map(change('field'))] as const
  const taken = new Set(edits[0].map(({ id }) => id))
  const atField = edits[1].filter(({ id }) => !taken.has(id))
  const added = places.slice(0, ADDED_AT_FIELD).map((place, n) => ({
    ...place,
    id: stableId(`camp ${n}`),
    data: { ...place.data, name: `Camp ${n + 1}, near ${place.data.name}` },
  }))
  await step('Edit at both sites while they do not talk', async () => {
    await Promise.all([write(hub, 'place', edits[0]), write(field, 'place', [...atField, ...added])])
    return [undefined, { records: edits[0].length + atField.length + added.length }]
  })
  await step('Sync: each gets what the other did', (progress) => syncStep(field, progress))
}

async function conflict(hub: Site, field: Site, place: Row): Promise<void> {
  await step('A conflict: both change one place, neither knows of the other', async (progress) => {
    await write(hub, 'place', [{ id: place.id, data: { note: 'bridge closed' } }])
    await write(field, 'place', [{ id: place.id, data: { note: 'bridge open again' } }])
    return syncStep(field, progress)
  })
  const [there, here] = await Promise.all([shown(hub, place.id), shown(field, place.id)])
  tell(
    `${place.data.name}: the hub wrote "bridge closed", later the field "bridge open again"; the rule is: newer wins`,
  )
  tell(`now "${there.data?.note}" at the hub and "${here.data?.note}" at the field`)
  const { items } = await field.call<Past>('GET', `/records/place/${place.id}/history`)
  for (const { reason, data } of items.slice(0, 1)) tell(`history of the field keeps "${data?.note}" (${reason})`)
  if (here.data?.note !== 'bridge open again' || there.data?.note !== here.data.note || items.length === 0) {
    throw new Error('the conflict was not settled as the rule says')
  }
}

async function deletion(hub: Site, field: Site, place: Row): Promise<void> {
  await step('A deletion at the field', async (progress) => {
    await write(field, 'place', [{ id: place.id, deleted: true }])
    return syncStep(field, progress)
  })
  const { deleted } = await shown(hub, place.id)
  tell(`${place.data.name} is gone at the hub too, and stays gone`)
  if (deleted !== true) throw new Error('the deletion did not reach the hub')
}

async function missingParent(hub: Site, field: Site): Promise<void> {
  const country = { id: countryId('XX'), data: { code: 'XX', name: 'A new country', continent: 'EU' } }
  const refs = { country: { resource: 'country', id: country.id } }
  const place = { id: stableId('place XX'), data: { name: 'Its first town', latitude: 0, longitude: 0 }, refs }
  // A parent that is only late is fetched by its id. This one the field does not take for a while.
  const { items: tasks } = await field.call<{ items: { id: string }[] }>('GET', '/tasks?resource=country')
  const taking = (enabled: boolean) => field.change(`/tasks/${tasks[0]?.id}`, { enabled })
  await step('A place arrives while countries are not taken', async (progress) => {
    await taking(false)
    await write(hub, 'country', [country])
    await write(hub, 'place', [place])
    return syncStep(field, progress, { resources: ['place'], result: 'warning' })
  })
  const before = await field.call<Waiting>('GET', '/quarantine?resource=place')
  tell(`in quarantine at the field: ${before.items.map(({ reason }) => reason).join('; ')}`)
  await step('Its country follows', async (progress) => {
    await taking(true)
    return syncStep(field, progress, { resources: ['country'] })
  })
  const after = await field.call<Waiting>('GET', '/quarantine?resource=place')
  const here = await shown(field, place.id)
  tell(`"${here.data?.name}" was applied by itself; ${after.items.length} records in quarantine`)
  if (before.items.length !== 1 || after.items.length !== 0) throw new Error('quarantine did not do what it promises')
}

/** As the sites themselves do it: by counts and sums of living records, in a few small answers. */
async function compareDigests(field: Site): Promise<boolean> {
  return step('Compare by digests', async () => {
    const { resources } = await field.call<Verified>('POST', '/peers/hub/verify', {})
    const equal = resources.length === RESOURCES.length && resources.every((each) => each.equal)
    const result = resources.map((each) => `${each.resource} ${each.equal ? 'equal' : 'DIFFERENT'}`).join(', ')
    return [equal, { result, records: resources.reduce((sum, { checked }) => sum + checked, 0) }] as const
  })
}

/** As somebody who trusts neither site would do it: every value of every record is read at both. */
async function compareValues(hub: Site, field: Site): Promise<boolean> {
  return step('Compare every value of every record', async () => {
    const [there, here] = await Promise.all([hashRecords(hub), hashRecords(field)])
    const equal = there.hash === here.hash && there.count === here.count
    return [equal, { result: equal ? 'equal' : 'DIFFERENT', records: here.count }] as const
  })
}

/** Records come in the order of their ids. What a version has seen may differ between equal sites, so versions are left out. */
async function hashRecords(site: Site): Promise<{ readonly hash: string; readonly count: number }> {
  const hash = createHash('sha256')
  let count = 0
  for (const resource of RESOURCES) {
    for await (const line of site.lines(`/records/${resource}`)) {
      const { id, data, refs } = JSON.parse(line) as Partial<Row>
      if (id === undefined) continue
      hash.update(JSON.stringify([id, data, refs]))
      count++
    }
  }
  return { hash: hash.digest('hex'), count }
}

type SyncOptions = { readonly resources?: readonly string[]; readonly total?: number; readonly result?: string }

/** One run of the field with the hub, followed to its end. */
async function syncStep(
  field: Site,
  progress: Progress,
  options: SyncOptions = {},
): Promise<readonly [Run, StepFacts]> {
  const { resources, total, result = 'success' } = options
  if (total !== undefined) progress.total(total)
  const body = { peer: 'hub', ...(resources && { resources }) }
  const { runs } = await field.call<{ runs: readonly { runId: string }[] }>('POST', '/sync', body)
  const id = runs[0]?.runId
  if (id === undefined) throw new Error('no run began')
  for (;;) {
    const run = await field.call<Run>('GET', `/runs/${id}`)
    const { pulled = 0, pushed = 0, bytesIn = 0, bytesOut = 0 } = run.counts
    progress.at(pulled + pushed)
    if (run.finishedAt !== null) {
      if (run.result !== result) throw new Error(`run ${id} ended with ${run.result}: ${run.message}`)
      return [run, { records: pulled + pushed, bytes: bytesIn + bytesOut }]
    }
    await sleep(POLL_MS)
  }
}

async function shown(site: Site, id: string): Promise<Shown> {
  return site.call<Shown>('GET', `/records/place/${id}`)
}

/** Writes records at a site by hand, as its own. */
async function write(
  site: Site,
  resource: string,
  changes: readonly Change[],
  progress: (done: number) => void = () => {},
): Promise<void> {
  for (let done = 0; done < changes.length; done += IMPORT_ROWS) {
    const body = changes
      .slice(done, done + IMPORT_ROWS)
      .map((change) => `${JSON.stringify(change)}\n`)
      .join('')
    const { counts, rejections } = await site.send<BatchReport>(`/records/${resource}`, 'application/x-ndjson', body)
    if ((counts.refused ?? 0) > 0) throw new Error(`${site.name} refused a record: ${rejections[0]?.reason}`)
    progress(Math.min(done + IMPORT_ROWS, changes.length))
  }
}
