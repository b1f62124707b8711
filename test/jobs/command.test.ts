import t from 'tap'
import { commandStep } from '../../src/jobs/steps/index.ts'

/** The step of a job that runs a program, by itself: real programs, no site. */
const step = commandStep({ HOME: '/', SECRET: 'no' })

async function run(settings: object) {
  const said: string[] = []
  const context = {
    ...{ signal: new AbortController().signal, runId: '1', job: 'j', step: 's', attempt: 1, before: {} },
    ...{ site: { uuid: 'u', name: 'n', host: 'h', pid: 1 }, say: (line: string) => void said.push(line) },
    ...{ progress: () => {}, now: () => Date.now() },
  }
  const result = await step.run(settings as never, context)
  return { ...result, said }
}
const plan = async (settings: object) => {
  const site = { uuid: 'u', name: 'n', host: 'h', pid: 1 }
  const about = { signal: new AbortController().signal, job: 'j', step: 's', site, now: () => 0 }
  return (await step.plan(settings as never, about)).argv
}
const sh = (script: string, more: object = {}) => ({ argv: ['/bin/sh', '-c', script], ...more })

t.test('a command is confined as it says, and so is what it starts', async (t) => {
  const look = `/bin/sh -c 'umask; ulimit -t; ulimit -f; ulimit -n; nice; grep NoNewPrivs /proc/self/status'`
  const plain = await run(sh(look))
  t.match(plain, { result: 'success' })
  const limits = { cpuSeconds: 7, memoryMegabytes: 1024, fileMegabytes: 3, openFiles: 99 }
  const confined = await run(sh(look, { limits, nice: 5, umask: '027', noNewPrivileges: true }))
  t.same(confined.said, ['0027', '7', String((3 * 1024 ** 2) / 512), '99', '5', 'NoNewPrivs:\t1'], confined.message)
  t.notSame(confined.said, plain.said)
})

t.test('beyond its limits it is ended, or what it asks for fails', async (t) => {
  const busy = await run(sh('while :; do :; done', { limits: { cpuSeconds: 1 } }))
  t.match(busy, { result: 'error', message: /ended by SIG(XCPU|KILL)/ })
  const file = `${t.testdir()}/large`
  const large = await run(sh(`exec dd if=/dev/zero of='${file}' bs=1M count=3`, { limits: { fileMegabytes: 1 } }))
  t.match(large, { result: 'error', message: /ended by SIGXFSZ|ended with/ })
})

t.test('arguments pass through whatever confines it unread, and a plan shows how it is started', async (t) => {
  const words = ['$(id)', `a 'b"`, '-n', '--', 'line\nbreak', '']
  const settings = { argv: ['/usr/bin/printf', '[%s]', ...words], umask: '077', nice: 1, noNewPrivileges: true }
  const { said } = await run(settings)
  t.equal(said.join('\n'), words.map((word) => `[${word}]`).join(''))
  const [argv = []] = (await plan(settings)) ?? []
  t.same(argv.slice(-settings.argv.length), settings.argv)
  t.match(argv.join(' '), /nice -n 1 \S*setpriv --no-new-privs \/usr\/bin\/printf/)
  t.same(await plan({ argv: ['/bin/true'] }), [['/bin/true']], 'nothing stands before one that is not confined')
  t.match(await run({ argv: ['/bin/sh', '-c', 'echo "x$SECRET"'], umask: '022' }), { said: ['x'] })
})
