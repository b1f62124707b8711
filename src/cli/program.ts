import { Command, CommanderError } from 'commander'
import type { Session } from './command.ts'
import { EXIT, type ExitCode } from './exit.ts'
import { NOUNS } from './nouns.ts'
import { type FailureText, type Streams, writeFailure, writeText } from './output.ts'
import { programVersion } from './version.ts'

const HEAD = `Keeps records and files in step between sites that cannot share one database, and proves it.

Commands act on the site that runs on the data folder, or on the one that SYNCLINE_URL and SYNCLINE_TOKEN name.`

const TAIL = `
Exit codes: 0 done, 1 failed, 2 wrong use or configuration, 3 done and something waits for a person, 4 not reachable.

Examples:
  syncline serve
  syncline resource attach public.city
  syncline peer --help`

/** Performs one command line and gives its exit code; failures are told on standard error. */
export async function run(given: readonly string[], streams: Streams): Promise<ExitCode> {
  const session: Session = { streams, exit: EXIT.done, json: given.includes('--json') }
  const argv = given[0] === 'help' ? [...given.slice(1), '--help'] : given
  const program = await buildProgram(session, argv)
  try {
    await program.parseAsync([...argv], { from: 'user' })
    return session.exit
  } catch (error) {
    if (error instanceof CommanderError) return endOfParsing(program, session, argv, error)
    const { explain } = await import('./failure.ts')
    const { text, exit } = explain(error)
    writeFailure(streams.stderr, session.json, text)
    return exit
  }
}

/** The program with the commands of the noun that `argv` calls; without `argv` with all of them. The other nouns are there by name only. */
export async function buildProgram(session: Session, argv?: readonly string[]): Promise<Command> {
  const { stdout, stderr } = session.streams
  const program = new Command('syncline')
    .description(HEAD)
    .version(programVersion(), '-V, --version', 'print the version')
    .helpOption('-h, --help', 'print help')
    .helpCommand('help [command]', 'Prints help for a command')
    .exitOverride()
    .configureOutput({
      writeOut: (text) => writeText(stdout, text),
      writeErr: (text) => writeText(stderr, text),
      getOutHelpWidth: () => stdout.columns ?? 100,
      getErrHelpWidth: () => stderr.columns ?? 100,
      // Told by endOfParsing, in the form of every other failure.
      outputError: () => {},
    })
    .addHelpText('after', TAIL)
  const called = argv?.find((word) => !word.startsWith('-'))
  for (const { name, does, load } of NOUNS) {
    if (argv === undefined || called === name) (await load())(program, session)
    else program.command(name).summary(does)
  }
  return program
}

function endOfParsing(
  program: Command,
  { streams, json }: Session,
  argv: readonly string[],
  error: CommanderError,
): ExitCode {
  if (error.exitCode === 0) return EXIT.done
  // Commander has printed the help where a verb is missing; there is no more to say.
  if (error.code === 'commander.help') return EXIT.wrongUse
  const failure: FailureText = {
    code: 'SYNC_REQUEST_INVALID',
    title: 'That is not how the command is used',
    detail: error.message.replace(/^error: /, ''),
    mend: `Try: ${commandIn(program, argv)} --help`,
  }
  writeFailure(streams.stderr, json, failure)
  return EXIT.wrongUse
}

/** The longest known command that `argv` begins with: `syncline peer invite`. */
function commandIn(program: Command, argv: readonly string[]): string {
  let command = program
  const words = [program.name()]
  for (const word of argv) {
    const next = command.commands.find((each) => each.name() === word)
    if (next === undefined) break
    words.push(word)
    command = next
  }
  return words.join(' ')
}
