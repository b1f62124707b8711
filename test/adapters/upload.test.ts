import {
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  symlinkSync,
  utimesSync,
  writeFileSync,
} from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import t, { type Test } from 'tap'
import { createSsh } from '../../src/adapters/ssh/ssh.ts'
import { giveByFtps } from '../../src/adapters/upload/ftps.ts'
import { planUpload, runUpload, type Upload, uploadFaults } from '../../src/adapters/upload/index.ts'
import { makeCertificates } from '../support/certificates.ts'
import { startFtps } from '../support/ftps.ts'
import { startHosts } from '../support/sshd.ts'

const { inbox } = await startHosts(t, ['inbox'])
const folder = mkdtempSync(join(tmpdir(), 'syncline-upload-'))
t.teardown(() => rmSync(folder, { recursive: true, force: true }))
let trusted = [inbox.hostKey]
const ssh = createSsh({ folder: join(folder, 'ssh'), hostKeys: async () => trusted })
const { signal } = new AbortController()

/** A folder with files; the first is the oldest. */
function place(t: Test, files: Readonly<Record<string, string>>): string {
  const from = mkdtempSync(join(folder, 'from-'))
  t.teardown(() => rmSync(from, { recursive: true, force: true }))
  for (const [n, [name, content]] of Object.entries(files).entries()) {
    mkdirSync(join(from, name, '..'), { recursive: true })
    writeFileSync(join(from, name), content)
    utimesSync(join(from, name), 1_700_000_000 + n, 1_700_000_000 + n)
  }
  return from
}

function tree(path: string): readonly string[] {
  return readdirSync(path, { recursive: true, withFileTypes: true })
    .filter((entry) => entry.isFile())
    .map((entry) => join(entry.parentPath, entry.name).slice(path.length + 1))
    .sort()
}

async function run(upload: Upload) {
  const said: string[] = []
  return { ...(await runUpload(ssh, upload, { signal, say: (line) => said.push(line) })), said }
}

t.test('files are given by SFTP, the oldest first, each complete before it has its name', async (t) => {
  const from = place(t, {
    'b.xml': 'first',
    "a 'b' é.xml": 'second',
    'deep/c.xml': 'third',
    'other.csv': '',
    '.hidden.xml': '',
    'd.xml.part': '',
    'star*.xml': '',
  })
  symlinkSync('/etc/passwd', join(from, 'link.xml'))
  const there = join(inbox.dir, 'incoming')
  const upload: Upload = { from, files: '**/*.xml', sftp: { ...inbox.ssh, path: there }, after: 'move' }
  t.match(await planUpload(upload), {
    files: 3,
    bytes: 16,
    names: ['b.xml', "a 'b' é.xml", 'deep/c.xml'],
    leftOut: ['star*.xml'],
  })
  t.notOk(existsSync(there), 'a plan gives nothing')
  const done = await run(upload)
  t.match(done, {
    files: 3,
    bytes: 16,
    leftOut: ['star*.xml'],
    said: ['gave b.xml', "gave a 'b' é.xml", 'gave deep/c.xml'],
  })
  t.same(tree(there), ["a 'b' é.xml", 'b.xml', 'deep/c.xml'])
  t.equal(readFileSync(join(there, "a 'b' é.xml"), 'utf8'), 'second')
  t.same(tree(from), [
    '.hidden.xml',
    'd.xml.part',
    'other.csv',
    "sent/a 'b' é.xml",
    'sent/b.xml',
    'sent/deep/c.xml',
    'star*.xml',
  ])
  writeFileSync(join(from, 'b.xml'), 'again')
  t.match(await run(upload), { files: 1 })
  t.equal(readFileSync(join(there, 'b.xml'), 'utf8'), 'again', 'a file of that name there is replaced at once')
  t.ok(tree(from).includes('sent/b-2.xml'), 'and none here')
})

t.test('what cannot be given stays, and what was given before it is let go of', async (t) => {
  const from = place(t, { '1.txt': 'one', '2.txt': 'two', '3.txt': 'three' })
  const there = join(inbox.dir, 'partly')
  inbox.run('mkdir', '-p', join(there, '2.txt'))
  await t.rejects(run({ from, sftp: { ...inbox.ssh, path: there }, after: 'delete' }), {
    code: 'SYNC_TRANSFER_FAILED',
    message: /2\.txt/,
  })
  t.same(tree(from), ['2.txt', '3.txt'])
  t.ok(existsSync(join(there, '1.txt')))
  inbox.run('rmdir', join(there, '2.txt'))
  t.match(await run({ from, sftp: { ...inbox.ssh, path: there }, after: 'delete' }), { files: 2 })
  t.same(
    tree(there).filter((name) => !name.startsWith('.')),
    ['1.txt', '2.txt', '3.txt'],
  )
  t.same(tree(from), [])
})

t.test('a host is believed only with the key that somebody trusted', async (t) => {
  const from = place(t, { 'a.txt': 'a' })
  trusted = []
  await t.rejects(run({ from, sftp: { ...inbox.ssh, path: inbox.dir } }), { code: 'SYNC_TRANSFER_UNTRUSTED' })
  trusted = [inbox.hostKey]
  await t.rejects(run({ from, sftp: { ...inbox.ssh, port: 1, path: inbox.dir } }), {
    code: /SYNC_TRANSFER_(?:UNTRUSTED|UNREACHABLE)/,
  })
  await t.rejects(run({ from: join(from, 'none'), sftp: { ...inbox.ssh, path: inbox.dir } }), {
    code: 'SYNC_TRANSFER_FAILED',
    message: /there is no folder/,
  })
})

t.test('settings that could be read as something else are refused', async (t) => {
  const sftp = { host: 'h.example.org', path: '/in' }
  const ftps = { host: 'h.example.org', user: 'u', passwordFile: '/run/secret', path: '/in' }
  t.same(uploadFaults({ from: '/out', sftp }), [])
  t.same(uploadFaults({ from: '/out', ftps }), [])
  for (const [wrong, at] of [
    [{ from: '/out' }, '/sftp'],
    [{ from: '/out', sftp, ftps }, '/sftp'],
    [{ from: 'out', sftp }, '/from'],
    [{ from: '/out', files: '../*', sftp }, '/files'],
    [{ from: '/out', done: '../up', sftp }, '/done'],
    [{ from: '/out', sftp: { ...sftp, path: '/in"\nrm *' } }, '/sftp/path'],
    [{ from: '/out', sftp: { ...sftp, host: '-oProxyCommand=x' } }, '/sftp/host'],
    [{ from: '/out', ftps: { ...ftps, host: 'a/b' } }, '/ftps/host'],
    [{ from: '/out', ftps: { ...ftps, user: 'a\nurl = x' } }, '/ftps/user'],
    [{ from: '/out', ftps: { ...ftps, passwordFile: 'secret' } }, '/ftps/passwordFile'],
    [{ from: '/out', ftps: { ...ftps, path: '/a/../b' } }, '/ftps/path'],
  ] as const)
    t.ok(
      uploadFaults(wrong).some(({ path }) => path === at),
      JSON.stringify(wrong),
    )
  await t.rejects(run({ from: 'out', sftp }), { code: 'SYNC_TRANSFER_INVALID' })
})

t.test('a machine without curl is told so', async (t) => {
  const passwordFile = join(folder, 'password')
  writeFileSync(passwordFile, 'x')
  const ftps = { host: 'localhost', user: 'u', passwordFile, path: '/in' }
  const how = { signal, given: async () => {}, program: '/nonexistent/curl' }
  const missing = { code: 'SYNC_TRANSFER_TOOL', message: /there is no curl on the machine of this site/ }
  await t.rejects(giveByFtps(ftps, [{ file: '/etc/hostname', name: 'a' }], how), missing)
})

t.test('files are given by FTPS, encrypted, to a host whose certificate is checked', async (t) => {
  const from = place(t, { 'a b.xml': 'one', 'c.xml': 'x'.repeat(200_000) })
  const certificates = makeCertificates(t)
  const account = { user: 'relief', password: 'pass "word" \\ é' }
  const host = await startFtps(t, certificates, account)
  const passwordFile = join(folder, 'password')
  writeFileSync(passwordFile, `${account.password}\n`)
  const ftps = {
    host: 'localhost',
    port: host.port,
    user: account.user,
    passwordFile,
    caFile: certificates.caFile,
    path: '/in/box',
  }
  await t.rejects(run({ from, ftps: { ...ftps, caFile: certificates.client.certFile } }), {
    code: 'SYNC_TRANSFER_UNTRUSTED',
  })
  t.notOk(
    host.asked.some((line) => line.startsWith('PASS')),
    'nobody else is told the password',
  )
  writeFileSync(passwordFile, 'wrong')
  await t.rejects(run({ from, ftps }), { code: 'SYNC_TRANSFER_DENIED' })
  writeFileSync(passwordFile, `${account.password}\n`)
  host.cut = true
  await t.rejects(run({ from, ftps, after: 'delete' }), { name: 'SynclineError' })
  t.same(tree(from), ['a b.xml', 'c.xml'])
  t.match(await run({ from, ftps, after: 'delete' }), { files: 2, bytes: 200_003 })
  t.same([...host.files.keys()].sort(), ['/in/box/a b.xml', '/in/box/c.xml'])
  t.equal(host.files.get('/in/box/a b.xml'), 'one')
  t.same(tree(from), [])
  const stored = host.asked.filter((line) => /^(?:STOR|RNTO)/.test(line)).slice(-4)
  t.same(stored, ['STOR .a b.xml.part', 'RNTO a b.xml', 'STOR .c.xml.part', 'RNTO c.xml'])
  const again = { from: place(t, { 'a.xml': 'a' }), ftps: { ...ftps, passwordFile: '/nonexistent' } }
  await t.rejects(run(again), { code: 'SYNC_TRANSFER_DENIED' })
})
