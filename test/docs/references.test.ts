import { existsSync, readdirSync, readFileSync } from 'node:fs'
import { dirname, join, normalize, relative } from 'node:path'
import t from 'tap'
import { ERRORS } from '../../src/sync/index.ts'

const ROOT = join(import.meta.dirname, '../..')
const PROTOCOL = 'docs/protocol.md'

type Page = { readonly path: string; readonly text: string }

function pagesBelow(folder: string): string[] {
  return readdirSync(join(ROOT, folder), { recursive: true, encoding: 'utf8' })
    .filter((name) => name.endsWith('.md'))
    .map((name) => join(folder, name))
}

const TOP = readdirSync(ROOT).filter((name) => name.endsWith('.md'))
const pages: readonly Page[] = [...TOP, ...pagesBelow('docs')].map((path) => ({
  path,
  text: readFileSync(join(ROOT, path), 'utf8'),
}))

/** Text outside of fenced blocks, where links and names mean what they say. */
function prose(text: string): string {
  return text.replace(/^```[\s\S]*?^```/gm, '')
}

/** Anchors as GitHub makes them of headings. */
function anchorsOf(text: string): Set<string> {
  const headings = [...prose(text).matchAll(/^#+ +(.+)$/gm)].map(([, heading = '']) => heading)
  return new Set(
    headings.map((heading) =>
      heading
        .toLowerCase()
        .replace(/[^\p{L}\p{N} _-]/gu, '')
        .replaceAll(' ', '-'),
    ),
  )
}

function brokenLinks({ path, text }: Page, exists: (path: string) => boolean = (file) => existsSync(join(ROOT, file))) {
  return [...prose(text).matchAll(/\]\(([^)\s]+)\)/g)].flatMap(([, target = '']) => {
    if (/^https?:/.test(target)) return []
    const [file = '', anchor] = target.split('#')
    const to = file === '' ? path : normalize(join(dirname(path), file))
    if (file !== '' && !exists(to)) return [`${path}: ${target}`]
    if (anchor === undefined) return []
    const there = pages.find((page) => page.path === to)?.text ?? text
    return anchorsOf(there).has(anchor) ? [] : [`${path}: ${target}`]
  })
}

/** Names in backticks that can only be files of this project. */
const FILE = /`((?:src|test|docs|migrations|openapi|scripts|demo|bench|bin|\.ci)\/[\w@./-]*|[A-Z]+\.md)`/g

function missingFiles(
  { path, text }: Page,
  exists: (path: string) => boolean = (file) => existsSync(join(ROOT, file)),
) {
  return [...prose(text).matchAll(FILE)].flatMap(([, file = '']) =>
    exists(file) || file.includes('NNNN') ? [] : [`${path}: ${file}`],
  )
}

t.test('every link leads to a page and heading that exist', async (t) => {
  t.ok(pages.length > 20)
  const sample = {
    path: 'docs/x.md',
    text: '# A b\n[a](#a-b) [b](#c) [c](gone.md) [d](errors.md) [e](glossary.md#none)',
  }
  t.same(brokenLinks(sample), ['docs/x.md: #c', 'docs/x.md: gone.md', 'docs/x.md: glossary.md#none'])
  t.same(
    pages.flatMap((page) => brokenLinks(page)),
    [],
  )
})

t.test('every file that is named exists', async (t) => {
  const sample = { path: 'x.md', text: '`src/gone.ts` `src/sync/index.ts` `README.md` `test/tidy.test.ts`' }
  t.same(missingFiles(sample), ['x.md: src/gone.ts'])
  t.same(
    pages.flatMap((page) => missingFiles(page)),
    [],
  )
})

t.test('every page below docs can be reached from the README', async (t) => {
  const reached = new Set<string>()
  const open = ['README.md']
  for (let path = open.pop(); path !== undefined; path = open.pop()) {
    if (reached.has(path)) continue
    reached.add(path)
    const { text = '' } = pages.find((page) => page.path === path) ?? {}
    for (const [, target = ''] of text.matchAll(/\]\(([^)#\s]+)/g)) {
      const to = normalize(join(dirname(path), target))
      if (to.endsWith('.md')) open.push(to)
      if (existsSync(join(ROOT, to)) && to.replace(/\/$/, '') === 'docs/adr') open.push(...pagesBelow('docs/adr'))
    }
  }
  t.same(
    pages.map(({ path }) => path).filter((path) => path.startsWith('docs/') && !reached.has(path)),
    [],
  )
})

/** Error codes, settings and metrics in a text that the program does not know. */
function unknownNames({ path, text }: Page): string[] {
  const codes = Object.keys(ERRORS)
  const known = (pattern: RegExp, exists: (name: string) => boolean) =>
    [...text.matchAll(pattern)].flatMap(([, name = '']) => (exists(name) ? [] : [`${path}: ${name}`]))
  return [
    ...known(/\b(SYNC_[A-Z_]*[A-Z])\b/g, (code) => codes.some((each) => `${each}_`.startsWith(`${code}_`))),
    ...known(/\b(SYNCLINE_[A-Z_]*[A-Z])\b/g, (name) => settings.includes(`\`${name}\``) || VARIABLES.test(name)),
    ...known(/`syncline_([a-z_]+)[`{]/g, (name) => metrics.has(name)),
  ]
}

/** Variables that are no settings of a site. */
const VARIABLES = /_FILE$|^SYNCLINE_CONFIG$|^SYNCLINE_TEST_/
const settings = readFileSync(join(ROOT, 'docs/guides/settings.md'), 'utf8')
const meters = ['metrics.ts', 'job-events.ts']
  .map((name) => readFileSync(join(ROOT, 'src/observe', name), 'utf8'))
  .join('\n')
const metrics = new Set([...meters.matchAll(/'([a-z_]+)'/g)].map(([, name]) => name))

t.test('every error code, setting and metric that is named exists', async (t) => {
  const text =
    'SYNC_STORE_BUSY SYNC_STORE_ SYNC_GONE SYNCLINE_PORT SYNCLINE_POR `syncline_quarantine{peer}` `syncline_none`'
  t.same(unknownNames({ path: 'x.md', text }), ['x.md: SYNC_GONE', 'x.md: SYNCLINE_POR', 'x.md: none'])
  t.same(pages.flatMap(unknownNames), [])
})

/** A line such as `- a title of a test: test/sync/run.test.ts` below an invariant. */
const PROOF = /^ {2}- (.+): `(test\/[\w./-]+\.ts)`$/

type Proof = { readonly invariant: string; readonly title: string; readonly file: string }

function proofsOf(text: string): Proof[] {
  let invariant = ''
  return text.split('\n').flatMap((line) => {
    invariant = /^- \*\*(I\d+)/.exec(line)?.[1] ?? invariant
    const [, title, file] = PROOF.exec(line) ?? []
    return title === undefined || file === undefined ? [] : [{ invariant, title, file }]
  })
}

/** Titles of the tests in a file; what a template inserts may be anything. */
function titlesOf(file: string): RegExp[] {
  const text = readFileSync(join(ROOT, file), 'utf8')
  return [...text.matchAll(/(?:\.test|^test|^rule)\(\s*(['`])((?:\\.|(?!\1).)+)\1/gm)].map(([, , title = '']) => {
    const parts = title.replaceAll("\\'", "'").split(/\$\{[^}]*\}/)
    return new RegExp(`^${parts.map((part) => part.replace(/[.*+?^${}()|[\]\\]/g, '\\$&')).join('.+')}$`)
  })
}

t.test('every invariant names tests that exist, or says that it is not yet there', async (t) => {
  const { text = '' } = pages.find(({ path }) => path === PROTOCOL) ?? {}
  const invariants = [...text.matchAll(/^- \*\*(I\d+) /gm)].map(([, number]) => number)
  t.same(
    invariants,
    Array.from({ length: 12 }, (_, n) => `I${n + 1}`),
  )
  const proofs = proofsOf(text)
  for (const { invariant, title, file } of proofs) {
    const known = existsSync(join(ROOT, file)) ? titlesOf(file) : []
    t.ok(
      known.some((pattern) => pattern.test(title)),
      `${invariant}: "${title}" in ${relative('.', file)}`,
    )
  }
  const sections = text.split(/^- \*\*(?=I\d+ )/m).slice(1)
  for (const section of sections) {
    const number = /^I\d+/.exec(section)?.[0]
    const proven = proofs.some(({ invariant }) => invariant === number)
    t.ok(proven || /Not yet:/.test(section), `${number} has a test or says why not`)
  }
  t.notOk(titlesOf('test/tidy.test.ts').some((pattern) => pattern.test('a title that nobody wrote')))
})
