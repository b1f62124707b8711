import { createPrivateKey, X509Certificate } from 'node:crypto'
import { invalid } from './values.ts'

export type Credentials = { readonly username: string; readonly password: string }

const CERTIFICATE = /-----BEGIN CERTIFICATE-----[^-]+-----END CERTIFICATE-----/g

/** Checks the address of a peer and gives it without a slash at its end. Credentials in it would end up in logs. */
export function checkPeerUrl(text: string): string {
  const url = webUrl('the address of a peer', text)
  if (url.username !== '' || url.password !== '')
    throw invalid('the address of a peer must not contain a user name or password')
  if (url.search !== '' || url.hash !== '') throw invalid('the address of a peer must not contain a query or fragment')
  return url.href.replace(/\/+$/, '')
}

/** Checks the address of a proxy and takes the credentials out of it, which are kept sealed. */
export function readProxyUrl(text: string): { readonly url: string; readonly credentials: Credentials | null } {
  const url = webUrl('the address of a proxy', text)
  const credentials =
    url.username === '' && url.password === ''
      ? null
      : { username: decodeURIComponent(url.username), password: decodeURIComponent(url.password) }
  url.username = ''
  url.password = ''
  return { url: url.href.replace(/\/+$/, ''), credentials }
}

/** Checks that every certificate of a PEM file can be read. */
export function checkCertificates(what: string, pem: string): string {
  const blocks = pem.match(CERTIFICATE) ?? []
  if (blocks.length === 0) throw invalid(`${what} contains no certificate in PEM form`)
  for (const [n, block] of blocks.entries()) {
    try {
      new X509Certificate(block)
    } catch (cause) {
      throw invalid(`certificate ${n + 1} of ${what} cannot be read`, { cause })
    }
  }
  return pem
}

/** Checks that a client key is there exactly when a client certificate is, and that they belong together. */
export function checkClientPair(certPem: string | null, keyPem: string | null): void {
  if (certPem === null && keyPem === null) return
  if (certPem === null || keyPem === null) throw invalid('a client certificate and its key must be given together')
  const first = checkCertificates('the client certificate', certPem).match(CERTIFICATE)?.[0] ?? ''
  let key: ReturnType<typeof createPrivateKey>
  try {
    key = createPrivateKey(keyPem)
  } catch (cause) {
    throw invalid('the client key cannot be read: it must be a private key in PEM form without a passphrase', { cause })
  }
  if (!new X509Certificate(first).checkPrivateKey(key))
    throw invalid('the client key does not belong to the client certificate')
}

function webUrl(what: string, text: string): URL {
  const url = URL.canParse(text) ? new URL(text) : null
  if (url === null || (url.protocol !== 'http:' && url.protocol !== 'https:')) {
    throw invalid(`${what} "${text.replace(/\/\/[^/@]*@/, '//…@').slice(0, 200)}" is not an http or https URL`)
  }
  return url
}
