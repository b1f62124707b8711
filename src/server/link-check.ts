import {
  checkFieldsOf,
  compileFilter,
  findResource,
  type GrantOffer,
  type LinkRuleSettings,
  type Store,
} from '../store/index.ts'
import { type PolicyName, parseFilter, SynclineError } from '../sync/index.ts'

/**
 * Refuses rules of a link that could never work. `here` is for what this site evaluates itself: its columns must be there and comparable. What the
 * other site evaluates (`there`) is only checked for its grammar: it may have columns that this site has not.
 * Errors: SYNC_FILTER_INVALID, SYNC_REQUEST_INVALID, SYNC_REQUEST_NOT_FOUND.
 */
export async function checkRules(
  store: Store,
  resourceName: string,
  rules: LinkRuleSettings,
  where: 'here' | 'there',
): Promise<void> {
  const resource = await findResource(store.db, resourceName)
  if (rules.fields !== undefined) checkFieldsOf(resource, rules.fields)
  if (rules.filter != null) {
    if (where === 'here') await compileFilter(store, resource, rules.filter)
    else parseFilter(rules.filter)
  }
  if (where === 'there') return
  const known = resource.columns.filter((column) => column.sent).map((column) => column.name)
  const unknown = (rules.columns ?? []).filter((name) => !known.includes(name))
  if (unknown.length > 0) {
    const detail = `resource "${resourceName}" sends no column ${unknown.map((name) => `"${name}"`).join(', ')}; it sends ${known.join(', ')}`
    throw new SynclineError('SYNC_REQUEST_INVALID', detail)
  }
}

/** An offer with every rule named. Its policy was checked when the invitation was made. */
export function offerView(offer: GrantOffer) {
  const { resource, filter = null, columns = null, onConflict = 'newer', master = null, fields = {} } = offer
  return { resource, filter, columns, onConflict: onConflict as PolicyName, master, fields }
}
