import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import t from 'tap'
import { file, generate } from '../../scripts/golden/settings.ts'
import { SETTING_NAMES, variableName } from '../../src/config/index.ts'

t.test('the guide of the settings says what the schema says', async (t) => {
  const text = readFileSync(join(import.meta.dirname, '../..', file), 'utf8')
  t.equal(text, generate(), 'stale: run npm run golden')
  for (const name of SETTING_NAMES)
    t.match(text, new RegExp(`^\\| \`${name}\` +\\| \`${variableName(name)}\` +\\|`, 'm'))
})
