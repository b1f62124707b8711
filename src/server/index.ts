export { buildApp } from './app.ts'
export type { ServerActions, ServerDeps, ServerLimits, VerifyReport } from './deps.ts'
