import type { PolicyName } from '../record.ts'

/** Eden's words for policies, from the view of this site, and what they are here. */
export const EDEN_POLICIES = { THIS: 'mine', OTHER: 'theirs', NEWER: 'newer', MASTER: 'master' } as const
export type EdenPolicy = keyof typeof EDEN_POLICIES

type Rules = { readonly onConflict?: string | undefined; readonly master?: string | null | undefined }

/** Rules with the word of this site for the policy; Eden's MASTER means the other site, where nobody else is named. */
export function policyInOurWords<T extends Rules>(
  rules: T,
  peerUuid: string,
): T & { readonly onConflict?: PolicyName } {
  const { onConflict, master } = rules
  if (onConflict === undefined || !Object.hasOwn(EDEN_POLICIES, onConflict))
    return rules as T & { onConflict?: PolicyName }
  const ours = EDEN_POLICIES[onConflict as EdenPolicy]
  return { ...rules, onConflict: ours, ...(ours === 'master' && master === undefined && { master: peerUuid }) }
}
