/** A mail server that takes mail as RFC 5321 has it and keeps it; what a client must not do it refuses, and says so to the test. */
import { createServer, type Server, type Socket } from 'node:net'
import type { Owner } from './postgres.ts'

export type TakenMail = { readonly from: string; readonly to: readonly string[]; readonly data: string }

export type SmtpDouble = {
  readonly url: string
  readonly mails: readonly TakenMail[]
  /** Every command as it came, for all sessions. */
  readonly commands: readonly string[]
  /** What clients did that the RFC forbids. */
  readonly faults: readonly string[]
  /** Answers the next so many mails with 451 behind their data. */
  refuse: (count: number) => void
}

type Session = { greeted: boolean; user: boolean; from: string | null; to: string[]; data: string[] | null }

/** Takes one user and password by AUTH PLAIN; mail only after that, as a mail server for submission does (RFC 6409). */
export async function startSmtp(t: Owner): Promise<SmtpDouble> {
  const mails: TakenMail[] = []
  const commands: string[] = []
  const faults: string[] = []
  let refusals = 0
  const sockets = new Set<Socket>()
  const server: Server = createServer((socket) => {
    sockets.add(socket)
    socket.on('close', () => sockets.delete(socket))
    socket.on('error', () => {})
    const session: Session = { greeted: false, user: false, from: null, to: [], data: null }
    let rest = ''
    const say = (line: string) => socket.write(`${line}\r\n`)
    say('220 double ESMTP')
    socket.on('data', (chunk) => {
      rest += chunk.toString()
      for (let end = rest.indexOf('\r\n'); end >= 0; end = rest.indexOf('\r\n')) {
        const line = rest.slice(0, end)
        rest = rest.slice(end + 2)
        if (line.includes('\n') || line.includes('\r')) faults.push(`a bare line break in ${JSON.stringify(line)}`)
        if (session.data === null) command(session, line, say, socket)
        else data(session, line, say)
      }
    })
  })

  function data(session: Session, line: string, say: (line: string) => void): void {
    // 4.5.3.1.6: a line has at most 1000 octets with its end.
    if (Buffer.byteLength(line) > 998) faults.push('a line of more than 998 octets')
    if (Buffer.byteLength(line) !== line.length) faults.push('an octet beyond ASCII without 8BITMIME')
    if (line !== '.') {
      // 4.5.2: a leading dot was doubled by the client.
      session.data?.push(line.startsWith('.') ? line.slice(1) : line)
      return
    }
    const mail = { from: session.from ?? '', to: session.to, data: (session.data ?? []).join('\r\n') }
    session.data = null
    session.from = null
    session.to = []
    if (refusals > 0) {
      refusals--
      say('451 4.3.0 try again')
      return
    }
    mails.push(mail)
    say('250 2.0.0 taken')
  }

  function command(session: Session, line: string, say: (line: string) => void, socket: Socket): undefined {
    commands.push(line)
    const [verb = ''] = line.toUpperCase().split(' ', 1)
    const bad = (why: string): undefined => {
      faults.push(`${line}: ${why}`)
      say('503 5.5.1 bad sequence')
    }
    if (verb === 'EHLO') {
      session.greeted = true
      if (!/^EHLO \S+$/i.test(line)) faults.push(`${line}: names no domain`)
      say('250-double')
      say('250-AUTH PLAIN')
      say('250 ENHANCEDSTATUSCODES')
    } else if (verb === 'QUIT') {
      say('221 2.0.0 bye')
      socket.end()
    } else if (!session.greeted) bad('before EHLO')
    else if (verb === 'AUTH') {
      const [, given = ''] = /^AUTH PLAIN (\S+)$/i.exec(line) ?? []
      session.user = Buffer.from(given, 'base64').toString() === '\0operator\0a secret'
      say(session.user ? '235 2.7.0 welcome' : '535 5.7.8 unknown')
    } else if (verb === 'MAIL') {
      const [, from] = /^MAIL FROM:<([^<>\s]*)>( \S+)*$/i.exec(line) ?? []
      if (!session.user) return bad('before AUTH')
      if (from === undefined || session.from !== null) return bad('not one reverse path')
      session.from = from
      say('250 2.1.0 ok')
    } else if (verb === 'RCPT') {
      const [, to] = /^RCPT TO:<([^<>\s]+@[^<>\s]+)>$/i.exec(line) ?? []
      if (session.from === null || to === undefined) return bad('not a recipient behind a sender')
      session.to.push(to)
      say('250 2.1.5 ok')
    } else if (verb === 'DATA') {
      if (session.to.length === 0) return bad('before a recipient')
      session.data = []
      say('354 go on')
    } else if (verb === 'RSET') {
      session.from = null
      session.to = []
      say('250 2.0.0 ok')
    } else say('502 5.5.1 command not recognized')
  }

  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', () => resolve()))
  t.teardown(() => {
    for (const socket of sockets) socket.destroy()
    return new Promise<void>((resolve) => server.close(() => resolve()))
  })
  const { port } = server.address() as { port: number }
  const refuse = (count: number) => {
    refusals = count
  }
  return { url: `smtp://operator:a%20secret@127.0.0.1:${port}`, mails, commands, faults, refuse }
}
