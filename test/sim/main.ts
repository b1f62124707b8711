/**
 * `npm run sim`: simulates sites from seeds until something is wrong or the time is over.
 *
 *     npm run sim -- --seeds 200              200 seeds, from 1
 *     npm run sim -- --seconds 600            as many as fit into ten minutes
 *     npm run sim -- --seed 31 --verbose      one seed again, with all that happens
 *     npm run sim -- --seed 31 --keep 1,14,25 only some of its actions
 */
import './hooks.ts'
import { execFileSync } from 'node:child_process'
import { readFileSync, writeFileSync } from 'node:fs'
import { parseArgs } from 'node:util'
import type { Shape, Wishes } from './plan.ts'
import type { Verdict } from './simulate.ts'

const { values } = parseArgs({
  options: {
    seed: { type: 'string' },
    seeds: { type: 'string' },
    seconds: { type: 'string' },
    from: { type: 'string', default: '1' },
    keep: { type: 'string' },
    actions: { type: 'string' },
    policy: { type: 'string' },
    topology: { type: 'string' },
    verbose: { type: 'boolean', default: false },
    shrink: { type: 'string', default: '120' },
    save: { type: 'boolean', default: false },
  },
})

/** Without a bound: as long as somebody likes to wait. */
const SECONDS = 60
const KEPT = new URL('./seeds.json', import.meta.url)

const { startDatabases } = await import('./cluster.ts')
const { simulate } = await import('./simulate.ts')
const { shrink } = await import('./shrink.ts')

const ends: (() => Promise<void>)[] = []
const databases = await startDatabases({ teardown: (end) => void ends.unshift(end) })
let found: Verdict | null = null
try {
  found = await search()
} finally {
  for (const end of ends) await end()
}
process.exit(found === null ? 0 : 1)

async function search(): Promise<Verdict | null> {
  const wishes: Wishes = {
    ...(values.keep !== undefined && { keep: new Set(values.keep.split(',').map(Number)) }),
    ...(values.actions !== undefined && { actions: Number(values.actions) }),
    ...(values.policy !== undefined && { policy: values.policy as Shape['policy'] }),
    ...(values.topology !== undefined && { topology: values.topology as Shape['topology'] }),
  }
  const began = performance.now()
  const seconds =
    values.seconds === undefined ? (values.seeds === undefined ? SECONDS : Infinity) : Number(values.seconds)
  const count = values.seeds === undefined ? Infinity : Number(values.seeds)
  let writes = 0
  for (let done = 0; done < count && performance.now() - began < seconds * 1_000; done++) {
    const seed = values.seed ?? String(Number(values.from) + done)
    const verdict = await simulate(databases, seed, wishes)
    writes += verdict.writes
    say(
      `${verdict.failure === null ? 'well' : 'FOUND'}  ${verdict.trace[0]}; ${verdict.writes} writes, ${verdict.requests} requests, ${verdict.steps} steps, ${verdict.durationMs} ms`,
    )
    if (values.verbose) for (const line of verdict.trace) say(line)
    if (verdict.failure !== null) {
      await report(verdict, wishes)
      return verdict
    }
    if (values.seed !== undefined) return null
    if (done + 1 === count || performance.now() - began >= seconds * 1_000) {
      say(
        `${done + 1} seeds with ${writes} writes in ${Math.round((performance.now() - began) / 1_000)} s: nothing wrong`,
      )
    }
  }
  return null
}

async function report(verdict: Verdict, wishes: Wishes): Promise<void> {
  say(`\nSeed ${verdict.seed} at commit ${commit()}: ${verdict.failure}\n`)
  const deadline = performance.now() + Number(values.shrink) * 1_000
  const short =
    Number(values.shrink) > 0
      ? await shrink((kept) => simulate(databases, verdict.seed, { ...wishes, keep: new Set(kept) }), verdict, deadline)
      : verdict
  say(`The shortest trace found, ${short.shape.actions.length} of ${verdict.shape.actions.length} actions:\n`)
  for (const line of short.trace) say(line)
  const keep = short.shape.actions.map(({ n }) => n).join(',')
  const rest = ['actions', 'policy', 'topology'] as const
  const more = rest.flatMap((name) => (values[name] === undefined ? [] : [`--${name} ${values[name]}`])).join(' ')
  say(
    `\nAgain:          npm run sim -- --seed ${verdict.seed} ${more}\nOnly the short: npm run sim -- --seed ${verdict.seed} ${more} --keep ${keep} --verbose`,
  )
  if (values.save) {
    const kept = JSON.parse(readFileSync(KEPT, 'utf8')) as object[]
    const entry = {
      seed: verdict.seed,
      found: kindAndFacts(verdict.failure ?? ''),
      ...(values.policy && { policy: values.policy }),
    }
    writeFileSync(KEPT, `${JSON.stringify([...kept, entry], null, 2)}\n`)
  }
}

function kindAndFacts(failure: string): string {
  return failure.split('\n')[0]?.slice(0, 160) ?? ''
}

function commit(): string {
  try {
    return execFileSync('git', ['rev-parse', '--short', 'HEAD'], { cwd: import.meta.dirname, stdio: 'pipe' })
      .toString()
      .trim()
  } catch {
    return 'unknown'
  }
}

function say(line: string): void {
  process.stdout.write(`${line}\n`)
}
