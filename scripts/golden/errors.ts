import { ERRORS, type ErrorSpec } from '../../src/sync/errors.ts'

export const file = 'docs/errors.md'

const INTRODUCTION = `# Error codes

Generated from \`src/sync/errors.ts\` by \`npm run golden\`; do not edit.

Every failure that the design expects has one of these codes: as \`code\` in the problem document of an HTTP answer, in the log, in the
quarantine, and in what the command line prints. A code keeps its meaning; the message beside it says what happened to what, and why.

Whether the same request may work when it is sent again:

- **never**: the request itself is wrong.
- **later**: waiting may be enough; Syncline's own client retries by itself.
- **after-fix**: a person or a setting must change something first.
`

/** The error table for people, one section a family, in the order of the source. */
export function generate(errors: Readonly<Record<string, ErrorSpec>> = ERRORS): string {
  const families = Map.groupBy(Object.entries(errors), ([code]) => code.split('_').slice(0, 2).join('_'))
  return [INTRODUCTION, ...[...families].map(([family, entries]) => section(family, entries))].join('\n')
}

function section(family: string, entries: readonly (readonly [string, ErrorSpec])[]): string {
  const rows = entries.map(([code, { title, retry, mend }]) => `| \`${code}\` | ${title} | ${retry} | ${mend} |\n`)
  return `## ${family}\n\n| code | what happened | again | what to do |\n|---|---|---|---|\n${rows.join('')}`
}
