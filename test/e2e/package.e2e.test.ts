import { execFile, spawn } from 'node:child_process'
import { mkdtemp, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import t from 'tap'
import { asUser, plainEnvironment } from '../support/environment.ts'
import { freePort } from '../support/postgres.ts'

// npm packs, compiles and installs.
t.setTimeout(600_000)

const ROOT = join(import.meta.dirname, '../..')
const PACKAGE_BYTES_MAX = 2_000_000

type Ending = { readonly code: number; readonly stdout: string; readonly stderr: string }

function run(file: string, args: readonly string[], cwd: string): Promise<Ending> {
  return new Promise((resolve) => {
    execFile(
      ...asUser(file, args),
      { cwd, env: plainEnvironment(), maxBuffer: 64 * 1024 ** 2 },
      (error, stdout, stderr) => resolve({ code: error === null ? 0 : Number(error.code), stdout, stderr }),
    )
  })
}

/** A folder in which the package has been installed as a stranger would, and what npm said of the package. */
async function installPackage() {
  const folder = await mkdtemp(join(tmpdir(), 'syncline-package-'))
  t.teardown(() => rm(folder, { recursive: true, force: true }))
  const packed = await run('npm', ['pack', '--json', '--pack-destination', folder], ROOT)
  if (packed.code !== 0) throw new Error(`npm pack failed: ${packed.stdout}${packed.stderr}`)
  const answer = JSON.parse(packed.stdout) as readonly Description[] | Readonly<Record<string, Description>>
  const [description] = Object.values(answer)
  if (description === undefined) throw new Error(`npm pack described nothing: ${packed.stdout}`)
  await writeFile(join(folder, 'package.json'), '{ "private": true }')
  const quiet = ['--prefer-offline', '--no-audit', '--no-fund', '--loglevel=error']
  const installed = await run('npm', ['install', ...quiet, join(folder, description.filename)], folder)
  if (installed.code !== 0) throw new Error(`npm install failed: ${installed.stdout}${installed.stderr}`)
  return { folder, description, bin: join(folder, 'node_modules/.bin/syncline') }
}

type Description = {
  readonly filename: string
  readonly size: number
  readonly files: readonly { readonly path: string }[]
}

const { folder, description, bin } = await installPackage()

t.test('the package is small and holds what was built, not the source', async (t) => {
  const paths = description.files.map(({ path }) => path)
  const expected = /^(bin\/syncline|dist\/.+|package\.json|README\.md|LICENSE|CHANGELOG\.md)$/
  t.same(
    paths.filter((path) => !expected.test(path)),
    [],
  )
  t.same(
    paths.filter((path) => /\.tsx?$/.test(path) && !path.endsWith('.d.ts')),
    [],
  )
  for (const path of ['bin/syncline', 'dist/src/cli/main.js', 'dist/migrations/index.js', 'LICENSE'])
    t.ok(paths.includes(path), path)
  t.ok(description.size < PACKAGE_BYTES_MAX, `${description.size} bytes`)
})

t.test('the installed command shows its help', async (t) => {
  const { code, stdout, stderr } = await run(bin, ['--help'], folder)
  t.equal(code, 0, stderr)
  t.match(stdout, /serve/)
})

t.test('the installed command serves a site with the embedded database and ends when asked', async (t) => {
  const port = await freePort()
  const settings = { SYNCLINE_DATA_DIR: join(folder, 'data'), SYNCLINE_PORT: String(port) }
  const env = plainEnvironment(settings)
  const site = spawn(...asUser(bin, ['serve']), { cwd: folder, env, stdio: ['ignore', 'pipe', 'pipe'] })
  const output: string[] = []
  for (const stream of [site.stdout, site.stderr]) stream.on('data', (data: Buffer) => output.push(data.toString()))
  const ended = new Promise<number | null>((resolve) => site.once('exit', resolve))
  t.teardown(() => site.kill('SIGKILL'))
  t.equal(await live(`http://127.0.0.1:${port}/health/live`, ended), 200, output.join(''))
  site.kill('SIGTERM')
  t.equal(await ended, 0, output.join(''))
})

/** Status of the first answer within 60 seconds; 0 when there is none or the process ended. */
async function live(url: string, ended: Promise<unknown>): Promise<number> {
  let gone = false
  void ended.then(() => {
    gone = true
  })
  for (let waitedMs = 0; waitedMs < 60_000 && !gone; waitedMs += 200) {
    const answer = await fetch(url).catch(() => undefined)
    if (answer !== undefined) return answer.status
    await sleep(200)
  }
  return 0
}
