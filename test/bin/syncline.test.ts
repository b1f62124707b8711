import { execFile } from 'node:child_process'
import { cpSync, mkdirSync, mkdtempSync, realpathSync, rmSync, symlinkSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { dirname, join } from 'node:path'
import t from 'tap'

const SYSTEM_PATH = '/usr/bin:/bin'

/** An installation in a folder of its own: the launcher and the given files. */
function install(files: Readonly<Record<string, string>>): string {
  const root = mkdtempSync(join(realpathSync(tmpdir()), 'syncline-launcher-'))
  t.teardown(() => rmSync(root, { recursive: true, force: true }))
  cpSync(join(import.meta.dirname, '../../bin/syncline'), join(root, 'bin/syncline'))
  for (const [path, text] of Object.entries(files)) {
    mkdirSync(dirname(join(root, path)), { recursive: true })
    writeFileSync(join(root, path), text, { mode: 0o755 })
  }
  return root
}

type Ending = { readonly code: number; readonly stdout: string; readonly stderr: string }

function launch(file: string, args: readonly string[], path: string): Promise<Ending> {
  return new Promise((resolve) => {
    execFile('/bin/sh', [file, ...args], { env: { PATH: path } }, (error, stdout, stderr) =>
      resolve({ code: typeof error?.code === 'number' ? error.code : 0, stdout: stdout.trim(), stderr: stderr.trim() }),
    )
  })
}

/** A Node that only says its version and what it was asked to run. */
const fakeNode = (version: string) =>
  `#!/bin/sh\nif [ "$1" = --version ]; then echo ${version}; else echo "${version} $*"; fi\n`

t.test('a checkout runs the source, with its arguments and exit code', async (t) => {
  const program = `const [first]: string[] = process.argv.slice(2)\nconsole.log(first)\nprocess.exitCode = 3\n`
  const root = install({ 'src/cli/main.ts': program, 'dist/src/cli/main.js': '' })
  const path = `${dirname(process.execPath)}:${SYSTEM_PATH}`
  t.same(await launch(join(root, 'bin/syncline'), ['two words'], path), { code: 3, stdout: 'two words', stderr: '' })
})

t.test('the package runs what was built, also through links', async (t) => {
  const root = install({ 'dist/src/cli/main.js': `console.log('built')`, 'path/keep': '' })
  symlinkSync('../bin/syncline', join(root, 'path/relative'))
  symlinkSync(join(root, 'path/relative'), join(root, 'path/absolute'))
  const path = `${dirname(process.execPath)}:${SYSTEM_PATH}`
  t.match(await launch(join(root, 'path/relative'), [], path), { code: 0, stdout: 'built' })
  t.match(await launch(join(root, 'path/absolute'), [], path), { code: 0, stdout: 'built' })
})

t.test('an old Node gives way to the one of the checkout', async (t) => {
  const root = install({
    'src/cli/main.ts': '',
    'old/node': fakeNode('v20.1.0'),
    '.toolchain/node_modules/node/bin/node': fakeNode('v24.21.0'),
  })
  const { stdout } = await launch(
    join(root, 'bin/syncline'),
    ['serve', '--port', '1'],
    `${join(root, 'old')}:${SYSTEM_PATH}`,
  )
  t.equal(
    stdout,
    `v24.21.0 --max-semi-space-size=8 --initial-old-space-size=56 --heap-growing-percent=80 ${join(root, 'src/cli/main.ts')} serve --port 1`,
  )
})

t.test('only an old Node is a clear error', async (t) => {
  const root = install({ 'src/cli/main.ts': '', 'old/node': fakeNode('v20.1.0') })
  const { code, stderr } = await launch(join(root, 'bin/syncline'), [], `${join(root, 'old')}:${SYSTEM_PATH}`)
  t.equal(code, 1)
  t.match(stderr, /needs Node 24 or newer \(found v20\.1\.0\)/)
})

t.test('an incomplete installation is a clear error', async (t) => {
  const { code, stderr } = await launch(join(install({}), 'bin/syncline'), [], SYSTEM_PATH)
  t.equal(code, 1)
  t.match(stderr, /installation is not complete/)
})
