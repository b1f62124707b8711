/**
 * `npm run sim:mutants`: plants each bug of the table in a copy of the source and shows that the simulation finds it, and that it finds
 * nothing in the source as it is.
 *
 *     npm run sim:mutants                       all of them
 *     npm run sim:mutants -- horizon digest     those whose name holds one of these words
 */
import { spawn } from 'node:child_process'
import { cpSync, mkdtempSync, readFileSync, rmSync, symlinkSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { MUTANTS, type Mutant } from './mutants.ts'

const ROOT = join(import.meta.dirname, '..', '..')
/** Time for one bug to be found. */
const SECONDS = 300

/** A source with a bug in it. Throws when the text to replace is not there exactly once. */
export function mutate(text: string, edit: Mutant['edits'][number], name: string): string {
  const parts = text.split(edit.find)
  if (parts.length !== 2) {
    throw new Error(`"${name}" stands ${parts.length - 1} times in ${edit.file}, not once: adapt test/sim/mutants.ts`)
  }
  return parts.join(edit.put)
}

async function main(words: readonly string[]): Promise<number> {
  const chosen = MUTANTS.filter(({ name }) => words.length === 0 || words.some((word) => name.includes(word)))
  let missed = 0
  if (words.length === 0) {
    const { code, output } = await simulateIn(ROOT, ['--seconds', '60'])
    say(`${code === 0 ? 'nothing ' : 'WRONG   '} in the source as it is: ${lastLine(output)}`)
    if (code !== 0) missed++
  }
  for (const mutant of chosen) {
    const folder = plant(mutant)
    const began = performance.now()
    try {
      const { code, output } = await simulateIn(folder, [...(mutant.options ?? []), '--seconds', String(SECONDS)])
      const found = /^Seed \S+ at commit \S+: .*$/m.exec(output)?.[0].replace(/ at commit \S+/, '')
      const seconds = Math.round((performance.now() - began) / 1_000)
      if (code === 1 && found !== undefined) say(`found    ${mutant.name} (${seconds} s): ${found.slice(0, 170)}`)
      else {
        missed++
        say(`MISSED   ${mutant.name} (${seconds} s): ${lastLine(output)}`)
      }
    } finally {
      rmSync(folder, { recursive: true, force: true })
    }
  }
  return missed
}

function plant(mutant: Mutant): string {
  const folder = mkdtempSync(join(tmpdir(), 'syncline-mutant-'))
  for (const part of ['src', 'migrations', 'openapi', 'test/sim', 'test/support', 'package.json']) {
    cpSync(join(ROOT, part), join(folder, part), { recursive: true })
  }
  symlinkSync(join(ROOT, 'node_modules'), join(folder, 'node_modules'))
  for (const edit of mutant.edits) {
    const path = join(folder, edit.file)
    writeFileSync(path, mutate(readFileSync(path, 'utf8'), edit, mutant.name))
  }
  return folder
}

function simulateIn(folder: string, options: readonly string[]): Promise<{ code: number | null; output: string }> {
  return new Promise((resolve) => {
    const child = spawn(process.execPath, [join(folder, 'test/sim/main.ts'), '--shrink', '0', ...options], {
      cwd: folder,
    })
    let output = ''
    for (const stream of [child.stdout, child.stderr]) stream.on('data', (data: Buffer) => (output += data.toString()))
    child.on('close', (code) => resolve({ code, output }))
  })
}

function lastLine(output: string): string {
  return output.trim().split('\n').at(-1) ?? ''
}

function say(line: string): void {
  process.stdout.write(`${line}\n`)
}

if (process.argv[1] === import.meta.filename) process.exit((await main(process.argv.slice(2))) === 0 ? 0 : 1)
