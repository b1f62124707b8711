import { ruleOf } from './field-rules.ts'
import { type MergeRules, type MergeSide, mergeFields, type Values } from './merge.ts'
import type { FieldMark, Json, PolicyName, Version } from './record.ts'
import { sameJson } from './same-json.ts'
import { compareVersions, dotOrder, joinSeen, makeVersion, type Seen, seenOfSite, unionSeen } from './version.ts'

/** One of the two versions of a record that meet. */
export type Contender = {
  readonly version: Version
  readonly deleted: boolean
  /** Values by column, or their canonical text; both contenders in the same form. Not looked at when deleted. */
  readonly content: Json
}

export type Policy = {
  readonly name: PolicyName
  /** UUID of the site whose word counts; for `master` only. Without it nobody's word counts and a person is asked. */
  readonly master?: string | null
  /** Origin under which this site writes now. */
  readonly here: string
  /** Rules of the fields; for `merge` only, where both contents are values by column. */
  readonly merge?: MergeRules
  /** A person made the incoming content: equal content is a new write too, since it is not what the incoming version was. */
  readonly decided?: boolean
}

/**
 * What to do with an incoming version.
 * - take: write the incoming content under `version`; the local values lose.
 * - keep: leave the local content, write `version`; the incoming values lose.
 *   With `equal` nobody loses anything: both say the same.
 * - rewrite: write the named content as a new write of `origin` that has seen `seen` (see mintVersion, which takes
 *   both); the other values lose. The content of a deleted contender is its deletion.
 * - merge: write `data` as a new write of `origin` that has seen `seen`, with `marks` for what stands behind each field (see fieldsOf).
 * - ask: leave the local record alone and put both before a person.
 */
export type Decision =
  | { readonly kind: 'take' | 'keep'; readonly version: Version; readonly equal: boolean }
  | { readonly kind: 'rewrite'; readonly content: 'local' | 'incoming'; readonly origin: string; readonly seen: Seen }
  | {
      readonly kind: 'merge'
      readonly data: Values
      readonly marks: Readonly<Record<string, FieldMark | 'own'>>
      readonly origin: string
      readonly seen: Seen
    }
  /** `fields`: only these need a person; absent for the record as a whole. */
  | { readonly kind: 'ask'; readonly fields?: readonly string[] }

/**
 * Settles two versions of one record (I7). Total, and causality comes first: a policy decides only what is concurrent.
 *
 * `newer` and `master` are computed alike by both sites from the two versions, so the winner keeps its dot and has seen
 * the loser afterwards; `mine` and `theirs` differ by site, so they are new writes. Concurrent versions with equal
 * content are no conflict under any policy. A delete is a version like any other. `merge` makes what neither side had, each
 * site for itself; content and marks are equal then, so the two new writes are no conflict when they meet.
 *
 * Why sites converge (I3): both orders agree with causality, a version that has seen another is never the lesser. So a
 * version is the greatest of all it has seen, and an exchange can only move a site up one total order, in any topology.
 */
export function decide(local: Contender, incoming: Contender, policy: Policy): Decision {
  const equal = sameContent(local, incoming)
  const keep = (): Decision => ({ kind: 'keep', version: join(local.version, incoming.version), equal })
  const take = (): Decision => ({ kind: 'take', version: join(incoming.version, local.version), equal })
  const greater = () => (versionOrder(policy)(incoming.version, local.version) > 0 ? take() : keep())
  const rewrite = (content: 'local' | 'incoming'): Decision => {
    return { kind: 'rewrite', content, origin: policy.here, seen: unionSeen(local.version, incoming.version) }
  }

  const order = compareVersions(incoming.version, local.version)
  if (order === 'same' || order === 'stale') return keep()
  if (order === 'newer') return take()
  if (policy.name === 'merge') return merged(local, incoming, policy, { equal, keep, take, greater, rewrite })
  if (equal && policy.decided !== true) return greater()
  switch (policy.name) {
    case 'newer':
      return greater()
    case 'master':
      return hasMaster(policy) ? greater() : { kind: 'ask' }
    case 'mine':
      return rewrite('local')
    case 'theirs':
      return rewrite('incoming')
    case 'ask':
      return { kind: 'ask' }
  }
}

type Outcomes = {
  readonly equal: boolean
  readonly keep: () => Decision
  readonly take: () => Decision
  readonly greater: () => Decision
  readonly rewrite: (content: 'local' | 'incoming') => Decision
}

/**
 * Both sites compute the same content and marks. A version that had them already stands for the result only if it is the greater of the two
 * too: under the lesser dot it would have seen a greater one, and with a third site versions could supersede each other in a circle.
 */
function merged(local: Contender, incoming: Contender, policy: Policy, outcomes: Outcomes): Decision {
  const { equal, keep, take, greater } = outcomes
  const sides = sidesOf(local, incoming)
  if (sides === undefined) return equal ? greater() : deletedOne(local, incoming, policy, outcomes)
  const rules = policy.merge ?? { rules: {}, numbers: new Set<string>() }
  const merge = mergeFields(...sides, rules, policy.master ?? null)
  if (merge.kind === 'ask') return merge
  const { data, marks, asLocal, asIncoming } = merge
  if (asLocal && asIncoming) return greater()
  const order = dotOrder(local.version, incoming.version)
  if (asLocal && order > 0) return keep()
  if (asIncoming && order < 0) return take()
  return { kind: 'merge', data, marks, origin: policy.here, seen: unionSeen(local.version, incoming.version) }
}

/** A delete has no fields: the rule of all fields decides about the record, and where it is a rule for values, the newer one wins. */
function deletedOne(local: Contender, incoming: Contender, policy: Policy, outcomes: Outcomes): Decision {
  const rule = ruleOf(policy.merge?.rules ?? {}, '*')
  switch (rule.name) {
    case 'mine':
      return outcomes.rewrite('local')
    case 'theirs':
      return outcomes.rewrite('incoming')
    case 'ask':
      return { kind: 'ask' }
    case 'site': {
      const master = rule.site ?? policy.master ?? null
      return decide(local, incoming, { name: 'master', master, here: policy.here })
    }
    default:
      return outcomes.greater()
  }
}

function sidesOf(local: Contender, incoming: Contender): readonly [MergeSide, MergeSide] | undefined {
  if (local.deleted || incoming.deleted) return undefined
  const side = ({ version, content }: Contender): MergeSide => ({ version, data: content as Values })
  return [side(local), side(incoming)]
}

/**
 * The total order by which versions win. For `master`, who has seen the later word of the master is the greater: the
 * master's own version against one that did not know it, and whatever was built on that version too. To look only at
 * who wrote would let an edit of the master's version lose to a third site's edit, and that one to the very version
 * which the first edit had replaced: a circle in which sites never agree. Between equals, as for every other policy,
 * the dot decides.
 */
function versionOrder(policy: Policy): (a: Version, b: Version) => number {
  if (!hasMaster(policy)) return dotOrder
  const { master } = policy
  return (a, b) => seenOfSite(a, master) - seenOfSite(b, master) || dotOrder(a, b)
}

function hasMaster(policy: Policy): policy is Policy & { readonly master: string } {
  return policy.name === 'master' && typeof policy.master === 'string'
}

/** The winner's dot, and what stands behind its fields, after it has seen the loser. */
function join(winner: Version, loser: Version): Version {
  const version = makeVersion(winner, joinSeen(winner, loser, winner))
  return winner.fields === undefined ? version : { ...version, fields: winner.fields }
}

function sameContent(a: Contender, b: Contender): boolean {
  if (a.deleted || b.deleted) return a.deleted && b.deleted
  return sameJson(a.content, b.content)
}
