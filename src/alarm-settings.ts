import { statfs } from 'node:fs/promises'
import { createMailer, createWebhook, type Sender } from './adapters/index.ts'
import type { Config } from './config/index.ts'
import type { JobsDeps } from './jobs/index.ts'
import { databaseFolder, type Store } from './store/index.ts'
import type { DiskState } from './sync/index.ts'

/** What the settings say of alarms: when one is raised, and whom it is told by which way. */
export function alarmSettings(
  config: Config,
  site: { readonly store: Store; readonly dataDir: string; readonly sender: () => Promise<Sender> },
): JobsDeps['alarms'] {
  const { smtpUrl, mailFrom, mailTo, webhookUrl, webhookSecret } = config
  const mail =
    smtpUrl === undefined || mailFrom === undefined || mailTo === undefined
      ? undefined
      : createMailer({ url: smtpUrl, from: mailFrom, to: mailTo })
  const webhook =
    webhookUrl === undefined || webhookSecret === undefined
      ? undefined
      : createWebhook({ url: webhookUrl, secret: webhookSecret })
  return {
    everySeconds: config.alarmEverySeconds,
    calmSeconds: config.alarmCalmSeconds,
    level: config.alarmLevel,
    thresholds: {
      intervals: config.alarmIntervals,
      quarantineHours: config.alarmQuarantineHours,
      quarantineMax: config.alarmQuarantineMax,
      quarantinePerHour: config.alarmQuarantinePerHour,
      checkpointHours: config.alarmCheckpointHours,
      horizonSeconds: config.alarmHorizonSeconds,
      clockSeconds: config.alarmClockSeconds,
      verifyHours: config.alarmVerifyHours,
      diskMegabytes: config.alarmDiskMegabytes,
      failures: config.alarmFailures,
      pausedHours: config.alarmPausedHours,
      jobMinutes: config.alarmJobMinutes,
    },
    channels: {
      ...(mail && { mail: async (notice) => mail(await site.sender(), notice) }),
      ...(webhook && { webhook: async (notice) => webhook(await site.sender(), notice) }),
    },
    disks: () => disksOf(site.store, site.dataDir),
  }
}

/** Free space where the data folder lies, and where the database does when that can be known. */
async function disksOf(store: Store, dataDir: string): Promise<readonly DiskState[]> {
  const database = store.server ? await databaseFolder(store.db).catch(() => null) : null
  const folders = database === null ? [dataDir] : [dataDir, database]
  const found = await Promise.all(
    folders.map(async (path) => {
      const { bavail, bsize } = await statfs(path)
      return { path, freeBytes: bavail * bsize }
    }),
  ).catch(() => [])
  return found
}
