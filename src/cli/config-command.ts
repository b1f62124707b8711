import { inputsFromProcess, readConfig, redact } from '../config/index.ts'
import { SynclineError } from '../sync/index.ts'
import { noun, type Register, verb } from './command.ts'
import { EXIT } from './exit.ts'
import { applyFile, planFile } from './job-apply.ts'
import { cell } from './text.ts'

type Options = { readonly config?: string }

/** `config …`: what this machine is set to, without asking any site; and a site's set-up as one file. */
export const config: Register = (program, session) => {
  const config = noun(program, 'config', 'The settings of this machine')

  verb<Options>(config, session, {
    use: 'check',
    does: 'Checks every setting and names all faults at once',
    examples: ['syncline config check', 'syncline config check --config /etc/syncline.yaml'],
    remote: false,
    options: (command) => command.option('--config <file>', 'file with settings'),
    run: async ({ out }, { config }) => {
      const { faults } = readConfig(inputsFromProcess({ config }))
      await out.result({ valid: faults.length === 0, faults }, () =>
        faults.length === 0 ? 'The settings are valid.' : lines(faults),
      )
      return faults.length === 0 ? EXIT.done : EXIT.wrongUse
    },
  })

  verb<Options>(config, session, {
    use: 'show',
    does: 'Shows every setting in force and where it was set; secrets are hidden',
    examples: ['syncline config show', 'syncline config show --json'],
    remote: false,
    options: (command) => command.option('--config <file>', 'file with settings'),
    run: async ({ out }, { config }) => {
      const { config: found, faults, sources } = readConfig(inputsFromProcess({ config }))
      if (found === undefined) throw new SynclineError('SYNC_CONFIG_INVALID', lines(faults))
      const settings = redact(found)
      await out.result({ settings, sources }, () =>
        out.table(
          ['SETTING', 'VALUE', 'SET BY'],
          Object.entries(settings).map(([name, value]) => [
            name,
            cell(Array.isArray(value) ? value.join(',') : value),
            sources[name as keyof typeof sources] ?? 'default',
          ]),
        ),
      )
    },
  })

  verb<object, [string]>(config, session, {
    use: 'plan <file>',
    does: 'Tells what `config apply` would change',
    more: 'The file holds the jobs of the site under jobs:, all of them.',
    examples: ['syncline config plan site.yaml'],
    run: async ({ site, out, streams }, _options, file) => planFile(await site(), out, streams.stdin, file, true),
  })

  verb<object, [string]>(config, session, {
    use: 'apply <file>',
    does: 'Makes the jobs of the site what a YAML file says, and removes those that are not in it',
    more: 'All of it or, with faults, nothing; every fault is told with its line.',
    examples: ['syncline config apply site.yaml'],
    run: async ({ site, out, streams }, _options, file) => applyFile(await site(), out, streams.stdin, file, true),
  })
}

function lines(faults: readonly { readonly where: string; readonly message: string }[]): string {
  return faults.map(({ where, message }) => `${where}: ${message}`).join('\n')
}
