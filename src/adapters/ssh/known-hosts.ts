import { createHash } from 'node:crypto'
import { SSH_PORT } from './host.ts'

/** A key by which a host proves who it is, as a person has confirmed it. */
export type HostKey = {
  readonly host: string
  readonly port: number
  /** Such as `ssh-ed25519`. */
  readonly type: string
  /** Base64 of the public key. */
  readonly key: string
}

const KEYS_MAX = 20

/** `SHA256:…`, as ssh itself shows a key and `ssh-keygen -lf` prints it. */
export function fingerprint(key: string): string {
  return `SHA256:${createHash('sha256').update(Buffer.from(key, 'base64')).digest('base64').replace(/=+$/, '')}`
}

/** The file that ssh compares with. */
export function knownHostsText(keys: readonly HostKey[]): string {
  return keys.map(({ host, port, type, key }) => `${nameIn(host, port)} ${type} ${key}\n`).join('')
}

/** The keys in lines of that form; of others, such as comments, nothing. */
export function keysInText(text: string, host: string, port: number): readonly HostKey[] {
  const found = text.split('\n').flatMap((line) => {
    const [, type = '', key = ''] = line.split(' ')
    const fits = /^[a-z0-9@.-]{5,60}$/.test(type) && /^[A-Za-z0-9+/]{40,4000}={0,2}$/.test(key)
    return fits && !line.startsWith('#') ? [{ host, port, type, key }] : []
  })
  return found.slice(0, KEYS_MAX)
}

function nameIn(host: string, port: number): string {
  return port === SSH_PORT && !host.includes(':') ? host : `[${host}]:${port}`
}
