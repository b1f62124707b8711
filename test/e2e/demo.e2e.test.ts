import { spawn } from 'node:child_process'
import { existsSync } from 'node:fs'
import { mkdtemp, readdir, readFile, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import t from 'tap'
import { asUser, plainEnvironment } from '../support/environment.ts'

const DEMO = join(import.meta.dirname, '../../demo/main.ts')

/** A folder of its own for temporary files, so that what the demo leaves behind can be seen. */
const home = await mkdtemp(join(tmpdir(), 'syncline-demo-test-'))
t.teardown(async () => {
  for (const pid of await pids()) if (isAlive(pid)) process.kill(pid, 'SIGKILL')
  await rm(home, { recursive: true, force: true, maxRetries: 5 })
})
t.setTimeout(600_000)

type Ending = { readonly code: number | null; readonly output: string }

function startDemo(...args: string[]) {
  const child = spawn(...asUser(process.execPath, [DEMO, ...args]), {
    env: plainEnvironment({ TMPDIR: home }),
    stdio: ['ignore', 'pipe', 'pipe'],
  })
  let output = ''
  for (const stream of [child.stdout, child.stderr]) {
    stream.on('data', (data) => {
      output += data
    })
  }
  t.teardown(() => child.kill('SIGKILL'))
  const ended = new Promise<Ending>((resolve) => child.once('close', (code) => resolve({ code, output })))
  return { child, ended, said: () => output }
}

async function until(what: () => boolean | Promise<boolean>, ms = 60_000): Promise<boolean> {
  for (let waited = 0; waited < ms; waited += 100) {
    if (await what()) return true
    await sleep(100)
  }
  return false
}

/** Process ids of the sites that a running demo has started. */
async function pids(): Promise<number[]> {
  const [folder] = await readdir(home)
  if (folder === undefined) return []
  const files = (await readdir(join(home, folder))).filter((name) => name.endsWith('.pid'))
  const texts = await Promise.all(files.map((name) => readFile(join(home, folder, name), 'utf8').catch(() => '')))
  return texts.filter((text) => text !== '').map(Number)
}

function isAlive(pid: number): boolean {
  try {
    process.kill(pid, 0)
    return true
  } catch {
    return false
  }
}

t.test('the demo shows every part, ends with equal sites and leaves nothing behind', async (t) => {
  const { code, output } = await startDemo('--rows', '1500').ended
  t.equal(code, 0, output)
  for (const part of [
    /GeoNames .*CC BY 4\.0/,
    /First sync: the field takes everything: 1,752 records, [\d,]+ records\/s/,
    /now "bridge open again" at the hub and "bridge open again" at the field/,
    /history of the field keeps "bridge closed"/,
    /gone at the hub too/,
    /in quarantine at the field: country refers to country .*, which is not here yet/,
    /"Its first town" was applied by itself; 0 records in quarantine/,
    /digests: country equal, place equal, 1,953 records/,
    /every value of every record: equal, 1,953 records/,
    /Both sites are equal\./,
  ]) {
    t.match(output, part)
  }
  t.ok(await until(async () => (await readdir(home)).length === 0))
})

t.test('Ctrl-C stops both sites and removes their data', async (t) => {
  const { child, ended, said } = startDemo('--rows', '5000')
  t.ok(await until(() => /Load the data/.test(said()) || / 2 Create/.test(said())))
  const running = await pids()
  t.equal(running.length, 2)
  child.kill('SIGINT')
  t.equal((await ended).code, 130)
  t.ok(await until(async () => running.every((pid) => !isAlive(pid)) && (await readdir(home)).length === 0))
})

t.test('a demo that is killed leaves no site behind', async (t) => {
  const { child, ended } = startDemo('--rows', '1500')
  t.ok(await until(async () => (await pids()).length === 2))
  const running = await pids()
  child.kill('SIGKILL')
  await ended
  t.ok(await until(async () => running.every((pid) => !isAlive(pid)) && (await readdir(home)).length === 0))
})

t.test('--keep leaves both sites running and says where they are', async (t) => {
  const { code, output } = await startDemo('--rows', '500', '--keep').ended
  t.equal(code, 0, output)
  const running = await pids()
  t.equal(running.length, 2)
  const addresses = [...output.matchAll(/^ {2}(hub|field): (http:\S+)/gm)].map(([, name, url]) => ({ name, url }))
  t.same(
    addresses.map(({ name }) => name),
    ['hub', 'field'],
  )
  for (const { url } of addresses) t.equal((await fetch(`${url}/health/live`)).status, 200)
  for (const [, file = ''] of output.matchAll(/administrator token: (\S+)/g)) t.ok(existsSync(file))
  const [, command = ''] = /To end them: (kill .*)$/m.exec(output) ?? []
  await new Promise((resolve) => spawn('sh', ['-c', command]).once('close', resolve))
  t.ok(await until(() => running.every((pid) => !isAlive(pid))))
})

t.test('wrong options are refused with the usage', async (t) => {
  const { code, output } = await startDemo('--rows', 'many').ended
  t.equal(code, 2)
  t.match(output, /--rows takes a whole number/)
})
