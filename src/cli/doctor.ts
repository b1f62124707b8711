import { execFile } from 'node:child_process'
import { stat, statfs } from 'node:fs/promises'
import { type Config, inputsFromProcess, readConfig } from '../config/index.ts'
import type { Alarm, Peer, ResourceCheck } from '../store/index.ts'
import { alarmFindings } from './alarm.ts'
import { type Api, connect, type Page } from './api.ts'
import { type Register, verb } from './command.ts'
import {
  captureFindings,
  dataDirFinding,
  type Finding,
  nodeFinding,
  peerFindings,
  rightsFindings,
  siteFindings,
  toolFinding,
} from './doctor-checks.ts'
import { EXIT } from './exit.ts'
import { explain } from './failure.ts'
import { jobFindings } from './job-lights.ts'
import type { Color, Output } from './output.ts'
import { jobsOf, type SiteInfo } from './status.ts'
import { programVersion } from './version.ts'

type Options = Readonly<Record<'config' | 'dataDir' | 'url' | 'token' | 'tokenFile', string | undefined>>

/** `doctor`: looks at everything a site needs and says how to mend what is not well. */
export const doctor: Register = (program, session) => {
  verb<Options>(program, session, {
    use: 'doctor',
    does: 'Examines settings, database, rights, triggers, clocks, disk, tools, peers and jobs, and says how to mend each',
    examples: ['syncline doctor', 'syncline doctor --json'],
    run: async ({ out }, { config, dataDir, url, token, tokenFile }) => {
      const findings = await examine({ config, dataDir, url, token, tokenFile })
      await out.result({ findings }, () => findingsText(out, findings))
      return findings.some(({ state }) => state === 'fail') ? EXIT.failed : EXIT.done
    },
  })
}

async function examine(flags: Options): Promise<readonly Finding[]> {
  const { config, faults } = readConfig(inputsFromProcess(flags))
  const wrong = faults.map(({ where, message }): Finding => {
    const mend = 'Correct it; syncline config check repeats this.'
    return { about: 'settings', state: 'fail', text: `${where}: ${message}`, mend }
  })
  const host = [
    nodeFinding(process.versions.node),
    ...(await Promise.all([rsync(), tool('ssh', ['-V'], 'the copying of files over SSH', 'openssh-client')])),
  ]
  if (config === undefined) return [...wrong, ...host]
  const settings: Finding = { about: 'settings', state: 'ok', text: 'valid' }
  const local = config.url === undefined ? await Promise.all([dataDirOf(config), rightsOf(config)]) : []
  return [settings, ...host, ...local.flat(), ...(await attempt('site', () => siteOf(config)))]
}

async function siteOf(config: Config): Promise<readonly Finding[]> {
  const api = await connect(config)
  const before = Date.now()
  const info = await api.get<SiteInfo>('/site')
  const now = Date.now()
  return [
    ...siteFindings(info, programVersion(), now - before, now),
    ...(await attempt('triggers', async () =>
      captureFindings((await api.get<{ readonly items: readonly ResourceCheck[] }>('/checks')).items),
    )),
    ...(await attempt('peers', () => peersOf(api, now))),
    ...(await attempt('jobs', async () => jobFindings((await jobsOf(api, [])).jobs))),
    ...(await attempt('alarms', async () =>
      alarmFindings((await api.get<Page<Alarm>>('/alarms', { open: true, limit: 100 })).items),
    )),
  ]
}

async function peersOf(api: Api, now: number): Promise<readonly Finding[]> {
  const peers = await api.all<Peer>('/peers')
  return peers.flatMap((peer) => peerFindings(peer, now))
}

async function dataDirOf({ dataDir }: Config): Promise<readonly Finding[]> {
  return attempt('data folder', async () => {
    const [{ mode }, { bavail, bsize }] = await Promise.all([stat(dataDir), statfs(dataDir)])
    return [dataDirFinding(dataDir, { mode, freeBytes: bavail * bsize })]
  })
}

/** Only PostgreSQL can be asked beside the running site; the embedded database belongs to its one process. */
async function rightsOf(config: Config): Promise<readonly Finding[]> {
  const { databaseUrl, dataDir } = config
  if (databaseUrl === undefined) return []
  return attempt('rights', async () => {
    const { examineDatabase, openStore } = await import('../store/index.ts')
    const store = await openStore({ databaseUrl, dataDir, connectionsMax: 1 })
    try {
      return rightsFindings(await examineDatabase(store.db))
    } finally {
      await store.close()
    }
  })
}

/** Transfers need one that is not too old, and the real one. */
async function rsync(): Promise<Finding> {
  const found = await tool('rsync', ['--version'], 'the copying of files')
  if (found.state !== 'ok') return found
  const { readVersion } = await import('../adapters/index.ts')
  try {
    readVersion(found.text)
    return found
  } catch (error) {
    return {
      ...found,
      state: 'warn',
      text: (error as Error).message,
      mend: 'Install rsync 3.1 or newer from rsync.samba.org.',
    }
  }
}

async function tool(name: string, args: readonly string[], use: string, source = name): Promise<Finding> {
  const version = await new Promise<string | undefined>((resolve) => {
    execFile(name, args, { timeout: 5_000 }, (error, stdout, stderr) =>
      resolve(error === null ? (stdout || stderr).split('\n')[0]?.trim() : undefined),
    )
  })
  return { ...toolFinding(source, version, use), about: name }
}

/** What keeps an examination from being made is a finding like any other. */
async function attempt(about: string, look: () => Promise<readonly Finding[]>): Promise<readonly Finding[]> {
  try {
    return await look()
  } catch (error) {
    const { title, detail, mend } = explain(error).text
    return [{ about, state: 'fail', text: `${title}: ${detail}`, mend }]
  }
}

const COLORS: Readonly<Record<Finding['state'], Color>> = { ok: 'green', warn: 'yellow', fail: 'red' }

function findingsText(out: Output, findings: readonly Finding[]): string {
  const width = Math.max(...findings.map(({ about }) => about.length))
  return findings
    .flatMap(({ about, state, text, mend }) => [
      `${out.paint(COLORS[state], state.padEnd(4))}  ${about.padEnd(width)}  ${text}`,
      ...(mend === undefined ? [] : [`${' '.repeat(width + 8)}${out.paint('dim', `to mend: ${mend}`)}`]),
    ])
    .join('\n')
}
