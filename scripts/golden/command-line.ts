import { PassThrough } from 'node:stream'
import type { Argument, Command, Option } from 'commander'
import { examplesOf } from '../../src/cli/command.ts'
import { buildProgram } from '../../src/cli/program.ts'

export const file = 'docs/guides/command-line.md'

const INTRODUCTION = `# The command line

Generated from \`src/cli\` by \`npm run golden\`; do not edit. From a checkout the program is \`bin/syncline\`, from the package \`syncline\`.

Every command acts through the HTTP API of a site. Without more that is the site that runs on the data folder (\`SYNCLINE_DATA_DIR\`), with the
administrator token that its first start left there. Another site is named by \`SYNCLINE_URL\` and \`SYNCLINE_TOKEN\` (or \`SYNCLINE_TOKEN_FILE\`), or by
the options \`--url\`, \`--token\`, \`--token-file\`, \`--data-dir\` and \`--config\` that every such command takes. \`serve\`, \`config\` and parts of \`doctor\` are
about this machine.

- \`--help\` shows what a command does, with an example.
- \`--json\` prints exactly one JSON document on standard output, or one line of JSON for each item where the output has no end (\`log --follow\`). A failure
  is a JSON object on standard error: \`{"error": {"code", "title", "detail", "mend"}}\`.
- What is said to a person on the way goes to standard error: progress as a bar on a terminal, as one line a step elsewhere.
- Colours are for terminals, and not where \`NO_COLOR\` is set.

| exit code | means |
|---|---|
| 0 | done |
| 1 | failed |
| 2 | wrong use or configuration |
| 3 | done, and something waits for a person: a conflict, a quarantined record |
| 4 | the peer, or the site itself, cannot be reached |
`

/** Options that the introduction explains, and those that are settings of \`serve\` in docs/guides/settings.md. */
const SITE_GROUP = 'The site (else from the settings):'
const EVERYWHERE = ['--json', '--help']

/** Every command as its help has it: what it does, options, examples. */
export async function generate(): Promise<string> {
  const nowhere = new PassThrough()
  const streams = { stdin: nowhere, stdout: nowhere, stderr: nowhere }
  const program = await buildProgram({ streams, exit: 0, json: false })
  return [INTRODUCTION, ...program.commands.filter((each) => each.name() !== 'help').map(noun)].join('\n')
}

function noun(command: Command): string {
  if (command.commands.length === 0) return verb(command, '##')
  const verbs = command.commands.map((each) => verb(each, '###'))
  return [`## ${command.name()}\n\n${command.description()}.\n`, ...verbs].join('\n')
}

function verb(command: Command, level: string): string {
  const name = [...parents(command), command.name()].join(' ')
  const usage = `syncline ${name} ${command.registeredArguments.map(argument).join(' ')}`.trim()
  const options = command.options.filter(
    ({ long, helpGroupHeading }) => !EVERYWHERE.includes(long ?? '') && helpGroupHeading !== SITE_GROUP,
  )
  const isServe = name === 'serve'
  const parts = [
    `${level} ${name}`,
    command.description().replace(/([^.])$/, '$1.'),
    `\`${usage}${options.length > 0 ? ' [options]' : ''}\``,
    isServe
      ? 'Every setting of a site in [settings.md](settings.md) is an option too: `dataDir` is `--data-dir`.'
      : table(options),
    ['```sh', ...examplesOf(command), '```'].join('\n'),
  ]
  return `${parts.filter((part) => part !== '').join('\n\n')}\n`
}

function parents(command: Command): readonly string[] {
  const { parent } = command
  return parent === null || parent.parent === null ? [] : [...parents(parent), parent.name()]
}

function argument(each: Argument): string {
  const text = `${each.name()}${each.variadic ? '...' : ''}`
  return each.required ? `<${text}>` : `[${text}]`
}

function table(options: readonly Option[]): string {
  if (options.length === 0) return ''
  const rows = options.map((option) => {
    const { flags, description, mandatory, argChoices, defaultValue } = option
    const notes = [
      argChoices === undefined ? '' : `: ${argChoices.join(', ')}`,
      mandatory ? ' (must be given)' : '',
      typeof defaultValue === 'number' ? ` (default ${defaultValue})` : '',
    ]
    return `| \`${flags}\` | ${description.replaceAll('|', '\\|')}${notes.join('')} |`
  })
  return ['| option | meaning |', '|---|---|', ...rows].join('\n')
}
