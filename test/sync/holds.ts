import fc from 'fast-check'
import type { Test } from 'tap'

/**
 * Asserts a property for many generated inputs. A failure prints seed and path; SYNCLINE_TEST_SEED and SYNCLINE_TEST_PATH
 * replay it, SYNCLINE_TEST_RUNS searches longer.
 */
export function holds<T>(t: Test, property: fc.IProperty<T>, numRuns = 500): void {
  const { SYNCLINE_TEST_SEED: seed, SYNCLINE_TEST_PATH: path, SYNCLINE_TEST_RUNS: runs } = process.env
  const details = fc.check(property, {
    includeErrorInReport: true,
    numRuns: runs === undefined ? numRuns : Number(runs),
    ...(seed === undefined ? {} : { seed: Number(seed) }),
    ...(path === undefined ? {} : { path }),
  })
  t.notOk(details.failed, fc.defaultReportMessage(details) ?? `held ${details.numRuns} times`)
}
