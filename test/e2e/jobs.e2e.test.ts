import { chmod, mkdtemp, readFile, rm, writeFile } from 'node:fs/promises'
import { createServer } from 'node:http'
import type { AddressInfo } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import t from 'tap'
import { type Ending, syncline } from '../cli/terminal.ts'
import { startSiteProcess } from '../support/site-process.ts'
import { startSmtp } from '../support/smtp.ts'

/** One site on the embedded database, driven by the command line. */
const folder = await mkdtemp(join(tmpdir(), 'syncline-jobs-cli-'))
await chmod(folder, 0o777)
t.teardown(() => rm(folder, { recursive: true, force: true }))
const file = (name: string) => join(folder, name)
const textOf = (name: string) => readFile(file(name), 'utf8').catch(() => '')

const smtp = await startSmtp(t)
const calls: { readonly headers: Readonly<Record<string, unknown>>; readonly body: string }[] = []
const hook = createServer((request, answer) => {
  let body = ''
  request.on('data', (chunk) => {
    body += chunk
  })
  request.on('end', () => {
    calls.push({ headers: request.headers, body })
    answer.writeHead(204).end()
  })
})
await new Promise<void>((resolve) => hook.listen(0, '127.0.0.1', resolve))
t.teardown(() => new Promise((resolve) => hook.close(resolve)))
const site = await startSiteProcess(t, {
  name: 'office',
  env: {
    SYNCLINE_SMTP_URL: smtp.url,
    SYNCLINE_MAIL_FROM: 'site@example.org',
    SYNCLINE_MAIL_TO: 'operator@example.org',
    SYNCLINE_WEBHOOK_URL: `http://127.0.0.1:${(hook.address() as AddressInfo).port}/jobs`,
    SYNCLINE_WEBHOOK_SECRET: 'a secret of the test',
  },
})

const run = (...args: readonly string[]): Promise<Ending> => syncline([...args, '--data-dir', site.dataDir])
async function json<T>(...args: readonly string[]): Promise<T> {
  const { stdout, stderr } = await run(...args, '--json')
  if (stdout === '') throw new Error(stderr)
  return JSON.parse(stdout) as T
}
async function apply(name: string, yaml: string): Promise<Ending> {
  await writeFile(file(name), yaml)
  return run('job', 'apply', file(name))
}

t.test('every fault of a file is told with its line, and nothing of it is taken', async (t) => {
  const refused = await apply(
    'bad.yaml',
    `jobs:
  - name: fine
    steps:
      - wait: 1s
  - name: not fine
    steps:
      - command:
          argv: /bin/true
      - wiat: 3s
    onFailure: sometimes
`,
  )
  t.equal(refused.code, 2)
  const lines = refused.stderr
    .split('\n')
    .flatMap((line) => /bad\.yaml:(\d+): (\S+)/.exec(line)?.slice(1, 3).join(' ') ?? [])
  t.same(lines, ['5 /name', '8 /steps/0/command/argv', '9 /steps/1/wiat', '10 /onFailure'])
  t.match((await apply('torn.yaml', 'jobs: [\n  {name: a')).stderr, /torn\.yaml:\d+: /)
  t.match((await run('job', 'apply', file('none.yaml'))).stderr, /there is no such file/)
  t.same(await json('job', 'list'), { items: [] })
})

t.test('a job is planned, run, shown and stopped', async (t) => {
  const jobs = `
- name: talk
  leases: [{ lease: voice }]
  steps:
    - name: say
      command: { argv: [/bin/sh, -c, 'echo one; echo "$COLOR $JOB_NAME" "$SYNCLINE_NAME"; touch ${file('said')}'], set: { COLOR: red } }
- name: careful
  dryRun: true
  steps:
    - command: { argv: [/bin/touch, ${file('touched')}] }
- name: long
  steps: [{ wait: 60 }]
  always: [{ command: { argv: [/bin/echo, the end] } }]
`
  t.match((await run('config', 'plan', file('bad.yaml'))).stderr, /bad\.yaml:5/)
  await writeFile(file('jobs.yaml'), jobs)
  t.equal((await run('job', 'apply', file('jobs.yaml'), '--plan')).stdout, '+ job talk\n+ job careful\n+ job long\n')
  t.same(await json('job', 'list'), { items: [] }, 'a plan changes nothing')
  t.equal((await apply('jobs.yaml', jobs)).stdout, 'talk: made\ncareful: made\nlong: made\n')

  const planned = await run('job', 'run', 'talk', '--plan')
  t.match(planned.stdout, /lease lease voice: free\nstep say: would run \/bin\/sh/)
  t.equal(await textOf('said'), '', 'and did not')
  t.same(await json('job', 'show', 'talk').then((shown) => (shown as { runs: unknown[] }).runs), [])

  const done = await run('job', 'run', 'talk')
  t.equal(done.code, 0)
  t.match(
    done.stdout,
    /success.*\nstep say: success, ended with 0\n {2}one\n {2}red talk\n/,
    'the settings of the site are not its own',
  )
  t.match((await run('job', 'run', 'careful')).stdout, /dry run: would run \/bin\/touch/)
  t.notOk((await run('job', 'run', 'careful')).stdout.includes('ended with 0'))
  t.match((await run('job', 'run', 'careful', '--execute')).stdout, /success, ended with 0/)

  const long = await json<{ runId: string }>('job', 'run', 'long', '--no-wait')
  for (;;) {
    const { progress } = await json<{ progress: { secondsLeft: number; step: string } | null }>(
      'job',
      'show',
      'long',
      '--run',
      long.runId,
    )
    if (progress === null) continue
    t.match(progress, { step: 'wait-1', place: 1, of: 1, bytes: null })
    t.ok(progress.secondsLeft > 50)
    break
  }
  t.match(
    await (await fetch(`${site.url}/metrics`)).text(),
    /^syncline_job_progress\{job="long",what="secondsLeft"\} 5\d|60$/m,
  )
  t.match((await run('job', 'stop', 'long')).stdout, `Asked to stop: run ${long.runId}.`)
  const shown = await (async () => {
    for (;;) {
      const found = await json<{ phase: string; result: string; steps: { name: string }[] }>(
        'job',
        'show',
        'long',
        '--run',
        long.runId,
      )
      if (found.phase === 'over') return found
      await sleep(50)
    }
  })()
  t.equal(shown.result, 'stopped')
  t.match((await run('job', 'show', 'talk', '--definition')).stdout, /^name: talk$/m)
  await writeFile(file('less.yaml'), jobs.replace(/- name: long[\s\S]*$/, ''))
  t.equal((await run('config', 'plan', file('less.yaml'))).stdout, '  job talk\n  job careful\n- job long\n')
  t.match((await run('config', 'apply', file('less.yaml'))).stdout, /^long: removed$/m)
  t.equal((await json<{ items: unknown[] }>('job', 'list')).items.length, 2)
  t.match((await run('lease', 'list')).stdout, /Nothing is held/)
  t.equal((await run('lease', 'release', 'voice')).code, 1)
  t.equal((await run('job', 'run', 'nothing')).code, 1)
})

t.test('people are told by mail and programs by a signed webhook, with the values of the run', async (t) => {
  await apply(
    'tell.yaml',
    `
name: tell
steps: [{ name: work, command: { argv: [/bin/false] } }]
always:
  - notify:
      when: failure
      mail:
        to: [ops@example.org]
        subject: '{{job}} at {{site}}: {{result}}'
        text: '{{#steps}}{{name}} {{message}}{{/steps}}'
        html: '<p>{{result}} of {{#steps}}{{name}}{{/steps}}</p>'
      webhook: { data: { note: 'run {{run}}' } }
  - name: quiet
    notify: { when: success, mail: {} }
`,
  )
  const ended = await run('job', 'run', 'tell')
  t.equal(ended.code, 1)
  t.match(ended.stdout, /always quiet: success, nothing to tell: failure/)
  t.equal(smtp.mails.length, 1)
  t.match(smtp.mails[0], { to: ['ops@example.org'], data: /Subject: tell at office: failure/ })
  t.match(smtp.mails[0]?.data, /work ended with 1/)
  t.match(smtp.mails[0]?.data, /<p>failure of work<\/p>/)
  t.match(calls, [{ headers: { 'webhook-id': /\.job\.\d+\.always-notify-1$/, 'webhook-signature': /^v1,/ } }])
  t.match(JSON.parse(calls[0]?.body ?? ''), {
    type: 'job.failed',
    data: { site: { name: 'office' }, job: 'tell', result: 'failure', note: /^run \d+$/ },
  })
  t.same(smtp.faults, [])

  const status = await run('status')
  t.equal(status.code, 3, 'it waits for a person')
  t.match(status.stdout, /^jobs: \d+ green(, \d+ amber)?, 1 red$/m)
  t.match(status.stdout, /^red +tell .*run \d+ failed: step work: ended with 1/m)
  type Lights = { jobs: { job: string; light: string; why: string[] }[] }
  const red = async () => (await json<Lights>('status')).jobs.filter(({ light }) => light === 'red')
  const [light, ...others] = await red()
  t.same(others, [])
  const id = /syncline job dismiss (\d+)/.exec(light?.why[0] ?? '')?.[1] ?? ''
  t.match((await run('doctor')).stdout, new RegExp(`fail +job tell +run ${id} failed[^]*syncline job dismiss ${id}`))
  t.equal((await run('job', 'dismiss', id)).code, 0)
  t.same(await red(), [])
  t.equal((await run('status')).code, 0)
})

t.test('what happens can be followed, and a killed site goes on where it was', async (t) => {
  const answer = await fetch(`${site.url}/api/v1/events`, {
    headers: { authorization: `Bearer ${(await readFile(join(site.dataDir, 'admin.token'), 'utf8')).trim()}` },
  })
  const seen: { job: string; phase: string; progress: { secondsLeft?: number } | null }[] = []
  const listening = (async () => {
    let rest = ''
    for await (const chunk of answer.body?.pipeThrough(new TextDecoderStream()) ?? []) {
      const events = (rest + chunk).split('\n\n')
      rest = events.pop() ?? ''
      for (const event of events) {
        const data = /^event: job\.run\n.*\ndata: (.*)$/.exec(event)?.[1]
        if (data !== undefined) seen.push(JSON.parse(data))
      }
    }
  })().catch(() => {})
  await apply(
    'resume.yaml',
    `
name: resume
steps:
  - command: { argv: [/bin/sh, -c, 'echo first >> ${file('steps')}'] }
  - command: { argv: [/bin/sh, -c, 'echo "second $JOB_ATTEMPT" >> ${file('steps')}; [ $JOB_ATTEMPT -gt 1 ] || sleep 60'], repeatable: true }
  - wait: 1200ms
`,
  )
  const { runId } = await json<{ runId: string }>('job', 'run', 'resume', '--no-wait')
  while (!(await textOf('steps')).includes('second 1')) await sleep(20)
  for (const until = Date.now() + 60_000; !seen.some(({ job }) => job === 'resume') && Date.now() < until; )
    await sleep(20)
  t.match(seen.at(-1), { job: 'resume', phase: 'running' })
  await site.kill()
  await listening
  await site.start()
  const since = Date.now()
  let result: string | undefined
  while (result === undefined) {
    // A connection that was kept to the killed process may still be tried.
    const found = await json<{ phase: string; result: string }>('job', 'show', 'resume', '--run', runId).catch(
      () => null,
    )
    if (found?.phase === 'over') result = found.result
    else await sleep(50)
  }
  t.equal(result, 'success')
  t.ok(Date.now() - since < 15_000, 'no other process can have it, so nobody waits for its silence')
  t.equal(await textOf('steps'), 'first\nsecond 1\nsecond 2\n', 'what was done is not done again')
})
