import {
  planUpload,
  runUpload,
  type Ssh,
  UPLOAD_SCHEMA,
  type Upload,
  uploadFaults,
  uploadLabel,
} from './adapters/index.ts'
import type { StepHandler } from './jobs/index.ts'

/** `{ upload: { from, sftp, … } }`: files to a host that takes them by SFTP or FTPS. */
export function uploadStep(ssh: Ssh): StepHandler<Upload> {
  const leftOutNotes = (names: readonly string[]) =>
    names.map(
      (name) =>
        `${name} is left out: it has a character in its name that a program on the way would read as something else`,
    )
  return {
    kind: 'upload',
    schema: {
      ...UPLOAD_SCHEMA,
      description: 'Gives files to another host by SFTP or FTPS, each complete before it has its name',
    },
    check: uploadFaults,
    // What was given is given again under the same name, or was let go of.
    repeatable: () => true,
    plan: async (upload) => {
      const { files, bytes, leftOut, to, names } = await planUpload(upload)
      return {
        summary: `would give ${files} ${files === 1 ? 'file' : 'files'} (${bytes} bytes) to ${to}`,
        ...{ files, bytes, notes: [...names, ...leftOutNotes(leftOut)] },
      }
    },
    run: async (upload, { signal, say }) => {
      const { files, bytes, leftOut } = await runUpload(ssh, upload, { signal, say })
      for (const note of leftOutNotes(leftOut)) say(note)
      const message = `${files} ${files === 1 ? 'file' : 'files'} given to ${uploadLabel(upload)} (${bytes} bytes)${leftOut.length === 0 ? '' : `, ${leftOut.length} left out`}`
      return { result: leftOut.length === 0 ? 'success' : 'warning', message, counts: { files, bytes } }
    },
  }
}
