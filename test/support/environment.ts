/**
 * The environment for programs that a test starts as a user would, without settings of Syncline that happen to be set. The test runner
 * asks every Node below it to load its own loader by NODE_OPTIONS: that slows each start and breaks programs, npm among them, that load
 * differently.
 */
export function plainEnvironment(more: Readonly<Record<string, string>> = {}): NodeJS.ProcessEnv {
  const inherited = Object.entries(process.env).filter(
    ([name]) => name !== 'NODE_OPTIONS' && !/^(_?TAP|SYNCLINE_)/.test(name),
  )
  return { ...Object.fromEntries(inherited), ...more }
}
