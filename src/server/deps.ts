import type { Observe } from '../observe/index.ts'
import type { Peer, PeerSettings, PreviewedRecord, PreviewedWrites, ResourceInfo, Self, Store } from '../store/index.ts'
import type { BatchReport, LinkPolicy, Mode, PeerAnswer, Verdict } from '../sync/index.ts'
import type { FolderActions, TestedPeer } from './routes/folders.ts'

/** Bounds that the server keeps, by the names of the settings they come from. */
export type ServerLimits = {
  /** Bytes of one body, before and after decompression. */
  readonly bodyBytesMax: number
  readonly recordBytesMax: number
  readonly depthMax: number
  readonly batchRowsMax: number
  readonly batchBytesMax: number
  /** Time for a request to arrive, and again for its answer to be taken. */
  readonly requestTimeoutMs: number
  readonly clockAheadMaxMs: number
  /** Requests that one token, or one address without a token, may make in a minute. */
  readonly requestsPerMinuteMax?: number
  /** Refused credentials from one address in a minute; after that the answer is 429. */
  readonly refusalsPerMinuteMax?: number
  /** Answers that wait for something to come (long polls and event streams), in all and for one peer. */
  readonly waitersMax?: number
  readonly waitersPerPeerMax?: number
  /** Connections at once; further ones are closed. */
  readonly connectionsMax?: number
  /** A site whose event loop is late by more than this answers 503. */
  readonly eventLoopDelayMaxMs?: number
}

/** What other rooms do for the server. The composition root gives them. */
/** A policy of a peer, and how it is changed there: in its task or its grant, under the name that this site has. */
export type PeerPolicy = LinkPolicy & { readonly of?: 'task' | 'grant' | undefined; readonly you?: string | undefined }

export type ServerActions = {
  /** Everything that is asked of jobs. Waits for them while the site starts. */
  readonly jobs: () => Promise<JobActions>
  /** Starts runs now, with one peer or all, of some resources or all, and gives their ids without waiting for them to end. */
  readonly syncNow: (request: {
    readonly peer?: string | undefined
    readonly resources?: readonly string[] | undefined
    readonly cause: string
  }) => Promise<{ readonly runs: readonly { readonly peer: string; readonly runId: string }[] }>
  /** What runs would do now, with one peer or all; one task may be tried with other settings. Nothing is written. */
  readonly previewSync: (request: {
    readonly peer?: string | undefined
    readonly resources?: readonly string[] | undefined
    readonly change?: { readonly resource: string; readonly settings: Readonly<Record<string, unknown>> } | undefined
  }) => Promise<readonly Preview[]>
  /** Redeems a pairing code at the site that made it, and registers that site here. */
  readonly joinPeer: (request: { readonly code: string; readonly name?: string | undefined }) => Promise<Peer>
  /** Introduces this site at a Sahana Eden site, and registers that one here. One without an address does the connecting. */
  readonly addEdenPeer: (request: EdenPeerRequest) => Promise<Peer>
  /** Everything that is asked of peers that are folders. */
  readonly folders: FolderActions
  /** Says hello to a peer, and looks into one that is a folder. Exchanges nothing. */
  readonly testPeer: (peer: Peer) => Promise<TestedPeer>
  /** Makes tables as a Sahana Eden site describes them. */
  readonly createFromEden: (request: {
    readonly peer: Peer
    readonly tables: readonly string[]
  }) => Promise<readonly { readonly resource: ResourceInfo; readonly without: readonly string[] }[]>
  /** A file that a Sahana Eden site has, from its own address alone. */
  readonly fetchEdenFile: (request: { readonly peer: Peer; readonly url: string }) => Promise<Buffer>
  /** Makes tasks for the tables of a data set that a Sahana Eden site publishes. */
  readonly followDataset: (request: {
    readonly peer: Peer
    readonly code: string
    readonly schedule: string | null
  }) => Promise<{
    readonly code: string
    readonly name: string
    readonly archive: string | null
    readonly made: readonly string[]
    readonly kept: readonly string[]
    readonly without: readonly string[]
  }>
  /** Tasks changed: due times are to be worked out anew. */
  readonly scheduleChanged: () => void
  /** When each scheduled task is due next; ISO 8601. */
  readonly nextRuns: () => readonly { readonly taskId: number; readonly at: string }[]
  /** Refuses a schedule that cannot be kept, and gives it in its one spelling: `cron:…`, `every:<seconds>`, `live`. Errors: SYNC_REQUEST_INVALID. */
  readonly checkSchedule: (text: string) => string
  /** Asks a peer whether it holds a record in the version that is here. */
  readonly askRecord: (request: {
    readonly peer: Peer
    readonly resource: ResourceInfo
    readonly id: string
  }) => Promise<PeerAnswer>
  /**
   * How a peer settles what it gets of a resource from this site: null when it takes nothing or does not tell. `unknown` when it cannot be
   * asked now.
   */
  readonly peerPolicy: (request: {
    readonly peer: string
    readonly resource: string
  }) => Promise<PeerPolicy | null | 'unknown'>
  /** The keys that a host shows now, and which of them are trusted. Errors: SYNC_TRANSFER_INVALID, SYNC_TRANSFER_UNREACHABLE. */
  readonly scanHost: (host: TransferHost) => Promise<readonly ShownHostKey[]>
  /** Trusts the keys of a host that have these fingerprints, and no other keys of it. Errors also: SYNC_TRANSFER_UNTRUSTED. */
  readonly trustHost: (
    host: TransferHost,
    fingerprints: readonly string[],
    by: string | null,
  ) => Promise<readonly ShownHostKey[]>
  /** Compares resources with a peer by digests. */
  readonly verifyPeer: (request: {
    readonly peer: string
    readonly resources?: readonly string[] | undefined
    readonly deep: boolean
    readonly repair: boolean
    /** With `repair`: only tells what it would do. */
    readonly preview: boolean
  }) => Promise<VerifyReport>
}

/** A host that files are copied to or from, over ssh. */
export type TransferHost = {
  readonly host: string
  readonly port?: number
  readonly user?: string
  readonly key?: string
  readonly jump?: Omit<TransferHost, 'jump'>
}

export type ShownHostKey = {
  readonly host: string
  readonly port: number
  readonly type: string
  readonly key: string
  readonly fingerprint: string
  readonly trusted: boolean
}

type Fault = { readonly path: string; readonly message: string }

/** What becomes of definitions of jobs: with faults nothing is changed. */
export type AppliedJobs = {
  readonly faults: readonly Fault[]
  readonly changes: readonly { readonly name: string; readonly does: 'add' | 'change' | 'remove' | 'keep' }[]
}

type Guarded = { readonly label: string; readonly free: boolean; readonly reason: string | null }

/** What a run of a job would do now. */
export type PlannedJob = {
  readonly job: string
  readonly dryRun: boolean
  readonly gates: readonly Guarded[]
  readonly leases: readonly Guarded[]
  readonly steps: readonly {
    readonly name: string
    readonly kind: string
    readonly stage: 'steps' | 'always'
    readonly plan: {
      readonly summary: string
      readonly argv?: readonly (readonly string[])[]
      readonly files?: number | null
      readonly bytes?: number | null
      readonly notes?: readonly string[]
    } | null
    readonly failure: string | null
  }[]
}

export type JobActions = {
  readonly schema: () => Readonly<Record<string, unknown>>
  readonly compare: (definitions: readonly unknown[], prune: boolean) => Promise<AppliedJobs>
  readonly apply: (definitions: readonly unknown[], prune: boolean) => Promise<AppliedJobs>
  readonly run: (
    name: string,
    wish: { readonly caller: string; readonly dryRun?: boolean | undefined },
  ) => Promise<{ readonly runId: string; readonly does: 'begin' | 'after' | 'coalesce' }>
  readonly stop: (name: string, runId: string | undefined, caller: string) => Promise<readonly string[]>
  readonly plan: (name: string, signal: AbortSignal) => Promise<PlannedJob>
}

/** What a run with a peer would do; src/client/preview.ts tells more of each member. */
export type Preview = {
  readonly peer: string
  readonly tasks: readonly {
    readonly resource: string
    readonly mode: Mode
    readonly parts: readonly {
      readonly direction: 'pull' | 'push'
      readonly changes: number
      readonly bytes: number
      readonly batches: number
      readonly complete: boolean
      readonly counts: BatchReport['counts']
      readonly writes: PreviewedWrites
      readonly samples: readonly PreviewedRecord[]
      readonly rejections: BatchReport['rejections']
      readonly braked: readonly string[]
      readonly estimateMs: number | null
      readonly failure: { readonly code: string; readonly retryable: boolean; readonly detail: string } | null
    }[]
  }[]
  readonly newLog: boolean
  readonly durationMs: number
}

/** What a comparison with a peer found: a resource is equal when every digest agreed. */
export type VerifyReport = {
  readonly peer: string
  readonly resources: readonly {
    readonly resource: string
    readonly equal: boolean
    readonly verdict: Verdict
    readonly checked: number
    /** Ids that differ without anybody knowing why, as far as they were looked for. */
    readonly differing: readonly string[]
    /** The same with what is different. */
    readonly differences: readonly { readonly id: string; readonly what: string }[]
    readonly complete: boolean
    readonly detail?: string | undefined
  }[]
  /** Null where none was asked for. `runId` is null where nothing differed, and for a preview. */
  readonly repair: {
    readonly runId: string | null
    readonly adopted: number
    readonly applied: number
    readonly preview: Preview | null
  } | null
}

export type ServerDeps = {
  readonly store: Store
  /** The data key: seals what must be kept secret. */
  readonly key: Buffer
  /** This site as it is now: a new log may have been minted since the start. */
  readonly self: () => Promise<Self>
  readonly observe: Observe
  readonly limits: ServerLimits
  /** Where peers reach this site, without a slash at its end. A function, because the port may only be known once the server listens. */
  readonly publicUrl: () => string
  /** Of the program. */
  readonly version: string
  /** Proxies whose X-Forwarded headers are believed. */
  readonly trustProxy: readonly string[]
  /** PEM texts. With `clientCa` peers must show a certificate of one of these authorities besides their token. */
  readonly tls?: { readonly cert: string; readonly key: string; readonly clientCa?: string | undefined } | undefined
  readonly actions: ServerActions
}

/** A Sahana Eden site that is to be called. */
export type EdenPeerRequest = PeerSettings & {
  readonly name: string
  /** Another site at that address is refused. */
  readonly uuid?: string | undefined
}
