import { readdirSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import { PassThrough, Readable } from 'node:stream'
import type { Command } from 'commander'
import t from 'tap'
import { buildProgram } from '../../src/cli/program.ts'

const ROOT = join(import.meta.dirname, '../..')

type Line = { readonly where: string; readonly command: string }

/** Lines of shell blocks in every page, with continuations joined. */
function shellLines(): Line[] {
  const guides = readdirSync(join(ROOT, 'docs/guides')).map((name) => `docs/guides/${name}`)
  return ['README.md', 'CONTRIBUTING.md', 'docs/protocol.md', ...guides].flatMap((where) => {
    const text = readFileSync(join(ROOT, where), 'utf8')
    const blocks = [...text.matchAll(/^```sh\n([\s\S]*?)^```/gm)].map(([, block = '']) => block)
    return blocks.flatMap((block) =>
      block
        .replaceAll('\\\n', ' ')
        .split('\n')
        .map((command) => ({ where, command })),
    )
  })
}

/** Words of a simple command as a shell would split them, without redirections; undefined for one that is not of syncline. */
function wordsOf(command: string): string[] | undefined {
  const words = [...command.matchAll(/'[^']*'|"[^"]*"|[^\s'"]+/g)].map(([word]) => word.replace(/^['"]|['"]$/g, ''))
  const [program, ...rest] = words
  if (program !== 'syncline' && program !== 'bin/syncline') return undefined
  const end = rest.findIndex((word) => /^(?:[<>|#]|>>)$/.test(word))
  return end === -1 ? rest : rest.slice(0, end)
}

function leaves(command: Command): readonly Command[] {
  return command.commands.length === 0 ? [command] : command.commands.flatMap(leaves)
}

/** What is wrong with the words of a command line; undefined when the program would perform it. */
async function faultOf(words: readonly string[]): Promise<string | undefined> {
  const sink = new PassThrough()
  const program = await buildProgram({
    streams: { stdin: Readable.from([]), stdout: sink, stderr: sink },
    exit: 0,
    json: false,
  })
  let called = false
  for (const leaf of leaves(program)) {
    leaf.action(() => {
      called = true
    })
  }
  try {
    await program.parseAsync([...words], { from: 'user' })
    return called ? undefined : 'no command was called'
  } catch (error) {
    return (error as Error).message
  }
}

t.test('every command in the guides is one that the program has, with options that it takes', async (t) => {
  const lines = shellLines().flatMap(({ where, command }) => {
    const words = wordsOf(command)
    return words === undefined ? [] : [{ where, command, words }]
  })
  t.ok(lines.length > 50, `${lines.length} commands`)
  for (const { where, command, words } of lines) t.equal(await faultOf(words), undefined, `${where}: ${command}`)
})

t.test('a command that the program has not is found', async (t) => {
  t.same(wordsOf('syncline peer join - --data-dir field < code.txt'), ['peer', 'join', '-', '--data-dir', 'field'])
  t.match(await faultOf(['peer', 'greet', 'hub']), /unknown command/)
  t.match(await faultOf(['task', 'add', 'hub', 'city', '--mode', 'both', '--sometimes']), /unknown option/)
  t.match(await faultOf(['task', 'add', 'hub', '--mode', 'both']), /missing required argument/)
})
