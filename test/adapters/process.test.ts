import { spawn } from 'node:child_process'
import { existsSync } from 'node:fs'
import { mkdtemp, readFile, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import t from 'tap'
import { type ProcessRequest, runProcess } from '../../src/adapters/index.ts'

const folder = await mkdtemp(join(tmpdir(), 'syncline-process-'))
t.teardown(() => rm(folder, { recursive: true, force: true }))
const file = (name: string) => join(folder, name)

async function run(argv: readonly [string, ...string[]], more: Partial<ProcessRequest> = {}) {
  let output = ''
  const end = await runProcess({
    ...{ argv, env: {}, signal: new AbortController().signal, graceMs: 200 },
    onOutput: (chunk) => {
      output += chunk.toString()
    },
    ...more,
  })
  return { ...end, output }
}

/** Gone, or a zombie that nobody has collected yet. */
async function isGone(pid: number): Promise<boolean> {
  const stat = await readFile(`/proc/${pid}/stat`, 'utf8').catch(() => '')
  return stat === '' || /\) Z /.test(stat)
}
async function until(done: () => Promise<boolean>): Promise<void> {
  while (!(await done())) await sleep(20)
}

t.test('arguments arrive as they are, and the environment has what was given and no more', async (t) => {
  t.match(await run(['/usr/bin/printf', '%s|', 'a b', '$HOME', '; rm -rf /', '*']), {
    code: 0,
    aborted: false,
    output: 'a b|$HOME|; rm -rf /|*|',
  })
  const { output } = await run(['/usr/bin/env'], { env: { COLOR: 'red' } })
  t.match(output, /^COLOR=red$/m)
  // The runner of the tests puts its own names into what it starts.
  t.notMatch(output, /^(HOME|PATH|USER|PWD|TAP)=/m)
  t.equal((await run(['/bin/cat'])).output, '', 'its input is empty')
  t.match(await run(['/bin/sh', '-c', 'echo to stderr >&2; exit 7']), { code: 7, output: 'to stderr\n' })
})

t.test('what cannot be started says why', async (t) => {
  await t.rejects(run(['/no/such/program']), { message: /no such program$/ })
  await t.rejects(run(['/bin/true'], { cwd: '/no/such/folder' }), { message: /no folder \/no\/such\/folder/ })
  await t.rejects(run(['/bin/true'], { signal: AbortSignal.abort(new Error('too late')) }), { message: 'too late' })
})

t.test('an abort ends the whole group, also what does not want to end', async (t) => {
  const stop = new AbortController()
  const script = `trap '' TERM; (trap '' TERM; echo $$ > ${file('pid')}; while :; do sleep 0.1; done) & while :; do sleep 0.1; done`
  const running = run(['/bin/sh', '-c', script], { signal: stop.signal, env: { PATH: '/usr/bin:/bin' } })
  await until(async () => existsSync(file('pid')))
  const since = performance.now()
  stop.abort(new Error('enough'))
  t.match(await running, { code: null, signal: 'SIGKILL', aborted: true })
  t.ok(performance.now() - since < 20_000, 'not for ever')
  t.ok(await isGone(Number(await readFile(file('pid'), 'utf8'))))
})

t.test('what a program leaves behind in its group ends with it', async (t) => {
  const { output } = await run(['/bin/sh', '-c', 'sleep 60 & echo $!'], { env: { PATH: '/usr/bin:/bin' } })
  await until(() => isGone(Number(output)))
  t.match(output, /^\d+\n$/)
})

t.test('the group ends when the process that started it is killed', async (t) => {
  const program = `
    import { runProcess } from ${JSON.stringify(new URL('../../src/adapters/index.ts', import.meta.url).href)}
    const argv = ['/bin/sh', '-c', 'echo $$; sleep 60']
    const signal = new AbortController().signal
    await runProcess({ argv, env: { PATH: '/usr/bin:/bin' }, signal, graceMs: 100, onOutput: (chunk) => process.stdout.write(chunk) })`
  const child = spawn(process.execPath, ['--input-type=module-typescript', '-e', program], {
    stdio: ['ignore', 'pipe', 'inherit'],
  })
  const pid = Number(await new Promise((resolve) => child.stdout.once('data', resolve)))
  t.notOk(await isGone(pid))
  child.kill('SIGKILL')
  await until(() => isGone(pid))
})
