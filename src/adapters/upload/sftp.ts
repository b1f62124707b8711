import { SynclineError } from '../../sync/index.ts'
import { type ProgramEnd, runProgram } from '../process/program.ts'
import { sshFailure } from '../ssh/failure.ts'
import { hostLabel } from '../ssh/host.ts'
import type { Ssh } from '../ssh/ssh.ts'
import type { SftpPlace } from './settings.ts'

/** A file to be given: where it is here, and its name below the folder there. */
export type Outgoing = { readonly file: string; readonly name: string }

/**
 * Gives files by the sftp of the machine, in one connection: each grows under a temporary name and gets its own when it is complete. Calls `given`
 * for each that has it. Throws SYNC_TRANSFER_… for the first that fails; those before it are there.
 */
export async function giveBySftp(
  ssh: Ssh,
  place: SftpPlace,
  files: readonly Outgoing[],
  { signal, given }: { readonly signal: AbortSignal; readonly given: (file: Outgoing) => Promise<void> },
): Promise<void> {
  const { path, ...host } = place
  const { alias, config } = await ssh.route(host)
  const folder = path.replace(/\/+$/, '') || '/'
  const there = (name: string) => `${folder === '/' ? '' : folder}/${name}`
  const commands: string[] = []
  for (const made of foldersOf(folder, files)) commands.push(`-mkdir "${made}"`)
  for (const { file, name } of files) {
    const temporary = there(temporaryName(name))
    commands.push(`put "${file}" "${temporary}"`, `rename "${temporary}" "${there(name)}"`)
  }
  let end: ProgramEnd
  try {
    end = await runProgram(['sftp', '-F', config, '-b', '-', '--', alias], {
      signal,
      input: `${commands.join('\n')}\n`,
    })
  } catch (cause) {
    signal.throwIfAborted()
    throw new SynclineError(
      'SYNC_TRANSFER_TOOL',
      'there is no sftp on the machine of this site: it comes with the OpenSSH client',
      { cause },
    )
  }
  // It repeats each command before it does it, and ends at the first that fails.
  const begun = end.stdout.split('\n').filter((line) => /^sftp> (?:rename|put|-mkdir) /.test(line))
  const done = begun.slice(0, end.code === 0 ? undefined : -1).filter((line) => line.startsWith('sftp> rename ')).length
  for (const file of files.slice(0, done)) await given(file)
  if (end.code === 0) return
  if (end.code === 255 || end.aborted || end.timedOut) throw sshFailure(end, hostLabel(host))
  const failed = files[done]
  throw sshFailure(
    { ...end, stderr: `${failed === undefined ? '' : `${failed.name}: `}${end.stderr}` },
    hostLabel(host),
  )
}

/** Folders that must be there: that which is named, and those of the names in it. */
function foldersOf(folder: string, files: readonly Outgoing[]): readonly string[] {
  const below = files.flatMap(({ name }) => {
    const parts = name.split('/').slice(0, -1)
    return parts.map((_, n) => `${folder === '/' ? '' : folder}/${parts.slice(0, n + 1).join('/')}`)
  })
  return [...new Set([...(folder === '/' ? [] : [folder]), ...below])]
}

/** Hidden, so that whoever looks there takes it for nothing. */
export function temporaryName(name: string): string {
  const slash = name.lastIndexOf('/') + 1
  return `${name.slice(0, slash)}.${name.slice(slash)}.part`
}
