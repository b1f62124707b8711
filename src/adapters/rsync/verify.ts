import { basename, dirname } from 'node:path/posix'
import { shellQuote } from '../ssh/host.ts'
import type { Ssh } from '../ssh/ssh.ts'
import { type ArgvSettings, buildArgv } from './argv.ts'
import { type Listed, listSource } from './listing.ts'
import { type Hashes, hashFiles, manifestHash } from './manifest.ts'
import { REPORT_ITEMS } from './progress.ts'
import { runRsync } from './rsync.ts'
import { hostOf, type Leg, type Place, type Transfer } from './transfer-settings.ts'

/** What was found when a copy was looked at again. Names are bounded; counts are not. */
export type Verdict = {
  /** Not there, or different although the source is as it was. */
  readonly damaged: Names
  /** The source changed while it was copied. */
  readonly changed: Names
  readonly checked: number
  readonly bytes: number
  /** Of the manifest, where there is one. */
  readonly sha256: string | undefined
}

export type Names = { readonly count: number; readonly some: readonly string[] }

/** The sources of a leg with the hash of every file, before it is copied. */
export type Manifest = readonly (Source & { readonly hashes: Hashes })[]
type Source = { readonly place: Place; readonly files: readonly Listed[] }

type Given = {
  readonly ssh: Ssh
  readonly transfer: Transfer
  readonly leg: Leg
  readonly settings: Omit<ArgvSettings, 'more'>
  readonly signal: AbortSignal
}

const NAMES_SHOWN = 10

/** Hashes the sources of a leg. */
export async function makeManifest(given: Given): Promise<Manifest> {
  const { ssh, signal } = given
  const manifest: (Source & { hashes: Hashes })[] = []
  for (const source of await listSources(given)) {
    const names = source.files.map(({ name }) => name)
    const hashes = await hashFiles(ssh, hostOf(source.place), rootOf(source.place), names, signal)
    manifest.push({ ...source, hashes })
  }
  return manifest
}

/** Compares the destination with the manifest, and the sources with what they were when it was made. */
export async function checkManifest(given: Given, manifest: Manifest): Promise<Verdict> {
  const { ssh, leg, signal } = given
  const wanted = new Map<string, { readonly hash: string | undefined; readonly source: Place }>()
  // Where two sources have the same name, rsync takes the one of the first.
  for (const { place, files, hashes } of manifest)
    for (const { name } of files) if (!wanted.has(name)) wanted.set(name, { hash: hashes.get(name), source: place })

  const changed = changedNames(manifest, await listSources(given))
  const { root, nameAt } = await landing(given, manifest)
  const there = await hashFiles(ssh, hostOf(leg.destination), root, [...wanted.keys()].map(nameAt), signal)
  const different = [...wanted].filter(([name, { hash }]) => hash === undefined || there.get(nameAt(name)) !== hash)

  const damaged: string[] = []
  for (const [place, names] of Map.groupBy(
    different.map(([name, { source }]) => ({ name, source })),
    ({ source }) => source,
  )) {
    const now = await hashFiles(
      ssh,
      hostOf(place),
      rootOf(place),
      names.map(({ name }) => name),
      signal,
    )
    for (const { name } of names) {
      const same = now.get(name) !== undefined && now.get(name) === wanted.get(name)?.hash
      if (same) damaged.push(name)
      else changed.add(name)
    }
  }
  const all: Hashes = new Map([...wanted].map(([name, { hash = '' }]) => [name, hash]))
  const bytes = manifest.flatMap(({ files }) => files).reduce((sum, { size }) => sum + size, 0)
  return { damaged: some(damaged), changed: some([...changed]), checked: wanted.size, bytes, sha256: manifestHash(all) }
}

/** Lets rsync look again: what it would still copy or delete has changed since, or did not arrive as it should. */
export async function lookAgain(given: Given, byContent: boolean): Promise<Verdict> {
  const { transfer, leg, settings, signal } = given
  const left: string[] = []
  const more = ['--dry-run', ...(byContent ? ['--checksum'] : []), ...REPORT_ITEMS]
  const { totals } = await runRsync(buildArgv(transfer, leg, { ...settings, more }), leg, {
    signal,
    report: (report) => {
      if (report.kind === 'deleted' || (report.kind === 'item' && /^[<>ch]/.test(report.change))) left.push(report.name)
    },
  })
  const { regular: checked = 0, size: bytes = 0 } = totals
  const names = some(left)
  const none = some([])
  return {
    ...(byContent ? { damaged: names, changed: none } : { damaged: none, changed: names }),
    checked,
    bytes,
    sha256: undefined,
  }
}

async function listSources({ transfer, leg, settings, signal }: Given): Promise<readonly Source[]> {
  const sources: Source[] = []
  for (const place of leg.sources) sources.push({ place, files: await listSource(transfer, place, settings, signal) })
  return sources
}

/** Names whose file came, went or has another size. */
function changedNames(before: readonly Source[], after: readonly Source[]): Set<string> {
  const sizes = (sources: readonly Source[]) =>
    new Map(sources.flatMap(({ files }, index) => files.map(({ name, size }) => [`${index}/${name}`, size] as const)))
  const [old, now] = [sizes(before), sizes(after)]
  const keys = [...new Set([...old.keys(), ...now.keys()])].filter((key) => old.get(key) !== now.get(key))
  return new Set(keys.map((key) => key.slice(key.indexOf('/') + 1)))
}

/** Folder below which rsync names the files of a source: the source itself, or the one it lies in. */
function rootOf(place: Place): string {
  const path = pathOf(place)
  return /\/\.?$/.test(path) ? path : dirname(path)
}

/** Where the files are at the destination. A single file may have been given another name. */
async function landing(
  { ssh, leg, signal }: Given,
  manifest: Manifest,
): Promise<{ readonly root: string; readonly nameAt: (name: string) => string }> {
  const path = pathOf(leg.destination)
  const [only, ...others] = manifest.flatMap(({ place, files }) => files.map(({ name }) => ({ place, name })))
  const single = others.length === 0 && only?.name === basename(pathOf(only?.place ?? ''))
  if (!single || path.endsWith('/')) return { root: path, nameAt: (name) => name }
  const answer = await ssh.script(hostOf(leg.destination), `test -d ${shellQuote(path)} && echo folder\nexit 0\n`, {
    signal,
  })
  if (answer.startsWith('folder')) return { root: path, nameAt: (name) => name }
  return { root: dirname(path), nameAt: () => basename(path) }
}

function pathOf(place: Place): string {
  return typeof place === 'string' ? place : place.path
}

function some(names: readonly string[]): Names {
  return { count: names.length, some: names.slice(0, NAMES_SHOWN) }
}
