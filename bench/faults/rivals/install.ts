/**
 * Brings the rivals into a folder of the temporary directory, with nothing of them in this project or in the system: npm packages by exact
 * version, Debian packages unpacked beside each other. PostgreSQL finds its own files from where its program lies, so a whole server
 * with extensions runs from there too.
 */
import { execFile } from 'node:child_process'
import { existsSync } from 'node:fs'
import { mkdir, readdir, rename, rm, writeFile } from 'node:fs/promises'
import { tmpdir, userInfo } from 'node:os'
import { join } from 'node:path'
import { promisify } from 'node:util'
import { plainEnvironment } from '../../../test/support/environment.ts'

const execute = promisify(execFile)
const FOLDER = join(tmpdir(), `syncline-rivals-${userInfo().uid}`)

/** Exact versions: a contest is about these and no others. */
export const NPM_PACKAGES = { pouchdb: '9.0.0', 'express-pouchdb': '4.2.0', express: '4.22.3' } as const

/** Packages of Debian 12, whose mirrors keep only the newest build of each; the version that came is reported. */
const SERVER = ['postgresql-15', 'postgresql-client-15']
const PERL = ['libdbix-safe-perl', 'libdbd-pg-perl', 'libdbi-perl', 'libboolean-perl', 'libpod-parser-perl']
export const DEBIAN_PACKAGES = {
  faketime: ['libfaketime'],
  bucardo: ['bucardo', 'postgresql-plperl-15', ...SERVER, ...PERL],
  pglogical: ['postgresql-15-pglogical', ...SERVER],
} as const

/** Folder with `node_modules`. */
export async function installNpm(): Promise<string> {
  const words = Object.entries(NPM_PACKAGES).map(([name, version]) => `${name}-${version}`)
  return once(join(FOLDER, `npm-${words.join('-')}`), async (folder) => {
    await writeFile(join(folder, 'package.json'), JSON.stringify({ private: true, dependencies: NPM_PACKAGES }))
    const args = ['install', '--ignore-scripts', '--no-package-lock', '--no-audit', '--no-fund', '--loglevel=error']
    await execute('npm', args, { cwd: folder, env: plainEnvironment() })
  })
}

export type Unpacked = {
  /** What would be `/` had the packages been installed. */
  readonly root: string
  /** Package → version. */
  readonly versions: Readonly<Record<string, string>>
}

export async function installDebian(name: keyof typeof DEBIAN_PACKAGES): Promise<Unpacked> {
  const root = await once(join(FOLDER, `debian-${name}`), async (folder) => {
    const debs = join(folder, 'debs')
    await mkdir(debs)
    const download = () => execute('apt-get', ['-q', 'download', ...DEBIAN_PACKAGES[name]], { cwd: debs })
    await download().catch(async (error) => {
      if (process.getuid?.() !== 0) throw error
      await execute('apt-get', ['-q', 'update'])
      await download()
    })
    for (const file of await readdir(debs)) await execute('dpkg-deb', ['-x', join(debs, file), folder])
    await execute('chmod', ['-R', 'a+rX', folder])
  })
  const files = await readdir(join(root, 'debs'))
  const versions = files
    .map((file) => file.split('_'))
    .map(([name = '', version = '']) => [name, decodeURIComponent(version)])
  return { root, versions: Object.fromEntries(versions) }
}

/** Path of libfaketime, which gives a program a clock of its own. */
export async function clockLibrary(): Promise<string> {
  const { root } = await installDebian('faketime')
  const libraries = join(root, 'usr/lib')
  for (const folder of await readdir(libraries)) {
    const file = join(libraries, folder, 'faketime/libfaketime.so.1')
    if (existsSync(file)) return file
  }
  throw new Error('the package has no library')
}

/** Does the work in a folder beside, which takes its name when all is well: what is there is whole. */
async function once(folder: string, work: (folder: string) => Promise<void>): Promise<string> {
  if (existsSync(folder)) return folder
  const draft = `${folder}.draft-${process.pid}`
  await mkdir(draft, { recursive: true })
  await execute('chmod', ['a+rx', FOLDER])
  try {
    await work(draft)
    await rename(draft, folder)
  } catch (error) {
    await rm(draft, { recursive: true, force: true })
    const words =
      error instanceof Error ? (error.message.split('\n').find((line) => line.trim() !== '') ?? '') : String(error)
    throw new Error(`not installed here: ${words}`, { cause: error })
  }
  return folder
}
