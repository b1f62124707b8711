export type { Fault } from './check.ts'
export { type DataDir, openDataDir, readAddress, readAdminToken } from './data-dir.ts'
export {
  type ConfigInputs,
  type ConfigReading,
  inputsFromProcess,
  loadConfig,
  loadConfigFromProcess,
  readConfig,
} from './load.ts'
export { flagName, variableName } from './names.ts'
export { redact } from './redact.ts'
export { type Config, GROUPS, SETTING_NAMES, SETTINGS, type Setting, type SettingName, settingOf } from './schema.ts'
