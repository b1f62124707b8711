/** A process of its own for data-dir.test.ts: opens the data folder named by its argument, says so on standard output and holds it until killed. */
import { openDataDir } from '../../src/config/index.ts'

const [folder = ''] = process.argv.slice(2)
try {
  const dir = await openDataDir(folder)
  await dir.writeAddress(`http://127.0.0.1:${process.pid}`)
  process.stdout.write(`held ${dir.key.toString('base64')}\n`)
  process.on('SIGTERM', () => void dir.release().then(() => process.exit(0)))
  setInterval(() => {}, 60_000)
} catch (error) {
  const { code, message } = error as { code?: string; message: string }
  process.stdout.write(`refused ${code} ${message}\n`)
}
