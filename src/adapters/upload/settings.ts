import { FOLDER_AFTER, type FolderAfter, patternFaults } from '../../sync/index.ts'
import type { Fault } from '../fault.ts'
import { CONTROL, HOST_MEMBERS, hostFaults, type SshHost } from '../ssh/host.ts'

/** A place on a host that takes files by SFTP. */
export type SftpPlace = SshHost & { readonly path: string }

/** A place on a host that takes files by FTP over TLS. */
export type FtpsPlace = {
  readonly host: string
  readonly port?: number
  readonly user: string
  /** File with the password, on the machine of this site. */
  readonly passwordFile: string
  /** PEM file with the authorities that its certificate may come from; default those of the machine. */
  readonly caFile?: string
  /** `implicit`: encrypted from the first byte on, as on port 990. */
  readonly tls?: 'explicit' | 'implicit'
  readonly path: string
}

/** The settings of a step that gives files to another host, by exactly one of `sftp` and `ftps`. */
export type Upload = {
  /** Folder on the machine of this site. */
  readonly from: string
  /** Pattern of names below it. */
  readonly files?: string
  readonly sftp?: SftpPlace
  readonly ftps?: FtpsPlace
  /** What becomes of a file that was given. */
  readonly after?: FolderAfter
  /** Where files are moved to that were given, below `from`. */
  readonly done?: string
}

const HOST = /^[A-Za-z0-9_](?:[A-Za-z0-9._-]{0,252}[A-Za-z0-9_.])?$/
const PATH_MAX = 4096
const path = (description: string) => ({ type: 'string', minLength: 1, maxLength: PATH_MAX, description })

/** JSON Schema of the settings. */
export const UPLOAD_SCHEMA = {
  type: 'object',
  additionalProperties: false,
  required: ['from'],
  properties: {
    from: path('Folder on the machine of this site, absolute'),
    files: { ...path('Pattern of the files below it, such as *.xml or **/*.csv; default *'), maxLength: 500 },
    sftp: {
      type: 'object',
      additionalProperties: false,
      required: ['host', 'path'],
      description: 'By SFTP, to a host whose key was trusted with `syncline transfer trust`',
      properties: { ...HOST_MEMBERS, path: path('Folder on that host, absolute or below the folder one logs in to') },
    },
    ftps: {
      type: 'object',
      additionalProperties: false,
      required: ['host', 'user', 'passwordFile', 'path'],
      description: 'By FTP over TLS; the machine of this site needs curl',
      properties: {
        host: { type: 'string', description: 'Name or address; its certificate must be for it' },
        port: { type: 'integer', minimum: 1, maximum: 65535, description: 'Default 21, or 990 for implicit' },
        user: { type: 'string', minLength: 1, maxLength: 200, description: 'Account there' },
        passwordFile: path('File with the password, on the machine of this site'),
        caFile: path('PEM file with the authorities that its certificate may come from; default those of the machine'),
        tls: {
          enum: ['explicit', 'implicit'],
          description: 'explicit (default): asked for on the usual port; implicit: from the first byte on',
        },
        path: path('Folder on that host: with a slash in front from its root, else below the folder one logs in to'),
      },
    },
    after: { enum: FOLDER_AFTER, description: 'What becomes of a file that was given: keep (default), delete or move' },
    done: { ...path('Folder below `from` that given files are moved to; default sent'), maxLength: 200 },
  },
} as const

/** What a schema cannot say. */
export function uploadFaults(upload: Upload): Fault[] {
  const { from, files, sftp, ftps, done } = upload
  const faults: Fault[] = []
  const tell = (at: string, message: string) => faults.push({ path: at, message })
  if ((sftp === undefined) === (ftps === undefined)) tell('/sftp', 'or ftps: exactly one of them says where to')
  if (!from.startsWith('/') || CONTROL.test(from)) tell('/from', 'must be an absolute path')
  if (files !== undefined) {
    for (const message of patternFaults(files)) tell('/files', message)
    if (files.includes('${')) tell('/files', 'has no variables here')
  }
  if (done !== undefined && !/^[A-Za-z0-9_][\w.-]*(?:\/[A-Za-z0-9_][\w.-]*){0,3}$/.test(done))
    tell('/done', 'must be a folder below `from`, of letters, digits, dots, underscores and dashes')
  if (sftp !== undefined) {
    faults.push(...hostFaults(sftp, '/sftp'))
    remotePathFaults(sftp.path, '/sftp/path', tell)
  }
  if (ftps === undefined) return faults
  if (!HOST.test(ftps.host)) tell('/ftps/host', 'is not a host name or an address')
  if (CONTROL.test(ftps.user)) tell('/ftps/user', 'has a control character')
  for (const name of ['passwordFile', 'caFile'] as const) {
    const file = ftps[name]
    if (file !== undefined && (!file.startsWith('/') || CONTROL.test(file)))
      tell(`/ftps/${name}`, 'must be an absolute path')
  }
  remotePathFaults(ftps.path, '/ftps/path', tell)
  return faults
}

function remotePathFaults(path: string, at: string, tell: (at: string, message: string) => void): void {
  if (!isPlainName(path)) tell(at, 'has a character that sftp or ftp would read as something else: " \\ * ? [ ]')
  if (path.split('/').includes('..')) tell(at, 'must not lead upwards')
  if (/^[-~]/.test(path)) tell(at, `must not begin with ${path[0]}`)
}

/** A name that no program on the way reads as a pattern, a quote or an option. */
export function isPlainName(name: string): boolean {
  return !CONTROL.test(name) && !/["\\*?[\]]/.test(name)
}
