import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import t from 'tap'
import { generate } from '../scripts/golden/errors.ts'
import { ERRORS } from '../src/sync/index.ts'
import * as house from './support/house.ts'

const ROOT = join(import.meta.dirname, '..')
const source = house.readFiles(ROOT, ['src', 'migrations'])
const everything = [...source, ...house.readFiles(ROOT, ['test', 'bench', 'demo', 'scripts'])]

/** Checks a rule on the checkout, and on bad samples that it must find one fault in each, among good ones where it must find none. */
function rule(
  title: string,
  check: (files: readonly house.SourceFile[]) => string[],
  files: readonly house.SourceFile[],
  samples: { readonly bad: Readonly<Record<string, string>>; readonly good?: Readonly<Record<string, string>> },
): void {
  t.test(title, async (t) => {
    for (const [path, text] of Object.entries(samples.bad))
      t.equal(check([sample(path, text)]).length, 1, `refuses ${path}`)
    for (const [path, text] of Object.entries(samples.good ?? {}))
      t.same(check([sample(path, text)]), [], `accepts ${path}`)
    t.same(check(files), [], 'the checkout keeps the rule')
  })
}

/** Several samples may share a path: what stands after a space is not part of it. */
function sample(name: string, text: string): house.SourceFile {
  return { path: name.split(' ')[0] ?? name, text }
}

t.test('the files of the house are found', async (t) => {
  t.ok(source.some(({ path }) => path === 'src/sync/index.ts'))
  t.ok(source.some(({ path }) => path === 'migrations/index.ts'))
  t.ok(everything.some(({ path }) => path === 'test/tidy.test.ts'))
})

t.test('every form of import is seen, and none inside a comment', async (t) => {
  const text = `import a from './a.ts'
import {
  type B,
  b, // './not.ts'
} from "./b.ts"
import type { C } from './c.ts'
import './d.ts'
export * from './e.ts'
export type { F } from './f.ts'
export const accept = '*/*'
export type G = string
const h = await import('./h.ts')
// import i from './i.ts'
/*
import j from './j.ts'
*/
`
  const found = house.importsOf({ path: 'src/x.ts', text }).sort((a, b) => a.line - b.line)
  t.same(
    found.map(({ specifier, line, typeOnly }) => [specifier, line, typeOnly]),
    [
      ['./a.ts', 1, false],
      ['./b.ts', 2, false],
      ['./c.ts', 6, true],
      ['./d.ts', 7, false],
      ['./e.ts', 8, false],
      ['./f.ts', 9, true],
      ['./h.ts', 12, false],
    ],
  )
})

rule('every file is in a room', house.everyFileHasARoom, source, {
  bad: { 'src/attic/box.ts': '' },
  good: { 'src/main.ts': '', 'src/sync/codec/lines.ts': '', 'migrations/index.ts': '' },
})

rule('arrows between rooms point one way', house.arrowsPointOneWay, source, {
  bad: {
    'src/sync/run.ts': `import { openStore } from '../store/index.ts'`,
    'src/store/apply.ts': `import type { App } from '../server/index.ts'`,
    'src/store/apply.ts (observe)': `import { log } from '../observe/index.ts'`,
    'src/server/app.ts': `import { runPeer } from '../client/index.ts'`,
    'src/observe/events.ts': `import { decide } from '../sync/index.ts'`,
    'src/sync/codec/csv.ts': `export * from '../../config/index.ts'`,
    'src/client/runner.ts': `const cli = await import('../cli/index.ts')`,
    'migrations/20261121T0900-registry.ts': `import { quote } from '../src/store/index.ts'`,
    'src/store/migrate.ts': `import { startPostgres } from '../../test/support/postgres.ts'`,
  },
  good: {
    'src/main.ts': `import { buildApp } from './server/index.ts'`,
    'src/store/migrate.ts': `import { MIGRATIONS } from '../../migrations/index.ts'`,
    'src/observe/events.ts': `import type { ErrorCode } from '../sync/index.ts'`,
  },
})

rule('a room is entered through its index', house.roomsHaveOneDoor, source, {
  bad: {
    'src/store/apply.ts': `import { SynclineError } from '../sync/errors.ts'`,
    'src/store/collect.ts': `import { encode } from '../sync/codec/index.ts'`,
    'src/sync/index.ts': `export * from './codec/lines.ts'`,
    'src/store/migrate.ts': `import * as log from '../../migrations/20261121T0920-log.ts'`,
  },
  good: {
    'src/sync/index.ts': `export * from './codec/index.ts'`,
    'src/sync/codec/lines.ts': `import type { Change } from '../record.ts'`,
    'src/store/registry/peers.ts': `import { types } from '../schema.ts'`,
  },
})

rule('relative imports name the file', house.importsNameTheFile, source, {
  bad: { 'src/sync/run.ts': `import { clock } from './clock'`, 'src/sync/merge.ts': `export * from './version.js'` },
  good: { 'src/sync/run.ts': `import { clock } from './clock.ts'` },
})

rule('a dependency is imported by its owner alone', house.dependenciesHaveOwners, source, {
  bad: {
    'src/server/app.ts': `import pg from 'pg'`,
    'src/client/runner.ts': `import { Kysely } from 'kysely/dialect'`,
    'src/main.ts': `const { PGlite } = await import('@electric-sql/pglite')`,
    'src/jobs/plan.ts': `import lodash from 'lodash'`,
    'src/jobs/executor.ts': `import pump from 'constructor'`,
  },
  good: { 'src/store/database.ts': `import pg from 'pg'\nimport { readFile } from 'node:fs/promises'` },
})

rule('the core is given time, chance and input', house.coreIsPure, source, {
  bad: {
    'src/sync/clock.ts': 'export const now = () => Date.now()',
    'src/sync/run.ts': 'const jitter = Math.random()',
    'src/sync/merge.ts': 'const at = new Date()',
    'src/sync/codec/s3xml.ts': `import { readFile } from 'node:fs/promises'`,
  },
  good: { 'src/sync/clock.ts': '// Date.now() is for others', 'src/jobs/plan.ts': 'const now = Date.now()' },
})

rule('only config reads the environment', house.environmentIsConfig, source, {
  bad: {
    'src/store/database.ts': 'const url = process.env.SYNCLINE_DATABASE_URL',
    'src/cli/main.ts': 'const { env } = process',
    'src/main.ts': `import { env } from 'node:process'`,
  },
  good: { 'src/config/load.ts': 'const env = process.env', 'src/main.ts': '// process.env is read by config' },
})

rule('nothing in src writes to the console', house.noConsole, source, {
  bad: { 'src/server/app.ts': `console.log('here')` },
  good: { 'src/server/app.ts': '// the console. Served at /' },
})

rule('a file of src can be read in one sitting', house.filesAreShort, source, {
  bad: { 'src/store/apply.ts': 'x\n'.repeat(401) },
  good: { 'src/store/apply.ts': 'x\n'.repeat(400) },
})

rule('a folder is named after what it is about', house.foldersHaveMeaning, everything, {
  bad: { 'src/server/utils/text.ts': '', 'src/store/types/row.ts': '', 'test/helpers/wait.ts': '' },
  good: { 'src/sync/utils.ts': '', 'test/support/postgres.ts': '' },
})

rule('nothing is unfinished, skipped or silenced', house.nothingUnfinished, everything, {
  bad: {
    'src/store/apply.ts (1)': `// ${'TO'}DO later`,
    'src/store/apply.ts (2)': `const row = value as ${'any'}`,
    'src/store/apply.ts (3)': `// @ts-${'ignore'}`,
    'test/sync/run.test.ts (4)': `t.${'skip'}('later')`,
    'test/sync/run.test.ts (5)': `t.${'pass'}()`,
  },
  good: { 'src/store/apply.ts': `throw new SynclineError('SYNC_INTERNAL', 'as anybody can see')` },
})

t.test('every dependency has an owner', async (t) => {
  const { dependencies } = JSON.parse(readFileSync(join(ROOT, 'package.json'), 'utf8')) as {
    dependencies: Record<string, string>
  }
  const names = Object.keys(dependencies)
  t.same(house.ownersMatchPackage([...names, 'lodash']), ['package.json:1 lodash has no owner'])
  t.equal(house.ownersMatchPackage(names.filter((name) => name !== 'pg')).length, 1)
  t.same(house.ownersMatchPackage(names), [])
})

t.test('the lock file names no registry', async (t) => {
  t.equal(house.lockNamesNoRegistry('{\n      "resolved": "https://example.org/pg.tgz",\n}').length, 1)
  t.same(house.lockNamesNoRegistry(readFileSync(join(ROOT, 'package-lock.json'), 'utf8')), [])
})

t.test('every error code is thrown, and met in a test', async (t) => {
  const [src, test] = [
    sample('src/a.ts', `throw new SynclineError('SYNC_A', '')`),
    sample('test/a.test.ts', `{ code: 'SYNC_A' }`),
  ]
  t.same(house.codesAreMet(['SYNC_A'], [src, test]), [])
  t.same(house.codesAreMet(['SYNC_A'], [src]), ['src/sync/errors.ts:1 no test meets SYNC_A'])
  t.same(house.codesAreMet(['SYNC_A'], [test]), ['src/sync/errors.ts:1 nothing throws SYNC_A'])
  for (const path of ['src/sync/errors.ts', 'src/server/problem.ts', 'test/tidy.test.ts', 'test/support/a.ts'])
    t.equal(house.codesAreMet(['SYNC_A'], [sample(path, `'SYNC_A' // 'SYNC_A'`)]).length, 2, `${path} is no use of it`)
  t.equal(house.codesAreMet(['SYNC_A'], [src, sample('test/a.test.ts', `// SYNC_A`)]).length, 1, 'nor is a comment')
  t.same(house.codesAreMet(Object.keys(ERRORS), everything), [])
})

t.test('every error code is documented, and docs/errors.md is what npm run golden writes', async (t) => {
  const codes = Object.keys(ERRORS)
  const document = readFileSync(join(ROOT, 'docs/errors.md'), 'utf8')
  const row = '| `SYNC_INTERNAL` |'
  t.same(house.codesAreDocumented(['SYNC_INTERNAL', 'SYNC_NEW'], row), ['docs/errors.md:1 lacks SYNC_NEW'])
  t.equal(house.codesAreDocumented([], row).length, 1)
  t.notSame(generate({ ...ERRORS, SYNC_NEW: ERRORS.SYNC_INTERNAL }), generate())
  t.same(house.codesAreDocumented(codes, document), [])
  t.equal(document, generate(), 'stale: run npm run golden')
})
