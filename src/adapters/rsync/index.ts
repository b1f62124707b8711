export { readVersion } from './rsync.ts'
export {
  type PlannedLeg,
  planTransfer,
  runTransfer,
  type TransferDeps,
  type TransferProgress,
  type TransferResult,
  type TransferWatch,
} from './transfer.ts'
export { TRANSFER_SCHEMA, type Transfer, transferFaults } from './transfer-settings.ts'
