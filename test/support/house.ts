/**
 * The rules of the house as functions: files in, faults out. test/tidy.test.ts applies them to the checkout and shows on small bad
 * samples that each of them can fail. A fault reads `path:line what is wrong`.
 */
import { existsSync, readdirSync, readFileSync } from 'node:fs'
import { join, posix } from 'node:path'

/** A file of the checkout: its path from the root with forward slashes, and its text. */
export type SourceFile = { readonly path: string; readonly text: string }

export type Import = {
  readonly specifier: string
  readonly line: number
  /** `import type` and `export type`: nothing of it is left at run time. */
  readonly typeOnly: boolean
}

type Rule = (files: readonly SourceFile[]) => string[]

const LINES_MAX = 400

/**
 * Which rooms a room may import. Arrows point one way: `main, cli → server | client | jobs → store | adapters → sync`; rooms side by side
 * never meet. `config` and `observe` are leaves: they know of the core only what an error or an event is made of.
 */
export const ARROWS: Readonly<Record<string, readonly string[]>> = {
  sync: ['sync/codec'],
  'sync/codec': ['sync'],
  config: ['sync'],
  observe: ['sync'],
  migrations: [],
  store: ['sync', 'migrations'],
  adapters: ['sync', 'observe'],
  server: ['store', 'adapters', 'sync', 'config', 'observe'],
  client: ['store', 'adapters', 'sync', 'config', 'observe'],
  jobs: ['store', 'adapters', 'sync', 'config', 'observe'],
  cli: ['main', 'server', 'client', 'jobs', 'store', 'adapters', 'sync', 'config', 'observe'],
  main: ['cli', 'server', 'client', 'jobs', 'store', 'adapters', 'sync', 'config', 'observe'],
}

/** Rooms that may import only types of another: what they borrow must be gone at run time. */
const TYPES_ONLY: readonly (readonly [from: string, to: string])[] = [['observe', 'sync']]

/** The rooms that may import a runtime dependency. The others reach it through the owner's own words. */
export const OWNERS: Readonly<Record<string, readonly string[]>> = {
  '@electric-sql/pglite': ['store'],
  '@fastify/helmet': ['server'],
  '@fastify/rate-limit': ['server'],
  '@fastify/swagger': ['server'],
  '@fastify/swagger-ui': ['server'],
  '@fastify/type-provider-typebox': ['server'],
  '@fastify/under-pressure': ['server'],
  ajv: ['config', 'server', 'jobs'],
  'cli-progress': ['cli'],
  'cli-table3': ['cli'],
  commander: ['cli'],
  'csv-parse': ['sync/codec'],
  'fast-xml-parser': ['sync/codec'],
  fastify: ['server'],
  kysely: ['store', 'migrations'],
  'node-schedule': ['jobs'],
  nodemailer: ['adapters'],
  pg: ['store'],
  'pg-boss': ['store'],
  pino: ['observe'],
  'prom-client': ['observe'],
  saxes: ['sync/codec'],
  typebox: ['config', 'server'],
  undici: ['client', 'adapters'],
  yaml: ['config', 'cli'],
}

/** What the core may use of Node: nothing that reaches the disk, the network, the clock, chance or another process. */
const CORE_BUILTINS: ReadonlySet<string> = new Set([
  'node:assert/strict',
  'node:buffer',
  'node:stream',
  'node:string_decoder',
  'node:util',
  'node:zlib',
])

/** Every file under those of the given folders that exist. */
export function readFiles(root: string, folders: readonly string[], extension = '.ts'): SourceFile[] {
  return folders
    .filter((folder) => existsSync(join(root, folder)))
    .flatMap((folder) => readdirSync(join(root, folder), { recursive: true, withFileTypes: true }))
    .filter((entry) => entry.isFile() && entry.name.endsWith(extension))
    .map((entry) => join(entry.parentPath, entry.name))
    .map((path) => ({ path: posix.relative(root, path), text: readFileSync(path, 'utf8') }))
}

/** The text with its comments blanked out: strings stay, and every line keeps its number. */
export function withoutComments(text: string): string {
  const token = /'(?:\\.|[^'\\\n])*'|"(?:\\.|[^"\\\n])*"|`(?:\\.|[^`\\])*`|\/\*[\s\S]*?\*\/|\/\/[^\n]*/g
  return text.replace(token, (match) => (/^\/[/*]/.test(match) ? match.replace(/[^\n]/g, ' ') : match))
}

/** Every import and re-export of a module, in any of its forms. */
export function importsOf(file: SourceFile): Import[] {
  const code = withoutComments(file.text)
  const forms = [
    /^(?:import|export)\s+(?<type>type\s)?[\w$*{}\s,]*?\bfrom\s*['"](?<specifier>[^'"]+)['"]/gm,
    /^import\s*['"](?<specifier>[^'"]+)['"]/gm,
    /\b(?:import|require)\s*\(\s*['"`](?<specifier>[^'"`]+)['"`]/g,
  ]
  return forms
    .flatMap((form) => [...code.matchAll(form)])
    .map(({ index, groups }) => ({
      specifier: groups?.specifier ?? '',
      line: lineAt(code, index),
      typeOnly: groups?.type !== undefined,
    }))
}

/** Room of a file, the innermost one; undefined outside the house. Files directly under src/ are the room `main`. */
export function roomOf(path: string): string | undefined {
  if (/^src\/[^/]+\.ts$/.test(path)) return 'main'
  const rooms = Object.keys(ARROWS).filter((room) => path.startsWith(`${folderOf(room)}/`))
  return rooms.sort((a, b) => b.length - a.length)[0]
}

/** Every file of src/ and migrations/ is in a room that the table of arrows knows. */
export const everyFileHasARoom: Rule = (files) =>
  files.filter(({ path }) => roomOf(path) === undefined).map(({ path }) => `${path}:1 is in no room of ARROWS`)

/** A room imports only those below it. */
export const arrowsPointOneWay: Rule = (files) =>
  relativeImports(files).flatMap(({ from, to, at, typeOnly }) => {
    const [source, target] = [roomOf(from), roomOf(to)]
    if (source === undefined || source === target) return []
    if (target === undefined) return [`${at} imports ${to}, which is outside the house`]
    if (!ARROWS[source]?.includes(target)) return [`${at} ${source} must not import ${target}`]
    const borrowed = TYPES_ONLY.some(([user, owner]) => user === source && owner === target)
    return borrowed && !typeOnly ? [`${at} ${source} may import only types of ${target}`] : []
  })

/** A room is entered through its index.ts. */
export const roomsHaveOneDoor: Rule = (files) =>
  relativeImports(files).flatMap(({ from, to, at }) => {
    const closed = Object.keys(ARROWS)
      .filter((room) => room !== 'main')
      .map(folderOf)
      .filter((folder) => to.startsWith(`${folder}/`) && !from.startsWith(`${folder}/`))
      .sort((a, b) => a.length - b.length)[0]
    return closed === undefined || to === `${closed}/index.ts` ? [] : [`${at} imports ${to} past ${closed}/index.ts`]
  })

/** Relative imports name the file as it is on disk. */
export const importsNameTheFile: Rule = (files) =>
  relativeImports(files).flatMap(({ to, at }) => (/\.(ts|json)$/.test(to) ? [] : [`${at} imports ${to} without .ts`]))

/** A dependency is imported by its owners alone, and what is not in the table has no owner. */
export const dependenciesHaveOwners: Rule = (files) =>
  packageImports(files).flatMap(({ room, name, at }) => {
    const owners = Object.hasOwn(OWNERS, name) ? OWNERS[name] : undefined
    if (owners === undefined) return [`${at} imports ${name}, which OWNERS does not know`]
    return room !== undefined && owners.includes(room) ? [] : [`${at} ${name} belongs to ${owners.join(', ')}`]
  })

/** The table of owners and the dependencies of package.json name the same packages. */
export function ownersMatchPackage(dependencies: readonly string[]): string[] {
  return [
    ...dependencies.filter((name) => !Object.hasOwn(OWNERS, name)).map((name) => `package.json:1 ${name} has no owner`),
    ...Object.keys(OWNERS)
      .filter((name) => !dependencies.includes(name))
      .map((name) => `package.json:1 ${name} has an owner and is no dependency`),
  ]
}

/** The core has no disk, network, clock or chance: what it needs of them is an argument. */
export const coreIsPure: Rule = (files) => {
  const core = files.filter(({ path }) => path.startsWith('src/sync/'))
  const builtins = core.flatMap((file) =>
    importsOf(file)
      .filter(({ specifier }) => specifier.startsWith('node:') && !CORE_BUILTINS.has(specifier))
      .map(({ specifier, line }) => `${file.path}:${line} the core must not import ${specifier}`),
  )
  const world = /\b(?:Date\.now|Math\.random|performance\.now|randomUUID|setTimeout|setInterval)\b|\bnew Date\(\)/
  return [...builtins, ...linesMatching(core, world, 'the core must be given time, chance and input')]
}

/** Only `config` reads the environment. */
export const environmentIsConfig: Rule = (files) =>
  linesMatching(
    files.filter(({ path }) => !path.startsWith('src/config/')),
    /\bprocess\s*\.\s*env\b|\benv\b.*\bfrom 'node:process'|\{[^}]*\benv\b[^}]*\}\s*=\s*process\b/,
    'only src/config reads the environment',
  )

/** The log is pino's and the command line writes through its own module. */
export const noConsole: Rule = (files) => linesMatching(files, /\bconsole\s*\./, 'writes to the console')

/** A file can be read in one sitting. */
export const filesAreShort: Rule = (files) =>
  files
    .map(({ path, text }) => ({ path, lines: text.split('\n').length - 1 }))
    .filter(({ lines }) => lines > LINES_MAX)
    .map(({ path, lines }) => `${path}:${LINES_MAX + 1} has ${lines} lines, more than ${LINES_MAX}`)

/** A folder is named after what it is about. */
export const foldersHaveMeaning: Rule = (files) =>
  files
    .filter(({ path }) =>
      path
        .split('/')
        .slice(0, -1)
        .some((folder) => /^(utils?|helpers?|common|shared|misc|types)$/.test(folder)),
    )
    .map(({ path }) => `${path}:1 is in a folder whose name says nothing`)

/** Nothing unfinished, skipped, silenced or asserted without a reason. The brackets keep this file from finding itself. */
export const nothingUnfinished: Rule = (files) =>
  files.flatMap(({ path, text }) =>
    text.split('\n').flatMap((line, index) => {
      const word =
        /\bTO[D]O\b|\bFIXM[E]\b|\bXX[X]\b|\bas an[y]\b|@ts-(?:ignor[e]|nochec[k])|\.(?:ski[p]|tod[o]|onl[y])\(|\bt\.pas[s]\(/.exec(
          line,
        )
      return word === null ? [] : [`${path}:${index + 1} ${word[0]}`]
    }),
  )

/** The lock file names versions and checksums, never the registry they were downloaded from. */
export function lockNamesNoRegistry(text: string): string[] {
  return text
    .split('\n')
    .flatMap((line, index) =>
      /"resolved": "http/.test(line) ? [`package-lock.json:${index + 1} names a registry`] : [],
    )
}

/** Every error code has its row in the document, and the document has no other. */
export function codesAreDocumented(codes: readonly string[], document: string): string[] {
  const rows = [...document.matchAll(/^\| `(SYNC_\w+)` \|/gm)].map(([, code]) => code)
  return [
    ...codes.filter((code) => !rows.includes(code)).map((code) => `docs/errors.md:1 lacks ${code}`),
    ...rows
      .filter((code) => code !== undefined && !codes.includes(code))
      .map((code) => `docs/errors.md:1 knows ${code}, the table does not`),
  ]
}

/** Every error code is thrown somewhere and met in a test: one that nothing throws is a promise nobody keeps, one that no test meets may be broken. */
export function codesAreMet(codes: readonly string[], files: readonly SourceFile[]): string[] {
  const used = (test: (path: string) => boolean) => {
    const text = files.filter(({ path }) => test(path)).map((file) => withoutComments(file.text))
    return new Set(text.flatMap((each) => each.match(/\bSYNC_[A-Z_]+\b/g) ?? []))
  }
  // The table itself and its HTTP statuses name every code.
  const thrown = used((path) => path.startsWith('src/') && !/^src\/(?:sync\/errors|server\/problem)\.ts$/.test(path))
  const met = used((path) => path.startsWith('test/') && path.endsWith('.test.ts') && path !== 'test/tidy.test.ts')
  return [
    ...codes.filter((code) => !thrown.has(code)).map((code) => `src/sync/errors.ts:1 nothing throws ${code}`),
    ...codes.filter((code) => !met.has(code)).map((code) => `src/sync/errors.ts:1 no test meets ${code}`),
  ]
}

function folderOf(room: string): string {
  return room === 'migrations' ? room : `src/${room}`
}

function relativeImports(files: readonly SourceFile[]) {
  return files.flatMap((file) =>
    importsOf(file)
      .filter(({ specifier }) => specifier.startsWith('.'))
      .map(({ specifier, line, typeOnly }) => ({
        from: file.path,
        to: posix.join(posix.dirname(file.path), specifier),
        at: `${file.path}:${line}`,
        typeOnly,
      })),
  )
}

function packageImports(files: readonly SourceFile[]) {
  return files.flatMap((file) =>
    importsOf(file)
      .filter(({ specifier }) => !specifier.startsWith('.') && !specifier.startsWith('node:'))
      .map(({ specifier, line }) => ({
        room: roomOf(file.path),
        name: specifier
          .split('/')
          .slice(0, specifier.startsWith('@') ? 2 : 1)
          .join('/'),
        at: `${file.path}:${line}`,
      })),
  )
}

function linesMatching(files: readonly SourceFile[], pattern: RegExp, fault: string): string[] {
  return files.flatMap(({ path, text }) =>
    withoutComments(text)
      .split('\n')
      .flatMap((line, index) => (pattern.test(line) ? [`${path}:${index + 1} ${fault}`] : [])),
  )
}

function lineAt(text: string, index: number): number {
  return text.slice(0, index).split('\n').length
}
