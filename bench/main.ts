/**
 * `npm run bench [-- --rows N --large N --only exchange,capture,conflicts,verify,transfer,eden,jobs --json]`
 *
 * Two PostgreSQL databases on this machine, two sites as real processes, HTTP between them. Every figure that can be is given as a ratio
 * to a limit measured in the same run, because the speed of a machine drifts and a ratio does not.
 */
import { parseArgs } from 'node:util'
import { benchCapture } from './capture.ts'
import { benchConflicts } from './conflicts.ts'
import { benchEden } from './eden.ts'
import { benchExchange } from './exchange.ts'
import { benchJobs } from './jobs.ts'
import { type Figure, print, say } from './report.ts'
import { benchTransfer } from './transfer.ts'
import { benchVerify } from './verify.ts'

const { values } = parseArgs({
  options: {
    rows: { type: 'string', default: '100000' },
    large: { type: 'string', default: '1000000' },
    only: { type: 'string', default: 'exchange,capture,conflicts,verify,transfer,eden,jobs' },
    json: { type: 'boolean', default: false },
  },
})

const teardowns: (() => Promise<void>)[] = []
const owner = { teardown: (handler: () => Promise<void>) => void teardowns.push(handler) }
const figures: Figure[] = []
try {
  const only = values.only.split(',')
  if (only.includes('exchange'))
    figures.push(...(await benchExchange(owner, { rows: Number(values.rows), large: Number(values.large) })))
  if (only.includes('conflicts')) figures.push(...(await benchConflicts(owner, { rows: Number(values.rows) })))
  if (only.includes('capture')) figures.push(...(await benchCapture(owner, { rows: Number(values.rows) })))
  if (only.includes('verify')) figures.push(...(await benchVerify(owner, { rows: Number(values.large) })))
  if (only.includes('eden')) figures.push(...(await benchEden(owner, { rows: Number(values.rows) })))
  if (only.includes('jobs')) figures.push(...(await benchJobs(owner)))
  if (only.includes('transfer')) figures.push(...(await benchTransfer(owner)))
  print(figures, values.json)
} finally {
  for (const handler of teardowns.reverse()) await handler()
}
say(
  figures.every((figure) => figure.reached)
    ? 'every figure reaches what it must'
    : 'some figures miss what they must reach',
)
process.exitCode = figures.every((figure) => figure.reached) ? 0 : 1
