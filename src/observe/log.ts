import {
  type Bindings,
  type ChildLoggerOptions,
  type DestinationStream,
  type Logger,
  pino,
  stdSerializers,
  stdTimeFunctions,
} from 'pino'
import { prettyLine } from './pretty.ts'

export type Log = Logger<never>

export type LogOptions = {
  /** Least level that is written: trace, debug, info, warn, error, fatal or silent. */
  readonly level: string
  /** Where lines go; standard output when absent. */
  readonly destination?: DestinationStream | undefined
  /** One readable line instead of JSON; when absent, only where standard output is a terminal. */
  readonly pretty?: boolean | undefined
}

const HIDDEN = '***'
/** Deeper than any object we log; what lies below is cut, for it could not be searched for secrets. */
const DEPTH_MAX = 8

/** Keys whose values never reach a log, in any spelling (databaseUrl, database_url, Database-URL) and as the end of a longer key. */
const SECRET_ENDINGS = [
  'apikey',
  'authorization',
  'clientkey',
  'cookie',
  'cookies',
  'databaseurl',
  'pairingcode',
  'passphrase',
  'password',
  'privatekey',
  'proxyurl',
  'secret',
  'sitekey',
  'token',
]
/** The setting; `noProxy` and `trustProxy` are no secrets. */
const SECRET_KEY = 'proxy'
const secretKeys = new Map<string, boolean>()

/** The root of all log lines of a process: one JSON object a line, with time in ISO 8601 UTC, secrets hidden by their keys. */
export function createLog(options: LogOptions): Log {
  const { level, destination } = options
  const pretty = options.pretty ?? (destination === undefined && process.stdout.isTTY === true)
  const target = destination ?? pino.destination({ fd: 1, sync: true })
  const color = pretty && destination === undefined && process.stdout.hasColors?.() === true
  const stream = pretty ? { write: (line: string) => target.write(prettyLine(line, color)) } : target
  const settings = {
    level,
    base: null,
    timestamp: stdTimeFunctions.isoTime,
    formatters: { log: hideSecrets },
    // Errors have gone through pino's own serializer in hideSecrets; a second time would lose their class.
    serializers: { err: (err: unknown) => err },
  }
  return hideInChildren(pino(settings, stream))
}

/** pino has no formatter for the fields of a child; children inherit this `child` and `setBindings` from the root. */
function hideInChildren(root: Log): Log {
  const { child, setBindings } = root
  const hiding = {
    child(this: Log, fields: Bindings, options?: ChildLoggerOptions) {
      return Reflect.apply(child, this, [hideSecrets(fields), options]) as Log
    },
    setBindings(this: Log, fields: Bindings) {
      setBindings.call(this, hideSecrets(fields))
    },
  }
  return Object.assign(root, hiding)
}

function hideSecrets(fields: Record<string, unknown>): Record<string, unknown> {
  return clean(fields, 0) as Record<string, unknown>
}

/** Walks plain objects, lists and errors. Anything else (a request, a socket) is left to its own serializer. */
function clean(value: unknown, depth: number): unknown {
  if (typeof value !== 'object' || value === null) return value
  if (value instanceof Error) return clean({ ...stdSerializers.err(value) }, depth)
  if (value instanceof Uint8Array) return `${value.length} bytes`
  if (!Array.isArray(value) && !isPlain(value)) return value
  if (depth === DEPTH_MAX) return '…'
  if (Array.isArray(value)) return value.map((item) => clean(item, depth + 1))
  const entries = Object.entries(value)
  return Object.fromEntries(
    entries.map(([key, item]) => [key, isSecret(key) && hasContent(item) ? HIDDEN : clean(item, depth + 1)]),
  )
}

function isPlain(value: object): boolean {
  const prototype: unknown = Object.getPrototypeOf(value)
  return prototype === null || prototype === Object.prototype
}

/** Keys are few and come again with every line. The memory is bounded: keys may come from a peer. */
function isSecret(key: string): boolean {
  const known = secretKeys.get(key)
  if (known !== undefined) return known
  const word = key.toLowerCase().replace(/[^a-z0-9]/g, '')
  const secret = word === SECRET_KEY || SECRET_ENDINGS.some((ending) => word.endsWith(ending))
  if (secretKeys.size < 1000) secretKeys.set(key, secret)
  return secret
}

/** Whether a secret was there at all may be seen. */
function hasContent(item: unknown): boolean {
  return item !== undefined && item !== null && typeof item !== 'boolean'
}
