/** A host that takes files by FTP over TLS, as far as an upload needs it: RFC 959, RFC 2428 and RFC 4217. */
import { createServer, type Server, type Socket } from 'node:net'
import { createSecureContext, TLSSocket } from 'node:tls'
import type { Certificates } from './certificates.ts'
import type { Owner } from './postgres.ts'

export type FtpsHost = {
  readonly port: number
  /** Files by their whole name there. */
  readonly files: Map<string, string>
  /** What was asked, passwords too, in order. */
  readonly asked: readonly string[]
  /** Cuts the connection in the middle of the next file. */
  cut: boolean
}

export async function startFtps(
  t: Owner,
  { server: pair }: Certificates,
  account: { readonly user: string; readonly password: string },
): Promise<FtpsHost> {
  const context = createSecureContext({ cert: pair.cert, key: pair.key })
  const asked: string[] = []
  const host = { port: 0, files: new Map<string, string>(), asked, cut: false }
  const secure = (socket: Socket) => new TLSSocket(socket, { isServer: true, secureContext: context })
  const open = new Set<Socket>()
  const listening = async (server: Server): Promise<number> => {
    server.on('connection', (socket: Socket) => open.add(socket.on('error', () => {})))
    await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
    const address = server.address()
    return typeof address === 'object' && address !== null ? address.port : 0
  }

  const converse = (plain: Socket) => {
    let folder = '/'
    let [user, renaming] = ['', '']
    let data: Promise<Socket> | undefined
    let encrypted = false
    const full = (name: string) => (name.startsWith('/') ? name : `${folder === '/' ? '' : folder}/${name}`)
    const use = (socket: Socket) => {
      const say = (line: string) => socket.write(`${line}\r\n`)
      let rest = ''
      socket.on('error', () => {})
      socket.on('data', async (chunk: Buffer) => {
        rest += chunk.toString()
        for (let end = rest.indexOf('\r\n'); end !== -1; end = rest.indexOf('\r\n')) {
          const line = rest.slice(0, end)
          rest = rest.slice(end + 2)
          asked.push(line)
          const [verb = '', ...words] = line.split(' ')
          const word = words.join(' ')
          switch (verb.toUpperCase()) {
            case 'AUTH':
              say('234 go on')
              socket.removeAllListeners('data')
              encrypted = true
              return use(secure(socket))
            case 'USER':
              user = word
              say(encrypted ? '331 password' : '530 not without TLS')
              break
            case 'PASS':
              say(user === account.user && word === account.password ? '230 in' : '530 no')
              break
            case 'PWD':
              say(`257 "${folder}"`)
              break
            case 'CWD':
              folder = full(word)
              say('250 there')
              break
            case 'EPSV': {
              const server = createServer()
              const port = await listening(server)
              data = new Promise((resolve) => server.once('connection', (each: Socket) => resolve(secure(each))))
              t.teardown(async () => void server.close())
              say(`229 here (|||${port}|)`)
              break
            }
            case 'STOR': {
              say('150 give')
              const chunks: Buffer[] = []
              const from = await data
              const cut = host.cut
              host.cut = false
              from?.on('data', (piece: Buffer) => chunks.push(piece))
              from?.on('error', () => {})
              await new Promise<void>((resolve) => from?.once(cut ? 'data' : 'end', () => resolve()))
              from?.destroy()
              if (cut) return void plain.destroy()
              host.files.set(full(word), Buffer.concat(chunks).toString())
              say('226 have it')
              break
            }
            case 'DELE':
              say(host.files.delete(full(word)) ? '250 gone' : '550 none')
              break
            case 'RNFR':
              renaming = full(word)
              say('350 to')
              break
            case 'RNTO':
              host.files.set(full(word), host.files.get(renaming) ?? '')
              host.files.delete(renaming)
              say('250 renamed')
              break
            case 'QUIT':
              say('221 bye')
              return void socket.end()
            default:
              say('200 fine')
          }
        }
      })
    }
    use(plain)
    plain.write('220 ready\r\n')
  }
  const server = createServer(converse)
  host.port = await listening(server)
  t.teardown(async () => {
    for (const socket of open) socket.destroy()
    await new Promise<void>((resolve) => server.close(() => resolve()))
  })
  return host
}
