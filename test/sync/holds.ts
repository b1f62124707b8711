import fc from 'fast-check'
import type { Test } from 'tap'

/**
 * Asserts a property for many generated inputs. A failure prints seed and path; SYNCLINE_TEST_SEED and SYNCLINE_TEST_PATH
 * replay it, SYNCLINE_TEST_RUNS searches longer.
 */
export function holds<T>(t: Test, property: fc.IProperty<T>, numRuns = 500): void {
  told(t, fc.check(property, parameters(numRuns)))
}

/** The same of a property that waits for something. What it needs is too dear for looking for a smaller failure. */
export async function holdsAsync<T>(t: Test, property: fc.IAsyncProperty<T>, numRuns: number): Promise<void> {
  told(t, await fc.check(property, { ...parameters<T>(numRuns), endOnFailure: true }))
}

function parameters<T>(numRuns: number): fc.Parameters<T> {
  const { SYNCLINE_TEST_SEED: seed, SYNCLINE_TEST_PATH: path, SYNCLINE_TEST_RUNS: runs } = process.env
  return {
    includeErrorInReport: true,
    numRuns: runs === undefined ? numRuns : Number(runs),
    ...(seed === undefined ? {} : { seed: Number(seed) }),
    ...(path === undefined ? {} : { path }),
  }
}

function told<T>(t: Test, details: fc.RunDetails<T>): void {
  t.notOk(details.failed, fc.defaultReportMessage(details) ?? `held ${details.numRuns} times`)
}
