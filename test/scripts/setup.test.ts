import { execFile } from 'node:child_process'
import { cpSync, mkdirSync, mkdtempSync, readFileSync, realpathSync, rmSync, utimesSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { dirname, join } from 'node:path'
import t from 'tap'

/** A checkout with nothing in it but scripts/setup.js, and a fake npm that writes down what it is asked for. */
function checkout(): string {
  const root = mkdtempSync(join(realpathSync(tmpdir()), 'syncline-setup-'))
  t.teardown(() => rmSync(root, { recursive: true, force: true }))
  cpSync(join(import.meta.dirname, '../../scripts/setup.js'), join(root, 'scripts/setup.js'))
  put(root, 'package.json', '{"type":"module"}')
  put(root, 'package-lock.json', '{}')
  put(
    root,
    'npm.js',
    `import { appendFileSync } from 'node:fs'
     appendFileSync(${JSON.stringify(join(root, 'asked'))}, process.argv.slice(2, 3) + ' in ' + process.cwd() + '\\n')
     process.exit(Number(process.env.FAKE_NPM_STATUS ?? 0))`,
  )
  return root
}

function put(root: string, path: string, text: string, mode = 0o644): string {
  const file = join(root, path)
  mkdirSync(dirname(file), { recursive: true })
  writeFileSync(file, text, { mode })
  return file
}

type Ending = { readonly code: number; readonly stdout: string; readonly stderr: string }

/** Runs a piece of code with everything that setup.js exports, in a process of its own. */
function run(root: string, code: string, env: NodeJS.ProcessEnv = {}): Promise<Ending> {
  const program = `const setup = await import(${JSON.stringify(join(root, 'scripts/setup.js'))})\n${code}`
  const all = { ...process.env, npm_execpath: join(root, 'npm.js'), ...env }
  return new Promise((resolve) => {
    execFile(process.execPath, ['--input-type=module', '-e', program], { env: all }, (error, stdout, stderr) =>
      resolve({ code: typeof error?.code === 'number' ? error.code : 0, stdout, stderr }),
    )
  })
}

function asked(root: string): string[] {
  try {
    return readFileSync(join(root, 'asked'), 'utf8').trimEnd().split('\n')
  } catch {
    return []
  }
}

const PRETEND_OLD = `Object.defineProperty(process.versions, 'node', { value: '20.1.0' })\n`

t.test('a Node that is new enough is used as it is', async (t) => {
  const root = checkout()
  const { stdout } = await run(root, 'console.log(await setup.findNode())')
  t.equal(stdout.trim(), process.execPath)
  t.same(asked(root), [])
})

t.test('an old Node gives way to the one brought before', async (t) => {
  const root = checkout()
  const brought = put(root, '.toolchain/node_modules/node/bin/node', '#!/bin/sh\necho v24.21.0\n', 0o755)
  const { stdout } = await run(root, `${PRETEND_OLD}console.log(await setup.findNode())`)
  t.equal(stdout.trim(), brought)
  t.same(asked(root), [])
})

t.test('an old Node brings a new one, and says where to get it when npm cannot', async (t) => {
  const root = checkout()
  const { code, stderr } = await run(root, `${PRETEND_OLD}await setup.findNode()`, { FAKE_NPM_STATUS: '1' })
  t.same(asked(root), [`install in ${join(root, '.toolchain')}`])
  const manifest = JSON.parse(readFileSync(join(root, '.toolchain/package.json'), 'utf8')) as Record<string, unknown>
  t.match(manifest, { dependencies: { node: /^24\./ }, allowScripts: { node: true } })
  t.equal(code, 1)
  t.match(stderr, /Missing: Node 24 .*nodejs\.org/)
})

t.test('dependencies are installed when they are missing or older than the lock file, and only then', async (t) => {
  const root = checkout()
  const install = 'await setup.installDependencies(process.execPath)'
  await run(root, install)
  t.same(asked(root), [`ci in ${root}`], 'missing')
  const installed = put(root, 'node_modules/.package-lock.json', '{}')
  await run(root, install)
  t.equal(asked(root).length, 1, 'newer than the lock file')
  utimesSync(installed, 0, 0)
  await run(root, install)
  t.equal(asked(root).length, 2, 'older than the lock file')
  const { code, stderr } = await run(root, install, { FAKE_NPM_STATUS: '1' })
  t.equal(code, 1)
  t.match(stderr, /Missing: the dependencies/)
})

t.test('what cannot be installed is named with the command that installs it', async (t) => {
  const root = checkout()
  const { code, stderr } = await run(root, `await setup.installParts(['rsync'])`, { PATH: join(root, 'empty') })
  t.equal(code, 1)
  t.match(stderr, /Missing: rsync\. Install with:\n {2}\S.* install .*rsync/)
  put(root, 'present/rsync', '', 0o755)
  const present = await run(root, `await setup.installParts(['rsync'])`, { PATH: join(root, 'present') })
  t.same(present, { code: 0, stdout: '', stderr: '' })
})

t.test('steps see the right Node first and nothing of the npm that started them', async (t) => {
  const root = checkout()
  const code = `const env = setup.environmentFor('/right/bin/node')
    console.log(env.PATH.split(':')[0], Object.keys(env).filter((name) => name.startsWith('npm_')).length)`
  const { stdout } = await run(root, code, { npm_config_prefix: '/elsewhere' })
  t.equal(stdout.trim(), '/right/bin 0')
})

t.test('a failing program gives its exit code, and a quiet one then shows what it said', async (t) => {
  const root = checkout()
  const code = `process.exitCode = await setup.run('sh', ['-c', 'echo why; exit 7'], { quiet: true })`
  t.same(await run(root, code), { code: 7, stdout: '', stderr: 'why\n' })
  const silent = `process.exitCode = await setup.run('sh', ['-c', 'echo chatter'], { quiet: true })`
  t.same(await run(root, silent), { code: 0, stdout: '', stderr: '' })
  const absent = await run(root, `process.exitCode = await setup.run('no-such-program', [])`)
  t.equal(absent.code, 127)
})
