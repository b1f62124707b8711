import assert from 'node:assert/strict'
import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import fc from 'fast-check'
import { DummyDriver, Kysely, PostgresAdapter, PostgresIntrospector, PostgresQueryCompiler, sql } from 'kysely'
import t, { type Test } from 'tap'
import { openStore, type Store } from '../../src/store/database.ts'
import { filterSql } from '../../src/store/filter-sql.ts'
import {
  evaluate,
  type FilterColumn,
  type FilterLiteral,
  type FilterLookup,
  type FilterOperand,
  type FilterRecord,
  type FilterTree,
  formatFilter,
  type Json,
  parseFilter,
  resolveFilter,
} from '../../src/sync/index.ts'
import { startPostgres } from '../support/postgres.ts'

const REGION_UUIDS = ['00000000-0000-4000-8000-0000000000f1', '00000000-0000-4000-8000-0000000000f2']
const COUNTRY_UUIDS = [
  'c0000000-0000-4000-8000-000000000001',
  'c0000000-0000-4000-8000-000000000002',
  'c0000000-0000-4000-8000-00000000000a',
]
const TEXTS = [
  '',
  'a',
  'A',
  'ab',
  'AB',
  'ab ',
  'a%b',
  'a_b',
  'a\\b',
  'Zz',
  'é',
  'e\u0301',
  '\uffee',
  '😀',
  "it's",
  '10',
  'İ',
  'ß',
]
const MOMENTS = [
  '2024-02-29',
  '2024-02-29T23:30:00',
  '2024-02-29 23:30:00.000001',
  '0044-03-15 10:00:00',
  '9999-12-31T00:00',
]

/** Values of a column as SQL takes them, and constants to compare them with; null is added to the values. */
type Pool = { readonly values: readonly string[]; readonly constants: readonly FilterLiteral[] }

const texts = (values: readonly string[]): FilterLiteral[] => values.map((value) => ({ type: 'string', value }))
const numbers = (...values: readonly string[]): FilterLiteral[] => values.map((value) => ({ type: 'number', value }))
const INTEGERS = numbers(
  '0',
  '-1',
  '10',
  '10.5',
  '32767',
  '40000',
  '2147483647',
  '3000000000',
  '9223372036854775807',
  '9223372036854775808',
)

const POOLS: Readonly<Record<string, Pool>> = {
  int2: { values: ['0', '-1', '10', '32767'], constants: INTEGERS },
  int4: { values: ['0', '-1', '10', '2147483647'], constants: [...INTEGERS, ...texts(['10', '-1'])] },
  int8: { values: ['0', '-1', '10', '3000000000', '9223372036854775807'], constants: INTEGERS },
  numeric: {
    values: ['0', '-1.50', '10', '10.000', '0.1', '12345678901234567890.123456789', 'NaN'],
    constants: [
      ...numbers('0', '-1.5', '10', '0.1', '12345678901234567890.123456789', `1${'0'.repeat(300)}`),
      ...texts(['10.0', '-1.50']),
    ],
  },
  float4: {
    values: ['0', '-0', '0.1', '-1.5', 'NaN', 'Infinity', '3e38'],
    constants: numbers('0', '0.1', '-1.5', '0.10000000149', '16777217'),
  },
  float8: {
    values: ['0', '-0', '0.1', '0.3', 'NaN', '-Infinity', '1e300'],
    constants: numbers('0', '0.1', '0.30000000000000000001', `1${'0'.repeat(300)}`),
  },
  bool: {
    values: ['true', 'false'],
    constants: [
      { type: 'boolean', value: true },
      { type: 'boolean', value: false },
    ],
  },
  text: { values: TEXTS, constants: texts(TEXTS) },
  varchar: { values: TEXTS, constants: texts(TEXTS) },
  bpchar: { values: ['', 'a', 'ab', 'A ', 'é', ' a'], constants: texts(['', 'a', 'ab', 'ab   ', 'A', 'é', ' a']) },
  uuid: {
    values: COUNTRY_UUIDS,
    constants: texts([...COUNTRY_UUIDS, COUNTRY_UUIDS.join('').slice(0, 36).toUpperCase()]),
  },
  date: {
    values: ['2024-02-29', '0044-03-15 BC', '1970-01-01', 'infinity'],
    constants: texts(['2024-02-29', '1970-01-02', 'infinity', '-infinity', '0001-01-01']),
  },
  timestamp: {
    values: [...MOMENTS, '0044-03-15 10:00:00 BC', '-infinity'],
    constants: texts([...MOMENTS, '-infinity']),
  },
  timestamptz: {
    values: [
      '2024-02-29T23:30:00Z',
      '2024-03-01 01:30:00+02',
      '2024-02-29 23:30:00.000001-12:45',
      '0044-03-15 10:00:00+00 BC',
      'infinity',
    ],
    constants: texts([
      ...MOMENTS,
      '2024-03-01T01:30:00+02:00',
      '2024-02-29T23:30:00.000001-1245',
      'infinity',
      '2024-02-29T23:30Z',
    ]),
  },
  time: {
    values: ['00:00', '10:00:00.5', '24:00:00', '23:59:59.999999'],
    constants: texts(['00:00', '10:00:00.500000', '24:00', '23:59:59.999999']),
  },
  mood: { values: ['sad', 'ok', 'very happy'], constants: texts(['sad', 'ok', 'SAD', "it's"]) },
  _text: { values: ['{}', '{a,b}', '{NULL}', '{NULL,A}', '{{a,é},{b,b}}'], constants: texts(['a', 'b', 'A', 'é', '']) },
  _int4: { values: ['{}', '{1,-2}', '{NULL,3}'], constants: [...numbers('1', '-2', '3', '1.5'), ...texts(['3'])] },
  _uuid: {
    values: ['{}', `{${COUNTRY_UUIDS.join(',')}}`],
    constants: texts(COUNTRY_UUIDS.map((id) => id.toUpperCase())),
  },
  jsonb: {
    values: ['null', '{"a": null}', '"null"', '[]', '["a", 1.0, null, true]', '[["a"], "1"]'],
    constants: [...texts(['a', '1', 'null']), ...numbers('1', '1.5'), { type: 'boolean', value: true }],
  },
  json: { values: [' null ', '{"a": null}', '0', '["a", 1]'], constants: [...texts(['a']), ...numbers('1', '0')] },
  region: { values: ['1', '2'], constants: texts(REGION_UUIDS) },
  country: { values: ['1', '2', '3'], constants: texts(COUNTRY_UUIDS) },
}
const TEXTUAL = ['text', 'varchar', 'bpchar', 'uuid', 'mood', 'country', 'region']
const ORDERLESS = ['mood']
const LISTS = ['_text', '_int4', '_uuid', 'json', 'jsonb']
const PATTERNS = [
  '',
  '%',
  'a%',
  '%b',
  '_',
  '__',
  'a\\%b',
  'a\\_%',
  '%\\\\%',
  'A_',
  'é',
  '%-%',
  '%e%',
  's%',
  'c0000000%1',
  'ß',
  'i%',
  '%a%b%',
  'É',
  'I%',
  'SS',
]

const KINDS = Object.keys(POOLS).filter((kind) => kind !== 'region' && kind !== 'country')
const REGION: FilterColumn[] = [{ name: 'uuid', type: 'uuid' }]
const COUNTRY: FilterColumn[] = [
  { name: 'uuid', type: 'uuid' },
  ...KINDS.map((type) => ({ name: `c ${type}`, type })),
  {
    name: 'region_id',
    type: 'int4',
    ref: {
      resource: 'region',
      table: { schema: 'geo', name: 'region' },
      keyColumn: 'uuid',
      targetColumn: 'id',
      columns: REGION,
    },
  },
]
/** The key is text, and not among the columns that travel; the second reference holds the record id itself. */
const HOSPITAL: FilterColumn[] = [
  ...KINDS.map((type) => ({ name: `H"${type}`, type })),
  {
    name: 'country_id',
    type: 'int4',
    ref: {
      resource: 'country',
      table: { schema: 'geo', name: 'country"s' },
      keyColumn: 'uuid',
      targetColumn: 'id',
      columns: COUNTRY,
    },
  },
  {
    name: 'near',
    type: 'uuid',
    ref: {
      resource: 'country',
      table: { schema: 'geo', name: 'country"s' },
      keyColumn: 'uuid',
      targetColumn: 'uuid',
      columns: COUNTRY,
    },
  },
]

const ddl = (columns: readonly FilterColumn[]) =>
  columns
    .filter(({ name, ref }) => name !== 'uuid' && ref === undefined)
    .map(
      ({ name, type }) =>
        `, "${name.replaceAll('"', '""')}" ${type === 'bpchar' ? 'char(4)' : type.startsWith('_') ? `${type.slice(1)}[]` : type}`,
    )
    .join('')

async function createTables({ db }: Store): Promise<void> {
  await sql`create schema geo`.execute(db)
  await sql`create type mood as enum ('very happy', 'sad', 'ok')`.execute(db)
  await sql`create table geo.region (id int primary key, uuid uuid not null unique)`.execute(db)
  await sql`create table geo."country""s" (id int primary key, uuid uuid not null unique ${sql.raw(ddl(COUNTRY))}, region_id int references geo.region)`.execute(
    db,
  )
  await sql`create table hospital (key text primary key ${sql.raw(ddl(HOSPITAL))}, country_id int references geo."country""s",
    near uuid references geo."country""s" (uuid))`.execute(db)
  for (const [index, uuid] of REGION_UUIDS.entries()) {
    await sql`insert into geo.region values (${index + 1}, ${uuid})`.execute(db)
  }
}

const nullable = (values: readonly string[]) => fc.option(fc.constantFrom(...values), { freq: 4 })
const rowOf = (columns: readonly FilterColumn[]) =>
  fc.tuple(
    ...columns
      .filter(({ name }) => name !== 'uuid')
      .map(({ name, type, ref }) => {
        if (name === 'near') return nullable(COUNTRY_UUIDS)
        return nullable(POOLS[ref?.resource ?? type]?.values ?? [])
      }),
  )

/** Fills the tables with random rows and reads them as records, in the form in which they travel. */
async function fill(
  { db }: Store,
  seed: number,
): Promise<{ readonly records: readonly FilterRecord[]; readonly lookup: FilterLookup }> {
  const countries = fc.sample(rowOf(COUNTRY), { seed, numRuns: COUNTRY_UUIDS.length })
  const hospitals = fc.sample(rowOf(HOSPITAL), { seed, numRuns: 60 })
  await sql`truncate hospital, geo."country""s"`.execute(db)
  for (const [index, row] of countries.entries()) {
    await sql`insert into geo."country""s" values (${sql.join([index + 1, COUNTRY_UUIDS[index], ...row])})`.execute(db)
  }
  for (const [index, row] of hospitals.entries()) {
    await sql`insert into hospital values (${sql.join([`${index % 2 === 0 ? 'é' : 'z'}${index}`, ...row])})`.execute(db)
  }
  const lookup = new Map((await read(db, 'geo', 'country"s', 'uuid', COUNTRY)).map((record) => [record.id, record]))
  return {
    records: await read(db, 'public', 'hospital', 'key', HOSPITAL),
    lookup: (_column, id) => lookup.get(id) ?? null,
  }
}

async function read(
  db: Store['db'],
  schema: string,
  table: string,
  key: string,
  columns: readonly FilterColumn[],
): Promise<FilterRecord[]> {
  const native = [
    'bool',
    'int2',
    'int4',
    'float4',
    'float8',
    'date',
    'time',
    'timestamp',
    'timestamptz',
    'json',
    'jsonb',
    '_text',
    '_int4',
    '_uuid',
  ]
  const values = columns.map(({ name, type, ref }) => {
    const value = sql.id('t', name)
    if (ref === undefined) return native.includes(type) ? value : sql`${value}::text`
    return sql`(select p.uuid::text from ${sql.id(ref.table.schema, ref.table.name)} p where ${sql.id('p', ref.targetColumn)} = ${value})`
  })
  const { rows } = await sql<{ id: string; values: Json[] }>`
    select ${sql.id(key)}::text as id, json_build_array(${sql.join(values)}) as values from ${sql.id(schema, table)} t`.execute(
    db,
  )
  return rows.map(({ id, values }) => ({
    id,
    data: Object.fromEntries(columns.map(({ name }, index) => [name, values[index] ?? null])),
  }))
}

const operands: readonly (readonly [FilterOperand, string])[] = [
  ...HOSPITAL.map(({ name, type, ref }) => [{ name }, ref?.resource ?? type] as const),
  ...COUNTRY.flatMap(({ name, type, ref }) => [
    [{ reference: 'country', name }, ref?.resource ?? type] as const,
    [{ reference: 'near', name }, ref?.resource ?? type] as const,
  ]),
  [{ name: 'id' }, 'text'],
  [{ reference: 'country_id', name: 'id' }, 'uuid'],
]
const term: fc.Arbitrary<FilterTree> = fc
  .constantFrom(...operands)
  .chain(([operand, kind]): fc.Arbitrary<FilterTree> => {
    const isNull = fc.record({ kind: fc.constant('null'), operand: fc.constant(operand), negated: fc.boolean() })
    if (LISTS.includes(kind)) {
      const value = fc.constantFrom(...(POOLS[kind]?.constants ?? []))
      const has = { kind: fc.constant('has'), operand: fc.constant(operand), value, negated: fc.boolean() }
      return fc.oneof(isNull, fc.record(has)) as fc.Arbitrary<FilterTree>
    }
    const constant = fc.constantFrom(...(POOLS[kind]?.constants ?? []))
    const operator = ORDERLESS.includes(kind)
      ? fc.constantFrom('=', '!=')
      : fc.constantFrom('=', '!=', '<', '<=', '>', '>=')
    const compare = fc.record({
      kind: fc.constant('compare'),
      operand: fc.constant(operand),
      operator,
      value: constant,
    })
    const values = fc
      .tuple(constant, fc.array(constant, { maxLength: 3 }))
      .map(([first, rest]) => [first, ...rest] as const)
    const isIn = fc.record({ kind: fc.constant('in'), operand: fc.constant(operand), values, negated: fc.boolean() })
    const like = fc.record({
      kind: fc.constant('like'),
      operand: fc.constant(operand),
      pattern: fc.constantFrom(...PATTERNS),
      ignoreCase: fc.boolean(),
      negated: fc.boolean(),
    })
    const textual = ['text', 'varchar', 'bpchar', 'uuid', 'mood', 'country', 'region'].includes(kind)
    return textual ? fc.oneof(compare, isIn, isNull, like) : fc.oneof(compare, isIn, isNull)
  })
const { tree: anyTree } = fc.letrec<{ tree: FilterTree }>((tie) => ({
  tree: fc.oneof(
    { maxDepth: 3 },
    { weight: 3, arbitrary: term },
    {
      weight: 2,
      arbitrary: fc.record({
        kind: fc.constantFrom('and', 'or'),
        trees: fc
          .tuple(tie('tree'), tie('tree'), fc.array(tie('tree'), { maxLength: 2 }))
          .map(([a, b, more]) => [a, b, ...more] as const),
      }),
    },
    { weight: 1, arbitrary: fc.record({ kind: fc.constant('not'), tree: tie('tree') }) },
  ),
}))

/** Ids of the records that a filter matches, in the database. */
async function matchesOf({ db }: Store, tree: FilterTree): Promise<string[]> {
  const condition = filterSql(tree, resolveFilter(tree, HOSPITAL, 'key'), 't')
  const { rows } = await sql<{
    key: string
    matches: boolean
  }>`select key, ${condition} as matches from hospital t order by key`.execute(db)
  assert.ok(
    rows.every(({ matches }) => typeof matches === 'boolean'),
    'the condition is never null',
  )
  return rows.filter(({ matches }) => matches).map(({ key }) => key)
}

function suite(name: string, open: (t: Test) => Promise<Store>) {
  t.test(name, async (t) => {
    const store = await open(t)
    t.teardown(() => store.close())
    await createTables(store)

    t.test('selects the same records as evaluate, whatever the filter and the rows', async (t) => {
      const used = new Set<string>()
      const tally = { none: 0, some: 0, all: 0 }
      const property = (records: readonly FilterRecord[], lookup: FilterLookup) =>
        fc.asyncProperty(anyTree, async (tree) => {
          const columns = resolveFilter(tree, HOSPITAL, 'key')
          const expected = records.filter((record) => evaluate(tree, record, lookup, columns)).map(({ id }) => id)
          const found = await matchesOf(store, tree)
          assert.deepEqual(found.sort(), expected.sort(), formatFilter(tree))
          tally[found.length === 0 ? 'none' : found.length === records.length ? 'all' : 'some']++
          for (const { kind, type } of columns.values()) used.add(`${kind} ${type}`)
        })
      for (let round = 0; round < 4; round++) {
        const seed = Math.floor(Math.random() * 0x7fffffff)
        t.comment(`rows of seed ${seed}`)
        const { records, lookup } = await fill(store, seed)
        await fc.assert(property(records, lookup), { numRuns: 150 })
      }
      t.ok(tally.some > 100, `filters that matched ${JSON.stringify(tally)} of the records`)
      t.ok(used.size >= KINDS.length, [...used].join(', '))
    })

    t.test('compares every kind of value with every constant and pattern like evaluate does', async (t) => {
      const { records, lookup } = await fill(store, 1)
      const trees = operands.flatMap(([operand, kind]): FilterTree[] => {
        const operators = ORDERLESS.includes(kind) ? (['=', '!='] as const) : (['=', '<', '>='] as const)
        const constants = POOLS[kind]?.constants ?? []
        if (LISTS.includes(kind))
          return constants.flatMap((value) =>
            [true, false].map((negated) => ({ kind: 'has', operand, value, negated }) as const),
          )
        const compared = constants.flatMap((value) =>
          operators.map((operator) => ({ kind: 'compare', operand, operator, value }) as const),
        )
        const patterns = TEXTUAL.includes(kind) ? PATTERNS : []
        const liked = patterns.flatMap((pattern) =>
          [true, false].map((ignoreCase) => ({ kind: 'like', operand, pattern, ignoreCase, negated: false }) as const),
        )
        return [...compared, ...liked]
      })
      for (const tree of trees) {
        const columns = resolveFilter(tree, HOSPITAL, 'key')
        const expected = records.filter((record) => evaluate(tree, record, lookup, columns)).map(({ id }) => id)
        assert.deepEqual((await matchesOf(store, tree)).sort(), expected.sort(), formatFilter(tree))
      }
      t.ok(trees.length > 2000, `${trees.length} comparisons agree`)
    })

    t.test('says false, not null, for what is unknown, also where a left join found no row', async (t) => {
      await fill(store, 2)
      const tree = parseFilter(`"H""int4" = 10 or not ("H""int4" = 10)`)
      const condition = filterSql(tree, resolveFilter(tree, HOSPITAL), 't')
      const { rows } = await sql<{ known: boolean; matches: boolean }>`
        select "H""int4" is not null as known, ${condition} as matches from (values (1)) v left join hospital t on true
        union all select false, ${condition} from (values (1)) v left join hospital t on false`.execute(store.db)
      t.ok(rows.every(({ known, matches }) => known === matches))
      t.ok(rows.some(({ known }) => known) && rows.filter(({ known }) => !known).length > 1)
    })

    t.test('takes hostile texts and names as what they are', async (t) => {
      const text = `'); drop table hospital; --`
      const column = `x"); drop table hospital; --`
      await sql`create table ${sql.id(column)} (${sql.id(column)} text, key text)`.execute(store.db)
      await sql`insert into ${sql.id(column)} values (${text}, 'k')`.execute(store.db)
      const quoted = `"${column.replaceAll('"', '""')}"`
      const tree = parseFilter(
        `${quoted} = '${text.replaceAll("'", "''")}' and ${quoted} in ('{a,b}', '${text.replaceAll("'", "''")}')`,
      )
      const condition = filterSql(tree, resolveFilter(tree, [{ name: column, type: 'text' }]), column)
      const { rows } = await sql`select 1 from ${sql.id(column)} as ${sql.id(column)} where ${condition}`.execute(
        store.db,
      )
      t.equal(rows.length, 1)
    })
  })
}

suite('on PostgreSQL', openPostgres)

t.test('text compares by code point whatever the collation of the column', async (t) => {
  const store = await openPostgres(t)
  t.teardown(() => store.close())
  await sql`create collation caseless (provider = icu, locale = 'und-u-ks-level2', deterministic = false)`.execute(
    store.db,
  )
  await sql`create table word (key text primary key, w text collate caseless, d text collate "und-x-icu")`.execute(
    store.db,
  )
  await sql`insert into word values ('1', 'HAITI', 'a'), ('2', 'Haiti', 'B')`.execute(store.db)
  const columns = [
    { name: 'w', type: 'text' },
    { name: 'd', type: 'text' },
  ]
  const found = async (text: string) => {
    const tree = parseFilter(text)
    const { rows } = await sql<{
      key: string
    }>`select key from word where ${filterSql(tree, resolveFilter(tree, columns), 'word')}`.execute(store.db)
    return rows.map(({ key }) => key)
  }
  t.strictSame(await found("w = 'Haiti'"), ['2'])
  t.strictSame(await found("w in ('Haiti', 'x') and w like 'H%'"), ['2'])
  t.strictSame(await found("d > 'Z'"), ['1'])
})

/** A cluster of its own each time, because a test's teardown ends it. */
async function openPostgres(t: Test): Promise<Store> {
  const cluster = await startPostgres(t)
  const { url } = await cluster.createDatabase()
  return openStore({ databaseUrl: url, dataDir: tmpdir() })
}

suite('on the embedded database', async (t) => {
  const dataDir = await mkdtemp(join(tmpdir(), 'syncline-filter-'))
  t.teardown(() => rm(dataDir, { recursive: true, force: true }))
  return openStore({ dataDir })
})

t.test('a filter becomes one condition in which every constant is a parameter of the column’s type', async (t) => {
  const compiler = new Kysely<unknown>({
    dialect: {
      createAdapter: () => new PostgresAdapter(),
      createDriver: () => new DummyDriver(),
      createIntrospector: (db) => new PostgresIntrospector(db),
      createQueryCompiler: () => new PostgresQueryCompiler(),
    },
  })
  const compile = (text: string) => {
    const tree = parseFilter(text)
    return filterSql(tree, resolveFilter(tree, HOSPITAL, 'key'), 't').compile(compiler)
  }
  const first = compile(`"H""int4" >= 10 and country."c bpchar" in ('HT','DO ') and not ("H""text" like 'X%')`)
  t.equal(
    first.sql,
    '((("t"."H""int4" >= $1::int4) and ((select "t_parent"."c bpchar" from "geo"."country""s" as "t_parent" where "t_parent"."id" = "t"."country_id")::text ' +
      'collate "C" = any ($2::text[])) and (not ("t"."H""text" collate "C" like $3::text))) is true)',
  )
  t.strictSame(first.parameters, ['10', ['HT', 'DO'], 'X%'])
  const integers = compile(
    '"H""int2" in (1, 40000) or "H""int2" in (1, 2) or "H""int2" = 1.5 or "H""int8" < 9223372036854775808',
  )
  t.match(integers.sql, /\$1::int8\[\].*\$2::int2\[\].*\$3::numeric.*\$4::numeric/)
  const references = compile(
    `country_id = '${COUNTRY_UUIDS[0]}' and near = '${COUNTRY_UUIDS[0]}' and country.region_id is null and near.id is null`,
  )
  t.equal(
    references.sql,
    '((((select "t_target"."uuid" from "geo"."country""s" as "t_target" where "t_target"."id" = "t"."country_id") = $1::uuid) and ("t"."near" = $2::uuid) and ' +
      '((select "t_parent"."region_id" from "geo"."country""s" as "t_parent" where "t_parent"."id" = "t"."country_id") is null) and ' +
      '((select "t_parent"."uuid" from "geo"."country""s" as "t_parent" where "t_parent"."uuid" = "t"."near") is null)) is true)',
  )
  t.throws(
    () => filterSql(parseFilter('a = 1'), new Map(), 't').compile(compiler),
    /Column a of the filter was not resolved/,
  )
})
