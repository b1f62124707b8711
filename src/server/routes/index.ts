import type { FastifyPluginAsync } from 'fastify'
import type { ServerDeps } from '../deps.ts'
import type { ExchangeDeps } from '../exchange.ts'
import { createSeats, createWatch } from '../watch.ts'
import { agreementRoutes } from './agreements.ts'
import { alarmRoutes } from './alarms.ts'
import { brakeRoutes } from './brakes.ts'
import { changesRoutes } from './changes.ts'
import { checkpointRoutes } from './checkpoints.ts'
import { conflictRoutes } from './conflicts.ts'
import { datasetRoutes } from './datasets.ts'
import { digestRoutes } from './digests.ts'
import { edenPeerRoutes } from './eden-peers.ts'
import { eventRoutes } from './events.ts'
import { explainRoutes } from './explain.ts'
import { folderRoutes } from './folders.ts'
import { grantRoutes } from './grants.ts'
import { healthRoutes } from './health.ts'
import { invitationRoutes } from './invitations.ts'
import { jobRunRoutes } from './job-runs.ts'
import { jobRoutes } from './jobs.ts'
import { pairingRoutes } from './pairings.ts'
import { peerLeaseRoutes } from './peer-leases.ts'
import { peerRoutes } from './peers.ts'
import { previewRoutes } from './previews.ts'
import { quarantineRoutes } from './quarantine.ts'
import { recordRoutes } from './records.ts'
import { resourceRoutes } from './resources.ts'
import { runRoutes } from './runs.ts'
import { schemaRoutes } from './schemas.ts'
import { settingRoutes } from './settings.ts'
import { peerSiteRoutes, siteRoutes } from './site.ts'
import { taskRoutes } from './tasks.ts'
import { tokenRoutes } from './tokens.ts'
import { transferRoutes } from './transfers.ts'
import { undoRoutes } from './undo.ts'
import { waitingRoutes } from './waiting.ts'

/** /sync/v1: what peers ask. */
export const exchange =
  (deps: ServerDeps): FastifyPluginAsync =>
  async (app) => {
    const { limits, store } = deps
    const closing = new AbortController()
    app.addHook('preClose', async () => closing.abort())
    const shared: ExchangeDeps = {
      ...deps,
      watch: createWatch(store),
      seats: createSeats(limits.waitersMax ?? 500, limits.waitersPerPeerMax ?? 16),
      closing: closing.signal,
    }
    for (const routes of [
      peerSiteRoutes,
      pairingRoutes,
      changesRoutes,
      checkpointRoutes,
      digestRoutes,
      schemaRoutes,
      eventRoutes,
      waitingRoutes,
      peerLeaseRoutes,
    ]) {
      app.register(routes(shared))
    }
  }

/** /api/v1: what people and programs ask who administer the site. */
export const administration =
  (deps: ServerDeps): FastifyPluginAsync =>
  async (app) => {
    const nouns = [
      ...[siteRoutes, peerRoutes, grantRoutes, invitationRoutes, resourceRoutes, recordRoutes, taskRoutes, runRoutes],
      ...[agreementRoutes, conflictRoutes, quarantineRoutes, alarmRoutes, tokenRoutes, settingRoutes, transferRoutes],
      ...[edenPeerRoutes, datasetRoutes, folderRoutes],
    ]
    for (const routes of [...nouns, jobRoutes, jobRunRoutes, explainRoutes, undoRoutes, brakeRoutes, previewRoutes])
      app.register(routes(deps))
  }

/** What those ask who operate it. */
export const operation = healthRoutes
