/**
 * `npm run golden` writes every generated file of the repository: documents, the OpenAPI description, the golden files of tests.
 * Each module of scripts/golden/ makes one of them and exports `file`, its path from the root, and `generate()`, its whole text. A test
 * compares the committed file with `generate()`, so that a stale one fails; the diff of a golden file is reviewed like code.
 */
import { mkdirSync, readdirSync, readFileSync, writeFileSync } from 'node:fs'
import { dirname, join } from 'node:path'

export type Generator = { readonly file: string; readonly generate: () => string | Promise<string> }

const ROOT = dirname(import.meta.dirname)
const GENERATORS = join(import.meta.dirname, 'golden')

for (const name of readdirSync(GENERATORS).sort()) {
  const { file, generate } = (await import(join(GENERATORS, name))) as Generator
  const path = join(ROOT, file)
  const text = await generate()
  const changed = read(path) !== text
  mkdirSync(dirname(path), { recursive: true })
  if (changed) writeFileSync(path, text)
  console.log(`${changed ? 'written  ' : 'unchanged'} ${file}`)
}

function read(path: string): string | undefined {
  try {
    return readFileSync(path, 'utf8')
  } catch {
    return undefined
  }
}
