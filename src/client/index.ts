export type { OfferedResource } from './answers.ts'
export { askRecord } from './ask-record.ts'
export { type Connections, createConnections, type PeerLink } from './connections.ts'
export { type DatasetFollowed, followDataset } from './eden/follow.ts'
export { addEdenPeer, createFromEden, fetchEdenFile, type MadeFromEden } from './eden/setup.ts'
export type { FolderLook } from './folder/client.ts'
export { addFolderPeer, changeFolderPeer, dumpFolder, type FolderSetup, testFolder } from './folder/setup.ts'
export { createLeaseClient, type PeerLease } from './lease-client.ts'
export { type Joined, type JoinedGrant, type JoinRequest, joinPeer } from './pairing.ts'
export {
  type ClientSettings,
  createPeerClient,
  type Greeting,
  type PeerClient,
  type Pulled,
  type PullQuery,
  type Pushed,
} from './peer-client.ts'
export { PeerError } from './peer-error.ts'
export {
  type PreviewedPart,
  type PreviewedTask,
  type PreviewOptions,
  type PreviewReport,
  previewPeer,
  type TaskChange,
} from './preview.ts'
export { type Repaired, repairDifferences } from './repair.ts'
export type { RepairLink } from './repair-records.ts'
export { type RepairOptions, type RepairReport, repairPeer } from './repair-run.ts'
export {
  type RunEvents,
  type RunnerDeps,
  type RunOptions,
  type RunProgress,
  type RunReport,
  runPeer,
} from './runner.ts'
export type { RunCounts } from './tally.ts'
export type { Connection, TransportSettings } from './transport.ts'
export { type Verified, type VerifyOptions, verifyPeer } from './verify.ts'
export type { Difference, What } from './walk.ts'
