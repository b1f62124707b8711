import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import type { Command } from 'commander'
import t from 'tap'
import { generate } from '../../scripts/golden/command-line.ts'
import { examplesOf } from '../../src/cli/command.ts'
import { EXIT, exitOf, worst } from '../../src/cli/exit.ts'
import { explain } from '../../src/cli/failure.ts'
import { buildProgram } from '../../src/cli/program.ts'
import { ERRORS, type ErrorCode } from '../../src/sync/index.ts'
import { makeCertificates } from '../support/certificates.ts'
import { fakeSite, problem, sink, syncline } from './terminal.ts'

const folder = await mkdtemp(join(tmpdir(), 'syncline-cli-'))
t.teardown(() => rm(folder, { recursive: true, force: true }))

async function everyCommand(): Promise<readonly Command[]> {
  const streams = { stdin: process.stdin, stdout: sink({}), stderr: sink({}) }
  const program = await buildProgram({ streams, exit: 0, json: false })
  const below = (command: Command): readonly Command[] => [command, ...command.commands.flatMap(below)]
  return program.commands.flatMap(below)
}

t.test('every command says what it does, and every verb shows an example of itself and takes --json', async (t) => {
  const commands = await everyCommand()
  t.ok(commands.length > 50)
  for (const command of commands) {
    const words = [command.parent?.name() === 'syncline' ? '' : command.parent?.name(), command.name()]
    const name = ['syncline', ...words].filter((word) => word !== '').join(' ')
    t.not(command.summary() || command.description(), '', name)
    if (command.commands.length > 0) continue
    t.ok(
      examplesOf(command).every((example) => example.includes(`${name}`)) && examplesOf(command).length > 0,
      `${name} has examples`,
    )
    t.ok(
      command.options.some(({ long }) => long === '--json'),
      `${name} takes --json`,
    )
  }
})

t.test('the examples are commands that parse', async (t) => {
  const commands = await everyCommand()
  for (const example of commands.flatMap(examplesOf)) {
    const words = [
      ...example
        .replace(/^\w+=\S+ /, '')
        .replace(/ [<>] \S+$/, '')
        .matchAll(/"([^"]*)"|'([^']*)'|(\S+)/g),
    ]
    const [, ...argv] = words.map(([, double, single, bare]) => double ?? single ?? bare ?? '')
    const streams = { stdin: process.stdin, stdout: sink({}), stderr: sink({}) }
    const program = await buildProgram({ streams, exit: 0, json: false }, argv)
    const names: string[] = []
    const disarm = (command: Command) => {
      command.action(() => void names.push(command.name()))
      command.commands.forEach(disarm)
    }
    program.commands.filter((command) => command.name() === argv[0]).forEach(disarm)
    if (argv.includes('--help')) continue
    await program.parseAsync(argv, { from: 'user' }).catch((error: Error) => t.fail(`${example}: ${error.message}`))
    t.equal(names.length, 1, example)
  }
})

t.test('help shows the nouns, and the verbs of one', async (t) => {
  const help = await syncline(['--help'])
  t.match(help, { code: 0, stderr: '' })
  for (const noun of ['serve', 'peer', 'quarantine', 'config']) t.match(help.stdout, new RegExp(`^  ${noun} `, 'm'))
  t.match(await syncline(['help', 'peer', 'invite']), { code: 0, stdout: /Examples:\n {2}syncline peer invite/ })
  t.match(await syncline(['--version']), { code: 0, stdout: /^\d+\.\d+\.\d+\n$/ })
})

t.test('wrong use ends with 2 and a hint', async (t) => {
  const wrong: readonly (readonly [string[], RegExp])[] = [
    [['peeer'], /unknown command 'peeer'.*Did you mean peer\?.*syncline --help/s],
    [['peer', 'invit', 'a'], /Did you mean invite\?.*Try: syncline peer --help/s],
    [['status', '--jsonn'], /unknown option '--jsonn'.*Did you mean --json\?.*Try: syncline status --help/s],
    [['peer', 'show'], /missing required argument 'peer'.*Try: syncline peer show --help/s],
    [['task', 'add', 'hub', 'city'], /required option '--mode <mode>'/],
    [['peer', 'invite', 'a', '--ttl', 'soon'], /must be a duration/],
    [['log', '--limit', 'many'], /whole number/],
    [['record', 'import', 'city', '--format', 'pdf'], /ndjson, json, csv, s3xml/],
    [['task', 'add', 'h', 'c', '--mode', 'pull', '--live', '--every', '5m'], /--every and --live say different things/],
    [['peer', 'grant', 'h', 'c'], /give --pull, --push or both/],
    [['peer', 'grant', 'h', 'c', '--pull', '--filter', '', '--url', 'http://127.0.0.1:1'], /--filter is empty/],
    [['task', 'set', '5', '--filter', ' ', '--url', 'http://127.0.0.1:1'], /--no-filter takes the filter/],
    [['record', 'put', 'c', 'a', '--set', 'x', '--url', 'http://127.0.0.1:1'], /"x" is not of the form/],
    [['record', 'put', 'c', 'a', '--data', '[1]', '--url', 'http://127.0.0.1:1'], /not a JSON object/],
    [['task', 'remove', 'hub', '--url', 'http://127.0.0.1:1'], /"hub" is no id of a task/],
    [['status', '--url', 'ftp://x'], /--url: must be an http or https URL/],
  ]
  for (const [argv, message] of wrong)
    t.match(await syncline(argv), { code: EXIT.wrongUse, stdout: '', stderr: message }, argv.join(' '))
  t.match(await syncline(['peer']), { code: EXIT.wrongUse, stdout: '', stderr: /Usage: syncline peer/ })
  const { stderr } = await syncline(['peer', 'show', '--json'])
  t.match(JSON.parse(stderr), { error: { code: 'SYNC_REQUEST_INVALID', detail: /missing required argument/ } })
})

t.test('every error code ends with an exit code of the contract', async (t) => {
  const exits = new Map((Object.keys(ERRORS) as ErrorCode[]).map((code) => [code, exitOf(code)]))
  t.equal(exits.get('SYNC_PEER_UNREACHABLE'), 4)
  t.equal(exits.get('SYNC_CONFIG_SITE_UNREACHABLE'), 4)
  t.equal(exits.get('SYNC_CONFIG_INVALID'), 2)
  t.equal(exits.get('SYNC_REQUEST_INVALID'), 2)
  t.equal(exits.get('SYNC_AUTH_MISSING'), 2)
  t.equal(exits.get('SYNC_REQUEST_NOT_FOUND'), 1)
  t.equal(exits.get('SYNC_STORE_UNAVAILABLE'), 1)
  t.equal(worst([0, 3, 4, 1]), 1)
  t.equal(worst([0, 3, 4]), 4)
  t.equal(worst([3, 0]), 3)
  t.equal(worst([]), 0)
})

t.test('a failure says what, where, why and the mend, with the code', async (t) => {
  const { flags } = await fakeSite(t, {
    'GET /peers/hub': problem('SYNC_PEER_UNREACHABLE', 'connect ECONNREFUSED 10.0.0.1:80'),
  })
  const person = await syncline(['peer', 'show', 'hub', ...flags])
  t.equal(person.code, EXIT.unreachable)
  t.equal(
    person.stderr,
    `syncline: ${ERRORS.SYNC_PEER_UNREACHABLE.title} (SYNC_PEER_UNREACHABLE)\n  connect ECONNREFUSED 10.0.0.1:80\n  ${ERRORS.SYNC_PEER_UNREACHABLE.mend}\n`,
  )
  const machine = await syncline(['peer', 'show', 'hub', '--json', ...flags])
  t.equal(machine.stdout, '')
  const { mend, title } = ERRORS.SYNC_PEER_UNREACHABLE
  t.same(JSON.parse(machine.stderr), {
    error: { code: 'SYNC_PEER_UNREACHABLE', title, detail: 'connect ECONNREFUSED 10.0.0.1:80', mend },
  })
})

t.test('what the system or the database says is told with a mend that fits', async (t) => {
  const failed = (fields: object) => explain(Object.assign(new Error('words'), fields))
  const listen = failed({ code: 'EADDRINUSE', syscall: 'listen' })
  t.match(listen, {
    exit: EXIT.wrongUse,
    text: { code: 'SYNC_CONFIG_INVALID', detail: 'words', mend: /SYNCLINE_PORT/ },
  })
  for (const code of ['ECONNREFUSED', '28P01', '3D000'])
    t.match(failed({ code }), { exit: EXIT.failed, text: { code: 'SYNC_STORE_UNAVAILABLE', mend: /PostgreSQL/ } }, code)
  t.match(failed({ code: 'EACCES' }), { exit: EXIT.failed, text: { code: 'EACCES', mend: /permissions/ } })
  t.match(failed({ code: '42601' }), {
    exit: EXIT.failed,
    text: { code: 'SYNC_INTERNAL', detail: /words\n +at /, mend: /report/ },
  })
})

t.test('a site that does not answer, or is none, is told apart from one that refuses', async (t) => {
  const nobody = await syncline(['status', '--url', 'http://127.0.0.1:1', '--token', 'x'])
  t.match(nobody, { code: EXIT.unreachable, stderr: /http:\/\/127\.0\.0\.1:1 does not answer.*syncline serve/s })
  const idle = await syncline(['status', '--data-dir', join(folder, 'nothing')])
  t.match(idle, { code: EXIT.unreachable, stderr: /No site runs on the data folder/ })
  const html = { status: 403, type: 'text/html', body: '<h1>Forbidden</h1>' }
  const stranger = await fakeSite(t, {
    'GET /site': html,
    'GET /tasks': { body: '<html>' },
    'GET /peers': { status: 502, body: '' },
  })
  t.match(await syncline(['status', ...stranger.flags]), {
    code: EXIT.wrongUse,
    stderr: /answered 403.*no answer of a Syncline site/s,
  })
  t.match(await syncline(['task', 'list', ...stranger.flags]), { code: EXIT.failed, stderr: /not JSON/ })
  t.match(await syncline(['peer', 'list', ...stranger.flags]), { code: EXIT.failed, stderr: /answered 502/ })
})

t.test(
  'the token comes from a flag, a file or the data folder, and the one of the folder goes nowhere else',
  async (t) => {
    const { url, asked } = await fakeSite(t, { 'GET /tokens': { body: { items: [], next: null } } })
    const last = () => asked.at(-1)?.headers.authorization
    await writeFile(join(folder, 'token'), 'from-file\n')
    t.equal((await syncline(['token', 'list', '--url', url, '--token-file', join(folder, 'token')])).code, 0)
    t.equal(last(), 'Bearer from-file')
    await writeFile(join(folder, 'admin.token'), 'of-the-folder\n')
    await writeFile(join(folder, 'address'), `${url}\n`)
    t.equal((await syncline(['token', 'list', '--data-dir', folder])).code, 0)
    t.equal(last(), 'Bearer of-the-folder')
    t.equal((await syncline(['token', 'list', '--data-dir', folder, '--url', url])).code, 0)
    t.equal(last(), undefined)
  },
)

t.test('a site that speaks TLS is trusted through the authorities of caFile alone', async (t) => {
  const { caFile, server } = makeCertificates(t)
  const { flags } = await fakeSite(t, { 'GET /tokens': { body: { items: [], next: null } } }, server)
  const stranger = await syncline(['token', 'list', ...flags])
  t.match(stranger, { code: EXIT.unreachable, stderr: /unable to (verify|get)|self.signed/i })
  const file = join(folder, 'tls.yaml')
  await writeFile(file, `caFile: ${caFile}\n`)
  t.match(await syncline(['token', 'list', '--config', file, ...flags]), { code: 0, stderr: '' })
})

t.test('a long list is read page by page', async (t) => {
  const pages = [
    { items: [{ id: 3, name: 'c', role: 'viewer' }], next: 'p2' },
    { items: [{ id: 2, name: 'b', role: 'viewer' }], next: null },
  ]
  const { flags, asked } = await fakeSite(t, {
    'GET /tokens': ({ query }) => ({ body: pages[query.cursor === 'p2' ? 1 : 0] }),
  })
  const { stdout } = await syncline(['token', 'list', '--json', ...flags])
  t.same(
    (JSON.parse(stdout) as { items: { id: number }[] }).items.map(({ id }) => id),
    [3, 2],
  )
  t.equal(asked.length, 2)
})

t.test('options become the request, and what is not given is not sent', async (t) => {
  const { flags, asked } = await fakeSite(t, {
    'POST /tasks': ({ body }) => ({
      status: 201,
      body: { id: 1, peer: 'hub', enabled: true, schedule: null, ...JSON.parse(body) },
    }),
    'GET /tasks': { body: { items: [{ id: 9 }], next: null } },
    'PATCH /tasks/9': { body: { id: 9, peer: 'hub', resource: 'city', mode: 'pull', enabled: false, schedule: null } },
    'PUT /peers/hub/grants/push/city': { body: {} },
    'DELETE /peers/a%2Fb': { status: 204 },
  })
  const sent = () => JSON.parse(asked.at(-1)?.body ?? '')
  const add = ['task', 'add', 'hub', 'city', '--mode', 'both']
  t.match(await syncline([...add, '--every', '5m', ...flags]), {
    code: 0,
    stdout: 'Task 1: pulls and pushes city with hub, every 5 min.\n',
  })
  t.same(sent(), { peer: 'hub', resource: 'city', mode: 'both', schedule: 'every:300' })
  await syncline([...add, '--schedule', ' 0  3 * * * ', '--filter', "a = 'b'", '--columns', 'x, y', ...flags])
  t.same(sent(), {
    peer: 'hub',
    resource: 'city',
    mode: 'both',
    filter: "a = 'b'",
    columns: ['x', 'y'],
    schedule: 'cron:0 3 * * *',
  })
  await syncline(['task', 'set', 'hub', 'city', '--no-filter', '--no-columns', '--no-schedule', '--disable', ...flags])
  t.same(sent(), { filter: null, columns: null, schedule: null, enabled: false })
  t.match(asked.at(-1), { method: 'PATCH', path: '/tasks/9', headers: { 'if-match': '*' } })
  t.match(asked.at(-2), { method: 'GET', path: '/tasks', query: { peer: 'hub', resource: 'city' } })
  await syncline(['peer', 'grant', 'hub', 'city', '--push', '--on-conflict', 'mine', ...flags])
  t.same(sent(), { onConflict: 'mine' })
  t.match(await syncline(['peer', 'remove', 'a/b', ...flags]), { code: 0 })
})

t.test('secrets alone go to standard output, so that a script can take them', async (t) => {
  const { flags, asked } = await fakeSite(t, {
    'POST /invitations': {
      status: 201,
      body: { id: 1, name: 'field', code: 'syncline1.abc', expiresAt: '2026-11-22T12:00:00Z' },
    },
    'POST /tokens': { status: 201, body: { id: 4, token: 'syncline_v_abc' } },
    'POST /peers/join': { status: 201, body: { name: 'hub', uuid: 'u', url: 'http://hub' } },
  })
  const invited = await syncline(['peer', 'invite', 'field', '--pull', 'city,country', '--ttl', '15m', ...flags])
  t.match(invited, { code: 0, stdout: 'syncline1.abc\n', stderr: /good once until/ })
  t.same(JSON.parse(asked.at(-1)?.body ?? ''), { name: 'field', pull: ['city', 'country'], push: [], ttlSeconds: 900 })
  t.match(await syncline(['token', 'issue', 'ci', '--role', 'viewer', ...flags]), {
    code: 0,
    stdout: 'syncline_v_abc\n',
  })
  await syncline(['peer', 'join', '-', ...flags], 'syncline1.abc\n')
  t.match(JSON.parse(asked.at(-1)?.body ?? ''), { code: /^syncline1\.abc/ })
})

const finished = {
  id: '5',
  peer: 'hub',
  cause: 'hand',
  state: 'finished',
  startedAt: '2026-11-22T12:00:00Z',
  finishedAt: '2026-11-22T12:00:01Z',
  message: null,
  counts: { pulled: 3, applied: 2, bytesIn: 99 },
}

t.test('sync waits for the end of its runs, and its exit code is the worst of them', async (t) => {
  const results: Readonly<Record<string, { result: string; code: string | null }>> = {
    1: { result: 'success', code: null },
    2: { result: 'warning', code: null },
    3: { result: 'error', code: 'SYNC_PEER_UNREACHABLE' },
    4: { result: 'fatal', code: 'SYNC_AUTH_MISSING' },
  }
  let runs: string[] = []
  let polls = 0
  const nothing = { body: { items: [], next: null } }
  const one = (id: string) => () => {
    const running = polls++ === 0
    return {
      body: {
        ...finished,
        id,
        ...(running ? { finishedAt: null, result: null, state: 'pull city', code: null } : results[id]),
      },
    }
  }
  const { flags, asked } = await fakeSite(t, {
    'POST /sync': () => ({ status: 202, body: { runs: runs.map((runId) => ({ peer: `p${runId}`, runId })) } }),
    ...Object.fromEntries(Object.keys(results).map((id) => [`GET /runs/${id}`, one(id)])),
    ...Object.fromEntries(['conflicts', 'quarantine', 'brakes'].map((noun) => [`GET /${noun}`, nothing])),
  })
  const sync = async (...ids: string[]) => {
    runs = ids
    polls = 0
    return syncline(['sync', 'hub', 'city', ...flags])
  }
  t.match(await sync('1'), { code: 0, stdout: /3 pulled, 2 applied/, stderr: 'p1: pull city\n' })
  t.same(JSON.parse(asked[0]?.body ?? ''), { peer: 'hub', resources: ['city'] })
  t.equal((await sync('1', '2')).code, EXIT.waiting)
  t.equal((await sync('3', '2')).code, EXIT.unreachable)
  t.equal((await sync('3', '4')).code, EXIT.failed)
  runs = ['1']
  t.match(await syncline(['sync', '--no-wait', ...flags]), { code: 0, stdout: 'Run 1 with p1 has begun.\n' })
})

t.test('the log is shown oldest first, and --json keeps the page as it is', async (t) => {
  const entry = (id: string, message: string) => ({
    ...{
      id,
      at: '2026-11-22T12:00:00Z',
      runId: '5',
      peer: 'hub',
      resource: 'city',
      mode: 'both',
      direction: 'incoming',
      action: 'pull',
    },
    ...{
      result: 'success',
      remote: false,
      message,
      changes: 3,
      applied: 3,
      conflicts: 0,
      quarantined: 0,
      refused: 0,
      bytes: 2048,
      durationMs: 12,
    },
  })
  const page = { items: [entry('2', 'second'), entry('1', 'first')], next: '1' }
  const { flags, asked } = await fakeSite(t, {
    'GET /log': { body: page },
    'GET /runs/5': { body: { ...finished, result: 'success', code: null } },
  })
  const { stdout } = await syncline(['log', '--peer', 'hub', '--limit', '2', ...flags])
  t.match(stdout, /<- hub city {2}pull {2}first {2}\(3 changes, 3 applied, 2\.0 KiB, 12 ms\)\n.*second/)
  t.same(asked.at(-1)?.query, { peer: 'hub', limit: '2' })
  t.same(JSON.parse((await syncline(['log', '--json', ...flags])).stdout), page)
  t.match((await syncline(['run', 'show', '5', ...flags])).stdout, /result {4}success.*first.*second/s)
  t.equal(asked.at(-1)?.query.run, '5')
})

t.test('an attach shows its steps and ends with what the site says', async (t) => {
  const resource = {
    name: 'city',
    table: 'public.city',
    key: 'id',
    addedUuid: false,
    columns: [{ name: 'id', sent: true }],
  }
  const lines = (...items: object[]) => ({
    type: 'application/x-ndjson',
    body: items.map((item) => `${JSON.stringify(item)}\n`).join(''),
  })
  const step = { resource: 'city', doing: 'register rows', done: 5, total: 10 }
  let answer = lines(step, { resources: [resource] })
  const { flags, asked } = await fakeSite(t, { 'POST /resources': () => answer })
  const attach = ['resource', 'attach', 'public.city', ...flags]
  t.match(await syncline(attach), {
    code: 0,
    stderr: 'attach: city: register rows\n',
    stdout: /^city: table public\.city, records identified by id, 1 column travels\.$/m,
  })
  t.match(asked[0], { headers: { accept: 'application/x-ndjson' }, body: '{"tables":[{"table":"public.city"}]}' })
  answer = lines(step, { problem: { code: 'SYNC_RESOURCE_UNSUITABLE', title: 'x', detail: 'city is a view' } })
  t.match(await syncline(attach), { code: 1, stdout: '', stderr: /city is a view/ })
  answer = lines(step)
  t.match(await syncline(attach), { code: 1, stderr: /SYNC_BATCH_INCOMPLETE/ })
})

t.test('an import reports what became of the records, and its exit code says whether all is well', async (t) => {
  const counts = { applied: 1, known: 0, skipped: 0, merged: 0, conflict: 0, quarantined: 0, refused: 0 }
  let answer: object = { counts, rejections: [], truncated: false }
  const { flags, asked } = await fakeSite(t, {
    'POST /records/city': () => ({ body: answer }),
    'GET /records/city': problem('SYNC_FILTER_INVALID', 'no'),
  })
  const put = (...argv: string[]) => syncline(['record', 'import', 'city', ...argv, ...flags], 'id,n\na,1\n')
  t.match(await put('--format', 'csv'), { code: 0, stdout: '1 applied\n' })
  t.match(asked.at(-1), { body: 'id,n\na,1', headers: { 'content-type': 'text/csv' } })
  const rejection = { id: 'a', outcome: 'refused', code: 'SYNC_RECORD_CONSTRAINT', reason: 'too small' }
  answer = { counts: { ...counts, refused: 1 }, rejections: [rejection], truncated: false }
  t.match(await put('--format', 'csv'), {
    code: EXIT.failed,
    stdout: /a: refused, too small \(SYNC_RECORD_CONSTRAINT\)/,
  })
  answer = { counts: { ...counts, quarantined: 1 }, rejections: [], truncated: false }
  t.equal((await put('--format', 'csv', '--json')).code, EXIT.waiting)
  t.match(await syncline(['record', 'export', 'city', '--filter', '?', ...flags]), { code: EXIT.wrongUse, stdout: '' })
  t.match(await syncline(['record', 'import', 'city', join(folder, 'none.csv'), ...flags]), {
    code: EXIT.failed,
    stderr: /ENOENT/,
  })
})

t.test('config check names all faults at once, and config show hides secrets', async (t) => {
  const file = join(folder, 'faulty.yaml')
  await writeFile(file, 'port: -1\nnmae: x\n')
  const check = await syncline(['config', 'check', '--config', file])
  t.equal(check.code, EXIT.wrongUse)
  t.match(check.stdout, /port in .*: must be at least 0/)
  t.match(check.stdout, /nmae in .*: there is no such setting; did you mean name\?/)
  t.match(JSON.parse((await syncline(['config', 'check', '--json'])).stdout), { valid: true, faults: [] })
  await writeFile(file, 'databaseUrl: postgres://me:hidden@db/app\n')
  const show = await syncline(['config', 'show', '--config', file])
  t.match(show, { code: 0, stdout: /databaseUrl +postgres:\/\/me:\*\*\*@db\/app +databaseUrl in .*faulty\.yaml/ })
  t.notMatch(show.stdout, /hidden/)
})

t.test('the guide of the command line says what the commands say', async (t) => {
  const text = await readFile(join(import.meta.dirname, '../../docs/guides/command-line.md'), 'utf8')
  t.equal(text, await generate(), 'stale: run npm run golden')
})
