import { readFileSync } from 'node:fs'
import { hostname } from 'node:os'
import { dirname, resolve } from 'node:path'
import { LineCounter, parseDocument } from 'yaml'
import { SynclineError } from '../sync/index.ts'
import { checkValues, type Fault } from './check.ts'
import { CONFIG_VARIABLE, flagName, KEYS, nearest, VARIABLES, variableName } from './names.ts'
import { type Config, SETTING_NAMES, SETTINGS, type SettingName, settingOf } from './schema.ts'

/** Everything that settings are made of. `flags` has the names of a file (`dataDir`), plus `config`, the path of the file. */
export type ConfigInputs = {
  readonly env: Readonly<Record<string, string | undefined>>
  readonly flags: Readonly<Record<string, unknown>>
  readonly readFile: (path: string) => string
  readonly hostname: string
  /** Folder that relative paths in variables and flags count from; those in a file count from the file's folder. */
  readonly cwd: string
}

/** What reading the settings gave: `config` when there are no faults, and for every setting that is not a default where it was set. */
export type ConfigReading = {
  readonly config?: Config
  readonly faults: readonly Fault[]
  readonly sources: Readonly<Partial<Record<SettingName, string>>>
}

/** One place that settings come from, its keys already those of a file. */
type Source = {
  readonly values: Readonly<Record<string, unknown>>
  readonly where: (key: string) => string
  readonly folder: string
}

/** Reads the settings and reports every fault at once. Throws SYNC_CONFIG_INVALID, one line per fault. */
export function loadConfig(inputs: ConfigInputs): Config {
  const { config, faults } = readConfig(inputs)
  if (config !== undefined) return config
  throw new SynclineError('SYNC_CONFIG_INVALID', faults.map((fault) => `${fault.where}: ${fault.message}`).join('\n'))
}

/** The same without throwing, for `config check` and `config show`. */
export function readConfig(inputs: ConfigInputs): ConfigReading {
  const faults: Fault[] = []
  const merged: Partial<Record<SettingName, unknown>> = {}
  const sources: Partial<Record<SettingName, string>> = {}
  const all = [fileSource(inputs, faults), environmentSource(inputs, faults), flagSource(inputs, faults)]
  for (const source of all) {
    for (const [name, { value, where }] of resolveSource(source, inputs, faults)) {
      merged[name] = value
      sources[name] = where
    }
  }
  const config = complete(merged, inputs)
  faults.push(...acrossSettings(config, sources))
  return faults.length > 0 ? { faults, sources } : { config: freeze(config), faults, sources }
}

/** The settings of this process. The only place that reads the environment. */
export function loadConfigFromProcess(flags: Readonly<Record<string, unknown>> = {}): Config {
  return loadConfig(inputsFromProcess(flags))
}

/** What `loadConfigFromProcess` reads, for callers that want the faults or the sources. */
export function inputsFromProcess(flags: Readonly<Record<string, unknown>> = {}): ConfigInputs {
  const readFile = (path: string) => readFileSync(path, 'utf8')
  return { env: process.env, flags, readFile, hostname: hostname(), cwd: process.cwd() }
}

function fileSource(inputs: ConfigInputs, faults: Fault[]): Source {
  const [path, origin] =
    inputs.flags.config === undefined
      ? [inputs.env[CONFIG_VARIABLE], CONFIG_VARIABLE]
      : [inputs.flags.config, '--config']
  if (path === undefined) return { values: {}, where: (key) => key, folder: inputs.cwd }
  if (typeof path !== 'string' || path === '') {
    faults.push({ where: origin, message: 'must be the path of a file' })
    return { values: {}, where: (key) => key, folder: inputs.cwd }
  }
  const file = resolve(inputs.cwd, path)
  const where = (key: string) => `${key} in ${file}`
  const text = read(file, origin, inputs, faults)
  const values: Record<string, unknown> = {}
  for (const [key, value] of Object.entries(text === undefined ? {} : parse(text, file, faults))) {
    if (KEYS.has(key)) values[key] = value
    else faults.push({ where: where(key), message: unknown(nearest(key, KEYS.keys())) })
  }
  return { values, where, folder: dirname(file) }
}

/** YAML, and JSON as the part of it that it is. Messages give the line but never its text, which may hold a secret. */
function parse(text: string, file: string, faults: Fault[]): Record<string, unknown> {
  const lines = new LineCounter()
  const document = parseDocument(text, {
    prettyErrors: false,
    lineCounter: lines,
    stringKeys: true,
    logLevel: 'error',
  })
  const problems = [...document.errors, ...document.warnings].map((error) => ({
    where: `line ${lines.linePos(error.pos[0]).line} of ${file}`,
    message: error.message,
  }))
  faults.push(...problems)
  if (problems.length > 0) return {}
  try {
    const content: unknown = document.toJS({ maxAliasCount: 0 }) ?? {}
    if (typeof content === 'object' && !Array.isArray(content)) return content as Record<string, unknown>
    faults.push({ where: file, message: 'must be a list of settings, each as name: value' })
  } catch (error) {
    faults.push({ where: file, message: reason(error) })
  }
  return {}
}

function environmentSource(inputs: ConfigInputs, faults: Fault[]): Source {
  const values: Record<string, unknown> = {}
  for (const [variable, text] of Object.entries(inputs.env)) {
    if (!/^syncline_/i.test(variable) || variable === CONFIG_VARIABLE || text === undefined) continue
    const key = VARIABLES.get(variable)
    if (key !== undefined) values[key] = fromText(key, text)
    else
      faults.push({
        where: variable,
        message: unknown(nearest(variable, [...VARIABLES.keys(), CONFIG_VARIABLE]), variable),
      })
  }
  return { values, where: variableName, folder: inputs.cwd }
}

function flagSource(inputs: ConfigInputs, faults: Fault[]): Source {
  const values: Record<string, unknown> = {}
  for (const [key, value] of Object.entries(inputs.flags)) {
    if (key === 'config' || value === undefined) continue
    if (KEYS.has(key)) values[key] = typeof value === 'string' ? fromText(key, value) : value
    else faults.push({ where: flagName(key), message: unknown(nearest(key, KEYS.keys()), '--') })
  }
  return { values, where: flagName, folder: inputs.cwd }
}

function unknown(suggestion: string | undefined, variable = ''): string {
  const name = suggestion !== undefined && variable.startsWith('--') ? flagName(suggestion) : suggestion
  const links = /^SYNCLINE_(SERVICE|PORT)_/.test(variable)
  const hint = links ? `; ${KUBERNETES}` : name === undefined ? '' : `; did you mean ${name}?`
  return `there is no such setting${hint}`
}

const KUBERNETES = 'Kubernetes makes it for a Service called syncline: set enableServiceLinks: false for the pod'

/** A text of the environment or the command line as the type of its setting; what does not convert is left for the check to refuse. */
function fromText(key: string, text: string): unknown {
  const meaning = KEYS.get(key)
  const type = meaning === undefined || meaning.viaFile ? 'string' : settingOf(meaning.name).type
  if (type === 'integer' && /^-?\d{1,15}$/.test(text)) return Number(text)
  if (type === 'array') {
    const items = text.split(',').map((item) => item.trim())
    return items.filter((item) => item !== '')
  }
  return text
}

/** The settings of one source with secrets read from their files and paths made absolute; a faulty one is reported and left out. */
function resolveSource(source: Source, inputs: ConfigInputs, faults: Fault[]) {
  const values: Partial<Record<SettingName, unknown>> = {}
  const places: Partial<Record<SettingName, string>> = {}
  for (const [key, value] of Object.entries(source.values)) {
    const meaning = KEYS.get(key)
    if (meaning === undefined) continue
    const { name, viaFile } = meaning
    if (viaFile && Object.hasOwn(source.values, name)) {
      faults.push({ where: source.where(key), message: `${source.where(name)} is set too; give one of them` })
      continue
    }
    const secret = viaFile ? readSecret(value, source.where(key), source.folder, inputs, faults) : value
    if (viaFile && secret === undefined) continue
    values[name] = secret
    places[name] = source.where(key)
  }
  const where = (name: SettingName) => places[name] ?? source.where(name)
  const found = checkValues(values, where)
  for (const fault of found) {
    const links =
      values.port !== undefined && fault.where === 'SYNCLINE_PORT' && String(values.port).startsWith('tcp://')
    faults.push(links ? { where: fault.where, message: `${fault.message}; ${KUBERNETES}` } : fault)
  }
  const wrong = new Set(found.map((fault) => fault.where.replace(/ \(item \d+\)$/, '')))
  return SETTING_NAMES.filter((name) => Object.hasOwn(values, name) && !wrong.has(where(name))).map((name) => {
    const value = normalise(name, values[name], source.folder)
    if (settingOf(name).readable) read(value as string, where(name), inputs, faults)
    return [name, { value, where: where(name) }] as const
  })
}

function readSecret(
  path: unknown,
  where: string,
  folder: string,
  inputs: ConfigInputs,
  faults: Fault[],
): string | undefined {
  if (typeof path !== 'string' || path === '') {
    faults.push({ where, message: 'must be the path of a file' })
    return undefined
  }
  const text = read(resolve(folder, path), where, inputs, faults)?.replace(/[\r\n]+$/, '')
  if (text === '') faults.push({ where, message: `${resolve(folder, path)} is empty` })
  return text === '' ? undefined : text
}

function read(path: string, where: string, inputs: ConfigInputs, faults: Fault[]): string | undefined {
  try {
    return inputs.readFile(path)
  } catch (error) {
    faults.push({ where, message: `cannot read ${path}: ${reason(error)}` })
    return undefined
  }
}

function reason(error: unknown): string {
  const { code, message } = error as NodeJS.ErrnoException
  const words: Readonly<Record<string, string>> = {
    ENOENT: 'there is no such file',
    EACCES: 'no permission',
    EISDIR: 'it is a folder',
  }
  return words[code ?? ''] ?? message
}

function normalise(name: SettingName, value: unknown, folder: string): unknown {
  const { format, items } = settingOf(name)
  if (format === 'path') return resolve(folder, value as string)
  if (items?.format === 'path') return (value as readonly string[]).map((path) => resolve(folder, path))
  return format === 'http-url' ? (value as string).replace(/\/+$/, '') : value
}

/** Fills in the defaults. Two of them give way to a smaller `bodyBytesMax`, so that lowering one limit needs no other. */
function complete(values: Partial<Record<SettingName, unknown>>, inputs: ConfigInputs): Config {
  const full: Partial<Record<SettingName, unknown>> = { ...values }
  const embedded = values.databaseUrl === undefined
  for (const name of SETTING_NAMES) {
    const setting = settingOf(name)
    const fallback = (embedded ? setting.defaultEmbedded : undefined) ?? setting.default
    if (!Object.hasOwn(full, name) && fallback !== undefined) full[name] = normalise(name, fallback, inputs.cwd)
  }
  full.name ??= nameOfHost(inputs.hostname)
  for (const name of ['recordBytesMax', 'batchBytesMax'] as const) {
    if (!Object.hasOwn(values, name)) full[name] = Math.min(SETTINGS[name].default, full.bodyBytesMax as number)
  }
  return full as Config
}

/** A host name that is no good site name must not stop a site that never chose one. */
function nameOfHost(host: string): string {
  return checkValues({ name: host }, (name) => name).length === 0 ? host : 'site'
}

/** Rules that take two settings. They are told by where the settings were set, else by the variable that would mend them. */
function acrossSettings(config: Config, sources: Partial<Record<SettingName, string>>): Fault[] {
  const faults: Fault[] = []
  const where = (name: SettingName) => sources[name] ?? variableName(name)
  const needs = (name: SettingName, other: SettingName) => {
    if (config[name] === undefined || config[other] !== undefined) return
    faults.push({ where: where(name), message: `needs ${variableName(other)} (${other}) as well` })
  }
  needs('tlsCertFile', 'tlsKeyFile')
  needs('tlsKeyFile', 'tlsCertFile')
  needs('tlsClientCaFile', 'tlsCertFile')
  needs('smtpUrl', 'mailFrom')
  needs('smtpUrl', 'mailTo')
  needs('webhookUrl', 'webhookSecret')
  for (const name of ['recordBytesMax', 'batchBytesMax'] as const) {
    if (config[name] <= config.bodyBytesMax) continue
    faults.push({
      where: where(name),
      message: `must be at most bodyBytesMax (${config.bodyBytesMax}), not ${config[name]}`,
    })
  }
  return faults
}

function freeze(config: Config): Config {
  for (const value of Object.values(config)) Object.freeze(value)
  return Object.freeze(config)
}
