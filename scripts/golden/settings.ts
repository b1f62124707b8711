import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { GROUPS, SETTING_NAMES, type Setting, settingOf, variableName } from '../../src/config/index.ts'

export const file = 'docs/guides/settings.md'

const PATH = join(import.meta.dirname, '../..', file)
const BEGIN = '<!-- generated from src/config/schema.ts by `npm run golden` -->'
const END = '<!-- end of the generated part -->'

/** The guide with its tables made anew from the schema; the words around them are kept. */
export function generate(): string {
  const [head = '', rest = ''] = readFileSync(PATH, 'utf8').split(BEGIN)
  const [, tail = ''] = rest.split(END)
  return `${head}${BEGIN}\n\n${tables()}\n${END}${tail}`
}

function tables(): string {
  const sections = Object.entries(GROUPS).map(([group, title]) => {
    const names = SETTING_NAMES.filter((name) => settingOf(name).group === group)
    const rows = names.map((name) => {
      const setting = settingOf(name)
      return [`\`${name}\``, `\`${variableName(name)}\``, fallback(setting), meaning(setting)]
    })
    return `### ${title}\n\n${table(['In a file', 'Variable', 'Default', 'Meaning'], rows)}\n`
  })
  return sections.join('\n')
}

/** Columns are as wide as their widest cell: the formatter of the repository wants it so. */
function table(head: readonly string[], rows: readonly (readonly string[])[]): string {
  const widths = head.map((_, column) => Math.max(...[head, ...rows].map((cells) => cells[column]?.length ?? 0)))
  const rule = widths.map((width) => '-'.repeat(width))
  const line = (cells: readonly string[]) =>
    `| ${cells.map((cell, column) => cell.padEnd(widths[column] ?? 0)).join(' | ')} |`
  return [head, rule, ...rows].map(line).join('\n')
}

function fallback({ default: value, defaultEmbedded, defaultText }: Setting): string {
  if (defaultText !== undefined) return defaultText
  if (value === undefined || (Array.isArray(value) && value.length === 0)) return 'none'
  const text = typeof value === 'number' ? number(value) : `\`${String(value)}\``
  return defaultEmbedded === undefined ? text : `${text}; ${number(defaultEmbedded)} on the embedded database`
}

function meaning(setting: Setting): string {
  const { description, minimum, maximum } = setting
  const values = setting.enum ?? setting.items?.enum
  const parts = [description]
  if (values !== undefined)
    parts.push(`${setting.type === 'array' ? 'Some' : 'One'} of ${values.map((value) => `\`${value}\``).join(', ')}.`)
  if (minimum !== undefined && maximum !== undefined) parts.push(`${number(minimum)} to ${number(maximum)}.`)
  if (setting.secret) parts.push('**Secret.**')
  return parts.join(' ')
}

/** 67108864 is 64 MiB to a person; what is no power of 1024 keeps its digits. */
function number(value: number): string {
  const exponent = [3, 2].find((power) => value >= 1024 ** power && value % 1024 ** power === 0)
  const size = exponent === undefined ? '' : ` (${value / 1024 ** exponent} ${exponent === 3 ? 'GiB' : 'MiB'})`
  return `${value}${size}`
}
