import type { LifeEntry, RecordLife } from '../store/index.ts'
import type { Reach } from '../sync/index.ts'
import { type Register, verb } from './command.ts'
import type { Color, Output } from './output.ts'
import { cell, fields, plural, time, valueText } from './text.ts'

/** What GET /explain answers. */
type Explanation = RecordLife & { readonly peer: (Reach & { readonly name: string }) | null }

/** `explain`: why a value is here, and why a record is not there. */
export const explain: Register = (program, session) => {
  verb<{ readonly peer?: string }, [string, string]>(program, session, {
    use: 'explain <resource> <id>',
    does: 'Tells the life of a record here and, with --peer, whether a peer has it and why not',
    more: 'The peer is asked just then. Each reason comes with the fact that shows it.',
    examples: ['syncline explain city AT', 'syncline explain city AT --peer hub'],
    options: (command) => command.option('--peer <peer>', 'whether this peer has it, and why not'),
    run: async ({ site, out }, { peer }, resource, id) => {
      const found = await (await site()).get<Explanation>('/explain', { resource, id, peer })
      await out.result(found, () => describe(out, found))
    },
  })
}

const STATES = {
  here: 'lives here',
  deleted: 'was deleted',
  purged: 'was deleted, and its tombstone was purged',
  unknown: 'does not live here',
} as const

async function describe(out: Output, found: Explanation): Promise<string> {
  const present = found.life.find(({ kind }) => kind === 'present')
  const never = found.state === 'unknown' && found.life.length + found.quarantine.length === 0
  const state = never ? 'is not known here: this site has never had it' : STATES[found.state]
  const parts = [`${found.resource}/${cell(found.id)} ${state}`]
  if (present?.data != null)
    parts.push(fields(Object.entries(present.data).map(([name, of]) => [`  ${name}`, valueText(of)])))
  if (found.life.length > 0) parts.push(found.life.map((entry) => lifeText(out, entry)).join('\n'))
  if (found.truncated) parts.push('  (older versions are not shown)')
  parts.push(...around(found))
  if (found.peer !== null) parts.push(reachText(out, found.peer, found.state === 'deleted'))
  return parts.filter((part) => part !== '').join('\n\n')
}

/** One version: when, what, where from, how, and below it the fields that it changed and how it ended. */
function lifeText(out: Output, entry: LifeEntry): string {
  const { site, via, runId, changed, ended, kind } = entry
  const path = via === null ? 'made here' : via === site ? `from ${cell(via)}` : `from ${cell(site)} via ${cell(via)}`
  const run = runId === null ? '' : `, run ${runId}`
  const lines = [`${time(entry.writtenAt)}  ${out.paint('bold', head(entry))}  ${path}${run}`]
  for (const [name, { was, is }] of Object.entries(changed))
    lines.push(`    ${cell(name)}: ${valueText(was)} -> ${valueText(is)}`)
  if (kind !== 'present' && ended !== null) {
    const rule = ended.rule === null ? '' : ` by the rule ${cell(ended.rule)}`
    lines.push(`    ${endOf(entry)} at ${time(ended.at)}${ended.runId === null ? '' : ` in run ${ended.runId}`}${rule}`)
  }
  return lines.join('\n')
}

function head({ kind, deleted }: LifeEntry): string {
  if (kind === 'lost') return deleted ? 'deletion that lost' : 'version that lost'
  if (kind === 'discarded') return 'version that was discarded'
  const what = deleted ? 'deletion' : 'version'
  return kind === 'present' ? `${what}, as it is now` : what
}

function endOf({ ended, kind }: LifeEntry): string {
  if (kind === 'lost') return 'lost a conflict'
  if (kind === 'discarded') return 'given up'
  return ended?.how === 'left' ? 'removed as it left the filter' : (ended?.how ?? '')
}

function around({ quarantine, conflicts, parked, pending }: Explanation): readonly string[] {
  const open = conflicts.filter(({ resolvedAt }) => resolvedAt === null)
  return [
    ...quarantine.map(
      (each) =>
        `In quarantine from ${cell(each.peer)} since ${time(each.firstAt)}: ${each.code}: ${cell(each.reason)} (${plural(each.attempts, 'attempt')})`,
    ),
    ...open.map(
      ({ id, peer }) =>
        `Conflict ${id}${peer === null ? '' : ` with ${cell(peer)}`} waits for a decision: \`syncline conflict show ${id}\``,
    ),
    ...(parked === null ? [] : [`Fields that the table has no column for: ${cell(parked)}`]),
    ...pending.map(
      ({ column, resource, id }) => `${cell(column)} waits for ${resource}/${cell(id)}, which is not here yet`,
    ),
  ]
}

const VERDICTS: Readonly<Record<Reach['has'], readonly [Color, string]>> = {
  same: ['green', 'has it as it is here'],
  acknowledged: ['green', 'has had it'],
  other: ['yellow', 'has another version'],
  none: ['red', 'does not have it'],
  unknown: ['yellow', 'cannot be asked'],
}

const GONE: Readonly<Partial<Record<Reach['has'], string>>> = {
  same: 'does not have it either',
  acknowledged: 'has had its deletion',
  other: 'has it still',
}

function reachText(
  out: Output,
  { name, has, proof, reasons }: NonNullable<Explanation['peer']>,
  gone: boolean,
): string {
  const [color, plain] = VERDICTS[has]
  // Of a deleted record both sites have the same when neither has it.
  const words = gone ? (GONE[has] ?? plain) : plain
  const lines = reasons.map(({ reason, way, fact }) => {
    const note = way === 'here' ? 'not here: ' : reason === 'columns' ? '' : 'not there: '
    return `  ${out.paint('bold', `${note}${reason}`)}\n    ${cell(fact)}`
  })
  return [out.paint(color, `${cell(name)} ${words}`), `  ${cell(proof)}`, ...lines].join('\n')
}
