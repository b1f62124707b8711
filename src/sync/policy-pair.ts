import { type FieldRules, ruleOf, SYMMETRIC_RULES } from './field-rules.ts'
import type { PolicyName } from './record.ts'

/** How one site settles what comes over a link. */
export type LinkPolicy = {
  readonly onConflict: PolicyName
  readonly master: string | null
  readonly fields: FieldRules
}

/**
 * What is wrong with two policies of one link.
 * - impossible: the two sites overturn each other's decisions for ever, so they never agree.
 * - doubtful: they agree, but who is first decides, or a person who is asked here is overruled there.
 */
export type Quarrel = { readonly kind: 'impossible' | 'doubtful'; readonly text: string }

/** Compares the policies of both ends of a link that changes travel over both ways. Empty when they go together. */
export function quarrelsOf(here: LinkPolicy, there: LinkPolicy): readonly Quarrel[] {
  const [mine, theirs] = [here.onConflict, there.onConflict]
  if (mine === 'merge' && theirs === 'merge') return fieldQuarrels(here, there)
  if (mine === 'master' && theirs === 'master') {
    if (here.master === there.master) return []
    return [impossible(`master: this site follows ${here.master}, the peer ${there.master}`)]
  }
  const quarrel = quarrelOf(mine, theirs)
  return quarrel === null ? [] : [quarrel]
}

/** Words that both sites compute alike when both have them. */
const ALIKE: readonly string[] = [...SYMMETRIC_RULES, 'master', 'merge']

function quarrelOf(mine: string, theirs: string, field = ''): Quarrel | null {
  const where = field === '' ? '' : `field "${field}": `
  const both = [mine, theirs]
  if (mine === theirs) {
    if (mine === 'mine') return impossible(`${where}mine on both sites: each takes its own values back in every run`)
    if (mine === 'theirs') return impossible(`${where}theirs on both sites: they exchange their values in every run`)
    return null
  }
  if (both.includes('mine') && both.includes('theirs')) return null
  const said = `${where}${mine} here against ${theirs} at the peer`
  if (both.includes('ask')) {
    const [who, other] = mine === 'ask' ? ['here', 'the peer'] : ['at the peer', 'this site']
    return doubtful(`${said}: ${other} decides before a person ${who} does`)
  }
  // What a merge makes is a new write that has seen both, so it is taken over where there is no conflict any more.
  if (both.every((word) => ALIKE.includes(word)) && !both.includes('merge'))
    return impossible(`${said}: where they disagree, each overturns the other in every run`)
  return doubtful(`${said}: whoever meets the conflict first decides it`)
}

function fieldQuarrels(here: LinkPolicy, there: LinkPolicy): readonly Quarrel[] {
  const columns = [...new Set(['*', ...Object.keys(here.fields), ...Object.keys(there.fields)])].sort()
  const word = ({ fields, master }: LinkPolicy, column: string) => {
    const rule = ruleOf(fields, column)
    return rule.name === 'site' ? `site:${rule.site ?? master}` : rule.name
  }
  const found = columns.flatMap((column): readonly Quarrel[] => {
    const [mine, theirs] = [word(here, column), word(there, column)]
    // Two sites of authority are two rules.
    if (mine !== theirs && mine.startsWith('site:') && theirs.startsWith('site:'))
      return [impossible(`field "${column}": ${mine} here against ${theirs} at the peer: each overturns the other`)]
    const quarrel = quarrelOf(mine.split(':')[0] as string, theirs.split(':')[0] as string, column)
    return quarrel === null ? [] : [quarrel]
  })
  return found
}

const impossible = (text: string): Quarrel => ({ kind: 'impossible', text })
const doubtful = (text: string): Quarrel => ({ kind: 'doubtful', text })
