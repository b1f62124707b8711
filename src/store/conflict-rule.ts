import type { Transaction } from 'kysely'
import { type FieldRules, SynclineError } from '../sync/index.ts'
import type { ConflictRow } from './conflicts.ts'
import { findGrant, findTaskFor, setGrant, updateTask } from './registry/index.ts'
import type { Database } from './schema.ts'

type Chosen = {
  readonly choice?: 'ours' | 'theirs' | undefined
  readonly fields?: Readonly<Record<string, 'ours' | 'theirs'>> | undefined
}

const RULE = { ours: 'mine', theirs: 'theirs' } as const

/**
 * Makes what a person chose the rule for what comes over the same link: the policy of its task, or of the grant where the peer pushes and there
 * is no task. A choice by field becomes a merge, in which all other fields go on asking unless they have rules.
 * Errors: SYNC_REQUEST_INVALID for values of neither side, which no rule can give again, and for a link that is gone.
 */
export async function makeRule(
  trx: Transaction<Database>,
  row: ConflictRow,
  { choice, fields = {} }: Chosen,
): Promise<void> {
  const named = Object.entries(fields)
  if (named.length === 0 && choice === undefined)
    throw refused('values of neither side are no rule; choose a side for the record or for fields')
  const { peerId, resource } = row
  const task = peerId === null ? null : await findTaskFor(trx, peerId, resource)
  const grant = peerId === null || task !== null ? null : await findGrant(trx, peerId, resource, 'push')
  const link = task ?? grant
  if (link === null || peerId === null)
    throw refused('the conflict came over a link that has neither task nor grant now')
  const others = choice === undefined ? 'ask' : RULE[choice]
  const rules: FieldRules = {
    '*': others,
    ...(link.onConflict === 'merge' ? link.fields : {}),
    ...Object.fromEntries(named.map(([column, side]) => [column, RULE[side]])),
  }
  const settings =
    named.length > 0
      ? { onConflict: 'merge', fields: rules, master: link.onConflict === 'merge' ? link.master : null }
      : { onConflict: others, fields: {}, master: null }
  if (task !== null) await updateTask(trx, task.id, settings)
  else if (grant !== null) await setGrant(trx, { ...grant, ...settings })
}

function refused(detail: string): SynclineError {
  return new SynclineError('SYNC_REQUEST_INVALID', detail)
}
