import assert from 'node:assert/strict'
import fc from 'fast-check'
import t from 'tap'
import {
  type Change,
  codecForContentType,
  type FileState,
  fileFoot,
  fileHead,
  filePiece,
  fillTemplate,
  fitsFile,
  folderFaults,
  folderSettings,
  isTemporary,
  type Json,
  NEW_FILE,
  numbered,
  patternFaults,
  readJsonFile,
  readPattern,
  templateFaults,
} from '../../src/sync/index.ts'
import { holds } from './holds.ts'

const RESOURCE = `\${resource}`
const fits = (pattern: string, resources: readonly string[] = []) => readPattern(pattern).matcher(resources)

t.test('a pattern fits names as people expect, and tells the resource', async (t) => {
  for (const [pattern, good, bad] of [
    ['in/*.xml', ['in/a.xml', 'in/.xml'], ['in/a.xml.gz', 'in/deep/a.xml', 'out/a.xml', 'in/a_xml', 'xin/a.xml']],
    ['**/*.csv', ['a.csv', 'b/a.csv', 'b/c/a.csv'], ['a.csv/x', '.b/a.csv']],
    ['in/?[ab]-[!x].json', ['in/1a-2.json', 'in/.b-é.json'], ['in/1c-2.json', 'in/1a-x.json', 'in/a-2.json']],
    ['a+(b).txt', ['a+(b).txt'], ['aab.txt', 'ab.txt']],
  ] as const) {
    t.same(patternFaults(pattern), [])
    for (const name of good) t.ok(fits(pattern)(name), `${pattern} fits ${name}`)
    for (const name of bad) t.notOk(fits(pattern)(name), `${pattern} does not fit ${name}`)
  }
  const both = fits(`${RESOURCE}-*.csv`, ['org', 'org-office'])
  t.same(both('org-office-1.csv'), { resource: 'org-office' }, 'the longest name counts')
  t.same(both('org-x.csv'), { resource: 'org' })
  t.notOk(both('other-1.csv'))
  t.notOk(fits(RESOURCE, [])(''), 'nothing is of no resource')
})

t.test('patterns and templates that lead elsewhere or cannot be kept are refused', async (t) => {
  for (const wrong of [
    '',
    '/etc/*',
    '../x',
    'a/../b',
    'a/./b',
    '.git/*',
    'a\\b',
    'a\nb',
    'a**b',
    '[abc',
    'a/',
    '$HOME/x',
    `${RESOURCE}/${RESOURCE}`,
    '*'.repeat(13),
    'x'.repeat(501),
    'a/b/c/d/e/f/g',
  ])
    t.ok(patternFaults(wrong).length > 0, JSON.stringify(wrong))
  for (const wrong of ['/a', '../a', '.a', `\${nothing}`, 'a$b', 'a/', 'x'.repeat(501), `\${id}.part`, 'a.tmp/b', 'a~'])
    t.ok(templateFaults(wrong).length > 0, wrong)
  t.same(templateFaults(`out/${RESOURCE}/\${year}-\${month}-\${day}T\${hour}\${minute}\${second}.xml`), [])
})

t.test('no value makes a name hidden, or lead out of its folder', async (t) => {
  const facts = { resource: 'area', id: 'a', peer: 'ngo', site: 'here', at: Date.UTC(2026, 10, 5, 4, 3, 2) }
  t.equal(
    fillTemplate(`\${year}/\${month}/\${timestamp}-\${hour}-\${peer}.xml`, facts),
    '2026/11/20261105T040302-04-ngo.xml',
  )
  holds(
    t,
    fc.property(
      fc.string({ unit: 'binary' }),
      fc.constantFrom(`\${id}`, `a/\${id}/b`, `\${id}\${id}.xml`),
      (id, template) => {
        const name = fillTemplate(template, { ...facts, id })
        return (
          name.split('/').length === template.split('/').length &&
          name.split('/').every((part) => !isTemporary(part) && /^[\w.-]*$/.test(part) && part.length <= 210)
        )
      },
    ),
  )
  for (const [id, name] of [
    ['a.tmp', 'a_tmp'],
    ['b.x.LOCK', 'b.x_LOCK'],
    ['c~', 'c_'],
    ['.part', '_part'],
    [`${'x'.repeat(95)}.part.xml`, `${'x'.repeat(95)}_part`],
  ] as const)
    t.equal(fillTemplate(`\${id}`, { ...facts, id }), name, 'nor is it taken for one that is not ready')
  t.equal(numbered('out/a.tar.gz', 2), 'out/a-2.tar.gz')
  t.equal(numbered('out.d/a', 3), 'out.d/a-3')
  for (const name of ['.a', 'a~', 'a.part', 'a.TMP', '.a.xml.Xy12']) t.ok(isTemporary(name), name)
  for (const name of ['a.xml', 'part', 'a.partly']) t.notOk(isTemporary(name), name)
})

t.test('every fault of the settings is told at once', async (t) => {
  const faults = folderFaults(folderSettings({ path: 'x', read: '../a', write: `\${x}`, done: '..', quarantine: '/q' }))
  t.same(
    faults.map(({ path }) => path),
    ['path', 'read', 'write', 'done', 'quarantine'],
  )
  t.same(folderFaults(folderSettings({ path: '/srv/x', read: 'in/*', write: 'out/a', after: 'delete' })), [])
})

const text = fc.oneof(
  fc.string({ unit: 'binary' }).filter((each) => each.isWellFormed() && !each.includes('\0')),
  fc.constantFrom('', ' x', '"', ',', 'a\r\nb', '=1+1', 'null', '\ufeff'),
)
const json: fc.Arbitrary<Json> = fc
  .jsonValue({ maxDepth: 2 })
  // JSON has no -0.
  .map((value) => JSON.parse(JSON.stringify(value)))
const put = fc
  .record({ id: text.filter((id) => id !== '' && id.length < 100), name: fc.option(text), more: fc.option(json) })
  .map(({ id, name, more }): Change => ({ kind: 'put', id, data: { name, more } }))
const change = fc.oneof(
  { weight: 5, arbitrary: put },
  {
    weight: 1,
    arbitrary: text.filter((id) => id !== '' && id.length < 100).map((id): Change => ({ kind: 'delete', id })),
  },
)

/** All records of a file as one text, by the pieces that a run writes. */
function written(how: Parameters<typeof fileHead>[0], changes: readonly Change[]): string {
  let state: FileState = NEW_FILE
  let whole = fileHead(how)
  for (const each of changes) {
    const piece = filePiece(how, state, 'area', { change: each, jsonColumns: ['more'] })
    whole += piece.text
    state = piece.state
  }
  return whole + fileFoot(how, state)
}

t.test('what is written as CSV is read back as it was', async (t) => {
  holds(
    t,
    fc.property(put, fc.array(change, { maxLength: 20 }), (first, rest) => {
      const how = { format: 'csv', layout: 'resource', readable: false } as const
      const all = [first, ...rest]
      const codec = codecForContentType('text/csv')
      if (codec.name === 'lines') throw new Error('CSV is a codec')
      const context = {
        resource: 'area',
        refs: {},
        trailer: 'optional',
        recordsMax: 1000,
        recordBytesMax: 1e6,
        depthMax: 64,
        jsonColumns: ['more'],
      } as const
      const [batch] = codec.decode(Buffer.from(written(how, all)), context)
      assert.deepEqual(batch?.changes, all)
    }),
    200,
  )
})

t.test(
  'what is written as our own JSON is read back as it was, readable or not, of one resource or several',
  async (t) => {
    const context = { depthMax: 64, named: undefined, refsOf: () => ({}) }
    holds(
      t,
      fc.property(
        fc.array(change, { minLength: 1, maxLength: 10 }),
        fc.boolean(),
        fc.constantFrom('resource', 'all'),
        (changes, readable, layout) => {
          const how = { format: 'json', layout: layout as 'resource' | 'all', readable } as const
          assert.deepEqual(readJsonFile(written(how, changes), context), [{ resource: 'area', changes }])
        },
      ),
      200,
    )
    const how = { format: 'json', layout: 'all', readable: false } as const
    const [a, b] = [filePiece(how, NEW_FILE, 'a', { change: { kind: 'delete', id: '1' } }), undefined]
    const second = filePiece(how, a.state, 'b', { change: { kind: 'put', id: '2', data: { n: b ?? 1 } } })
    const whole = `${fileHead(how)}${a.text}${second.text}${fileFoot(how, second.state)}`
    t.same(
      readJsonFile(whole, context).map(({ resource, changes }) => [resource, changes.map(({ id }) => id)]),
      [
        ['a', ['1']],
        ['b', ['2']],
      ],
    )
  },
)

t.test('a document that is not what it should be is refused with its place', async (t) => {
  const context = { depthMax: 8, named: 'area', refsOf: () => ({}) }
  for (const [document, message] of [
    ['[]', /no object/],
    ['{', /JSON/],
    ['{"changes":{}}', /changes must be a list/],
    ['{"changes":[{"id":"a","data":{}},{"id":"b"}]}', /^record 2: a change has data/],
    ['{"changes":[],"more":1}', /unknown member "more"/],
    ['{"resource":"other","changes":[]}', /the document is of "other", the name of the file of "area"/],
    ['{"resources":[{"changes":[]}]}', /part 1: .*which resource/],
    ['{"resources":[{"resource":"a","changes":[1]}]}', /part 1: record 1: /],
    [`{"changes":[{"id":"a","data":{"x":${'['.repeat(30)}${']'.repeat(30)}}}]}`, /level|deep/],
  ] as const)
    t.throws(() => readJsonFile(document, context), { code: 'SYNC_FORMAT_INVALID', message }, document.slice(0, 60))
})

t.test('records with other columns need another CSV file, as a table has one set of them', async (t) => {
  const how = { format: 'csv', layout: 'resource', readable: false } as const
  const { state } = filePiece(how, NEW_FILE, 'area', { change: { kind: 'put', id: 'a', data: { b: 1, a: 2 } } })
  const fit = (data: Record<string, Json>) => fitsFile(how, state, { change: { kind: 'put', id: 'x', data } })
  t.ok(fit({ a: null, b: null }))
  t.notOk(fit({ a: null }))
  t.notOk(fit({ a: null, c: null }))
  t.ok(fitsFile(how, state, { change: { kind: 'delete', id: 'x' } }))
  const begun = filePiece(how, NEW_FILE, 'area', { change: { kind: 'delete', id: 'x' } })
  t.notOk(
    fitsFile(how, begun.state, { change: { kind: 'put', id: 'x', data: { a: 1 } } }),
    'a file of deletions has none',
  )
})
