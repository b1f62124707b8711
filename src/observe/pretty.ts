const LEVELS: Readonly<Record<number, string>> = {
  10: 'trace',
  20: 'debug',
  30: 'info ',
  40: 'WARN ',
  50: 'ERROR',
  60: 'FATAL',
}
const COLORS: Readonly<Record<number, string>> = { 10: '2', 20: '2', 40: '33', 50: '31', 60: '31;1' }

/** A JSON log line for a person at a terminal: time of day, level, event or message, then the fields as name=value. */
export function prettyLine(line: string, color = false): string {
  const { time, level, event, msg, err, ...fields } = JSON.parse(line) as Record<string, unknown>
  const number = Number(level)
  const parts = [String(time).slice(11, 23), LEVELS[number] ?? String(level)]
  for (const word of [event, msg]) if (word !== undefined) parts.push(plain(String(word)))
  for (const [name, value] of Object.entries(fields)) parts.push(`${plain(name)}=${shown(value)}`)
  const text = [parts.join(' '), ...trouble(err)].join('\n    ')
  const code = color ? COLORS[number] : undefined
  return code === undefined ? `${text}\n` : `\x1b[${code}m${text}\x1b[0m\n`
}

/** An error keeps its stack, one line below the other. */
function trouble(err: unknown): string[] {
  if (typeof err !== 'object' || err === null) return err === undefined ? [] : [plain(String(err))]
  const { stack, message } = err as { stack?: unknown; message?: unknown }
  return String(stack ?? message ?? JSON.stringify(err))
    .split('\n')
    .map(plain)
}

function shown(value: unknown): string {
  if (typeof value !== 'string') return plain(JSON.stringify(value))
  return /^[^\s"=]+$/.test(value) && plain(value) === value ? value : plain(JSON.stringify(value))
}

/** Text from a peer must not steer the terminal: control and direction characters are spelt out. */
function plain(text: string): string {
  return text.replace(/[\p{Cc}\p{Cf}\p{Zl}\p{Zp}]/gu, (character) => `\\u{${character.codePointAt(0)?.toString(16)}}`)
}
