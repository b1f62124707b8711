import type { ResourceInfo } from './resources.ts'

/** What a resource is attached as, enough to attach it again. */
export type AttachedAs = Pick<ResourceInfo, 'name' | 'tableSchema' | 'tableName' | 'keyColumn'>

/** The command that attaches a table again, as the resource that it is: it renews the triggers and takes up what was missed. */
export function attachCommand({ name, tableSchema, tableName, keyColumn }: AttachedAs): string {
  const named = name === tableName ? '' : ` --name ${shellWord(name)}`
  return `syncline resource attach ${shellWord(`${tableSchema}.${tableName}`)}${named} --key ${shellWord(keyColumn)}`
}

/** A word that a shell takes as it is. */
function shellWord(text: string): string {
  return /^[\w./-]+$/.test(text) ? text : `'${text.replaceAll("'", "'\\''")}'`
}
