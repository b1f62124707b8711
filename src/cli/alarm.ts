import { Option } from 'commander'
import type { Alarm } from '../store/index.ts'
import type { Page } from './api.ts'
import { noun, type PageOptions, pageOptions, type Register, verb } from './command.ts'
import type { Finding } from './doctor-checks.ts'
import { EXIT } from './exit.ts'
import type { Color, Output } from './output.ts'
import type { Light, StatusRow } from './status-lights.ts'
import { ago, cell } from './text.ts'

const COLORS: Readonly<Record<Alarm['level'], Color>> = { critical: 'red', warning: 'yellow', info: 'dim' }
const LIGHTS: Readonly<Record<Alarm['level'], Light>> = { critical: 'red', warning: 'amber', info: 'green' }
const ORDER: readonly Light[] = ['red', 'amber', 'green']

/** `alarm …`: what the stall detector found. */
export const alarm: Register = (program, session) => {
  const alarm = noun(program, 'alarm', 'What the stall detector found')

  verb<PageOptions & { readonly all?: boolean; readonly peer?: string; readonly level?: string }>(alarm, session, {
    use: 'list',
    does: 'Lists the alarms that last, newest first, with what to do',
    examples: [
      'syncline alarm list',
      'syncline alarm list --all --peer hub',
      'syncline alarm list --level critical --json',
    ],
    options: (command) =>
      pageOptions(command)
        .option('--all', 'also those that ended')
        .option('--peer <peer>', 'only those about this peer')
        .addOption(new Option('--level <level>', 'only of this level').choices(['info', 'warning', 'critical'])),
    run: async ({ site, out }, { all, peer, level, limit, cursor }) => {
      const query = { peer, limit, cursor, open: all === true ? undefined : true }
      const page = await (await site()).get<Page<Alarm>>('/alarms', query)
      const items = page.items.filter((each) => level === undefined || each.level === level)
      await out.result({ items, next: page.next }, () => (items.length === 0 ? 'No alarm.' : alarmLines(out, items)))
      return items.some(({ ended, level: found }) => ended === null && found !== 'info') ? EXIT.waiting : EXIT.done
    },
  })
}

/** Each alarm in two lines: what is the matter, and what to do. */
export function alarmLines(out: Output, alarms: readonly Alarm[]): string {
  const now = Date.now()
  return alarms
    .map(({ level, code, text, mend, since, ended }) => {
      const when = ended === null ? `since ${ago(since, now)}` : `began ${ago(since, now)}, ended ${ago(ended, now)}`
      return `${out.paint(COLORS[level], level.padEnd(8))}  ${cell(text)} (${code}, ${when})\n          ${out.paint('dim', `to mend: ${cell(mend)}`)}`
    })
    .join('\n')
}

/** The lights with what the alarms say of them: a link is no better than its worst alarm. */
export function withAlarms(rows: readonly StatusRow[], alarms: readonly Alarm[]): readonly StatusRow[] {
  return rows.map((row) => {
    const about = alarms.filter(
      ({ code, peer, resource }) =>
        (peer === row.peer && (resource === '' || row.resource === null || resource === row.resource)) ||
        // A job may have the name of a resource.
        (peer === '' && resource !== '' && resource === row.resource && !code.startsWith('job-')),
    )
    const bad = about.filter(({ level }) => level !== 'info')
    if (bad.length === 0) return row
    const lights = [row.light, ...bad.map(({ level }) => LIGHTS[level])]
    const light = ORDER.find((each) => lights.includes(each)) ?? row.light
    return { ...row, light, why: [...bad.map(({ text }) => cell(text)), ...(row.light === 'green' ? [] : row.why)] }
  })
}

export function alarmFindings(alarms: readonly Alarm[]): readonly Finding[] {
  if (alarms.length === 0) return [{ about: 'alarms', state: 'ok', text: 'the stall detector finds nothing' }]
  return alarms.map(({ level, code, text, mend }) => ({
    about: `alarm ${code}`,
    state: level === 'critical' ? 'fail' : 'warn',
    text: cell(text),
    mend: cell(mend),
  }))
}
