/**
 * The environment for programs that a test starts as a user would, without settings of Syncline that happen to be set. Goes with
 * `asUser`, which keeps the test runner out of the program.
 */
export function plainEnvironment(more: Readonly<Record<string, string>> = {}): NodeJS.ProcessEnv {
  const inherited = Object.entries(process.env).filter(([name]) => !/^(_?TAP|SYNCLINE_)/.test(name))
  return { ...Object.fromEntries(inherited), ...more }
}

/**
 * A command as a user's shell would start it. The test runner puts its own loader into NODE_OPTIONS of every process that a test starts,
 * whatever environment was asked for: that slows each start and breaks programs, npm among them, that load differently.
 */
export function asUser(file: string, args: readonly string[]): [string, string[]] {
  return ['env', ['-u', 'NODE_OPTIONS', file, ...args]]
}
