import { readFile } from 'node:fs/promises'
import { text } from 'node:stream/consumers'
import type { Command } from 'commander'
import type { Grant, IssuedToken, Peer } from '../store/index.ts'
import { SynclineError } from '../sync/index.ts'
import { path } from './api.ts'
import { type Context, noun, type Register, seconds, verb } from './command.ts'
import { type FolderOptions, folderBody, folderOptions } from './folder.ts'
import { registerGrant } from './peer-grant.ts'
import { registerPairing } from './peer-pairing.ts'
import { ago, cell, duration, fields, until } from './text.ts'

/** `peer …`: the other sites as registered here. */
export const peer: Register = (program, session) => {
  const peer = noun(program, 'peer', 'Other sites as registered here')
  registerPairing(peer, session)

  verb<Connection & Eden & FolderOptions & { readonly uuid?: string }, [string]>(peer, session, {
    use: 'add <name>',
    does: 'Registers a peer by hand, where no pairing code can be passed on',
    more: 'A program that only pushes with curl is a peer too: add it without more, grant it what it may push, and give it a token with `syncline peer rotate`. For a Sahana Eden site give the address of the application and an account there; without an address that Eden does the connecting. With a folder records are exchanged as files, docs/guides/folders.md.',
    examples: [
      'syncline peer add hub --uuid 0198c0de-0000-7000-8000-000000000001 --address https://hub.example.org --peer-token-file hub.token',
      'syncline peer add survey-script',
      `syncline peer add ngo --type folder --path /srv/exchange/ngo --read 'in/*.xml' --write 'out/\${resource}-\${timestamp}.xml'`,
      'syncline peer add relief --type eden --address https://relief.example.org/eden --user sync@example.org --password-file relief.password',
    ],
    options: (command) =>
      folderOptions(
        connectionOptions(
          command
            .option('--uuid <uuid>', 'UUID of that site, as its `syncline status` shows it; default a new one')
            .option('--type <type>', 'syncline, eden or folder', 'syncline')
            .option('--user <name>', 'account at an Eden site')
            .option('--password-file <file>', 'file with its password; - for standard input'),
        ),
      ),
    run: async (context, options, name) => {
      const { type, user, uuid } = options
      if (!['syncline', 'eden', 'folder'].includes(type))
        throw new SynclineError('SYNC_REQUEST_INVALID', `--type is syncline, eden or folder, not "${type}"`)
      const eden = type === 'eden'
      if (!eden && (user !== undefined || options.passwordFile !== undefined))
        throw new SynclineError('SYNC_REQUEST_INVALID', '--user and --password-file go with --type eden')
      const settings = folderBody(options)
      const { token, ...connection } = await connectionOf(context, options)
      const given = (values: object) => Object.values(values).some((value) => value !== undefined)
      if (given(settings) && type !== 'folder')
        throw new SynclineError('SYNC_REQUEST_INVALID', 'the settings of a folder go with --type folder')
      if (type === 'folder' && (given(connection) || token !== undefined || options.path === undefined))
        throw new SynclineError('SYNC_REQUEST_INVALID', 'a folder is reached by --path, and by nothing else')
      if (type === 'folder') {
        const made = await (await context.site()).send<Peer>('POST', '/peers/folder', {
          body: { name, uuid, ...settings },
        })
        return context.out.result(made, () => `Peer ${cell(made.name)} is registered.`).then(() => undefined)
      }
      if (eden && token !== undefined)
        throw new SynclineError(
          'SYNC_REQUEST_INVALID',
          'an Eden site knows accounts: --user and --password-file instead of --peer-token-file',
        )
      const password = (await secretOf(context, options.passwordFile))?.trim()
      const body = { name, uuid, ...connection, ...(eden ? { username: user, password } : { token }) }
      const made = await (await context.site()).send<Peer>('POST', eden ? '/peers/eden' : '/peers', { body })
      await context.out.result(made, () => `Peer ${cell(made.name)} is registered.`)
    },
  })

  verb(peer, session, {
    use: 'list',
    does: 'Lists the peers',
    examples: ['syncline peer list', 'syncline peer list --json'],
    run: async ({ site, out }) => {
      const items = await (await site()).all<Peer>('/peers')
      const now = Date.now()
      await out.result({ items }, () =>
        out.table(
          ['NAME', 'STATE', 'LAST SEEN', 'ADDRESS', 'UUID'],
          items.map((each) => [each.name, stateOf(each, now), ago(each.lastSeenAt, now), cell(each.url), each.uuid]),
        ),
      )
    },
  })

  verb<object, [string]>(peer, session, {
    use: 'show <peer>',
    does: 'Shows a peer and what it may ask of this site',
    examples: ['syncline peer show field'],
    run: async ({ site, out }, _options, ref) => {
      const api = await site()
      const [found, grants] = await Promise.all([
        api.get<Peer>(path`/peers/${ref}`),
        api.get<{ readonly items: readonly Grant[] }>(path`/peers/${ref}/grants`),
      ])
      await out.result({ ...found, grants: grants.items }, async () =>
        [describe(found, Date.now()), '', await grantTable(out, grants.items)].join('\n'),
      )
    },
  })

  verb<Connection & { readonly name?: string }, [string]>(peer, session, {
    use: 'set <peer>',
    does: 'Changes how a peer is called or reached; what is not given stays',
    examples: ['syncline peer set hub --address https://hub2.example.org', 'syncline peer set hub --no-proxy'],
    options: (command) => connectionOptions(command.option('--name <name>', 'new name here')),
    run: async (context, options, ref) => {
      const api = await context.site()
      const settings = { name: options.name, ...(await connectionOf(context, options)) }
      const changed = await api.send<Peer>('PATCH', path`/peers/${ref}`, { body: settings })
      await context.out.result(changed, () => `Peer ${cell(changed.name)} is changed.`)
    },
  })

  verb<{ readonly grace?: number }, [string]>(peer, session, {
    use: 'rotate <peer>',
    does: 'Gives a peer a new token to show here, printed this once',
    examples: ['syncline peer rotate field', 'syncline peer rotate field --grace 1h'],
    options: (command) =>
      command.option('--grace <duration>', 'how long the old token works on; default not at all', seconds),
    run: async ({ site, out }, { grace }, ref) => {
      const body = { graceSeconds: grace }
      const issued = await (await site()).send<IssuedToken>('POST', path`/peers/${ref}/rotate`, { body })
      out.note(
        `New token for ${ref}; set it there with \`syncline peer set NAME --peer-token-file FILE\`. It is shown only now:`,
      )
      await out.result(issued, () => issued.token)
    },
  })

  verb<object, [string]>(peer, session, {
    use: 'test <peer>',
    does: 'Says hello to a peer, and looks into one that is a folder; exchanges nothing',
    examples: ['syncline peer test hub'],
    run: async ({ site, out }, _options, ref) => {
      const found = await (await site()).send<Tested>('POST', path`/peers/${ref}/test`)
      await out.result(found, () => describeTest(found))
    },
  })

  for (const [action, does, done] of [
    ['pause', 'Stops all exchange with a peer until it is resumed', 'is paused'],
    ['resume', 'Lets the exchange with a paused peer go on', 'goes on'],
  ] as const) {
    verb<object, [string]>(peer, session, {
      use: `${action} <peer>`,
      does,
      examples: [`syncline peer ${action} field`],
      run: async ({ site, out }, _options, ref) => {
        const changed = await (await site()).send<Peer>('POST', path`/peers/${ref}/${action}`)
        await out.result(changed, () => `Peer ${cell(changed.name)} ${done}.`)
      },
    })
  }

  verb<object, [string]>(peer, session, {
    use: 'remove <peer>',
    does: 'Forgets a peer with its tasks, grants and tokens; records stay',
    examples: ['syncline peer remove field'],
    run: async ({ site, out }, _options, ref) => {
      await (await site()).send('DELETE', path`/peers/${ref}`)
      await out.result({ removed: ref }, () => `Peer ${cell(ref)} is removed.`)
    },
  })

  registerGrant(peer, session)
}

type Tested = {
  readonly peer: string
  readonly kind: string
  readonly clockOffsetMs: number
  readonly resources: readonly { readonly name: string; readonly pull: boolean; readonly push: boolean }[]
  readonly folder: {
    readonly files: number
    readonly some: readonly string[]
    readonly reads: string | null
    readonly writes: string | null
  } | null
}

function describeTest({ peer, clockOffsetMs, resources, folder }: Tested): string {
  const named = (way: 'pull' | 'push') => resources.flatMap((each) => (each[way] ? [each.name] : [])).join(', ')
  return fields([
    ['peer', `${peer} answers`],
    [
      'clock',
      folder === null ? `${duration(Math.abs(clockOffsetMs))} ${clockOffsetMs < 0 ? 'behind' : 'ahead'}` : undefined,
    ],
    ['this site may pull', named('pull') || 'nothing'],
    ['this site may push', named('push') || 'nothing'],
    ['reads', folder === null ? undefined : (folder.reads ?? 'nothing')],
    ['files that fit', folder === null ? undefined : folder.files],
    ['the oldest', folder === null || folder.files === 0 ? undefined : cell(folder.some.join(', '))],
    ['writes', folder === null ? undefined : (folder.writes ?? 'nothing')],
  ])
}

type Connection = {
  readonly address?: string | false
  readonly peerTokenFile?: string
  readonly proxy?: string | false
  readonly ca?: string | false
  readonly cert?: string | false
  readonly certKey?: string
}

type Eden = { readonly type: string; readonly user?: string; readonly passwordFile?: string }

function connectionOptions(command: Command): Command {
  return command
    .option('--address <url>', 'where this site reaches it')
    .option('--no-address', 'this site cannot reach it: the peer does the connecting')
    .option('--peer-token-file <file>', 'file with the token that this site shows there; - for standard input')
    .option('--proxy <url>', 'HTTP proxy on the way, such as http://user:password@proxy:3128')
    .option('--no-proxy', 'no proxy of its own')
    .option('--ca <file>', 'PEM file with the authorities that its certificate may come from')
    .option('--no-ca', 'only the usual authorities')
    .option('--cert <file>', 'PEM file with the certificate that this site shows there (mutual TLS)')
    .option('--no-cert', 'no certificate')
    .option('--cert-key <file>', 'PEM file with the key of that certificate')
}

/** Absent keeps what is there, null takes it away. */
async function connectionOf({ streams }: Context, options: Connection): Promise<Record<string, unknown>> {
  const file = async (name: string | undefined) => (name === undefined ? undefined : await readFile(name, 'utf8'))
  const pem = async (name: string | false | undefined) => (name === false ? null : await file(name))
  const token = await secretOf({ streams }, options.peerTokenFile)
  return {
    url: options.address === false ? null : options.address,
    token: token?.trim(),
    proxyUrl: options.proxy === false ? null : options.proxy,
    caPem: await pem(options.ca),
    clientCertPem: await pem(options.cert),
    clientKeyPem: options.cert === false ? null : await file(options.certKey),
  }
}

/** A secret in a file, or on standard input. */
async function secretOf({ streams }: Pick<Context, 'streams'>, name: string | undefined): Promise<string | undefined> {
  if (name === undefined) return undefined
  return name === '-' ? text(streams.stdin) : readFile(name, 'utf8')
}

function stateOf(peer: Peer, now: number): string {
  if (peer.paused) return 'paused'
  if (peer.failures === 0) return 'ok'
  return `failed ${peer.failures} times${peer.retryAt === null ? '' : `, again ${until(peer.retryAt, now)}`}`
}

function describe(peer: Peer, now: number): string {
  const offset = peer.clockOffsetMs
  return fields([
    ['name', peer.name],
    ['type', peer.kind === 'syncline' ? undefined : peer.kind],
    ['uuid', peer.uuid],
    ['id', peer.id],
    ['address', peer.url ?? 'none: the peer does the connecting'],
    ['state', stateOf(peer, now)],
    ['last seen', ago(peer.lastSeenAt, now)],
    ['clock', offset === null ? 'not compared' : `${duration(Math.abs(offset))} ${offset < 0 ? 'behind' : 'ahead'}`],
    ['token there', peer.hasToken],
    ['proxy', peer.proxyUrl ?? undefined],
    ['own authorities', peer.caPem === null ? undefined : true],
    ['client certificate', peer.clientCertPem === null ? undefined : true],
  ])
}

async function grantTable(out: Context['out'], grants: readonly Grant[]): Promise<string> {
  if (grants.length === 0) return 'It may pull nothing and push nothing here.'
  return out.table(
    ['IT MAY', 'RESOURCE', 'ON CONFLICT', 'COLUMNS', 'FILTER'],
    grants.map((each) => [each.direction, each.resource, each.onConflict, columns(each.columns), cell(each.filter)]),
  )
}

function columns(names: readonly string[] | null): string {
  return names === null ? 'all' : cell(names.join(','))
}
