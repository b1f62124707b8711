/** How values look to a person: pure, so that every form can be tested without a terminal. */

const UNITS = { s: 1, m: 60, h: 3600, d: 86_400, w: 604_800 } as const

/** Seconds in a duration such as 90s, 5m, 1h30m, 2d; undefined when the text is none. At least one second. */
export function durationSeconds(text: string): number | undefined {
  if (!/^(\d{1,6}[smhdw])+$/.test(text)) return undefined
  const parts = [...text.matchAll(/(\d+)([smhdw])/g)]
  const seconds = parts.reduce((sum, [, count, unit]) => sum + Number(count) * UNITS[unit as keyof typeof UNITS], 0)
  return seconds > 0 ? seconds : undefined
}

/** A duration in its two largest units: 45 s, 3 min 20 s, 5 h, 2 d 4 h. Below a second in milliseconds. */
export function duration(ms: number): string {
  if (ms < 1000) return `${Math.round(ms)} ms`
  if (ms < 10_000) return `${(ms / 1000).toFixed(1)} s`
  const total = Math.round(ms / 1000)
  const parts = [
    [Math.floor(total / 86_400), 'd'],
    [Math.floor(total / 3600) % 24, 'h'],
    [Math.floor(total / 60) % 60, 'min'],
    [total % 60, 's'],
  ] as const
  const first = parts.findIndex(([count]) => count > 0)
  return parts
    .slice(first, first + 2)
    .filter(([count]) => count > 0)
    .map(([count, unit]) => `${count} ${unit}`)
    .join(' ')
}

/** How long ago something was: 3 min ago; "never" for null. A clock that is a little ahead makes no future. */
export function ago(iso: string | null | undefined, now: number): string {
  if (iso == null) return 'never'
  const ms = now - Date.parse(iso)
  if (Number.isNaN(ms)) return iso
  return ms < 1000 ? 'just now' : `${largest(ms)} ago`
}

/** How long until something is: in 3 min; "now" for what is due. */
export function until(iso: string | null | undefined, now: number): string {
  if (iso == null) return '-'
  const ms = Date.parse(iso) - now
  if (Number.isNaN(ms)) return iso
  return ms < 1000 ? 'now' : `in ${largest(ms)}`
}

function largest(ms: number): string {
  return duration(ms < 60_000 ? Math.floor(ms / 1000) * 1000 : ms)
    .replace(/^(\d+)\.\d s$/, '$1 s')
    .replace(/^(\S+ \S+) .*$/, '$1')
}

/** Local date and time to the second: 2026-11-22 14:03:07. */
export function time(iso: string | null | undefined): string {
  if (iso == null) return '-'
  const date = new Date(iso)
  if (Number.isNaN(date.getTime())) return iso
  const two = (n: number) => String(n).padStart(2, '0')
  const day = [date.getFullYear(), two(date.getMonth() + 1), two(date.getDate())].join('-')
  return `${day} ${[date.getHours(), date.getMinutes(), date.getSeconds()].map(two).join(':')}`
}

/** A whole number with thin groups, as people read it: 120,000. */
export function count(n: number): string {
  return String(n).replace(/\B(?=(\d{3})+$)/g, ',')
}

/** 12 records, 1 record. */
export function plural(n: number, one: string, many = `${one}s`): string {
  return `${count(n)} ${n === 1 ? one : many}`
}

export function bytes(n: number): string {
  const units = ['B', 'KiB', 'MiB', 'GiB', 'TiB']
  const power = n < 1024 ? 0 : Math.min(Math.floor(Math.log2(n) / 10), units.length - 1)
  const value = n / 1024 ** power
  return `${power === 0 || value >= 100 ? Math.round(value) : value.toFixed(1)} ${units[power]}`
}

/** Text from a peer or a record must not steer the terminal: control and direction characters are spelt out. */
export function plain(text: string): string {
  return text.replace(/[\p{Cc}\p{Cf}\p{Zl}\p{Zp}]/gu, (character) => `\\u{${character.codePointAt(0)?.toString(16)}}`)
}

/** The same for text of several lines. */
export function plainLines(text: string): string {
  return text.split('\n').map(plain).join('\n')
}

/** A cell of a table: a dash for nothing, JSON for what is no plain value. */
export function cell(value: unknown): string {
  if (value === null || value === undefined || value === '') return '-'
  if (typeof value === 'boolean') return value ? 'yes' : 'no'
  return plain(typeof value === 'string' ? value : typeof value === 'number' ? String(value) : JSON.stringify(value))
}

/**
 * A value of a record, so that no two different ones look alike: null is null, a document that is JSON's null is JSON null (`{"$json":null}` on the wire),
 * an empty text is "", what is absent is a dash, and a text that looks like one of those is quoted.
 */
export function valueText(of: unknown): string {
  if (of === undefined) return '-'
  if (of === null) return 'null'
  if (typeof of === 'string') return /^$|^(-|null|JSON null|".*")$/.test(of) ? plain(JSON.stringify(of)) : plain(of)
  const keys = typeof of === 'object' ? Object.keys(of) : []
  if (keys.length === 1 && keys[0] === '$json') {
    const { $json } = of as { readonly $json: unknown }
    return $json === null ? 'JSON null' : plain(JSON.stringify($json))
  }
  return cell(of)
}

/** Lines of `label  value`, the values under each other. Absent values are left out. */
export function fields(entries: readonly (readonly [label: string, value: unknown])[]): string {
  const shown = entries.filter(([, value]) => value !== undefined)
  const width = Math.max(0, ...shown.map(([label]) => label.length))
  return shown.map(([label, value]) => `${label.padEnd(width)}  ${cell(value)}`).join('\n')
}
