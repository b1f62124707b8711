/** A pattern of file names: `*`, `?`, `[abc]`, `**` for any folders, and `${resource}` for the name of a resource. */
export type Pattern = {
  readonly namesResource: boolean
  /** Tells for a name below the folder whether it fits, and for which of these resources; undefined where it does not. */
  readonly matcher: (resources: readonly string[]) => (name: string) => { readonly resource?: string } | undefined
}

const RESOURCE = `\${resource}`
const LENGTH_MAX = 500
/** More of them make matching slow. */
const WILD_MAX = 12

/** What is wrong with a pattern. */
export function patternFaults(text: string): readonly string[] {
  const faults = [...pathFaults(text)]
  if (text.length > LENGTH_MAX) faults.push(`has more than ${LENGTH_MAX} characters`)
  if ((text.match(/[*?[]/g)?.length ?? 0) > WILD_MAX) faults.push(`has more than ${WILD_MAX} wild characters`)
  if (text.split(RESOURCE).length > 2) faults.push(`names ${RESOURCE} more than once`)
  if (text.replace(RESOURCE, '').includes('$')) faults.push(`has a variable other than ${RESOURCE}`)
  for (const segment of text.split('/'))
    if (segment !== '**' && segment.includes('**'))
      faults.push('has ** beside other characters: it stands for whole folders')
  if (/\[[^\]]*$/.test(text.replace(/\[[^\]]+\]/g, ''))) faults.push('has a [ that is not closed')
  return faults
}

/** What is wrong with a path below the folder, whatever it has of patterns or variables. */
export function pathFaults(text: string): readonly string[] {
  const faults: string[] = []
  // biome-ignore lint/suspicious/noControlCharactersInRegex: control characters are what it looks for
  if (text === '' || /[\0-\x1f\x7f\\]/.test(text))
    faults.push('must be a path, without backslashes and control characters')
  if (text.startsWith('/') || text.endsWith('/')) faults.push('must be a path of files below the folder')
  const segments = text.split('/')
  if (segments.some((segment) => segment.startsWith('.')))
    faults.push('has a name that begins with a dot: these are for what is not ready')
  if (segments.length > 6) faults.push('goes more than five folders down')
  return faults
}

/** Reads a pattern without faults. */
export function readPattern(text: string): Pattern {
  return {
    namesResource: text.includes(RESOURCE),
    matcher: (resources) => {
      // The longest name first: org_office-2026.csv is of org_office, not of org.
      const names = [...resources].sort((a, b) => b.length - a.length || (a < b ? -1 : 1))
      const expression = new RegExp(`^${sourceOf(text, names)}$`, 'u')
      return (name) => {
        const match = expression.exec(name)
        if (match === null) return undefined
        const [, resource] = match
        return resource === undefined ? {} : { resource }
      }
    },
  }
}

function sourceOf(text: string, resources: readonly string[]): string {
  let source = ''
  for (let at = 0; at < text.length; ) {
    const rest = text.slice(at)
    const list = /^\[(!?)([^\]]+)\]/.exec(rest)
    if (rest.startsWith(RESOURCE)) {
      source += resources.length === 0 ? '(?!)' : `(${resources.map(literal).join('|')})`
      at += RESOURCE.length
    } else if (rest.startsWith('**/')) {
      source += '(?:[^/.][^/]*/)*'
      at += 3
    } else if (rest.startsWith('*')) {
      source += '[^/]*'
      at++
    } else if (rest.startsWith('?')) {
      source += '[^/]'
      at++
    } else if (list !== null) {
      source += `[${list[1] === '!' ? '^/' : ''}${(list[2] ?? '').replace(/[\\^[\]]/g, '\\$&')}]`
      at += list[0].length
    } else {
      const character = String.fromCodePoint(rest.codePointAt(0) ?? 0)
      source += literal(character)
      at += character.length
    }
  }
  return source
}

function literal(text: string): string {
  return text.replace(/[\\^$.*+?()[\]{}|/]/g, '\\$&')
}

/** Names that mark a file as not ready: by a dot in front, or an ending that programs give to what they are writing. */
export function isTemporary(name: string): boolean {
  return (
    name.startsWith('.') ||
    name.endsWith('~') ||
    /\.(?:part|partial|tmp|temp|filepart|crdownload|download|swp|lock)$/i.test(name)
  )
}
