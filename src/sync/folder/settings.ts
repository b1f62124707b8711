import { type Pattern, patternFaults, readPattern } from './pattern.ts'
import { fillTemplate, templateFaults, variablesOf } from './template.ts'

/** `s3xml` and `s3json` as Sahana Eden writes and reads them; `json` with versions, exact to the last digit; `csv` for spreadsheets. */
export const FOLDER_FORMATS = ['s3xml', 's3json', 'json', 'csv'] as const
export type FolderFormat = (typeof FOLDER_FORMATS)[number]
/** One file for each resource of a run, one for all of them, or one for each record. */
export const FOLDER_LAYOUTS = ['resource', 'all', 'record'] as const
export type FolderLayout = (typeof FOLDER_LAYOUTS)[number]
/** What becomes of a file that was taken. */
export const FOLDER_AFTER = ['keep', 'delete', 'move'] as const
export type FolderAfter = (typeof FOLDER_AFTER)[number]

/** How a peer that is a folder is read and written. Patterns and folders in it are below `path`, with forward slashes. */
export type FolderSettings = {
  /** Absolute. */
  readonly path: string
  readonly format: FolderFormat
  /** Where files are read in another format than they are written in. */
  readonly readFormat: FolderFormat | null
  /** Pattern of the files that are read, such as `in/*.xml`; null reads nothing. */
  readonly read: string | null
  /** Template of the names of files that are written, such as `out/${resource}-${timestamp}.xml`; null writes nothing. */
  readonly write: string | null
  readonly layout: FolderLayout
  /** With line breaks and indents. */
  readonly readable: boolean
  readonly after: FolderAfter
  /** Where taken files are moved to. */
  readonly done: string
  /** Where files go that cannot be read. */
  readonly quarantine: string
  /** A file is read when two looks so far apart saw the same size and time. */
  readonly settleSeconds: number
}

export type FolderWish = Pick<FolderSettings, 'path'> & {
  readonly [K in keyof FolderSettings]?: FolderSettings[K] | undefined
}

export type FolderFault = { readonly path: string; readonly message: string }

const DEFAULTS: Omit<FolderSettings, 'path'> = {
  format: 's3xml',
  readFormat: null,
  read: null,
  write: null,
  layout: 'resource',
  readable: false,
  after: 'keep',
  done: 'done',
  quarantine: 'quarantine',
  settleSeconds: 2,
}

/** What is wished, with every default in its place. */
export function folderSettings(wish: FolderWish): FolderSettings {
  const given = Object.fromEntries(Object.entries(wish).filter(([, value]) => value !== undefined))
  return { ...DEFAULTS, ...given, path: wish.path }
}

/** The format that files are read in. */
export function readFormatOf({ format, readFormat }: FolderSettings): FolderFormat {
  return readFormat ?? format
}

/** What is wrong with settings, in words. Whether the folder is there and may be used is not looked at. */
export function folderFaults(settings: FolderSettings): readonly FolderFault[] {
  const faults: FolderFault[] = []
  const tell = (path: keyof FolderSettings, message: string) => faults.push({ path, message })
  const { path, read, write, layout, format, done, quarantine, after } = settings
  // biome-ignore lint/suspicious/noControlCharactersInRegex: control characters are what it looks for
  if (!path.startsWith('/') || /[\0-\x1f\x7f]/.test(path) || path.split('/').includes('..'))
    tell('path', 'must be an absolute path without ..')
  if (read === null && write === null)
    tell('read', 'is missing, and so is write: one of them says what the folder is for')
  if (read !== null) for (const message of patternFaults(read)) tell('read', message)
  if (write !== null) for (const message of templateFaults(write)) tell('write', message)
  for (const name of ['done', 'quarantine'] as const)
    if (!/^[A-Za-z0-9_][\w.-]*(?:\/[A-Za-z0-9_][\w.-]*){0,3}$/.test(settings[name]))
      tell(name, 'must be a folder below the path, of letters, digits, dots, underscores and dashes')
  if (done === quarantine) tell('done', 'must be another folder than that of files that cannot be read')
  if (layout === 'all' && format === 'csv' && write !== null)
    tell('layout', 'cannot be all for CSV: a table has one set of columns. Use resource or record')
  const variables = write === null ? [] : variablesOf(write)
  if (layout === 'all' && variables.includes('resource'))
    tell('write', `names \${resource}, and one file is for all of them`)
  if (layout !== 'record' && variables.includes('id'))
    tell('write', `names \${id}, which only goes with one file for each record`)
  if (
    faults.length === 0 &&
    read !== null &&
    write !== null &&
    after !== 'keep' &&
    readsItself(readPattern(read), settings)
  )
    tell('read', 'matches the files that are written: they would be taken away before the other side has them')
  return faults
}

/** Whether what is written is what is read. */
function readsItself(pattern: Pattern, { write }: FolderSettings): boolean {
  const resource = 'a_resource'
  const facts = { resource, id: 'an-id', peer: 'peer', site: 'site', at: 1_700_000_000_000 }
  return pattern.matcher([resource])(fillTemplate(write ?? '', facts)) !== undefined
}
