import { type Command, InvalidArgumentError, Option } from 'commander'
import type { Config } from '../config/index.ts'
import type { Api } from './api.ts'
import { EXIT, type ExitCode } from './exit.ts'
import { createOutput, type Output, type Streams } from './output.ts'
import { durationSeconds } from './text.ts'

/** One call of the program: where it reads and writes, and what its action made of it. */
export type Session = {
  readonly streams: Streams
  exit: ExitCode
  /** Whether --json was given, as soon as that is known. */
  json: boolean
}

/** What an action has to work with. */
export type Context = {
  readonly out: Output
  readonly streams: Streams
  /** The settings, from file, environment and flags. Throws SYNC_CONFIG_INVALID. */
  readonly config: () => Promise<Config>
  /** The site that the command acts on. Throws SYNC_CONFIG_SITE_UNREACHABLE when there is none. */
  readonly site: () => Promise<Api>
}

/** Adds its commands to the program. */
export type Register = (program: Command, session: Session) => void

export type VerbSpec<Options, Args extends readonly unknown[]> = {
  /** Name and arguments as commander writes them: `show <peer>`. */
  readonly use: string
  /** One sentence, without a full stop. */
  readonly does: string
  /** More to know, shown below the sentence. */
  readonly more?: string
  readonly examples: readonly [string, ...string[]]
  readonly options?: (command: Command) => Command
  /** False for a command that needs no site: it has no options to name one. */
  readonly remote?: boolean
  /** The exit code when it is not 0. */
  readonly run: (context: Context, options: Options, ...args: Args) => Promise<ExitCode | undefined>
}

/** The examples that the help of each command shows, for the guide. */
const examples = new WeakMap<Command, readonly string[]>()

export function examplesOf(command: Command): readonly string[] {
  return examples.get(command) ?? []
}

/** A noun that holds verbs. */
export function noun(program: Command, name: string, does: string): Command {
  return program.command(name).description(does).helpCommand(false)
}

/** A command that does something, with an example in its help, --json, and the options that name the site. */
export function verb<Options = object, Args extends readonly unknown[] = []>(
  parent: Command,
  session: Session,
  spec: VerbSpec<Options, Args>,
): Command {
  const description = spec.more === undefined ? spec.does : `${spec.does}.\n\n${spec.more}`
  const command = parent.command(spec.use).summary(spec.does).description(description)
  spec.options?.(command)
  command.option('--json', 'print JSON and nothing else on standard output')
  if (spec.remote !== false) addSiteOptions(command)
  command.addHelpText('after', `\nExamples:\n${spec.examples.map((line) => `  ${line}\n`).join('')}`.trimEnd())
  examples.set(command, spec.examples)
  return command.action(async (...given: unknown[]) => {
    const options = command.opts<Options & SiteOptions>()
    session.json = options.json === true
    const args = given.slice(0, command.registeredArguments.length) as unknown as Args
    session.exit = (await spec.run(contextOf(session, options), options, ...args)) ?? EXIT.done
  })
}

type SiteOptions = {
  readonly json?: boolean
  readonly config?: string
  readonly dataDir?: string
  readonly url?: string
  readonly token?: string
  readonly tokenFile?: string
}

/** The settings that say which site is meant, as flags of every command that acts through its API. */
function addSiteOptions(command: Command): void {
  const option = (flags: string, text: string) =>
    command.addOption(new Option(flags, text).helpGroup('The site (else from the settings):'))
  option('--url <url>', 'site to act on; default the one that runs on the data folder')
  option('--token <token>', 'token to show there; default the administrator token of the data folder')
  option('--token-file <file>', 'file that holds the token')
  option('--data-dir <folder>', 'data folder of the site')
  option('--config <file>', 'file with settings')
}

function contextOf(session: Session, options: SiteOptions): Context {
  const { config, dataDir, url, token, tokenFile } = options
  const flags = { config, dataDir, url, token, tokenFile }
  const readConfig = async () => {
    const { loadConfigFromProcess } = await import('../config/index.ts')
    return loadConfigFromProcess(flags)
  }
  return {
    out: createOutput(session.streams, session.json),
    streams: session.streams,
    config: readConfig,
    site: async () => {
      const { connect } = await import('./api.ts')
      return connect(await readConfig())
    },
  }
}

/** Splits `a,b` and drops what is empty. */
export function list(text: string): readonly string[] {
  return text
    .split(',')
    .map((item) => item.trim())
    .filter((item) => item !== '')
}

/** Seconds of a duration option. */
export function seconds(text: string): number {
  const found = durationSeconds(text)
  if (found !== undefined) return found
  throw new InvalidArgumentError('It must be a duration such as 90s, 5m, 1h or 30d.')
}

export type PageOptions = { readonly limit: number; readonly cursor?: string }

/** Options of a list that goes on and on. */
export function pageOptions(command: Command): Command {
  return command
    .option('--limit <n>', 'at most this many', wholeNumber, 50)
    .option('--cursor <cursor>', 'go on where a page ended: its `next` in --json')
}

function wholeNumber(text: string): number {
  if (/^[1-9]\d{0,5}$/.test(text)) return Number(text)
  throw new InvalidArgumentError('It must be a whole number from 1.')
}
