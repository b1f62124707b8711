import { readFile, writeFile } from 'node:fs/promises'
import type { Document, LineCounter } from 'yaml'
import { SynclineError } from '../sync/index.ts'
import { noun, type Register, verb } from './command.ts'
import { cell } from './text.ts'

type Note = { readonly path: string; readonly message: string; readonly line?: number }

/** `import-config …`: takes over what another program was set up to do. */
export const importConfig: Register = (program, session) => {
  const importConfig = noun(program, 'import-config', 'Takes over what another program was set up to do')

  verb<{ readonly out?: string; readonly timeZone?: string }, [string]>(importConfig, session, {
    use: 'rsyncdirector <file>',
    does: 'Reads the configuration of RsyncDirector and writes jobs that do the same',
    more: 'Tells every place where something means something else here. Nothing is changed at the site: look at what is written, then give it to syncline job apply.',
    examples: [
      'syncline import-config rsyncdirector /etc/rsyncdirector/laptop01.yaml --out jobs.yaml',
      'syncline import-config rsyncdirector old.yaml --time-zone Europe/Vienna > jobs.yaml',
    ],
    remote: false,
    options: (command) =>
      command
        .option('--out <file>', 'write the jobs to this file, which must not be there; default standard output')
        .option('--time-zone <zone>', 'time zone of the machine that it ran on; default that of this one'),
    run: async ({ out }, { out: target, timeZone }, file) => {
      const { takeOverRsyncDirector } = await import('../adapters/index.ts')
      const { LineCounter, parseDocument, stringify } = await import('yaml')
      const lines = new LineCounter()
      const document = parseDocument(await readFile(file, 'utf8'), { lineCounter: lines })
      if (document.errors.length > 0)
        throw new SynclineError('SYNC_CONFIG_INVALID', document.errors.map(({ message }) => message).join('\n'))
      const zone = timeZone ?? new Intl.DateTimeFormat().resolvedOptions().timeZone
      const { jobs, differences, faults } = takeOverRsyncDirector(document.toJS({ maxAliasCount: 100 }), zone)
      const located = (notes: readonly Note[]) =>
        notes.map((note) => ({ ...note, ...lineOf(document, lines, note.path) }))
      const found = { differences: located(differences), faults: located(faults) }
      if (faults.length > 0) {
        const detail = found.faults.map((note) => textOf(file, note)).join('\n')
        throw new SynclineError('SYNC_CONFIG_INVALID', `this cannot be taken over as it is:\n${detail}`)
      }
      for (const note of found.differences) out.note(textOf(file, note))
      const text = stringify({ jobs }, { lineWidth: 120 })
      if (target !== undefined) await writeFile(target, text, { flag: 'wx', mode: 0o644 })
      await out.result({ jobs, ...found }, () =>
        target === undefined
          ? text.trimEnd()
          : `${jobs.length} jobs are in ${cell(target)}. Next: syncline job apply ${cell(target)}`,
      )
    },
  })
}

function textOf(file: string, { path, message, line }: Note): string {
  return `${cell(file)}${line === undefined ? '' : `:${line}`}: ${path === '' ? '' : `${cell(path)} `}${message}`
}

/** Line of a place in the file, or of what it lies in. */
function lineOf(document: Document, lines: LineCounter, path: string): { readonly line?: number } {
  const keys = path
    .split('/')
    .slice(1)
    .map((key) => (/^\d+$/.test(key) ? Number(key) : key))
  for (; keys.length > 0; keys.pop()) {
    const node = document.getIn(keys, true)
    const range = typeof node === 'object' && node !== null && 'range' in node ? (node.range as number[] | null) : null
    if (range?.[0] !== undefined) return { line: lines.linePos(range[0]).line }
  }
  return {}
}
