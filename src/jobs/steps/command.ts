import { homedir } from 'node:os'
import { isAbsolute } from 'node:path'
import { StringDecoder } from 'node:string_decoder'
import { runProcess } from '../../adapters/index.ts'
import { Abandoned } from '../abandoned.ts'
import { durationSchema, secondsOf } from '../definition.ts'
import type { Fault, StepHandler } from '../step.ts'
import { type Confinement, confined, confinementSchema } from './confine.ts'

/** `command`: a program with its arguments, never a shell. */

type Command = Confinement & {
  readonly argv: readonly [string, ...string[]]
  readonly folder?: string
  readonly set?: Readonly<Record<string, string>>
  readonly pass?: readonly string[]
  readonly success?: readonly number[]
  readonly warning?: readonly number[]
  readonly grace?: string | number
  readonly repeatable?: boolean
}

const NAME = '^[A-Za-z_][A-Za-z0-9_]{0,99}$'
const GRACE_SECONDS = 5
/** Where another process begins with the run in a moment. */
const HASTE_MS = 2_000
/** What every program gets; anything else is named in the step. */
const BASE = { PATH: '/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin', LANG: 'C.UTF-8' }

const codes = (description: string, fallback: readonly number[]) => ({
  type: 'array',
  items: { type: 'integer', minimum: 0, maximum: 255 },
  maxItems: 256,
  default: fallback,
  description,
})

const schema = {
  type: 'object',
  description: 'Runs a program on this host. No shell reads the arguments.',
  required: ['argv'],
  properties: {
    argv: {
      type: 'array',
      items: { type: 'string', maxLength: 100_000 },
      minItems: 1,
      maxItems: 1000,
      description: 'The program and its arguments, each by itself.',
      examples: [['/usr/bin/pg_dump', '--file', '/var/backups/app.sql', 'app']],
    },
    folder: {
      type: 'string',
      minLength: 1,
      maxLength: 4096,
      description: 'Working folder; the home of the user when absent.',
    },
    set: {
      type: 'object',
      additionalProperties: { type: 'string', maxLength: 100_000 },
      maxProperties: 200,
      description: 'Variables of its environment. Not for secrets: a definition can be read.',
    },
    pass: {
      type: 'array',
      items: { type: 'string', pattern: NAME },
      maxItems: 200,
      description: 'Variables of the environment of the site that the program gets too; no other ones are handed on.',
    },
    success: codes('Exit codes that mean success.', [0]),
    warning: codes('Exit codes that only warn.', []),
    grace: durationSchema('Between the request to end and the end, when it is stopped; 5 seconds when absent.'),
    repeatable: {
      type: 'boolean',
      default: false,
      description: 'It may be begun again after it was cut off by the end of its process.',
    },
    ...confinementSchema,
  },
  additionalProperties: false,
}

/** `environment` is that of the site; a program gets of it what its step names. */
export function commandStep(environment: Readonly<Record<string, string | undefined>>): StepHandler<Command> {
  const environmentOf = ({ set = {}, pass = [] }: Command) => {
    const passed = pass.flatMap((name): [string, string][] => {
      const value = environment[name]
      return value === undefined ? [] : [[name, value]]
    })
    return { ...BASE, HOME: homedir(), ...Object.fromEntries(passed), ...set }
  }
  return {
    kind: 'command',
    schema,
    check,
    repeatable: ({ repeatable }) => repeatable === true,
    graceMs,
    plan: async (command) => ({
      summary: `would run ${command.argv[0]} in ${command.folder ?? homedir()}`,
      argv: [confined(command, command.argv)],
      files: null,
      bytes: null,
      notes: [
        'what it would change is not known',
        `environment: ${Object.keys(environmentOf(command)).sort().join(', ')}`,
      ],
    }),
    run: async (command, context) => {
      const { success = [0], warning = [] } = command
      const lines = { stdout: lineReader(context.say), stderr: lineReader(context.say) }
      const { code, signal, aborted } = await runProcess({
        argv: confined(command, command.argv),
        cwd: command.folder ?? homedir(),
        env: {
          ...environmentOf(command),
          JOB_NAME: context.job,
          JOB_RUN: context.runId,
          JOB_STEP: context.step,
          JOB_ATTEMPT: String(context.attempt),
        },
        signal: context.signal,
        graceMs: () =>
          context.signal.reason instanceof Abandoned ? Math.min(graceMs(command), HASTE_MS) : graceMs(command),
        onOutput: (chunk, stream) => lines[stream].add(chunk),
      })
      for (const stream of ['stdout', 'stderr'] as const) lines[stream].end()
      if (aborted) return { result: 'error', message: `it was ended: ${(context.signal.reason as Error).message}` }
      if (code === null) return { result: 'error', message: `it was ended by ${signal}` }
      if (success.includes(code)) return { result: 'success', message: `ended with ${code}` }
      return { result: warning.includes(code) ? 'warning' : 'error', message: `ended with ${code}` }
    },
  }
}

function graceMs({ grace }: Command): number {
  return (grace === undefined ? GRACE_SECONDS : secondsOf(grace)) * 1000
}

function check({ argv, folder, set = {}, pass = [] }: Command): readonly Fault[] {
  const faults: Fault[] = []
  const tell = (path: string, message: string) => faults.push({ path, message })
  for (const [n, word] of argv.entries()) if (word.includes('\0')) tell(`/argv/${n}`, 'must not have the character NUL')
  if (argv[0] === '') tell('/argv/0', 'must name a program')
  if (argv[0].includes('/') && !isAbsolute(argv[0]))
    tell('/argv/0', 'must be an absolute path, or a name that is looked for')
  if (folder !== undefined && (!isAbsolute(folder) || folder.includes('\0')))
    tell('/folder', 'must be an absolute path')
  for (const [name, value] of Object.entries(set)) {
    if (!new RegExp(NAME).test(name)) tell(`/set/${name}`, 'is no name of a variable')
    if (value.includes('\0')) tell(`/set/${name}`, 'must not have the character NUL')
  }
  // The settings of the site hold its secrets.
  for (const [n, name] of pass.entries())
    if (/^syncline_/i.test(name)) tell(`/pass/${n}`, 'settings of the site are not handed on')
  return faults
}

/** Bytes to lines; a carriage return alone ends one too, as programs draw progress with it. */
function lineReader(say: (line: string) => void) {
  const LINE_MAX = 65_536
  const decoder = new StringDecoder('utf8')
  let rest = ''
  return {
    add: (chunk: Buffer) => {
      const parts = (rest + decoder.write(chunk)).split(/\r\n|[\r\n]/)
      rest = parts.pop() ?? ''
      for (const line of parts) say(line)
      if (rest.length <= LINE_MAX) return
      say(rest)
      rest = ''
    },
    end: () => {
      rest += decoder.end()
      if (rest !== '') say(rest)
    },
  }
}
