import { type Command, Option } from 'commander'
import {
  flagName,
  GROUPS,
  loadConfigFromProcess,
  SETTING_NAMES,
  type Setting,
  type SettingName,
  settingOf,
} from '../config/index.ts'
import { type Context, type Register, verb } from './command.ts'
import { EXIT, type ExitCode } from './exit.ts'
import { cell, fields } from './text.ts'

/** `serve`: runs the site in this process until it is told to stop. */
export const serve: Register = (program, session) => {
  verb<Readonly<Record<string, unknown>>>(program, session, {
    use: 'serve',
    does: 'Runs the site: server, scheduler, workers',
    more: 'Its log goes to standard output. SIGTERM or Ctrl-C ends it at a safe point, SIGHUP runs all tasks and jobs now. The first start prints an administrator token, which the data folder keeps.',
    examples: [
      'syncline serve',
      'syncline serve --data-dir /var/lib/syncline --port 8420 --name hub',
      'SYNCLINE_DATABASE_URL=postgres://syncline@localhost/app syncline serve',
    ],
    remote: false,
    options: settingOptions,
    run: (context, { json: _, ...flags }) => run(context, flags),
  })
}

/** A flag for every setting of a site; in the same words as the file and the environment. */
function settingOptions(command: Command): Command {
  command.option('--config <file>', 'file with settings')
  for (const name of SETTING_NAMES) {
    const setting = settingOf(name)
    if (setting.group === 'client') continue
    command.addOption(settingOption(name, setting, setting.description))
    if (setting.secret) command.addOption(settingOption(`${name}File`, setting, 'File that holds it.'))
  }
  return command
}

function settingOption(key: SettingName | `${string}File`, { type, group }: Setting, description: string): Option {
  const value = { string: '<text>', integer: '<n>', array: '<list>' }[type]
  const option = new Option(`${flagName(key)} ${value}`, description).helpGroup(`${GROUPS[group]}:`)
  // `--no-proxy` names hosts; it is not the opposite of `--proxy`.
  option.negate = false
  return option
}

async function run({ out }: Context, flags: Readonly<Record<string, unknown>>): Promise<ExitCode> {
  const config = loadConfigFromProcess(flags)
  const { startSite } = await import('../site.ts')
  let runAll: () => unknown = () => {}
  // Before the start: a site that already answers must not be killed by the signal that asks it to end.
  const ended = untilTold(() => runAll())
  const site = await startSite(config)
  runAll = site.runAll
  const { url, uuid, name, dataDir, adminToken } = site
  const ready = { url, uuid, name, dataDir, adminToken }
  if (out.json) await out.item(ready, () => '')
  else out.note(announcement(ready))
  const cause = await Promise.race([ended, site.failed])
  await site.close()
  if (cause === undefined) return EXIT.done
  throw cause
}

function announcement(site: {
  readonly url: string
  readonly uuid: string
  readonly name: string
  readonly dataDir: string
  readonly adminToken: string | undefined
}): string {
  const { url, uuid, name, dataDir, adminToken } = site
  return fields([
    ['site', `${cell(name)} at ${url}`],
    ['uuid', uuid],
    ['data folder', dataDir],
    ['administrator token', adminToken === undefined ? undefined : `${adminToken} (shown only now)`],
  ])
}

/** Resolves with the first SIGTERM or SIGINT; the second one ends the process as it is. SIGHUP only calls `runAll`. */
function untilTold(runAll: () => unknown): Promise<undefined> {
  return new Promise((resolve) => {
    for (const signal of ['SIGTERM', 'SIGINT'] as const) process.once(signal, () => resolve(undefined))
    process.on('SIGHUP', () => void runAll())
  })
}
