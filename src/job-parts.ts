import { hostname } from 'node:os'
import { createMailSender, createSignedPost, type Sender } from './adapters/index.ts'
import type { createLeaseClient } from './client/index.ts'
import { type Config, inputsFromProcess } from './config/index.ts'
import type { JobsDeps } from './jobs/index.ts'
import { peerLease } from './peer-lease.ts'
import type { ServerActions } from './server/index.ts'
import type { TransferParts } from './transfer.ts'

type JobParts = JobsDeps['parts']
type Previews = Awaited<ReturnType<ServerActions['previewSync']>>

/** What jobs of this site are made of: the environment that commands may get a part of, the ways to tell people, kinds of steps and leases. */
export function jobParts(
  config: Config,
  site: {
    readonly sender: () => Promise<Sender>
    readonly transfer: Pick<TransferParts, 'step' | 'upload' | 'lockFile'>
    readonly leases: ReturnType<typeof createLeaseClient>
    readonly preview: (peer: string, resources: readonly string[] | undefined) => Promise<Previews>
  },
): JobParts {
  return {
    host: hostname(),
    environment: inputsFromProcess().env,
    notify: waysOut(config, site.sender),
    previewSync: async (peer, resources) => planOf(peer, await site.preview(peer, resources)),
    steps: [site.transfer.step, site.transfer.upload],
    leases: [site.transfer.lockFile, peerLease(site.leases)],
  }
}

/** Only those ways that the settings name. */
function waysOut(config: Config, sender: () => Promise<Sender>): JobParts['notify'] {
  const { smtpUrl, mailFrom, mailTo = [], webhookUrl, webhookSecret } = config
  const send =
    smtpUrl === undefined || mailFrom === undefined ? undefined : createMailSender({ url: smtpUrl, from: mailFrom })
  const post = webhookUrl === undefined || webhookSecret === undefined ? undefined : createSignedPost(webhookSecret)
  return {
    mail: send && (async ({ to = mailTo, ...rest }) => send((await sender()).name, { to, ...rest })),
    webhook:
      post &&
      (async ({ id, url = webhookUrl ?? '', type, timestamp, data }) => {
        const { uuid, name, url: siteUrl } = await sender()
        await post(url, id, { type, timestamp, data: { site: { uuid, name, url: siteUrl }, ...data } })
      }),
  }
}

function planOf(peer: string, reports: Previews) {
  const parts = reports.flatMap(({ tasks }) =>
    tasks.flatMap(({ resource, parts }) => parts.map((part) => ({ resource, ...part }))),
  )
  const changes = parts.reduce((sum, part) => sum + part.changes, 0)
  const bytes = parts.reduce((sum, part) => sum + part.bytes, 0)
  const notes = parts.map(({ resource, direction, changes, failure, braked }) => {
    const trouble = failure === null ? braked.join('; ') : failure.detail
    return `${direction} ${resource}: ${changes} changes${trouble === '' ? '' : `, ${trouble}`}`
  })
  return { summary: `would sync ${changes} changes with ${peer}`, files: null, bytes, notes }
}
