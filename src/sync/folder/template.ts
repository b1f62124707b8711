import { isTemporary, pathFaults } from './pattern.ts'

/** What the name of a file is made with. `at`: milliseconds since 1970. */
export type TemplateFacts = {
  readonly resource: string
  readonly id: string
  readonly peer: string
  readonly site: string
  readonly at: number
}

const VARIABLE = /\$\{([A-Za-z_]*)\}/g
export const TEMPLATE_VARIABLES = [
  ...['year', 'month', 'day', 'hour', 'minute', 'second', 'timestamp'],
  ...['resource', 'id', 'peer', 'site'],
] as const
const LENGTH_MAX = 500
/** Of one variable: file systems take names of 255 bytes. */
const VALUE_MAX = 100

export function variablesOf(template: string): readonly string[] {
  return [...template.matchAll(VARIABLE)].map(([, name = '']) => name)
}

/** What is wrong with a template. */
export function templateFaults(template: string): readonly string[] {
  const faults = [...pathFaults(template)]
  if (template.length > LENGTH_MAX) faults.push(`has more than ${LENGTH_MAX} characters`)
  for (const name of variablesOf(template))
    if (!TEMPLATE_VARIABLES.some((known) => known === name))
      faults.push(
        `has the variable \${${name}}; there is ${TEMPLATE_VARIABLES.map((known) => `\${${known}}`).join(', ')}`,
      )
  if (template.split('/').some((segment) => !segment.startsWith('.') && isTemporary(segment)))
    faults.push('has a name that ends as those of files that are not ready: .part, .tmp, .lock, ~ and the like')
  if (template.replace(VARIABLE, '').includes('$')) faults.push('has a $ that begins no variable')
  return faults
}

/** A name of a file. Times are UTC; what a name cannot hold becomes an underscore. */
export function fillTemplate(template: string, facts: TemplateFacts): string {
  const [date = '', time = ''] = new Date(facts.at).toISOString().slice(0, 19).split('T')
  const [year = '', month = '', day = ''] = date.split('-')
  const [hour = '', minute = '', second = ''] = time.split(':')
  const timestamp = `${year}${month}${day}T${hour}${minute}${second}`
  const { resource, id, peer, site } = facts
  const values: Readonly<Record<string, string>> = {
    year,
    month,
    day,
    hour,
    minute,
    second,
    timestamp,
    resource,
    id,
    peer,
    site,
  }
  const filled = template.replace(VARIABLE, (_, name: string) =>
    (values[name] ?? '').replace(/[^A-Za-z0-9._-]/g, '_').slice(0, VALUE_MAX),
  )
  // Nothing that is made becomes hidden, or a way up, or what everybody passes over as not ready.
  return filled
    .split('/')
    .map((segment) => segment.replace(/^\.+/, '_'))
    .map((segment) => (isTemporary(segment) ? segment.replace(/[.~](?=[^.~]*$)/, '_') : segment))
    .join('/')
}

/** The same name with a number before its ending, for when there is a file of that name. */
export function numbered(name: string, number: number): string {
  const slash = name.lastIndexOf('/')
  const dot = name.indexOf('.', slash + 2)
  return dot === -1 ? `${name}-${number}` : `${name.slice(0, dot)}-${number}${name.slice(dot)}`
}
