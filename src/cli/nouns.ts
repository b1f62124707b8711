import type { Register } from './command.ts'

type Noun = { readonly name: string; readonly does: string; readonly load: () => Promise<Register> }

/** Everything that can follow `syncline`. Each is loaded only when it is called, so that help and short commands start quickly. */
export const NOUNS: readonly Noun[] = [
  {
    name: 'serve',
    does: 'Runs the site: server, scheduler, workers',
    load: async () => (await import('./serve.ts')).serve,
  },
  {
    name: 'status',
    does: 'Shows each peer and resource: green, amber or red, and why',
    load: async () => (await import('./status.ts')).status,
  },
  {
    name: 'doctor',
    does: 'Examines database, clock, disk, tools and peers',
    load: async () => (await import('./doctor.ts')).doctor,
  },
  {
    name: 'resource',
    does: 'Tables that are synced as records',
    load: async () => (await import('./resource.ts')).resource,
  },
  { name: 'peer', does: 'Other sites as registered here', load: async () => (await import('./peer.ts')).peer },
  {
    name: 'folder',
    does: 'Peers that are folders: files instead of a site',
    load: async () => (await import('./folder.ts')).folder,
  },
  { name: 'task', does: 'What is synced with whom, how and when', load: async () => (await import('./task.ts')).task },
  { name: 'schedule', does: 'When tasks run', load: async () => (await import('./schedule.ts')).schedule },
  { name: 'sync', does: 'Syncs now', load: async () => (await import('./sync.ts')).sync },
  {
    name: 'brake',
    does: 'Runs that were stopped before they wrote',
    load: async () => (await import('./brake.ts')).brake,
  },
  {
    name: 'dataset',
    does: 'Tables that Sahana Eden sites publish together',
    load: async () => (await import('./dataset.ts')).dataset,
  },
  { name: 'job', does: 'Scheduled work: transfers, commands, syncs', load: async () => (await import('./job.ts')).job },
  {
    name: 'lease',
    does: 'What runs of jobs hold',
    load: async () => (await import('./lease.ts')).lease,
  },
  { name: 'run', does: 'Single runs', load: async () => (await import('./run-command.ts')).run },
  { name: 'log', does: 'Shows what happened', load: async () => (await import('./log.ts')).log },
  {
    name: 'conflict',
    does: 'Conflicts that wait for a decision',
    load: async () => (await import('./conflict.ts')).conflict,
  },
  {
    name: 'quarantine',
    does: 'Records that could not be applied',
    load: async () => (await import('./quarantine.ts')).quarantine,
  },
  {
    name: 'alarm',
    does: 'What the stall detector found',
    load: async () => (await import('./alarm.ts')).alarm,
  },
  {
    name: 'verify',
    does: 'Proves this site and a peer equal, or names the difference',
    load: async () => (await import('./verify.ts')).verify,
  },
  {
    name: 'explain',
    does: 'Tells the life of a record, and why a peer has it or not',
    load: async () => (await import('./explain.ts')).explain,
  },
  { name: 'record', does: 'Records by hand', load: async () => (await import('./record.ts')).record },
  {
    name: 'import-config',
    does: 'Takes over what another program was set up to do',
    load: async () => (await import('./import-config.ts')).importConfig,
  },
  {
    name: 'transfer',
    does: 'The hosts that files are copied to and from',
    load: async () => (await import('./transfer.ts')).transfer,
  },
  { name: 'token', does: 'Tokens of people and programs', load: async () => (await import('./token.ts')).token },
  {
    name: 'config',
    does: 'The settings of this machine',
    load: async () => (await import('./config-command.ts')).config,
  },
]
