import type { createLeaseClient, PeerLease } from './client/index.ts'
import type { HostLease } from './jobs/index.ts'

/** `{ peer: { peer: hub, lease: shared/archive } }`: a lease that is held at a peer, for jobs of several sites. */
export function peerLease(client: ReturnType<typeof createLeaseClient>): HostLease<PeerLease> {
  return {
    kind: 'peer',
    schema: {
      type: 'object',
      description: 'A lease at a peer, by its API.',
      required: ['peer', 'lease'],
      properties: {
        peer: { type: 'string', minLength: 1, maxLength: 63, description: 'Name of the peer.' },
        lease: {
          type: 'string',
          pattern: '^shared/[A-Za-z0-9._:/-]{1,190}$',
          description: 'Name of the lease there.',
          examples: ['shared/archive'],
        },
      },
      additionalProperties: false,
    },
    peers: ({ peer }) => [peer],
    label: ({ peer, lease }) => `lease ${lease} at ${peer}`,
    look: (where, signal) => client.look(where, signal),
    take: async (where, { token, job, site, ttlSeconds }, signal) => {
      const claim = { token, owner: job, host: site.host, pid: site.pid, seconds: ttlSeconds }
      const taken = await client.take(where, claim, signal)
      return taken.free ? { taken: true } : { taken: false, reason: taken.reason }
    },
    renew: (where, { token, ttlSeconds }, signal) => client.renew(where, token, ttlSeconds, signal),
    release: (where, { token }, signal) => client.release(where, token, signal),
  }
}
