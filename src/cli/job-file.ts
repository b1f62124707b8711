import { readFile } from 'node:fs/promises'
import { type Document, isNode, LineCounter, type Node, parseDocument } from 'yaml'
import { SynclineError } from '../sync/index.ts'

/** Definitions of jobs as a file has them, and where in the file each part of them stands. */
export type JobFile = {
  readonly jobs: readonly unknown[]
  /** Line of what a JSON Pointer into the list names, from 1. */
  readonly lineOf: (pointer: string) => number
}

export type Fault = { readonly path: string; readonly message: string }

const BYTES_MAX = 16 * 1024 * 1024

/** Reads one job, a list of jobs, or `jobs:` with a list, in YAML or JSON. Errors: SYNC_REQUEST_INVALID with every fault and its line. */
export async function readJobFile(file: string, stdin: AsyncIterable<Uint8Array | string>): Promise<JobFile> {
  return jobsOf(file, await readYaml(file, stdin))
}

/** What a file holds, and where in it what a JSON Pointer names stands. */
export type YamlFile = { readonly content: unknown; readonly lineOf: (pointer: string) => number }

/** Errors: SYNC_REQUEST_INVALID with every fault and its line. */
export async function readYaml(file: string, stdin: AsyncIterable<Uint8Array | string>): Promise<YamlFile> {
  const text = await textOf(file, stdin)
  const lines = new LineCounter()
  const document = parseDocument(text, { prettyErrors: false, lineCounter: lines, stringKeys: true, logLevel: 'error' })
  const problems = [...document.errors, ...document.warnings]
  if (problems.length > 0)
    throw invalid(problems.map(({ pos, message }) => `${file}:${lines.linePos(pos[0]).line}: ${message}`))
  return { content: contentOf(document, file), lineOf: (pointer) => lineOf(document, lines, pointer) }
}

/** The jobs of a file. Errors: SYNC_REQUEST_INVALID. */
export function jobsOf(file: string, { content, lineOf }: YamlFile): JobFile {
  const [jobs, prefix] = jobsIn(content)
  if (jobs === undefined) throw invalid([`${file}:1: must be one job, a list of jobs, or jobs: with a list`])
  // A single job has no place in a list.
  return { jobs, lineOf: (pointer) => lineOf(prefix === null ? pointer.replace(/^\/\d+/, '') : `${prefix}${pointer}`) }
}

/** Every fault with file and line. Throws SYNC_REQUEST_INVALID when there are any. */
export function refuseFaults(file: string, { lineOf }: JobFile, faults: readonly Fault[]): void {
  if (faults.length === 0) return
  const told = faults
    .map(({ path, message }) => ({ line: lineOf(path), text: `${path.replace(/^\/\d+/, '') || '/'} ${message}` }))
    .sort((a, b) => a.line - b.line)
  throw invalid(told.map(({ line, text }) => `${file}:${line}: ${text}`))
}

function contentOf(document: Document, file: string): unknown {
  try {
    return document.toJS({ maxAliasCount: 100 })
  } catch (error) {
    throw invalid([`${file}:1: ${(error as Error).message}`])
  }
}

/** Where the list of jobs begins: the pointer before the place in the list. A single job has no place of its own. */
function jobsIn(content: unknown): readonly [readonly unknown[] | undefined, string | null] {
  if (Array.isArray(content)) return [content, '']
  if (typeof content !== 'object' || content === null) return [undefined, '']
  if ('jobs' in content) return [Array.isArray(content.jobs) ? content.jobs : undefined, '/jobs']
  return [[content], null]
}

function lineOf(document: Document, lines: LineCounter, pointer: string): number {
  const keys = pointer
    .split('/')
    .slice(1)
    .map((part) => part.replaceAll('~1', '/').replaceAll('~0', '~'))
  // What is missing is told at the place where it should be.
  for (let length = keys.length; length >= 0; length--) {
    const node = (length === 0 ? document.contents : document.getIn(keys.slice(0, length).map(asKey), true)) as
      | Node
      | undefined
    if (isNode(node) && node.range != null) return lines.linePos(node.range[0]).line
  }
  return 1
}

function asKey(part: string): string | number {
  return /^\d+$/.test(part) ? Number(part) : part
}

async function textOf(file: string, stdin: AsyncIterable<Uint8Array | string>): Promise<string> {
  if (file !== '-')
    return readFile(file, 'utf8').catch((cause: NodeJS.ErrnoException) => {
      throw invalid([`${file}: ${cause.code === 'ENOENT' ? 'there is no such file' : cause.message}`])
    })
  const chunks: Buffer[] = []
  let bytes = 0
  for await (const chunk of stdin) {
    bytes += chunk.length
    if (bytes > BYTES_MAX) throw invalid([`standard input is larger than ${BYTES_MAX} bytes`])
    chunks.push(Buffer.from(chunk))
  }
  return Buffer.concat(chunks).toString('utf8')
}

export function invalid(lines: readonly string[]): SynclineError {
  return new SynclineError('SYNC_REQUEST_INVALID', lines.join('\n'))
}
