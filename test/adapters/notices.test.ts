import { createHmac } from 'node:crypto'
import { createServer } from 'node:http'
import t from 'tap'
import { type AlarmNotice, createMailer, createWebhook } from '../../src/adapters/index.ts'
import { startSmtp } from '../support/smtp.ts'

const SITE = { uuid: '0a8f0c1e-0d43-4f0a-9c5b-3c2b7f6f1d11', name: 'Büro Graz', url: 'https://graz.example.org' }
const ALARM: AlarmNotice['alarm'] = {
  id: '7',
  code: 'quarantine-growing',
  level: 'critical',
  peer: 'hub',
  resource: 'city',
  text: `.101 records of city from hub went into quarantine: “Übel” ${'and so on '.repeat(200)}`,
  mend: 'See why.\r\n.\r\nMAIL FROM:<evil@example.org>',
  since: '2026-11-22T09:30:00.000000Z',
  ended: null,
}
const ENDED = { ...ALARM, ended: '2026-11-22T10:00:00.000000Z' }

t.test('an alarm is sent as mail by the rules of SMTP, once for its begin and once for its end', async (t) => {
  const server = await startSmtp(t)
  const send = createMailer({ url: server.url, from: 'syncline@example.org', to: ['a@example.org', 'b@example.org'] })
  await send(SITE, { moment: 'begin', alarm: ALARM })
  await send(SITE, { moment: 'end', alarm: ENDED })
  t.same(server.faults, [])
  t.equal(server.mails.length, 2)
  const [begin, end] = server.mails
  t.match(begin, { from: 'syncline@example.org', to: ['a@example.org', 'b@example.org'] })
  const header = (mail: { data: string } | undefined, name: string) =>
    new RegExp(`^${name}:(.*(?:\\r\\n[ \\t].*)*)`, 'mi')
      .exec(mail?.data ?? '')?.[1]
      ?.replace(/\r\n[ \t]+/g, ' ')
      .trim()
  t.equal(header(begin, 'Message-ID'), `<${SITE.uuid}.alarm.7.begin@syncline.invalid>`)
  t.equal(header(end, 'Message-ID'), `<${SITE.uuid}.alarm.7.end@syncline.invalid>`)
  t.equal(header(end, 'In-Reply-To'), header(begin, 'Message-ID'))
  t.equal(header(begin, 'Auto-Submitted'), 'auto-generated')
  t.match(header(begin, 'Subject'), /=\?UTF-8\?|quarantine-growing/i)
  t.match(header(begin, 'Date'), /^\w{3}, \d\d \w{3} \d{4}/)
  const body = decoded(begin?.data ?? '')
  t.match(body, /^\.101 records of city from hub went into quarantine: “Übel”/m)
  t.match(body, /^MAIL FROM:<evil@example\.org>$/m, 'what looks like a command is text')
  t.match(decoded(end?.data ?? ''), /No longer so, since 2026-11-22T10:00/)
})

t.test('what a mail server answers is what the caller hears', async (t) => {
  const server = await startSmtp(t)
  const settings = { from: 'syncline@example.org', to: ['a@example.org'] }
  server.refuse(1)
  const send = createMailer({ url: server.url, ...settings })
  await t.rejects(send(SITE, { moment: 'begin', alarm: ALARM }), /451/)
  await send(SITE, { moment: 'begin', alarm: ALARM })
  t.equal(server.mails.length, 1)
  const wrong = createMailer({ url: server.url.replace('a%20secret', 'guessed'), ...settings })
  await t.rejects(wrong(SITE, { moment: 'begin', alarm: ALARM }), /535/)
  await t.rejects(
    createMailer({ url: 'smtp://127.0.0.1:1', ...settings })(SITE, { moment: 'begin', alarm: ALARM }),
    /ECONNREFUSED/,
  )
})

t.test('a webhook is signed over its id, its time and its body', async (t) => {
  const calls: { headers: Record<string, unknown>; body: string }[] = []
  let status = 204
  const server = createServer((request, response) => {
    const chunks: Buffer[] = []
    request.on('data', (chunk: Buffer) => chunks.push(chunk))
    request.on('end', () => {
      calls.push({ headers: request.headers, body: Buffer.concat(chunks).toString() })
      response
        .writeHead(status, status === 302 ? { location: 'http://127.0.0.1:1/' } : {})
        .end(status === 500 ? 'not today' : '')
    })
  })
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
  t.teardown(() => server.close())
  const url = `http://127.0.0.1:${(server.address() as { port: number }).port}/hook?key=1`
  const secrets = {
    'a secret of some length': Buffer.from('a secret of some length'),
    [`whsec_${Buffer.from('raw bytes of 24 or more..').toString('base64')}`]: Buffer.from('raw bytes of 24 or more..'),
  }
  for (const [secret, key] of Object.entries(secrets)) {
    const send = createWebhook({ url, secret }, () => 1_795_305_600_999)
    await send(SITE, { moment: 'begin', alarm: ALARM })
    const { headers = {}, body = '' } = calls.at(-1) ?? {}
    t.equal(headers['webhook-id'], `${SITE.uuid}.alarm.7.begin`)
    t.equal(headers['webhook-timestamp'], '1795305600')
    const signed = `${headers['webhook-id']}.${headers['webhook-timestamp']}.${body}`
    t.equal(headers['webhook-signature'], `v1,${createHmac('sha256', key).update(signed).digest('base64')}`)
    t.match(JSON.parse(body), {
      type: 'alarm.begun',
      timestamp: ALARM.since,
      data: { site: SITE, alarm: { code: ALARM.code, text: ALARM.text } },
    })
  }
  const send = createWebhook({ url, secret: 'a secret of some length' })
  await send(SITE, { moment: 'end', alarm: ENDED })
  t.match(JSON.parse(calls.at(-1)?.body ?? ''), { type: 'alarm.ended', timestamp: ENDED.ended })
  status = 500
  await t.rejects(send(SITE, { moment: 'end', alarm: ENDED }), /answered 500: not today/)
  status = 302
  await t.rejects(send(SITE, { moment: 'end', alarm: ENDED }), /answered 302/, 'nobody is sent elsewhere with it')
})

/** The text of a mail whose body is quoted-printable or base64. */
function decoded(mail: string): string {
  const at = mail.indexOf('\r\n\r\n')
  const [head, body] = [mail.slice(0, at), mail.slice(at + 4)]
  if (/^content-transfer-encoding: base64/im.test(head))
    return Buffer.from(body, 'base64').toString().replaceAll('\r\n', '\n')
  const plain = body
    .replace(/=\r\n/g, '')
    .replace(/((?:=[0-9A-F]{2})+)/g, (hex) => Buffer.from(hex.replaceAll('=', ''), 'hex').toString())
  return plain.replaceAll('\r\n', '\n')
}
