import { readFileSync } from 'node:fs'

/** Version of this program. From the source the package is two folders up, from what was built three. */
export function programVersion(): string {
  for (const up of ['../..', '../../..']) {
    try {
      const text = readFileSync(`${import.meta.dirname}/${up}/package.json`, 'utf8')
      return (JSON.parse(text) as { readonly version: string }).version
    } catch {}
  }
  return 'unknown'
}
