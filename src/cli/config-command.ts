import type { Command } from 'commander'
import { inputsFromProcess, readConfig, redact } from '../config/index.ts'
import { SynclineError } from '../sync/index.ts'
import { noun, type Register, verb } from './command.ts'
import { EXIT } from './exit.ts'
import { applySetupFile, exportSetup, planSetupFile } from './setup-command.ts'
import { cell } from './text.ts'

type Options = { readonly config?: string }

/** `config …`: what this machine is set to, without asking any site; and a site's set-up as one file. */
export const config: Register = (program, session) => {
  const config = noun(program, 'config', 'The settings of this machine, and the set-up of a site')

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

  verb<object, [string | undefined]>(config, session, {
    use: 'export [file]',
    does: 'Writes the set-up of a site as one YAML file: resources, peers with their grants, tasks and jobs',
    more: 'Secrets are not in it. A file that is there already is not written over.',
    examples: ['syncline config export', 'syncline config export site.yaml'],
    run: async ({ site, out }, _options, file) => exportSetup(await site(), out, file),
  })

  const pruned = (command: Command) =>
    command.option('--prune', 'also remove peers and resources that are not in the file, with all that belongs to them')

  verb<{ readonly prune?: boolean }, [string]>(config, session, {
    use: 'plan <file>',
    does: 'Tells what `config apply` would change',
    more: 'The file holds resources:, peers:, tasks: and jobs:, or some of them; what it does not hold stays as it is.',
    examples: ['syncline config plan site.yaml'],
    options: pruned,
    run: async ({ site, out, streams }, { prune }, file) =>
      planSetupFile(await site(), out, streams.stdin, file, prune === true),
  })

  verb<{ readonly prune?: boolean }, [string]>(config, session, {
    use: 'apply <file>',
    does: 'Makes the set-up of a site what a YAML file says; tasks, grants and jobs that are not in it are removed',
    more: 'With faults nothing is changed; every one is told with its line.',
    examples: ['syncline config apply site.yaml', 'syncline config apply site.yaml --prune'],
    options: pruned,
    run: async ({ site, out, streams }, { prune }, file) =>
      applySetupFile(await site(), out, streams.stdin, file, prune === true),
  })
}

function lines(faults: readonly { readonly where: string; readonly message: string }[]): string {
  return faults.map(({ where, message }) => `${where}: ${message}`).join('\n')
}
