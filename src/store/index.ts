export { openStore, type Store, type StoreOptions } from './database.ts'
export { migrate } from './migrate.ts'
export * from './registry/index.ts'
export {
  appendLog,
  finishRun,
  INTERRUPTED,
  type LogEntry,
  type LogQuery,
  listLog,
  listRuns,
  markInterruptedRuns,
  type NewLogEntry,
  pruneLog,
  RESULTS,
  type RunEntry,
  type RunQuery,
  type RunResult,
  readRun,
  setRunState,
  startRun,
} from './run-log.ts'
export type { Database } from './schema.ts'
