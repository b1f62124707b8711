import { type Config, SETTING_NAMES, settingOf } from './schema.ts'

const HIDDEN = '***'

/** The settings in the order of their table and fit to be printed: of a secret URL only the harmless parts are left, of any other secret nothing. */
export function redact(config: Config): Readonly<Record<string, unknown>> {
  const entries = SETTING_NAMES.filter((name) => config[name] !== undefined)
  return Object.fromEntries(
    entries.map((name) => [name, settingOf(name).secret ? hide(String(config[name])) : config[name]]),
  )
}

/** Keeps scheme, user, host and path of a URL. The query goes as a whole: PostgreSQL takes a password there too. */
function hide(secret: string): string {
  const parts = /^([a-z]+:\/\/)(?:([^:@/?#]*)(:[^@/?#]*)?@)?([^@?#]*)(\?[^#]*)?$/i.exec(secret)
  if (parts === null) return HIDDEN
  const [, scheme = '', user, password, rest = '', query] = parts
  const login = user === undefined ? '' : `${user}${password === undefined ? '' : `:${HIDDEN}`}@`
  return `${scheme}${login}${rest}${query === undefined ? '' : `?${HIDDEN}`}`
}
