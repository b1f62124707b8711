export { type Jobs, type JobsDeps, startJobs } from './jobs.ts'
export type { RunOutcome, RunPeer, StartedRuns, SyncRequest } from './runs.ts'
export { peersWithTasks } from './runs.ts'
export { checkSchedule } from './schedule.ts'
