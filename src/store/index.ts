export { type Adopted, adopt, adoptMissed, adoptRecords } from './adopt.ts'
export {
  type Agreement,
  answerComparison,
  type Compared,
  type ComparisonAnswer,
  type ComparisonRequest,
  explainScan,
  type FoundComparison,
  fullDigest,
  listAgreements,
  noteComparison,
  notePostponed,
  type Proof,
  proofsOf,
  totalOf,
  waitingFor,
} from './agreement.ts'
export {
  type Alarm,
  alarmsSince,
  countAlarms,
  dueNotices,
  listAlarms,
  NOTICE_CHANNELS,
  type Notice,
  type NoticeChannel,
  noteNoticeFailed,
  noteNoticeSent,
  pruneAlarms,
  recordVerdicts,
} from './alarms.ts'
export { retryAltered } from './altered.ts'
export { emptyReport } from './apply.ts'
export {
  type AttachOptions,
  type AttachProgress,
  attach,
  detach,
} from './attach.ts'
export {
  type Brake,
  type BrakeFacts,
  type BrakeQuery,
  brakesWith,
  endBrake,
  findBrake,
  listBrakes,
  openBrake,
  passOf,
  releaseBrake,
  repairPassOf,
  useBrake,
} from './brakes.ts'
export { type BrokenCapture, brokenCaptures } from './capture.ts'
export {
  type CheckpointDirection,
  checkpointsOf,
  dropCheckpoint,
  readCheckpoint,
  writeCheckpoint,
} from './checkpoints.ts'
export { checkResources, type ResourceCheck } from './checks.ts'
export { horizon } from './collect.ts'
export {
  type BulkOutcome,
  RESOLUTIONS,
  type Resolution,
  resolveConflict,
  resolveMatching,
} from './conflict-resolve.ts'
export {
  type Conflict,
  type ConflictQuery,
  type ConflictSide,
  findConflict,
  listConflicts,
} from './conflicts.ts'
export { openStore, type Store, type StoreOptions } from './database.ts'
export {
  type ComparedColumn,
  columnFacts,
  comparedColumns,
  type DeepDigest,
  type DeepRecord,
  type DeepScope,
  deepDigest,
  deepRecords,
  type StrayPage,
  strayRows,
} from './deep.ts'
export { type GrantedScope, grantedDigestScope } from './digest-scope.ts'
export { foldDigest, foldDigests, rebuildDigest, type WholeDigest, wholeDigest } from './digest-sum.ts'
export {
  type Digest,
  type DigestScope,
  digestOf,
  digestRecords,
  type KeyRange,
  type RecordDigest,
} from './digests.ts'
export { type Decision, type Discard, discardQuarantined, listDiscards } from './discards.ts'
export {
  dueAtEden,
  type EdenComparison,
  type EdenFollowed,
  type EdenMemory,
  type EdenPlace,
  endEdenArchive,
  endEdenComparison,
  expectEdenComparison,
  followedFromEden,
  lastEdenComparison,
  readEdenMemory,
  seenHere,
  writeEdenMemory,
} from './eden.ts'
export {
  createDataset,
  type Dataset,
  type DatasetTable,
  findDataset,
  keepArchive,
  type NewDataset,
  readArchive,
  readDatasets,
  removeDataset,
} from './eden-datasets.ts'
export { comingFromEden, edenDigest, edenDigestRecords, edenTotal } from './eden-digests.ts'
export { followMerges } from './eden-merge.ts'
export { coordinatesOf, noteWithin, readBytes, readWithin, recordsBelow } from './eden-places.ts'
export { choosePublished, readPublished } from './eden-public.ts'
export {
  checkpointAtHead,
  dueAgain,
  type EdenRegistration,
  type EdenTold,
  isEdenRegistered,
  keepStrangers,
  mastersWith,
  noteEdenSent,
  readEdenTold,
  readEdenTrail,
  referringIds,
  registerEden,
  serveAllChosen,
  strangersWithin,
  waitingHere,
  writeEdenTrail,
} from './eden-served.ts'
export {
  countElsewhere,
  countTold,
  type DiscardedThere,
  type ElsewhereEntry,
  listElsewhere,
  notePushed,
  noteTold,
  nothingWaits,
  offerRefused,
  TOLD_MAX,
  type Told,
  toldTo,
  type WaitingThere,
} from './elsewhere.ts'
export { type DatabaseExamination, examineDatabase, type MissingRight } from './examine.ts'
export {
  type Alongside,
  addReports,
  applyPull,
  collectPush,
  type ExchangeLimits,
  type Link as ExchangeLink,
  type PullRequest,
  type PullTask,
  receiveChanges,
  type Scope,
  serveChanges,
  writeByHand,
} from './exchange.ts'
export { applyRows, serveRows } from './exchange-rows.ts'
export { checkFieldsOf } from './field-marks.ts'
export {
  changeFolder,
  createFolderPeer,
  endFolderOutput,
  type FolderFile,
  type FolderOutput,
  filesInFolder,
  folderOutputs,
  listFolderFiles,
  nextFolderFiles,
  noteFolderFile,
  pruneFolderFiles,
  queueFolderFile,
  readFolder,
  updateFolderFile,
  writeFolderOutput,
} from './folder.ts'
export { Braked, type Counted, createGuard, type Guard, livingCount, type Meter } from './guard.ts'
export { servableHeads } from './heads.ts'
export { forgetHost, type HostKeyRow, listHostKeys, type TrustedHostKey, trustHostKeys } from './host-keys.ts'
export { pruneHistory } from './housekeeping.ts'
export * from './job-due.ts'
export * from './job-leases.ts'
export * from './job-runs.ts'
export { beginJobStep, endedSteps, type StepBegin, saveJobStep } from './job-steps.ts'
export * from './job-work.ts'
export * from './jobs.ts'
export { closeLeases, withLease, withPeerLease } from './lease.ts'
export { type LifeEntry, type RecordLife, readLife } from './life.ts'
export { type Loss, lossOf, mayBeRounded } from './lossy.ts'
export { createManaged, type ManagedTable } from './managed.ts'
export { meetMark } from './marks.ts'
export { measureStore, type StoreMeasurement, serverVersion } from './measure.ts'
export { migrate } from './migrate.ts'
export { ASKED_MAX, type Missing, serveChosen, takeMissing } from './missing.ts'
export { isDatabaseGone } from './outage.ts'
export { changeGrant, type Joiner, type PairedPeer, pairPeer } from './pairing.ts'
export {
  notePeerSchema,
  type PeerSchema,
  peerSchemas,
  type SkewNote,
  schemaSkews,
  skewText,
  toldSchema,
} from './peer-schema.ts'
export {
  type FieldDifference,
  type PreviewedApply,
  type PreviewedPush,
  type PreviewedRecord,
  type PreviewedWrites,
  type PullPreview,
  previewPull,
  previewReceive,
} from './preview.ts'
export { type Holder, type PurgeResult, purgeTombstones, type TombstoneState, tombstoneState } from './purge.ts'
export { holdsNone } from './purged.ts'
export {
  findQuarantined,
  type LineHeader,
  listQuarantine,
  type QuarantineEntry,
  retryNow,
} from './quarantine.ts'
export { type DueJob, openQueue, type Queue, type Work } from './queue.ts'
export { digestOfRecord, gatherReach } from './reach.ts'
export { type ReceivedRun, receivedRun } from './received-run.ts'
export {
  type HistoryEntry,
  listHistory,
  type RecordPage,
  type RecordQuery,
  readRecord,
  readRecords,
} from './records.ts'
export { redrive } from './redrive.ts'
export { type Refreshed, refreshAltered } from './refresh.ts'
export * from './registry/index.ts'
export { listExplained, offerAgain, readForRepair, tombstonesAmong } from './repair.ts'
export {
  type Column,
  type ColumnForm,
  findResource,
  loadResources,
  type ResolvedReference,
  type ResourceInfo,
  sentColumns,
} from './resources.ts'
export { type Revived, reviveBlocked } from './revive.ts'
export { rolledBack } from './rolled-back.ts'
export {
  appendLog,
  finishRun,
  type LogEntry,
  type LogQuery,
  listLog,
  listRuns,
  markInterruptedRuns,
  type NewLogEntry,
  pruneLog,
  RESULTS,
  RUN_KINDS,
  type RunEntry,
  type RunQuery,
  type RunResult,
  readRun,
  setRunState,
  startRun,
  type TaskEnd,
} from './run-log.ts'
export type { Database } from './schema.ts'
export { JOB_PHASES, JOB_RESULTS, type JobPhase, type JobResult } from './schema-jobs.ts'
export { compileFilter, joinFilters } from './scope.ts'
export { databaseFolder, readHorizon, takeSnapshot } from './stall.ts'
export { type UndoReport, type UndoRequest, type UndoSample, undoRun } from './undo.ts'
export type { ChangedSince, UndoMissing } from './undo-plan.ts'
export {
  addClassified,
  type Classified,
  classifyLines,
  type Due,
  heldFrom,
  NOTHING,
  type ServedWeight,
  weighPush,
  weighReceived,
  weighServed,
} from './weigh.ts'
