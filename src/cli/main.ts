import { endWithReader } from './output.ts'
import { run } from './program.ts'

const { stdin, stdout, stderr } = process
endWithReader(stdout)
endWithReader(stderr)
process.exitCode = await run(process.argv.slice(2), { stdin, stdout, stderr })
