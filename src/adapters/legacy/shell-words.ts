/** A text as the words that a shell would make of it; `needsShell` names what only a shell can do. */
export type Words = { readonly words: readonly string[]; readonly needsShell: string | undefined }

const EXPANDED = /[$`*?[\]{}~;|&<>()#!\n]/

/**
 * Takes a command line apart at spaces, with quotes and backslashes. Where a character stands unquoted that a shell would act on, it is named: the
 * words are then not what a shell would make of it.
 */
export function shellWords(text: string): Words {
  const words: string[] = []
  let word: string | undefined
  let needsShell: string | undefined
  for (let index = 0; index < text.length; index++) {
    const char = text[index] ?? ''
    if (char === ' ' || char === '\t') {
      if (word !== undefined) words.push(word)
      word = undefined
      continue
    }
    word ??= ''
    if (char === "'") {
      const end = text.indexOf("'", index + 1)
      if (end === -1) return { words, needsShell: 'a quote that does not end' }
      word += text.slice(index + 1, end)
      index = end
    } else if (char === '"') {
      const quoted = /^"((?:[^"\\]|\\[\s\S])*)"/.exec(text.slice(index))
      if (quoted === null) return { words, needsShell: 'a quote that does not end' }
      const inside = quoted[1] ?? ''
      if (/[$`]/.test(inside.replaceAll(/\\[\s\S]/g, ''))) needsShell ??= inside.includes('$') ? '$' : '`'
      word += inside.replaceAll(/\\(["\\$`])/g, '$1')
      index += quoted[0].length - 1
    } else if (char === '\\') {
      word += text[++index] ?? ''
    } else {
      // A # begins a comment, and a ~ is a home, only where a word begins; no file has the name of an option, so that a pattern in one stays.
      const inert = word !== '' && (/[#~]/.test(char) || (word.startsWith('-') && /[*?[\]]/.test(char)))
      if (EXPANDED.test(char) && !inert) needsShell ??= char
      word += char
    }
  }
  if (word !== undefined) words.push(word)
  return { words, needsShell }
}
