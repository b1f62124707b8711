import { isIP } from 'node:net'
import { Ajv, type ErrorObject } from 'ajv'
import { SETTINGS, type SettingName, settingOf } from './schema.ts'

/** Something wrong with the settings: where it was set (variable, flag, or key and file) and what is wrong there. */
export type Fault = { readonly where: string; readonly message: string }

type Format = { readonly says: string; readonly test: (text: string) => boolean }

const FORMATS: Readonly<Record<string, Format>> = {
  path: { says: 'must be a path', test: (text) => text !== '' && !text.includes('\0') },
  'postgres-url': { says: 'must be a URL such as postgres://user:password@host:5432/database', test: isPostgresUrl },
  'http-url': {
    says: 'must be an http or https URL without user, query and fragment, such as https://hub.example.org',
    test: (text) => {
      const url = parseHttp(text)
      return url !== undefined && `${url.username}${url.password}${url.search}${url.hash}` === ''
    },
  },
  'proxy-url': {
    says: 'must be an http or https URL without path, such as http://user:password@proxy:3128',
    test: (text) => {
      const url = parseHttp(text)
      return url !== undefined && url.pathname === '/' && `${url.search}${url.hash}` === ''
    },
  },
  host: {
    says: 'must be a host name or an IP address, without port',
    test: (text) => isIP(text) !== 0 || isHostName(text),
  },
  network: {
    says: 'must be an IP address, a network such as 10.0.0.0/8, loopback, linklocal or uniquelocal',
    test: isNetwork,
  },
  'no-proxy': {
    says: 'must be a host name, a .domain, an address or *',
    test: (text) => /^[A-Za-z0-9*._:[\]/-]+$/.test(text),
  },
  'site-name': {
    says: 'must be 1 to 100 characters without colon and control characters, not beginning or ending with a space',
    // A colon would end the name in Basic authentication.
    test: (text) => /^[^\p{Cc}:]{1,100}$/u.test(text) && text === text.trim(),
  },
  'smtp-url': {
    says: 'must be a URL such as smtps://user:password@mail.example.org or smtp://localhost:25',
    test: (text) => /^smtps?:\/\/[^\s/]/.test(text) && URL.canParse(text) && new URL(text).hostname !== '',
  },
  'mail-address': {
    says: 'must be one mail address, such as operator@example.org',
    test: (text) => text.length <= 254 && /^[^\s@<>",;:\\()[\]]{1,64}@[A-Za-z0-9.-]+$/.test(text),
  },
  'webhook-url': {
    says: 'must be an http or https URL, such as https://alarms.example.org/syncline',
    test: (text) => parseHttp(text) !== undefined,
  },
  'webhook-secret': {
    says: 'must have at least 16 printable characters',
    test: (text) => /^[\x20-\x7e]{16,200}$/.test(text),
  },
  token: { says: 'must be a token: printable characters without spaces', test: (text) => /^[\x21-\x7e]+$/.test(text) },
}

function parseHttp(text: string): URL | undefined {
  const url = URL.canParse(text) ? new URL(text) : undefined
  return url !== undefined && /^https?:$/.test(url.protocol) && !/\s/.test(text) ? url : undefined
}

function isPostgresUrl(text: string): boolean {
  // A URL with credentials and no host (a socket folder in the query) is good for PostgreSQL and not for the URL standard.
  return /^postgres(ql)?:\/\//.test(text) && !/\s/.test(text) && URL.canParse(text.replace('@/', '@localhost/'))
}

function isHostName(text: string): boolean {
  const label = /^[A-Za-z0-9_]([A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?$/
  return text.length <= 253 && text.split('.').every((part) => label.test(part)) && !/^[0-9.]+$/.test(text)
}

function isNetwork(text: string): boolean {
  if (['loopback', 'linklocal', 'uniquelocal'].includes(text)) return true
  const [address = '', bits, ...rest] = text.split('/')
  const family = isIP(address)
  if (family === 0 || rest.length > 0) return false
  return bits === undefined || (/^\d{1,3}$/.test(bits) && Number(bits) <= (family === 4 ? 32 : 128))
}

const ajv = new Ajv({ allErrors: true, verbose: true })
ajv.addVocabulary(['group', 'defaultEmbedded', 'defaultText', 'secret', 'readable'])
for (const [name, format] of Object.entries(FORMATS)) ajv.addFormat(name, format.test)
const validate = ajv.compile({ type: 'object', properties: SETTINGS, additionalProperties: false })

/** The faults in the values of one source; `where` names the place of a setting in that source. */
export function checkValues(values: Readonly<Record<string, unknown>>, where: (name: SettingName) => string): Fault[] {
  if (validate(values)) return []
  return (validate.errors ?? []).map((error) => {
    const [, name = '', index] = error.instancePath.split('/')
    const place = where(name as SettingName)
    return {
      where: index === undefined ? place : `${place} (item ${Number(index) + 1})`,
      message: describe(error, name),
    }
  })
}

function describe(error: ErrorObject, name: string): string {
  const shown = settingOf(name as SettingName).secret ? '' : `, not ${show(error.data)}`
  return `${rule(error)}${shown}`
}

function rule(error: ErrorObject): string {
  const { keyword, params } = error
  if (keyword === 'format') return FORMATS[params.format]?.says ?? `must have the form ${params.format}`
  if (keyword === 'enum') return `must be one of ${params.allowedValues.join(', ')}`
  if (keyword === 'minimum') return `must be at least ${params.limit}`
  if (keyword === 'maximum') return `must be at most ${params.limit}`
  if (keyword === 'minItems') return 'must name at least one'
  if (keyword === 'uniqueItems') return 'must not name anything twice'
  if (keyword === 'type') return `must be ${TYPES[params.type] ?? params.type}`
  return error.message ?? 'is not valid'
}

const TYPES: Readonly<Record<string, string>> = { integer: 'a whole number', string: 'a text', array: 'a list' }

function show(value: unknown): string {
  const text = JSON.stringify(value) ?? String(value)
  return text.length <= 80 ? text : `${text.slice(0, 79)}…`
}
