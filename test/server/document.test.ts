import { execFile } from 'node:child_process'
import { readdirSync, readFileSync } from 'node:fs'
import { dirname, join } from 'node:path'
import { promisify } from 'node:util'
import { Ajv2020 } from 'ajv/dist/2020.js'
import t from 'tap'
import { file, generate } from '../../scripts/golden/openapi.ts'
import { STATUS } from '../../src/server/problem.ts'
import { ERRORS } from '../../src/sync/index.ts'

const ROOT = join(import.meta.dirname, '../..')
const committed = readFileSync(join(ROOT, file), 'utf8')
const document = JSON.parse(committed)
const examples = join(ROOT, 'openapi/examples')

type Operation = {
  operationId: string
  summary?: string
  tags?: string[]
  description?: string
  parameters?: { name: string; description?: string }[]
  requestBody?: { content: Record<string, unknown> }
}
const operations = Object.entries(document.paths as Record<string, Record<string, Operation>>).flatMap(
  ([path, methods]) => Object.entries(methods).map(([method, operation]) => ({ path, method, operation })),
)

t.test('the committed document is the one that the routes make', async (t) => {
  t.equal(committed, await generate(), 'stale: run npm run golden')
})

t.test('the document passes the linter', async (t) => {
  const cli = join(dirname(new URL(import.meta.resolve('@redocly/cli/package.json')).pathname), 'bin/cli.js')
  const env = { ...process.env, REDOCLY_TELEMETRY: 'off', REDOCLY_SUPPRESS_UPDATE_NOTICE: 'true' }
  const lint = (name: string) =>
    promisify(execFile)(process.execPath, [cli, 'lint', name, '--config', join(ROOT, 'redocly.yaml')], {
      cwd: ROOT,
      env,
    })
  t.match((await lint(file)).stderr, /valid/)
})

t.test('every operation and parameter says what it is', async (t) => {
  t.ok(operations.length > 60)
  for (const { operation } of operations) {
    const { operationId, summary, description, tags = [], parameters = [] } = operation
    t.match(operationId, /^[a-z][A-Za-z]+$/)
    t.ok(summary !== undefined && description !== undefined && tags.length === 1, operationId)
    for (const parameter of parameters) {
      if (!['paused', 'kind', 'managed', 'enabled', 'state', 'accept'].includes(parameter.name))
        t.ok(parameter.description, `${operationId} ${parameter.name}`)
    }
  }
  t.equal(new Set(operations.map(({ operation }) => operation.operationId)).size, operations.length)
})

t.test('every example is a body that its operation takes', async (t) => {
  const ajv = new Ajv2020({ strict: false, allErrors: true, validateFormats: false })
  ajv.addSchema({ $id: 'openapi', ...document })
  const names = readdirSync(examples)
  t.ok(names.length >= 15)
  for (const name of names) {
    const [operationId = '', extension = ''] = name.split('.')
    const found = operations.find(({ operation }) => operation.operationId === operationId)
    const type =
      { json: 'application/json', ndjson: 'application/x-ndjson', csv: 'text/csv', xml: 'application/xml' }[
        extension
      ] ?? ''
    t.ok(found?.operation.requestBody?.content[type], `${name} is sent as ${type}`)
    const text = readFileSync(join(examples, name), 'utf8')
    const place = [found?.path, found?.method, 'requestBody', 'content', type, 'schema'].map((part) =>
      encodeURIComponent((part ?? '').replaceAll('~', '~0').replaceAll('/', '~1')),
    )
    const validate = ajv.compile({ $ref: `openapi#/paths/${place.join('/')}` })
    const values =
      extension === 'json'
        ? [JSON.parse(text)]
        : extension === 'ndjson'
          ? text
              .trim()
              .split('\n')
              .map((line) => JSON.parse(line))
          : []
    for (const value of values) t.ok(validate(value), `${name}: ${ajv.errorsText(validate.errors)}`)
  }
})

t.test('an example that its operation does not take would be found', async (t) => {
  const ajv = new Ajv2020({ strict: false, validateFormats: false })
  ajv.addSchema({ $id: 'openapi', ...document })
  t.notOk(ajv.compile({ $ref: 'openapi#/components/schemas/Batch' })({ changes: [{ data: {} }] }))
})

t.test('every error has a status that fits what helps against it', async (t) => {
  for (const [code, status] of Object.entries(STATUS)) {
    const { retry } = ERRORS[code as keyof typeof ERRORS]
    t.ok(status >= 400 && status < 600, code)
    if (status === 429 || status === 503) t.not(retry, 'never', `${code} is answered with Retry-After`)
    if (retry === 'never') t.ok(status < 500 || code === 'SYNC_INTERNAL', `${code} is a fault of the request`)
  }
})
