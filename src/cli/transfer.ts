import { path } from './api.ts'
import { noun, type Register, verb } from './command.ts'
import { EXIT } from './exit.ts'
import { cell, time } from './text.ts'

type Key = { readonly host: string; readonly port: number; readonly type: string; readonly fingerprint: string }
type Shown = { readonly items: readonly (Key & { readonly trusted: boolean })[] }
type Trusted = { readonly items: readonly (Key & { readonly trustedAt: string; readonly trustedBy: string | null })[] }
type TrustOptions = {
  readonly port?: string
  readonly user?: string
  readonly key?: string
  readonly jump?: string
  readonly fingerprint?: readonly string[]
}

/** `transfer …`: the hosts that files are copied to and from. */
export const transfer: Register = (program, session) => {
  const transfer = noun(program, 'transfer', 'The hosts that files are copied to and from')

  verb<TrustOptions, [string]>(transfer, session, {
    use: 'trust <host>',
    does: 'Shows the keys of a host; with --fingerprint trusts them',
    more: 'Compare a fingerprint with what the host itself shows: ssh-keygen -lf /etc/ssh/ssh_host_ed25519_key.pub. Keys of the host that are not named are trusted no more.',
    examples: [
      'syncline transfer trust backup01',
      'syncline transfer trust backup01 --port 2222 --fingerprint SHA256:Zk1f0d9T7J7c8h2Wq3mYtVxN5rUeBpLsAoGiCnKdHxE',
      'syncline transfer trust backup-remote --jump sync@gate.example.org:22 --user sync',
    ],
    options: (command) =>
      command
        .option('--port <port>', 'port of its SSH server')
        .option('--user <user>', 'user to log in as; needed with --jump alone')
        .option('--key <file>', 'private key on the machine of the site; needed with --jump alone')
        .option('--jump <host>', 'host over which it is reached, as [user@]host[:port]; it must be trusted already')
        .option('--fingerprint <fingerprint...>', 'trust the keys with these fingerprints'),
    run: async ({ site, out }, { port, user, key, jump, fingerprint }, name) => {
      const host = {
        host: name,
        ...(port !== undefined && { port: Number(port) }),
        ...(user !== undefined && { user }),
        ...(key !== undefined && { key }),
        ...(jump !== undefined && { jump: { ...jumpOf(jump), ...(key !== undefined && { key }) } }),
      }
      const api = await site()
      const shown =
        fingerprint === undefined
          ? await api.send<Shown>('POST', '/transfers/hosts/scan', { body: host })
          : await api.send<Shown>('POST', '/transfers/hosts', { body: { host, fingerprints: fingerprint } })
      const trusted = shown.items.some((each) => each.trusted)
      await out.result(shown, () =>
        out.table(
          ['HOST', 'KEY', 'FINGERPRINT', 'TRUSTED'],
          shown.items.map((each) => [
            placeOf(each),
            cell(each.type),
            cell(each.fingerprint),
            each.trusted ? 'yes' : 'no',
          ]),
        ),
      )
      if (trusted) return EXIT.done
      out.note(
        'Nothing is trusted yet. When a fingerprint is the one that the host itself shows, repeat with --fingerprint.',
      )
      return EXIT.waiting
    },
  })

  verb(transfer, session, {
    use: 'hosts',
    does: 'Lists the hosts that are trusted',
    examples: ['syncline transfer hosts'],
    run: async ({ site, out }) => {
      const { items } = await (await site()).get<Trusted>('/transfers/hosts')
      await out.result({ items }, () =>
        out.table(
          ['HOST', 'KEY', 'FINGERPRINT', 'SINCE', 'BY'],
          items.map((each) => [
            placeOf(each),
            cell(each.type),
            cell(each.fingerprint),
            time(each.trustedAt),
            cell(each.trustedBy),
          ]),
        ),
      )
    },
  })

  verb<{ readonly port: string }, [string]>(transfer, session, {
    use: 'forget <host>',
    does: 'Trusts a host no more',
    examples: ['syncline transfer forget backup01', 'syncline transfer forget backup01 --port 2222'],
    options: (command) => command.option('--port <port>', 'port of its SSH server', '22'),
    run: async ({ site, out }, { port }, host) => {
      await (await site()).send('DELETE', `${path`/transfers/hosts/${host}`}?port=${encodeURIComponent(port)}`)
      await out.result({ forgotten: host }, () => `${cell(host)} is trusted no more.`)
    },
  })
}

function jumpOf(text: string): { readonly host: string; readonly user?: string; readonly port?: number } {
  const [, user, host = '', port] = /^(?:([^@]*)@)?(.*?)(?::(\d+))?$/.exec(text) ?? []
  return { host, ...(user !== undefined && { user }), ...(port !== undefined && { port: Number(port) }) }
}

function placeOf({ host, port }: Key): string {
  return cell(port === 22 ? host : `${host}:${port}`)
}
