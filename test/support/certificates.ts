/** A private certificate authority with a server and a client certificate, made by the openssl program for one test file. */
import { execFileSync } from 'node:child_process'
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import type { Owner } from './postgres.ts'

export type Pair = { readonly cert: string; readonly key: string; readonly certFile: string; readonly keyFile: string }
export type Certificates = {
  readonly ca: string
  readonly caFile: string
  /** For 127.0.0.1 and localhost. */
  readonly server: Pair
  readonly client: Pair
}

export function makeCertificates(t: Owner): Certificates {
  const folder = mkdtempSync(join(tmpdir(), 'syncline-tls-'))
  t.teardown(async () => rmSync(folder, { recursive: true }))
  const file = (name: string) => join(folder, name)
  const openssl = (...args: string[]) => execFileSync('openssl', args, { cwd: folder, stdio: 'pipe' })
  const newKey = ['-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:prime256v1', '-nodes', '-keyout']
  openssl('req', '-x509', ...newKey, 'ca.key', '-out', 'ca.pem', '-days', '2', '-subj', '/CN=Test authority')
  const make = (name: string, extensions: string): Pair => {
    openssl('req', ...newKey, `${name}.key`, '-out', `${name}.csr`, '-subj', `/CN=${name}`)
    writeFileSync(file(`${name}.ext`), extensions)
    const sign = ['-CA', 'ca.pem', '-CAkey', 'ca.key', '-CAcreateserial', '-days', '2', '-extfile', `${name}.ext`]
    openssl('x509', '-req', '-in', `${name}.csr`, '-out', `${name}.pem`, ...sign)
    const [certFile, keyFile] = [file(`${name}.pem`), file(`${name}.key`)]
    return { cert: readFileSync(certFile, 'utf8'), key: readFileSync(keyFile, 'utf8'), certFile, keyFile }
  }
  const server = make('server', 'subjectAltName=IP:127.0.0.1,DNS:localhost\nextendedKeyUsage=serverAuth\n')
  const client = make('client', 'extendedKeyUsage=clientAuth\n')
  return { ca: readFileSync(file('ca.pem'), 'utf8'), caFile: file('ca.pem'), server, client }
}
