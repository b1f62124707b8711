import t, { type Test } from 'tap'
import {
  type EdenElement,
  type EdenKnown,
  type EdenRecord,
  type EdenState,
  type EdenTrail,
  type EdenVariable,
  edenElement,
  edenFilters,
  edenRecords,
  edenShapes,
  edenTimeOf,
  edenUuid,
  emptied,
  followTrail,
  idOfEdenUuid,
  noteAnswer,
  placesOf,
  printsOf,
  readArrival,
  readEdenTime,
  type ShapeSource,
  s3xmlReader,
  s3xmlWriter,
  siteOfRepository,
  tuidsOf,
  typeofWishes,
  type Version,
  writeEdenTime,
} from '../../src/sync/index.ts'
import { NAMES, S3XML } from '../fixtures/eden/documents.ts'

const text = { form: 'text', baseType: 'text' } as const
const source = (
  name: string,
  columns: Readonly<Record<string, Partial<ShapeSource['columns'][number]>>>,
  references: Readonly<Record<string, string>> = {},
  keyType = 'pg_catalog.text',
): ShapeSource => ({
  name,
  keyType,
  columns: Object.entries({ ...columns, ...Object.fromEntries(Object.keys(references).map((each) => [each, {}])) }).map(
    ([column, more]) => ({ name: column, sent: true, ...text, ...more }),
  ),
  references: Object.entries(references).map(([column, resource]) => ({ column: { name: column }, resource })),
})

const number = { baseType: 'int4', form: 'native' } as const
const SHAPES = edenShapes(
  [
    source(
      'gis_location',
      { name: {}, lat: { baseType: 'float8', form: 'native' }, lon: { baseType: 'float8', form: 'native' } },
      { parent: 'gis_location' },
    ),
    source('org_sector', { name: {} }),
    source('org_organisation_type', { name: {} }),
    source(
      'org_organisation',
      {
        ...{ name: {}, acronym: {}, comments: {}, note: {}, empty: {}, gone: {}, created_by: {} },
        year: number,
        share: { baseType: 'numeric', form: 'text' },
        founded: { baseType: 'date' },
        verified_on: { baseType: 'timestamptz' },
        at: { baseType: 'time' },
        facts: { baseType: 'jsonb', form: 'json' },
        tags: { baseType: '_text', form: 'array' },
        sector_ids: { baseType: '_text', form: 'array' },
        logo: {},
      },
      { root_organisation: 'org_organisation' },
    ),
    source(
      'org_office',
      { name: {}, obsolete: { baseType: 'bool', form: 'native' } },
      { organisation_id: 'org_organisation', location_id: 'gis_location' },
    ),
    source(
      'org_organisation_organisation_type',
      {},
      { organisation_id: 'org_organisation', organisation_type_id: 'org_organisation_type' },
    ),
    source('org_sector_organisation', {}, { organisation_id: 'org_organisation', sector_id: 'org_sector' }),
    source('pr_person', { name: {} }, {}, 'pg_catalog.uuid'),
  ],
  { org_organisation: { uploads: ['logo'] } },
)

function elements(document: string): readonly EdenElement[] {
  const reader = s3xmlReader({ elementsMax: 100, recordBytesMax: 100_000, depthMax: 32, bytesMax: 1_000_000 })
  return [...reader.write(Buffer.from(document)), ...reader.end()]
}
const records = (document: string): readonly EdenRecord[] => {
  const all = elements(document)
  const tuids = tuidsOf(all, SHAPES)
  return all.flatMap((element) => edenRecords(element, SHAPES, tuids).records)
}
const one = (fields: string, attributes = ''): EdenRecord =>
  records(
    `<s3xml><resource name="org_organisation" uuid="urn:uuid:1" ${attributes}>${fields}</resource></s3xml>`,
  )[0] as EdenRecord

t.test('an element is its record, its components with a reference to it, and what this site has not', async (t) => {
  const [first, second] = elements(
    S3XML['an organisation with components, the records they refer to, and a super-entity'] ?? '',
  )
  const taken = edenRecords(first as EdenElement, SHAPES)
  t.same(taken.faults, [])
  t.same(
    taken.records.map(({ shape, change }) => [shape.resource, change.id]),
    [
      ['org_organisation', NAMES.org(1)],
      ['org_office', NAMES.office],
    ],
    'the super-entity that repeats the office is left out',
  )
  const [organisation, office] = taken.records
  t.match(organisation?.change, {
    kind: 'put',
    data: {
      name: 'Water & "Light" <ü>',
      acronym: 'WL',
      year: 1987,
      comments: 'first\nsecond',
      created_by: 'ada@example.org',
    },
    refs: { root_organisation: { resource: 'org_organisation', id: NAMES.org(1) } },
  })
  t.equal(organisation?.modifiedOn, Date.parse('2026-03-02T09:30:00Z') / 1_000)
  t.match(office?.change, {
    data: { obsolete: false },
    refs: {
      organisation_id: { resource: 'org_organisation', id: NAMES.org(1) },
      location_id: { resource: 'gis_location', id: NAMES.place },
    },
  })
  t.same(
    taken.strangers.map(({ element, within }) => [element.table, within?.id]),
    [['pr_role', NAMES.org(1)]],
    'kept to the letter',
  )
  t.equal(second?.table, 'gis_location')
})

t.test(
  'a table stands inside the one of its module that its column is named after; a link in the richer of two',
  async (t) => {
    const inside = (table: string) => SHAPES.get(table)?.components.map((component) => component.table)
    t.same(inside('org_organisation'), ['org_office', 'org_organisation_organisation_type', 'org_sector_organisation'])
    t.same(inside('org_sector'), [])
    t.same(inside('gis_location'), [], 'another module')
  },
)

t.test('values of every type come in, and go out in the attribute', async (t) => {
  const [record] = records(S3XML['values of every kind'] ?? '')
  t.same(record?.change.kind === 'put' && record.change.data, {
    founded: '1999-12-31',
    verified_on: '2026-01-02T03:04:05Z',
    at: '08:15:00',
    tags: ['a', 'b'],
    facts: { a: [1, { b: null }] },
    share: '0.10',
    logo: 'http://eden.example.org/eden/default/download/x.png',
    note: '&lt;b&gt; stays',
    empty: '',
    gone: null,
  })
  t.same(record?.uploads, [
    { column: 'logo', url: 'http://eden.example.org/eden/default/download/x.png', filename: 'x.png' },
  ])
  const shape = SHAPES.get('org_organisation')
  if (record === undefined || shape === undefined) return
  const out = edenElement({ change: record.change, version: { origin: 'o', clock: 5_000_000 } }, shape, SHAPES)
  const values = Object.fromEntries(out.fields.map(({ field, attributes }) => [field, attributes.value ?? attributes]))
  t.match(values, {
    founded: '1999-12-31',
    verified_on: '2026-01-02T03:04:05',
    facts: '{"a":[1,{"b":null}]}',
    share: '0.10',
    note: '"&lt;b&gt; stays"',
    gone: { null: 'true' },
    logo: { filename: 'x.png' },
  })
  const file = 'http://eden.example.org/eden/default/download/a.png'
  const told = edenElement(
    { change: { kind: 'put', id: 'x', data: { name: file } }, version: { origin: 'o', clock: 1 } },
    shape,
    SHAPES,
  )
  t.same(told.fields[0]?.attributes, { url: file, filename: 'a.png' }, 'and goes out as the file again')
  const writer = s3xmlWriter()
  const again = records(`<s3xml>${writer.element(out)}</s3xml>`)
  t.same(again[0]?.change, record.change, 'and comes back as it was')
  t.same(again[0]?.prints, printsOf(record.change, shape))
})

t.test('what Eden cannot tell from nothing has no print, and two spellings of a value have one', async (t) => {
  const prints = (fields: string) => one(fields).prints
  t.same(prints('<data field="name"/><data field="year" null="true"/>'), {})
  t.same(prints('<data field="share" value="0.10"/>'), prints('<data field="share">0.1</data>'))
  t.same(
    prints('<data field="verified_on" value="2026-01-02T03:04:05"/>'),
    prints('<data field="verified_on" value="2026-01-02T04:04:05.250+01:00"/>'),
  )
  t.same(
    prints('<data field="facts" value="{&quot;a&quot;: 1, &quot;b&quot;: 2}"/>'),
    prints('<data field="facts" value="{&quot;b&quot;:2,&quot;a&quot;:1}"/>'),
  )
  t.same(
    prints('<data field="name">a</data>'),
    prints('<data field="name" value="&quot;a&quot;">shown</data>'),
    'Eden writes a text in either way',
  )
  t.strictNotSame(prints('<data field="name">a</data>'), prints('<data field="name">b</data>'))
})

t.test('what a value may look like, and what is no value', async (t) => {
  const value = (fields: string) => {
    const { change } = one(fields)
    return change.kind === 'put' ? Object.values(change.data)[0] : undefined
  }
  t.equal(value('<data field="name" value="XYZ"/>'), 'XYZ', 'a bare word in the attribute is the word')
  t.equal(value('<data field="name" value="true"/>'), 'true', 'a column of text keeps what stands there')
  t.equal(value('<data field="year">1999</data>'), 1999)
  t.equal(value('<data field="year"/>'), undefined, 'an empty element says nothing of a number')
  t.equal(value('<data field="name"/>'), '')
  const file = 'http://eden.example.org/eden/default/download/a.png'
  t.equal(
    value(`<data field="name" url="${file}" filename="a.png"/>`),
    file,
    'of a file a column of text keeps the address',
  )
  t.equal(value('<data field="verified_on" value="2026-01-02T03:04:05+02:00"/>'), '2026-01-02T01:04:05Z')
  t.equal(
    value('<data field="verified_on" value="2026-01-02"/>'),
    '2026-01-02T08:00:00Z',
    'as Eden reads a date without a time',
  )
  t.same(value('<data field="odd" value="[1]"/>'), [1], 'a field without a column is kept by its name')
  for (const [fields, pattern] of [
    ['<data field="year" value="&quot;abcd&quot;"/>', /field "year".*is no number/],
    ['<data field="founded" value="2026-02-31"/>', /is no date/],
    ['<data field="name">a</data><data field="name">b</data>', /given twice/],
    ['<data field="name" error="no">a</data>', /marked with the error/],
    ['<reference field="root_organisation" resource="org_office" uuid="x"/>', /here it refers to org_organisation/],
    ['<reference field="root_organisation" resource="org_organisation" tuid="T"/>', /which the document has not/],
    ['<data field="__proto__">a</data>', /no field has the name/],
  ] as const) {
    const [element] = elements(`<s3xml><resource name="org_organisation" uuid="u">${fields}</resource></s3xml>`)
    const { faults, records: taken } = edenRecords(element as EdenElement, SHAPES)
    t.match(faults[0]?.reason, pattern)
    t.equal(taken.length, 0)
  }
  t.match(
    edenRecords(
      elements(
        '<s3xml><resource name="org_organisation" uuid="u" modified_on="not-a-date"/></s3xml>',
      )[0] as EdenElement,
      SHAPES,
    ).faults[0]?.reason,
    /no time/,
  )
})

t.test('records without a name are the same records when the document comes again', async (t) => {
  const document = S3XML['tuids, a record inside a reference, and a list of references'] ?? ''
  const [first, second] = [records(document), records(document)]
  t.same(
    first.map(({ change }) => change),
    second.map(({ change }) => change),
  )
  const byTable = Map.groupBy(first, ({ shape }) => shape.table)
  t.same([...byTable.keys()].sort(), [
    'org_organisation',
    'org_organisation_organisation_type',
    'org_organisation_type',
    'org_sector',
    'org_sector_organisation',
  ])
  const link = byTable.get('org_organisation_organisation_type')?.[0]?.change
  t.match(link, { refs: { organisation_type_id: { id: byTable.get('org_organisation_type')?.[0]?.change.id } } })
  t.match(byTable.get('org_organisation')?.[0]?.change, { data: { sector_ids: ['urn:uuid:a', 'urn:uuid:b'] } })
  t.match(byTable.get('org_sector_organisation')?.[0]?.change, {
    refs: { sector_id: { id: byTable.get('org_sector')?.[0]?.change.id } },
  })
})

t.test('a deletion names the winner of a merge; names of records and sites cross over and back', async (t) => {
  const [gone, merged] = records(S3XML['a deletion and a merge'] ?? '')
  t.same([gone?.change.kind, gone?.replacedBy, merged?.replacedBy], ['delete', undefined, NAMES.org(1)])
  for (const [id, uuidKey, uuid] of [
    ['AT', false, 'urn:syncline:AT'],
    ['urn:uuid:1', false, 'urn:uuid:1'],
    ['vm/CUSTOM1', false, 'vm/CUSTOM1'],
    ['urn:syncline:AT', false, 'urn:syncline:urn:syncline:AT'],
    ['0e000000-0000-4000-8000-000000000001', true, 'urn:uuid:0e000000-0000-4000-8000-000000000001'],
  ] as const) {
    t.equal(edenUuid(id, uuidKey), uuid)
    t.equal(idOfEdenUuid(uuid, uuidKey), id)
  }
  t.equal(siteOfRepository('urn:uuid:DA664842-9AEF-45B5-BF23-F99D8B1E4044'), 'da664842-9aef-45b5-bf23-f99d8b1e4044')
  t.equal(siteOfRepository('nope'), undefined)
})

t.test('times are seconds of UTC; a version is told with the latest second that it has seen', async (t) => {
  t.equal(readEdenTime('2026-11-21T10:00:03'), Date.UTC(2026, 10, 21, 10, 0, 3) / 1_000)
  t.equal(readEdenTime('2026-11-21 10:00:03Z'), readEdenTime('2026-11-21T12:00:03+02:00'))
  for (const wrong of ['', 'not-a-date', '2026-02-30T00:00:00', '2026-01-01T25:00:00', '10:00:03'])
    t.equal(readEdenTime(wrong), undefined, wrong)
  t.equal(writeEdenTime(readEdenTime('2026-11-21T10:00:03') ?? 0), '2026-11-21T10:00:03')
  t.equal(
    edenTimeOf({ origin: 'a', clock: 5_900_000, seen: { b: 7_100_000 } }),
    7,
    'Eden refuses what is older than its own write',
  )
})

const OURS: Version = { origin: 'ours', clock: 10_400_123, seen: { eden: 4_000_000 } }
const state = (modifiedOn: number, prints: Record<string, string>, version: Version): EdenState => ({
  modifiedOn,
  deleted: false,
  prints,
  version,
})
const HAVE = state(4, { name: 'a', year: 'b' }, { origin: 'eden', clock: 4_000_000 })
const SENT = state(10, { name: 'A', year: 'B' }, OURS)
const arrival = (modifiedOn: number | undefined, prints: Record<string, string>, known?: EdenKnown, deleted = false) =>
  readArrival({ origin: 'eden', modifiedOn, deleted, prints, nowMicros: 99_000_000 }, known)

t.test('I4: what Eden was sent and sends back is that very version, to the microsecond', async (t) => {
  t.match(arrival(10, { name: 'A', year: 'B' }, { have: HAVE, sent: SENT }), { kind: 'known', have: { version: OURS } })
  t.match(
    arrival(10, { name: 'A' }, { have: HAVE, sent: SENT }),
    { kind: 'known', have: { version: OURS } },
    'a field that Eden dropped proves nothing',
  )
  t.match(
    arrival(12, {}, { sent: { ...SENT, deleted: true } }, true),
    { kind: 'known', have: { version: OURS, modifiedOn: 12 } },
    'Eden stamps a deletion itself',
  )
  t.match(
    arrival(4, { name: 'a', year: 'b' }, { have: HAVE, sent: SENT }),
    { kind: 'known', have: { version: HAVE.version } },
    'it has not taken ours yet',
  )
})

t.test('I7: a write of Eden has seen what Eden was proved to have, and nothing else', async (t) => {
  const write = (...given: Parameters<typeof arrival>) => {
    const arrived = arrival(...given)
    return arrived.kind === 'write' ? arrived.have.version : arrived.kind
  }
  t.same(write(6, { name: 'x' }), { origin: 'eden', clock: 6_000_000 }, 'the first one has seen nothing')
  t.same(write(6, { name: 'x' }, { have: HAVE }), { origin: 'eden', clock: 6_000_000 })
  t.same(
    write(12, { name: 'x' }, { have: HAVE, sent: SENT }),
    { origin: 'eden', clock: 12_000_000 },
    'beside an unproved one of ours it is concurrent',
  )
  t.same(write(12, { name: 'x' }, { have: SENT }), { origin: 'eden', clock: 12_000_000, seen: { ours: 10_400_123 } })
  t.match(
    write(10, { name: 'cut', year: 'B' }, { have: HAVE, sent: SENT }),
    { origin: 'eden', seen: { ours: 10_400_123 } },
    'what Eden made of ours in the very second that it was told',
  )
  t.match(
    write(4, { name: 'x', year: 'b' }, { have: HAVE }),
    { origin: 'eden', clock: 4_000_001 },
    'a second write in one second is another one',
  )
  t.same(write(undefined, { name: 'x' }), { origin: 'eden', clock: 99_000_000 }, 'without a time it is of now')
  t.equal(
    write(undefined, { name: 'a', year: 'b' }, { have: HAVE }),
    'known',
    'and the same again is none: links come without a time in every push',
  )
  t.equal(write(3, { name: 'older' }, { have: HAVE }), 'old', 'nothing older wins')
  t.equal(write(20, { name: 'a', year: 'b' }, { have: HAVE }), 'known', 'a touch is no write')
  t.not(write(20, { name: 'a', year: 'b' }, { have: HAVE, sent: SENT }), 'known', 'ours taken and turned back is one')
})

t.test('a field that Eden had and shows no more was emptied, where the document is whole', async (t) => {
  const whole = 'mci="1" created_on="2026-03-01T08:00:00" modified_on="2026-03-02T08:00:00"'
  t.match(emptied(one('<data field="name">a</data>', whole), ['year', 'root_organisation', 'nowhere']), {
    data: { name: 'a', year: null },
    refs: { root_organisation: null },
  })
  t.same(
    emptied(one('<data field="name">a</data>'), ['year']),
    one('<data field="name">a</data>').change,
    'a person names what he means',
  )
})

t.test('the trail of a puller: taken, not taken, put back, unknown', async (t) => {
  const asked = (trail: EdenTrail | undefined, msince: string | null) => followTrail(trail, msince)
  const first = asked(undefined, null)
  t.same(placesOf(first), {})
  const told = noteAnswer(
    first,
    { city: 'c1' },
    { from: readEdenTime('2026-01-01T00:00:00') ?? 0, until: readEdenTime('2026-01-02T00:00:00') ?? 0 },
  )
  t.same(placesOf(asked(told, null)), {}, 'it asks from the beginning again: it took nothing')
  const taken = asked(told, '2026-01-02T00:00:01')
  t.same(placesOf(taken), { city: 'c1' }, 'the time of the youngest and one second')
  t.same(placesOf(asked(told, '2026-01-01T12:00:01')), { city: 'c1' }, 'or of one in between, when the youngest failed')
  t.same(
    placesOf(asked(told, '2025-12-31T23:55:01')),
    { city: 'c1' },
    'or of a little before, where somebody asks with an overlap',
  )
  t.same(placesOf(asked(told, '2025-06-01T00:00:00')), {}, 'a time that nothing in the answer has says nothing of it')
  t.same(placesOf(asked(told, '2026-01-05T00:00:00')), {})
  const again = noteAnswer(
    taken,
    { city: 'c2' },
    { from: readEdenTime('2025-01-01T00:00:00') ?? 0, until: readEdenTime('2025-01-01T00:00:00') ?? 0 },
  )
  t.same(
    placesOf(asked(again, '2026-01-02T00:00:01')),
    { city: 'c1' },
    'the same time again: the answer was lost, and is told again',
  )
  const older = asked(again, '2025-01-01T00:00:01')
  t.same(placesOf(older), { city: 'c2' }, 'a record with an old time sets the clock of Eden back, and is not lost')
  t.same(placesOf(asked(older, '2026-01-02T00:00:01')), { city: 'c1' }, 'Eden was put back to an earlier state')
  t.same(placesOf(asked(older, '2020-01-01T00:00:00')), {}, 'a time that it never had from here: everything')
  t.same(
    placesOf(noteAnswer(older, { city: 'c3' }, null)),
    { city: 'c3' },
    'where nothing was told, nothing can be lost',
  )
  let long = first
  for (let n = 0; n < 50; n++) {
    const second = 1_000_000 + n * 100
    long = asked(noteAnswer(long, { city: `c${n}` }, { from: second, until: second }), writeEdenTime(second + 1))
  }
  t.equal(long.taken.length, 20, 'what is remembered has a bound')
})

t.test('filters in brackets become filters of this site', async (t) => {
  const shape = SHAPES.get('org_organisation')
  if (shape === undefined) return
  const filter = (...variables: EdenVariable[]) => Object.fromEntries(edenFilters(variables, shape, SHAPES).byTable)
  const own = (key: string, value: string) => filter([key, value]).org_organisation
  t.equal(own('[~]~.name', 'Red'), "name = 'Red'")
  t.equal(own('[]name__like', 'A*_'), "name ilike 'A%\\_'")
  t.equal(own('[~]~.acronym__like!', 'B*'), "not (acronym ilike 'B%')")
  t.equal(own('[~]~.year__ge', '1990'), 'year >= 1990')
  t.equal(own('[~]~.year', '1990,1991'), 'year in (1990, 1991)')
  t.equal(own('[~]~.year__ne', 'NONE'), 'year is not null')
  t.equal(own('[~]~.acronym', 'NONE,A'), "acronym is null or acronym = 'A'")
  t.equal(own('[~]organisation.name', '"a, b"'), "name = 'a, b'")
  t.equal(own('[~]~.root_organisation$name', 'Top'), "root_organisation.name = 'Top'")
  t.equal(own('[~](~.name|~.acronym)__like', '*x*'), "name ilike '%x%' or acronym ilike '%x%'")
  t.equal(own('[~]~.comments__contains', 'x'), "comments ilike '%x%'")
  t.same(filter(['[~]~.name', 'a'], ['[~]~.year__lt', '5'], ['[org_office]~.obsolete', 'false']), {
    org_organisation: "name = 'a' and year < 5",
    org_office: 'obsolete = false',
  })
  t.same(edenFilters([['[~]office.name__like!', 'A*']], shape, SHAPES).inside, [
    { table: 'org_office', column: 'organisation_id', filter: "not (name ilike 'A%')" },
  ])
  refusedFilter(t, own, '[~]office.code', 'x', /"org_office" has no field "code"/)
  refusedFilter(t, own, '[~]person.name', 'x', /"person" is nothing that stands inside/)
  refusedFilter(t, own, '[~]~.nowhere', 'x', /no field "nowhere"/)
  refusedFilter(t, own, '[nowhere]~.name', 'x', /no table "nowhere"/)
  refusedFilter(t, own, '[~]~.year', 'abc', /is no number/)
  refusedFilter(t, own, '[~]~.year__contains', '1', /"year" is no text and no list/)
  refusedFilter(t, own, '[~]~.name__sounds', 'x', /no operator "sounds"/)
})

t.test('filters look into lists, below records and into rectangles', async (t) => {
  const shape = SHAPES.get('org_organisation')
  const places = SHAPES.get('gis_location')
  const offices = SHAPES.get('org_office')
  if (shape === undefined || places === undefined || offices === undefined) return
  const own = (key: string, value: string) => edenFilters([[key, value]], shape, SHAPES).byTable.get('org_organisation')
  t.equal(own('[~]~.tags__contains', 'a,b'), "tags has 'a' and tags has 'b'")
  t.equal(own('[~]~.tags__anyof', 'a,b'), "tags has 'a' or tags has 'b'")
  t.equal(own('[~]~.tags', 'a,b'), "tags has 'a' or tags has 'b'", 'a list of values means any of them')
  t.equal(own('[~]~.tags__anyof!', 'a,NONE'), "not (tags is null or tags has 'a')")
  t.equal(own('[~]~.sector_ids__anyof', 'urn:uuid:s1'), "sector_ids has 'urn:uuid:s1'")
  t.equal(own('[~]~.facts__contains', '7'), "facts has '7' or facts has 7")

  const below = (resource: string, column: string, id: string) =>
    resource === 'gis_location' && column === 'parent' && id === 'urn:uuid:country'
      ? ['urn:uuid:town', 'urn:uuid:village']
      : []
  const inOffices = (key: string, value: string) =>
    edenFilters([[key, value]], offices, SHAPES, below).byTable.get('org_office')
  t.equal(
    inOffices('~.location_id__typeof', 'urn:uuid:country'),
    "location_id in ('urn:uuid:country', 'urn:uuid:town', 'urn:uuid:village')",
  )
  t.equal(
    inOffices('~.organisation_id__typeof', 'urn:uuid:o1'),
    "organisation_id = 'urn:uuid:o1'",
    'where nothing stands below',
  )
  t.same(typeofWishes([['~.location_id__typeof', 'urn:uuid:a,urn:uuid:b']], offices, SHAPES), [
    { resource: 'gis_location', column: 'parent', id: 'urn:uuid:a' },
    { resource: 'gis_location', column: 'parent', id: 'urn:uuid:b' },
  ])

  const box = 'POLYGON((10 -5.5, 20 -5.5, 20 5, 10 5, 10 -5.5))'
  const within = 'lon >= 10 and lon <= 20 and lat >= -5.5 and lat <= 5'
  const inPlaces = (value: string) =>
    edenFilters([['~.wkt__intersects', value]], places, SHAPES).byTable.get('gis_location')
  t.equal(inPlaces(box), within)
  t.equal(inPlaces(`"SRID=4326;${box}"`), within)
  t.equal(inPlaces('POINT(1.50 2)'), 'lon = 1.5 and lat = 2')
  t.equal(inOffices('~.location_id$the_geom__intersects', box), within.replaceAll(/\b(lon|lat)\b/g, 'location_id.$1'))
  for (const shape of [
    'POLYGON((10 -5, 20 -5, 15 5, 10 -5))',
    'POLYGON((10 -5, 20 5, 20 -5, 10 5, 10 -5))',
    'POLYGON((10 -5, 20 -5, 20 5, 10 5, 10 -4))',
    'POLYGON((10 -5, 20 -5, 20 5, 10 5, 10 -5), (11 0, 12 0, 12 1, 11 1, 11 0))',
    'LINESTRING(1 2, 3 4)',
    'POINT(a b)',
    '',
  ])
    t.throws(() => inPlaces(shape), { code: 'SYNC_FILTER_INVALID', message: /point or a rectangle/ }, shape)
  t.throws(() => own('~.wkt__intersects', box), { code: 'SYNC_FILTER_INVALID', message: /no field "lat"/ })
  t.throws(() => own('~.name__intersects', box), { code: 'SYNC_FILTER_INVALID', message: /no shape on a map/ })
})

function refusedFilter(
  t: Test,
  own: (key: string, value: string) => unknown,
  key: string,
  value: string,
  pattern: RegExp,
) {
  t.throws(() => own(key, value), { code: 'SYNC_FILTER_INVALID', message: pattern })
}
