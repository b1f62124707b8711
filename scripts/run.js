// `node scripts/run.js TASK [argument …]`: sets up what the task needs, then does its steps with Node 24. Every npm script is one task.
import { cpSync, existsSync, readdirSync, rmSync } from 'node:fs'
import { join } from 'node:path'
import { tellFailures } from './failures.js'
import { environmentFor, fail, findNode, installDependencies, installParts, PARTS, ROOT, run, say } from './setup.js'

const check = [
  step('Checking style (biome)', 'biome', 'check', '--error-on-warnings'),
  step('Checking types (tsc)', 'tsc'),
  step('Checking for what nobody uses (knip)', 'knip'),
  step('Checking the OpenAPI document (redocly)', 'redocly', 'lint', 'openapi/syncline.openapi.json'),
]

/** A task: the parts of the system it needs, its steps in order, and what its arguments go to (always the last step). */
const TASKS = {
  test: {
    parts: Object.keys(PARTS),
    steps: [
      ...check,
      step('Preparing tap', 'tap', 'build'),
      { ...step('Running the tests', 'tap'), failed: () => tellFailures(join(ROOT, '.tap/test-results')) },
    ],
  },
  demo: { steps: [program('demo/main.ts')] },
  bench: { parts: ['postgresql', 'rsync', 'openssh'], steps: [program('bench/main.ts')] },
  'bench:faults': { parts: ['postgresql'], steps: [program('bench/faults/main.ts')] },
  sim: { parts: ['postgresql'], steps: [program('test/sim/main.ts')] },
  'sim:mutants': { parts: ['postgresql'], steps: [program('test/sim/plant.ts')] },
  check: { steps: check },
  format: { steps: [step('Formatting', 'biome', 'check', '--write')] },
  golden: { parts: ['postgresql'], steps: [program('scripts/golden.ts')] },
  build: {
    steps: [
      { title: 'Removing dist', call: () => rmSync(join(ROOT, 'dist'), { recursive: true, force: true }) },
      step('Building into dist (tsc)', 'tsc', '-p', 'tsconfig.build.json'),
      { title: 'Copying the OpenAPI document', call: copyOpenapi },
    ],
  },
}

function step(title, name, ...args) {
  return { title, name, args }
}

function program(file) {
  return { name: 'node', args: [file], file }
}

/** The compiled program finds the document where the source does: two folders up. */
function copyOpenapi() {
  const from = join(ROOT, 'openapi')
  if (!existsSync(from)) return
  for (const name of readdirSync(from).filter((name) => name.endsWith('.json'))) {
    cpSync(join(from, name), join(ROOT, 'dist', 'openapi', name))
  }
}

const [name = '', ...rest] = process.argv.slice(2)
if (!Object.hasOwn(TASKS, name)) fail(`Usage: node scripts/run.js ${Object.keys(TASKS).join('|')} [argument …]`, 2)
const { parts = [], steps } = TASKS[name]

const node = await findNode()
await installDependencies(node)
await installParts(parts)
const env = environmentFor(node)

for (const step of steps) {
  if (step.title) say(step.title)
  if (step.call) {
    step.call()
    continue
  }
  if (step.file && !existsSync(join(ROOT, step.file))) fail(`This checkout has no ${step.file}.`)
  const status = await run(step.name, step === steps.at(-1) ? [...step.args, ...rest] : step.args, { env })
  if (status === 0) continue
  if (step.failed) say(step.failed())
  process.exit(status)
}
