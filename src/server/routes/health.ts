import { Type } from 'typebox'
import {
  type Agreement,
  brokenCaptures,
  horizon,
  listAgreements,
  listAlarms,
  measureStore,
  serverVersion,
} from '../../store/index.ts'
import type { ServerDeps } from '../deps.ts'
import type { Routes } from '../exchange.ts'
import { answer, closed, flag, text, words } from '../schemas.ts'
import { alarm } from './alarms.ts'

/** Links named that are not proved equal. */
const OTHERS_MAX = 20
/** A site whose changes are held back for longer than this is not well. */
const HORIZON_MAX_MS = 600_000

const live = closed({ status: text('ok') }, { title: 'Liveness', description: 'The process answers.' })
const ready = closed(
  {
    ready: flag('The site can do its work.'),
    checks: Type.Array(
      closed(
        { name: Type.String(), ok: Type.Boolean(), detail: Type.String() },
        { title: 'ReadyCheck', description: 'One thing that was looked at.' },
      ),
    ),
  },
  { title: 'Readiness', description: 'How the site is.' },
)

const health = closed(
  {
    status: words(['ok', 'warning', 'critical'], { description: 'The worst open alarm.' }),
    alarms: Type.Array(alarm, { description: 'Those that are open, the newest first.' }),
  },
  { title: 'Health', description: 'What the stall detector finds.' },
)

/** Open alarms shown; where there are more, one cause has most of them. */
const ALARMS_MAX = 200

/** /health, /metrics and / : for those who operate the site. */
export const healthRoutes =
  ({ store, observe, version }: ServerDeps): Routes =>
  async (app) => {
    observe.metrics.measureWith(() => measureStore(store.db))

    const liveSchema = {
      operationId: 'isLive',
      tags: ['health'],
      summary: 'Ask whether the process answers',
      response: { 200: answer(live) },
    }
    app.get('/health/live', { schema: liveSchema, config: { access: 'public' }, exposeHeadRoute: true }, async () => ({
      status: 'ok',
    }))

    const readySchema = {
      operationId: 'isReady',
      tags: ['health'],
      summary: 'Ask whether the site can work',
      description: '503 when it cannot. For monitoring and load balancers.',
      response: { 200: answer(ready), 503: answer(ready) },
    }
    app.get('/health/ready', { schema: readySchema, config: { access: 'local' } }, async (_request, reply) => {
      const checks = await Promise.all([
        look('database', async () => `PostgreSQL ${await serverVersion(store.db)}`),
        look('order', async () => {
          const { ageSeconds, holder } = await horizon(store.db)
          if (ageSeconds * 1000 > HORIZON_MAX_MS) {
            throw new Error(
              `a transaction that has been open for ${Math.round(ageSeconds)} s holds all changes back: ${holder}`,
            )
          }
          return 'nothing holds changes back'
        }),
        look('capture', async () => {
          // Whether the site works; `resource check` also tells what an owner could still improve.
          const broken = await brokenCaptures(store.db)
          if (broken.length > 0)
            throw new Error(
              `resources with a trigger that is missing or disabled: ${broken.map(({ resource, mend }) => `${resource} (to mend: ${mend})`).join(', ')}`,
            )
          return 'every trigger is in place'
        }),
        look('proof', async () => proofText(await listAgreements(store.db))),
      ])
      const well = checks.every(({ ok }) => ok)
      return reply.code(well ? 200 : 503).send({ ready: well, checks })
    })

    const healthSchema = {
      operationId: 'readHealth',
      tags: ['health'],
      summary: 'Ask whether anything is the matter',
      description:
        '503 while an alarm is critical. For monitoring, not for load balancers: a site with an alarm goes on working.',
      response: { 200: answer(health), 503: answer(health) },
    }
    app.get('/health', { schema: healthSchema, config: { access: 'local' } }, async (_request, reply) => {
      const { items } = await listAlarms(store.db, { open: true, limit: ALARMS_MAX })
      const levels = new Set(items.map(({ level }) => level))
      const status = levels.has('critical') ? 'critical' : levels.has('warning') ? 'warning' : 'ok'
      return reply.code(status === 'critical' ? 503 : 200).send({ status, alarms: items })
    })

    const metrics = {
      operationId: 'readMetrics',
      tags: ['health'],
      summary: 'Read the metrics',
      'x-answers': {
        200: { description: 'In the text form of Prometheus.', content: { 'text/plain': Type.String() } },
      },
    }
    app.get('/metrics', { schema: metrics, config: { access: 'local' } }, async (_request, reply) =>
      reply.type(observe.metrics.contentType).send(await observe.metrics.text()),
    )

    const home = {
      operationId: 'showHome',
      tags: ['health'],
      summary: 'Say what this is',
      'x-answers': { 200: { description: 'A page for people.', content: { 'text/html': Type.String() } } },
    }
    app.get('/', { schema: home, config: { access: 'public' } }, async (_request, reply) =>
      reply.type('text/html; charset=utf-8').send(page(version)),
    )

    const document = {
      operationId: 'readDocument',
      tags: ['health'],
      summary: 'Read this document',
      'x-answers': { 200: { description: 'OpenAPI 3.1.', content: { 'application/json': Type.Object({}) } } },
    }
    app.get('/openapi.json', { schema: document, config: { access: 'public' } }, async () => app.swagger())
  }

/** What is proved, in words. A difference is for people to mend; it does not keep the site from its work. */
function proofText(agreements: readonly Agreement[]): string {
  if (agreements.length === 0) return 'nothing was compared with a peer yet'
  const unproved = agreements.filter(({ verdict }) => verdict !== 'equal')
  const equal = agreements.filter(({ verdict }) => verdict === 'equal')
  const oldest = equal.map(({ agreedAt }) => agreedAt ?? '').toSorted()[0]
  const records = equal.reduce((sum, each) => sum + (each.agreedRecords ?? 0), 0)
  const proved =
    oldest === undefined
      ? 'nothing is proved equal'
      : `${equal.length} of ${agreements.length} equal since ${oldest} or later, ${records} records`
  const others = unproved.map(({ peer, resource, verdict }) => `${resource} with ${peer}: ${verdict}`)
  return [proved, ...others.slice(0, OTHERS_MAX)].join('; ')
}

async function look(name: string, work: () => Promise<string>): Promise<{ name: string; ok: boolean; detail: string }> {
  try {
    return { name, ok: true, detail: await work() }
  } catch (error) {
    return { name, ok: false, detail: (error as Error).message }
  }
}

function page(version: string): string {
  return `<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width">
<title>Syncline</title>
<style>body { font: 16px/1.5 system-ui, sans-serif; max-width: 40em; margin: 4em auto; padding: 0 1em }</style>
<h1>Syncline</h1>
<p>This is a Syncline site, version ${version}. It keeps records in step with other sites.</p>
<ul>
<li><a href="/docs">The interface, to read and try</a></li>
<li><a href="/openapi.json">The interface as an OpenAPI document</a></li>
<li><a href="/health/live">Whether it lives</a>, <a href="/health/ready">whether it can work</a>, <a href="/metrics">its metrics</a></li>
</ul>
</html>
`
}
