export { commandStep } from './command.ts'
export { type NotifyDeps, notifyStep } from './notify.ts'
export { type SyncDeps, syncStep } from './sync.ts'
export { waitStep } from './wait.ts'
